package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/schema"
)

const removeLong = `Makes a cluster forget a member that is gone for good: its document in Consul is removed, and with it its replication slot
on the others, which would hold WAL back for it. Its data directory is not touched. A member that lives is not
removed: stop its sidecar first.`

const removeExample = "howdah remove --cluster shop pg3"

// Remove forgets a member.
type Remove struct {
	ConsulAccess
	// Name is the member.
	Name string
	// APICAFile is for members whose API speaks https.
	APICAFile string
	// Force removes a member that seems to live.
	Force bool

	stdio Stdio
}

// NewRemove returns a Remove with its defaults.
func NewRemove(stdio Stdio) *Remove { return &Remove{stdio: stdio} }

// Declare implements Command.
func (c *Remove) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Removal")
	s.Bool(&c.Force, "force", "also if the member seems to live; a sidecar that runs comes back by itself")
	s.String(&c.APICAFile, "api-ca-file", "PEM certificates of whoever signed the APIs': they speak https", options.Placeholder("FILE"))
}

// Validate returns every mistake at once.
func (c *Remove) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *Remove) ArgumentsUse() string { return "NAME" }

// Arguments implements argued.
func (c *Remove) Arguments(words []string) error { return oneName(words, &c.Name) }

// oneName takes the name of one member.
func oneName(words []string, name *string) error {
	if len(words) != 1 || !memberName.MatchString(words[0]) {
		return errors.New("name one member; howdah status shows them")
	}
	*name = words[0]
	return nil
}

// Run implements Command.
func (c *Remove) Run(ctx context.Context) error {
	client, state, err := c.open(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(state.Members, func(d schema.Doc[schema.Member]) bool { return d.Value.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("cluster %s has no member %q; it has %s", c.Cluster, c.Name, strings.Join(memberNames(state), ", "))
	}
	if l := state.Leader; l.Held() && l.Leader.Member == c.Name {
		return fmt.Errorf("%s holds the lock in epoch %d: it is the primary, or was until just now; howdah switchover first", c.Name, l.Leader.Epoch)
	}
	if !c.Force {
		if why := c.lives(ctx); why != "" {
			return fmt.Errorf("%s is not removed: %s; stop its sidecar first, or say --force", c.Name, why)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	if err := client.DeleteMember(ctx, c.Name, state.Members[i].Index); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdio.Out, "%s is no member of cluster %s any more; its data directory is as it was\n", c.Name, c.Cluster)
	return err
}

func memberNames(state schema.ClusterState) []string {
	var names []string
	for _, d := range state.Members {
		names = append(names, d.Value.Name)
	}
	return names
}

// lives says how it is known that the member lives; nothing if neither it nor another member says so.
func (c *Remove) lives(ctx context.Context) string {
	v, err := ClusterAccess{Cluster: c.Cluster, Consul: c.Consul, APICAFile: c.APICAFile}.view("")
	if err != nil {
		return err.Error()
	}
	p, err := v.look(ctx)
	if err != nil {
		return "whether it lives cannot be told: " + err.Error()
	}
	i := slices.IndexFunc(p.Members, func(r statustable.Row) bool { return r.Name == c.Name })
	if i < 0 {
		return ""
	}
	r := p.Members[i]
	switch {
	case r.Answered:
		return "its sidecar answers at " + r.Addresses.API
	case r.HeardAgo >= 0 && (r.Liveness == schema.LivenessAlive || r.Liveness == schema.LivenessSuspect):
		return fmt.Sprintf("another member calls it %s", r.Liveness)
	}
	return ""
}
