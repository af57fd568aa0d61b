package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

const (
	lease = 3 * time.Second
	t0    = schema.Instant(1000 * time.Second)
)

var margin = schema.Margin(lease)

// standby is a healthy standby pg2 of a cluster whose primary pg1 renewed last at t0.
func standby() (Observation, Memory) {
	record := schema.Leader{
		Member: "pg1", Epoch: 4, Phase: schema.PhaseServing, Timeline: 2, FlushLSN: 0x5000, Session: "s1", Lease: schema.Duration(lease),
		Members: []string{"pg1", "pg2", "pg3"}, NextTimeline: 2, Addresses: schema.Addresses{Postgres: "pg1:5432"},
	}
	o := Observation{
		Now: t0, Name: "pg2", Config: schema.DefaultClusterConfig(), Consul: Consul{Seen: true, AnsweredAt: t0}, Session: "s2",
		Lock:    schema.LockView{Known: true, Exists: true, Index: 70, Session: "s1", Leader: record, AskedAt: t0 - 1},
		Data:    Data{State: DataValid, At: t0, SystemID: "7", Timeline: 2, StandbySignal: true},
		Process: Process{State: ProcessRunning, At: t0, Since: t0 - schema.Instant(time.Hour)},
		SQL:     SQL{State: SQLOK, At: t0, InRecovery: true, SystemID: "7", Timeline: 2, LSN: 0x5000, Streaming: true},
	}
	o.State.Index = 70
	o.State.Initialize = schema.Doc[schema.Initialize]{Exists: true, Value: schema.Initialize{SystemID: "7", By: "pg1"}}
	for _, n := range record.Members {
		o.State.Members = append(o.State.Members, schema.Doc[schema.Member]{Exists: true, Value: schema.Member{Name: n}})
	}
	m := Memory{Record: Record{Cluster: "c", Name: "pg2", SystemID: "7", Epoch: 4}, SessionAt: t0, Following: Upstream{"pg1", "pg1:5432"}}
	m.Seen = Seen{Known: true, Exists: true, Index: 70, At: t0}
	return o, m
}

// peer is another standby as gossip shows it.
func peer(name string, lsn schema.LSN) schema.Peer {
	return schema.Peer{Name: name, Kind: "member", Liveness: schema.LivenessAlive, Status: schema.Status{
		Name: name, Role: schema.RoleStandby, State: schema.StateRunning, SystemID: "7", Timeline: 2, LSN: lsn, Epoch: 4,
	}}
}

// planned returns the kinds of action in a plan, without the session's.
func planned(p Plan) []Kind {
	var kinds []Kind
	for _, a := range p.Actions {
		if a.Kind.Slot() != SlotSession {
			kinds = append(kinds, a.Kind)
		}
	}
	return kinds
}

// at moves the observation to d after t0, with a read of the lock begun at read.
func (o Observation) at(d, read time.Duration) Observation {
	o.Now, o.Lock.AskedAt, o.Process.At = t0.Add(d), t0.Add(read), t0.Add(d)
	return o
}

func TestLeaseIsDeadOnlyAfterMarginAndALaterRead(t *testing.T) {
	dead := lease + margin
	for _, c := range []struct {
		name      string
		now, read time.Duration
		want      []Kind
	}{
		{"within the lease", lease - 1, 0, nil},
		{"within the margin", dead - 1, 0, nil},
		{"past it, not read since", dead, 0, []Kind{ReadLeader}},
		{"past it, read just before", dead + time.Second, dead, []Kind{ReadLeader}},
		{"past it, read later", dead + time.Second, dead + 1, []Kind{Seize}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			p, _ := Decide(o.at(c.now, c.read), m)
			if got := planned(p); !slices.Equal(got, c.want) {
				t.Errorf("planned %v, want %v (%s: %s)", got, c.want, p.State, p.Reason)
			}
		})
	}
}

func TestARenewalBeginsTheJudgingAnew(t *testing.T) {
	o, m := standby()
	o = o.at(lease+margin-1, 0)
	o.Lock.Index = 71
	_, m = Decide(o, m)
	p, _ := Decide(o.at(lease+margin+time.Second, lease+margin+time.Second-1), m)
	if got := planned(p); len(got) != 0 {
		t.Errorf("planned %v against a lease renewed a moment ago", got)
	}
}

