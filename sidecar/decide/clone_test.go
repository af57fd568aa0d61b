package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// empty is pg3, a member without data, a second after it said that it wants to clone from pg1, the primary.
func empty() (Observation, Memory) {
	o, m := loser()
	o.Name, o.Data, m.Rejoin = "pg3", Data{State: DataEmpty, At: o.Now}, Rejoin{}
	return o, m
}

// heard is a standby of pg1 that was heard just now, ready to be copied.
func heard(o Observation, name string, change func(*schema.Status)) schema.Peer {
	p := peer(name, 0x5000)
	p.HeardAt = o.Now
	p.Status.State, p.Status.Upstream, p.Status.Addresses.Postgres = schema.StateStreaming, "pg1", name+":5432"
	if change != nil {
		change(&p.Status)
	}
	return p
}

func TestClonesTakeTurns(t *testing.T) {
	wants := func(state schema.State, from string) func(*schema.Status) {
		return func(s *schema.Status) { s.State, s.CloneFrom = state, from }
	}
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		want   []Kind
		say    string
	}{
		{"alone", func(*Observation, *Memory) {}, []Kind{Clone}, "cloning from pg1: the data directory is empty"},
		{"not said for long enough", func(o *Observation, m *Memory) { m.Clone.Since = o.Now.Add(-400 * time.Millisecond) }, nil, "others may be about to"},
		{"not said yet", func(o *Observation, m *Memory) { m.Clone = Cloning{} }, nil, "others may be about to"},
		{"said of another source", func(o *Observation, m *Memory) { m.Clone.From.Member = "pg7" }, nil, "waiting to clone from pg1: others may be about to"},
		{"one is cloned", func(o *Observation, _ *Memory) {
			o.Peers = []schema.Peer{heard(*o, "pg9", wants(schema.StateCloning, "pg1"))}
		}, nil, "pg9 is being cloned from it (max_clones_per_source is 1)"},
		{"one is cloned, two may", func(o *Observation, _ *Memory) {
			o.Config.MaxClonesPerSource = 2
			o.Peers = []schema.Peer{heard(*o, "pg9", wants(schema.StateCloning, "pg1"))}
		}, []Kind{Clone}, "cloning from pg1"},
		{"one is cloned and one goes before, two may", func(o *Observation, _ *Memory) {
			o.Config.MaxClonesPerSource = 2
			o.Peers = []schema.Peer{heard(*o, "pg2", wants(schema.StateWaiting, "pg1")), heard(*o, "pg9", wants(schema.StateCloning, "pg1"))}
		}, nil, "it is the turn of pg9, pg2"},
		{"one is cloned from another", func(o *Observation, _ *Memory) {
			o.Peers = []schema.Peer{heard(*o, "pg9", wants(schema.StateCloning, "pg2"))}
		}, []Kind{Clone}, "cloning"},
		{"one goes before", func(o *Observation, _ *Memory) {
			o.Peers = []schema.Peer{heard(*o, "pg2", wants(schema.StateWaiting, "pg1"))}
		}, nil, "it is the turn of pg2"},
		{"one goes after", func(o *Observation, _ *Memory) {
			o.Peers = []schema.Peer{heard(*o, "pg4", wants(schema.StateWaiting, "pg1"))}
		}, []Kind{Clone}, "cloning"},
		{"one was cloned and is dead", func(o *Observation, _ *Memory) {
			p := heard(*o, "pg9", wants(schema.StateCloning, "pg1"))
			p.Liveness = schema.LivenessDead
			o.Peers = []schema.Peer{p}
		}, []Kind{Clone}, "cloning"},
		{"one was cloned and is silent", func(o *Observation, _ *Memory) {
			p := heard(*o, "pg9", wants(schema.StateCloning, "pg1"))
			p.HeardAt = o.Now.Add(-4 * time.Second)
			o.Peers = []schema.Peer{p}
		}, []Kind{Clone}, "cloning"},
		{"it failed just now", func(o *Observation, m *Memory) {
			m.Retries[SlotPostgres] = Retry{Kind: Clone, Count: 3, Until: o.Now.Add(time.Second), Error: "no space"}
		}, nil, "waiting to clone again: the data directory is empty (clone failed 3 times: no space)"},
		{"its own runs, whatever else", func(o *Observation, m *Memory) {
			o.Busy[SlotPostgres], m.Clone.Why = Clone, "a reason"
			o.Lock.Leader.Phase = schema.PhasePromoting
		}, nil, "cloning from pg1: a reason"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := empty()
			c.change(&o, &m)
			p, m := Decide(o, m)
			if got := planned(p); !slices.Equal(got, c.want) || !strings.Contains(p.Reason, c.say) {
				t.Errorf("planned %v, want %v; %s: %s", got, c.want, p.State, p.Reason)
			}
			quiet := c.name == "it failed just now"
			if (p.CloneFrom == "") != quiet || p.CloneFrom != m.Clone.From.Member {
				t.Errorf("says that it wants to clone from %q, remembers %q", p.CloneFrom, m.Clone.From.Member)
			}
		})
	}
}

func TestOneWhoNoLongerWantsToCloneForgetsItsTurn(t *testing.T) {
	o, m := empty()
	o.Data = Data{State: DataValid, At: o.Now, SystemID: "7", Timeline: 2, StandbySignal: true}
	if p, m := Decide(o, m); m.Clone != (Cloning{}) || p.CloneFrom != "" {
		t.Errorf("%+v %q", m.Clone, p.CloneFrom)
	}
}

