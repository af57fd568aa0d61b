package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// strayed is pg2, stopped, whose history parts from that of pg1, the primary, and which cannot be rewound; its
// operator has settled that its copy goes first where two have no room.
func strayed() (Observation, Memory) {
	o, m := loser()
	o.RemoveFirst, o.Data.CanRewind, o.Data.RewindWhy = true, false, "it has no checksums"
	p := peer("pg1", 0x5000)
	p.Status.Role, p.Status.State = schema.RolePrimary, schema.StateRunning
	o.Peers = []schema.Peer{p}
	return o, m
}

func TestACopyGoesFirstOnlyWhereTheHolderSurelyServes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		first  bool
		keeps  string
	}{
		{"it may go", nil, true, ""},
		{"the operator has not said so", func(o *Observation, _ *Memory) { o.RemoveFirst = false }, false, ""},
		{"one that a rewind left half-way", func(o *Observation, _ *Memory) { o.Data = Data{State: DataIncomplete, At: o.Now} }, true, ""},
		{"the primary is not heard of", func(o *Observation, _ *Memory) { o.Peers = nil }, false, "pg1 is not heard of (unknown)"},
		{"the primary is suspect", func(o *Observation, _ *Memory) { o.Peers[0].Liveness = schema.LivenessSuspect }, false, "not heard of (suspect)"},
		{"the synchronous set counts on it", func(o *Observation, _ *Memory) {
			o.Lock.Leader.Sync = schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
		}, false, "commits count on what it has"},
		{"a set of others", func(o *Observation, _ *Memory) {
			o.Lock.Leader.Sync = schema.SyncSet{Need: 1, Standbys: []string{"pg3"}}
		}, true, ""},
		{"it tried to take over, and does not know what came of it", func(o *Observation, m *Memory) { m.SeizeFailedAt = o.Lock.AskedAt }, false, "an attempt to take over is not known"},
		{"it is taking over", func(o *Observation, _ *Memory) { o.Busy[SlotLock] = Seize }, false, "an attempt to take over is not known"},
		{"the lock is held by nobody", func(o *Observation, _ *Memory) { o.Lock.Session = "" }, false, "no primary serves"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := strayed()
			if c.change != nil {
				c.change(&o, &m)
			}
			p, _ := Decide(o, m)
			i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Clone })
			if i < 0 {
				t.Fatalf("planned %v: %s", planned(p), p.Reason)
			}
			a := p.Actions[i]
			if a.RemoveFirst != c.first || !strings.Contains(a.Keeps, c.keeps) || (c.keeps == "") != (a.Keeps == "") {
				t.Errorf("removes first: %v; keeps: %q", a.RemoveFirst, a.Keeps)
			}
			if a.RemoveFirst && (a.At.Index != 70 || a.At.Leader.Member != a.Holder.Member) {
				t.Errorf("under no condition: %+v", a.At)
			}
		})
	}
}

