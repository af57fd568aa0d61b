package cmd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/boottime"
	"howdah/consul/schema"
)

const reinitLong = `Has a member's data directory cloned anew: what it holds is thrown away once the clone is whole, and is kept if the clone
comes to nothing. Never the primary's, nor while there is nobody to clone from. You are shown what will be lost, and asked.`

const reinitExample = "howdah reinit --cluster shop pg3 --api-token-file /etc/howdah/secrets/api.token"

// Reinit has a member's data directory cloned anew.
type Reinit struct {
	TokenAccess
	// Name is the member.
	Name string
	// Yes asks nobody.
	Yes bool
	// Timeout is how long the clone may take before this command no longer waits for it.
	Timeout time.Duration

	stdio Stdio
}

// NewReinit returns a Reinit with its defaults.
func NewReinit(stdio Stdio) *Reinit { return &Reinit{Timeout: 24 * time.Hour, stdio: stdio} }

// Declare implements Command.
func (c *Reinit) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Reinit")
	s.Bool(&c.Yes, "yes", "do not ask", options.Short("y"))
	s.Duration(&c.Timeout, "timeout", "how long to wait for the clone; it goes on without us", time.Second, 30*24*time.Hour)
	c.declareToken(s, func() bool { return true })
}

// Validate returns every mistake at once.
func (c *Reinit) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *Reinit) ArgumentsUse() string { return "NAME" }

// Arguments implements argued.
func (c *Reinit) Arguments(words []string) error { return oneName(words, &c.Name) }

// Run implements Command.
func (c *Reinit) Run(ctx context.Context) error {
	v, p, err := c.tokenLook(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.Members, func(r statustable.Row) bool { return r.Name == c.Name })
	switch {
	case i < 0:
		return fmt.Errorf("cluster %s has no member %q; howdah status shows them", p.Cluster, c.Name)
	case c.Name == p.Primary:
		return fmt.Errorf("%s is the primary: its data are what the others are cloned from; howdah switchover first", c.Name)
	case !p.Members[i].Answered:
		return fmt.Errorf("%s does not answer here: %s", c.Name, p.Members[i].NoAnswer)
	}
	r := p.Members[i]
	plan, err := v.members.reinitPlan(ctx, r.Addresses.API)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", c.Name, err)
	case plan.Refusal != "":
		return fmt.Errorf("%s refuses: %s", c.Name, plan.Refusal)
	}
	fmt.Fprintf(c.stdio.Out, "%s at %s: %s in %s are thrown away, and cloned anew from %s or from a standby of it with the clonefrom tag\n",
		c.Name, r.Addresses.API, printable(statustable.Bytes(plan.Bytes)), printable(plan.DataDir), plan.From)
	if err := c.stdio.agree(ctx, c.Yes, false, "Throw them away?"); err != nil {
		return err
	}
	began := boottime.Now()
	o := order{v: v, name: c.Name, address: r.Addresses.API, instance: r.Instance, kind: schema.OrderReinit, timeout: c.Timeout, stdio: c.stdio}
	if err := o.run(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdio.Out, "%s: cloned, and streams again, after %s\n", c.Name, boottime.Now().Sub(began).Round(100*time.Millisecond))
	return err
}