func TestSeizeRaisesEpochAndTimeline(t *testing.T) {
	o, m := standby()
	o.State.History = schema.Doc[schema.History]{Exists: true, Value: schema.History{Reigns: []schema.Reign{{Epoch: 6, Timeline: 5}}}}
	o.Peers = []schema.Peer{peer("pg3", 0x4000)}
	o.Peers[0].Status.Epoch = 9
	// It is heard of now: whoever reigns in it may have a lease in force, whatever the age of the record.
	p, m := Decide(o.at(time.Minute, time.Minute-1), m)
	if slices.Contains(planned(p), Seize) {
		t.Fatalf("planned %v a moment after it had heard of epoch 9", planned(p))
	}
	// The record is of epoch 4 and epoch 9 is known: it says nothing about who has most.
	p, _ = Decide(o.at(time.Minute+lease+margin+2, time.Minute+lease+margin+1), m)
	if slices.Contains(planned(p), Seize) || !strings.Contains(p.Reason, "not heard of: pg1") {
		t.Fatalf("planned %v without having heard of pg1: %s", planned(p), p.Reason)
	}
	o.Peers = append([]schema.Peer{peer("pg1", 0x3000)}, o.Peers...)
	p, m = Decide(o.at(time.Minute+lease+margin+2, time.Minute+lease+margin+1), m)
	if got := planned(p); !slices.Equal(got, []Kind{AskReports}) || !strings.Contains(p.Reason, "told how far they are: pg1, pg3") {
		t.Fatalf("planned %v before the others have told how far they are: %s", got, p.Reason)
	}
	m.Reports = Reports{Index: o.Lock.Index, Got: []Report{{"pg1", 0x3000, 2}, {"pg3", 0x6000, 2}}}
	if p, _ := Decide(o.at(time.Minute+lease+margin+2, time.Minute+lease+margin+1), m); slices.Contains(planned(p), Seize) || !strings.Contains(p.Reason, "pg3 has WAL that it lacks") {
		t.Fatalf("planned %v although pg3 has more than gossip says: %s", planned(p), p.Reason)
	}
	m.Reports.Got[1].LSN = 0x4000
	p, _ = Decide(o.at(time.Minute+lease+margin+2, time.Minute+lease+margin+1), m)
	if got := planned(p); !slices.Equal(got, []Kind{Seize}) {
		t.Fatalf("planned %v: %s", got, p.Reason)
	}
	l := p.Actions[len(p.Actions)-1].Leader
	if l.Epoch != 10 || l.NextTimeline != 6 || l.Phase != schema.PhasePromoting || l.Session != "s2" {
		t.Errorf("seizes with epoch %d, timeline %d, phase %s, session %s; want 10, 6, promoting, s2", l.Epoch, l.NextTimeline, l.Phase, l.Session)
	}
}

func TestWhoMayStand(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		why    string // part of the reason; empty if it may stand
	}{
		{"a healthy standby", func(*Observation, *Memory) {}, ""},
		{"no session", func(o *Observation, _ *Memory) { o.Session = "" }, "no consul session"},
		{"nofailover", func(o *Observation, _ *Memory) { o.Tags.NoFailover = true }, "nofailover"},
		{"unknown to the primary", func(o *Observation, _ *Memory) { o.Lock.Leader.Members = []string{"pg1", "pg3"} }, "did not know it"},
		{"another timeline", func(o *Observation, m *Memory) { o.Lock.Leader.Timeline = 3 }, "timeline"},
		{"too far behind", func(o *Observation, _ *Memory) { o.Lock.Leader.FlushLSN = 0x5000 + 2<<20 }, "maximum_lag_on_failover"},
		{"just near enough", func(o *Observation, _ *Memory) { o.Lock.Leader.FlushLSN = 0x5000 + 1<<20 }, ""},
		{"it promised", func(o *Observation, m *Memory) { m.PromisedUntil = o.Now.Add(1) }, "promised"},
		{"its promise is over", func(o *Observation, m *Memory) { m.PromisedUntil = o.Now }, ""},
		{"silent postgres", func(o *Observation, _ *Memory) { o.SQL.State = SQLUnknown }, "does not answer"},
		{"no record, nobody heard", func(o *Observation, m *Memory) {
			o.Lock = schema.LockView{Known: true, AskedAt: o.Lock.AskedAt}
			m.Seen = Seen{Known: true, At: t0}
		}, "not heard of: pg1, pg3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o = o.at(time.Minute, time.Minute-1)
			c.change(&o, &m)
			p, _ := Decide(o, m)
			stands := slices.Contains(planned(p), Seize)
			if stands != (c.why == "") || !strings.Contains(p.Reason, c.why) {
				t.Errorf("stands: %v; %s: %s", stands, p.State, p.Reason)
			}
		})
	}
}

