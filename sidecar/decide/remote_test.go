package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

var remoteConfig = schema.Remote{Host: "db1", Port: 5432}

// leading is pg2, which leads a standby cluster of db1 with pg1 and pg3.
func leading() (Observation, Memory) {
	o, m := reigning()
	o.Data.StandbySignal, o.SQL.InRecovery, o.SQL.Streaming, o.Process.Armed = true, true, true, false
	o.Config.Follow = remoteConfig
	o.State.Config = schema.Doc[schema.ClusterConfig]{Exists: true, Value: o.Config}
	o.Lock.Leader.Phase, o.Lock.Leader.Follows = schema.PhaseFollowing, "db1:5432"
	m.Reign.Phase, m.Reign.WrittenPhase = schema.PhaseFollowing, schema.PhaseFollowing
	m.Record.Follows, m.Following = "db1:5432", Upstream{RemotePrimary, "db1:5432"}
	return o, m
}

// rare leaves out what every reign does.
func rare(p Plan) []Kind {
	return slices.DeleteFunc(planned(p), func(k Kind) bool { return k == Renew || k == AskPromises })
}

func TestLeadAStandbyCluster(t *testing.T) {
	heir := []schema.Peer{peer("pg3", 0x5000)}
	stopped := func(o *Observation, _ *Memory) { gone(o, ProcessCrashed) }
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
		says   string
	}{
		{"all is well", nil, nil, "leads a standby cluster of db1:5432"},
		{"what postgres refuses is told too", func(_ *Observation, m *Memory) { m.Refused = "work_mem" }, nil, "db1:5432; work_mem"},
		{"it follows another one still", func(_ *Observation, m *Memory) { m.Following = Upstream{"pg1", "pg1:5432"} }, []Kind{Follow}, ""},
		{"the remote has moved", func(o *Observation, _ *Memory) { o.Config.Follow.Host = "db2" }, []Kind{Follow}, "db2"},
		{"postgres is gone", stopped, []Kind{StartStandby}, "to follow the remote primary"},
		{"postgres is gone and was a primary", func(o *Observation, m *Memory) { stopped(o, m); o.Data.StandbySignal = false }, []Kind{CheckHistory}, ""},
		{"its history does not lead to the remote's", func(o *Observation, m *Memory) {
			stopped(o, m)
			o.Data.CanRewind, m.Rejoin = true, Rejoin{Epoch: 4, Checked: true}
		}, []Kind{Rewind}, ""},
		{"no WAL comes", func(o *Observation, m *Memory) { o.SQL.Streaming, m.NotStreaming = false, o.Now.Add(-streamPatience) }, []Kind{CheckHistory}, ""},
		{"it does not start, and another one might", func(o *Observation, m *Memory) {
			stopped(o, m)
			o.Peers, m.Retries[SlotPostgres] = heir, Retry{Kind: StartStandby, Count: 3, Error: "no room"}
		}, []Kind{Release}, "no room"},
		{"it does not start, and nobody else can", func(o *Observation, m *Memory) {
			stopped(o, m)
			m.Retries[SlotPostgres] = Retry{Kind: StartStandby, Count: 3}
		}, []Kind{StartStandby}, ""},
		{"its directory is gone, and another one leads on", func(o *Observation, m *Memory) { stopped(o, m); o.Data.State, o.Peers = DataEmpty, heir }, []Kind{Release}, ""},
		{"its directory is gone, and it is alone", func(o *Observation, m *Memory) {
			stopped(o, m)
			o.Data.State, m.Clone = DataEmpty, Cloning{From: Upstream{RemotePrimary, "db1:5432"}, Since: t0}
		}, []Kind{Clone}, "cloning from the remote primary"},
		{"its directory is gone, and the cluster is paused", func(o *Observation, m *Memory) {
			stopped(o, m)
			o.Process.State, o.Data.State, o.Config.Pause, o.Peers = ProcessStopped, DataEmpty, true, heir
		}, nil, "the cluster is paused"},
		{"postgres hangs, and another one leads on", func(o *Observation, _ *Memory) {
			o.SQL, o.Peers = SQL{State: SQLUnknown, At: o.Now, Failing: o.Now.Add(-o.Config.HangBound())}, heir
		}, []Kind{StopNow}, "has answered no probe"},
		{"the launcher ends", func(o *Observation, m *Memory) { stopped(o, m); o.Process.Ending = true }, []Kind{Release}, "howdah launch is ending"},
		{"it accepts writes", func(o *Observation, _ *Memory) { o.SQL.InRecovery = false }, []Kind{StopNow}, "follows a remote primary"},
		{"the lease has run out", func(_ *Observation, m *Memory) { m.Reign.Deadline = t0 }, nil, "leads"},
		{"consul has lost the configuration", func(o *Observation, _ *Memory) {
			o.Config.Follow, o.State.Config = schema.Remote{}, schema.Doc[schema.ClusterConfig]{}
		}, nil, "consul has lost the cluster's configuration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := leading()
			o = o.at(time.Second, 0)
			o.Data.At = o.Now
			if c.change != nil {
				c.change(&o, &m)
			}
			p, next := Decide(o, m)
			if got := rare(p); !slices.Equal(got, c.want) || !strings.Contains(p.Reason, c.says) {
				t.Errorf("planned %v, want %v; %s: %s; want %q", got, c.want, p.State, p.Reason, c.says)
			}
			if next.Reign.Phase != schema.PhaseFollowing {
				t.Errorf("it is in phase %s", next.Reign.Phase)
			}
			for _, a := range p.Actions {
				if (a.Kind == Renew || a.Kind == Release) && a.Leader.Follows != next.Record.Follows && a.Leader.Follows != o.Config.Follow.Address() {
					t.Errorf("the record follows %q", a.Leader.Follows)
				}
			}
		})
	}
}

