package sim

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// ledger sees everything, and checks the invariants as things happen.
type ledger struct {
	removed int // copies that went before their clone
	w       *World
	ids     uint64
	acked   map[uint64]bool
	newest  schema.Epoch // of the newest reign in which writes were possible
	by      string
	inits   int
	reigns  int
	// forced is the epoch of the newest takeover that an operator forced: what it lacks was given up knowingly.
	forced schema.Epoch
	clones []*copying
	readAt moment
	unseen map[uint64]string // acknowledged commits that a later read did not show
}

func (l *ledger) nextID() uint64 {
	l.ids++
	return l.ids
}

// accepted is called before a server takes a write.
func (l *ledger) accepted(p *postgres, id uint64) {
	now := p.n.clock.now()
	switch {
	case !p.armed:
		l.w.violate("I2", "%s accepts a write without a lease", p.n.name)
	case now >= p.deadline.Add(fenceGrace):
		l.w.violate("I2", "%s accepts a write %s after its deadline", p.n.name, now.Sub(p.deadline))
	case p.epoch < l.newest:
		l.w.violate("I1", "%s accepts a write in epoch %d, after epoch %d began on %s", p.n.name, p.epoch, l.newest, l.by)
	}
}

// read is a client's read at a server that takes writes. It must show every commit acknowledged before it, unless the commit does not
// last: that is found out at the end. In synchronous mode strict what was shown must last as an acknowledged commit does.
func (l *ledger) read(p *postgres) {
	if !p.writable() || p.closed {
		return
	}
	visible := len(p.wal)
	if len(p.waiting) > 0 {
		visible = p.waiting[0].at - 1
	}
	if l.w.o.Sync == schema.SyncStrict {
		for _, e := range p.wal[min(p.shown, visible):visible] {
			l.acked[e.id] = true
		}
		p.shown = max(p.shown, visible)
	}
	if l.w.now-l.readAt < moment(2*time.Second) {
		return
	}
	l.readAt = l.w.now
	have := make(map[uint64]bool, visible)
	for _, e := range p.wal[:visible] {
		have[e.id] = true
	}
	for id := range l.acked {
		if !have[id] {
			l.unseen[id] = fmt.Sprintf("a read at %s in epoch %d, %.3fs, does not show a commit that was acknowledged before it and lasts", p.n.name, p.epoch, time.Duration(l.w.now).Seconds())
		}
	}
}

// promoted is called when a server begins to accept writes.
func (l *ledger) promoted(p *postgres) {
	for _, other := range l.w.nodes {
		if other.pg != p && other.pg.writable() && !other.frozen {
			l.w.violate("I1", "%s accepts writes in epoch %d while %s still does in epoch %d", p.n.name, p.epoch, other.name, other.pg.epoch)
		}
	}
	if p.epoch < l.newest || p.epoch == l.newest && l.by != p.n.name {
		l.w.violate("I3", "%s begins to reign in epoch %d after epoch %d of %s", p.n.name, p.epoch, l.newest, l.by)
	}
	if p.epoch > l.newest {
		l.reigns++
	}
	if p.epoch == l.forced {
		l.giveUp(p)
	}
	if n := l.missing(p); n > 0 && l.w.o.Sync == schema.SyncStrict {
		l.w.violate("I4", "%s is promoted in epoch %d and lacks %d acknowledged commits", p.n.name, p.epoch, n)
	}
	l.newest, l.by = p.epoch, p.n.name
	l.w.tell("%s: accepts writes in epoch %d on timeline %d", p.n.name, p.epoch, p.timeline)
}

// mayPromote is called when a sidecar orders a promotion.
func (l *ledger) mayPromote(n *node, e schema.Epoch) {
	if n.memory.Reign.Active && n.memory.Reign.Epoch == e && n.clock.now() < n.memory.PromisedUntil {
		l.w.violate("I1", "%s promotes in epoch %d although it promised not to", n.name, e)
	}
}

// destroys is called before an action that replaces data or lets the lock go is carried out (I5).
func (l *ledger) destroys(n *node, a decide.Action) {
	switch a.Kind {
	case decide.Initdb, decide.Clone, decide.Rewind, decide.Release:
		if n.pg.running() {
			l.w.violate("I5", "%s: %s while postgres runs", n.name, a)
		}
	}
}

// initialized is called at the end of an initdb.
func (l *ledger) initialized(n *node) {
	if l.inits++; l.inits > 1 {
		l.w.violate("I7", "%s runs the cluster's second initdb", n.name)
	}
	if n.pg.valid {
		l.w.violate("I7", "%s runs initdb over data", n.name)
	}
}

