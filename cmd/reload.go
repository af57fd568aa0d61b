package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/schema"
)

const reloadLong = `Has the members named, or all, read their options again, as far as these may change while a sidecar runs, and has their
Postgres read its configuration files (pg_reload_conf), whoever wrote them. It shows what PostgreSQL finds wrong in them, line by
line, and which settings wait for a restart. A configuration that howdah config changed needs no reload: it reaches the
members by itself.`

// Reload has members read options and files again.
type Reload struct {
	TokenAccess
	// Members are the members to reload; none means all.
	Members []string

	stdio Stdio
}

// NewReload returns a Reload with its defaults.
func NewReload(stdio Stdio) *Reload { return &Reload{stdio: stdio} }

// Declare implements Command.
func (c *Reload) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Reload")
	c.declareToken(s, func() bool { return true })
}

// Validate returns every mistake at once.
func (c *Reload) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *Reload) ArgumentsUse() string { return "[NAME...]" }

// Arguments implements argued.
func (c *Reload) Arguments(words []string) (err error) {
	c.Members, err = membersNamed(words)
	return err
}

// membersNamed returns the words if each may be a member's name.
func membersNamed(words []string) ([]string, error) {
	for _, w := range words {
		if !memberName.MatchString(w) {
			return nil, fmt.Errorf("%q is not a member's name; howdah status shows them", w)
		}
	}
	return slices.Clone(words), nil
}

// allKnown returns an error if a name is no member's.
func allKnown(p statustable.Picture, names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(p.Members, func(r statustable.Row) bool { return r.Name == name }) {
			return fmt.Errorf("cluster %s has no member %q; howdah status shows them", p.Cluster, name)
		}
	}
	return nil
}

// Run implements Command. Its error names the members that are not as their files say.
func (c *Reload) Run(ctx context.Context) error {
	v, err := c.tokenView()
	if err != nil {
		return err
	}
	p, err := v.look(ctx)
	if err != nil {
		return err
	}
	if err := allKnown(p, c.Members); err != nil {
		return err
	}
	var failed []string
	for _, r := range p.Members {
		if len(c.Members) > 0 && !slices.Contains(c.Members, r.Name) {
			continue
		}
		lines := []string{"it does not answer here: " + r.NoAnswer}
		bad := true
		if r.Answered {
			lines, bad = c.one(ctx, v, r)
		}
		if bad {
			failed = append(failed, r.Name)
		}
		for _, line := range lines {
			fmt.Fprintf(c.stdio.Out, "%s: %s\n", r.Name, printable(line))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not everything is as the files say on: %s", strings.Join(failed, ", "))
	}
	return nil
}

// one reloads one member, and returns what there is to say of it and whether something is wrong.
func (c *Reload) one(ctx context.Context, v *view, r statustable.Row) ([]string, bool) {
	report, err := v.members.reload(ctx, r.Addresses.API)
	if err != nil {
		return []string{"not reloaded: " + err.Error()}, true
	}
	return told(report), report.Failed()
}

// told puts a report into lines for people.
func told(r schema.ReloadReport) []string {
	var lines []string
	if r.Options != "" {
		lines = append(lines, "its options stay as they were: "+r.Options)
	}
	if r.Postgres != "" {
		lines = append(lines, "postgres: "+r.Postgres)
	} else {
		lines = append(lines, "reloaded")
	}
	for _, m := range r.Mistakes {
		where := m.File
		if m.Line > 0 {
			where = fmt.Sprintf("%s, line %d", m.File, m.Line)
		}
		if m.Setting != "" {
			where += ", " + m.Setting
		}
		lines = append(lines, where+": "+m.Error)
	}
	if len(r.PendingRestart) > 0 {
		lines = append(lines, "waits for a restart (howdah restart --pending): "+strings.Join(r.PendingRestart, ", "))
	}
	return lines
}
