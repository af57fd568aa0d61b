package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// hungProbes shows a holder one probe every 500 ms and returns what it decides on the last.
func hungProbes(o Observation, m Memory, n int, each func(i int, s *SQL)) (Plan, Memory) {
	var p Plan
	for i := range n {
		o = o.at(time.Duration(i)*500*time.Millisecond, 0)
		o.SQL.At = o.Now
		each(i, &o.SQL)
		m.Reign.Deadline, m.Reign.RenewedAt, m.Reign.AskedAt = o.Now.Add(lease), o.Now, o.Now
		p, m = Decide(o, m)
	}
	return p, m
}

func TestAHungPostgresIsHandedOver(t *testing.T) {
	two := []schema.Peer{peer("pg2", 0x5000), peer("pg3", 0x5000)}
	stalled := func(_ int, s *SQL) { s.WALWaits = 3 }
	strict := func(_ *Observation, m *Memory) {
		set := schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
		m.Reign.Sync = Synchronous{Recorded: set, Wanted: set, Applied: set}
	}
	for _, c := range []struct {
		name   string
		peers  []schema.Peer
		change func(*Observation, *Memory)
		n      int
		each   func(int, *SQL)
		over   bool
	}{
		{"somebody waits and the flush stands still", two, nil, 7, stalled, true},
		{"not yet for long enough", two, nil, 6, stalled, false},
		{"a longer hang_timeout", two, func(o *Observation, _ *Memory) { o.Config.HangTimeout = schema.Duration(10 * time.Second) }, 20, stalled, false},
		{"a configuration without one", two, func(o *Observation, _ *Memory) { o.Config.HangTimeout = 0 }, 7, stalled, true},
		{"a slow disk that moves", two, nil, 30, func(i int, s *SQL) { s.WALWaits, s.LSN = 3, schema.LSN(0x5000+i/5) }, false},
		{"nobody waits: an open transaction, or a synchronous standby that is away", two, nil, 30, func(int, *SQL) {}, false},
		{"now and then nobody waits", two, nil, 30, func(i int, s *SQL) { s.WALWaits = i % 5 }, false},
		{"nobody may be promoted", nil, nil, 30, stalled, false},
		{"the others' disks stand still too", []schema.Peer{{}, {}}, func(o *Observation, _ *Memory) {
			for i, p := range two {
				p.Status.DiskSilent = schema.Duration(3 * time.Second)
				o.Peers[i] = p
			}
		}, 30, stalled, false},
		{"synchronous, and enough are there", two, strict, 7, stalled, true},
		{"synchronous, and too few are there", two[:1], strict, 30, stalled, false},
		{"answers cease during a stall", two, nil, 7, func(i int, s *SQL) {
			if s.WALWaits = 1; i > 2 {
				*s = SQL{State: SQLUnknown, At: s.At, Failing: t0.Add(1500 * time.Millisecond)}
			}
		}, true},
		{"no answer at all", two, nil, 7, func(_ int, s *SQL) { *s = SQL{State: SQLUnknown, At: s.At, Failing: t0} }, true},
		{"no answer, by a postmaster that was just forked", two, func(o *Observation, _ *Memory) { o.Process.Since = t0 }, 15,
			func(_ int, s *SQL) { *s = SQL{State: SQLUnknown, At: s.At, Failing: t0} }, false},
		{"it says that it starts", two, func(o *Observation, _ *Memory) { o.Process.Since = t0 }, 30, func(_ int, s *SQL) { *s = SQL{State: SQLStarting, At: s.At} }, false},
		{"it says that it has no connection to spare", two, nil, 30, func(_ int, s *SQL) { *s = SQL{State: SQLUnknown, At: s.At} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o.Peers = slices.Clone(c.peers)
			if c.change != nil {
				c.change(&o, &m)
			}
			p, m := hungProbes(o, m, c.n, c.each)
			if over := m.Reign.HandOver != ""; over != c.over {
				t.Fatalf("hands over: %v; %s: %s", over, p.State, p.Reason)
			}
			if c.over && (!slices.Contains(planned(p), StopNow) || slices.Contains(planned(p), Release)) {
				t.Errorf("planned %v: want it stopped, and no release while it may live", planned(p))
			}
		})
	}
}

// A Postgres that does not die keeps nobody waiting: its lease is left to run out.
func TestAHandoverDoesNotExtendTheLease(t *testing.T) {
	o, m := holder()
	m.Reign.HandOver = "its disk hangs"
	for d := time.Duration(0); d < lease; d += 50 * time.Millisecond {
		o = o.at(d, 0)
		var p Plan
		if p, m = Decide(o, m); slices.Contains(planned(p), Renew) || slices.Contains(planned(p), AskPromises) {
			t.Fatalf("planned %v after %s", planned(p), d)
		}
	}
	if m.Reign.Deadline != t0.Add(lease) {
		t.Error("the deadline has moved")
	}
}