// copying is a clone that runs.
type copying struct {
	n, from *node
	gen     int // of the sidecar that ordered it
	since   moment
}

// heardBy is how long the first word of a clone that runs takes to reach the others.
const heardBy = moment(20 * time.Millisecond)

// cloning is called when a clone begins; what it returns, when it ends. Members of one source take turns wherever they
// have heard of each other.
func (l *ledger) cloning(n, from *node) (done func()) {
	calm := l.w.disturbed == 0 || l.w.now-l.w.disturbed > moment(5*time.Second)
	for _, c := range l.clones {
		if c.from == from && c.gen == c.n.gen && l.w.now-c.since > heardBy && calm {
			l.w.violate("storm", "%s begins to clone from %s while %s has been at it for %s", n.name, from.name, c.n.name, time.Duration(l.w.now-c.since))
		}
	}
	own := &copying{n, from, n.gen, l.w.now}
	l.clones = append(l.clones, own)
	return func() { l.clones = slices.DeleteFunc(l.clones, func(c *copying) bool { return c == own }) }
}

// cloned is called before a data directory is replaced by a copy of up's.
func (l *ledger) cloned(n, up *node) {
	if n.pg.valid && n.pg.systemID != up.pg.systemID {
		l.w.violate("I7", "%s replaces the data of another cluster", n.name)
	}
	source := up.pg
	if source.standby { // then it must have nothing that its primary lacks, which may have stopped since the copying began
		if h := l.w.node(l.by); h != nil && canFollow(source.timeline, len(source.wal), h.pg) {
			return
		}
	}
	if !source.writable() || source.epoch < l.newest {
		l.w.violate("I7", "%s replaces its data by those of %s, which is not the newest primary", n.name, up.name)
	}
}

// giveUp forgets the acknowledged writes that p does not have.
func (l *ledger) giveUp(p *postgres) {
	have := make(map[uint64]bool, len(p.wal))
	for _, e := range p.wal {
		have[e.id] = true
	}
	for id := range l.acked {
		if !have[id] {
			delete(l.acked, id)
		}
	}
}

// missing counts the acknowledged writes that the primary does not have.
func (l *ledger) missing(p *postgres) int {
	have := make(map[uint64]bool, len(p.wal))
	for _, e := range p.wal {
		have[e.id] = true
	}
	n := 0
	for id := range l.acked {
		if !have[id] {
			n++
		}
	}
	return n
}

// staleReads checks the reads against what the last primary has. Where an operator has forced a failover, what was lost by one may come back by
// the next.
func (l *ledger) staleReads(p *postgres) {
	if slices.ContainsFunc(l.w.struck, func(s struck) bool { return s.b.Kind == ForcedFailover }) {
		return
	}
	for _, e := range p.wal {
		if why, stale := l.unseen[e.id]; stale {
			l.w.violate("stale read", "%s", why)
			return
		}
	}
}

// whole checks that the cluster has become whole: one primary with the lock, everybody else streaming all of it.
func (l *ledger) whole() *postgres {
	var primary *postgres
	for _, n := range l.w.nodes {
		if n.pg.writable() {
			if primary != nil {
				l.w.violate("liveness", "two primaries at the end")
			}
			primary = n.pg
		}
	}
	if primary == nil {
		for _, n := range l.w.nodes {
			l.w.tell("%s: %s: %s (%s)", n.name, n.plan.State, n.plan.Reason, n.pg.state)
		}
		l.w.violate("liveness", "no primary at the end")
		return nil
	}
	if v := l.w.consul.leader; v.Leader.Member != primary.n.name || v.Leader.Phase != schema.PhaseServing {
		l.w.violate("liveness", "%s is the primary, and the record names %s (%s)", primary.n.name, v.Leader.Member, v.Leader.Phase)
	}
	for _, n := range l.w.nodes {
		p := n.pg
		if p.config != l.w.consul.config.Index {
			l.w.violate("liveness", "%s has not read the newest configuration at the end: %s: %s", n.name, n.plan.State, n.plan.Reason)
		}
		if p == primary {
			continue
		}
		if !p.streaming || p.upstream != primary.n.name || len(p.wal) < len(primary.wal)-50 || p.state != decide.ProcessRunning {
			l.w.tell("%s: %s: %s (%s)", n.name, n.plan.State, n.plan.Reason, p.state)
			l.w.violate("liveness", "%s does not stream from %s at the end: %s: %s", n.name, primary.n.name, n.plan.State, n.plan.Reason)
		}
	}
	return primary
}
