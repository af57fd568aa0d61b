package options

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ConfigName is the option that names the YAML file. Every Set has it.
const ConfigName = "config"

// Set is the options of one command.
type Set struct {
	command string
	config  string
	group   string
	options []*Option
	checks  []func() []Problem
	failed  bool // a source held a value that could not be read
	partial bool // see Sources.Partial
}

// Declarer is a struct of options that binds its fields to a Set.
type Declarer interface {
	// Declare binds every field once. The values that the fields have then are the defaults.
	Declare(*Set)
}

// New returns the Set of a command ("howdah router"), with what d declares.
func New(command string, d Declarer) *Set {
	s := &Set{command: command}
	d.Declare(s)
	s.Group("Configuration")
	s.String(&s.config, ConfigName, "a YAML file with any of these options", Placeholder("FILE"))
	return s
}

// Validate checks values that were put into d without flags, environment or file.
func Validate(d Declarer) error { return New("howdah", d).Validate() }

// Option is one declared option. Rules bound it.
type Option struct {
	name, usage, group, placeholder string
	short                           string
	required, secret, boolean, list bool
	// fallback is the default as people write it; empty for none.
	fallback string
	// from says where the value in force came from; empty for the default.
	from string
	// parse reads the text of a flag or an environment variable.
	parse func(text string) error
	// number says that a YAML number may stand for the text.
	number bool
	// items takes a YAML list; nil where the option is no list.
	items func([]string)
	// value returns the value in force as text; never called for secrets.
	value func() string
	empty func() bool
	rules []rule
}

// rule is a bound on the value in force.
type rule struct {
	holds   func() bool
	allowed string
}

// Secret is a password or token. Printing it in any way shows only whether it is set.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Rule bounds or describes an option.
type Rule func(*Option)

// Required refuses an empty value.
func Required(o *Option) { o.required = true }

// Placeholder is how the help calls the value.
func Placeholder(word string) Rule { return func(o *Option) { o.placeholder = word } }

// Short gives the flag a letter ("o" for -o).
func Short(letter string) Rule { return func(o *Option) { o.short = letter } }

// OneOf allows only these words.
func OneOf(words ...string) Rule {
	return func(o *Option) {
		o.placeholder = strings.Join(words, "|")
		o.rules = append(o.rules, rule{allowed: "choose " + oneOfText(words), holds: func() bool {
			for _, w := range words {
				if o.value() == w {
					return true
				}
			}
			return false
		}})
	}
}

// Matches bounds a non-empty value, or each item of a list, by ok; allowed completes the message ("want host:port").
func Matches(ok func(string) bool, allowed string) Rule {
	return func(o *Option) {
		o.rules = append(o.rules, rule{allowed: allowed, holds: func() bool {
			if o.empty() {
				return true
			}
			if !o.list {
				return ok(o.value())
			}
			for _, item := range splitList(o.value()) {
				if !ok(item) {
					return false
				}
			}
			return true
		}})
	}
}

// Group starts a section of the help; the options declared next stand in it.
func (s *Set) Group(title string) { s.group = title }

// Check adds a check over several options. It runs only when every option by itself could be read.
func (s *Set) Check(f func() []Problem) { s.checks = append(s.checks, f) }

func (s *Set) add(o *Option, name, usage string, rules []Rule) {
	if s.find(name) != nil {
		panic("options: --" + name + " is declared twice for " + s.command)
	}
	o.name, o.usage, o.group = name, usage, s.group
	for _, r := range rules {
		r(o)
	}
	if !o.secret {
		o.fallback = o.value()
	}
	s.options = append(s.options, o)
}

func (s *Set) find(name string) *Option {
	for _, o := range s.options {
		if o.name == name {
			return o
		}
	}
	return nil
}

// String declares an option of any text.
func (s *Set) String(p *string, name, usage string, rules ...Rule) {
	s.add(&Option{
		placeholder: "TEXT",
		parse:       func(text string) error { *p = text; return nil },
		value:       func() string { return *p },
		empty:       func() bool { return *p == "" },
	}, name, usage, rules)
}

// Secret declares a password or token, which only the environment can give.
func (s *Set) Secret(p *Secret, name, usage string, rules ...Rule) {
	s.add(&Option{
		secret: true,
		parse:  func(text string) error { *p = Secret(text); return nil },
		value:  func() string { return p.String() },
		empty:  func() bool { return *p == "" },
	}, name, usage, rules)
}

// Strings declares a list: separated by commas, in YAML also a list.
func (s *Set) Strings(p *[]string, name, usage string, rules ...Rule) {
	s.add(&Option{
		placeholder: "LIST",
		list:        true,
		parse:       func(text string) error { *p = splitList(text); return nil },
		items:       func(items []string) { *p = items },
		value:       func() string { return strings.Join(*p, ",") },
		empty:       func() bool { return len(*p) == 0 },
	}, name, usage, rules)
}

// Bool declares a switch. The flag alone means true.
func (s *Set) Bool(p *bool, name, usage string, rules ...Rule) {
	s.add(&Option{
		boolean: true,
		parse: func(text string) error {
			switch text {
			case "true", "yes", "on", "1":
				*p = true
			case "false", "no", "off", "0":
				*p = false
			default:
				return fmt.Errorf("choose true or false")
			}
			return nil
		},
		value: func() string { return strconv.FormatBool(*p) },
		empty: func() bool { return false },
	}, name, usage, rules)
}

// Int declares a whole number from low to high.
func (s *Set) Int(p *int, name, usage string, low, high int, rules ...Rule) {
	allowed := fmt.Sprintf("choose a whole number from %d to %d", low, high)
	o := &Option{
		placeholder: "NUMBER",
		number:      true,
		parse: func(text string) error {
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("%s", allowed)
			}
			*p = n
			return nil
		},
		value: func() string { return strconv.Itoa(*p) },
		empty: func() bool { return false },
	}
	o.rules = append(o.rules, rule{allowed: allowed, holds: func() bool { return low <= *p && *p <= high }})
	s.add(o, name, usage, rules)
}

// Duration declares a time from low to high.
func (s *Set) Duration(p *time.Duration, name, usage string, low, high time.Duration, rules ...Rule) {
	allowed := fmt.Sprintf("choose a number with a unit, such as 500ms, 3s or 1m, from %s to %s", low, high)
	o := &Option{
		placeholder: "TIME",
		parse: func(text string) error {
			d, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("%s", allowed)
			}
			*p = d
			return nil
		},
		value: func() string { return p.String() },
		empty: func() bool { return false },
	}
	o.rules = append(o.rules, rule{allowed: allowed, holds: func() bool { return low <= *p && *p <= high }})
	s.add(o, name, usage, rules)
}

// splitList takes the empty text for an empty list; empty items are dropped.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func oneOfText(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// Value is one option as it stands.
type Value struct {
	Name string
	// Text is the value in force, Default the one where no source says otherwise. A secret shows only whether it is set.
	Text, Default string
}

// Values returns every option in the order of declaration, without the one that names the file.
func (s *Set) Values() []Value {
	values := make([]Value, 0, len(s.options))
	for _, o := range s.options {
		if o.name != ConfigName {
			values = append(values, Value{Name: o.name, Text: o.value(), Default: o.fallback})
		}
	}
	return values
}
