package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// aim is what a fault hits. It becomes a certain host only when the fault begins.
type aim string

const (
	aimPrimary aim = "primary"
	aimStandby aim = "standby"
	aimRouter  aim = "router"
	aimConsul  aim = "consul"
)

// trouble is a kind of fault.
type trouble struct {
	Name, Title string
	Aim         aim
	// Least and Most bound how long it lasts; both 0 for what is over at once.
	Least, Most time.Duration
	// Effect says what it may cost.
	Effect effect
	// Side says that it may accompany a fault of the primary.
	Side bool
}

// effect is what a fault by itself may cost.
type effect int

const (
	// harmless faults leave the primary in its place and lose nothing.
	harmless effect = iota
	// moving ones end the reign and lose nothing.
	moving
	// losing ones may cost an asynchronous cluster acknowledged commits, within the documented window.
	losing
)

// troubles are all kinds, in the order of the report.
func troubles() []trouble {
	s := time.Second
	return []trouble{
		{"cut-all", "primary cut off from everybody", aimPrimary, 4 * s, 7 * s, losing, false},
		{"cut-consul", "primary cut off from Consul's servers only", aimPrimary, 4 * s, 7 * s, losing, false},
		{"cut-standbys", "primary cut off from the standbys only", aimPrimary, 4 * s, 7 * s, losing, false},
		{"cut-in", "primary sends and does not receive (one-way cut)", aimPrimary, 4 * s, 7 * s, losing, false},
		{"cut-out", "primary receives and does not send (one-way cut)", aimPrimary, 4 * s, 7 * s, losing, false},
		{"kill", "primary's host killed", aimPrimary, 4 * s, 7 * s, losing, false},
		{"freeze", "primary's host frozen and thawed", aimPrimary, 2 * s, 7 * s, losing, false},
		{"postmaster", "primary's postmaster killed", aimPrimary, 0, 0, losing, false},
		{"launcher", "primary's launcher killed", aimPrimary, 0, 0, losing, false},
		{"launcher-freeze", "primary's launcher frozen and thawed", aimPrimary, 2 * s, 6 * s, losing, false},
		{"sidecar", "primary's sidecar killed, started again at once", aimPrimary, 0, 0, harmless, true},
		{"sidecar-dead", "primary's sidecar killed, left dead", aimPrimary, 4 * s, 7 * s, losing, false},
		{"sidecar-freeze", "primary's sidecar frozen and thawed", aimPrimary, 2 * s, 6 * s, losing, false},
		{"both", "primary's sidecar and launcher killed one after the other", aimPrimary, 0, 0, losing, false},
		{"disk-stall", "primary's disk stops", aimPrimary, 12 * s, 15 * s, losing, false},
		{"switchover", "planned switchover", aimPrimary, 0, 0, moving, false},
		{"clock-primary", "primary's wall clock jumps, and back", aimPrimary, 3 * s, 6 * s, harmless, true},
		{"standby-cut", "a standby cut off from everybody", aimStandby, 3 * s, 6 * s, harmless, true},
		{"standby-kill", "a standby's host killed", aimStandby, 3 * s, 6 * s, harmless, true},
		{"standby-freeze", "a standby's host frozen and thawed", aimStandby, 2 * s, 6 * s, harmless, true},
		{"clock-standby", "a standby's wall clock jumps, and back", aimStandby, 3 * s, 6 * s, harmless, true},
		{"standbys-kill", "all standbys' hosts killed", aimStandby, 4 * s, 7 * s, harmless, false},
		{"consul-leader", "Consul's leader killed, started again later", aimConsul, 3 * s, 7 * s, harmless, true},
		{"consul-majority", "two of Consul's three servers killed", aimConsul, 4 * s, 9 * s, harmless, true},
		{"consul-away", "all of Consul's servers killed", aimConsul, 5 * s, 20 * s, harmless, false},
		{"consul-restart", "Consul's agents of all members killed, started again at once", aimConsul, 0, 0, harmless, true},
		{"router-cut", "a router cut off from everybody but clients", aimRouter, 3 * s, 6 * s, harmless, true},
		{"router-kill", "a router killed, started again at once", aimRouter, 0, 0, harmless, true},
		{"clock-router", "a router's wall clock jumps, and back", aimRouter, 3 * s, 6 * s, harmless, true},
	}
}

func troubleNamed(name string) (trouble, bool) {
	all := troubles()
	i := slices.IndexFunc(all, func(t trouble) bool { return t.Name == name })
	if i < 0 {
		return trouble{}, false
	}
	return all[i], true
}

// planned is one fault of a step.
type planned struct {
	Trouble string `json:"trouble"`
	// After is when it begins, counted from the step's begin, Hold how long it lasts.
	After time.Duration `json:"after"`
	Hold  time.Duration `json:"hold"`
	// Pick chooses among several that it could hit.
	Pick int `json:"pick"`
}

