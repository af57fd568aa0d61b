package options

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one mistake in the options of a command.
type Problem struct {
	// From is where it was made: "flag --lease", "environment HOWDAH_LEASE",
	// "/etc/howdah.yaml: lease", or "option --lease" where no source gave a value.
	From string
	// Value is what was written, empty where nothing was or where it is a secret.
	Value string
	// Advice says what is wrong and what is allowed.
	Advice string
}

// Error returns one line.
func (p Problem) Error() string {
	if p.Value == "" {
		return p.From + ": " + p.Advice
	}
	return fmt.Sprintf("%s: %q is not allowed; %s", p.From, p.Value, p.Advice)
}

// Problems are all mistakes found, in the order of the sources and of the declarations.
type Problems []Problem

// Error returns one line for each mistake.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// ErrOptions is matched by errors.Is for every mistake in options.
var ErrOptions = errors.New("the options are wrong")

// Is reports whether target is ErrOptions.
func (p Problems) Is(target error) bool { return target == ErrOptions }

func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Problem makes a mistake of the option called name out of advice, with its value and source.
// It panics if no such option was declared.
func (s *Set) Problem(name, advice string) Problem {
	o := s.find(name)
	if o == nil {
		panic("options: --" + name + " is not declared for " + s.command)
	}
	p := Problem{From: o.source(), Advice: advice}
	if !o.secret && !o.empty() {
		p.Value = o.value()
	}
	return p
}

func (o *Option) source() string {
	switch {
	case o.from != "":
		return o.from
	case o.secret:
		return "environment " + EnvironmentName(o.name)
	}
	return "option --" + o.name
}

// Validate checks the values in force: each option by itself, then the checks over several.
func (s *Set) Validate() error { return s.validate().orNil() }

func (s *Set) validate() Problems {
	var found Problems
	for _, o := range s.options {
		if o.required && o.empty() {
			if !s.partial {
				found = append(found, Problem{From: o.source(), Advice: o.missing()})
			}
			continue
		}
		for _, r := range o.rules {
			if !r.holds() {
				found = append(found, s.Problem(o.name, r.allowed))
			}
		}
	}
	if len(found) == 0 && !s.failed && !s.partial {
		for _, check := range s.checks {
			found = append(found, check()...)
		}
	}
	return found
}

func (o *Option) missing() string {
	if o.secret {
		return "is required"
	}
	return fmt.Sprintf("is required; give --%s, %s or the key %s", o.name, EnvironmentName(o.name), KeyName(o.name))
}

// EnvironmentName returns the variable of an option: HOWDAH_DATA_DIR for data-dir.
func EnvironmentName(name string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// KeyName returns the YAML key of an option: data_dir for data-dir.
func KeyName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// nearest returns the candidate that is a likely misspelling of word; empty if none is near.
func nearest(word string, candidates []string) string {
	best, limit := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < limit {
			best, limit = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, changes and swaps of neighbours that make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

func suggestion(near string) string {
	if near == "" {
		return ""
	}
	return "; did you mean " + near + "?"
}

// Adopt turns the errors that another package joined into mistakes of the options they begin with:
// "lease: 1h is not allowed" is about the option lease. What begins with no option keeps its own words.
func (s *Set) Adopt(err error) []Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var found []Problem
		for _, one := range joined.Unwrap() {
			found = append(found, s.Adopt(one)...)
		}
		return found
	}
	key, rest, _ := strings.Cut(err.Error(), ": ")
	if o := s.find(strings.ReplaceAll(key, "_", "-")); o != nil {
		return []Problem{{From: o.source(), Advice: rest}}
	}
	return []Problem{{From: s.command, Advice: err.Error()}}
}
