package cmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul"
	"howdah/consul/schema"
)

const failoverLong = `Makes a member the primary while there is none. By itself a cluster does that without being asked, unless it is paused or
no member may stand. Without --force the member must be one that may. With --force it may lag, lack what synchronous
standbys have, or be on another timeline, and members that were not heard of are done without: what that may cost is
shown, and the cluster's name wanted before it is done. The lease of the last primary must be over in any case. While there
is a primary use howdah switchover, which loses nothing.`

const failoverExample = "howdah failover --cluster shop --to pg2"

// Failover makes a member the primary while there is none.
type Failover struct {
	ClusterAccess
	// To is the member.
	To string
	// Force has it stand where it may not by the rules.
	Force bool
	// Confirm is the cluster's name, for scripts that force; Yes asks nobody where nothing is forced.
	Confirm string
	Yes     bool
	// Timeout is how long to wait before the wish is withdrawn.
	Timeout time.Duration

	stdio Stdio
}

// NewFailover returns a Failover with its defaults.
func NewFailover(stdio Stdio) *Failover { return &Failover{Timeout: 30 * time.Second, stdio: stdio} }

// Declare implements Command.
func (c *Failover) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Failover")
	s.String(&c.To, "to", "the member that is to be the primary", options.Required, options.Placeholder("NAME"),
		options.Matches(memberName.MatchString, "want a member's name; howdah status shows them"))
	s.Bool(&c.Force, "force", "also if it may not stand by the rules: acknowledged writes may be lost")
	s.String(&c.Confirm, "confirm", "the cluster's name, with --force: what a person is asked to type", options.Placeholder("CLUSTER"))
	s.Bool(&c.Yes, "yes", "do not ask, where nothing is forced", options.Short("y"))
	s.Duration(&c.Timeout, "timeout", "how long to wait for the outcome; then the wish is withdrawn", time.Second, time.Hour)
	s.Check(func() []options.Problem {
		if len(c.API) > 0 {
			return []options.Problem{s.Problem("api", "a failover is asked for in Consul: give --cluster and, where needed, --consul-addr")}
		}
		return nil
	})
}

// Validate returns every mistake at once.
func (c *Failover) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *Failover) Run(ctx context.Context) error {
	v, err := c.view("")
	if err != nil {
		return err
	}
	before, err := v.look(ctx)
	if err != nil {
		return err
	}
	if err := c.refusal(before); err != nil {
		return err
	}
	fmt.Fprintf(c.stdio.Out, "%s\n", strings.Join(c.cost(before), "\n"))
	if err := c.agree(ctx); err != nil {
		return err
	}
	// It is about the situation that was shown: in any other it is void.
	r := schema.Request{ID: rand.Text(), Kind: schema.RequestFailover, To: c.To, At: time.Now(), Epoch: before.Epoch, Force: c.Force, By: whoami()}
	if before.Leader != nil {
		r.From, r.LSN = before.Leader.Member, before.Leader.FlushLSN
	}
	// Whoever would have carried out an older request is gone.
	asking, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	err = v.consul.PutRequest(asking, r, v.state.State.Request.Index)
	if errors.Is(err, consul.ErrConflict) {
		return fmt.Errorf("somebody else has asked for something meanwhile; see howdah status: %w", err)
	}
	if err != nil {
		return err
	}
	return c.await(ctx, v, before, r)
}

// refusal finds what cannot be.
func (c *Failover) refusal(p statustable.Picture) error {
	for _, r := range p.Members {
		if r.Answered && r.Role == schema.RolePrimary && r.LeaseLeft > 0 {
			return fmt.Errorf("%s is the primary and its lease is in force: howdah switchover --to %s loses nothing", r.Name, c.To)
		}
	}
	i := slices.IndexFunc(p.Members, func(r statustable.Row) bool { return r.Name == c.To })
	switch {
	case i < 0:
		return fmt.Errorf("cluster %s has no member %q; howdah status shows them", p.Cluster, c.To)
	case !p.Members[i].Answered:
		return fmt.Errorf("%s does not answer here: %s; it cannot take over", c.To, p.Members[i].NoAnswer)
	}
	return nil
}

