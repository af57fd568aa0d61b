package sim

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// node is one host: a sidecar, and a launcher with its Postgres.
type node struct {
	w     *World
	name  string
	clock clock
	pg    *postgres
	tags  schema.Tags

	// frozen stands the whole host still; what happens to it meanwhile happens on the thaw.
	frozen bool
	onThaw []func()
	// silent: the launcher does not answer; dull: what the observers see comes late.
	silent, dull bool

	// stalled is a disk that takes no writes; who writes waits, and does not die before it goes on.
	stalled  bool
	onResume []func()

	// The sidecar.
	up      bool
	hung    bool // the sidecar alone is frozen
	onWake  []func()
	gen     int
	obs     decide.Observation
	memory  decide.Memory
	plan    decide.Plan
	saved   decide.Record
	saving  decide.Record
	wroteAt schema.Instant // when the disk last took the sidecar's try
	peers   map[string]schema.Peer
	said    schema.Status
	saidAt  schema.Instant
	polled  moment // when Consul last answered the watch
	version uint64 // index of the newest state seen
}

const tick = 50 * time.Millisecond

func newNode(w *World, name string) *node {
	n := &node{w: w, name: name}
	n.clock = clock{w: w, offset: schema.Instant(w.between(time.Hour, 100*time.Hour)), rate: 0.98 + 0.04*w.rng.Float64()}
	n.pg = &postgres{n: n, state: decide.ProcessStopped}
	n.saved = decide.Record{Cluster: "c", Name: name}
	n.tags.CloneFrom = w.chance(0.3)
	w.after(w.between(0, time.Second), func() {
		if !w.o.Late || name != fmt.Sprintf("pg%d", w.o.Members) {
			n.boot()
		}
	})
	var receive func()
	receive = func() {
		n.host(n.pg.connect)
		w.after(w.between(150*time.Millisecond, 250*time.Millisecond), receive)
	}
	w.after(0, receive)
	return n
}

// host runs f on the host: now, or on its thaw.
func (n *node) host(f func()) {
	if n.frozen {
		n.onThaw = append(n.onThaw, f)
		return
	}
	f()
}

// sidecar runs f in the sidecar that is there now: now, when it wakes, or never if it has died by then.
func (n *node) sidecar(f func()) {
	gen := n.gen
	n.host(func() {
		switch {
		case n.gen != gen || !n.up:
		case n.hung:
			n.onWake = append(n.onWake, func() {
				if n.gen == gen && n.up {
					f()
				}
			})
		default:
			f()
		}
	})
}

// boot starts the sidecar with what its record says.
func (n *node) boot() {
	if n.up {
		return
	}
	n.up = true
	n.gen++
	n.memory = decide.Memory{Record: n.saved}
	n.saving, n.wroteAt = n.saved, schema.Never
	n.peers = map[string]schema.Peer{}
	n.polled, n.version = 0, 0
	addr := schema.Addresses{Postgres: n.name + ":5432"}
	n.obs = decide.Observation{
		Name: n.name, Addresses: addr, Config: n.w.config(), Tags: n.tags, Session: n.saved.Session,
		RemoveFirst: n.w.o.NoRoom,
		Data:        decide.Data{State: decide.DataUnknown}, Process: decide.Process{State: decide.ProcessUnknown}, SQL: decide.SQL{State: decide.SQLUnknown},
	}
	n.inspect()
	n.every(tick, n.turn)
	n.every(200*time.Millisecond, n.poll)
	n.w.tell("%s: sidecar starts", n.name)
}

// every runs f in this sidecar again and again.
func (n *node) every(d time.Duration, f func()) {
	var again func()
	again = func() {
		f()
		n.w.after(n.clock.local(d)+n.w.between(0, time.Millisecond), func() { n.sidecar(again) })
	}
	n.w.after(n.w.between(0, d), func() { n.sidecar(again) })
}

// crash ends the sidecar; only its record is left.
func (n *node) crash() {
	n.up = false
	n.gen++
	n.onWake, n.hung = nil, false
	n.w.tell("%s: sidecar dies", n.name)
}

// poll asks Consul for its state; no answer within a second is a failure.
func (n *node) poll() {
	asked := n.clock.now()
	n.w.send(n.name, consulName, func() {
		if !n.w.consul.up {
			return
		}
		st := n.w.consul.state()
		n.w.send(consulName, n.name, func() { n.sidecar(func() { n.seeState(st, asked) }) })
	})
	if n.w.now-n.polled > moment(time.Second) {
		n.obs.SeeConsul(schema.Never, "no answer")
	}
}