// step is one fault, or several at about the same time. The cluster is whole before it and must be after it.
type step struct {
	Number int       `json:"number"`
	Faults []planned `json:"faults"`
}

// combined is the name of all steps with more than one fault.
const combined = "combined"

// kind is the name that the step is counted under.
func (s step) kind() string {
	if len(s.Faults) > 1 {
		return combined
	}
	return s.Faults[0].Trouble
}

// String names the faults.
func (s step) String() string {
	var parts []string
	for _, f := range s.Faults {
		text := f.Trouble
		if f.Hold > 0 {
			text += fmt.Sprintf(" for %.1f s", f.Hold.Seconds())
		}
		if f.After > 0 {
			text += fmt.Sprintf(" after %.1f s", f.After.Seconds())
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " + ")
}

// mayLose says that the step hits a primary in a way that may cost an asynchronous cluster its last commits. What is aimed at a standby hits
// the next primary if there is a switchover before it.
func (s step) mayLose() bool {
	return slices.ContainsFunc(s.Faults, func(f planned) bool {
		t, _ := troubleNamed(f.Trouble)
		return t.Effect == losing || t.Aim == aimStandby && s.planned()
	})
}

// keeps says that the step must leave the primary in its place.
func (s step) keeps() bool {
	return len(s.Faults) == 1 && !slices.ContainsFunc(s.Faults, func(f planned) bool {
		t, _ := troubleNamed(f.Trouble)
		return t.Effect != harmless
	})
}

// hangBound is how soon writes must go on after the primary's disk stopped, whether it goes on or not: hang_timeout (3 s), a lease with
// its margin (3.5 s), and as much again for both to begin, for the promotion, and for clients on a loaded machine.
const hangBound = 10 * time.Second

// late says that writes stood still for longer than the fault allows; nothing if it says no bound.
func (s step) late(gap time.Duration) string {
	if s.kind() != "disk-stall" || gap <= hangBound {
		return ""
	}
	return fmt.Sprintf("nothing was acknowledged for %.1f s, and another member should have taken over within %s", gap.Seconds(), hangBound)
}

// planned says that Postgres is shut down in order in the step: that ends the sessions of clients that go past the routers, which hold
// commits back meanwhile.
func (s step) planned() bool {
	return slices.ContainsFunc(s.Faults, func(f planned) bool { return f.Trouble == "switchover" })
}

// oneInFour steps is a combination.
const oneInFour = 4

// schedule deals n steps: each kind once before any comes again, with a combination for every three of them. The same seed and
// kinds give the same steps, and fewer steps are the beginning of more. only restricts the kinds; then nothing is combined.
func schedule(seed uint64, n int, only []string) []step {
	rng := rand.New(rand.NewPCG(seed, 0x686f77646168)) // "howdah"
	var kinds []trouble
	for _, t := range troubles() {
		if len(only) == 0 || slices.Contains(only, t.Name) {
			kinds = append(kinds, t)
		}
	}
	var steps []step
	var deck []trouble
	next := func() trouble {
		if len(deck) == 0 {
			deck = slices.Clone(kinds)
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		t := deck[0]
		deck = deck[1:]
		return t
	}
	for i := range n {
		s := step{Number: i + 1}
		if len(only) == 0 && i%oneInFour == oneInFour-1 {
			s.Faults = combination(rng)
		} else {
			s.Faults = []planned{draw(rng, next(), 0)}
		}
		steps = append(steps, s)
	}
	return steps
}

// held gives every fault that lasts the same length; 0 leaves them as they are.
func held(steps []step, hold time.Duration) []step {
	for _, s := range steps {
		for i := range s.Faults {
			if hold > 0 && s.Faults[i].Hold > 0 {
				s.Faults[i].Hold = hold
			}
		}
	}
	return steps
}

// combination is a fault of the primary and one or two beside it.
func combination(rng *rand.Rand) []planned {
	var main, side []trouble
	for _, t := range troubles() {
		if t.Aim == aimPrimary && !t.Side {
			main = append(main, t)
		}
		if t.Side {
			side = append(side, t)
		}
	}
	faults := []planned{draw(rng, main[rng.IntN(len(main))], 0)}
	for range 1 + rng.IntN(2) {
		t := side[rng.IntN(len(side))]
		if !slices.ContainsFunc(faults, func(f planned) bool { return f.Trouble == t.Name }) {
			faults = append(faults, draw(rng, t, time.Duration(rng.IntN(4000))*time.Millisecond))
		}
	}
	if len(faults) == 1 {
		faults = append(faults, draw(rng, side[0], time.Second))
	}
	return faults
}

func draw(rng *rand.Rand, t trouble, after time.Duration) planned {
	p := planned{Trouble: t.Name, After: after, Pick: rng.IntN(1 << 16)}
	if t.Most > 0 {
		p.Hold = (t.Least + time.Duration(rng.Int64N(int64(t.Most-t.Least)+1))).Truncate(100 * time.Millisecond)
	}
	return p
}
