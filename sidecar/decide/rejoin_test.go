package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// loser is pg2, a stopped primary of old whose history does not lead to that of pg1, which reigns in epoch 4.
func loser() (Observation, Memory) {
	o, m := standby()
	o = o.at(time.Second, 0)
	o.Process = Process{State: ProcessStopped, At: o.Now, Since: t0}
	o.Data = Data{State: DataValid, At: o.Now, SystemID: "7", Timeline: 1, CanRewind: true}
	o.SQL = SQL{}
	m.Rejoin = Rejoin{Epoch: 4, Checked: true, At: t0}
	m.Clone = Cloning{From: Upstream{"pg1", "pg1:5432"}, Since: t0} // all have heard that it may have to
	return o, m
}

func TestRewindBeforeClone(t *testing.T) {
	rewound := func(r Certainty) []Outcome {
		return []Outcome{{Action: Action{Kind: Rewind, Epoch: 4, From: Upstream{Member: "pg1"}}, Result: r, Error: "a reason", EndedAt: t0.Add(time.Second)}}
	}
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
		why    string
	}{
		{"a history that parts", func(*Observation, *Memory) {}, []Kind{Rewind}, "rewinding to pg1"},
		{"not possible", func(o *Observation, _ *Memory) { o.Data.CanRewind, o.Data.RewindWhy = false, "no checksums" }, []Kind{Clone}, "no rewind: no checksums"},
		{"refused in this epoch", func(_ *Observation, m *Memory) { m.Rewinds = Rewinds{Epoch: 4, Over: true, Why: "no WAL"} }, []Kind{Clone}, "no rewind: no WAL"},
		{"refused in another epoch", func(_ *Observation, m *Memory) { m.Rewinds = Rewinds{Epoch: 3, Over: true} }, []Kind{Rewind}, "rewinding"},
		{"refused just now, and not looked at since", func(o *Observation, _ *Memory) { o.Done = rewound(Refused) }, nil, "no rewind: a reason"},
		{"cut short", func(o *Observation, _ *Memory) { o.Data.State = DataIncomplete }, []Kind{Clone}, "cloning from pg1"},
		{"not looked at since it stopped", func(o *Observation, _ *Memory) { o.Data.At = t0 - 1 }, nil, "looking at the data directory"},
		{"the leader does not serve yet", func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhasePromoting }, nil, "waiting for pg1 to serve"},
		{"the history leads there", func(_ *Observation, m *Memory) { m.Rejoin.Follows = true }, []Kind{StartStandby}, "starting"},
		{"not checked", func(_ *Observation, m *Memory) { m.Rejoin = Rejoin{} }, []Kind{CheckHistory}, "checking the history"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := loser()
			c.change(&o, &m)
			p, _ := Decide(o, m)
			if got := planned(p); !slices.Equal(got, c.want) || !strings.Contains(p.Reason, c.why) {
				t.Errorf("planned %v, want %v; %s: %s", got, c.want, p.State, p.Reason)
			}
		})
	}

	o, m := loser()
	for i := range rewindTries {
		if m.Rewinds.Over {
			t.Fatalf("over after %d tries that said nothing", i)
		}
		o.Done = rewound(Unclear)
		_, m = Decide(o, m)
	}
	if !m.Rewinds.Over {
		t.Error("tried for ever")
	}

	// What the loser's tail was is forgotten, and nothing seen before the rewind brings it back.
	o, m = loser()
	m.LSN, m.Timeline, o.Data.RedoLSN, o.Done = 0x9000, 9, 0x9000, rewound(OK)
	_, m = Decide(o, m)
	if m.LSN != 0 || m.Timeline != 0 || m.Rejoin.Checked || !m.Rewinds.Over {
		t.Errorf("after a rewind: %+v at %s on timeline %d", m.Rejoin, m.LSN, m.Timeline)
	}
}