// pushState is a blocking query that returns.
func (n *node) pushState() {
	if !n.up || !n.w.consul.up {
		return
	}
	st := n.w.consul.state()
	asked := n.clock.now()
	n.w.send(consulName, n.name, func() { n.sidecar(func() { n.seeState(st, asked) }) })
}

func (n *node) seeState(st schema.ClusterState, asked schema.Instant) {
	n.polled = n.w.now
	if st.Index < n.version {
		return
	}
	n.version = st.Index
	st.AskedAt, st.AnsweredAt = asked, n.clock.now()
	st.Leader.AskedAt = asked
	n.obs.SeeConsul(st.AnsweredAt, "")
	n.obs.SeeState(st)
	if st.Config.Exists {
		n.obs.Config = st.Config.Value
	}
	n.wake()
}

// inspect looks at the data directory, the launcher and Postgres, as the observers of the sidecar do.
func (n *node) inspect() {
	if !n.dull || n.w.chance(0.1) {
		n.inspectProcess()
	}
	if !n.dull || n.w.chance(0.1) {
		n.inspectData()
	}
	if !n.dull || n.w.chance(0.1) {
		n.inspectSQL()
		n.compareFiles(n.clock.now())
	}
}

func (n *node) inspectProcess() {
	now, p, old := n.clock.now(), n.pg, n.obs.Process
	proc := decide.Process{State: p.state, At: now, Since: old.Since, Armed: p.armed, Epoch: p.epoch, Deadline: p.deadline, Ending: p.ending}
	if n.silent {
		proc = old
		proc.State, proc.Detail = decide.ProcessUnknown, "no answer"
	}
	if proc.State != old.State {
		proc.Since = now
	}
	n.obs.Process = proc
}

func (n *node) inspectData() {
	n.obs.Data = n.pg.data(n.clock.now())
	if n.silent { // it is the launcher who runs pg_controldata
		n.obs.Data = decide.Data{State: decide.DataUnknown, At: n.obs.Data.At, Detail: "no answer"}
		if n.w.o.Mutate == UnknownIsEmpty {
			n.obs.Data.State, n.obs.Process.State = decide.DataEmpty, decide.ProcessStopped
			n.obs.Process.At, n.obs.Process.Since = n.obs.Data.At, n.obs.Data.At
		}
	}
}

func (n *node) inspectSQL() {
	now, p := n.clock.now(), n.pg
	switch {
	case !p.running():
		n.obs.SQL = decide.SQL{State: decide.SQLUnknown, At: now}
	case p.starting:
		n.obs.SQL = decide.SQL{State: decide.SQLStarting, At: now}
	case p.state == decide.ProcessRunning:
		n.obs.SQL = decide.SQL{
			State: decide.SQLOK, At: now, InRecovery: p.inRecovery, SystemID: p.systemID, Timeline: p.timeline, LSN: p.lsn(),
			Streaming: p.streaming, Version: 150000,
		}
		if p.inRecovery {
			n.obs.SQL.ReplayLSN = p.lsn()
		} else {
			n.obs.SQL.Replicas = p.replicas()
			n.obs.SQL.WALWaits = p.stuck
			n.obs.SQL.Transactions, n.obs.SQL.Oldest = p.transactions()
		}
	}
}

// wake has the sidecar take a turn soon.
func (n *node) wake() {
	if n.up {
		n.w.after(n.w.between(0, 2*time.Millisecond), func() { n.sidecar(n.turn) })
	}
}

// turn is one turn of the sidecar's loop.
func (n *node) turn() {
	now := n.clock.now()
	n.obs.Now = now
	n.inspect()
	n.listen()
	n.mutate()
	if !n.stalled && now.Sub(n.wroteAt) >= time.Second {
		n.wroteAt = now
	}
	n.obs.DiskAt = n.wroteAt
	plan, memory := n.decide()
	if memory.Record.Epoch < n.memory.Record.Epoch {
		n.w.violate("I3", "%s went from epoch %d back to %d", n.name, n.memory.Record.Epoch, memory.Record.Epoch)
	}
	n.obs.Done = nil
	n.plan, n.memory = plan, memory
	n.keep()
	if memory.Ordered.Over && memory.Ordered.ID == n.obs.Order.ID {
		n.obs.Order = decide.Order{}
	}
	for _, e := range plan.Events {
		n.w.tell("%s: %s (epoch %d) %s", n.name, e.Kind, e.Epoch, e.Detail)
	}
	for _, a := range plan.Actions {
		if n.spare(a) {
			continue
		}
		n.obs.Busy[a.Kind.Slot()] = a.Kind
		if a.Kind != decide.Renew && a.Kind != decide.Arm && a.Kind != decide.RenewSession && a.Kind != decide.ReadLeader {
			n.w.try("%s: %s: %s", n.name, a, a.Why)
		}
		// Between deciding and acting anything may happen: a freeze most of all.
		n.w.after(n.w.between(0, 500*time.Microsecond), func() { n.sidecar(func() { n.act(a) }) })
	}
	n.publish()
	n.w.consulMember(n)
}

