package clienttest_test

import (
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
)

// difference is a step that went otherwise.
type difference struct{ step, direct, routed string }

// differ compares what was said of the steps. A line without a step, as psql has them, belongs to the step before it.
func differ(direct, routed []string) (found []difference) {
	type said struct {
		steps   []string
		results map[string]string
	}
	read := func(lines []string) said {
		s := said{results: map[string]string{}}
		for _, line := range lines {
			step, result, is := strings.Cut(line, ": ")
			if _, again := s.results[step]; (!is || again || strings.ToUpper(step) == step) && len(s.steps) > 0 {
				s.results[s.steps[len(s.steps)-1]] += " / " + line
				continue
			}
			s.steps = append(s.steps, step)
			s.results[step] = result
		}
		return s
	}
	d, r := read(direct), read(routed)
	for _, step := range d.steps {
		if got, is := r.results[step]; !is {
			found = append(found, difference{step, d.results[step], "(nothing)"})
		} else if got != d.results[step] {
			found = append(found, difference{step, d.results[step], got})
		}
	}
	for _, step := range r.steps {
		if _, is := d.results[step]; !is {
			found = append(found, difference{step, "(nothing)", r.results[step]})
		}
	}
	return found
}

// accepted are the differences of testdata/differences.txt.
type accepted struct {
	mu      sync.Mutex
	entries []*entry
}

type entry struct {
	line                 int
	client, route        string // as path.Match has them
	step, direct, routed string
	used                 bool
}

// parseDifferences reads lines of `client | route | step | directly | through the router | reason`; # begins a comment.
func parseDifferences(text string) (*accepted, error) {
	a := &accepted{}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		for j := range f {
			f[j] = strings.TrimSpace(f[j])
		}
		if len(f) != 6 || f[5] == "" {
			return nil, fmt.Errorf("line %d: want client | route | step | directly | through the router | reason", i+1)
		}
		for _, pattern := range f[:2] {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, fmt.Errorf("line %d: %q: %w", i+1, pattern, err)
			}
		}
		a.entries = append(a.entries, &entry{line: i + 1, client: f[0], route: f[1], step: f[2], direct: f[3], routed: f[4]})
	}
	return a, nil
}

func readDifferences(t *testing.T) *accepted {
	t.Helper()
	text, err := os.ReadFile("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseDifferences(string(text))
	if err != nil {
		t.Fatalf("testdata/differences.txt: %v", err)
	}
	return a
}

func (a *accepted) covers(client, route string, d difference) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	found := false
	for _, e := range a.entries {
		c, _ := path.Match(e.client, client)
		r, _ := path.Match(e.route, route)
		if c && r && e.step == d.step && e.direct == d.direct && e.routed == d.routed {
			e.used, found = true, true
		}
	}
	return found
}

func (a *accepted) unused() (lines []string) {
	for _, e := range a.entries {
		if !e.used {
			lines = append(lines, fmt.Sprintf("line %d: %s, %s, %s", e.line, e.client, e.route, e.step))
		}
	}
	return lines
}

func TestDiffer(t *testing.T) {
	direct := []string{"a: 1", "b: as follows", "x|y", "ERROR:  22012", "c: 3"}
	for name, k := range map[string]struct {
		routed []string
		want   string
	}{
		"equal":      {direct, "[]"},
		"a result":   {[]string{"a: 2", "b: as follows", "x|y", "ERROR:  22012", "c: 3"}, "[{a 1 2}]"},
		"a line":     {[]string{"a: 1", "b: as follows", "x|y", "c: 3"}, "[{b as follows / x|y / ERROR:  22012 as follows / x|y}]"},
		"one less":   {direct[:4], "[{c 3 (nothing)}]"},
		"one more":   {append([]string{"z: 0"}, direct...), "[{z (nothing) 0}]"},
		"said twice": {append([]string{"a: 1"}, direct...), "[{a 1 1 / a: 1}]"},
	} {
		if got := fmt.Sprint(differ(direct, k.routed)); got != k.want {
			t.Errorf("%s: %s, want %s", name, got, k.want)
		}
	}
}

func TestDifferencesNeedAReason(t *testing.T) {
	for _, text := range []string{"a | b | c | d | e", "a | b | c | d | e | ", "a|b|c|d|e|f", "[ | b | c | d | e | f"} {
		if _, err := parseDifferences("# comment\n\n" + text); err == nil || !strings.HasPrefix(err.Error(), "line 3: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
	a, err := parseDifferences("pg* | * | process | true | false | because")
	if err != nil {
		t.Fatal(err)
	}
	if a.covers("psql", "rw", difference{"process", "true", "false"}) || a.covers("pgx", "rw", difference{"process", "true", "x"}) || len(a.unused()) != 1 {
		t.Error("covers what it does not say")
	}
	if !a.covers("pgx", "rw", difference{"process", "true", "false"}) || len(a.unused()) != 0 {
		t.Error("does not cover what it says")
	}
}
