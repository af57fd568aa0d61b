package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/boottime"
	"howdah/consul/schema"
)

const restartLong = `Restarts the Postgres of the members named, or of all, one after the other and never two at once: standbys first, each
waited for until it streams again, then the primary. The primary is restarted in place: its sessions end, nobody takes over,
and routers hold new transactions meanwhile; with --switchover another member takes over first. A member that does not come
back stops the roll. Ctrl-C stops it before the next member. A Postgres that is down is started.`

const restartExample = `howdah restart --cluster shop --api-token-file /etc/howdah/secrets/api.token
howdah restart --cluster shop --pending --api-token-file /etc/howdah/secrets/api.token`

// Restart restarts members one by one.
type Restart struct {
	TokenAccess
	// Members are the members to restart; none means all.
	Members []string
	// Role restricts the restart to members of one role: primary, standby (or an alias), or any.
	Role string
	// Pending restricts it to members with settings that wait for a restart.
	Pending bool
	// Switchover has another member take over before the primary is restarted.
	Switchover bool
	// Yes asks nobody.
	Yes bool
	// Timeout is how long one member may take.
	Timeout time.Duration

	stdio Stdio
}

// NewRestart returns a Restart with its defaults.
func NewRestart(stdio Stdio) *Restart {
	return &Restart{Role: "any", Timeout: 10 * time.Minute, stdio: stdio}
}

// Declare implements Command.
func (c *Restart) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Restart")
	s.String(&c.Role, "role", "only members of this role", options.OneOf("any", "primary", "standby", "master", "replica"))
	s.Bool(&c.Pending, "pending", "only members with settings that wait for a restart")
	s.Bool(&c.Switchover, "switchover", "have another member take over before the primary is restarted")
	s.Bool(&c.Yes, "yes", "do not ask", options.Short("y"))
	s.Duration(&c.Timeout, "timeout", "how long one member may take", time.Second, 24*time.Hour)
	c.declareToken(s, func() bool { return true })
}

// Validate returns every mistake at once.
func (c *Restart) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *Restart) ArgumentsUse() string { return "[NAME...]" }

// Arguments implements argued.
func (c *Restart) Arguments(words []string) (err error) {
	c.Members, err = membersNamed(words)
	return err
}

// Run implements Command.
func (c *Restart) Run(ctx context.Context) error {
	v, p, err := c.tokenLook(ctx)
	if err != nil {
		return err
	}
	eligible, err := c.eligible(p)
	if err != nil {
		return err
	}
	todo := c.choose(p, eligible, nil)
	if len(todo) == 0 {
		_, err := fmt.Fprintln(c.stdio.Out, "nothing to restart")
		return err
	}
	fmt.Fprintf(c.stdio.Out, "to restart, one after the other: %s%s\n", strings.Join(todo, ", "), c.warning(p, todo))
	if err := c.stdio.agree(ctx, c.Yes, true, "Go on?"); err != nil {
		return err
	}
	var done []string
	for len(todo) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted before %s; restarted: %s", strings.Join(todo, ", "), orNone(done))
		}
		if err := c.one(ctx, v, p, todo[0]); err != nil {
			return fmt.Errorf("%w\nrestarted: %s; not touched: %s", err, orNone(done), orNone(todo[1:]))
		}
		done = append(done, todo[0])
		// Roles may have changed, and what waits for a restart too.
		if p, err = v.look(ctx); err != nil {
			return err
		}
		todo = c.choose(p, eligible, done)
	}
	_, err = fmt.Fprintf(c.stdio.Out, "done: %s\n", strings.Join(done, ", "))
	return err
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// eligible are the members that may be restarted at all: those that were named, or all, of the role as it is now.
func (c *Restart) eligible(p statustable.Picture) ([]string, error) {
	if err := allKnown(p, c.Members); err != nil {
		return nil, err
	}
	role, _ := schema.ParseRole(c.Role)
	var names []string
	for _, r := range p.Members {
		named := slices.Contains(c.Members, r.Name)
		switch {
		case len(c.Members) > 0 && !named, role != schema.RoleUnknown && (role == schema.RolePrimary) != (r.Name == p.Primary):
		case !r.Answered && named:
			return nil, fmt.Errorf("%s does not answer here: %s; it cannot be ordered to restart", r.Name, r.NoAnswer)
		case !r.Answered:
			fmt.Fprintf(c.stdio.Out, "%s does not answer here and is left out: %s\n", r.Name, printable(r.NoAnswer))
		default:
			names = append(names, r.Name)
		}
	}
	return names, nil
}

