package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/schema"
)

const pauseLong = `Puts a cluster into maintenance: until howdah resume nobody takes over from a primary that is gone, no Postgres that an
operator stops is started again, and no data directory is cloned or rewound. What you ask for is still done: switchover,
failover, restart, reinit. The lease and its fence stay: a primary that cannot renew its lease is stopped, paused or not.`

const pauseExample = "howdah pause --cluster shop --why \"a new disk\""

const resumeLong = `Ends the maintenance that howdah pause began. What happened meanwhile is then answered: a primary that is gone is
replaced, a Postgres that is down is started.`

const resumeExample = "howdah resume --cluster shop"

// Pause puts a cluster into maintenance, or ends that.
type Pause struct {
	ConsulAccess
	// Why is for those who wonder.
	Why string
	// Wait is how long the members may take to hear of it.
	Wait time.Duration
	// APICAFile is for members whose API speaks https.
	APICAFile string

	resume bool
	stdio  Stdio
}

// NewPause returns a Pause with its defaults.
func NewPause(stdio Stdio) *Pause { return &Pause{Wait: 10 * time.Second, stdio: stdio} }

// NewResume returns a Pause that ends one.
func NewResume(stdio Stdio) *Pause {
	return &Pause{Wait: 10 * time.Second, resume: true, stdio: stdio}
}

// Declare implements Command.
func (c *Pause) Declare(s *options.Set) {
	c.declare(s)
	s.Group("Pause")
	if !c.resume {
		s.String(&c.Why, "why", "the reason, for those who wonder: howdah status shows it", options.Placeholder("TEXT"))
	}
	s.Duration(&c.Wait, "wait", "how long the members may take to hear of it", time.Second, time.Hour)
	s.String(&c.APICAFile, "api-ca-file", "PEM certificates of whoever signed the APIs': they speak https", options.Placeholder("FILE"))
}

// Validate returns every mistake at once.
func (c *Pause) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *Pause) Run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		client, state, err := c.open(ctx)
		if err != nil {
			return err
		}
		config := state.Config.Value
		if config.Pause == !c.resume {
			return c.tellSo(config)
		}
		config.Pause, config.PauseBy, config.PauseReason = !c.resume, "", c.Why
		if err = changeConfig(ctx, Stdio{In: c.stdio.In, Out: io.Discard, Err: c.stdio.Err}, client, state, config); err == nil {
			return c.await(ctx)
		}
		if !errors.Is(err, consul.ErrConflict) || attempt == configAttempts {
			return err
		}
	}
}

func (c *Pause) tellSo(config schema.ClusterConfig) error {
	state := "not paused"
	if config.Pause {
		state = "paused already" + pausedBy(config)
	}
	_, err := fmt.Fprintf(c.stdio.Out, "cluster %s is %s\n", c.Cluster, printable(state))
	return err
}

// pausedBy says who paused a cluster and why, for a sentence.
func pausedBy(config schema.ClusterConfig) string {
	text := ""
	if config.PauseBy != "" {
		text += " by " + config.PauseBy
	}
	if config.PauseReason != "" {
		text += ": " + config.PauseReason
	}
	return text
}

// await returns once every member that answers has heard of it.
func (c *Pause) await(ctx context.Context) error {
	v, err := ClusterAccess{Cluster: c.Cluster, Consul: c.Consul, APICAFile: c.APICAFile}.view("")
	if err != nil {
		return err
	}
	done := "paused: howdah resume ends it"
	if c.resume {
		done = "resumed"
	}
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	var late, silent []string
	err = poll(ctx, func() (bool, error) {
		late, silent = c.late(ctx, v)
		return len(late) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("it is written, and not all have heard of it within %s: %s; does Consul answer them? see howdah status", c.Wait, strings.Join(late, ", "))
	}
	fmt.Fprintf(c.stdio.Out, "cluster %s is %s\n", c.Cluster, done)
	if len(silent) > 0 {
		fmt.Fprintf(c.stdio.Out, "not asked, for they do not answer here: %s\n", strings.Join(silent, ", "))
	}
	return nil
}

// late are the members that go by the old configuration still, silent those that do not answer.
func (c *Pause) late(ctx context.Context, v *view) (late, silent []string) {
	targets, err := v.targets(ctx)
	if err != nil {
		return []string{err.Error()}, nil
	}
	for _, a := range v.ask(ctx, targets) {
		switch {
		case a.Status == nil:
			silent = append(silent, a.Member)
		case a.Status.Config.Pause == c.resume:
			late = append(late, a.Member)
		}
	}
	return late, silent
}
