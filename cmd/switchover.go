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

const switchoverLong = `Makes another member the primary in order: routers hold new transactions, the primary stops, which ends the sessions on it
(57P01), the successor has every byte, takes over, and routers go on. No acknowledged write is lost. The wish goes to a
member's API where a token is given, else into Consul. A person at a terminal is asked first. The command waits for the outcome and exits with 1 where it is refused or given up.`

const switchoverExample = "howdah switchover --cluster shop --to pg2 --api-token-file /etc/howdah/secrets/api.token"

// Switchover makes another member the primary.
type Switchover struct {
	TokenAccess
	// To is the member wanted; empty for the best candidate.
	To string
	// Yes asks nobody.
	Yes bool
	// Timeout is how long to wait for the outcome.
	Timeout time.Duration

	stdio Stdio
}

// NewSwitchover returns a Switchover with its defaults.
func NewSwitchover(stdio Stdio) *Switchover { return &Switchover{Timeout: time.Minute, stdio: stdio} }

// Declare implements Command.
func (c *Switchover) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Switchover")
	s.String(&c.To, "to", "the member that is to be the primary; without it the best candidate", options.Placeholder("NAME"),
		options.Matches(memberName.MatchString, "want a member's name; howdah status shows them"))
	s.Duration(&c.Timeout, "timeout", "how long to wait for the outcome", time.Second, time.Hour)
	s.Bool(&c.Yes, "yes", "do not ask", options.Short("y"))
	c.declareToken(s, func() bool { return len(c.API) > 0 })
}

// Validate returns every mistake at once.
func (c *Switchover) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *Switchover) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	v, err := c.view(token)
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
	question := fmt.Sprintf("%s is the primary in epoch %d; its sessions end, and %s takes over. Go on?", before.Primary, before.Epoch, orBest(c.To))
	if err := c.stdio.agree(ctx, c.Yes, true, question); err != nil {
		return err
	}
	w := &wait{c: c, v: v, from: before.Primary, epoch: before.Epoch}
	w.remember(ctx, before)
	if token != "" {
		err = c.order(ctx, v, before)
	} else {
		err = c.write(ctx, v, before)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdio.Out, "asked for: %s is the primary in epoch %d, %s is to follow\n", before.Primary, before.Epoch, orBest(c.To))
	return w.run(ctx)
}

func orBest(to string) string {
	if to == "" {
		return "the best candidate"
	}
	return to
}

// refusal finds what cannot be, before anybody is bothered with it. Whether the member may follow its primary knows.
func (c *Switchover) refusal(p statustable.Picture) error {
	switch {
	case p.Primary == "":
		return fmt.Errorf("cluster %s has no primary that could step down; see howdah status", p.Cluster)
	case c.To == p.Primary:
		return fmt.Errorf("%s is the primary already", c.To)
	case c.To != "" && !slices.ContainsFunc(p.Members, func(r statustable.Row) bool { return r.Name == c.To }):
		var names []string
		for _, r := range p.Members {
			if r.Name != p.Primary {
				names = append(names, r.Name)
			}
		}
		return fmt.Errorf("cluster %s has no member %q; choose from %s", p.Cluster, c.To, strings.Join(names, ", "))
	}
	return nil
}

// order asks the primary, and where it cannot be reached any other member. Whatever may have been recorded is
// never asked for again.
func (c *Switchover) order(ctx context.Context, v *view, p statustable.Picture) error {
	rows := slices.Clone(p.Members)
	slices.SortStableFunc(rows, func(a, b statustable.Row) int {
		switch {
		case a.Name == p.Primary:
			return -1
		case b.Name == p.Primary:
			return 1
		}
		return 0
	})
	for _, r := range rows {
		if !r.Answered || r.Addresses.API == "" {
			continue
		}
		_, err := v.members.switchover(ctx, r.Addresses.API, c.To)
		var no refused
		switch {
		case errors.As(err, &no):
			return fmt.Errorf("%s refuses: %w", r.Name, err)
		case err != nil:
			return fmt.Errorf("%s at %s: %w; it is not known whether the wish was recorded, see howdah status", r.Name, r.Addresses.API, err)
		}
		return nil
	}
	return errors.New("no member's API can be reached to ask for the switchover")
}

