package sim

import (
	"slices"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// removeFirst removes the data directory before its clone is made, where the decision allows it, the source has just answered and the lock
// is as it was. It reports whether that is done.
func (n *node) removeFirst(a decide.Action, up *node, answers bool) bool {
	if n.w.o.Mutate != CopyGoesUnasked && !(a.RemoveFirst && answers && !up.frozen && !up.stalled && !n.stalled && n.w.connected(n.name, up.name) && n.stillServes(a)) {
		return false
	}
	n.w.ledger.removes(n, up)
	n.w.tell("%s: removes its own copy, to be cloned from %s", n.name, up.name)
	p := n.pg
	p.valid, p.half, p.removed, p.wal, p.history = false, false, true, nil, nil
	return true
}

// stillServes is what the sidecar asks Consul last.
func (n *node) stillServes(a decide.Action) bool {
	v := n.w.consul.read()
	return n.w.connected(n.name, consulName) && v.Held() && v.Leader.Member == a.Holder.Member && v.Leader.Epoch == a.At.Leader.Epoch &&
		v.Leader.Phase == schema.PhaseServing && !slices.Contains(v.Leader.Sync.Standbys, n.name)
}

// removes is called before a copy is removed for want of room: the newest primary must have what the cluster holds, and no
// commit may count on that copy.
func (l *ledger) removes(n, up *node) {
	l.removed++
	if n.pg.running() {
		l.w.violate("I5", "%s removes its data while postgres runs", n.name)
	}
	l.cloned(n, up)
	if v := l.w.consul.read(); slices.Contains(v.Leader.Sync.Standbys, n.name) {
		l.w.violate("I7", "%s removes a copy that commits count on (%s)", n.name, v.Leader.Sync)
	}
}
