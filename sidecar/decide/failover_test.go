package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// asked is standby pg2 long after the lease of pg1 was dead, with a failover to it asked for.
func asked(force bool) (Observation, Memory) {
	o, m := follower()
	o = o.at(time.Minute, time.Minute-1)
	o.Data.At, o.Peers = o.Now, nil
	m.Record.Named = 4
	o.State.Request = schema.Doc[schema.Request]{Exists: true, Index: 9, Value: schema.Request{
		ID: "r", Kind: schema.RequestFailover, From: "pg1", To: "pg2", Epoch: 4, LSN: 0x5000, Force: force, By: "ann@desk",
	}}
	return o, m
}

// behind makes pg2 lack what the rules do not let it lack.
func behind(o *Observation, _ *Memory) {
	o.Lock.Leader.FlushLSN = 0x5000 + 2<<20
	o.State.Request.Value.LSN = o.Lock.Leader.FlushLSN
}

func TestForcedFailover(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		plain  bool // a plain failover stands
		force  bool // a forced one does
		says   string
	}{
		{"as the rules allow", nil, true, true, "standing for election"},
		{"paused", func(o *Observation, _ *Memory) { o.Config.Pause = true }, true, true, "standing"},
		{"another would go first", func(o *Observation, _ *Memory) { o.Peers = []schema.Peer{peer("pg3", 0x6000)} }, true, true, "standing"},
		{"lag", behind, false, true, "maximum_lag_on_failover"},
		{"another timeline", func(o *Observation, _ *Memory) { o.Lock.Leader.Timeline = 3 }, false, true, "timeline"},
		{"nofailover", func(o *Observation, _ *Memory) { o.Tags.NoFailover = true }, false, true, "nofailover"},
		{"the synchronous set", func(o *Observation, _ *Memory) {
			o.Lock.Leader.Sync = schema.SyncSet{Need: 1, Standbys: []string{"pg3"}}
		}, false, true, "synchronous"},
		{"the end of a released reign", func(o *Observation, m *Memory) {
			o.Lock.Session, o.Lock.Leader.Phase, o.Lock.Leader.ShutdownLSN = "", schema.PhaseReleased, 0x9000
			o.Peers = []schema.Peer{peer("pg1", 0x9000)}
		}, false, true, "stopped at"},
		{"members that were not heard of", func(o *Observation, m *Memory) {
			m.Record.Epoch, m.Record.Named, o.State.Request.Value.Epoch = 6, 6, 6
		}, false, true, "not heard of"},
		{"no record says how far the last primary was, and another has more", func(o *Observation, m *Memory) {
			m.Record.Epoch, m.Record.Named, o.State.Request.Value.Epoch = 6, 6, 6
			o.Peers = []schema.Peer{peer("pg1", 0x5000), peer("pg3", 0x6000)}
		}, false, true, "told how far they are: pg1, pg3"},

		{"the lease may be in force", func(o *Observation, m *Memory) { m.Seen.At = o.Now.Add(-lease) }, false, false, ""},
		{"not read since it is dead", func(o *Observation, _ *Memory) { o.Lock.AskedAt = t0 }, false, false, ""},
		{"it promised", func(o *Observation, m *Memory) { m.PromisedUntil = o.Now + 1 }, false, false, "promised"},
		{"no session", func(o *Observation, _ *Memory) { o.Session = "" }, false, false, "session"},
		{"the primary does not know it", func(o *Observation, _ *Memory) { o.Lock.Leader.Members = []string{"pg1", "pg3"} }, false, false, "did not know it"},
		{"no record of the newest epoch names it", func(o *Observation, m *Memory) {
			m.Record.Epoch, o.State.Request.Value.Epoch = 6, 6
		}, false, false, ""},
		{"somebody says that it reigns", func(o *Observation, m *Memory) {
			m.Record.Epoch, m.Record.Named, o.State.Request.Value.Epoch = 6, 6, 6
			p := peer("pg3", 0x5000)
			p.Status.Role, p.Status.LeaseLeft, p.HeardAt = schema.RolePrimary, schema.Duration(time.Second), o.Now
			o.Peers = []schema.Peer{p}
		}, false, false, "says that it reigns"},
		{"silent postgres", func(o *Observation, _ *Memory) { o.SQL.State = SQLUnknown }, false, false, "does not answer"},

		// Void, and the rules forbid it by themselves.
		{"for another member", func(o *Observation, m *Memory) { behind(o, m); o.State.Request.Value.To = "pg3" }, false, false, "maximum_lag"},
		{"about another primary", func(o *Observation, m *Memory) { behind(o, m); o.State.Request.Value.From = "pg3" }, false, false, "maximum_lag"},
		{"about another epoch", func(o *Observation, m *Memory) { behind(o, m); o.State.Request.Value.Epoch = 3 }, false, false, "maximum_lag"},
		{"the primary went further since", func(o *Observation, m *Memory) { behind(o, m); o.State.Request.Value.LSN-- }, false, false, "maximum_lag"},
		{"a switchover", func(o *Observation, m *Memory) { behind(o, m); o.State.Request.Value.Kind = schema.RequestSwitchover }, false, false, "maximum_lag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, force := range []bool{false, true} {
				o, m := asked(force)
				if c.change != nil {
					c.change(&o, &m)
				}
				p, _ := Decide(o, m)
				want := c.plain
				if force {
					want = c.force
				}
				i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Seize })
				if (i >= 0) != want {
					t.Fatalf("force %v: planned %v; %s: %s", force, planned(p), p.State, p.Reason)
				}
				if i < 0 {
					if !strings.Contains(p.Reason, c.says) {
						t.Errorf("force %v: says %q, want %q", force, p.Reason, c.says)
					}
					continue
				}
				a := p.Actions[i]
				by := map[bool]string{false: "asked for by ann@desk: ", true: "forced by ann@desk: "}[force]
				if !strings.HasPrefix(a.Why, by) || a.Leader.Epoch != m.Record.Epoch+1 || a.Leader.NextTimeline <= o.Lock.Leader.Timeline || a.At.Index != o.Lock.Index {
					t.Errorf("force %v: %+v", force, a)
				}
				if force && a.Leader.Sync.Need != 0 {
					t.Errorf("a set is recorded that nobody vouches for: %s", a.Leader.Sync)
				}
			}
		})
	}
}

// TestForcedOnAPrimaryOfOld is a cluster of two: pg1 seized the lock, never served, and is gone for good; pg2 was the
// primary before and is stopped.
func TestForcedOnAPrimaryOfOld(t *testing.T) {
	for _, force := range []bool{false, true} {
		o, m := asked(force)
		gone(&o, ProcessStopped)
		o.Data.StandbySignal, m.Record.Reigned = false, 3
		p, _ := Decide(o, m)
		if got := slices.Contains(planned(p), StartStandby); got != force || slices.Contains(planned(p), StartPrimary) {
			t.Errorf("force %v: planned %v; %s", force, planned(p), p.Reason)
		}
	}
}

func TestAPrimaryDropsTheRequestForAFailover(t *testing.T) {
	o, m := holder()
	asking, _ := asked(true)
	o.State.Request = asking.State.Request
	if p, _ := Decide(o, m); !slices.Contains(planned(p), DropRequest) {
		t.Errorf("planned %v", planned(p))
	}
}
