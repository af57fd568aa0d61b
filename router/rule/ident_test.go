package rule

import (
	"strings"
	"testing"
)

func mappings(t *testing.T, lines ...string) []Mapping {
	t.Helper()
	var all []Mapping
	for _, line := range lines {
		m, err := ParseMapping(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

func TestAllows(t *testing.T) {
	lines := mappings(t,
		"staff  Jane.Doe          jane   # a name for another",
		`staff  "Jane, the 2nd"   jane2`,
		`staff  /^(.*)@example\.com$ \1`,
		`staff  /^(.*)@guests\.example\.com$  "guest \1 and \1"`,
		`staff  /^admin-          all`,
		`staff  /^ops-(x)?        "\1"`,
		`staff  readers           /^read_[a-z]+$`,
		`staff  "/^O=Big, CN=(\w+)$" \1`,
		`long   /^(a|ab)(c|bcd)?$ \1`,
		"other  Jane.Doe          root",
		`quoted x                 "all"`,
		`quoted y                 "+staff"`,
		`lines  /^(.*)-end$       \1`,
		`most   /^(a|ab)          \1`,
	)
	for _, c := range []struct {
		of, name, user string
		want           bool
	}{
		{"staff", "Jane.Doe", "jane", true},
		{"staff", "Jane.Doe", "Jane.Doe", false}, // with a map a name stands for itself no more
		{"staff", "jane.doe", "jane", false},
		{"staff", "Jane.Doe", "root", false}, // another map's
		{"other", "Jane.Doe", "root", true},
		{"none", "Jane.Doe", "jane", false},
		{"staff", "Jane, the 2nd", "jane2", true},
		{"staff", "bob@example.com", "bob", true},
		{"staff", "bob@example.com", "bob@example.com", false},
		{"staff", "bob@example.com", "alice", false},
		{"staff", "bob@examplexcom", "bob", false},
		{"staff", "bob@example.com.evil", "bob", false},
		{"staff", "@example.com", "", true},
		{"staff", "eve@guests.example.com", `guest eve and \1`, true}, // the first is replaced, once
		{"staff", "admin-1", "postgres", true},
		{"staff", "xadmin-1", "postgres", false},
		{"staff", "ops-x", "x", true},
		{"staff", "ops-y", "", false}, // the part took no part
		{"staff", "readers", "read_all", true},
		{"staff", "readers", "write_all", false},
		{"staff", "O=Big, CN=carol", "carol", true},
		{"long", "abcd", "a", true}, // the whole is as long as it can be
		{"most", "abc", "ab", true}, // of two matches the longer
		{"most", "abc", "a", false},
		{"quoted", "x", "all", true},
		{"quoted", "x", "anybody", false},
		{"quoted", "y", "+staff", true},
		{"lines", "two\nlines-end", "two\nlines", true}, // a dot is any character
		{"lines", "\xff-end", "\xff", false},            // it is no text
	} {
		if got := Allows(lines, c.of, c.name, c.user); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestParseMappingRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                      "0 fields",
		"# all":                 "0 fields",
		"map name":              "2 fields",
		"map name user cert":    "4 fields",
		"map a,b user":          "has a list",
		"map name alice,bob":    "has a list",
		"map name +staff":       "cannot know",
		`map name \1`:           "no regular expression with a part in parentheses",
		`map /^name$ \1`:        "no regular expression with a part in parentheses",
		"map /( user":           "missing closing",
		`map "/(a" user`:        "missing closing",
		`map /(a)\1 user`:       `with \1`,
		`map /\bname user`:      `with \b`,
		`map /\Aname user`:      `with \A`,
		`map /na\Dme user`:      `with \D`,
		`map /a*? user`:         "with *?",
		`map /a+? user`:         "with +?",
		`map /a?? user`:         "with ??",
		`map /a{2}? user`:       "with }?",
		"map /(?i)name user":    "with (?",
		"map /(?:name) user":    "with (?",
		"map /[[:alpha:]] user": "with [:",
		"map /[[.a.]] user":     "with [.",
		"map /[[=a=]] user":     "with [=",
		`map /[^\w] user`:       `with \w`,
		`map name /a*?`:         "with *?",
		"map /***=name user":    "missing argument",
		"map \"x all":           "without its pair",
	} {
		if m, err := ParseMapping(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", line, m, err, want)
		}
	}
	mappings(t, `m /[]*?[(?]a\*\?[^]]\d[\w-] u`, `m /\[:x\]\(\? u`) // none of that is what it looks like
}

func FuzzMapping(f *testing.F) {
	f.Add(`staff "/^(.*)@example\.com$" \1 # so`, "bob@example.com", "bob")
	f.Fuzz(func(t *testing.T, line, name, user string) {
		m, err := ParseMapping(line)
		if err != nil {
			return
		}
		got := Allows([]Mapping{m}, m.Map, name, user)
		if m.system.match == nil && m.user.match == nil && got != (m.system.text == name && (m.user.text == user || m.user.is(user))) {
			t.Errorf("%q: %q as %q: %v", line, name, user, got)
		}
		if got && !Allows(append(mappingsOf("x y z"), m), m.Map, name, user) {
			t.Errorf("%q: another line changes it", line)
		}
	})
}

func mappingsOf(line string) []Mapping {
	m, _ := ParseMapping(line)
	return []Mapping{m}
}
