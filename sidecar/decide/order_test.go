package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// follower is standby pg2 while pg1 serves and is heard of.
func follower() (Observation, Memory) {
	o, m := standby()
	o = o.at(time.Second, 0)
	o.Data.At = o.Now
	p := peer("pg1", 0x5000)
	p.Status.Role, p.Status.State = schema.RolePrimary, schema.StateRunning
	o.Peers = []schema.Peer{p}
	m.Clone = Cloning{From: Upstream{"pg1", "pg1:5432"}, Since: t0.Add(-time.Second)} // what it would clone, others have heard of
	return o, m
}

func ended(k Kind, r Certainty, why string) []Outcome {
	return []Outcome{{Action: Action{Kind: k}, Result: r, Error: why, EndedAt: t0}}
}

func gone(o *Observation, s ProcessState) {
	o.Process = Process{State: s, At: o.Now, Since: o.Now - 2}
	o.SQL, o.Data.At = SQL{}, o.Now
}

// TestOrders are the steps of an order, one decision each.
func TestOrders(t *testing.T) {
	restart, reinit := Order{"x", schema.OrderRestart}, Order{"x", schema.OrderReinit}
	for _, c := range []struct {
		name   string
		member func() (Observation, Memory)
		order  Order
		step   Step // reached before; empty for an order that is new
		change func(*Observation, *Memory)
		want   []Kind
		then   Step
		over   bool
		why    string // why it came to nothing, or part of it
	}{
		{"a standby is stopped", follower, restart, "", nil, []Kind{StopFast}, StepStop, false, ""},
		{"it takes too long to stop", follower, restart, StepStop, func(o *Observation, m *Memory) {
			o.Process.State, m.Ordered.Since = ProcessStopping, o.Now.Add(-31*time.Second)
		}, []Kind{StopNow}, StepStop, false, ""},
		{"it does not stop at all", follower, restart, StepStop, func(o *Observation, m *Memory) {
			o.Process.State, m.Ordered.Since = ProcessStopping, o.Now.Add(-61*time.Second)
		}, nil, "", true, "postgres does not stop"},
		{"it has stopped", follower, restart, StepStop, func(o *Observation, _ *Memory) { gone(o, ProcessStopped) }, []Kind{StartStandby}, StepStart, false, ""},
		{"one that is down is started", follower, restart, "", func(o *Observation, _ *Memory) { gone(o, ProcessCrashed) }, []Kind{StartStandby}, StepStart, false, ""},
		{"it does not start", follower, restart, StepStart, func(o *Observation, _ *Memory) {
			gone(o, ProcessCrashed)
			o.Done = ended(StartStandby, Unclear, "FATAL: no memory")
		}, nil, "", true, "FATAL: no memory"},
		{"it answers and does not stream yet", follower, restart, StepStart, func(o *Observation, _ *Memory) { o.SQL.Streaming = false }, nil, StepStart, false, ""},
		{"it does not stream in time", follower, restart, StepStart, func(o *Observation, m *Memory) {
			o.SQL.Streaming, m.Ordered.Since = false, o.Now.Add(-61*time.Second)
		}, nil, "", true, "does not stream from pg1"},
		{"it does not come up in time", follower, restart, StepStart, func(o *Observation, m *Memory) {
			o.SQL, m.Ordered.Since, o.Process.Since = SQL{State: SQLStarting}, o.Now.Add(-61*time.Second), o.Now-2
		}, nil, "", true, "within start_timeout"},
		{"it streams", follower, restart, StepStart, nil, nil, "", true, ""},
		{"it answers, and nobody is there to stream from", follower, restart, StepStart, func(o *Observation, _ *Memory) { o.SQL.Streaming, o.Lock.Session = false, "" }, nil, "", true, ""},
		{"it reigns meanwhile", holder, restart, StepStop, func(_ *Observation, m *Memory) { m.Ordered.Primary = false }, nil, "", true, "the primary has changed"},

		{"a primary makes a checkpoint first", holder, restart, "", nil, []Kind{Checkpoint}, StepCheckpoint, false, ""},
		{"then routers are told", holder, restart, StepCheckpoint, func(o *Observation, _ *Memory) {
			o.Done = []Outcome{{Action: Action{Kind: Checkpoint, Why: "x"}, Result: Refused, Error: "no"}}
		}, nil, StepDrain, false, ""},
		{"then it is stopped", holder, restart, StepDrain, nil, []Kind{StopFast}, StepStop, false, ""},
		{"once transactions have ended", holder, restart, StepDrain, func(o *Observation, m *Memory) {
			m.Ordered.Since = o.Now.Add(-300 * time.Millisecond)
			o.SQL.At, o.SQL.Transactions, o.SQL.Oldest = o.Now, 1, time.Second
		}, nil, StepDrain, false, ""},
		{"or have had their time", holder, restart, StepDrain, func(o *Observation, _ *Memory) {
			o.SQL.At, o.SQL.Transactions, o.SQL.Oldest = o.Now, 1, 2*time.Second
		}, []Kind{StopFast}, StepStop, false, ""},
		{"none is waited for that began since", holder, restart, StepDrain, func(o *Observation, m *Memory) {
			m.Ordered.Since = o.Now.Add(-300 * time.Millisecond)
			o.SQL.At, o.SQL.Transactions, o.SQL.Oldest = o.Now, 1, 200*time.Millisecond
		}, []Kind{StopFast}, StepStop, false, ""},
		{"or once postgres is gone", holder, restart, StepDrain, func(o *Observation, m *Memory) {
			m.Ordered.Since = o.Now
			gone(o, ProcessCrashed)
		}, []Kind{StartPrimary}, StepStart, false, ""},
		{"half of the lease is for the stop", holder, restart, StepDrain, func(o *Observation, m *Memory) {
			m.Ordered.Since, m.Reign.Deadline = o.Now.Add(-300*time.Millisecond), o.Now.Add(lease/2-1)
			o.SQL.At, o.SQL.Transactions, o.SQL.Oldest = o.Now, 1, time.Second
		}, []Kind{StopFast}, StepStop, false, ""},
		{"commits wait for nobody", holder, restart, StepStop, func(_ *Observation, m *Memory) {
			m.Reign.Sync.Applied = schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
		}, []Kind{StopNow}, StepStop, false, ""},
		{"commits wait for who is there", holder, restart, StepStop, func(o *Observation, m *Memory) {
			m.Reign.Sync.Applied = schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
			o.SQL.Replicas = []Replica{{Name: "pg2", Streaming: true}}
		}, []Kind{StopFast}, StepStop, false, ""},
		{"commits wait for one that catches up", holder, restart, StepStop, func(o *Observation, m *Memory) {
			m.Reign.Sync.Applied = schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
			o.SQL.Replicas = []Replica{{Name: "pg2"}}
		}, []Kind{StopNow}, StepStop, false, ""},
		{"stopped, and not looked at since", holder, restart, StepStop, func(o *Observation, _ *Memory) {
			gone(o, ProcessStopped)
			o.Data.At = t0
		}, nil, StepStop, false, ""},
		{"it starts within its reign", holder, restart, StepStop, func(o *Observation, _ *Memory) { gone(o, ProcessStopped) }, []Kind{StartPrimary}, StepStart, false, ""},
		{"not before the lease is in force", holder, restart, StepStart, func(o *Observation, m *Memory) {
			gone(o, ProcessStopped)
			m.Reign.Deadline = schema.Never
		}, nil, StepStart, false, ""},
		{"it serves again", holder, restart, StepStart, nil, nil, "", true, ""},
		{"one that was down is started", holder, restart, "", func(o *Observation, _ *Memory) { gone(o, ProcessCrashed) }, []Kind{StartPrimary}, StepStart, false, ""},
		{"its start fails: the usual answer follows", holder, restart, StepStart, func(o *Observation, _ *Memory) {
			gone(o, ProcessCrashed)
			o.Done = ended(StartPrimary, Unclear, "FATAL: bad setting")
		}, nil, "", true, "FATAL: bad setting"},

		{"a reinit stops postgres first", follower, reinit, "", nil, []Kind{StopFast}, StepStop, false, ""},
		{"and then clones", follower, reinit, StepStop, func(o *Observation, _ *Memory) { gone(o, ProcessStopped) }, []Kind{Clone}, StepClone, false, ""},
		{"the primary is gone by then", follower, reinit, StepClone, func(o *Observation, _ *Memory) {
			gone(o, ProcessStopped)
			o.Peers[0].Liveness = schema.LivenessDead
		}, []Kind{StartStandby}, "", true, "pg1 is not heard of"},
		{"the clone is whole", follower, reinit, StepClone, func(o *Observation, _ *Memory) {
			gone(o, ProcessStopped)
			o.Done = ended(Clone, OK, "")
		}, []Kind{StartStandby}, StepStart, false, ""},
		{"the clone fails", follower, reinit, StepClone, func(o *Observation, m *Memory) {
			gone(o, ProcessStopped)
			m.Retries[SlotPostgres] = Retry{Kind: Clone, Count: cloneTries, Error: "no space"}
		}, []Kind{StartStandby}, "", true, "the data directory is as it was: no space"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := c.member()
			o = o.at(time.Second, 0)
			o.Data.At = o.Now
			o.Order = c.order
			if c.step != "" {
				m.Ordered = Ordered{ID: "x", Kind: c.order.Kind, Step: c.step, Since: o.Now.Add(-time.Second), Primary: m.Reign.Active}
			}
			if c.change != nil {
				c.change(&o, &m)
			}
			p, after := Decide(o, m)
			kinds := slices.DeleteFunc(planned(p), func(k Kind) bool { return k == Renew || k == Arm || k == AskPromises })
			if !slices.Equal(kinds, c.want) {
				t.Errorf("planned %v, want %v; %s: %s", kinds, c.want, p.State, p.Reason)
			}
			if got := after.Ordered; got.ID != "x" || got.Step != c.then || got.Over != c.over || !strings.Contains(got.Why, c.why) || (got.Why == "") != (c.why == "") {
				t.Errorf("the order is %+v", got)
			}
		})
	}
}

