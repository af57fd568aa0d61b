package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// A set that was in force before the first write holds for every walsender at once; one that a running primary was told of holds
// once they have surely read it.
func TestSettled(t *testing.T) {
	now := schema.Instant(time.Hour)
	set := schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
	for name, c := range map[string]struct {
		fresh  bool
		probed time.Duration // after it was applied
		want   bool
	}{
		"promoted with it, and asked since":       {true, 10 * time.Millisecond, true},
		"promoted with it, and not asked since":   {true, 0, false},
		"told while it ran":                       {false, 10 * time.Millisecond, false},
		"told while it ran, and walsenders too":   {false, settledAfter, true},
		"told while it ran, and not asked for it": {false, 0, false},
	} {
		var m Memory
		d := &decision{o: &Observation{Now: now.Add(time.Minute), SQL: SQL{State: SQLOK, At: now.Add(c.probed), LSN: 77}}, m: m}
		s := &d.m.Reign.Sync
		if c.fresh {
			s.begun(Action{Kind: Promote, Sync: set}, now)
		} else {
			d.m.Reign.Active = true
			d.o.Now = now
			d.learnSetSync(Outcome{Action: Action{Kind: SetSync, Sync: set}, Result: OK})
			d.o.Now = now.Add(time.Minute)
		}
		if got := d.settled(); got != c.want || got && s.AppliedLSN != 77 {
			t.Errorf("%s: %t at %s", name, got, s.AppliedLSN)
		}
	}
}

// What holds already is recorded before the set is changed once more: a set that was inherited with us in it binds us to the last primary.
func TestRecordsWhatIsSure(t *testing.T) {
	now := schema.Instant(time.Hour)
	one, two := schema.SyncSet{Need: 1, Standbys: []string{"pg3"}}, schema.SyncSet{Need: 1, Standbys: []string{"pg1", "pg3"}}
	for name, c := range map[string]struct {
		flush schema.LSN
		want  schema.SyncSet
	}{"the standby has it": {100, one}, "the standby is behind": {99, two}} {
		d := &decision{o: &Observation{Name: "pg1", Now: now.Add(time.Second), Config: schema.DefaultClusterConfig(),
			SQL: SQL{State: SQLOK, At: now.Add(time.Second), LSN: 100, Replicas: []Replica{{"pg2", 100, true}, {"pg3", c.flush, true}}}}}
		d.o.Config.SynchronousMode = schema.SyncStrict
		for _, name := range []string{"pg1", "pg2", "pg3"} {
			d.o.State.Members = append(d.o.State.Members, schema.Doc[schema.Member]{Exists: true, Value: schema.Member{Name: name}})
		}
		s := &d.m.Reign.Sync
		s.Recorded, s.Wanted = two, two
		s.begun(Action{Kind: Promote, Sync: one}, now)
		if d.keepSync(); !s.Wanted.Equal(c.want) {
			t.Errorf("%s: %s", name, s.Wanted)
		}
	}
}

// The standbys of a new primary have a lease's time to connect before the set shrinks to those that have.
func TestNewPrimaryWaitsForItsStandbys(t *testing.T) {
	now := schema.Instant(time.Hour)
	d := &decision{o: &Observation{Name: "pg1", Now: now, Config: schema.DefaultClusterConfig(), SQL: SQL{State: SQLOK, At: now}}}
	for _, name := range []string{"pg1", "pg2", "pg3"} {
		d.o.State.Members = append(d.o.State.Members, schema.Doc[schema.Member]{Exists: true, Value: schema.Member{Name: name}})
	}
	d.m.Reign.Sync.begun(Action{Kind: Promote, Sync: schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}}, now)
	for after, want := range map[time.Duration][]string{0: {"pg2", "pg3"}, d.o.lease() - 1: {"pg2", "pg3"}, d.o.lease(): nil} {
		d.o.Now = now.Add(after)
		copied := *d
		if got := copied.standbysThere(); !slices.Equal(got, want) {
			t.Errorf("after %s: %v", after, got)
		}
	}
}