// stolon sorted its candidates the wrong way round and took the least advanced; no test of its own noticed.
func TestTheBestGoesFirst(t *testing.T) {
	dead := lease + margin
	beat := 2 * schema.RenewInterval(lease)
	for _, c := range []struct {
		name  string
		peers []schema.Peer
		tags  schema.Tags
		rank  int
	}{
		{"alone", nil, schema.Tags{}, 0},
		{"more than the other", []schema.Peer{peer("pg3", 0x4fff)}, schema.Tags{}, 0},
		{"less than the other", []schema.Peer{peer("pg3", 0x5001)}, schema.Tags{}, 1},
		{"less than two others", []schema.Peer{peer("pg3", 0x5001), peer("pg4", 0x6000)}, schema.Tags{}, 2},
		{"as much, and an earlier name", []schema.Peer{peer("pg3", 0x5000)}, schema.Tags{}, 0},
		{"as much, and a later name", []schema.Peer{peer("pg0", 0x5000)}, schema.Tags{}, 1},
		{"less, and a higher priority", []schema.Peer{peer("pg3", 0x6000)}, schema.Tags{Priority: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o.Peers, o.Tags = c.peers, c.tags
			turn := dead + time.Duration(c.rank)*beat
			if c.rank > 0 {
				if p, _ := Decide(o.at(turn-1, turn-2), m); slices.Contains(planned(p), Seize) {
					t.Errorf("stands before its turn")
				}
			}
			if p, _ := Decide(o.at(turn+2, turn+1), m); !slices.Contains(planned(p), Seize) {
				t.Errorf("does not stand when it is its turn: %s: %s", p.State, p.Reason)
			}
		})
	}
	o, m := standby()
	o.Peers = []schema.Peer{peer("pg3", 0x6000)}
	for _, unfit := range []func(*schema.Peer){
		func(p *schema.Peer) { p.Liveness = schema.LivenessDead },
		func(p *schema.Peer) { p.Status.Tags.NoFailover = true },
		func(p *schema.Peer) { p.Status.Timeline = 1 },
		func(p *schema.Peer) { p.Status.SystemID = "8" },
		func(p *schema.Peer) { p.Status.State = schema.StateStarting },
	} {
		o.Peers[0] = peer("pg3", 0x6000)
		unfit(&o.Peers[0])
		if p, _ := Decide(o.at(dead+2, dead+1), m); !slices.Contains(planned(p), Seize) {
			t.Errorf("waits for %+v, which may not stand", o.Peers[0])
		}
	}
}

// holder is pg1 in its reign of epoch 4, renewed at t0.
func holder() (Observation, Memory) {
	o, m := standby()
	o.Name, o.Session = "pg1", "s1"
	o.Data.StandbySignal = false
	o.SQL.InRecovery, o.SQL.Streaming = false, false
	o.Process.Armed, o.Process.Epoch, o.Process.Deadline = true, 4, t0.Add(lease)
	m.Record = Record{Cluster: "c", Name: "pg1", SystemID: "7", Epoch: 4, Reigned: 4, Session: "s1"}
	m.Reign = Reign{
		Active: true, Epoch: 4, Phase: schema.PhaseServing, WrittenPhase: schema.PhaseServing, Session: "s1", Index: 70, Deadline: t0.Add(lease),
		AskedAt: t0, RenewedAt: t0, Since: t0 - 1, Written: []string{"pg1", "pg2", "pg3"}, Noted: true, NextTimeline: 2,
	}
	m.LSN, m.Timeline, m.Following = 0x5000, 2, Upstream{}
	return o, m
}

func TestDeadlineCountsFromBeforeTheRequest(t *testing.T) {
	o, m := holder()
	o = o.at(900*time.Millisecond, 500*time.Millisecond)
	l := o.Lock.Leader
	o.Lock.Index = 71
	view := o.Lock
	o.Done = []Outcome{{Action: Action{Kind: Renew, Leader: l}, Result: OK, View: view}}
	_, m = Decide(o, m)
	if want := t0.Add(500*time.Millisecond + lease); m.Reign.Deadline != want || m.Reign.Index != 71 {
		t.Errorf("deadline %d, index %d; want %d, 71", m.Reign.Deadline, m.Reign.Index, want)
	}
}