func TestWhatCannotBeOrdered(t *testing.T) {
	for _, c := range []struct {
		name   string
		member func() (Observation, Memory)
		kind   schema.OrderKind
		change func(*Observation, *Memory)
		why    string
	}{
		{"a standby", follower, schema.OrderRestart, nil, ""},
		{"a primary", holder, schema.OrderRestart, nil, ""},
		{"silent launcher", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Process.State = ProcessUnknown }, "howdah launch does not answer"},
		{"ending launcher", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Process.Ending = true }, "ending"},
		{"no word of consul yet", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Consul.Seen = false }, "consul has not answered"},
		{"a switchover", holder, schema.OrderRestart, func(_ *Observation, m *Memory) { m.Switch.Step = StepStop }, "handing over"},
		{"not a primary yet", holder, schema.OrderRestart, func(_ *Observation, m *Memory) { m.Reign.Phase = schema.PhasePromoting }, "does not serve yet"},
		{"a clone under way", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Busy[SlotPostgres] = Clone }, "busy (clone)"},
		{"nothing to start", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Data.State = DataEmpty }, "data directory is empty"},
		{"an old primary, and nobody serves", follower, schema.OrderRestart, func(o *Observation, _ *Memory) { o.Data.StandbySignal, o.Lock.Session = false, "" }, "nobody serves"},

		{"reinit", follower, schema.OrderReinit, nil, ""},
		{"reinit of nothing", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Data.State = DataEmpty }, ""},
		{"reinit of the primary", holder, schema.OrderReinit, nil, "it is the primary"},
		{"reinit of the last primary", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Lock.Leader.Member = "pg2" }, "or was the last"},
		{"no primary", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhasePromoting }, "no primary to clone from"},
		{"an old record", follower, schema.OrderReinit, func(_ *Observation, m *Memory) { m.Record.Epoch = 9 }, "no primary to clone from"},
		{"the lease may be over", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Now = t0.Add(lease + margin) }, "no longer renews"},
		{"the primary is not heard of", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Peers = nil }, "not heard of (unknown)"},
		{"the directory cannot be read", follower, schema.OrderReinit, func(o *Observation, _ *Memory) { o.Data.State = DataUnknown }, "cannot be replaced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := c.member()
			if c.change != nil {
				c.change(&o, &m)
			}
			why := Unable(&o, m, c.kind)
			if !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
				t.Errorf("got %q, want %q", why, c.why)
			}
			o.Order = Order{"x", c.kind}
			p, m := Decide(o, m)
			if c.why != "" && (!m.Ordered.Over || m.Ordered.Why != why || slices.Contains(planned(p), StopFast)) {
				t.Errorf("it was begun all the same: %+v, %v", m.Ordered, planned(p))
			}
		})
	}
}
