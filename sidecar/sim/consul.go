package sim

import (
	"maps"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// consul models the keys of one cluster and the sessions. The conformance suite of package consul
// says what it must do: conditions on the index, release on expiry, transactions whole or not at all.
type consul struct {
	w        *World
	up       bool
	index    uint64
	sessions map[string]*session
	made     int

	leader     schema.LockView
	initialize schema.Doc[schema.Initialize]
	history    schema.Doc[schema.History]
	request    schema.Doc[schema.Request]
	config     schema.Doc[schema.ClusterConfig]
	members    []schema.Doc[schema.Member]

	backup *backup
}

// backup is what a snapshot of Consul holds of this cluster.
type backup struct {
	sessions   map[string]*session
	leader     schema.LockView
	initialize schema.Doc[schema.Initialize]
	history    schema.Doc[schema.History]
	config     schema.Doc[schema.ClusterConfig]
	members    []schema.Doc[schema.Member]
}

// snapshot makes a backup, for restore.
func (c *consul) snapshot() {
	c.backup = &backup{maps.Clone(c.sessions), c.leader, c.initialize, c.history, c.config, slices.Clone(c.members)}
}

// wipe is the loss of everything that Consul held.
func (c *consul) wipe() {
	c.put(backup{sessions: map[string]*session{}})
}

// restore brings the backup back, if there is one: an old truth with its old indexes.
func (c *consul) restore() {
	if c.backup != nil {
		c.put(*c.backup)
	}
}

func (c *consul) put(b backup) {
	c.sessions, c.leader, c.initialize, c.history, c.config, c.members = maps.Clone(b.sessions), b.leader, b.initialize, b.history, b.config, slices.Clone(b.members)
	c.request = schema.Doc[schema.Request]{}
	for _, id := range slices.Sorted(maps.Keys(c.sessions)) {
		c.touch(c.sessions[id])
	}
	c.change()
}

// reconfigure changes the cluster's configuration: "lease=5s", "sync=strict", or something that members pass on to Postgres.
func (c *consul) reconfigure(change string) {
	if !c.up {
		return
	}
	config := c.configured()
	key, value, _ := strings.Cut(change, "=")
	switch key {
	case "lease":
		if d, err := time.ParseDuration(value); err == nil {
			config.Lease = schema.Duration(d)
		}
	case "sync":
		config.SynchronousMode = value
	}
	c.config.Index = c.change()
}

// configured is the configuration to be changed; where Consul has lost it, it is as it was in the beginning, as the primary's upkeep writes it.
func (c *consul) configured() *schema.ClusterConfig {
	if !c.config.Exists {
		c.config.Value, c.config.Exists = c.w.config(), true
	}
	return &c.config.Value
}

type session struct {
	id  string
	ttl time.Duration
	gen int // grows with each renewal; an expiry of an older one is void
}

func newConsul(w *World) *consul {
	return &consul{w: w, up: true, index: 10, sessions: map[string]*session{}, config: schema.Doc[schema.ClusterConfig]{Exists: true, Index: 9, Value: w.config()}}
}

// verdicts of a request that was answered.
type answer int

const (
	done answer = iota
	refused
)

// change moves the index on and lets watchers know.
func (c *consul) change() uint64 {
	c.index++
	c.w.after(0, func() { // once what is being changed is changed
		for _, n := range c.w.nodes {
			n.pushState()
		}
		for _, r := range c.w.routers {
			r.pushState()
		}
	})
	return c.index
}

func (c *consul) open(ttl time.Duration) string {
	c.made++
	s := &session{id: "s" + string(rune('0'+c.made/100)) + string(rune('0'+c.made/10%10)) + string(rune('0'+c.made%10)), ttl: ttl}
	c.sessions[s.id] = s
	c.touch(s)
	return s.id
}

// touch begins the TTL anew. Consul expires a session some time between its TTL and twice that.
func (c *consul) touch(s *session) {
	s.gen++
	gen := s.gen
	c.w.after(s.ttl+c.w.between(0, s.ttl), func() { c.expire(s, gen) })
}

func (c *consul) expire(s *session, gen int) {
	if c.sessions[s.id] != s || s.gen != gen {
		return
	}
	if !c.up { // the next leader gives every session its TTL anew
		c.touch(s)
		return
	}
	delete(c.sessions, s.id)
	if c.leader.Session == s.id {
		c.w.tell("consul: session %s of %s expired", s.id, c.leader.Leader.Member)
		c.leader.Session = ""
		c.leader.Index = c.change()
	}
}

// read is a consistent read of the leader key.
func (c *consul) read() schema.LockView {
	v := c.leader
	v.Known = true
	return v
}

// seize is Acquire or TakeOver: both are one transaction on the condition that the key is as in at.
func (c *consul) seize(at schema.LockView, l schema.Leader) (schema.LockView, answer) {
	if c.leader.Index != at.Index || c.leader.Exists != at.Exists || c.leader.Session != at.Session {
		return schema.LockView{}, refused
	}
	return c.lock(l)
}

// renew is [check-index][lock by the same session].
func (c *consul) renew(at schema.LockView, l schema.Leader) (schema.LockView, answer) {
	if c.leader.Index != at.Index || c.leader.Session != l.Session {
		return schema.LockView{}, refused
	}
	return c.lock(l)
}

func (c *consul) lock(l schema.Leader) (schema.LockView, answer) {
	if c.sessions[l.Session] == nil {
		return schema.LockView{}, refused
	}
	if l.Epoch < c.leader.Leader.Epoch || l.Epoch == 0 {
		c.w.violate("I3", "%s writes epoch %d over epoch %d", l.Member, l.Epoch, c.leader.Leader.Epoch)
	}
	c.leader = schema.LockView{Known: true, Exists: true, Session: l.Session, Leader: l}
	c.leader.Index = c.change()
	return c.leader, done
}

// release is [check-index][unlock with a new value].
func (c *consul) release(at schema.LockView, l schema.Leader) (schema.LockView, answer) {
	if c.leader.Index != at.Index || c.leader.Session != l.Session {
		return schema.LockView{}, refused
	}
	c.leader = schema.LockView{Known: true, Exists: true, Leader: l}
	c.leader.Index = c.change()
	return c.leader, done
}

// putDoc is a check-and-set of d.
func putDoc[T any](c *consul, d *schema.Doc[T], v T, index uint64) answer {
	if d.Index != index {
		return refused
	}
	*d = schema.Doc[T]{Exists: true, Value: v}
	d.Index = c.change()
	return done
}

func (c *consul) putMember(m schema.Member) {
	i := slices.IndexFunc(c.members, func(d schema.Doc[schema.Member]) bool { return d.Value.Name == m.Name })
	if i < 0 {
		c.members = append(c.members, schema.Doc[schema.Member]{})
		i = len(c.members) - 1
	}
	c.members[i] = schema.Doc[schema.Member]{Exists: true, Value: m, Index: c.change()}
}

// state is one answer of the watch.
func (c *consul) state() schema.ClusterState {
	return schema.ClusterState{
		Index: c.index, Leader: c.read(), Initialize: c.initialize, History: c.history, Request: c.request, Config: c.config, Members: slices.Clone(c.members),
	}
}
