package detector

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"howdah/consul/schema"
)

// conflictAfter is how long a process of the same name must have been superseded, or this one have been
// running, before a word of the other one shows that both live: longer than any packet is under way.
const conflictAfter = 2 * time.Second

// sayingSoNow is how old a relayed status may be to show that its sender lives.
const sayingSoNow = time.Second

// peer is what is known of one other process.
type peer struct {
	name, kind string
	// node is memberlist's; inGossip says whether it was ever heard of there, gone that it is dead or left.
	node           memberlist.Node
	inGossip, gone bool
	leaving        bool
	// goneAt is when memberlist called it dead.
	goneAt schema.Instant
	// directAt is when it was last heard without go-between, or when it joined.
	directAt schema.Instant
	// shown is the liveness as of the last tick or event, shownAt since when.
	shown   schema.Liveness
	shownAt schema.Instant
	// status is the newest; heard says that there is one.
	status held
	heard  bool
	// generationAt is when its present generation was first heard of.
	generationAt schema.Instant
}

// transition is a change of a peer's liveness.
type transition struct {
	name, kind string
	from, to   schema.Liveness
	silence    time.Duration
}

// table is what is known of all other processes. It reads no clock and takes no lock.
type table struct {
	self, cluster string
	timing        Timing
	peers         map[string]*peer
	// wokeAt is when it was used last; graceUntil is set if that was too long ago.
	wokeAt, graceUntil schema.Instant
	transitions        []transition
}

func newTable(self, cluster string, timing Timing) *table {
	return &table{self: self, cluster: cluster, timing: timing, peers: map[string]*peer{}}
}

// tickInterval is how often tick must be called.
func (t *table) tickInterval() time.Duration { return t.timing.SuspectAfter / 5 }

// wake notices that this process itself has slept: then the silence of the others is not
// theirs, and what memberlist's timers said on waking is not believed for as long as a refutation takes.
func (t *table) wake(now schema.Instant) {
	if t.wokeAt != schema.Never && now.Sub(t.wokeAt) > t.timing.SuspectAfter {
		t.graceUntil = now.Add(t.grace())
		for _, p := range t.peers {
			p.directAt = now
		}
	}
	t.wokeAt = now
}

// grace is how long a death is held back that was reported round about a pause of this process.
func (t *table) grace() time.Duration { return 2*t.timing.ProbeInterval + t.timing.SuspectAfter }

func (t *table) get(name string) *peer {
	p := t.peers[name]
	if p == nil {
		p = &peer{name: name, shown: schema.LivenessUnknown}
		t.peers[name] = p
	}
	return p
}

// event takes in what memberlist says about a node.
func (t *table) event(ev nodeEvent, now schema.Instant) error {
	m, err := decodeMeta(ev.node.Meta)
	if err != nil {
		return err
	}
	p := t.get(ev.node.Name)
	if !p.inGossip || p.gone && !ev.gone {
		p.directAt = now
	}
	if ev.gone && !p.gone {
		p.goneAt = now
	}
	p.node, p.kind, p.inGossip, p.gone, p.leaving = ev.node, m.Kind, true, ev.gone, m.Leaving
	// Until a status of this generation is heard, the metadata stands for one.
	if !p.heard || m.Generation > p.status.Generation || m.Generation == p.status.Generation && p.status.Number == 0 {
		t.replace(p, held{Generation: m.Generation, HeardAt: now, Status: schema.Status{
			Name: p.name, Cluster: m.Cluster, Instance: m.Instance, Addresses: m.Addresses,
			Role: m.Role, Epoch: m.Epoch, State: schema.StateUnknown,
		}}, now)
	}
	t.show(p, now)
	return nil
}

func (t *table) replace(p *peer, h held, now schema.Instant) {
	if !p.heard || h.Generation != p.status.Generation {
		p.generationAt = now
	}
	p.status, p.heard = h, true
}

// direct takes in a status that its own process has sent. taken is false if it is not newer than
// the one held; conflict is true if it shows that two processes live under that name.
func (t *table) direct(h held, now schema.Instant) (taken, conflict bool) {
	p := t.get(h.Status.Name)
	if p.heard && h.Generation < p.status.Generation {
		return false, t.hello(p.name, h.Generation, now)
	}
	p.directAt = now
	if p.heard && !h.newer(p.status) {
		t.show(p, now)
		return false, false
	}
	h.HeardAt = now
	t.replace(p, h, now)
	t.show(p, now)
	return true, false
}