// Whatever set is in force, the one that is asked for is reached, and the record with it. Each turn, the record follows what is wanted.
func TestTheSetReachesItsTarget(t *testing.T) {
	sets := []schema.SyncSet{
		{Need: 1, Standbys: []string{"pg2"}}, {Need: 1, Standbys: []string{"pg2", "pg3"}}, {Need: 1, Standbys: []string{"pg3", "pg4"}},
		{Need: 1, Standbys: []string{"pg1", "pg2", "pg3"}}, {},
	}
	all := []string{"pg2", "pg3", "pg4"}
	for _, recorded := range sets {
		for _, applied := range sets[:3] {
			if !covers(recorded, applied, "pg1") {
				continue
			}
			for _, there := range [][]string{{"pg2"}, {"pg2", "pg3"}, all} {
				now := schema.Instant(time.Hour)
				o := &Observation{Name: "pg1", Now: now, Config: schema.DefaultClusterConfig(), SQL: SQL{State: SQLOK, LSN: 77}}
				o.Config.SynchronousMode = schema.SyncOn
				for _, n := range append(all, "pg1") {
					o.State.Members = append(o.State.Members, schema.Doc[schema.Member]{Exists: true, Value: schema.Member{Name: n}})
				}
				for _, n := range there {
					o.SQL.Replicas = append(o.SQL.Replicas, Replica{Name: n, Flush: 77, Streaming: true})
				}
				var m Memory
				m.Reign.Active = true
				m.Reign.Sync = Synchronous{Recorded: recorded, Wanted: recorded, Applied: applied, AppliedAt: now}
				want := schema.SyncSet{Need: 1, Standbys: there}
				reached := false
				for range 12 {
					o.Now, o.SQL.At, o.Process.At = o.Now.Add(settledAfter), o.Now.Add(settledAfter), o.Now.Add(settledAfter)
					d := &decision{o: o, m: m}
					d.keepSync()
					for _, a := range d.plan.Actions {
						if !covers(d.m.Reign.Sync.Recorded, a.Sync, "pg1") {
							t.Fatalf("record %s, in force %s: %s is set before it is recorded", recorded, applied, a.Sync)
						}
						d.learnSetSync(Outcome{Action: a, Result: OK})
					}
					m = d.m
					m.Reign.Sync.Recorded = m.Reign.Sync.Wanted // a renewal was answered
					s := m.Reign.Sync
					reached = s.Applied.Equal(want) && s.Recorded.Equal(want)
				}
				if !reached {
					t.Errorf("from record %s and %s in force, with %v there: stays at record %s, %s in force", recorded, applied, there, m.Reign.Sync.Recorded, m.Reign.Sync.Applied)
				}
			}
		}
	}
}

// syncHolder is a primary pg1 in mode strict, whose standby pg2 and others stream.
func syncHolder(now schema.Instant, recorded, applied schema.SyncSet, there ...string) *decision {
	o := &Observation{Name: "pg1", Now: now, Config: schema.DefaultClusterConfig(), Process: Process{At: now}, SQL: SQL{State: SQLOK, At: now, LSN: 77}}
	o.Config.SynchronousMode = schema.SyncStrict
	for _, n := range []string{"pg1", "pg2", "pg3"} {
		o.State.Members = append(o.State.Members, schema.Doc[schema.Member]{Exists: true, Value: schema.Member{Name: n}})
	}
	for _, n := range there {
		o.SQL.Replicas = append(o.SQL.Replicas, Replica{Name: n, Flush: 77, Streaming: true})
	}
	d := &decision{o: o}
	d.m.Reign = Reign{Active: true, Phase: schema.PhaseServing, Sync: Synchronous{Recorded: recorded, Wanted: recorded, Applied: applied}}
	return d
}

// A sidecar that is started again beside its primary does not know what Postgres goes by: it asks for it anew, and until then the
// record promises on.
func TestAFoundReignKeepsItsSet(t *testing.T) {
	set := schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
	d := syncHolder(schema.Instant(time.Hour), set, schema.SyncSet{}, "pg2", "pg3")
	if d.keepSync(); !d.m.Reign.Sync.Wanted.Equal(set) {
		t.Errorf("record %s becomes %s", set, d.m.Reign.Sync.Wanted)
	}
	if got := planned(d.plan); !slices.Equal(got, []Kind{SetSync}) {
		t.Errorf("planned %v", got)
	}
}

