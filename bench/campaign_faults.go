package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"howdah/bench/cluster"
	"howdah/sidecar/local"
)

// blow is a fault under way: what it hits, and how it is undone. undo does nothing where nothing is to be undone.
type blow struct {
	target string
	undo   func(context.Context) error
}

// arena is where faults happen: the cluster as it was when the step began.
type arena struct {
	c       *cluster.Cluster
	primary *cluster.Member
	// cuts are those in force, by the number of their fault: healing one leaves the others.
	cuts map[int]func(context.Context) error
}

// standbys are all members but the primary.
func (a *arena) standbys() []*cluster.Member {
	var s []*cluster.Member
	for _, m := range a.c.Members {
		if m != a.primary {
			s = append(s, m)
		}
	}
	return s
}

func hostsOf(members []*cluster.Member) []*cluster.Host {
	var h []*cluster.Host
	for _, m := range members {
		h = append(h, m.Host)
	}
	return h
}

// strike begins the fault with that number in its step.
func (a *arena) strike(ctx context.Context, number int, f planned) (blow, error) {
	t, known := troubleNamed(f.Trouble)
	if !known {
		return blow{}, fmt.Errorf("there is no fault %q", f.Trouble)
	}
	switch t.Aim {
	case aimPrimary:
		return a.strikePrimary(ctx, number, f)
	case aimStandby:
		standbys := a.standbys()
		return a.strikeStandby(ctx, number, f, standbys[f.Pick%len(standbys)])
	case aimRouter:
		return a.strikeRouter(ctx, number, f, a.c.Routers[f.Pick%len(a.c.Routers)])
	}
	return a.strikeConsul(ctx, f)
}

func nothing(context.Context) error { return nil }

// cut begins a cut and returns how to heal it alone.
func (a *arena) cut(ctx context.Context, number int, target string, begin func(context.Context) error) (blow, error) {
	a.cuts[number] = begin
	return blow{target, func(ctx context.Context) error {
		delete(a.cuts, number)
		errs := []error{a.c.Heal(ctx)}
		for _, again := range a.cuts {
			errs = append(errs, again(ctx))
		}
		return errors.Join(errs...)
	}}, begin(ctx)
}

func (a *arena) strikePrimary(ctx context.Context, number int, f planned) (blow, error) {
	p := a.primary
	self := []*cluster.Host{p.Host}
	done := blow{p.Name, nothing}
	switch f.Trouble {
	case "cut-all":
		return a.cut(ctx, number, p.Name, func(ctx context.Context) error { return a.c.Cut(ctx, self, a.c.Others(p.Host)) })
	case "cut-consul":
		return a.cut(ctx, number, p.Name, func(ctx context.Context) error { return a.c.Cut(ctx, self, a.consulHosts()) })
	case "cut-standbys":
		return a.cut(ctx, number, p.Name, func(ctx context.Context) error { return a.c.Cut(ctx, self, hostsOf(a.standbys())) })
	case "cut-in":
		return a.cut(ctx, number, p.Name, func(ctx context.Context) error { return a.c.CutOneWay(ctx, a.c.Others(p.Host), self) })
	case "cut-out":
		return a.cut(ctx, number, p.Name, func(ctx context.Context) error { return a.c.CutOneWay(ctx, self, a.c.Others(p.Host)) })
	case "kill":
		return blow{p.Name, func(context.Context) error { return p.Start() }}, p.Kill(ctx)
	case "freeze":
		return blow{p.Name, p.Thaw}, p.Freeze(ctx)
	case "postmaster":
		return done, p.KillPostmaster()
	case "launcher":
		return done, p.KillLauncher()
	case "sidecar":
		return done, p.KillSidecar(false)
	case "both":
		return done, a.killBoth(ctx, p, f.Pick)
	case "sidecar-freeze":
		return blow{p.Name, func(context.Context) error { return p.StopSidecar(false) }}, p.StopSidecar(true)
	case "launcher-freeze":
		return blow{p.Name, func(context.Context) error { return p.StopLauncher(false) }}, p.StopLauncher(true)
	case "sidecar-dead":
		return blow{p.Name, func(context.Context) error { return p.StartSidecar() }}, p.KillSidecar(true)
	case "disk-stall":
		return blow{p.Name, p.ResumeDisk}, p.StallDisk(ctx)
	case "switchover":
		return done, a.switchover(ctx, p)
	case "clock-primary":
		return shiftClock(p.Name, p.SetWallClock, f.Pick)
	}
	return blow{}, fmt.Errorf("nothing is known of fault %q of a primary", f.Trouble)
}

// switchoverBound is how long a planned switchover may take before it counts as a problem.
const switchoverBound = 20 * time.Second

