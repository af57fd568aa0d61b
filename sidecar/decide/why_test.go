package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// event returns the only event of a kind in a plan; nil if there is none.
func event(t *testing.T, p Plan, k schema.EventKind) *schema.Event {
	t.Helper()
	var found *schema.Event
	for i := range p.Events {
		if p.Events[i].Kind == k {
			if found != nil {
				t.Fatalf("two events %s", k)
			}
			found = &p.Events[i]
		}
	}
	return found
}

func TestATakeoverRecordsWhatItRestedOn(t *testing.T) {
	o, m := standby()
	o = o.at(4*time.Second, 4*time.Second-12*time.Millisecond)
	o.Peers = []schema.Peer{peer("pg1", 0), peer("pg3", 0x4000)}
	o.Peers[0].Liveness, o.Peers[0].HeardAt = schema.LivenessDead, t0.Add(time.Second)
	o.Peers[1].Status.Tags.NoFailover = true
	p, m := Decide(o, m)
	if e := event(t, p, schema.EventJudged); e == nil || e.Evidence.Judgement.Unrenewed.D() != 4*time.Second {
		t.Errorf("%+v", e)
	}
	i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Seize })
	if i < 0 {
		t.Fatalf("planned %v: %s", planned(p), p.Reason)
	}
	seize := p.Actions[i]
	o.Done = []Outcome{{Action: seize, Result: OK, View: schema.LockView{Known: true, Exists: true, Index: 71, Session: "s2", Leader: seize.Leader, AskedAt: o.Now}}}
	p, _ = Decide(o, m)
	e := event(t, p, schema.EventElected)
	if e == nil || e.Evidence == nil {
		t.Fatalf("%+v", p.Events)
	}
	want := schema.Judgement{Holder: "pg1", Epoch: 4, Index: 70, Lease: schema.Duration(lease), Unrenewed: schema.Duration(4 * time.Second),
		ReadAgo: schema.Duration(12 * time.Millisecond), HeardAgo: schema.Duration(3 * time.Second), Liveness: schema.LivenessDead}
	if *e.Evidence.Judgement != want {
		t.Errorf("judgement %+v, want %+v", *e.Evidence.Judgement, want)
	}
	bars := map[string]string{}
	for _, c := range e.Evidence.Candidates {
		bars[c.Member] = c.Bar
	}
	if c := e.Evidence.Candidates; len(c) != 3 || c[0].Member != "pg2" || bars["pg2"] != "" || !strings.Contains(bars["pg1"], "dead") || !strings.Contains(bars["pg3"], "nofailover") {
		t.Errorf("candidates %+v", c)
	}
}

func TestAReasonNotToStandIsRecordedOnce(t *testing.T) {
	o, m := standby()
	o = o.at(time.Minute, time.Minute-1)
	o.Config.MaximumLagOnFailover, o.SQL.LSN = 0x100, 0x1000
	said := func() string {
		var p Plan
		p, m = Decide(o, m)
		if e := event(t, p, schema.EventBarred); e != nil {
			return e.Detail
		}
		return ""
	}
	if got := said(); !strings.Contains(got, "lacks 16384 bytes") {
		t.Errorf("says %q", got)
	}
	o.SQL.LSN = 0x2000
	if got := said(); got != "" {
		t.Errorf("says again, with other numbers: %q", got)
	}
	o.Tags.NoFailover = true
	if got := said(); !strings.Contains(got, "nofailover") {
		t.Errorf("says %q of another reason", got)
	}
	o.Lock.Index++ // renewed: what is said next is about another time
	said()
	o = o.at(2*time.Minute, 2*time.Minute-1)
	if got := said(); !strings.Contains(got, "nofailover") {
		t.Errorf("says %q after the lease was renewed", got)
	}
}

