package router

import (
	"crypto/rand"
	"errors"
	"sync"

	"howdah/consul/schema"
	"howdah/router/console"
	"howdah/router/route"
	"howdah/router/topology"
	"howdah/router/wire"
)

// backend is one server in one reign: what a server connection belongs to.
type backend struct {
	member, address string
	role            schema.Role
	// epoch is that of a primary; zero for a standby, which may outlive several.
	epoch schema.Epoch
}

// kept reports whether t lets the sessions on b go on; if not, why.
func (b backend) kept(t *topology.Topology) (bool, string) {
	if b.role == schema.RolePrimary {
		return t.KeepsPrimary(b.member, b.epoch)
	}
	return t.KeepsStandby(b.member)
}

// registry knows every admitted client, which server each is on, and the cancel keys.
type registry struct {
	memory topology.Memory // of the goroutine that merges

	mu      sync.Mutex
	clients map[*client]struct{}
	groups  map[backend]map[*client]struct{}
	readers map[backend]map[*client]struct{} // sessions of route auto, by the standby that they read from
	members map[string]int                   // sessions on each member, in either role, and those that read from it
	leaving map[string]int                   // of members: the sessions that are about to read from another for balance
	keys    map[wire.Key]*client
	counts  counts
	// lastID is the newest client's; done is what the sessions of each database did that have ended.
	lastID uint64
	done   map[string]console.Totals
}

func newRegistry() *registry {
	return &registry{
		clients: map[*client]struct{}{}, groups: map[backend]map[*client]struct{}{}, readers: map[backend]map[*client]struct{}{},
		members: map[string]int{}, leaving: map[string]int{}, keys: map[wire.Key]*client{},
		counts: newCounts(), done: map[string]console.Totals{},
	}
}

// dismiss forgets c and its key.
func (g *registry) dismiss(c *client) {
	did, counts := c.totals()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.clients, c)
	g.uncount(c)
	if counts {
		g.addDone(did)
	}
	if c.key != "" {
		delete(g.keys, c.key)
	}
}

// choose picks the server for c and puts c on it, in one step so that sessions that start together
// spread. Standbys in failed are passed over. It returns false and the reason if there is none.
func (g *registry) choose(c *client, t *topology.Topology, fallback bool, failed map[string]bool) (backend, bool, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := backend{}, false
	why := t.Reason
	if c.follows.route == route.RO {
		b, ok = g.standby(t, failed)
		if !ok && !fallback {
			return b, false, "no standby may serve"
		}
	}
	if !ok && t.Primary != nil {
		b, ok = backend{member: t.Primary.Member, address: t.Primary.Address, role: schema.RolePrimary, epoch: t.Epoch}, true
	}
	if !ok {
		if c.follows.route == route.RO {
			why = "no standby may serve, and " + why
		}
		return b, false, why
	}
	if g.groups[b] == nil {
		g.groups[b] = map[*client]struct{}{}
	}
	g.groups[b][c] = struct{}{}
	g.members[b.member]++
	c.backend, c.placed = b, true
	return b, true, ""
}

func (g *registry) standby(t *topology.Topology, failed map[string]bool) (backend, bool) {
	var from []topology.Server
	var candidates []route.Candidate
	for _, s := range t.Standbys {
		if s.Fresh && !failed[s.Member] {
			from = append(from, s)
			candidates = append(candidates, candidate(s, g.members[s.Member]))
		}
	}
	i := route.Pick(candidates, bound(t))
	if i < 0 {
		return backend{}, false
	}
	return backend{member: from[i].Member, address: from[i].Address, role: schema.RoleStandby}, true
}

func candidate(s topology.Server, sessions int) route.Candidate {
	return route.Candidate{Member: s.Member, Sessions: sessions, LagBytes: s.LagBytes, LagTime: s.LagTime, NoLoadBalance: s.NoLoadBalance}
}

func bound(t *topology.Topology) route.Bound {
	return route.Bound{Bytes: t.MaxLagBytes, Time: t.MaxLagTime}
}