// The record leaves the following before Postgres is promoted, and names a timeline that is above everything seen.
func TestPromoteAStandbyCluster(t *testing.T) {
	o, m := leading()
	o = o.at(time.Second, 0)
	m.Timeline, o.SQL.Timeline, o.Data.Timeline = 7, 7, 7 // the remote has had failovers
	o.Config.Follow, o.State.Config.Value.Follow = schema.Remote{}, schema.Remote{}
	p, m := Decide(o, m)
	if got := rare(p); len(got) != 0 || m.Reign.Phase != schema.PhasePromoting {
		t.Fatalf("planned %v in phase %s", got, m.Reign.Phase)
	}
	i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Renew })
	if i < 0 {
		t.Fatalf("the record is not written: %v", planned(p))
	}
	if l := p.Actions[i].Leader; l.Phase != schema.PhasePromoting || l.Follows != "" || l.NextTimeline != 8 || l.Epoch != 4 {
		t.Errorf("writes %+v", l)
	}
	if p, _ = Decide(o, m); len(rare(p)) != 0 {
		t.Errorf("planned %v before the record is written", planned(p))
	}
	m.Reign.WrittenPhase = schema.PhasePromoting
	p, _ = Decide(o, m)
	if got := rare(p); !slices.Equal(got, []Kind{Promote}) {
		t.Fatalf("planned %v: %s", got, p.Reason)
	}
	if a := p.Actions[slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Promote })]; a.Timeline != 8 || a.Deadline != t0.Add(lease) {
		t.Errorf("promotes to timeline %d until %v", a.Timeline, a.Deadline)
	}
	// Its history has both: that it followed, and that it was promoted.
	o.State.History.Value.Reigns = []schema.Reign{{Epoch: 4, Timeline: 7}}
	o.Process.Armed, o.SQL.InRecovery, o.SQL.Timeline, o.Data.StandbySignal = true, false, 8, false
	_, m = Decide(o, m)
	p, m = Decide(o, m)
	i = slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == PutHistory })
	if m.Reign.Phase != schema.PhaseServing || i < 0 || p.Actions[i].Reign.Timeline != 8 || !strings.Contains(p.Actions[i].Reign.Why, "is promoted") {
		t.Errorf("phase %s, planned %+v", m.Reign.Phase, p.Actions)
	}
	o.State.History.Value.Reigns = append(o.State.History.Value.Reigns, p.Actions[i].Reign)
	if p, _ = Decide(o, m); slices.Contains(planned(p), PutHistory) {
		t.Error("it is noted twice")
	}
}

// Who takes over goes on as the record says, or without one as it was last seen to say; never as its configuration says.
func TestTakeoverOfAStandbyCluster(t *testing.T) {
	follows := func(o *Observation, _ *Memory) {
		o.Lock.Leader.Phase, o.Lock.Leader.Follows = schema.PhaseFollowing, "db1:5432"
	}
	lost := func(o *Observation, m *Memory) {
		o.Lock = schema.LockView{Known: true, AskedAt: o.Lock.AskedAt}
		m.Seen = Seen{Known: true, At: t0}
		o.Peers = []schema.Peer{peer("pg1", 0x4000), peer("pg3", 0x4000)}
		m.Reports = Reports{Got: []Report{{"pg1", 0x4000, 2}, {"pg3", 0x4000, 2}}}
	}
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   schema.Phase
	}{
		{"it follows", follows, schema.PhaseFollowing},
		{"it follows, and is to be promoted since", func(o *Observation, m *Memory) { follows(o, m); o.Config.Follow = schema.Remote{} }, schema.PhaseFollowing},
		{"it was released", func(o *Observation, m *Memory) {
			follows(o, m)
			o.Lock.Session, o.Lock.Leader.Phase = "", schema.PhaseReleased
		}, schema.PhaseFollowing},
		{"it serves", nil, schema.PhasePromoting},
		{"it was being promoted", func(o *Observation, m *Memory) {
			m.Record.Follows, o.Lock.Leader.Phase = "db1:5432", schema.PhasePromoting
		}, schema.PhasePromoting},
		{"the key is lost", func(o *Observation, m *Memory) { lost(o, m); m.Record.Follows = "db1:5432" }, schema.PhaseFollowing},
		{"the key of a promoted one is lost", lost, schema.PhasePromoting},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o = o.at(time.Minute, time.Minute-1)
			o.Config.Follow = remoteConfig
			if c.change != nil {
				c.change(&o, &m)
			}
			p, _ := Decide(o, m)
			i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Seize })
			if i < 0 {
				t.Fatalf("planned %v: %s", planned(p), p.Reason)
			}
			if l := p.Actions[i].Leader; l.Phase != c.want || (l.Follows != "") != (c.want == schema.PhaseFollowing) {
				t.Errorf("seizes in phase %s, following %q; want %s", l.Phase, l.Follows, c.want)
			}
		})
	}
}