func TestTheHolderArmsTheLauncherWithEveryExtension(t *testing.T) {
	o, m := holder()
	m.Reign.Deadline = t0.Add(lease + 500*time.Millisecond)
	p, _ := Decide(o.at(100*time.Millisecond, 0), m)
	if got := planned(p); !slices.Equal(got, []Kind{Arm}) || p.Actions[0].Deadline != m.Reign.Deadline && p.Actions[len(p.Actions)-1].Deadline != m.Reign.Deadline {
		t.Errorf("planned %v", got)
	}
}

func TestALostLockStopsPostgresAtOnce(t *testing.T) {
	o, m := holder()
	o.Lock.Index, o.Lock.Session, o.Lock.AskedAt = 72, "s3", t0.Add(time.Second)
	o.Lock.Leader.Member, o.Lock.Leader.Epoch, o.Lock.Leader.Session = "pg3", 5, "s3"
	o.Now = t0.Add(time.Second)
	p, m := Decide(o, m)
	if m.Reign.Active || !slices.Contains(planned(p), StopNow) && !slices.Contains(planned(mustDecide(o, m)), StopNow) {
		t.Errorf("reign active: %v; planned %v", m.Reign.Active, planned(p))
	}
	if m.Record.Epoch != 5 {
		t.Errorf("epoch %d remembered, want 5", m.Record.Epoch)
	}
}

func mustDecide(o Observation, m Memory) Plan {
	p, _ := Decide(o, m)
	return p
}

func TestAnExpiredSessionDoesNotEndAReign(t *testing.T) {
	o, m := holder()
	o.Lock.Index, o.Lock.Session = 71, "" // released by Consul; the value is ours
	o.Session = "s9"                      // made since
	p, m := Decide(o.at(time.Second, time.Second-1), m)
	if !m.Reign.Active {
		t.Fatal("the reign has ended")
	}
	i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Seize })
	if i < 0 || p.Actions[i].Leader.Epoch != 4 || p.Actions[i].At.Index != 71 || p.Actions[i].Leader.Session != "s9" {
		t.Errorf("planned %v: want the key taken again in epoch 4", p.Actions)
	}
}

// The watch may tell of our own taking the key again, under a new session, before the transaction is answered: the reign goes on.
func TestTheKeyTakenAgainIsOurs(t *testing.T) {
	o, m := holder()
	o.Session = "s9"
	o.Busy[SlotLock] = Seize
	o.Lock.Index, o.Lock.Session, o.Lock.Leader.Session = 75, "s9", "s9"
	p, m := Decide(o.at(100*time.Millisecond, 0), m)
	if !m.Reign.Active || m.Reign.Index != 75 || m.Reign.Session != "s9" || slices.Contains(planned(p), StopNow) {
		t.Errorf("%+v; planned %v", m.Reign, planned(p))
	}
	o.Lock.Session, o.Lock.Leader.Session = "s3", "s3" // a session that is not ours is somebody else's, whatever the record says
	if _, m = Decide(o.at(200*time.Millisecond, 0), m); m.Reign.Active {
		t.Error("it goes on under another's session")
	}
}

func TestACrashIsRecoveredInPlaceIfThatIsQuick(t *testing.T) {
	for _, c := range []struct {
		name    string
		redo    schema.LSN
		crashes int
		peers   []schema.Peer
		want    Kind
	}{
		{"little to replay", 0x4000, 0, []schema.Peer{peer("pg2", 0x5000)}, StartPrimary},
		{"nobody else", 0x4000, 0, nil, StartPrimary},
		{"again and again, nobody else", 0x4000, 9, nil, StartPrimary},
		{"again and again", 0x4000, 3, []schema.Peer{peer("pg2", 0x5000)}, Release},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o = o.at(400*time.Millisecond, 0)
			o.Process = Process{State: ProcessCrashed, At: o.Now, Since: o.Now - 2}
			o.Data.At, o.Data.RedoLSN = o.Now-1, c.redo
			o.SQL, o.Peers, m.Crashes = SQL{}, c.peers, c.crashes
			p, after := Decide(o, m)
			if !slices.Contains(planned(p), c.want) {
				t.Errorf("planned %v, want %s; %s: %s", planned(p), c.want, p.State, p.Reason)
			}
			if c.want == StartPrimary && after.Crashes != c.crashes+1 {
				t.Errorf("%d crashes remembered", after.Crashes)
			}
		})
	}
	o, m := holder()
	m.LSN = 0x5000 + 4*recoveryRate
	o = o.at(400*time.Millisecond, 0)
	o.Process = Process{State: ProcessCrashed, At: o.Now, Since: o.Now - 2}
	o.Data.At, o.Data.RedoLSN = o.Now-1, 0x5000
	o.SQL, o.Peers = SQL{}, []schema.Peer{peer("pg2", m.LSN)}
	o.Lock.Leader.FlushLSN = m.LSN
	if p, _ := Decide(o, m); !slices.Contains(planned(p), Release) {
		t.Errorf("four seconds of recovery and a standby that has everything: planned %v, want release", planned(p))
	}
}