// leave takes c off the server that choose put it on, if it is there still. No cancel request of its goes there any more.
func (g *registry) leave(c *client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !c.placed {
		return
	}
	b := c.backend
	c.placed, c.serverKey = false, ""
	delete(g.groups[b], c)
	if len(g.groups[b]) == 0 {
		delete(g.groups, b)
	}
	if g.members[b.member]--; g.members[b.member] == 0 {
		delete(g.members, b.member)
	}
}

// issue makes a cancel key for c in place of the server's.
func (g *registry) issue(c *client, server wire.Key, instance uint16) (wire.Key, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range 100 {
		k, err := wire.NewKey(server, instance, rand.Reader)
		if err != nil {
			return "", err
		}
		if g.keys[k] == nil {
			delete(g.keys, c.key)
			c.key, c.serverKey = k, server
			g.keys[k] = c
			return k, nil
		}
	}
	return "", errors.New("no free cancel key")
}

// holder returns the client whose key k is; nil if it is no session's.
func (g *registry) holder(k wire.Key) *client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.keys[k]
}

// rekey has cancel requests for c go to its server under the key that this has given.
func (g *registry) rekey(c *client, server wire.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.serverKey = server
}

// borrow puts c on a standby that it is about to connect to, to read from it. If from is not nil it does so only for balance, and returns false if there is
// no need: then c counts as leaving it until left is called. The look and the step are one, so that sessions that look at the same time do not all leave.
func (g *registry) borrow(c *client, b backend, from *reader) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if from != nil {
		if !route.Lighter(g.members[b.member], g.members[from.member]-g.leaving[from.member]) {
			return false
		}
		g.leaving[from.member]++
	}
	if g.readers[b] == nil {
		g.readers[b] = map[*client]struct{}{}
	}
	g.readers[b][c] = struct{}{}
	g.members[b.member]++
	return true
}

// left ends what borrow began for balance: whoever was leaving the member counts elsewhere now, or stays.
func (g *registry) left(from *reader) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving[from.member]--; g.leaving[from.member] == 0 {
		delete(g.leaving, from.member)
	}
}

// giveBack takes c off the standby that borrow put it on.
func (g *registry) giveBack(c *client, b backend) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.readers[b], c)
	if len(g.readers[b]) == 0 {
		delete(g.readers, b)
	}
	if g.members[b.member]--; g.members[b.member] == 0 {
		delete(g.members, b.member)
	}
}

// onMember returns how many sessions a member has.
func (g *registry) onMember(member string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[member]
}

// readingFrom returns the sessions that read from a standby which t does not let them keep.
func (g *registry) readingFrom(t *topology.Topology) []*client {
	g.mu.Lock()
	defer g.mu.Unlock()
	var cs []*client
	for b, clients := range g.readers {
		if keep, _ := b.kept(t); keep {
			continue
		}
		for c := range clients {
			cs = append(cs, c)
		}
	}
	return cs
}

// targetOf returns where a cancel request for c goes; false if its server has given no key yet.
func (g *registry) targetOf(c *client) (address string, server wire.Key, found bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return c.backend.address, c.serverKey, c.serverKey != ""
}

func (g *registry) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.clients)
}

func (g *registry) all() []*client {
	g.mu.Lock()
	defer g.mu.Unlock()
	cs := make([]*client, 0, len(g.clients))
	for c := range g.clients {
		cs = append(cs, c)
	}
	return cs
}

func (g *registry) backends() []backend {
	g.mu.Lock()
	defer g.mu.Unlock()
	bs := make([]backend, 0, len(g.groups))
	for b := range g.groups {
		bs = append(bs, b)
	}
	return bs
}

func (g *registry) on(b backend) []*client {
	g.mu.Lock()
	defer g.mu.Unlock()
	cs := make([]*client, 0, len(g.groups[b]))
	for c := range g.groups[b] {
		cs = append(cs, c)
	}
	return cs
}

// byMember returns how many sessions each member has.
func (g *registry) byMember() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := make(map[string]int, len(g.members))
	for k, v := range g.members {
		m[k] = v
	}
	return m
}
