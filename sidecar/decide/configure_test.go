package decide

import (
	"slices"
	"strings"
	"testing"

	"howdah/consul/schema"
)

// reigning is a primary pg2 that serves, asynchronously.
func reigning() (Observation, Memory) {
	o, m := standby()
	o.Lock.Session, o.Lock.Leader.Member, o.Lock.Leader.Session = "s2", "pg2", "s2"
	o.Data.StandbySignal = false
	o.Process.Armed, o.Process.Epoch, o.Process.Deadline = true, 4, t0.Add(lease)
	o.SQL.InRecovery, o.SQL.Streaming = false, false
	m.Reign = Reign{Active: true, Epoch: 4, Phase: schema.PhaseServing, WrittenPhase: schema.PhaseServing, Session: "s2", Index: 70,
		Deadline: t0.Add(lease), AskedAt: t0, RenewedAt: t0, PromisesAt: t0, Noted: true, Lease: schema.Duration(lease)}
	m.Following = Upstream{}
	return o, m
}

func TestReconfigure(t *testing.T) {
	differs := func(o *Observation, m Memory) {
		st, _ := Configured(o, m)
		o.Files = Files{At: t0, For: st, Differ: true}
	}
	for _, c := range []struct {
		name    string
		primary bool
		change  func(*Observation, *Memory)
		want    bool
	}{
		{"a standby whose files differ", false, nil, true},
		{"a primary whose files differ", true, nil, true},
		{"nothing differs", false, func(o *Observation, _ *Memory) { o.Files.Differ = false }, false},
		{"the comparison could not be made", false, func(o *Observation, _ *Memory) { o.Files = Files{} }, false},
		{"compared before the last action on postgres", false, func(o *Observation, m *Memory) { m.HandledAt, o.Files.At, o.Process.At = t0-1, t0-1, t0 }, false},
		{"compared for another upstream", false, func(o *Observation, _ *Memory) { o.Files.For.From.Member = "pg3" }, false},
		{"an action on postgres is under way", true, func(o *Observation, _ *Memory) { o.Busy[SlotPostgres] = Checkpoint }, false},
		{"the primary stops", false, func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhaseStopping }, false},
		{"the next primary is promoted", false, func(o *Observation, _ *Memory) { o.Lock.Leader.Phase = schema.PhasePromoting }, false},
		{"it does not follow the primary yet", false, func(_ *Observation, m *Memory) { m.Following.Member = "pg3" }, false},
		{"postgres does not answer", false, func(o *Observation, _ *Memory) { o.SQL.State = SQLUnknown }, false},
		{"a switchover is under way", true, func(_ *Observation, m *Memory) { m.Switch = Switch{ID: "1", To: "pg3", Step: StepStop, Since: t0} }, false},
		{"we are being promoted", true, func(o *Observation, m *Memory) { m.Reign.Phase = schema.PhasePromoting }, false},
		{"we hand over", true, func(_ *Observation, m *Memory) { m.Reign.HandOver = "because" }, false},
		{"the launcher ends", true, func(o *Observation, _ *Memory) { o.Process.Ending = true }, false},
		{"an order is being carried out", false, func(o *Observation, m *Memory) {
			o.Order, m.Ordered = Order{ID: "1", Kind: schema.OrderRestart}, Ordered{ID: "1", Kind: schema.OrderRestart, Step: StepStop, Since: t0}
		}, false},
		{"the lease has run out", true, func(_ *Observation, m *Memory) { m.Reign.Deadline = t0 }, false},
		{"the synchronous set is on its way to consul", true, func(_ *Observation, m *Memory) {
			m.Reign.Sync.Wanted = schema.SyncSet{Need: 1, Standbys: []string{"pg1"}}
		}, false},
		{"another synchronous set is wanted than is in force", true, func(o *Observation, m *Memory) {
			o.Config.SynchronousMode = schema.SyncStrict
		}, false},
		{"clients are kept out", true, func(_ *Observation, m *Memory) { m.Reign.Sync.Closed = true }, false},
		{"it failed a moment ago", false, func(_ *Observation, m *Memory) {
			m.Retries[SlotPostgres] = Retry{Kind: Reconfigure, Until: t0 + 1, Count: 1}
		}, false},
	} {
		o, m := standby()
		if c.primary {
			o, m = reigning()
		}
		differs(&o, m)
		if c.change != nil {
			c.change(&o, &m)
		}
		p, _ := Decide(o, m)
		if got := slices.Contains(planned(p), Reconfigure); got != c.want {
			t.Errorf("%s: planned %v (%s: %s)", c.name, planned(p), p.State, p.Reason)
		}
	}
}

func TestReconfigureCarriesWhatIsInForce(t *testing.T) {
	o, m := standby()
	st, _ := Configured(&o, m)
	o.Files = Files{At: t0, For: st, Differ: true}
	p, _ := Decide(o, m)
	a := p.Actions[len(p.Actions)-1]
	if a.Role != schema.RoleStandby || a.From != (Upstream{"pg1", "pg1:5432"}) || a.Timeout == 0 {
		t.Errorf("%+v", a)
	}
	o, m = reigning()
	st, _ = Configured(&o, m)
	o.Files = Files{At: t0, For: st, Differ: true}
	p, _ = Decide(o, m)
	if a := p.Actions[len(p.Actions)-1]; a.Kind != Reconfigure || a.Role != schema.RolePrimary || a.From != (Upstream{}) {
		t.Errorf("%+v", a)
	}
}

func TestRefusedConfigurationIsSaidAndNotedOnce(t *testing.T) {
	o, m := standby()
	st, _ := Configured(&o, m)
	o.Files = Files{At: t0, For: st, Refused: []string{"parameters.work_mem = lots is not in force"}}
	p, m := Decide(o, m)
	if p.State != schema.StateStreaming || !strings.Contains(p.Reason, "work_mem") || len(p.Events) != 1 || p.Events[0].Kind != schema.EventRefused {
		t.Errorf("%s: %s, %v", p.State, p.Reason, p.Events)
	}
	if p, _ = Decide(o, m); len(p.Events) != 0 || !strings.Contains(p.Reason, "work_mem") {
		t.Errorf("%s, %v", p.Reason, p.Events)
	}
	o.Files.Refused = nil
	if p, _ = Decide(o, m); p.Reason != "" {
		t.Errorf("%s", p.Reason)
	}
}