func TestReleaseOnlyAfterPostgresIsGone(t *testing.T) {
	for _, s := range []ProcessState{ProcessUnknown, ProcessRunning, ProcessStopping, ProcessStopped, ProcessCrashed, ProcessFenced} {
		o, m := holder()
		m.Reign.HandOver = "a test"
		o = o.at(400*time.Millisecond, 0)
		o.Process.State = s
		p, _ := Decide(o, m)
		gone := s == ProcessStopped || s == ProcessCrashed || s == ProcessFenced
		if got := slices.Contains(planned(p), Release); got != gone {
			t.Errorf("postgres %s: release planned: %v", s, got)
		}
	}
}

func TestPromise(t *testing.T) {
	req := schema.PromiseRequest{From: "pg1", Epoch: 4, Lease: schema.Duration(lease), Mark: t0.Add(-lease)}
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory, *schema.PromiseRequest)
		given  bool
	}{
		{"a standby", func(*Observation, *Memory, *schema.PromiseRequest) {}, true},
		{"while it reads the lock", func(o *Observation, _ *Memory, _ *schema.PromiseRequest) { o.Busy[SlotLock] = ReadLeader }, true},
		{"while it seizes", func(o *Observation, _ *Memory, _ *schema.PromiseRequest) { o.Busy[SlotLock] = Seize }, false},
		{"after a seizure not yet explained", func(o *Observation, m *Memory, _ *schema.PromiseRequest) { m.SeizeFailedAt = o.Now }, false},
		{"an older epoch", func(_ *Observation, m *Memory, _ *schema.PromiseRequest) { m.Record.Epoch = 5 }, false},
		{"the holder", func(_ *Observation, m *Memory, _ *schema.PromiseRequest) { m.Reign.Active = true }, false},
		{"to one that may not hear it", func(_ *Observation, _ *Memory, r *schema.PromiseRequest) { r.Mark = schema.Never }, false},
		{"to one that has not heard for too long", func(_ *Observation, _ *Memory, r *schema.PromiseRequest) { r.Mark = t0.Add(-lease - 1) }, false},
		{"to one that heard another machine's clock", func(_ *Observation, _ *Memory, r *schema.PromiseRequest) { r.Mark = t0.Add(1) }, false},
		{"for ever", func(_ *Observation, _ *Memory, r *schema.PromiseRequest) { r.Lease = schema.Duration(time.Hour) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			r := req
			c.change(&o, &m, &r)
			reply, after := Promise(o, m, r)
			if reply.Given != c.given || reply.Given == (reply.Why != "") {
				t.Errorf("%+v", reply)
			}
			if c.given && after.PromisedUntil != o.Now.Add(lease+margin) || !c.given && after.PromisedUntil != m.PromisedUntil {
				t.Errorf("promised until %d", after.PromisedUntil)
			}
		})
	}
}