func TestFollowTheOneThatLeads(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
	}{
		{"a standby that streams", nil, nil},
		{"it followed the remote", func(_ *Observation, m *Memory) { m.Following = Upstream{RemotePrimary, "db1:5432"} }, []Kind{Follow}},
		{"an empty directory", func(o *Observation, m *Memory) {
			gone(o, ProcessStopped)
			o.Data.State, m.Clone = DataEmpty, Cloning{From: Upstream{"pg1", "pg1:5432"}, Since: t0}
		}, []Kind{Clone}},
		{"it led before", func(o *Observation, _ *Memory) { gone(o, ProcessStopped) }, []Kind{StartStandby}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o = o.at(time.Second, 0)
			o.Data.At, o.Config.Follow = o.Now, remoteConfig
			o.Lock.Leader.Phase, o.Lock.Leader.Follows = schema.PhaseFollowing, "db1:5432"
			if c.change != nil {
				c.change(&o, &m)
			}
			p, _ := Decide(o, m)
			if got := rare(p); !slices.Equal(got, c.want) {
				t.Errorf("planned %v, want %v: %s", got, c.want, p.Reason)
			}
			for _, a := range p.Actions {
				if a.Kind.Slot() == SlotPostgres && a.From != (Upstream{"pg1", "pg1:5432"}) {
					t.Errorf("%s from %v", a.Kind, a.From)
				}
			}
		})
	}
}

func TestBootstrapAStandbyCluster(t *testing.T) {
	o, m := standby()
	o = o.at(time.Second, 0)
	gone(&o, ProcessStopped)
	o.Data, o.Config.Follow = Data{State: DataEmpty, At: o.Now}, remoteConfig
	o.Lock, o.State = schema.LockView{Known: true, AskedAt: o.Now}, schema.ClusterState{Index: 1}
	m.Record.SystemID, m.Record.Epoch = "", 0
	p, _ := Decide(o, m)
	if got := rare(p); !slices.Equal(got, []Kind{PutInitialize}) || p.Actions[0].Initialize.Mode != schema.InitFollow {
		t.Fatalf("planned %v %+v", got, p.Actions)
	}
	o.State.Initialize = schema.Doc[schema.Initialize]{Exists: true, Index: 9, Value: schema.Initialize{By: "pg2", Mode: schema.InitFollow}}
	m.Reign = Reign{Active: true, Epoch: 1, Phase: schema.PhaseBootstrapping, WrittenPhase: schema.PhaseBootstrapping, Session: "s2", Deadline: t0.Add(lease), AskedAt: t0}
	p, _ = Decide(o, m)
	if got := rare(p); !slices.Equal(got, []Kind{Clone}) || p.Actions[slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Clone })].From.Address != "db1:5432" {
		t.Fatalf("planned %v %+v", got, p.Actions)
	}
	if l := p.Actions[slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Renew })].Leader; l.Follows != "db1:5432" {
		t.Errorf("the record follows %q", l.Follows)
	}
	without := o
	without.Config.Follow = schema.Remote{}
	if p, _ := Decide(without, m); len(rare(p)) != 0 || p.State != schema.StateNeedsOperator {
		t.Errorf("planned %v without a remote: %s", rare(p), p.Reason)
	}
	o.Data = Data{State: DataValid, At: o.Now, SystemID: "7", Timeline: 3, StandbySignal: true}
	p, _ = Decide(o, m)
	if got := rare(p); !slices.Equal(got, []Kind{PutInitialize}) || p.Actions[0].Initialize.SystemID != "7" && p.Actions[1].Initialize.SystemID != "7" {
		t.Fatalf("planned %v %+v", got, p.Actions)
	}
	o.State.Initialize.Value.SystemID = "7"
	if _, m = Decide(o, m); m.Reign.Phase != schema.PhaseFollowing {
		t.Errorf("phase %s", m.Reign.Phase)
	}
}
