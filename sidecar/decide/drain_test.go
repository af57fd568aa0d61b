package decide

import (
	"slices"
	"testing"
	"time"

	"howdah/consul/schema"
)

// A switchover waits for the transactions of clients, and for nothing longer than it may.
func TestSwitchoverDrains(t *testing.T) {
	busy := func(n int, oldest time.Duration) func(*Observation, *Memory) {
		return func(o *Observation, _ *Memory) { o.SQL.Transactions, o.SQL.Oldest = n, oldest }
	}
	all := func(fs ...func(*Observation, *Memory)) func(*Observation, *Memory) {
		return func(o *Observation, m *Memory) {
			for _, f := range fs {
				f(o, m)
			}
		}
	}
	for _, c := range []struct {
		name   string
		after  time.Duration // since routers were told
		change func(*Observation, *Memory)
		want   []Kind
		then   Step
	}{
		{"routers may not have heard yet", 19 * time.Millisecond, nil, nil, StepDrain},
		{"nobody is in a transaction", 20 * time.Millisecond, nil, []Kind{StopFast}, StepStop},
		{"but that was seen before", 100 * time.Millisecond, func(o *Observation, _ *Memory) { o.SQL.At = t0.Add(19 * time.Millisecond) }, nil, StepDrain},
		{"two are", 300 * time.Millisecond, busy(2, time.Second), nil, StepDrain},
		{"one that a router let through", 300 * time.Millisecond, busy(1, 281*time.Millisecond), nil, StepDrain},
		{"one that has begun since", 300 * time.Millisecond, busy(1, 280*time.Millisecond), []Kind{StopFast}, StepStop},
		{"not longer than a second", time.Second, busy(2, 2*time.Second), []Kind{StopFast}, StepStop},
		{"unless that is configured", time.Second, all(busy(2, 2*time.Second), func(o *Observation, _ *Memory) { o.Config.SwitchoverDrain = schema.Duration(5 * time.Second) }), nil, StepDrain},
		{"a configuration without it", 999 * time.Millisecond, all(busy(2, 2*time.Second), func(o *Observation, _ *Memory) { o.Config.SwitchoverDrain = 0 }), nil, StepDrain},
		{"half of the lease is gone", 100 * time.Millisecond, all(busy(2, time.Second), func(o *Observation, m *Memory) { m.Reign.Deadline = o.Now.Add(lease/2 - 1) }), []Kind{StopFast}, StepStop},
		{"the lease is over", 100 * time.Millisecond, all(busy(2, time.Second), func(o *Observation, m *Memory) { m.Reign.Deadline = o.Now }), []Kind{StopNow, StopFast}, StepStop},
		{"the launcher ends", 100 * time.Millisecond, all(busy(2, time.Second), func(o *Observation, _ *Memory) { o.Process.Ending = true }), []Kind{StopFast}, StepStop},
		{"postgres says nothing any more", 100 * time.Millisecond, all(busy(2, time.Second), func(o *Observation, _ *Memory) { o.SQL.State = SQLUnknown }), []Kind{StopFast}, StepStop},
		{"postgres is gone", 100 * time.Millisecond, func(o *Observation, _ *Memory) { gone(o, ProcessCrashed); o.Data.At = 0 }, nil, StepStop},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o = o.at(c.after, 0)
			o.SQL.At, o.Peers = o.Now, []schema.Peer{peer("pg2", 0x5000)}
			m.Reign.Phase, m.Reign.Deadline = schema.PhaseStopping, o.Now.Add(lease)
			m.Reign.WrittenPhase, m.Reign.AskedAt, m.Reign.RenewedAt = schema.PhaseStopping, o.Now, o.Now
			o.Process.Deadline = m.Reign.Deadline
			m.Switch = Switch{ID: "1", To: "pg2", Step: StepDrain, Since: t0}
			if c.change != nil {
				c.change(&o, &m)
			}
			p, after := Decide(o, m)
			kinds := slices.DeleteFunc(planned(p), func(k Kind) bool { return k == Arm || k == PutInitialize })
			if !slices.Equal(kinds, c.want) || after.Switch.Step != c.then {
				t.Errorf("planned %v in step %s, want %v in %s; %s: %s", kinds, after.Switch.Step, c.want, c.then, p.State, p.Reason)
			}
			if !p.Stopping || p.Hurry != (c.then == StepDrain) {
				t.Errorf("routers hold transactions: %v; probes hurry: %v", p.Stopping, p.Hurry)
			}
		})
	}
}

// Routers are told before anything is waited for.
func TestSwitchoverTellsFirst(t *testing.T) {
	o, m := holder()
	o = o.at(time.Second, 0)
	m.Switch = Switch{ID: "1", To: "pg2", Step: StepCheckpoint, Since: t0}
	o.Done = []Outcome{{Action: Action{Kind: Checkpoint, Why: "1"}, Result: OK, EndedAt: t0}}
	o.SQL.At = o.Now
	p, after := Decide(o, m)
	if !p.Stopping || !p.Hurry || slices.Contains(planned(p), StopFast) || after.Switch.Step != StepDrain || after.Switch.Since != o.Now || after.Reign.Phase != schema.PhaseStopping {
		t.Errorf("planned %v, stopping %v, hurry %v; %+v, %s", planned(p), p.Stopping, p.Hurry, after.Switch, after.Reign.Phase)
	}
}
