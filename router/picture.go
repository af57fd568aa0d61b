package router

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/topology"
)

// picture is the newest topology, and a way to wait for another one.
type picture struct {
	now     atomic.Pointer[topology.Topology]
	mu      sync.Mutex
	changed chan struct{} // closed at the next change that matters to somebody waiting
}

func (p *picture) init() {
	p.now.Store(&topology.Topology{Reason: "the router has not heard of the cluster yet"})
	p.changed = make(chan struct{})
}

// next returns a channel that is closed when the picture changes. Take it before looking.
func (p *picture) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *picture) set(t *topology.Topology) {
	old := p.now.Swap(t)
	if sameOffer(old, t) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// sameOffer reports whether a session that waits would find the same servers in both.
func sameOffer(a, b *topology.Topology) bool {
	if a.Epoch != b.Epoch || (a.Primary == nil) != (b.Primary == nil) {
		return false
	}
	if a.Primary != nil && (a.Primary.Member != b.Primary.Member || a.Primary.Address != b.Primary.Address) {
		return false
	}
	return slices.EqualFunc(a.Standbys, b.Standbys, func(x, y topology.Server) bool {
		return x.Member == y.Member && x.Address == y.Address && x.Fresh == y.Fresh && fits(a, x) == fits(b, y)
	})
}

// fits reports whether new sessions may go to the standby s.
func fits(t *topology.Topology, s topology.Server) bool {
	return s.Fresh && bound(t).Allows(candidate(s, 0))
}

// relearn is how often the picture is made anew without news: it also grows old by itself.
const relearn = 200 * time.Millisecond

// learn keeps the picture up to date until ctx ends. It is the only goroutine that merges.
func (r *Router) learn(ctx context.Context) {
	tick := time.NewTicker(relearn)
	defer tick.Stop()
	changes := r.knowledge.Changes()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-changes:
			if !open {
				changes = nil
			}
		case <-tick.C:
		}
		r.learnOnce()
	}
}

// learnOnce merges what is known now and ends the sessions that may not go on. The picture is set
// first: a session that registers later looks at it again, so none slips between the two.
func (r *Router) learnOnce() {
	state, ok := r.knowledge.State()
	peers := r.knowledge.Peers()
	r.forwards.learn(peers, r.o.Cluster, r.o.Name)
	t, mem := topology.Merge(topology.Input{
		Now: r.now(), Cluster: r.o.Cluster, Peers: peers, State: state, HasState: ok,
	}, r.sessions.memory)
	r.sessions.memory = mem
	before := r.picture.now.Load()
	letGo := r.stops.learn(&t, r.now(), r.live().FailoverWait, r.log)
	r.picture.set(&t)
	servers := askable(&t)
	r.own.Set(servers)
	r.reads.Set(servers)
	r.sweep(&t)
	letGo()
	r.note(before, &t)
}

// askable are the servers of t that the router may ask things itself.
func askable(t *topology.Topology) []own.Server {
	var servers []own.Server
	if p := t.Primary; p != nil {
		servers = append(servers, own.Server{Member: p.Member, Address: p.Address, Epoch: t.Epoch})
	}
	for _, s := range t.Standbys {
		servers = append(servers, own.Server{Member: s.Member, Address: s.Address})
	}
	return servers
}

// sweep ends the sessions of every server that may not keep them.
func (r *Router) sweep(t *topology.Topology) {
	for _, c := range r.sessions.readingFrom(t) {
		c.standbyMoved()
	}
	for _, b := range r.sessions.backends() {
		keep, why := b.kept(t)
		if keep {
			continue
		}
		clients := r.sessions.on(b)
		if len(clients) == 0 {
			continue
		}
		r.log.Info("sessions lose their server", zap.Int("sessions", len(clients)), zap.String("member", b.member),
			zap.Uint64("epoch", uint64(b.epoch)), zap.String("reason", why))
		r.metrics.rerouted(len(clients))
		for _, c := range clients {
			c.moved(why)
		}
	}
}

// note records what a change means to clients, and logs it.
func (r *Router) note(before, after *topology.Topology) {
	had, has := before.Primary, after.Primary
	if had != nil && (has == nil || has.Epoch != had.Epoch || has.Member != had.Member) {
		why := after.Reason
		if why == "" {
			why = has.Member + " has taken over"
		}
		r.record(schema.EventLost, had.Epoch, "the primary "+had.Member+" is lost to new sessions: "+why)
	}
	if has != nil && (had == nil || has.Epoch != had.Epoch || has.Member != had.Member) {
		r.record(schema.EventRerouted, has.Epoch, "new sessions go to "+has.Member+" at "+has.Address)
	}
	if has == nil && had == nil && before.Reason != after.Reason && before.Phase != after.Phase {
		r.log.Info("no primary", zap.String("reason", after.Reason))
	}
}