// hello takes in that a process has sent something. conflict is true if it should no longer live, because
// another of its name has started after it.
func (t *table) hello(name string, generation uint64, now schema.Instant) (conflict bool) {
	p := t.peers[name]
	if p == nil {
		return false
	}
	if p.heard && generation < p.status.Generation {
		return now.Sub(p.generationAt) > conflictAfter
	}
	p.directAt = now
	t.show(p, now)
	return false
}

// relayed takes in a status that another process has passed on: no sign of life, but its age is known.
func (t *table) relayed(h held, now schema.Instant) (taken bool) {
	// What everybody has forgotten must not come back by somebody who forgets a moment later.
	if h.Age.D() > t.timing.ForgetAfter {
		return false
	}
	p := t.get(h.Status.Name)
	if p.heard && !h.newer(p.status) {
		return false
	}
	if p.kind == "" {
		p.kind = h.Kind
	}
	// An instant before this machine booted is no instant.
	h.HeardAt = max(now.Add(-h.Age.D()), 1)
	t.replace(p, h, now)
	return true
}

// tick shows who has fallen silent, and forgets who has been gone for long.
func (t *table) tick(now schema.Instant) {
	for name, p := range t.peers {
		t.show(p, now)
		switch p.shown {
		case schema.LivenessDead, schema.LivenessLeft:
			if now.Sub(p.shownAt) > t.timing.ForgetAfter {
				delete(t.peers, name)
			}
		case schema.LivenessUnknown:
			if now.Sub(p.generationAt) > t.timing.ForgetAfter {
				delete(t.peers, name)
			}
		}
	}
}

func (t *table) liveness(p *peer, now schema.Instant) schema.Liveness {
	switch {
	case !p.inGossip:
		return schema.LivenessUnknown
	case p.leaving:
		return schema.LivenessLeft
	case p.gone && now < t.graceUntil && now.Sub(p.goneAt) < t.grace():
		// Once for each death: a process that pauses again and again believes it all the same.
		return schema.LivenessSuspect
	case p.gone:
		return schema.LivenessDead
	case now.Sub(p.directAt) > t.timing.SuspectAfter:
		return schema.LivenessSuspect
	}
	return schema.LivenessAlive
}

func (t *table) show(p *peer, now schema.Instant) {
	l := t.liveness(p, now)
	if l == p.shown {
		return
	}
	t.transitions = append(t.transitions, transition{p.name, p.kind, p.shown, l, now.Sub(p.directAt)})
	p.shown, p.shownAt = l, now
}

// takeTransitions returns the changes of liveness since the last call.
func (t *table) takeTransitions() []transition {
	tr := t.transitions
	t.transitions = nil
	return tr
}

// snapshot returns all peers, sorted by name.
func (t *table) snapshot() []schema.Peer {
	peers := make([]schema.Peer, 0, len(t.peers))
	for _, name := range slices.Sorted(maps.Keys(t.peers)) {
		p := t.peers[name]
		peers = append(peers, schema.Peer{
			Name: name, Kind: p.kind, Liveness: p.shown, Status: p.status.Status, HeardAt: p.status.HeardAt,
		})
	}
	return peers
}

// targets returns the nodes to which a status is sent: those that gossip does not hold for dead.
func (t *table) targets() []memberlist.Node {
	var nodes []memberlist.Node
	for _, p := range t.peers {
		if p.inGossip && !p.gone {
			nodes = append(nodes, p.node)
		}
	}
	return nodes
}

// statuses returns what goes into a push/pull exchange. Metadata that stands for a status does not: it
// travels by itself.
func (t *table) statuses(now schema.Instant) []held {
	var out []held
	for _, name := range slices.Sorted(maps.Keys(t.peers)) {
		p := t.peers[name]
		if p.heard && p.status.Number > 0 {
			h := p.status
			h.Kind = p.kind
			h.Age = schema.Duration(max(0, now.Sub(h.HeardAt)))
			out = append(out, h)
		}
	}
	return out
}
