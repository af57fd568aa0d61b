package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/consul/schema"
)

func acksAt(times ...schema.Instant) []ack {
	var acks []ack
	for i, at := range times {
		acks = append(acks, ack{ID: int64(i + 1), At: at})
	}
	return acks
}

func TestLongestGap(t *testing.T) {
	for name, c := range map[string]struct {
		acks     []ack
		from, to schema.Instant
		want     gap
	}{
		"between two acknowledgements":             {acksAt(10, 20, 90, 100), 15, 100, gap{20, 90}},
		"reaches in from before the fault":         {acksAt(10, 60, 70), 50, 70, gap{10, 60}},
		"what ended before the fault counts not":   {acksAt(10, 80, 90, 95, 100), 85, 100, gap{80, 90}},
		"never came back":                          {acksAt(10, 20), 15, 200, gap{20, 200}},
		"nothing at all":                           {nil, 15, 200, gap{15, 200}},
		"reaches out beyond the end, in full":      {acksAt(10, 20, 300), 15, 50, gap{20, 300}},
		"what begins after the end counts not":     {acksAt(10, 20, 50, 300), 15, 50, gap{20, 50}},
		"the first of two that are equally long":   {acksAt(10, 20, 30), 10, 30, gap{10, 20}},
		"an acknowledgement at the fault's moment": {acksAt(10, 15, 40), 15, 40, gap{15, 40}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := longestGap(c.acks, c.from, c.to); got != c.want {
				t.Errorf("want %v, got %v", c.want, got)
			}
		})
	}
}

func TestSteadySince(t *testing.T) {
	for name, c := range map[string]struct {
		acks []ack
		want schema.Instant
	}{
		"from the beginning":          {acksAt(90, 104, 112, 120), 100},
		"since the end of a gap":      {acksAt(90, 104, 115, 120), 115},
		"since the end of the newest": {acksAt(90, 111, 122), 122},
		"silent now":                  {acksAt(90, 104, 112), 125},
		"silent all the time":         {nil, 125},
		"one answer late":             {acksAt(124), 124},
	} {
		t.Run(name, func(t *testing.T) {
			if got := steadySince(c.acks, 100, 125, 10); got != c.want {
				t.Errorf("want %d, got %d", c.want, got)
			}
		})
	}
}

func TestLedgerTail(t *testing.T) {
	var l ledger
	if got := l.tail(5); len(got) != 0 {
		t.Errorf("the tail of nothing: %v", got)
	}
	for _, a := range acksAt(10, 20, 30) {
		l.add(a.ID, a.At)
	}
	for from, want := range map[schema.Instant]int{5: 3, 10: 3, 20: 3, 21: 2, 30: 2, 31: 1} {
		if got := l.tail(from); len(got) != want {
			t.Errorf("from %d: want %d acknowledgements, got %v", from, want, got)
		}
	}
	if got := l.last(); got != (ack{ID: 3, At: 30}) {
		t.Errorf("last: %v", got)
	}
}

func TestMissingAndZombies(t *testing.T) {
	acks := acksAt(10, 20, 30)
	if got := missing(acks, map[int64]bool{1: true, 3: true, 9: true}); !slices.Equal(got, []int64{2}) {
		t.Errorf("missing: %v", got)
	}
	for promoted, want := range map[schema.Instant]int{schema.Never: 0, 5: 3, 20: 1, 30: 0} {
		if got := zombies(acks, promoted); got != want {
			t.Errorf("promoted at %d: want %d, got %d", promoted, want, got)
		}
	}
}

func TestMedianAndWorst(t *testing.T) {
	for _, c := range []struct {
		in            []time.Duration
		median, worst time.Duration
	}{
		{nil, 0, 0},
		{[]time.Duration{7}, 7, 7},
		{[]time.Duration{9, 1, 5}, 5, 9},
		{[]time.Duration{4, 1, 9, 2}, 3, 9},
	} {
		in := slices.Clone(c.in)
		if m, w := median(in), worst(in); m != c.median || w != c.worst {
			t.Errorf("%v: want %v and %v, got %v and %v", c.in, c.median, c.worst, m, w)
		}
		if !slices.Equal(in, c.in) {
			t.Errorf("%v was reordered", c.in)
		}
	}
}

func event(at schema.Instant, by string, kind schema.EventKind, epoch schema.Epoch) schema.Event {
	return schema.Event{At: at, By: by, Kind: kind, Epoch: epoch}
}

