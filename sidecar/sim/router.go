package sim

import (
	"time"

	"howdah/consul/schema"
	"howdah/router/topology"
)

// router is one router: the real topology.Merge over what reaches it, and clients that write and read through it.
type router struct {
	w     *World
	name  string
	clock clock

	peers map[string]schema.Peer
	state schema.ClusterState
	seen  bool
	mem   topology.Memory
	now   topology.Topology
	// newest is the newest epoch that anything which reached it has named (I3, I6).
	newest schema.Epoch
}

func newRouter(w *World, name string) *router {
	r := &router{w: w, name: name, peers: map[string]schema.Peer{}}
	r.clock = clock{w: w, offset: schema.Instant(w.between(time.Hour, 100*time.Hour)), rate: 0.98 + 0.04*w.rng.Float64()}
	var again func()
	again = func() {
		r.merge()
		r.serve()
		w.after(r.clock.local(tick), again)
	}
	w.after(w.between(0, tick), again)
	return r
}

// hear takes in what a member says of itself.
func (r *router) hear(st schema.Status) {
	if st.Seq <= r.peers[st.Name].Status.Seq {
		return // overtaken on the way, as the detector sees it
	}
	if st.Role == schema.RolePrimary {
		r.newest = max(r.newest, st.Epoch)
	}
	r.peers[st.Name] = schema.Peer{Name: st.Name, Kind: "member", Liveness: schema.LivenessAlive, Status: st, HeardAt: r.clock.now()}
}

// pushState is a blocking query that returns.
func (r *router) pushState() {
	if !r.w.consul.up {
		return
	}
	st := r.w.consul.state()
	asked := r.clock.now()
	r.w.send(consulName, r.name, func() {
		if r.seen && st.Index < r.state.Index {
			return
		}
		st.AskedAt, st.AnsweredAt = asked, r.clock.now()
		st.Leader.AskedAt = asked
		r.state, r.seen = st, true
		if p := st.Leader.Leader.Phase; p == schema.PhaseServing {
			r.newest = max(r.newest, st.Leader.Leader.Epoch)
		}
	})
}

// merge makes the picture anew.
func (r *router) merge() {
	var peers []schema.Peer
	for _, n := range r.w.nodes {
		if p, heard := r.peers[n.name]; heard {
			if r.clock.now().Sub(p.HeardAt) > 1500*time.Millisecond {
				if r.w.o.Mutate == RouterForgets {
					continue // and what it told too
				}
				p.Liveness = schema.LivenessDead
			}
			peers = append(peers, p)
		}
	}
	mem := r.mem
	if r.w.o.Mutate == RouterForgets {
		mem = topology.Memory{}
	}
	before := r.mem.Epoch
	r.now, r.mem = topology.Merge(topology.Input{Now: r.clock.now(), Cluster: "c", Peers: peers, State: r.state, HasState: r.seen}, mem)
	if r.mem.Epoch < before && r.w.o.Mutate != RouterForgets {
		r.w.violate("I3", "%s went from epoch %d back to %d", r.name, before, r.mem.Epoch)
	}
}

// serve is a client that writes, and reads what is there.
func (r *router) serve() {
	p := r.now.Primary
	if p == nil {
		return
	}
	if r.now.Epoch < r.newest {
		r.w.violate("I6", "%s sends to %s of epoch %d and has heard of epoch %d", r.name, p.Member, r.now.Epoch, r.newest)
	}
	n := r.w.node(p.Member)
	id := r.w.ledger.nextID()
	r.w.send(r.name, n.name, func() {
		n.host(func() {
			n.pg.write(id, func() { r.w.ledger.acked[id] = true })
			r.w.ledger.read(n.pg)
		})
	})
}
