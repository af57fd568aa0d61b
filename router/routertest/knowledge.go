package routertest

import (
	"maps"
	"slices"
	"sync"

	"howdah/consul/schema"
)

// Cluster is the name of the cluster in these tests.
const Cluster = "test"

// Knowledge is what a test lets the router know. It implements router.Knowledge; what it was told
// stays fresh, as if it were said again all the time, until Freeze.
type Knowledge struct {
	now func() schema.Instant

	mu      sync.Mutex
	members map[string]schema.Peer
	state   *schema.ClusterState
	frozen  bool
	changes chan struct{}
}

// NewKnowledge returns a Knowledge that knows nothing, with times of the clock now.
func NewKnowledge(now func() schema.Instant) *Knowledge {
	return &Knowledge{now: now, members: map[string]schema.Peer{}, changes: make(chan struct{}, 1)}
}

// Peers implements router.Knowledge.
func (k *Knowledge) Peers() []schema.Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	ps := slices.Collect(maps.Values(k.members))
	for i := range ps {
		if !k.frozen {
			ps[i].HeardAt = k.now()
		}
	}
	return ps
}

// State implements router.Knowledge.
func (k *Knowledge) State() (schema.ClusterState, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == nil {
		return schema.ClusterState{}, false
	}
	return *k.state, true
}

// Changes implements router.Knowledge.
func (k *Knowledge) Changes() <-chan struct{} { return k.changes }

func (k *Knowledge) change(f func()) {
	k.mu.Lock()
	f()
	k.mu.Unlock()
	select {
	case k.changes <- struct{}{}:
	default:
	}
}

// Hear tells what a member says of itself, several at once if need be.
func (k *Knowledge) Hear(statuses ...schema.Status) {
	k.change(func() {
		for _, s := range statuses {
			s.Cluster = Cluster
			k.members[s.Name] = schema.Peer{Name: s.Name, Kind: "member", Liveness: schema.LivenessAlive, Status: s, HeardAt: k.now()}
		}
	})
}

// HearRouter tells of another router.
func (k *Knowledge) HearRouter(name string) {
	k.change(func() {
		k.members[name] = schema.Peer{Name: name, Kind: "router", Liveness: schema.LivenessAlive, Status: schema.Status{Name: name, Cluster: Cluster}, HeardAt: k.now()}
	})
}

// Liveness changes what gossip thinks of a member.
func (k *Knowledge) Liveness(name string, l schema.Liveness) {
	k.change(func() {
		p := k.members[name]
		p.Liveness = l
		k.members[name] = p
	})
}

// Answer tells what Consul says.
func (k *Knowledge) Answer(s schema.ClusterState) { k.change(func() { k.state = &s }) }

// Freeze lets what was told grow old.
func (k *Knowledge) Freeze() { k.change(func() { k.frozen = true }) }

// Primary returns the status of a serving primary.
func Primary(name, address string, epoch schema.Epoch) schema.Status {
	return schema.Status{Name: name, Role: schema.RolePrimary, State: schema.StateRunning, Epoch: epoch, Timeline: schema.Timeline(epoch), LSN: 1000, Addresses: schema.Addresses{Postgres: address}}
}

// Standby returns the status of a streaming standby that lacks nothing.
func Standby(name, address string, epoch schema.Epoch) schema.Status {
	s := Primary(name, address, epoch)
	s.Role, s.State, s.ReplayLSN = schema.RoleStandby, schema.StateStreaming, s.LSN
	return s
}