func TestUnknownDestroysNothing(t *testing.T) {
	destructive := []Kind{Clone, Initdb, Release, StopNow, StopFast, Promote, StartPrimary}
	for _, c := range []struct {
		name   string
		change func(*Observation)
	}{
		{"the launcher is silent", func(o *Observation) { o.Process.State = ProcessUnknown }},
		{"the data directory cannot be read", func(o *Observation) { o.Data = Data{State: DataUnknown} }},
		{"something else lies there", func(o *Observation) { o.Data.State = DataForeign }},
		{"consul has never answered", func(o *Observation) { o.Consul = Consul{}; o.Lock = schema.LockView{}; o.State = schema.ClusterState{} }},
		{"the lock is not known", func(o *Observation) { o.Lock = schema.LockView{} }},
		{"postgres does not answer", func(o *Observation) { o.SQL = SQL{State: SQLUnknown} }},
		{"consul is empty", func(o *Observation) { o.State = schema.ClusterState{Index: 1}; o.Lock = schema.LockView{Known: true} }},
		{"empty directory, consul empty, a peer has data", func(o *Observation) {
			o.State, o.Lock = schema.ClusterState{Index: 1}, schema.LockView{Known: true}
			o.Data = Data{State: DataEmpty, At: o.Now}
			o.Process.State = ProcessStopped
			o.Peers = []schema.Peer{peer("pg1", 0x5000)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o = o.at(time.Second, 0)
			c.change(&o)
			p, _ := Decide(o, m)
			for _, k := range planned(p) {
				if slices.Contains(destructive, k) {
					t.Errorf("planned %s; %s: %s", k, p.State, p.Reason)
				}
			}
			if p.State == "" {
				t.Error("says nothing")
			}
		})
	}
}

func TestBootstrap(t *testing.T) {
	fresh := func() (Observation, Memory) {
		o, _ := standby()
		o.State, o.Lock = schema.ClusterState{Index: 1}, schema.LockView{Known: true, AskedAt: t0}
		o.Data, o.SQL = Data{State: DataEmpty, At: t0}, SQL{}
		o.Process = Process{State: ProcessStopped, At: o.Now}
		return o, Memory{Record: Record{Cluster: "c", Name: "pg2"}, SessionAt: t0}
	}
	o, m := fresh()
	p, _ := Decide(o, m)
	if !slices.Equal(planned(p), []Kind{PutInitialize}) || p.Actions[len(p.Actions)-1].Initialize.By != "pg2" {
		t.Errorf("a new cluster: planned %v", p.Actions)
	}
	o.State.Initialize = schema.Doc[schema.Initialize]{Exists: true, Index: 3, Value: schema.Initialize{By: "pg1"}}
	if p, _ = Decide(o, m); len(planned(p)) != 0 || !strings.Contains(p.Reason, "pg1 makes the first data directory") {
		t.Errorf("somebody else's initdb: planned %v: %s", planned(p), p.Reason)
	}
	o.State.Initialize.Value.By = "pg2"
	if p, _ = Decide(o, m); !slices.Equal(planned(p), []Kind{Seize}) {
		t.Errorf("our own initdb: planned %v", planned(p))
	}
	o, m = fresh()
	m.Record.SystemID, m.Record.Epoch = "7", 4
	if p, _ = Decide(o, m); len(planned(p)) != 0 || p.State != schema.StateNeedsOperator {
		t.Errorf("a member that once had data, an empty directory and an empty consul: planned %v: %s", planned(p), p.State)
	}
	o.Data = Data{State: DataValid, At: t0, SystemID: "7"}
	if p, _ = Decide(o, m); !slices.Equal(planned(p), []Kind{PutInitialize}) || p.Actions[len(p.Actions)-1].Initialize.SystemID != "7" {
		t.Errorf("consul has lost its memory, we have not: planned %v", p.Actions)
	}
}

func TestAnotherClustersDataAreLeftAlone(t *testing.T) {
	o, m := standby()
	o.Data.SystemID, o.Process.State = "8", ProcessStopped
	p, _ := Decide(o, m)
	if len(planned(p)) != 0 || p.State != schema.StateNeedsOperator || !strings.Contains(p.Reason, "system identifier is 8") {
		t.Errorf("planned %v; %s: %s", planned(p), p.State, p.Reason)
	}
}

func TestTheRecordCoversTheDeadlineInForce(t *testing.T) {
	o, m := holder()
	m.Reign.Deadline = t0.Add(30 * time.Second) // from when the lease was 30 s
	m.Reign.Phase = schema.PhaseStopping        // so that there is something to write
	m.Switch = Switch{ID: "x", To: "pg2", Step: StepStop, Since: t0}
	p, _ := Decide(o.at(time.Second, 0), m)
	i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Renew })
	if i < 0 || p.Actions[i].Leader.Lease.D() != 29*time.Second {
		t.Errorf("planned %+v: want a renewal whose lease covers 29 s", p.Actions)
	}
}

func TestNoReleaseWhileAStartMayBeUnderWay(t *testing.T) {
	o, m := holder()
	m.Reign.HandOver = "a test"
	o = o.at(400*time.Millisecond, 0)
	o.Process.State = ProcessCrashed
	o.Busy[SlotPostgres] = StartPrimary
	if p, _ := Decide(o, m); slices.Contains(planned(p), Release) {
		t.Error("released while a start was under way")
	}
	o.Busy[SlotPostgres] = ""
	m.HandledAt = o.Now
	if p, _ := Decide(o, m); slices.Contains(planned(p), Release) {
		t.Error("released on a status from before the start ended")
	}
}