// While it is not known whether Postgres goes by one set or another, the record covers both, and one of them is set again.
func TestTheRecordCoversASetThatMayBeInForce(t *testing.T) {
	now := schema.Instant(time.Hour)
	one, both := schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}, schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
	for _, result := range []Certainty{"", Unclear, OK} {
		d := syncHolder(now, both, one, "pg2", "pg3")
		d.m.Reign.Sync.AppliedAt = now - schema.Instant(time.Minute)
		d.keepSync()
		if got := planned(d.plan); !slices.Equal(got, []Kind{SetSync}) {
			t.Fatalf("planned %v", got)
		}
		a := d.plan.Actions[0]
		d.o.Now = now.Add(4 * time.Second)
		d.o.Process.At, d.o.SQL.At, d.o.SQL.Replicas = d.o.Now, d.o.Now, d.o.SQL.Replicas[:1]
		d.o.Busy[SlotPostgres], d.plan = SetSync, Plan{}
		if result != "" {
			d.o.Busy[SlotPostgres] = ""
			d.learnSetSync(Outcome{Action: a, Result: result})
		}
		d.keepSync()
		if !d.m.Reign.Sync.Wanted.Equal(both) {
			t.Errorf("%q: %s may be in force, and the record becomes %s", result, a.Sync, d.m.Reign.Sync.Wanted)
		}
		if got := planned(d.plan); (len(got) == 0) != (result == "") {
			t.Errorf("%q: planned %v", result, got)
		}
	}
}

// A sidecar that is started again while clients are kept out after a crash goes on to keep them out.
func TestAFoundReignKeepsClientsOut(t *testing.T) {
	o, m := holder()
	o.Lock.Leader.Phase, o.Lock.Leader.Sync = schema.PhaseRecovering, schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
	o.Config.SynchronousMode = schema.SyncStrict
	m.Reign = Reign{}
	for i, flush := range []schema.LSN{0x4000, 0x4000, 0x5000} {
		o = o.at(time.Duration(i+1)*100*time.Millisecond, 0)
		o.Data.At, o.SQL.At, o.SQL.Replicas = o.Now, o.Now, []Replica{{"pg2", flush, true}}
		var p Plan
		p, m = Decide(o, m)
		if m.Reign.Phase != schema.PhaseRecovering {
			t.Fatalf("turn %d: %s", i, m.Reign.Phase)
		}
		if got := slices.Contains(planned(p), SetSync); got != (flush == 0x5000) {
			t.Errorf("with %s of %s at the standby: planned %v", flush, o.SQL.LSN, planned(p))
		}
	}
}

// A sidecar that was just restarted may know of an older timeline only, by SQL; a candidate would take it to be behind.
func TestOnlyWhoHasLookedReports(t *testing.T) {
	o, m := standby()
	ask := func() schema.PromiseReply {
		r, _ := Promise(o, m, schema.PromiseRequest{From: "pg3", Report: true})
		return r
	}
	if r := ask(); r.LSN != 0 || !strings.Contains(r.Why, "not been looked at") {
		t.Fatalf("before it has looked: %+v", r)
	}
	_, m = Decide(o, m)
	if r := ask(); r.LSN != 0x5000 || r.Timeline != 2 {
		t.Fatalf("after: %+v", r)
	}
	o.Data.State = DataUnknown // it is still what it was
	_, m = Decide(o, m)
	if r := ask(); r.LSN != 0x5000 || r.Timeline != 2 {
		t.Fatalf("while the launcher is silent: %+v", r)
	}
	for _, k := range []Kind{Clone, Rewind} {
		after := m
		o.Done = []Outcome{{Action: Action{Kind: k}, Result: OK, EndedAt: o.Now}}
		_, after = Decide(o, after)
		if r, _ := Promise(o, after, schema.PromiseRequest{From: "pg3", Report: true}); r.LSN != 0 {
			t.Errorf("after a %s, before it has looked: %+v", k, r)
		}
	}
}
