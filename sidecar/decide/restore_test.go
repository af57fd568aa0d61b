package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// restoring is the holder of a lock that was taken for the first data directory, which is not there.
func restoring() (Observation, Memory) {
	o, m := standby()
	o.Data, o.SQL, o.Init = Data{State: DataEmpty, At: t0}, SQL{}, schema.InitRestore
	o.Process = Process{State: ProcessStopped, At: t0}
	o.State.Initialize.Value = schema.Initialize{By: "pg2", Mode: schema.InitRestore}
	o.Lock = schema.LockView{Known: true, Exists: true, Index: 71, Session: "s2", AskedAt: t0, Leader: schema.Leader{
		Member: "pg2", Epoch: 1, Phase: schema.PhaseBootstrapping, Session: "s2", Lease: schema.Duration(lease), Members: []string{"pg2"}}}
	m.Record = Record{Cluster: "c", Name: "pg2", Session: "s2"}
	m.Reign = Reign{Active: true, Epoch: 1, Phase: schema.PhaseBootstrapping, WrittenPhase: schema.PhaseBootstrapping, Session: "s2", Index: 71,
		AskedAt: t0, RenewedAt: t0, Deadline: t0.Add(lease), Written: []string{"pg1", "pg2", "pg3"}}
	return o, m
}

// A cluster that begins with a backup is claimed by a member with an empty directory, and by no other.
func TestRestoreIsClaimed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Observation)
		want   []Kind
		words  string
	}{
		"empty":              {func(*Observation) {}, []Kind{PutInitialize}, "restored from a backup"},
		"cut short":          {func(o *Observation) { o.Data.State = DataIncomplete }, []Kind{PutInitialize}, "restored from a backup"},
		"something is there": {func(o *Observation) { o.Data = Data{State: DataValid, At: t0, SystemID: "7"} }, nil, "move it away"},
		"a peer has data":    {func(o *Observation) { p := peer("pg3", 0); p.Status.SystemID = "8"; o.Peers = []schema.Peer{p} }, nil, "pg3 has its data"},
		"another has claimed": {func(o *Observation) {
			o.State.Initialize = schema.Doc[schema.Initialize]{Exists: true, Value: schema.Initialize{By: "pg1", Mode: schema.InitRestore}}
		}, nil, "pg1 makes the first data directory"},
	} {
		o, _ := standby()
		o.State, o.Lock = schema.ClusterState{Index: 1}, schema.LockView{Known: true, AskedAt: t0}
		o.Data, o.SQL, o.Init = Data{State: DataEmpty, At: t0}, SQL{}, schema.InitRestore
		o.Process = Process{State: ProcessStopped, At: o.Now}
		c.change(&o)
		p, _ := Decide(o, Memory{Record: Record{Cluster: "c", Name: "pg2"}, SessionAt: t0})
		if !slices.Equal(planned(p), c.want) || !strings.Contains(p.Reason, c.words) {
			t.Errorf("%s: planned %v: %s", name, planned(p), p.Reason)
		}
		if c.want != nil && p.Actions[0].Initialize != (schema.Initialize{By: "pg2", Mode: schema.InitRestore}) {
			t.Errorf("%s: %+v", name, p.Actions[0].Initialize)
		}
	}
}

// The holder restores; where that fails it says the command's last words and tries again later, never an initdb. What was
// restored is adopted.
func TestRestore(t *testing.T) {
	o, m := restoring()
	p, m := Decide(o, m)
	if !slices.Equal(planned(p), []Kind{Restore}) {
		t.Fatalf("planned %v: %s", planned(p), p.Reason)
	}
	o.Done = []Outcome{{Action: Action{Kind: Restore}, Result: Unclear, Error: "no such stanza", EndedAt: t0 + 1}}
	o.Now, o.Data.At, o.Process.At = t0+2, t0+2, t0+2
	if p, m = Decide(o, m); slices.Contains(planned(p), Restore) || p.State != schema.StateNeedsOperator || !strings.Contains(p.Reason, "no such stanza") {
		t.Fatalf("after a failure: planned %v: %s: %s", planned(p), p.State, p.Reason)
	}
	o.Done = nil
	again := m.Retries[SlotPostgres].Until
	if wait := again.Sub(o.Now); wait < 5*time.Second {
		t.Errorf("tried again after %s", wait)
	}
	o.Now, o.Data.At, o.Process.At, m.Reign.RenewedAt, m.Reign.Deadline = again, again, again, again, again.Add(lease)
	o.Data.State = DataIncomplete // a sidecar that was killed meanwhile left as much
	if p, m = Decide(o, m); !slices.Contains(planned(p), Restore) {
		t.Fatalf("again: planned %v: %s", planned(p), p.Reason)
	}
	without := o
	without.Init = schema.InitNew
	if p, _ := Decide(without, m); slices.Contains(planned(p), Initdb) || slices.Contains(planned(p), Restore) || !strings.Contains(p.Reason, "without --init restore") {
		t.Errorf("without the option: planned %v: %s", planned(p), p.Reason)
	}
	o.Done = []Outcome{{Action: Action{Kind: Restore}, Result: OK, SystemID: "7", EndedAt: again + 1}}
	o.Now, o.Process.At, o.Data = again+2, again+2, Data{State: DataValid, At: again + 2, SystemID: "7", Timeline: 4}
	if p, m = Decide(o, m); !slices.Contains(planned(p), Adopt) || m.Record.SystemID != "7" {
		t.Fatalf("restored: planned %v: %s", planned(p), p.Reason)
	}
}