// What a decision to clone does not get to: the member may be the holder, or the lease may have run out.
func TestWhoeverMayHoldTheLockKeepsItsCopy(t *testing.T) {
	up := Upstream{"pg1", "pg1:5432"}
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		keeps  string
	}{
		{"nothing is amiss", nil, ""},
		{"it reigns", func(_ *Observation, m *Memory) { m.Reign = Reign{Active: true, Epoch: 4} }, "this member holds the lock"},
		{"the record names it", func(o *Observation, _ *Memory) { o.Lock.Leader.Member = "pg2" }, "this member holds the lock"},
		{"it was the last primary", func(_ *Observation, m *Memory) { m.Record.Reigned = 4 }, "was the last to"},
		{"the lease has run out", func(o *Observation, _ *Memory) { o.Now = t0.Add(lease + margin) }, "no longer renews"},
		{"the record is of an older reign", func(_ *Observation, m *Memory) { m.Record.Epoch = 5 }, "no primary serves"},
		{"another one holds it by now", func(o *Observation, _ *Memory) { o.Lock.Leader.Member = "pg3" }, "no primary serves"},
		{"it does not serve yet", func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhasePromoting }, "no primary serves"},
		{"postgres runs", func(o *Observation, _ *Memory) { o.Process.State = ProcessRunning }, "not stopped"},
		{"the launcher is silent", func(o *Observation, _ *Memory) { o.Process.State = ProcessUnknown }, "not stopped"},
	} {
		o, m := strayed()
		if c.change != nil {
			c.change(&o, &m)
		}
		d := &decision{o: &o, m: m}
		if got := d.keepsCopy(up); !strings.Contains(got, c.keeps) || (got == "") != (c.keeps == "") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// removed is pg2 after its copy went: its memory still knows how far that was.
func removed() (Observation, Memory) {
	o, m := strayed()
	o.Data = Data{State: DataIncomplete, Removed: true, At: o.Now}
	m.Timeline, m.LSN = 2, 0x5000
	return o, m
}

func TestAMemberWhoseCopyWentHasNothing(t *testing.T) {
	paused := func(o *Observation, _ *Memory) { o.Config.Pause = true }
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
		say    []string
	}{
		{"it is cloned", nil, []Kind{Clone}, []string{"cloning from pg1: its own copy was removed"}},
		{"the clone runs", func(o *Observation, m *Memory) { o.Busy[SlotPostgres], m.Clone.Why = Clone, "an operator ordered it" }, nil,
			[]string{"cloning from pg1: its own copy was removed", "an operator ordered it"}},
		{"the clone has failed", func(o *Observation, m *Memory) {
			m.Retries[SlotPostgres] = Retry{Kind: Clone, Count: 2, Until: o.Now.Add(time.Second), Error: "it went away"}
		}, nil, []string{"waiting to clone again: its own copy was removed", "it went away"}},
		{"nobody serves", func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhasePromoting }, nil, []string{"waiting for pg1 to serve", "its own copy was removed"}},
		{"the cluster is paused", paused, nil, []string{"its own copy was removed", "howdah reinit"}},
		{"the lease has run out", func(o *Observation, _ *Memory) {
			*o = o.at(lease+margin+time.Second, lease+margin+1)
			o.Data.At = o.Now
		}, nil,
			[]string{"waiting for a primary to clone from", "its own copy was removed"}},
		{"consul has forgotten everything", func(o *Observation, _ *Memory) { o.State.Initialize = schema.Doc[schema.Initialize]{}; o.Peers = nil }, nil,
			[]string{"this member once held cluster c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := removed()
			if c.change != nil {
				c.change(&o, &m)
			}
			p, m := Decide(o, m)
			if got := planned(p); !slices.Equal(got, c.want) {
				t.Errorf("planned %v, want %v; %s: %s", got, c.want, p.State, p.Reason)
			}
			for _, s := range c.say {
				if !strings.Contains(p.Reason, s) {
					t.Errorf("says %q, want %q", p.Reason, s)
				}
			}
			if m.LSN != 0 || m.Timeline != 0 {
				t.Errorf("it counts as having %s on timeline %d", m.LSN, m.Timeline)
			}
		})
	}
}

func TestARemovedCopyIsTold(t *testing.T) {
	o, m := removed()
	told := func(p Plan) int {
		n := 0
		for _, e := range p.Events {
			if e.Kind == schema.EventRemoved && strings.Contains(e.Detail, "to be cloned from pg1") {
				n++
			}
		}
		return n
	}
	p, m := Decide(o, m)
	if told(p) != 1 {
		t.Fatalf("%+v", p.Events)
	}
	if p, m = Decide(o, m); told(p) != 0 {
		t.Fatalf("told again: %+v", p.Events)
	}
	all := Candidates(o, m)
	if all[0].Member != "pg2" || !strings.Contains(all[0].Bar, "its own copy was removed") || all[0].LSN != 0 {
		t.Errorf("howdah why: %+v", all[0])
	}
	if r, _ := Promise(o, m, schema.PromiseRequest{From: "pg3", Report: true}); r.LSN != 0 {
		t.Errorf("it reports %s to a candidate", r.LSN)
	}
	o.Data = Data{State: DataValid, At: o.Now, SystemID: "7", Timeline: 2, StandbySignal: true}
	if p, m = Decide(o, m); told(p) != 0 || m.Removed {
		t.Errorf("told of a clone that is there: %+v", p.Events)
	}
}

// An order that fails says what is left.
func TestAnOrderedCloneThatFailsSaysThatTheCopyIsGone(t *testing.T) {
	o, m := removed()
	o.Order = Order{"x", schema.OrderReinit}
	m.Ordered = Ordered{ID: "x", Kind: schema.OrderReinit, Step: StepClone, Since: o.Now}
	m.Retries[SlotPostgres] = Retry{Kind: Clone, Count: cloneTries, Until: o.Now.Add(time.Second), Error: "it went away"}
	if _, m = Decide(o, m); !m.Ordered.Over || !strings.Contains(m.Ordered.Why, "has no copy of its own any more") {
		t.Errorf("%+v", m.Ordered)
	}
}