// TestARewindIsToldOf: while pg_rewind runs its directory shows itself as incomplete; nothing is to be cloned for that.
func TestARewindIsToldOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation)
	}{
		{"not looked at since it began", func(*Observation) {}},
		{"half-way", func(o *Observation) { o.Data.State = DataIncomplete }},
		{"half-way, and the leader does not serve", func(o *Observation) {
			o.Data.State, o.Lock.Leader.Phase = DataIncomplete, schema.PhasePromoting
		}},
		{"half-way, and the cluster is paused", func(o *Observation) { o.Data.State, o.Config.Pause = DataIncomplete, true }},
		{"half-way, and the directory cannot be read", func(o *Observation) { o.Data.State, o.Data.Detail = DataUnknown, "EIO" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := loser()
			p, m := Decide(o, m)
			if !slices.Equal(planned(p), []Kind{Rewind}) {
				t.Fatalf("planned %v", planned(p))
			}
			o.Busy[SlotPostgres] = Rewind
			c.change(&o)
			p, m = Decide(o, m)
			if p.State != schema.StateCloning || p.Reason != "rewinding to pg1: its history does not lead to that of pg1" {
				t.Errorf("%s: %s", p.State, p.Reason)
			}
			if p.CloneFrom != "" || m.Clone != (Cloning{}) {
				t.Errorf("it takes the turn of others that are cloned from %q: %+v", p.CloneFrom, m.Clone)
			}
		})
	}
}

// TestARewindCutShortIsToldOf: its directory is cloned, and the reason is no longer the rewind.
func TestARewindCutShortIsToldOf(t *testing.T) {
	o, m := loser()
	_, m = Decide(o, m)
	o.Data.State = DataIncomplete
	if p, _ := Decide(o, m); !strings.Contains(p.Reason, "from pg1: ") || !strings.HasSuffix(p.Reason, "the data directory is incomplete") {
		t.Errorf("%s: %s", p.State, p.Reason)
	}
}

// TestAStandbyThatDoesNotComeUp was rewound to a primary that is gone, or lacks WAL that nobody has any more.
func TestAStandbyThatDoesNotComeUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
	}{
		{"within start_timeout", func(o *Observation, _ *Memory) { o.Process.Since = o.Now.Add(-time.Second) }, nil},
		{"past it", func(*Observation, *Memory) {}, []Kind{CheckHistory}},
		{"past it, and it can never follow", func(_ *Observation, m *Memory) { m.Rejoin = Rejoin{Epoch: 4, Checked: true} }, []Kind{StopFast}},
		{"past it, and it follows", func(o *Observation, m *Memory) { m.Rejoin = Rejoin{Epoch: 4, Checked: true, Follows: true, At: o.Now} }, nil},
		{"its WAL is gone", func(o *Observation, _ *Memory) { o.Process.WALMissing = true }, []Kind{StopFast}},
		{"silent, which proves nothing", func(o *Observation, _ *Memory) { o.SQL.State = SQLUnknown }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o.SQL = SQL{State: SQLStarting}
			c.change(&o, &m)
			p, m := Decide(o, m)
			if got := planned(p); !slices.Equal(got, c.want) {
				t.Errorf("planned %v, want %v; %s: %s", got, c.want, p.State, p.Reason)
			}
			if o.Process.WALMissing && !m.Rewinds.Over {
				t.Error("a rewind brings no WAL back")
			}
		})
	}
}

// A record of an older epoch than is known, as a restored Consul shows it, names nobody whose history counts: neither a stopped primary
// nor an empty directory is made like that of the member it names.
func TestNothingIsCopiedByAnOldRecord(t *testing.T) {
	for name, change := range map[string]func(*Observation, *Memory){
		"a stopped primary": func(o *Observation, m *Memory) {
			o.Data.StandbySignal, o.Data.CanRewind = false, true
			m.Rejoin = Rejoin{Epoch: 4, Checked: true}
		},
		"an empty directory":         func(o *Observation, _ *Memory) { o.Data = Data{State: DataEmpty, At: t0} },
		"one that cannot be rewound": func(o *Observation, m *Memory) { m.Rejoin = Rejoin{Epoch: 4, Checked: true} },
	} {
		for known, allowed := range map[schema.Epoch]bool{4: true, 9: false} {
			o, m := standby()
			o.Process.State, o.SQL = ProcessStopped, SQL{}
			change(&o, &m)
			m.Record.Epoch = known
			var got []Kind
			for i := range 40 { // turns are taken before a clone
				o.Now = t0.Add(time.Duration(i) * 50 * time.Millisecond)
				o.Process.At, o.Data.At = o.Now, o.Now
				var p Plan
				p, m = Decide(o, m)
				got = append(got, planned(p)...)
			}
			copies := slices.Contains(got, Clone) || slices.Contains(got, Rewind)
			if copies != allowed {
				t.Errorf("%s, epoch %d known, record of 4: planned %v", name, known, got)
			}
		}
	}
}