func TestACloneSparesThePrimary(t *testing.T) {
	tagged := func(change func(*schema.Status)) func(*schema.Status) {
		return func(s *schema.Status) {
			s.Tags.CloneFrom = true
			if change != nil {
				change(s)
			}
		}
	}
	for _, c := range []struct {
		name  string
		peers func(o Observation) []schema.Peer
		want  string
	}{
		{"one is there for it", func(o Observation) []schema.Peer { return []schema.Peer{heard(o, "pg2", tagged(nil))} }, "pg2"},
		{"without the tag", func(o Observation) []schema.Peer { return []schema.Peer{heard(o, "pg2", nil)} }, "pg1"},
		{"it does not stream", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.State = schema.StateRunning }))}
		}, "pg1"},
		{"it streams from another", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.Upstream = "pg5" }))}
		}, "pg1"},
		{"it lags", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.LSN = 0x100 }))}
		}, "pg1"},
		{"of another timeline", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.Timeline = 1 }))}
		}, "pg1"},
		{"of another epoch", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.Epoch = 3 }))}
		}, "pg1"},
		{"of another cluster", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(func(s *schema.Status) { s.SystemID = "8" }))}
		}, "pg1"},
		{"silent", func(o Observation) []schema.Peer {
			p := heard(o, "pg2", tagged(nil))
			p.HeardAt = t0.Add(-time.Minute)
			return []schema.Peer{p}
		}, "pg1"},
		{"the one with less to do", func(o Observation) []schema.Peer {
			return []schema.Peer{heard(o, "pg2", tagged(nil)), heard(o, "pg4", tagged(nil)),
				heard(o, "pg5", func(s *schema.Status) { s.State, s.CloneFrom = schema.StateCloning, "pg2" })}
		}, "pg4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := empty()
			o.Config.MaximumLagOnFailover = 0x1000
			m.Clone = Cloning{}
			o.Peers = c.peers(o)
			p, m := Decide(o, m)
			if p.CloneFrom != c.want {
				t.Fatalf("wants to clone from %s, want %s", p.CloneFrom, c.want)
			}
			m.Clone.Since = m.Clone.Since.Add(-time.Second)
			p, _ = Decide(o, m)
			i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Clone })
			if i < 0 || p.Actions[i].From.Address != c.want+":5432" || p.Actions[i].Holder.Member != "pg1" {
				t.Errorf("plans %+v", p.Actions)
			}
			m.Retries[SlotPostgres] = Retry{Kind: Clone, Count: 1} // it failed a while ago
			if p, _ = Decide(o, m); p.CloneFrom != "pg1" {
				t.Errorf("after a failure it clones from %s", p.CloneFrom)
			}
		})
	}
}

func TestPriorityNamesTheSuccessor(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*schema.Status)
		want   string
	}{
		{"as they are", func(*schema.Status) {}, "pg2"},
		{"a higher priority", func(s *schema.Status) { s.Tags.Priority = 1 }, "pg3"},
		{"a higher priority, which never stands", func(s *schema.Status) { s.Tags = schema.Tags{Priority: 1, NoFailover: true} }, "pg2"},
		{"a lower priority and more", func(s *schema.Status) { s.Tags.Priority, s.LSN = -1, 0x9000 }, "pg2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o.Name = "pg1"
			o.Peers = []schema.Peer{peer("pg2", 0x6000), peer("pg3", 0x5000)}
			c.change(&o.Peers[1].Status)
			if got := (&decision{o: &o, m: m}).successor(); got != c.want {
				t.Errorf("names %s, want %s", got, c.want)
			}
		})
	}
}

func TestNoSyncKeepsAMemberOutOfTheSet(t *testing.T) {
	o, m := standby()
	o.Name, o.Config.SynchronousMode = "pg1", schema.SyncOn
	o.Peers = []schema.Peer{peer("pg2", 0x5000), peer("pg3", 0x5000)}
	d := &decision{o: &o, m: m}
	if got := d.others(); !slices.Equal(got, []string{"pg2", "pg3"}) {
		t.Fatalf("%v", got)
	}
	o.Peers[0].Status.Tags.NoSync = true
	if got := d.others(); !slices.Equal(got, []string{"pg3"}) {
		t.Errorf("%v although pg2 has the nosync tag", got)
	}
}

// Whom the record counts on is not brought back behind what it has acknowledged.
func TestASynchronousStandbyIsClonedFromThePrimary(t *testing.T) {
	for _, c := range []struct {
		standbys []string
		want     string
	}{{[]string{"pg2", "pg4"}, "pg2"}, {[]string{"pg2", "pg3"}, "pg1"}} {
		o, m := empty()
		o.Peers = []schema.Peer{heard(o, "pg1", nil), heard(o, "pg2", func(s *schema.Status) { s.Tags.CloneFrom = true })}
		o.Lock.Leader.Sync = schema.SyncSet{Need: 1, Standbys: c.standbys}
		if _, m = Decide(o, m); m.Clone.From.Member != c.want {
			t.Errorf("with %v in the record: from %s", c.standbys, m.Clone.From.Member)
		}
	}
}
