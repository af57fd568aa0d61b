package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"howdah/consul/schema"
)

// moment is the global time of a run, in nanoseconds. No member can see it.
type moment int64

// event is something that happens at a moment.
type event struct {
	at  moment
	seq uint64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// Options say what a run is made of.
type Options struct {
	Seed    uint64
	Members int
	// Length is how long faults go on; Quiet is how long the cluster then has to become whole.
	Length, Quiet time.Duration
	// Faults is how often something is broken, on average; zero breaks nothing.
	Faults time.Duration
	// Longest is how long a fault lasts at most; zero is 12 s.
	Longest time.Duration
	// Kinds are the kinds of fault to choose from; empty means all.
	Kinds []Fault
	// Mutate breaks one of howdah's own rules, to show that the checks notice.
	Mutate Mutation
	// Sync is schema.SyncOff, SyncOn or SyncStrict.
	Sync string
	// Late has the last member come to the cluster only while faults go on.
	Late bool
	// NoRoom has no disk with room for two copies, and operators who have settled that the old one goes first.
	NoRoom bool
	// Trace keeps the story of the run.
	Trace bool
}

// World is one run.
type World struct {
	o      Options
	rng    *rand.Rand // of what the models do
	dice   *rand.Rand // of what breaks, so that a script with the same seed does the rest alike
	struck []struck
	now    moment
	seq    uint64
	events eventHeap

	consul  *consul
	nodes   []*node
	routers []*router
	cut     map[[2]string]bool
	slow    bool // the network loses and delays messages
	// disturbed is until when something that was broken may stay so.
	disturbed moment

	ledger     ledger
	violations []string
	story      []string
	// told is the part of the story that a script shows: what happened, without what was tried.
	told []string
}

// struck is a fault and when it came.
type struck struct {
	at moment
	b  Break
}

// consulName stands for Consul in the network.
const consulName = "consul"

// NewWorld makes a cluster that has not been started yet.
func NewWorld(o Options) *World {
	w := &World{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x6a09e667)), dice: rand.New(rand.NewPCG(o.Seed, 0xbb67ae85)), cut: map[[2]string]bool{}}
	w.consul = newConsul(w)
	w.ledger.w, w.ledger.acked, w.ledger.unseen = w, map[uint64]bool{}, map[uint64]string{}
	for i := range o.Members {
		w.nodes = append(w.nodes, newNode(w, fmt.Sprintf("pg%d", i+1)))
	}
	w.routers = append(w.routers, newRouter(w, "router1"), newRouter(w, "router2"))
	return w
}

// config is the cluster's configuration in the beginning.
func (w *World) config() schema.ClusterConfig {
	c := schema.DefaultClusterConfig()
	c.SynchronousMode = w.o.Sync
	return c
}

// after has f happen d from now.
func (w *World) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now + moment(max(d, 0)), seq: w.seq, do: f})
}

// between returns a duration from a to b.
func (w *World) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// runUntil lets the world go on until t.
func (w *World) runUntil(t moment) {
	for len(w.events) > 0 && w.events[0].at <= t && len(w.violations) == 0 {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = t
}

// send delivers a message from one place to another, unless the network does not.
func (w *World) send(from, to string, f func()) {
	d := w.between(100*time.Microsecond, 2*time.Millisecond)
	if w.slow {
		if w.chance(0.15) {
			w.dropped()
			return
		}
		if w.chance(0.2) {
			d += w.between(10*time.Millisecond, 3*time.Second)
		}
	}
	if w.cut[[2]string{from, to}] {
		return
	}
	w.after(d, func() {
		if !w.cut[[2]string{from, to}] {
			f()
		}
	})
}

func (w *World) dropped() {}

// connected reports whether a connection between two places works both ways.
func (w *World) connected(a, b string) bool {
	return !w.cut[[2]string{a, b}] && !w.cut[[2]string{b, a}]
}

// node returns the member of that name.
func (w *World) node(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// tell adds to the story what happens.
func (w *World) tell(format string, args ...any) {
	w.try(format, args...)
	if w.o.Trace {
		w.told = append(w.told, fmt.Sprintf("%7.2f ", time.Duration(w.now).Seconds())+fmt.Sprintf(format, args...))
	}
}

// try adds to the story what somebody sets about to do.
func (w *World) try(format string, args ...any) {
	if w.o.Trace {
		w.story = append(w.story, fmt.Sprintf("%9.3f ", time.Duration(w.now).Seconds())+fmt.Sprintf(format, args...))
	}
}

// violate records that an invariant does not hold. The run ends there.
func (w *World) violate(invariant, format string, args ...any) {
	text := fmt.Sprintf("%s at %.3fs: ", invariant, time.Duration(w.now).Seconds()) + fmt.Sprintf(format, args...)
	w.violations = append(w.violations, text)
	w.tell("VIOLATION %s", text)
}

// Story returns what happened, one line each, if Options.Trace is set.
func (w *World) Story() string { return strings.Join(w.story, "\n") }

// clock is one host's CLOCK_BOOTTIME: it began at some offset and runs a little fast or slow.
type clock struct {
	w      *World
	offset schema.Instant
	rate   float64
}

func (c clock) now() schema.Instant {
	return c.offset + schema.Instant(float64(c.w.now)*c.rate)
}

// until returns how long, globally, until the clock shows at.
func (c clock) until(at schema.Instant) time.Duration {
	return time.Duration(float64(at-c.now())/c.rate) + 1
}

// local returns how long, globally, d lasts on this clock.
func (c clock) local(d time.Duration) time.Duration { return time.Duration(float64(d) / c.rate) }
