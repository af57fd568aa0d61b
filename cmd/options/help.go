package options

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// flagText is the state of one flag on the command line; it keeps the text that was given.
type flagText struct {
	option *Option
	text   string
}

func (f *flagText) String() string        { return f.text }
func (f *flagText) Set(text string) error { f.text = text; return nil }
func (f *flagText) Type() string          { return f.option.placeholder }
func (f *flagText) IsBoolFlag() bool      { return f.option.boolean }

// AddFlags makes a flag of every option that is no secret. The flags keep what is given; Load reads it.
func (s *Set) AddFlags(flags *pflag.FlagSet) {
	for _, o := range s.options {
		if o.secret {
			continue
		}
		flag := flags.VarPF(&flagText{option: o}, o.name, o.short, o.usage)
		if o.boolean {
			flag.NoOptDefVal = "true"
		}
	}
}

// Given returns the flags of flags that were given, as Sources wants them.
func Given(flags *pflag.FlagSet) map[string]string {
	given := map[string]string{}
	flags.Visit(func(f *pflag.Flag) {
		if text, ours := f.Value.(*flagText); ours {
			given[f.Name] = text.text
		}
	})
	return given
}

// UnknownFlags returns a mistake for each of args that looks like a flag and is none. The names of the flags
// that are no options ("help") come in others.
func (s *Set) UnknownFlags(args []string, others ...string) Problems {
	var names []string
	for _, o := range s.options {
		if !o.secret {
			names = append(names, o.name)
		}
	}
	names = append(names, others...)
	var found Problems
	for _, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "--")
		if name, _, _ = strings.Cut(name, "="); !isFlag || name == "" {
			continue
		}
		if o := s.find(name); o != nil && o.secret {
			found = append(found, Problem{From: "flag --" + name, Advice: "arguments are public on a machine, so secrets have no flag; set " + EnvironmentName(name) + " or name a file that holds it"})
			continue
		}
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			near := nearest(name, names)
			if near != "" {
				near = "--" + near
			}
			found = append(found, Problem{From: "flag --" + name, Advice: s.command + " has no such flag" + suggestion(near)})
		}
	}
	return found
}

// Names returns the names of all options, secrets included.
func (s *Set) Names() []string {
	names := make([]string, len(s.options))
	for i, o := range s.options {
		names[i] = o.name
	}
	return names
}

// Usage returns the options as the help shows them, in their groups.
func (s *Set) Usage() string {
	var b strings.Builder
	group := "\x00"
	for _, o := range s.options {
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		head := "--" + o.name
		if o.short != "" {
			head = "-" + o.short + ", " + head
		}
		switch {
		case o.secret:
			head = EnvironmentName(o.name) + " (environment only)"
		case !o.boolean:
			head += " " + o.placeholder
		}
		fmt.Fprintf(&b, "  %s\n      %s%s\n", head, o.usage, o.note())
	}
	b.WriteString("\nEvery --some-option is also the variable HOWDAH_SOME_OPTION and the key some_option of the\n" +
		"file that --config names. A flag goes before the environment, the environment before the file.\n")
	return b.String()
}

func (o *Option) note() string {
	switch {
	case o.required && o.fallback == "":
		return " (required)"
	case o.fallback == "" || o.fallback == "false":
		return ""
	}
	return " (default " + o.fallback + ")"
}