// write records the wish in Consul itself.
func (c *Switchover) write(ctx context.Context, v *view, p statustable.Picture) error {
	ctx, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	err := v.consul.PutRequest(ctx, schema.Request{ID: rand.Text(), Kind: schema.RequestSwitchover, From: p.Primary, To: c.To, At: time.Now()}, 0)
	if errors.Is(err, consul.ErrConflict) {
		return fmt.Errorf("another request is being carried out; see howdah status: %w", err)
	}
	return err
}

// wait follows a switchover to its end.
type wait struct {
	c     *Switchover
	v     *view
	from  string
	epoch schema.Epoch
	// api is where the old primary answers, and seen the time of its last event before the wish.
	api  string
	seen schema.Instant
	last string
}

// pollInterval is how often the members are asked while waiting.
const pollInterval = 200 * time.Millisecond

// poll asks again and again until ask says that it is done, or fails. Where ctx ends before, the error is why it did.
func poll(ctx context.Context, ask func() (done bool, err error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return overdue{context.Cause(ctx)}
		case <-tick.C:
		}
	}
}

// overdue is what was waited for in vain.
type overdue struct{ error }

func (o overdue) Unwrap() error { return o.error }

func (w *wait) remember(ctx context.Context, p statustable.Picture) {
	for _, r := range p.Members {
		if r.Name == w.from {
			w.api = r.Addresses.API
		}
	}
	for _, e := range w.events(ctx) {
		w.seen = schema.Latest(w.seen, e.At)
	}
}

// events are those of the old primary; none where it does not answer, as while it restarts.
func (w *wait) events(ctx context.Context) []schema.Event {
	if w.api == "" {
		return nil
	}
	events, err := w.v.members.events(ctx, w.api)
	if err != nil {
		return nil
	}
	return events
}

func (w *wait) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.c.Timeout, fmt.Errorf("no outcome within %s", w.c.Timeout))
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		p, err := w.v.look(ctx)
		if err != nil {
			return false, nil
		}
		w.tell(p)
		if p.Epoch > w.epoch && p.Primary != "" {
			return true, w.ended(p)
		}
		return false, w.givenUp(ctx)
	})
	if errors.As(err, new(overdue)) {
		return fmt.Errorf("%w; the wish stands, and may still be carried out; see howdah status", err)
	}
	return err
}

func (w *wait) ended(p statustable.Picture) error {
	if w.c.To != "" && p.Primary != w.c.To {
		return fmt.Errorf("%s is the primary now, in epoch %d, and not %s", p.Primary, p.Epoch, w.c.To)
	}
	if p.Primary == w.from {
		return fmt.Errorf("%s is the primary again, in epoch %d", p.Primary, p.Epoch)
	}
	fmt.Fprintf(w.c.stdio.Out, "done: %s is the primary in epoch %d\n", p.Primary, p.Epoch)
	return nil
}

// givenUp finds the refusal among what the old primary has recorded since.
func (w *wait) givenUp(ctx context.Context) error {
	for _, e := range w.events(ctx) {
		if e.At > w.seen && e.Kind == schema.EventActionFail && strings.HasPrefix(e.Detail, "switchover") {
			return fmt.Errorf("%s: %s", e.By, e.Detail)
		}
	}
	return nil
}

// tell prints a line whenever the reign has come further.
func (w *wait) tell(p statustable.Picture) {
	if p.Leader == nil {
		return
	}
	line := fmt.Sprintf("%s in epoch %d: %s", p.Leader.Member, p.Leader.Epoch, p.Leader.Phase)
	if line != w.last {
		fmt.Fprintln(w.c.stdio.Out, line)
		w.last = line
	}
}
