package cmd

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"howdah/cmd/options"
)

const historyLong = `Shows the reigns of a cluster, oldest first: who was the primary from when, on which timeline, and why. They stand in
Consul; a reign is noted once its primary serves.`

const historyExample = "howdah history --cluster shop"

// History shows the reigns of a cluster.
type History struct {
	ConsulAccess
	// Output is table or json.
	Output string

	stdio Stdio
}

// NewHistory returns a History with its defaults.
func NewHistory(stdio Stdio) *History { return &History{Output: "table", stdio: stdio} }

// Declare implements Command.
func (c *History) Declare(s *options.Set) {
	c.declare(s)
	declareOutput(s, &c.Output, "table")
}

// Validate returns every mistake at once.
func (c *History) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *History) Run(ctx context.Context) error {
	_, state, err := c.open(ctx)
	if err != nil {
		return err
	}
	reigns := state.History.Value.Reigns
	if c.Output == "json" {
		return writeJSON(c.stdio, state.History.Value)
	}
	if len(reigns) == 0 {
		_, err := fmt.Fprintln(c.stdio.Out, "no reign is noted yet")
		return err
	}
	table := tabwriter.NewWriter(c.stdio.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "EPOCH\tPRIMARY\tTIMELINE\tFROM LSN\tSINCE\tFOR\tWHY")
	for i, r := range reigns {
		until := time.Now()
		if i+1 < len(reigns) {
			until = reigns[i+1].At
		}
		// Wall clocks of two machines: what they say of a short reign may make no sense.
		lasted := max(0, until.Sub(r.At)).Round(time.Second)
		fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Epoch, printable(r.Member), r.Timeline, r.LSN, wall(r.At), lasted, printable(r.Why))
	}
	return table.Flush()
}
