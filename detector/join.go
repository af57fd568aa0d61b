package detector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"howdah/consul/schema"
)

// Why a join failed, where that can be known.
var (
	// ErrWrongKey: the two sides have no gossip key in common.
	ErrWrongKey = errors.New("gossip key differs: give every process of the cluster the same key file")
	// ErrHungUp: the other side closed the connection without a word.
	ErrHungUp = errors.New("the process there hung up: it belongs to another cluster, or is not howdah")
)

// noKey is memberlist v0.7.0's text (security.go, decryptPayload); it has no error value for it.
const noKey = "no installed keys could decrypt the message"

// maxJoins bounds how many addresses are tried at the same time.
const maxJoins = 8

// JoinProblem says why an address given to join could not be joined yet.
type JoinProblem struct {
	// Address is host:port as it was given, or the last known address of a peer.
	Address string
	Err     error
	// Since is when it failed first in this row.
	Since schema.Instant
}

// joiner remembers which addresses are to be joined and when each is due.
type joiner struct {
	mu       *sync.Mutex
	fixed    []string // Config.Join
	extra    []string // Detector.Join
	once     bool     // exchange state with one live peer too
	tries    map[netip.AddrPort]*try
	problems map[string]JoinProblem
}

type try struct {
	next  schema.Instant
	delay time.Duration
}

func newJoiner(fixed []string) joiner {
	return joiner{mu: &sync.Mutex{}, fixed: fixed, tries: map[netip.AddrPort]*try{}, problems: map[string]JoinProblem{}}
}

// again asks for one exchange with a live peer although none is missing: this process was refused because its
// name is still bound to the address of a former one.
func (j *joiner) again(now chan struct{}) {
	j.mu.Lock()
	j.once = true
	j.mu.Unlock()
	poke(now)
}

// Join sets addresses (host:port) to be joined besides those of the configuration, in place of those of the
// last call: for example the gossip addresses of all members in Consul. They are tried, with backoff, for as long
// as they are not alive. An error names those that are not host:port, which are left out.
func (d *Detector) Join(addrs []string) error {
	var good []string
	var errs []error
	for _, a := range addrs {
		if _, _, err := splitHostPort(a); err != nil {
			errs = append(errs, err)
			continue
		}
		good = append(good, a)
	}
	d.joiner.mu.Lock()
	changed := !slices.Equal(d.joiner.extra, good)
	d.joiner.extra = good
	d.joiner.mu.Unlock()
	if changed {
		poke(d.joinNow)
	}
	return errors.Join(errs...)
}

// JoinProblems returns the addresses that could not be joined when they were last tried, sorted. A process that starts
// alone has some, and that is no fault; ErrWrongKey and ErrHungUp are.
func (d *Detector) JoinProblems() []JoinProblem {
	d.joiner.mu.Lock()
	defer d.joiner.mu.Unlock()
	var out []JoinProblem
	for _, a := range slices.Sorted(maps.Keys(d.joiner.problems)) {
		out = append(out, d.joiner.problems[a])
	}
	return out
}

// joinLoop tries what is not alive, for ever.
func (d *Detector) joinLoop() {
	for {
		wait := d.joinRound()
		t := time.NewTimer(wait)
		select {
		case <-d.ctx.Done():
			t.Stop()
			return
		case <-d.joinNow:
		case <-t.C:
		}
		t.Stop()
	}
}

// joinRound tries what is due and returns how long until something is due again.
func (d *Detector) joinRound() time.Duration {
	wanted := d.missing()
	d.joiner.keep(wanted)
	now := d.now()
	var g errgroup.Group
	g.SetLimit(maxJoins)
	for addr, given := range wanted {
		if d.joiner.due(addr, now) {
			g.Go(func() error { d.joinOne(addr, given); return nil })
		}
	}
	g.Go(func() error { return d.joinAgain() })
	if err := g.Wait(); err != nil {
		d.log.Debug("state could not be exchanged again", zap.Error(err))
		d.joiner.again(d.joinNow)
		return d.cfg.Timing.RejoinMin
	}
	return d.joiner.wait(d.now(), d.cfg.Timing)
}

// missing returns the addresses that are not alive, with the form in which they were given.
func (d *Detector) missing() map[netip.AddrPort]string {
	d.joiner.mu.Lock()
	given := slices.Concat(d.joiner.fixed, d.joiner.extra)
	d.joiner.mu.Unlock()
	wanted := map[netip.AddrPort]string{}
	for _, hp := range slices.Compact(slices.Sorted(slices.Values(given))) {
		addrs, err := resolve(d.ctx, hp)
		if d.ctx.Err() != nil {
			return nil
		}
		d.problem(hp, err)
		for _, a := range addrs {
			wanted[a] = hp
		}
	}
	live, dead := d.addresses()
	for a := range dead {
		if _, ok := wanted[a]; !ok {
			wanted[a] = a.String()
		}
	}
	for a := range wanted {
		if live[a] {
			d.problem(wanted[a], nil)
			delete(wanted, a)
		}
	}
	return wanted
}

