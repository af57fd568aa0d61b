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

// spare leaves out the actions that a mutation does not carry out.
func (n *node) spare(a decide.Action) bool {
	return n.w.o.Mutate == ReleaseEarly && (a.Kind == decide.StopNow || a.Kind == decide.StopFast)
}
