package sim

import (
	"slices"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// mutate breaks a rule of package decide by showing it what is not so, just before it decides.
func (n *node) mutate() {
	l := &n.obs.Lock
	foreign := l.Exists && l.Leader.Member != n.name
	switch n.w.o.Mutate {
	case NoMargin: // a lease so much shorter that with its margin it is no longer than the holder's
		if foreign && l.Leader.Lease.D() == 3*time.Second {
			l.Leader.Lease = schema.Duration(2500 * time.Millisecond)
		}
	case ReleaseEarly:
		if r := n.memory.Reign; r.Active && (r.HandOver != "" || n.memory.Switch.Step == decide.StepStop) && n.pg.running() {
			n.obs.Process.State, n.obs.Process.Since = decide.ProcessStopped, n.obs.Now
			n.obs.Data.At, n.obs.Data.ShutdownLSN = n.obs.Now, n.pg.lsn()
		}
	case PromiseForgotten:
		n.memory.PromisedUntil = schema.Never
	case EpochForgotten:
		n.memory.Record.Epoch, n.memory.Record.Reigned = 0, 0
		n.obs.State.History = schema.Doc[schema.History]{}
		if foreign && !l.Held() {
			l.Leader.Epoch = 0
		}
		n.obs.Peers = nil
	case ClonesAtOnce:
		for i := range n.obs.Peers {
			n.obs.Peers[i].Status.CloneFrom = ""
		}
	case SyncNarrowedEarly:
		n.memory.Reign.Sync.AppliedAt -= schema.Instant(time.Hour)
		for i := range n.obs.SQL.Replicas {
			n.obs.SQL.Replicas[i].Flush = n.obs.SQL.LSN
		}
	case CandidateAlone:
		n.memory.Reports = decide.Reports{Index: l.Index}
		for _, name := range l.Leader.Sync.Standbys {
			n.memory.Reports.Got = append(n.memory.Reports.Got, decide.Report{Member: name})
		}
	case EmptyConsulIsNew:
		init := n.obs.State.Initialize
		if n.obs.State.Index != 0 && (!init.Exists || init.Value.By == n.name && init.Value.SystemID == "") {
			n.memory.Record.SystemID, n.memory.Record.Epoch, n.memory.Record.Reigned = "", 0, 0
			n.obs.Data.State, n.obs.Peers = decide.DataEmpty, nil
		}
	case OldRecordBelieved:
		if foreign && l.Leader.Epoch < n.memory.Record.Epoch {
			l.Leader.Epoch = n.memory.Record.Epoch
		}
	case LapsedBelieved:
		n.memory.Reign.Found = schema.Never
	case StrangersStand:
		if foreign && !slices.Contains(l.Leader.Members, n.name) {
			l.Leader.Members = append(slices.Clone(l.Leader.Members), n.name)
		}
	}
}

// decide asks package decide. A member that forgets its epoch in every turn would never be told that its record is on disk.
func (n *node) decide() (decide.Plan, decide.Memory) {
	if n.w.o.Mutate == EpochForgotten {
		return decide.Decide(n.obs, n.memory)
	}
	return decide.DecideSaved(n.obs, n.memory, n.saved)
}

// misact does what a mutation does besides an action.
func (n *node) misact(a decide.Action) {
	if n.w.o.Mutate == SyncSetFirst && a.Kind == decide.Renew && n.pg.writable() && !a.Leader.Sync.Equal(n.memory.Reign.Sync.Recorded) {
		n.pg.setSync(a.Leader.Sync)
	}
}

// spare leaves out the actions that a mutation does not carry out.
func (n *node) spare(a decide.Action) bool {
	return n.w.o.Mutate == ReleaseEarly && (a.Kind == decide.StopNow || a.Kind == decide.StopFast)
}