func TestSplit(t *testing.T) {
	member := []schema.Event{
		event(50, "b", schema.EventJudged, 3), // an older story
		event(110, "router", schema.EventLost, 4),
		event(140, "b", schema.EventJudged, 4), event(141, "c", schema.EventJudged, 4),
		event(150, "b", schema.EventElected, 5),
		event(170, "b", schema.EventPromoted, 5),
		event(175, "router", schema.EventRerouted, 5),
		event(300, "c", schema.EventPromoted, 6), // and a later one
	}
	for name, c := range map[string]struct {
		events []schema.Event
		want   split
	}{
		"a failover": {member, split{40, 10, 20, 5, 170, "b", 5}},
		"restarted in place": {[]schema.Event{event(103, "a", schema.EventCrashed, 4), event(190, "a", schema.EventRestarted, 4)},
			split{3, unmeasured, unmeasured, unmeasured, schema.Never, "", 0}},
		"rerouted before the event was recorded": {[]schema.Event{event(120, "a", schema.EventReleased, 4), event(130, "b", schema.EventElected, 5),
			event(139, "router", schema.EventRerouted, 5), event(140, "b", schema.EventPromoted, 5)}, split{20, 10, 10, -1, 140, "b", 5}},
		"judged, and bound by a promise": {[]schema.Event{event(103, "b", schema.EventJudged, 4)},
			split{unmeasured, unmeasured, unmeasured, unmeasured, schema.Never, "", 0}},
		"the reign in force is no failover": {[]schema.Event{event(120, "a", schema.EventPromoted, 4)},
			split{unmeasured, unmeasured, unmeasured, unmeasured, schema.Never, "", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, splitOf(c.events, 100, 4)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := measured([]time.Duration{unmeasured, 3, unmeasured, -1}); !slices.Equal(got, []time.Duration{3, -1}) {
		t.Errorf("measured: %v", got)
	}
}

func TestMerge(t *testing.T) {
	a, b, c := event(1, "a", schema.EventCrashed, 1), event(2, "b", schema.EventJudged, 1), event(2, "c", schema.EventJudged, 1)
	got := merge([]schema.Event{a, b}, []schema.Event{c, b, a})
	if len(got) != 3 || got[0] != a {
		t.Errorf("%v", got)
	}
}

func TestReport(t *testing.T) {
	all := faults()
	r := &report{At: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Machine: "a machine", Versions: "versions", Command: "a command", faults: all}
	one := split{Detect: 3 * time.Second, Elect: unmeasured, Promote: 200 * time.Millisecond, Reroute: -time.Millisecond, PromotedAt: 1}
	for _, g := range []time.Duration{3400 * time.Millisecond, 3600 * time.Millisecond, 5 * time.Second} {
		r.add(result{Fault: "member", Gap: g, Split: one, Acked: 100, Missing: 1, Failover: true})
	}
	want := `2026-11-23, a machine; versions; ` + "`a command`" + `

Seconds. Gap: the longest time between two acknowledged commits next to each other, median / worst. The four parts are medians.

| fault | n | gap | detect | elect | promote | reroute | acknowledged rows missing | old primary's writes after the promotion | failovers |
|---|---|---|---|---|---|---|---|---|---|
| whole member killed (SIGKILL) | 3 | 3.60 / 5.00 | 3.00 | - | 0.20 | -0.00 | 3 of 300 | 0 | 3 |
`
	if diff := cmp.Diff(want, r.markdown()); diff != "" {
		t.Error(diff)
	}
}

func TestChosen(t *testing.T) {
	all, err := chosen("")
	if err != nil || len(all) != len(faults())-1 {
		t.Errorf("%d of %d faults, %v", len(all), len(faults()), err)
	}
	some, err := chosen("freeze, nothing")
	if err != nil || len(some) != 2 || some[0].name != "freeze" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := chosen("freeze,flood"); err == nil {
		t.Error("a fault that does not exist is accepted")
	}
}

func TestRoutersReport(t *testing.T) {
	ms := func(n int64) schema.Instant { return schema.Instant(n * int64(time.Millisecond)) }
	r := routersReport{Changes: []turned{
		{Change: "switchover", Promoted: ms(1000), Rerouted: [2]schema.Instant{ms(1005), ms(1002)}},
		{Change: "switchover", Promoted: ms(1000), Rerouted: [2]schema.Instant{ms(1001), ms(1010)}},
		{Change: "failover", Promoted: ms(2000), Rerouted: [2]schema.Instant{ms(2004), ms(2004)}},
	}}
	for _, want := range []string{"| switchover | 2 | 6.0 / 9.0 | 7.5 / 10.0 |\n", "| failover | 1 | 0.0 / 0.0 | 4.0 / 4.0 |\n"} {
		if got := r.markdown(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