// choose returns who is still to be restarted, in order.
func (c *Restart) choose(p statustable.Picture, eligible, done []string) []string {
	var chosen []schema.Status
	for _, r := range p.Members {
		times := count(done, r.Name)
		// What was lowered waits on the standbys only once the primary has restarted: then they come a second time.
		again := c.Pending && times < 2
		if slices.Contains(eligible, r.Name) && (times == 0 || again) && (!c.Pending || len(r.PendingRestart) > 0) {
			chosen = append(chosen, r.Status)
		}
	}
	return schema.RestartOrder(chosen)
}

func count(names []string, name string) int {
	n := 0
	for _, x := range names {
		if x == name {
			n++
		}
	}
	return n
}

func (c *Restart) warning(p statustable.Picture, todo []string) string {
	switch {
	case !slices.Contains(todo, p.Primary):
		return ""
	case c.Switchover:
		return "; another member takes over before " + p.Primary + " is restarted"
	}
	return "; sessions on the primary " + p.Primary + " end when it is its turn"
}

// one restarts one member, and returns once it is back.
func (c *Restart) one(ctx context.Context, v *view, p statustable.Picture, name string) error {
	if name == p.Primary && c.Switchover {
		s := NewSwitchover(c.stdio)
		s.TokenAccess, s.Yes = c.TokenAccess, true
		if err := s.Run(ctx); err != nil {
			return fmt.Errorf("%s is not restarted, for nobody took over from it: %w", name, err)
		}
	}
	if err := c.awaitCalm(ctx, v, name); err != nil {
		return err
	}
	i := slices.IndexFunc(p.Members, func(r statustable.Row) bool { return r.Name == name })
	began := boottime.Now()
	o := order{v: v, name: name, address: p.Members[i].Addresses.API, instance: p.Members[i].Instance, kind: schema.OrderRestart, timeout: c.Timeout, stdio: c.stdio}
	if err := o.run(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdio.Out, "%s: back after %s\n", name, boottime.Now().Sub(began).Round(100*time.Millisecond))
	return err
}

// awaitCalm waits until the member may be asked: a switchover that has just ended leaves it busy for a moment.
func (c *Restart) awaitCalm(ctx context.Context, v *view, name string) error {
	if !c.Switchover {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		p, err := v.look(ctx)
		return err == nil && p.Primary != "" && slices.ContainsFunc(p.Members, func(r statustable.Row) bool {
			return r.Name == name && (r.Name == p.Primary || r.State == schema.StateStreaming)
		}), nil
	})
	if err != nil {
		return fmt.Errorf("%s does not stream after the switchover: %w; see howdah status", name, err)
	}
	return nil
}

// order is one order to one member, followed to its end.
type order struct {
	v             *view
	name, address string
	// instance is the member's sidecar as it was before.
	instance string
	kind     schema.OrderKind
	timeout  time.Duration
	stdio    Stdio
}

func (o order) run(ctx context.Context) error {
	reply, err := o.v.members.order(ctx, o.address, o.kind)
	var no refused
	switch {
	case errors.As(err, &no):
		return fmt.Errorf("%s refuses: %w", o.name, err)
	case err != nil:
		return fmt.Errorf("%s at %s: %w; it is not known whether it was begun, see howdah status", o.name, o.address, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("it has not ended within %s", o.timeout))
	defer cancel()
	last := ""
	err = poll(ctx, func() (bool, error) {
		st, err := o.v.members.status(ctx, o.address)
		if err != nil {
			return false, nil
		}
		now := st.Order
		switch {
		case st.Self.Instance != o.instance:
			return true, fmt.Errorf("%s: its sidecar was itself restarted, and has forgotten the order; look at howdah status, and ask again", o.name)
		case now == nil || now.ID != reply.ID: // not told of yet
		case now.Ended && now.Error != "":
			return true, fmt.Errorf("%s: the %s came to nothing: %s", o.name, o.kind, now.Error)
		case now.Ended:
			return true, nil
		case now.Step != last:
			fmt.Fprintf(o.stdio.Out, "%s: %s\n", o.name, now.Step)
			last = now.Step
		}
		return false, nil
	})
	if errors.As(err, new(overdue)) {
		return fmt.Errorf("%s: %w; the %s goes on there by itself, see howdah status", o.name, err, o.kind)
	}
	return err
}