// addresses returns where live peers and this process are, and where dead ones were.
func (d *Detector) addresses() (live, dead map[netip.AddrPort]bool) {
	live, dead = map[netip.AddrPort]bool{d.addr: true}, map[netip.AddrPort]bool{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.table.peers {
		a, ok := netip.AddrFromSlice(p.node.Addr)
		if !p.inGossip || !ok || p.leaving {
			continue
		}
		at := netip.AddrPortFrom(a.Unmap(), p.node.Port)
		if p.gone {
			dead[at] = true
		} else {
			live[at] = true
		}
	}
	return live, dead
}

func (d *Detector) joinOne(addr netip.AddrPort, given string) {
	d.counters.joinAttempts.Add(1)
	_, err := d.ml.Join([]string{addr.String()})
	if d.ctx.Err() != nil {
		return
	}
	err = joinError(addr, err)
	if err != nil {
		d.counters.joinFailures.Add(1)
	}
	d.problem(given, err)
	d.joiner.tried(addr, err == nil, d.now(), d.cfg.Timing)
}

// joinAgain exchanges state with one live peer if that was asked for.
func (d *Detector) joinAgain() error {
	d.joiner.mu.Lock()
	asked := d.joiner.once
	d.joiner.once = false
	d.joiner.mu.Unlock()
	if !asked {
		return nil
	}
	d.mu.Lock()
	nodes := d.table.targets()
	d.mu.Unlock()
	if len(nodes) == 0 {
		return nil
	}
	// Not at once: whoever refused needs the time to call the former process dead.
	t := time.NewTimer(d.cfg.Timing.RejoinMin)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.ctx.Done():
		return nil
	}
	_, err := d.ml.Join([]string{nodes[0].Address()})
	return err
}

// joinError says in words what memberlist's texts come to.
func joinError(addr netip.AddrPort, err error) error {
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), noKey):
		return fmt.Errorf("gossip with %s: %w", addr, ErrWrongKey)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET),
		strings.HasSuffix(strings.TrimSpace(err.Error()), ": EOF"), strings.Contains(err.Error(), "connection reset by peer"):
		return fmt.Errorf("gossip with %s: %w", addr, ErrHungUp)
	}
	return fmt.Errorf("gossip with %s: %s", addr, strings.Join(strings.Fields(err.Error()), " "))
}

// problem records how it went with an address. What is plain absence is logged once; what a person must
// mend is logged as a warning, once for each reason.
func (d *Detector) problem(given string, err error) {
	d.joiner.mu.Lock()
	before, had := d.joiner.problems[given]
	if err == nil {
		delete(d.joiner.problems, given)
	} else {
		since := before.Since
		if !had {
			since = d.now()
		}
		d.joiner.problems[given] = JoinProblem{Address: given, Err: err, Since: since}
	}
	d.joiner.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, context.Canceled):
	case had && before.Err.Error() == err.Error():
	case errors.Is(err, ErrWrongKey), errors.Is(err, ErrHungUp):
		d.log.Warn("cannot join", zap.String("address", given), zap.Error(err))
	case !had:
		d.log.Info("not joined yet; trying on", zap.String("address", given), zap.Error(err))
	}
}

// keep forgets the tries and problems of addresses that are no longer wanted.
func (j *joiner) keep(wanted map[netip.AddrPort]string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	given := slices.Concat(j.fixed, j.extra, slices.Collect(maps.Values(wanted)))
	maps.DeleteFunc(j.tries, func(a netip.AddrPort, _ *try) bool { _, ok := wanted[a]; return !ok })
	maps.DeleteFunc(j.problems, func(a string, _ JoinProblem) bool { return !slices.Contains(given, a) })
}

func (j *joiner) due(a netip.AddrPort, now schema.Instant) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.tries[a]
	return t == nil || t.next <= now
}

// tried sets when an address is due again. One that answered but is not alive under this address (a load
// balancer, another advertise address) is asked again, but rarely.
func (j *joiner) tried(a netip.AddrPort, ok bool, now schema.Instant, tm Timing) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.tries[a]
	if t == nil {
		t = &try{delay: tm.RejoinMin}
		j.tries[a] = t
	}
	if ok {
		t.delay = tm.RejoinMax
	}
	t.next = now.Add(t.delay)
	t.delay = min(2*t.delay, tm.RejoinMax)
}

// wait returns how long until an address is due; names are looked up anew after RejoinMax at the latest.
func (j *joiner) wait(now schema.Instant, tm Timing) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	wait := tm.RejoinMax
	for _, t := range j.tries {
		wait = min(wait, t.next.Sub(now))
	}
	return max(wait, tm.RejoinMin/4)
}