// keep writes the record, which takes a moment or as long as the disk hangs; until then a sidecar that starts has the old one.
func (n *node) keep() {
	rec := n.memory.Record
	if rec.Equal(n.saved) || rec.Equal(n.saving) {
		return
	}
	n.saving = rec
	n.w.after(2*time.Millisecond, func() {
		n.sidecar(func() {
			n.disk(func() {
				if n.saving.Equal(rec) {
					n.saved = rec
					n.wake()
				}
			})
		})
	})
}

// publish tells the others how it is, by gossip.
func (n *node) publish() {
	st := n.status()
	urgent := st.State != n.said.State || st.CloneFrom != n.said.CloneFrom || st.Role != n.said.Role || st.Epoch != n.said.Epoch || n.plan.Hurry && st.LSN != n.said.LSN
	if !urgent && n.obs.Now.Sub(n.saidAt) < 250*time.Millisecond {
		return
	}
	st.Seq = n.said.Seq + 1
	n.said, n.saidAt = st, n.obs.Now
	for _, other := range n.w.nodes {
		if other != n {
			n.w.send(n.name, other.name, func() {
				other.sidecar(func() {
					other.peers[n.name] = schema.Peer{Name: n.name, Kind: "member", Status: st, HeardAt: other.clock.now()}
				})
			})
		}
	}
	for _, r := range n.w.routers {
		n.w.send(n.name, r.name, func() { r.hear(st) })
	}
}

// listen makes peers of what was heard: alive for a second and a half after the last word.
func (n *node) listen() {
	n.obs.Peers = n.obs.Peers[:0]
	for _, other := range n.w.nodes {
		p, ok := n.peers[other.name]
		if !ok {
			continue
		}
		p.Liveness = schema.LivenessDead
		if n.obs.Now.Sub(p.HeardAt) < 1500*time.Millisecond {
			p.Liveness = schema.LivenessAlive
		}
		n.obs.Peers = append(n.obs.Peers, p)
	}
}

// status is what the sidecar's publish.go makes of the same state.
func (n *node) status() schema.Status {
	r := n.memory.Reign
	st := schema.Status{
		Name: n.name, Cluster: "c", State: n.plan.State, Reason: n.plan.Reason, SystemID: n.memory.Record.SystemID, Timeline: n.memory.Timeline,
		Epoch: n.memory.Record.Epoch, LSN: n.memory.LSN, Addresses: n.obs.Addresses, Tags: n.obs.Tags, CloneFrom: n.plan.CloneFrom, Resumes: n.plan.Resumes,
	}
	if silent := n.obs.Now.Sub(n.wroteAt); n.wroteAt != schema.Never && silent > n.obs.Config.HangBound()/2 {
		st.DiskSilent = schema.Duration(silent)
	}
	if left := r.Deadline.Sub(n.obs.Now); r.Active && r.Deadline != schema.Never && left > 0 {
		st.LeaseLeft = schema.Duration(left)
	}
	switch {
	case r.Active && (r.Phase == schema.PhaseServing || r.Phase == schema.PhaseStopping):
		st.Role, st.Epoch = schema.RolePrimary, r.Epoch
	case n.obs.Data.State == decide.DataValid && (n.obs.Data.StandbySignal || n.obs.SQL.InRecovery):
		st.Role = schema.RoleStandby
		if n.obs.SQL.Answers() {
			st.LSN, st.ReplayLSN = n.obs.SQL.LSN, n.obs.SQL.ReplayLSN
		}
		if n.obs.SQL.Streaming {
			st.Upstream = n.memory.Following.Member
		}
	}
	return st
}

// consulMember registers the member once Consul answers it.
func (w *World) consulMember(n *node) {
	if n.obs.Consul.Error != "" || !w.consul.up {
		return
	}
	if !slices.ContainsFunc(w.consul.members, func(d schema.Doc[schema.Member]) bool { return d.Value.Name == n.name }) && n.obs.Consul.Seen {
		w.consul.putMember(schema.Member{Name: n.name})
	}
	if c := w.consul; !c.config.Exists && n.memory.Reign.Active && n.memory.Reign.Phase == schema.PhaseServing { // as the primary's upkeep does
		c.config = schema.Doc[schema.ClusterConfig]{Exists: true, Value: n.obs.Config}
		c.config.Index = c.change()
	}
}