// cost says what is known of what a failover would lose.
func (c *Failover) cost(p statustable.Picture) []string {
	var to statustable.Row
	var silent, further []string
	for _, r := range p.Members {
		if r.Name == c.To {
			to = r
		}
	}
	lines := []string{fmt.Sprintf("cluster %s has no primary in epoch %d", p.Cluster, p.Epoch)}
	say := func(format string, args ...any) { lines = append(lines, printable(fmt.Sprintf(format, args...))) }
	say("%s has WAL up to %s on timeline %d", to.Name, to.LSN, to.Timeline)
	for _, r := range p.Members {
		switch {
		case r.Name == c.To:
		case !r.Answered:
			silent = append(silent, r.Name)
		case r.Timeline > to.Timeline || r.Timeline == to.Timeline && r.LSN > to.LSN:
			further = append(further, fmt.Sprintf("%s (%s on timeline %d)", r.Name, r.LSN, r.Timeline))
		}
	}
	switch l := p.Leader; {
	case l == nil:
		say("Consul has no leader record: nobody can tell how far the last primary was")
	case l.Timeline != to.Timeline:
		say("the last primary, %s, published %s on timeline %d: what it wrote since their histories part is lost", l.Member, l.FlushLSN, l.Timeline)
	default:
		say("the last primary, %s, published %s: %s lacks %d bytes of that, and whatever came after", l.Member, l.FlushLSN, to.Name, to.LSN.Behind(l.FlushLSN))
	}
	if len(further) > 0 {
		say("further on than %s: %s", to.Name, strings.Join(further, ", "))
	}
	if len(silent) > 0 {
		say("not heard of: %s; what only they have is lost", strings.Join(silent, ", "))
	}
	if p.Leader != nil && p.Leader.Sync.Need > 0 {
		say("replication is synchronous (%s): unless %s has all that these have, commits that were acknowledged are lost", p.Leader.Sync, to.Name)
	}
	return lines
}

// agree asks for the cluster's name where it is forced.
func (c *Failover) agree(ctx context.Context) error {
	if !c.Force {
		return c.stdio.agree(ctx, c.Yes, true, "Have "+c.To+" take over?")
	}
	name := c.Confirm
	if name == "" {
		var err error
		if name, err = c.stdio.ask(ctx, "Acknowledged writes may be lost for good. Type the cluster's name to force it: "); err != nil {
			return err
		}
	}
	if name != c.Cluster {
		return fmt.Errorf("nothing was done: %q is not the cluster's name", name)
	}
	return nil
}

// await follows the wish to its end, and withdraws it where nothing comes of it.
func (c *Failover) await(ctx context.Context, v *view, before statustable.Picture, r schema.Request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("nothing has come of it within %s", c.Timeout))
	defer cancel()
	reason := ""
	err := poll(ctx, func() (bool, error) {
		p, err := v.look(ctx)
		if err != nil {
			return false, nil
		}
		if l := p.Leader; l != nil && l.Epoch > before.Epoch && l.Phase == schema.PhaseServing {
			if l.Member != c.To {
				return true, fmt.Errorf("%s is the primary now, in epoch %d, and not %s", l.Member, l.Epoch, c.To)
			}
			_, err := fmt.Fprintf(c.stdio.Out, "done: %s is the primary in epoch %d\n", c.To, l.Epoch)
			return true, err
		}
		for _, row := range p.Members {
			if row.Name == c.To && row.Answered {
				reason = row.Reason
			}
		}
		return false, nil
	})
	if errors.As(err, new(overdue)) {
		return fmt.Errorf("%w; %s; %s says: %s", err, c.withdraw(v, r), c.To, printable(reason))
	}
	return err
}

// withdraw takes the wish back, and says whether that is certain.
func (c *Failover) withdraw(v *view, r schema.Request) string {
	ctx, cancel := context.WithTimeout(context.Background(), consulTimeout)
	defer cancel()
	state, err := v.consul.ReadState(ctx)
	if err == nil && state.Request.Exists && state.Request.Value.ID == r.ID {
		err = v.consul.DeleteRequest(ctx, state.Request.Index)
	}
	if err != nil {
		return "the wish could not be withdrawn and may still be carried out: " + err.Error()
	}
	return "the wish is withdrawn"
}