func TestAnOldRecordIsNotBelieved(t *testing.T) {
	o, m := standby()
	m.Record.Epoch = 6
	o.Lock.Session, o.Lock.Leader.Phase = "", schema.PhaseReleased
	if p, _ := Decide(o.at(time.Second, time.Second-1), m); slices.Contains(planned(p), Seize) {
		t.Error("seized at once on a released record of an older epoch")
	}
	o, m = holder()
	m.Reign, m.Record.Epoch = Reign{}, 5
	if _, m = Decide(o.at(time.Second, time.Second-1), m); m.Reign.Active {
		t.Error("adopted a record of our own that is older than an epoch that is known")
	}
}

func TestAWipedConsulDoesNotShrinkTheMembersRemembered(t *testing.T) {
	o, m := standby()
	m.Record.Members = []string{"pg1", "pg2", "pg3"}
	o.State.Members, o.State.Leader = o.State.Members[1:2], schema.LockView{Known: true}
	if _, m = Decide(o, m); len(m.Record.Members) != 3 {
		t.Errorf("members remembered: %v", m.Record.Members)
	}
}

func TestStopNowIsNotRepeatedAtOnce(t *testing.T) {
	o, m := holder()
	m.Reign, m.Record.Session = Reign{}, ""
	o.Lock.Session, o.Lock.Leader.Member, o.Lock.Leader.Epoch = "s3", "pg3", 5
	stops := 0
	for i := range 100 {
		o = o.at(time.Second+time.Duration(i)*time.Millisecond, 0)
		var p Plan
		p, m = Decide(o, m)
		if slices.Contains(planned(p), StopNow) {
			stops++
		}
	}
	if stops != 1 {
		t.Errorf("%d stops planned within 100 ms", stops)
	}
}

// A primary without Consul first shows the members that it hears them, and asks again as soon as it can be promised
// something; where one is silent it keeps to its interval.
func TestPromisesAreAskedForTwice(t *testing.T) {
	heard := func(name string) schema.PromiseReply {
		return schema.PromiseReply{Member: name, Why: "not known yet", Mark: t0.Add(time.Second)}
	}
	for _, c := range []struct {
		name    string
		replies []schema.PromiseReply
		again   bool
	}{
		{"all are heard", []schema.PromiseReply{heard("pg2"), heard("pg3")}, true},
		{"one is silent", []schema.PromiseReply{heard("pg2")}, false},
		{"one could not be reached", []schema.PromiseReply{heard("pg2"), {Member: "pg3", Why: "no answer"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o = o.at(lease/3, 0)
			p, m := Decide(o, m)
			i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == AskPromises })
			if i < 0 || len(p.Actions[i].Marks) != 0 {
				t.Fatalf("planned %v", planned(p))
			}
			o = o.at(lease/3+time.Millisecond, 0)
			o.Done = []Outcome{{Action: p.Actions[i], Result: OK, StartedAt: t0.Add(lease / 3), Promises: c.replies}}
			p, m = Decide(o, m)
			i = slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == AskPromises })
			if again := i >= 0; again != c.again {
				t.Fatalf("asked again: %v; planned %v", again, planned(p))
			}
			if m.Reign.Deadline != t0.Add(lease) {
				t.Errorf("the deadline moved to %d without a promise", m.Reign.Deadline)
			}
			if c.again && p.Actions[i].Mark("pg3") != t0.Add(time.Second) {
				t.Errorf("marks %v", p.Actions[i].Marks)
			}
		})
	}
}

