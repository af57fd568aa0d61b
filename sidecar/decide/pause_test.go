package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// TestPaused shows each rule twice: what is done otherwise, and that it is not while the cluster is paused.
func TestPaused(t *testing.T) {
	dead := func(o *Observation, _ *Memory) { *o = o.at(time.Minute, time.Minute-1) }
	released := func(successor string) func(*Observation, *Memory) {
		return func(o *Observation, m *Memory) {
			dead(o, m)
			o.Lock.Session, o.Lock.Leader.Phase, o.Lock.Leader.Successor = "", schema.PhaseReleased, successor
		}
	}
	// lastPrimary makes the member the one that reigned last; its Postgres is gone in state s.
	lastPrimary := func(s ProcessState) func(*Observation, *Memory) {
		return func(o *Observation, m *Memory) {
			dead(o, m)
			gone(o, s)
			o.Name, o.Data.StandbySignal, o.Lock.Leader.Member, m.Record.Reigned = "pg1", false, "pg1", 4
		}
	}
	hung := func(o *Observation, _ *Memory) {
		o.SQL = SQL{State: SQLUnknown, At: o.Now, Failing: o.Now.Add(-o.Config.HangBound())}
		o.Peers = []schema.Peer{peer("pg2", 0x5000)}
	}
	crashes := func(n int) func(*Observation, *Memory) {
		return func(o *Observation, m *Memory) {
			gone(o, ProcessCrashed)
			o.Data.RedoLSN, o.Peers, m.Crashes = 0x5000, []schema.Peer{peer("pg2", 0x5000)}, n
		}
	}
	for _, c := range []struct {
		name         string
		member       func() (Observation, Memory)
		change       func(*Observation, *Memory)
		else_, pause []Kind
		says         string
	}{
		{"nobody stands for an expired lease", follower, dead, []Kind{Seize}, nil, "the cluster is paused by ann@desk (a new disk)"},
		{"nor for a release to anybody", follower, released(""), []Kind{Seize}, nil, "the cluster is paused"},
		{"a planned release is answered", follower, released("pg2"), []Kind{Seize}, []Kind{Seize}, ""},
		{"the last primary goes on after its fence", follower, lastPrimary(ProcessFenced), []Kind{Seize}, []Kind{Seize}, ""},
		{"and not after a pg_ctl stop", follower, lastPrimary(ProcessCrashed), []Kind{Seize}, nil, "howdah restart starts it"},
		{"a standby that was stopped stays down", follower, func(o *Observation, _ *Memory) { gone(o, ProcessCrashed) }, []Kind{StartStandby}, nil, "howdah restart starts it"},
		{"so it does while nobody reigns", follower, func(o *Observation, m *Memory) { dead(o, m); gone(o, ProcessCrashed) }, []Kind{StartStandby}, nil, "howdah restart starts it"},
		{"one that howdah stopped comes up", follower, func(o *Observation, _ *Memory) { gone(o, ProcessStopped) }, []Kind{StartStandby}, []Kind{StartStandby}, ""},
		{"a primary that was stopped stays down", holder, crashes(0), []Kind{StartPrimary}, nil, "howdah restart starts it"},
		{"and nobody takes over from it", holder, crashes(3), []Kind{Release}, nil, "howdah restart starts it"},
		{"nor from a hung one", holder, hung, []Kind{StopNow}, nil, "has answered no probe"},
		{"no clone of an empty directory", follower, func(o *Observation, _ *Memory) { gone(o, ProcessStopped); o.Data.State = DataEmpty }, []Kind{Clone}, nil, "howdah reinit clones it"},
		{"no rewind", loser, nil, []Kind{Rewind}, nil, "howdah reinit clones it"},
		{"no stop of a standby that cannot follow", follower, func(o *Observation, m *Memory) {
			o.SQL.Streaming, m.Rejoin = false, Rejoin{Epoch: 4, Checked: true}
		}, []Kind{StopFast}, nil, "no WAL receiver"},
		{"a new primary is followed", follower, func(_ *Observation, m *Memory) { m.Following = Upstream{"pg3", "pg3:5432"} }, []Kind{Follow}, []Kind{Follow}, ""},
		{"the lease that has run out is fenced", holder, func(o *Observation, m *Memory) { m.Reign.Deadline = o.Now }, []Kind{StopNow}, []Kind{StopNow}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, paused := range []bool{false, true} {
				o, m := c.member()
				o = o.at(time.Second, 0)
				o.Data.At = o.Now
				if c.change != nil {
					c.change(&o, &m)
				}
				want := c.else_
				if o.Config.Pause = paused; paused {
					o.Config.PauseBy, o.Config.PauseReason, want = "ann@desk", "a new disk", c.pause
				}
				p, _ := Decide(o, m)
				kinds := slices.DeleteFunc(planned(p), func(k Kind) bool { return k == Renew || k == Arm || k == AskPromises })
				if !slices.Equal(kinds, want) {
					t.Errorf("paused %v: planned %v, want %v; %s: %s", paused, kinds, want, p.State, p.Reason)
				}
				if paused && !strings.Contains(p.Reason, c.says) {
					t.Errorf("%s: %s; want %q", p.State, p.Reason, c.says)
				}
			}
		})
	}
}

func TestAnOrderIsCarriedOutWhilePaused(t *testing.T) {
	for name, member := range map[string]func() (Observation, Memory){"standby": follower, "primary": holder} {
		o, m := member()
		o = o.at(time.Second, 0)
		gone(&o, ProcessCrashed)
		o.Config.Pause, o.Order = true, Order{"x", schema.OrderRestart}
		if p, _ := Decide(o, m); !slices.Contains(planned(p), StartStandby) && !slices.Contains(planned(p), StartPrimary) {
			t.Errorf("%s: planned %v: %s", name, planned(p), p.Reason)
		}
	}
}