// switchover asks for one and waits until another member reigns.
func (a *arena) switchover(ctx context.Context, p *cluster.Member) error {
	if err := p.Switchover(ctx, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, switchoverBound, fmt.Errorf("not so after %s", switchoverBound))
	defer cancel()
	_, err := a.c.Await(ctx, "another primary", func(l local.Look) bool {
		now := a.c.Primary(l)
		return now != nil && now != p
	})
	return err
}

// killBoth kills one of sidecar and launcher, and the other up to half a second later.
func (a *arena) killBoth(ctx context.Context, p *cluster.Member, pick int) error {
	first, second := func() error { return p.KillSidecar(false) }, p.KillLauncher
	if pick%2 == 1 {
		first, second = second, first
	}
	err := first()
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(pick/2%500) * time.Millisecond):
	}
	return errors.Join(err, second())
}

func (a *arena) strikeStandby(ctx context.Context, number int, f planned, m *cluster.Member) (blow, error) {
	switch f.Trouble {
	case "standby-cut":
		return a.cut(ctx, number, m.Name, func(ctx context.Context) error {
			return a.c.Cut(ctx, []*cluster.Host{m.Host}, a.c.Others(m.Host))
		})
	case "standby-kill":
		return blow{m.Name, func(context.Context) error { return m.Start() }}, m.Kill(ctx)
	case "standbys-kill":
		return a.killStandbys(ctx)
	case "standby-freeze":
		return blow{m.Name, m.Thaw}, m.Freeze(ctx)
	case "clock-standby":
		return shiftClock(m.Name, m.SetWallClock, f.Pick)
	}
	return blow{}, fmt.Errorf("nothing is known of fault %q of a standby", f.Trouble)
}

// clockShifts are jumps of a wall clock: by less and by more than any timeout of PostgreSQL or howdah, and by more than a certificate lives.
var clockShifts = []time.Duration{-20 * time.Second, 20 * time.Second, -2 * time.Hour, 2 * time.Hour, -400 * 24 * time.Hour, 400 * 24 * time.Hour}

// shiftClock sets the wall clock of a host, which jumps back when the fault is over.
func shiftClock(name string, set func(time.Duration) error, pick int) (blow, error) {
	shift := clockShifts[pick%len(clockShifts)]
	return blow{fmt.Sprintf("%s by %s", name, shift), func(context.Context) error { return set(0) }}, set(shift)
}

func (a *arena) killStandbys(ctx context.Context) (blow, error) {
	var names []string
	var errs []error
	for _, m := range a.standbys() {
		names = append(names, m.Name)
		errs = append(errs, m.Kill(ctx))
	}
	return blow{strings.Join(names, "+"), func(context.Context) error {
		var errs []error
		for _, m := range a.standbys() {
			errs = append(errs, m.Start())
		}
		return errors.Join(errs...)
	}}, errors.Join(errs...)
}

func (a *arena) strikeRouter(ctx context.Context, number int, f planned, r *cluster.Router) (blow, error) {
	switch f.Trouble {
	case "router-cut":
		return a.cut(ctx, number, r.Name, func(ctx context.Context) error {
			return a.c.Cut(ctx, []*cluster.Host{r.Host}, a.c.Others(r.Host, a.c.Client))
		})
	case "router-kill":
		return blow{r.Name, nothing}, r.Kill()
	case "clock-router":
		return shiftClock(r.Name, r.SetWallClock, f.Pick)
	}
	return blow{}, fmt.Errorf("nothing is known of fault %q of a router", f.Trouble)
}

func (a *arena) consulHosts() []*cluster.Host {
	var h []*cluster.Host
	for _, s := range a.c.Servers {
		h = append(h, s.Host)
	}
	return h
}

func (a *arena) strikeConsul(ctx context.Context, f planned) (blow, error) {
	if f.Trouble == "consul-restart" {
		var errs []error
		for _, m := range a.c.Members {
			errs = append(errs, m.KillAgent())
		}
		return blow{"consul", nothing}, errors.Join(errs...)
	}
	victims := a.consulVictims(ctx, f.Trouble)
	var names []string
	var errs []error
	for _, s := range victims {
		names = append(names, s.Host.Name)
		errs = append(errs, s.Kill())
	}
	return blow{strings.Join(names, "+"), func(context.Context) error {
		var errs []error
		for _, s := range victims {
			errs = append(errs, s.Start())
		}
		return errors.Join(errs...)
	}}, errors.Join(errs...)
}

// consulVictims are the leader, with as many others as the fault takes.
func (a *arena) consulVictims(ctx context.Context, trouble string) []*cluster.Server {
	n := map[string]int{"consul-leader": 1, "consul-majority": 2, "consul-away": len(a.c.Servers)}[trouble]
	leader := a.c.Leader(ctx)
	if leader == nil {
		leader = a.c.Servers[0] // none leads at this moment: another fault of the step has seen to that
	}
	victims := []*cluster.Server{leader}
	for _, s := range a.c.Servers {
		if s != leader && len(victims) < n {
			victims = append(victims, s)
		}
	}
	return victims
}
