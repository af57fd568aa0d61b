package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// The last primary that takes the lock for the next epoch, and dies before its record says so, is still the last primary.
func TestATakeoverThatIsNotRememberedIsOurs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Observation, *Memory)
		stands bool
	}{
		{"it took the epoch after its last reign", func(*Observation, *Memory) {}, true},
		{"another took that epoch", func(o *Observation, _ *Memory) { o.Lock.Leader.Member = "pg1" }, false},
		{"somebody reigned between", func(_ *Observation, m *Memory) { m.Record.Reigned = 2 }, false},
		{"it never reigned", func(_ *Observation, m *Memory) { m.Record.Reigned = 0 }, false},
		{"a newer epoch is known", func(_ *Observation, m *Memory) { m.Record.Epoch = 5 }, false},
		{"a peer tells of a newer epoch", func(o *Observation, _ *Memory) {
			o.Peers = []schema.Peer{peer("pg3", 0x4000)}
			o.Peers[0].Status.Epoch = 5
		}, false},
		{"its postgres may live", func(o *Observation, _ *Memory) { o.Process.State = ProcessUnknown }, false},
		{"its data directory was not read", func(o *Observation, _ *Memory) { o.Data.State = DataUnknown }, false},
		{"the lease may be in force", func(o *Observation, _ *Memory) { o.Now = t0.Add(lease) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			m.Record.Reigned, m.Record.Epoch = 3, 4 // the sidecar that took epoch 4 is gone, with its session
			o = o.at(lease+margin+time.Second, lease+margin+time.Second-1)
			o.Lock.Leader.Member, o.Lock.Leader.Phase = "pg2", schema.PhasePromoting
			o.Data.StandbySignal, o.Process.State, o.SQL = false, ProcessStopped, SQL{State: SQLRefused}
			c.change(&o, &m)
			p, m := Decide(o, m)
			if got := slices.Contains(planned(p), Seize); got != c.stands {
				t.Fatalf("planned %v, and whether it is to stand is %v (%s)", planned(p), c.stands, p.Reason)
			}
			if !c.stands {
				return
			}
			// It dies again before that is remembered.
			taken := p.Actions[slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Seize })].Leader
			later := lease + margin + time.Second
			o = o.at(3*later, 3*later-1)
			o.Lock.Leader, o.Lock.Index = taken, 90
			m = Memory{Record: m.Record, SessionAt: o.Now, Seen: Seen{Known: true, Exists: true, Index: 90, At: t0.Add(later)}}
			o.Session, o.Lock.Session = "s9", ""
			if p, _ := Decide(o, m); !slices.Contains(planned(p), Seize) {
				t.Errorf("the second time: planned %v (%s)", planned(p), strings.TrimSpace(p.Reason))
			}
		})
	}
}