func TestAStandbyWhoseDiskHangsDoesNotStand(t *testing.T) {
	o, m := standby()
	o = o.at(time.Minute, time.Minute-1)
	for _, c := range []struct {
		silent time.Duration
		stands bool
	}{{time.Second, true}, {2 * time.Second, false}} {
		o.DiskAt = o.Now.Add(-c.silent)
		p, _ := Decide(o, m)
		if got := slices.Contains(planned(p), Seize); got != c.stands || !c.stands && !strings.Contains(p.Reason, "its disk has taken no write for 2s") {
			t.Errorf("disk silent for %s: stands: %v; %s", c.silent, got, p.Reason)
		}
	}
}

// While the record is not on disk, what rests on it waits; what a stalled disk must not hold up does not.
func TestWhatRestsOnTheRecordWaitsForIt(t *testing.T) {
	o, m := standby()
	o = o.at(time.Minute, time.Minute-1)
	if p, _ := DecideSaved(o, m, m.Record); slices.Contains(planned(p), Seize) {
		t.Errorf("planned %v although the record has just changed", planned(p)) // by the members that it learned
	}
	_, m = Decide(o, m)
	if p, _ := DecideSaved(o, m, m.Record); !slices.Contains(planned(p), Seize) {
		t.Errorf("planned %v with the record on disk", planned(p))
	}
	old := m.Record
	old.Epoch--
	if p, _ := DecideSaved(o, m, old); slices.Contains(planned(p), Seize) {
		t.Errorf("planned %v with an older record on disk", planned(p))
	}
	o, m = holder()
	old = m.Record
	old.Epoch--
	m.Reign.Deadline = t0.Add(lease + time.Second)
	p, _ := DecideSaved(o.at(500*time.Millisecond, 0), m, old)
	if got := planned(p); !slices.Contains(got, Renew) || !slices.Contains(got, Arm) {
		t.Errorf("planned %v: a primary must live on while its record is written", got)
	}
	crashed := o.at(400*time.Millisecond, 0)
	crashed.Process = Process{State: ProcessCrashed, At: crashed.Now, Since: crashed.Now - 2}
	crashed.Data.At, crashed.SQL = crashed.Now-1, SQL{}
	p, after := DecideSaved(crashed, m, old)
	if slices.Contains(planned(p), StartPrimary) || after.Crashes != 0 {
		t.Errorf("planned %v, %d crashes counted; want the start to wait", planned(p), after.Crashes)
	}
}

func TestPromisesAreTold(t *testing.T) {
	o, m := holder()
	m.Reign.RenewedAt = t0
	round := func(at time.Duration, replies ...schema.PromiseReply) (Plan, Memory) {
		o = o.at(at, 0)
		o.Done = []Outcome{{Action: Action{Kind: AskPromises, Epoch: 4, Members: []string{"pg2", "pg3"}, Lease: schema.Duration(lease), Marks: []Mark{{"pg2", 1}, {"pg3", 1}}},
			Result: OK, Promises: replies, StartedAt: o.Now - 1}}
		var p Plan
		p, m = Decide(o, m)
		return p, m
	}
	kinds := func(p Plan) (k []schema.EventKind) {
		for _, e := range p.Events {
			if e.Kind == schema.EventPromise || e.Kind == schema.EventUnpromised {
				k = append(k, e.Kind)
			}
		}
		return k
	}
	yes := func(n string) schema.PromiseReply { return schema.PromiseReply{Member: n, Given: true} }
	p, _ := round(time.Second, yes("pg2"), yes("pg3"))
	if got := kinds(p); !slices.Equal(got, []schema.EventKind{schema.EventPromise}) || !strings.Contains(p.Reason, "by the promises of pg2, pg3") {
		t.Errorf("events %v; %s", got, p.Reason)
	}
	if p, _ = round(1500*time.Millisecond, yes("pg2"), yes("pg3")); len(kinds(p)) > 0 {
		t.Errorf("the second round is told too: %v", kinds(p))
	}
	deadline := m.Reign.Deadline
	p, _ = round(2*time.Second, yes("pg2"), schema.PromiseReply{Member: "pg3", Why: "epoch 4 is over: epoch 5 is known"})
	if got := kinds(p); !slices.Equal(got, []schema.EventKind{schema.EventUnpromised}) || !strings.Contains(p.Reason, "pg3 (epoch 4 is over: epoch 5 is known)") {
		t.Errorf("events %v; %s", got, p.Reason)
	}
	if m.Reign.Deadline != deadline {
		t.Error("a round with a refusal has moved the deadline")
	}
	q := m.Reign.Promises
	if len(q) != 2 || !q[0].Given || q[0].GivenAt != o.Now-1 || q[1].Given || q[1].GivenAt != t0.Add(1500*time.Millisecond)-1 {
		t.Errorf("remembered: %+v", q)
	}
	if _, m = round(2500*time.Millisecond, yes("pg2")); m.Reign.Promises[1].Why != "no answer" {
		t.Errorf("remembered of a member that does not answer: %+v", m.Reign.Promises[1])
	}
}
