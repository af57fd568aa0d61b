package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"howdah/cmd/explain"
	"howdah/cmd/options"
	"howdah/cmd/statustable"
	"howdah/consul/schema"
)

const whyLong = `Says why the primary is who it is, what happened under its reign and why that did not lead to a failover, and who could
follow it now; or, with a member's name, how that one is and why it may not stand. It rests on what the members have recorded
as they decided: each keeps a journal beside its data directory. Who cannot be asked is named.`

const whyExample = `howdah why --cluster shop
howdah why --cluster shop pg3`

// Why explains a cluster.
type Why struct {
	ClusterAccess
	// Member is the one to explain; empty for the cluster.
	Member string
	// Epoch is the reign to explain; zero for the newest.
	Epoch int
	// Output is text or json.
	Output string

	stdio Stdio
}

// NewWhy returns a Why with its defaults.
func NewWhy(stdio Stdio) *Why { return &Why{Output: "text", stdio: stdio} }

// Declare implements Command.
func (c *Why) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Question")
	s.Int(&c.Epoch, "epoch", "the reign to explain, as howdah history numbers them; 0 for the newest", 0, 1<<31-1)
	declareOutput(s, &c.Output, "text")
}

// Validate returns every mistake at once.
func (c *Why) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *Why) ArgumentsUse() string { return "[NAME]" }

// Arguments implements argued.
func (c *Why) Arguments(words []string) error {
	if len(words) == 0 {
		return nil
	}
	return oneName(words, &c.Member)
}

// Run implements Command.
func (c *Why) Run(ctx context.Context) error {
	if c.Member != "" && c.Epoch != 0 {
		return errors.New("ask about a member or about an --epoch, not about both")
	}
	v, err := c.view("")
	if err != nil {
		return err
	}
	p, err := v.look(ctx)
	if err != nil {
		return err
	}
	q := explain.Question{Cluster: p.Cluster, Epoch: schema.Epoch(c.Epoch), Member: c.Member, Leader: p.Leader}
	if v.consul != nil {
		q.History = v.state.State.History.Value.Reigns
	} else {
		q.Silent = []string{"Consul, because of --api: its history of reigns"}
	}
	v.accounts(ctx, p, &q)
	answer := explain.Explain(q)
	if c.Output == "json" {
		return writeJSON(c.stdio, answer)
	}
	_, err = fmt.Fprint(c.stdio.Out, answer)
	return err
}

// accounts asks every member in the picture at once.
func (v *view) accounts(ctx context.Context, p statustable.Picture, q *explain.Question) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	ask := func(name, address string) {
		wg.Go(func() {
			a, err := v.members.why(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				q.Silent = append(q.Silent, fmt.Sprintf("%s: %v", name, err))
			case a.Member == name && a.Cluster == p.Cluster:
				q.Accounts = append(q.Accounts, plain(*a))
			default:
				q.Silent = append(q.Silent, fmt.Sprintf("%s: member %s of cluster %s answers at its address", name, printable(a.Member), printable(a.Cluster)))
			}
		})
	}
	for _, r := range p.Members {
		if r.Addresses.API == "" {
			q.Silent = append(q.Silent, r.Name+": its API address is not known")
			continue
		}
		ask(r.Name, r.Addresses.API)
	}
	wg.Wait()
	slices.SortFunc(q.Accounts, func(a, b schema.Account) int { return strings.Compare(a.Member, b.Member) })
	slices.Sort(q.Silent)
}

// plain takes out of an account what could do something to a terminal.
func plain(a schema.Account) schema.Account {
	a.Reason = printable(a.Reason)
	for i := range a.Events {
		a.Events[i].Detail = printable(a.Events[i].Detail)
	}
	for i := range a.Candidates {
		a.Candidates[i].Bar = printable(a.Candidates[i].Bar)
	}
	return a
}
