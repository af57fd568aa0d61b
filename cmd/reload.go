package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/schema"
)

const reloadLong = `Has the members named, or all, read their options again, as far as these may change while a sidecar runs, and has their
Postgres read its configuration files (pg_reload_conf), whoever wrote them. It shows what PostgreSQL finds wrong in them, line by
line, and which settings wait for a restart. A configuration that howdah config changed needs no reload: it reaches the
members by itself.`

const reloadExample = "howdah reload --cluster shop --api-token-file /etc/howdah/secrets/api.token"

// Reload has members read options and files again.
type Reload struct {
	TokenAccess
	// Members are the members to reload; none means all.
	Members []string
	// Output is text or json.
	Output string

	stdio Stdio
}

// NewReload returns a Reload with its defaults.
func NewReload(stdio Stdio) *Reload { return &Reload{Output: "text", stdio: stdio} }

// Declare implements Command.
func (c *Reload) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Reload")
	c.declareToken(s, func() bool { return true })
	declareOutput(s, &c.Output, "text")
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
	v, p, err := c.tokenLook(ctx)
	if err != nil {
		return err
	}
	if err := allKnown(p, c.Members); err != nil {
		return err
	}
	all := c.ask(ctx, v, p)
	if c.Output == "json" {
		err = writeJSON(c.stdio, all)
	}
	var failed []string
	for _, r := range all {
		if r.Error != "" || r.Failed() {
			failed = append(failed, r.Member)
		}
		if c.Output == "json" {
			continue
		}
		for _, line := range r.lines() {
			fmt.Fprintf(c.stdio.Out, "%s: %s\n", printable(r.Member), printable(line))
		}
	}
	if len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("not everything is as the files say on: %s", strings.Join(failed, ", ")))
	}
	return err
}

// reloaded is one member's report. Error is set where there is none.
type reloaded struct {
	Member string `json:"member"`
	Error  string `json:"error,omitempty"`
	schema.ReloadReport
}

func (r reloaded) lines() []string {
	if r.Error != "" {
		return []string{r.Error}
	}
	return told(r.ReloadReport)
}

// ask asks all at the same time: a Postgres that hangs keeps nobody else waiting.
func (c *Reload) ask(ctx context.Context, v *view, p statustable.Picture) []reloaded {
	rows := slices.DeleteFunc(slices.Clone(p.Members), func(r statustable.Row) bool {
		return len(c.Members) > 0 && !slices.Contains(c.Members, r.Name)
	})
	all := make([]reloaded, len(rows))
	var asking sync.WaitGroup
	for i, r := range rows {
		all[i].Member = r.Name
		if !r.Answered {
			all[i].Error = "it does not answer here: " + r.NoAnswer
			continue
		}
		asking.Go(func() {
			report, err := v.members.reload(ctx, r.Addresses.API)
			var no refused
			switch {
			case errors.As(err, &no):
				all[i].Error = "not reloaded: " + err.Error()
			case err != nil:
				all[i].Error = err.Error() + "; it is not known whether it was reloaded"
			default:
				all[i].ReloadReport = report
			}
		})
	}
	asking.Wait()
	return all
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
