package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// injection is one fault in the making.
type injection struct {
	bench *bench
	// old is the primary before the fault, in epoch; at is when the fault began.
	old   *local.Member
	epoch schema.Epoch
	at    schema.Instant
	// events were read before a process that keeps them was killed.
	events []schema.Event
	// stays says that no failover is expected: nothing is waited for.
	stays bool
}

// fault is one thing that happens to a cluster.
type fault struct {
	name, title string
	// inject does it, restore undoes it once the consequences are there.
	inject, restore func(context.Context, *injection) error
}

// faults are all of them, in the order of the report.
func faults() []fault {
	nothing := func(context.Context, *injection) error { return nil }
	return []fault{
		{"postmaster", "postmaster killed (SIGKILL)",
			func(_ context.Context, x *injection) error { return x.old.KillPostmaster() }, func(ctx context.Context, x *injection) error { return x.servedAgain(ctx) }},
		{"member", "whole member killed (SIGKILL)",
			func(ctx context.Context, x *injection) error { return x.remembered(ctx, x.old.Kill) },
			func(ctx context.Context, x *injection) error { return x.afterPromotion(ctx, x.old.Start) }},
		{"freeze", "whole member frozen (SIGSTOP), thawed 2 s after the promotion",
			func(_ context.Context, x *injection) error { return x.old.Freeze() },
			func(ctx context.Context, x *injection) error {
				return x.afterPromotion(ctx, func() error { return x.later(ctx, 2*time.Second, x.old.Thaw) })
			}},
		{"switchover", "planned switchover",
			func(ctx context.Context, x *injection) error { return x.bench.cluster.Switchover(ctx, x.old, "") },
			func(ctx context.Context, x *injection) error {
				return x.afterPromotion(ctx, func() error { return nil })
			}},
		{"sidecar-restart", "sidecar killed (SIGKILL), started again at once",
			func(ctx context.Context, x *injection) error {
				return x.remembered(ctx, func() error { return x.old.KillSidecar(true) })
			},
			func(ctx context.Context, x *injection) error { return x.calm(ctx, x.lease()*2) }},
		{"sidecar-dead", "sidecar killed (SIGKILL), left dead",
			func(ctx context.Context, x *injection) error {
				return x.remembered(ctx, func() error { return x.old.KillSidecar(false) })
			},
			func(ctx context.Context, x *injection) error {
				return x.afterPromotion(ctx, func() error { return x.later(ctx, 2*time.Second, x.old.StartSidecar) })
			}},
		{"consul-restart", "Consul's server killed (SIGKILL) and started again at once",
			func(ctx context.Context, x *injection) error { return x.consulAway(ctx, 0) },
			func(ctx context.Context, x *injection) error { return x.calm(ctx, x.lease()*2) }},
		{"consul-outage", "Consul's server away for 20 s",
			func(ctx context.Context, x *injection) error { return x.consulAway(ctx, 20*time.Second) },
			func(ctx context.Context, x *injection) error { return x.calm(ctx, x.lease()*2) }},
		{"nothing", "nothing at all, for 10 s", nothing,
			func(ctx context.Context, x *injection) error { return x.calm(ctx, 10*time.Second) }},
	}
}

// chosen returns the faults that a comma-separated list names, all but "nothing" of an empty one.
func chosen(list string) ([]fault, error) {
	all := faults()
	if list == "" {
		return slices.DeleteFunc(all, func(f fault) bool { return f.name == "nothing" }), nil
	}
	var some []fault
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(f fault) bool { return f.name == strings.TrimSpace(name) })
		if i < 0 {
			var names []string
			for _, f := range all {
				names = append(names, f.name)
			}
			return nil, fmt.Errorf("-faults: there is no fault %q; choose from %s", name, strings.Join(names, ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

func (x *injection) lease() time.Duration { return x.bench.set.Config.Lease.D() }

// remembered reads the events of the old primary, whose sidecar keeps them in memory, before f kills it.
func (x *injection) remembered(ctx context.Context, f func() error) error {
	events, err := x.old.Events(ctx)
	if err != nil {
		return err
	}
	x.events, x.at = events, boottime.Now()
	return f()
}

// afterPromotion waits until a member serves in a newer epoch, and a row has been acknowledged after that; then f.
func (x *injection) afterPromotion(ctx context.Context, f func() error) error {
	wait, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("not so after %s", failoverTimeout))
	defer cancel()
	_, err := x.bench.cluster.Await(wait, "a primary in a newer epoch", func(l local.Look) bool {
		p := l.Primary()
		return p != nil && l.Of(p).Status.Self.Epoch > x.epoch
	})
	if err != nil {
		return err
	}
	from := boottime.Now()
	if err := local.Poll(wait, writeEvery, func() bool { return x.bench.writer.ledger.last().At > from }); err != nil {
		return fmt.Errorf("waiting for a commit through the router: %w", err)
	}
	return f()
}

// servedAgain waits until a row has been acknowledged by whoever serves now: another member, or the same one after
// its crash recovery, whichever the sidecar chose.
func (x *injection) servedAgain(ctx context.Context) error {
	wait, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("not so after %s", failoverTimeout))
	defer cancel()
	if err := local.Poll(wait, writeEvery, func() bool { return x.bench.writer.ledger.last().At > x.at.Add(steadyGap) }); err != nil {
		return fmt.Errorf("waiting for a commit through the router: %w", err)
	}
	x.stays = x.bench.cluster.Look(ctx).Epoch() == x.epoch
	return nil
}

// later calls f after d.
func (x *injection) later(ctx context.Context, d time.Duration, f func() error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return f()
	}
}

// calm lets d pass, in which no failover is expected.
func (x *injection) calm(ctx context.Context, d time.Duration) error {
	x.stays = true
	return x.later(ctx, d, func() error { return nil })
}

// consulAway kills Consul's server and starts it again after d.
func (x *injection) consulAway(ctx context.Context, d time.Duration) error {
	if err := x.bench.consul.stop(); err != nil {
		return err
	}
	if err := x.later(ctx, d, x.bench.consul.start); err != nil {
		return err
	}
	return x.bench.consul.ready(ctx)
}
