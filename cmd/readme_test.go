package cmd

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"howdah/cmd/options"
)

// TestExamplesAreTrue holds what the help and the README have a person type against the options that there are.
func TestExamplesAreTrue(t *testing.T) {
	t.Parallel()
	stdio, _, _ := testStdio()
	for _, e := range commands(stdio) {
		for _, one := range append([]entry{e}, children(e)...) {
			if one.example == "" && one.name != "version" {
				t.Errorf("howdah %s: its help has no example", one.name)
			}
			for _, line := range typed(strings.Split(one.example, "\n")) {
				understood(t, line)
			}
		}
	}
	var code []string
	for _, line := range readmeLines(t) {
		if line, is := strings.CutPrefix(line, "    "); is {
			code = append(code, strings.TrimPrefix(line, "ExecStart=/usr/local/bin/"))
		}
	}
	for _, line := range typed(code) {
		understood(t, line)
	}
}

// typed are the lines that call howdah, those that go on behind a backslash made one.
func typed(lines []string) []string {
	var calls []string
	for _, line := range strings.Split(strings.ReplaceAll(strings.Join(lines, "\n"), "\\\n", ""), "\n") {
		if strings.HasPrefix(line, "howdah ") && !strings.HasPrefix(line, "howdah --help") {
			calls = append(calls, line)
		}
	}
	return calls
}

func children(e entry) []entry {
	if p, is := e.command.(parent); is {
		return p.Commands()
	}
	return nil
}

func readmeLines(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// A word of the shell, without or with quotes; and what a line of the README says about itself.
var (
	shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)
	remark    = regexp.MustCompile(`\s#.*$`)
)

// understood reports a line that its command would not take. Files need not be there, but for the README's own.
func understood(t *testing.T, line string) {
	t.Helper()
	line = remark.ReplaceAllString(line, "")
	words := shellWord.FindAllString(line, -1)
	for i, w := range words {
		words[i] = strings.Trim(w, `'"`)
	}
	stdio, _, _ := testStdio()
	find := func(among []entry, name string) *entry {
		i := slices.IndexFunc(among, func(e entry) bool { return e.name == name })
		if i < 0 {
			return nil
		}
		return &among[i]
	}
	e, rest := find(commands(stdio), words[1]), words[2:]
	if e == nil {
		t.Errorf("%s: there is no such command", line)
		return
	}
	if len(rest) > 0 {
		if child := find(children(*e), rest[0]); child != nil {
			e, rest = child, rest[1:]
		}
	}
	set, flags := options.New(e.name, e.command), pflag.NewFlagSet(e.name, pflag.ContinueOnError)
	set.AddFlags(flags)
	flags.BoolP("help", "h", false, "")
	if err := flags.Parse(rest); err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if help, _ := flags.GetBool("help"); help {
		return
	}
	words = flags.Args()
	if takes, is := e.command.(argued); is {
		if err := takes.Arguments(words); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	} else if len(words) > 0 {
		t.Errorf("%s: %q is not wanted", line, words)
	}
	readme := func(name string) ([]byte, error) { return []byte(readmeFile(t, name)), nil }
	if err := set.Load(options.Sources{Flags: options.Given(flags), ReadFile: readme}); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// readmeFile is a file as the README shows it, under its name in a comment.
func readmeFile(t *testing.T, name string) string {
	t.Helper()
	lines := readmeLines(t)
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "    # "+name) })
	if i < 0 {
		t.Fatalf("the README does not show %s", name)
	}
	var file strings.Builder
	for _, l := range lines[i:] {
		if !strings.HasPrefix(l, "    ") {
			break
		}
		file.WriteString(strings.TrimPrefix(l, "    ") + "\n")
	}
	return file.String()
}