// A directory that howdah did not make becomes the first of a cluster only where an operator said so.
func TestAdopt(t *testing.T) {
	found := func(change func(*Observation)) Plan {
		o, _ := standby()
		o.State, o.Lock = schema.ClusterState{Index: 1}, schema.LockView{Known: true, AskedAt: t0}
		o.Data, o.SQL = Data{State: DataValid, At: t0, SystemID: "7", Timeline: 3}, SQL{}
		o.Process, o.Init = Process{State: ProcessStopped, At: o.Now}, schema.InitExisting
		change(&o)
		p, _ := Decide(o, Memory{Record: Record{Cluster: "c", Name: "pg2"}, SessionAt: t0})
		return p
	}
	for name, c := range map[string]struct {
		change func(*Observation)
		want   []Kind
		words  string
	}{
		"asked for":        {func(*Observation) {}, []Kind{PutInitialize}, "adopted"},
		"not asked for":    {func(o *Observation) { o.Init = schema.InitNew }, nil, "--init existing"},
		"a standby's":      {func(o *Observation) { o.Data.StandbySignal = true }, nil, "a standby's"},
		"nothing there":    {func(o *Observation) { o.Data = Data{State: DataEmpty, At: t0} }, nil, "nothing to adopt"},
		"a peer's differ":  {func(o *Observation) { p := peer("pg3", 0); p.Status.SystemID = "8"; o.Peers = []schema.Peer{p} }, nil, "pg3 has its data"},
		"an old standby's": {func(o *Observation) { p := peer("pg3", 0); p.Status.Epoch = 0; o.Peers = []schema.Peer{p} }, []Kind{PutInitialize}, "adopted"},
		"a later primary's": {func(o *Observation) {
			p := peer("pg3", 0)
			p.Status.Epoch, p.Status.Timeline = 0, 4
			o.Peers = []schema.Peer{p}
		}, nil, "member pg3 has that of a later primary"},
		"registered differ": {func(o *Observation) {
			o.State.Members = []schema.Doc[schema.Member]{{Exists: true, Value: schema.Member{Name: "pg3", SystemID: "8"}}}
		}, nil, "pg3 is registered"},
		"an epoch was known": {func(o *Observation) {
			p := peer("pg3", 0)
			o.Peers = []schema.Peer{p}
		}, []Kind{PutInitialize}, "written again"},
	} {
		if p := found(c.change); !slices.Equal(planned(p), c.want) || !strings.Contains(p.Reason, c.words) {
			t.Errorf("%s: planned %v: %s", name, planned(p), p.Reason)
		}
	}
}

// The holder adopts once, says whose data they are, and begins its reign on the timeline that is there.
func TestAdoptionBeginsAReign(t *testing.T) {
	o, m := standby()
	o.Data, o.SQL = Data{State: DataValid, At: t0, SystemID: "7", Timeline: 3}, SQL{}
	o.Process = Process{State: ProcessStopped, At: t0}
	o.State.Initialize.Value = schema.Initialize{By: "pg2", Mode: schema.InitExisting}
	o.Lock = schema.LockView{Known: true, Exists: true, Index: 71, Session: "s2", AskedAt: t0, Leader: schema.Leader{
		Member: "pg2", Epoch: 1, Phase: schema.PhaseBootstrapping, Session: "s2", Lease: schema.Duration(lease), Members: []string{"pg2"}}}
	m.Record = Record{Cluster: "c", Name: "pg2", SystemID: "7", Session: "s2"}
	m.Reign = Reign{Active: true, Epoch: 1, Phase: schema.PhaseBootstrapping, WrittenPhase: schema.PhaseBootstrapping, Session: "s2", Index: 71,
		AskedAt: t0, RenewedAt: t0, Deadline: t0.Add(lease), Written: []string{"pg1", "pg2", "pg3"}}
	p, m := Decide(o, m)
	if !slices.Equal(planned(p), []Kind{Adopt}) {
		t.Fatalf("planned %v", planned(p))
	}
	o.Done = []Outcome{{Action: Action{Kind: Adopt}, Result: OK, SystemID: "7", EndedAt: t0 + 1}}
	o.Now, o.Data.At, o.Process.At = t0+2, t0+2, t0+2
	if p, m = Decide(o, m); !slices.Equal(planned(p), []Kind{PutInitialize}) || p.Actions[0].Initialize.SystemID != "7" {
		t.Fatalf("after it: planned %v", p.Actions)
	}
	o.Done, o.State.Initialize.Value.SystemID = nil, "7"
	_, m = Decide(o, m)
	if p, _ = Decide(o, m); !slices.Contains(planned(p), StartPrimary) {
		t.Errorf("once Consul knows: planned %v: %s", planned(p), p.Reason)
	}
	o.Data, o.State.Initialize.Value.SystemID = Data{State: DataEmpty, At: o.Now}, ""
	m.Reign.Phase = schema.PhaseBootstrapping
	if p, _ = Decide(o, m); slices.Contains(planned(p), Initdb) || p.State != schema.StateNeedsOperator {
		t.Errorf("the directory is gone: planned %v: %s", planned(p), p.Reason)
	}
}