// A look at a server that does not answer takes its ten seconds; whoever is elected meanwhile is promoted at once. What it brings home about a
// directory that has been handled since does not count.
func TestALookDelaysNothing(t *testing.T) {
	o, m := holder()
	o.SQL.InRecovery, o.Data.StandbySignal, o.Process.Armed = true, true, false
	o.Lock.Leader.Phase, m.Reign.Phase, m.Reign.WrittenPhase = schema.PhasePromoting, schema.PhasePromoting, schema.PhasePromoting
	o.Busy[CheckHistory.Slot()] = CheckHistory
	p, _ := Decide(o.at(100*time.Millisecond, 0), m)
	if !slices.Contains(planned(p), Promote) {
		t.Errorf("planned %v: %s", planned(p), p.Reason)
	}
	for handled, counts := range map[schema.Instant]bool{t0: true, t0 + 2: false} {
		o, m := standby()
		m.HandledAt = handled
		o.Done = []Outcome{{Action: Action{Kind: CheckHistory, Epoch: 4}, Result: OK, StartedAt: t0 + 1}}
		if _, m = Decide(o, m); m.Rejoin.Checked != counts {
			t.Errorf("handled %d after the look had begun: counts %t", handled-t0-1, m.Rejoin.Checked)
		}
	}
}

// A reign whose lease had run out is in force again, by a renewal: it may be that of a restored Consul. Postgres is started once every
// member has been heard since, or a lease later, and not at all if one of them knows a newer epoch.
func TestALapsedReignAsksAround(t *testing.T) {
	for _, c := range []struct {
		name    string
		heard   bool
		epoch   schema.Epoch
		after   time.Duration
		starts  bool
		reigns  bool
		running bool
	}{
		{name: "nobody heard", reigns: true},
		{name: "all heard, nothing newer", heard: true, epoch: 4, starts: true, reigns: true},
		{name: "all heard, a newer epoch", heard: true, epoch: 5},
		{name: "a lease later", after: lease + time.Millisecond, starts: true, reigns: true},
		{name: "a primary that runs", running: true, reigns: true},
	} {
		o, m := holder()
		lapsed := lease + 300*time.Millisecond
		o = o.at(lapsed, lapsed-10*time.Millisecond)
		if !c.running {
			o.Process.State, o.Process.Armed, o.SQL = ProcessStopped, false, SQL{}
		}
		view := o.Lock
		view.Index++
		o.Lock = view
		o.Done = []Outcome{{Action: Action{Kind: Renew, Leader: view.Leader}, Result: OK, View: view}}
		_, m = Decide(o, m)
		if m.Reign.Found != o.Now {
			t.Fatalf("%s: found %d, want %d", c.name, m.Reign.Found, o.Now)
		}
		o.Done = nil
		o = o.at(lapsed+c.after+20*time.Millisecond, lapsed+c.after+10*time.Millisecond)
		m.Reign.Deadline = o.Now.Add(lease)
		o.Process.At, o.Data.At = o.Now, o.Now
		o.Peers = nil
		for _, name := range []string{"pg2", "pg3"} {
			peer := schema.Peer{Name: name, Liveness: schema.LivenessAlive, HeardAt: t0}
			if c.heard {
				peer.HeardAt, peer.Status.Epoch = o.Now, c.epoch
			}
			o.Peers = append(o.Peers, peer)
		}
		p, m := Decide(o, m)
		if got := slices.Contains(planned(p), StartPrimary); got != c.starts || m.Reign.Active != c.reigns {
			t.Errorf("%s: starts %t, reigns %t: planned %v, %s", c.name, got, m.Reign.Active, planned(p), p.Reason)
		}
	}
}

// Whoever could not read the lock for a while counts its age anew: a backup of Consul that was brought back meanwhile shows it as it was,
// although its holder has renewed it since.
func TestAnOutageDatesTheLockAnew(t *testing.T) {
	for lost, seizes := range map[bool]bool{false: true, true: false} {
		o, m := standby()
		m.ConsulLost = lost
		p, m := Decide(o.at(time.Minute, time.Minute-1), m)
		if got := slices.Contains(planned(p), Seize); got != seizes {
			t.Errorf("consul was away: %t; planned %v: %s", lost, planned(p), p.Reason)
		}
		if at := t0.Add(time.Minute); lost && m.Seen.At != at {
			t.Errorf("the lock is dated %d, want %d", m.Seen.At, at)
		}
	}
}