func TestWhoCouldFollowWhileAPrimaryServes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		bar    string
	}{
		{"all is well", func(*Observation, *Memory) {}, ""},
		{"nofailover", func(o *Observation, _ *Memory) { o.Tags.NoFailover = true }, "its nofailover tag is set"},
		{"no data", func(o *Observation, _ *Memory) { o.Data.State = DataEmpty }, "its data directory is empty"},
		{"a promise", func(o *Observation, m *Memory) { m.PromisedUntil = o.Now.Add(time.Second) }, "it promised the primary not to"},
		{"down", func(o *Observation, _ *Memory) { o.SQL = SQL{} }, "postgres does not answer"},
		{"another timeline", func(_ *Observation, m *Memory) { m.Timeline = 1 }, "it is on timeline 1, the last primary was on 2"},
		{"it reigns", func(_ *Observation, m *Memory) { m.Reign.Active = true }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			m.Timeline = 2
			c.change(&o, &m)
			if got := Candidates(o, m); got[0].Member != "pg2" || got[0].Bar != c.bar {
				t.Errorf("%+v, want the bar %q", got[0], c.bar)
			}
		})
	}
	o, m := standby()
	o.Peers = []schema.Peer{peer("pg3", 0x5000)}
	got := Candidates(o, m)
	if len(got) != 3 || got[1].Member != "pg1" || got[1].Bar != "nothing was heard of it" || got[2].Member != "pg3" || got[2].Bar != "" {
		t.Errorf("%+v", got)
	}
}

func TestARestartInPlaceSaysWhyNobodyTookOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		peers []schema.Peer
		want  string
	}{
		{"a standby could follow", []schema.Peer{peer("pg1", 0x5000)}, "expected to take 500ms, no longer than crash_recovery_bound (2s), and loses nothing; pg1 could have followed"},
		{"none could", nil, "no standby may be promoted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			o.Peers = c.peers
			o.Process = Process{State: ProcessCrashed, At: o.Now, Since: t0 - 1}
			o.Data.RedoLSN, o.Data.StandbySignal = 0x1000, false
			m.LSN = 0x1000 + 32<<20
			o.Lock.Leader.FlushLSN = 0x5000
			m.Record.Epoch = 5
			o.Lock.Leader.Epoch, o.Lock.Leader.Member, o.Lock.Session = 5, "pg2", "s2"
			m.Reign = Reign{Active: true, Epoch: 5, Phase: schema.PhaseServing, WrittenPhase: schema.PhaseServing, Session: "s2", Index: 70,
				Deadline: t0.Add(lease), AskedAt: t0, RenewedAt: t0}
			p, _ := Decide(o, m)
			if e := event(t, p, schema.EventRecovering); e == nil || !strings.Contains(e.Detail, c.want) {
				t.Errorf("planned %v, recorded %+v; %s", planned(p), e, p.Reason)
			}
		})
	}
}

func TestALeaseThatLivesOnPromisesSaysSoOnce(t *testing.T) {
	o, m := standby()
	m.Reign = Reign{Active: true, Epoch: 5, Session: "s2", Index: 71, Deadline: t0.Add(lease), AskedAt: t0, RenewedAt: t0}
	said := func(out Outcome) bool {
		o.Now = o.Now.Add(500 * time.Millisecond)
		out.StartedAt, out.View.AskedAt, o.Done = o.Now, o.Now, []Outcome{out}
		d := &decision{o: &o, m: m}
		d.learnOutcome(out)
		m = d.m
		return event(t, d.plan, schema.EventPromise) != nil
	}
	promised := Outcome{Action: Action{Kind: AskPromises, Epoch: 5, Members: []string{"pg1"}, Lease: schema.Duration(lease)}, Result: OK,
		Promises: []schema.PromiseReply{{Member: "pg1", Given: true}}}
	renewed := Outcome{Action: Action{Kind: Renew, Leader: schema.Leader{Epoch: 5, Session: "s2", Lease: schema.Duration(lease)}}, Result: OK}
	for i, step := range []struct {
		out  Outcome
		want bool
	}{{promised, true}, {promised, false}, {renewed, false}, {promised, true}} {
		if got := said(step.out); got != step.want {
			t.Errorf("step %d: said %v", i, got)
		}
	}
}
