package sim

import (
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// entry is one write in the WAL.
type entry struct {
	id       uint64
	timeline schema.Timeline
}

// bytes is how much WAL an entry takes; start is where WAL begins.
const (
	bytes = 128
	start = schema.LSN(0x1000000)
)

func lsnOf(n int) schema.LSN { return start + schema.LSN(n*bytes) }

// branch says at how many entries a timeline began.
type branch struct {
	timeline schema.Timeline
	at       int
}

// postgres models one server with its data directory and the launcher that owns it.
type postgres struct {
	n *node

	// The data directory.
	valid    bool
	half     bool // left half-written by a rewind
	removed  bool // removed, to be cloned
	systemID string
	wal      []entry
	timeline schema.Timeline
	history  []branch // of timeline, oldest first, itself last
	standby  bool     // standby.signal
	clean    bool     // it was shut down cleanly, as a primary
	redo     int      // entries before the last checkpoint

	// The process.
	state      decide.ProcessState
	gen        int // grows with each start and end
	starting   bool
	inRecovery bool
	upstream   string
	config     uint64 // the ModifyIndex of the configuration that it runs with
	streaming  bool
	heard      moment // last message of the upstream
	ending     bool
	stuck      int                 // commits that wait for the disk
	doomed     decide.ProcessState // what it will have ended as, once its disk lets it die

	// Synchronous replication: what commits wait for, what walsenders may still go by until was, what
	// each standby has said that it flushed, and the commits that wait.
	sync    schema.SyncSet
	former  schema.SyncSet
	until   moment
	closed  bool
	acks    map[string]int
	waiting []waiter
	shown   int         // entries that a client has read, see ledger.read
	open    transaction // the longest

	// The fence.
	armed    bool
	epoch    schema.Epoch
	deadline schema.Instant
	fenceGen int
}

func (p *postgres) running() bool {
	return p.state == decide.ProcessRunning || p.state == decide.ProcessStopping
}

// writable reports a server that would take a write right now.
func (p *postgres) writable() bool {
	return p.state == decide.ProcessRunning && !p.starting && !p.inRecovery
}

func (p *postgres) lsn() schema.LSN { return lsnOf(len(p.wal)) }

// arm sets the fence; an older epoch, an earlier deadline or one that was reached is refused, as by the launcher.
func (p *postgres) arm(e schema.Epoch, deadline schema.Instant) bool {
	now := p.n.clock.now()
	if !p.running() || e < p.epoch || deadline <= now || p.armed && p.deadline <= now {
		return false
	}
	if e == p.epoch && p.armed && deadline < p.deadline {
		return true
	}
	p.armed, p.epoch, p.deadline = true, e, deadline
	p.setFence()
	return true
}

// setFence has the kernel's timer kill the server at the deadline plus the grace that backends get.
func (p *postgres) setFence() {
	p.fenceGen++
	gen := p.fenceGen
	if p.n.w.o.Mutate == NoFence {
		return
	}
	p.n.w.after(p.n.clock.until(p.deadline)+p.n.clock.local(p.n.w.between(0, fenceGrace-time.Millisecond)), func() { p.fence(gen) })
}

// fenceGrace is launch.FenceGrace and the time that the last signal takes.
const fenceGrace = 120 * time.Millisecond

func (p *postgres) fence(gen int) {
	if gen != p.fenceGen || !p.armed || !p.running() {
		return
	}
	if p.n.frozen { // the whole host stands still; the timer fires first when it goes on
		p.n.onThaw = append(p.n.onThaw, func() { p.fence(gen) })
		return
	}
	p.n.w.tell("%s: fenced in epoch %d", p.n.name, p.epoch)
	p.die(decide.ProcessFenced)
}

// die is SIGKILL to every process: none runs on, but while the disk hangs some are there still.
func (p *postgres) die(s decide.ProcessState) {
	if !p.n.stalled {
		p.end(s)
		return
	}
	if p.doomed == "" {
		p.state, p.doomed = decide.ProcessStopping, s
		gen := p.gen
		p.n.disk(func() {
			if p.gen == gen {
				p.end(p.doomed)
			}
		})
	}
}

// end is the death of every process of the server.
func (p *postgres) end(s decide.ProcessState) {
	p.state = s
	p.gen++
	p.armed = false
	p.starting, p.streaming, p.closed = false, false, false
	p.stuck, p.doomed = 0, ""
	p.upstream = ""
	p.waiting, p.acks, p.open = nil, nil, transaction{}
	p.sync, p.former = schema.SyncSet{}, schema.SyncSet{}
	for _, other := range p.n.w.nodes { // its connections are reset
		if q := other.pg; q.streaming && q.upstream == p.n.name && p.n.w.connected(p.n.name, other.name) {
			q.streaming = false
		}
	}
	p.n.wake()
}

// start forks a postmaster; ready is called once it accepts connections.
func (p *postgres) start(role schema.Role, e schema.Epoch, deadline schema.Instant, ready func(bool)) bool {
	now := p.n.clock.now()
	if p.running() || !p.valid || p.ending || role == schema.RoleStandby != p.standby || role == schema.RolePrimary && (e < p.epoch || deadline <= now) {
		return false
	}
	p.state = decide.ProcessRunning
	p.gen++
	p.starting, p.inRecovery, p.clean = true, true, false
	if role == schema.RolePrimary {
		p.armed, p.epoch, p.deadline = true, e, deadline
		p.setFence()
	}
	gen := p.gen
	p.n.w.after(p.n.w.between(30*time.Millisecond, 800*time.Millisecond), func() {
		if p.gen != gen {
			ready(false)
			return
		}
		p.written(func() {
			if p.gen != gen || p.state != decide.ProcessRunning {
				ready(false)
				return
			}
			p.starting, p.inRecovery = false, p.standby
			p.redo = len(p.wal)
			if !p.standby {
				p.n.w.ledger.promoted(p)
			}
			p.n.wake()
			ready(true)
		})
	})
	return true
}

// promote ends recovery after a while: a new timeline, and writes.
func (p *postgres) promote(next schema.Timeline, ended func(bool)) {
	d := p.n.w.between(30*time.Millisecond, 400*time.Millisecond)
	if p.n.w.chance(0.05) {
		d = p.n.w.between(time.Second, 8*time.Second)
	}
	gen := p.gen
	p.n.w.after(d, func() {
		p.written(func() {
			if p.gen != gen || !p.running() || p.doomed != "" {
				ended(false)
				return
			}
			if p.inRecovery {
				p.inRecovery, p.standby, p.streaming = false, false, false
				p.branchOff(next)
				p.n.w.ledger.promoted(p)
			}
			p.n.wake()
			ended(true)
		})
	})
}

// written runs f on the host once its disk has taken what comes before.
func (p *postgres) written(f func()) {
	p.n.host(func() { p.n.disk(f) })
}

// branchOff begins the next timeline. Left to itself PostgreSQL takes the next number, so that two servers
// that branch off one timeline share it. The first record of a timeline makes it unlike every other.
func (p *postgres) branchOff(next schema.Timeline) {
	if p.n.w.o.Mutate == SameTimeline {
		next = p.timeline + 1
	}
	p.timeline = next
	p.history = append(p.history[:len(p.history):len(p.history)], branch{p.timeline, len(p.wal)})
	p.wal = append(p.wal, entry{p.n.w.ledger.nextID(), p.timeline})
}

// write is a client's insert. It is acknowledged at once: replication is asynchronous.
func (p *postgres) write(id uint64, ack func()) {
	if !p.writable() {
		return
	}
	if p.closed {
		return
	}
	if p.n.stalled { // its record waits for the flush, which waits for the disk
		p.stuck++
		return
	}
	p.stuck = 0
	p.n.w.ledger.accepted(p, id)
	p.wal = append(p.wal, entry{id, p.timeline})
	p.begin(id)
	p.waiting = append(p.waiting, waiter{len(p.wal), ack})
	p.releaseWaiters()
	p.ship()
}

// transaction is one that a client has begun and not ended: nobody can tell how long it will be.
type transaction struct{ from, to moment }

// begin has every so many writes belong to a transaction that goes on for a while.
func (p *postgres) begin(id uint64) {
	if until := p.n.w.now + moment(time.Duration(id%40)*100*time.Millisecond); id%20 == 1 && until > p.open.to {
		p.open = transaction{p.n.w.now, until}
	}
}

// transactions are those under way, and how long the oldest has been.
func (p *postgres) transactions() (int, time.Duration) {
	if p.n.w.now >= p.open.to {
		return 0, 0
	}
	return 1, time.Duration(p.n.w.now - p.open.from)
}

// waiter is a commit that waits for standbys; at is how many entries they must have.
type waiter struct {
	at  int
	ack func()
}

// setSync changes what commits wait for. For up to a second a walsender may still go by what was before.
func (p *postgres) setSync(s schema.SyncSet) {
	p.former, p.until = p.sync, p.n.w.now+moment(p.n.w.between(0, time.Second))
	p.sync = s
	p.releaseWaiters()
}

// releaseWaiters acknowledges what enough standbys have.
func (p *postgres) releaseWaiters() {
	enough := func(s schema.SyncSet, at int) bool {
		n := 0
		for _, name := range s.Standbys {
			if p.acks[name] >= at {
				n++
			}
		}
		return n >= s.Need
	}
	for len(p.waiting) > 0 {
		w := p.waiting[0]
		if !enough(p.sync, w.at) && (p.n.w.now >= p.until || !enough(p.former, w.at)) {
			return
		}
		p.waiting = p.waiting[1:]
		w.ack()
	}
}

// flushed is a standby's reply.
func (p *postgres) flushed(name string, gen, at int) {
	if p.gen != gen || !p.running() {
		return
	}
	if p.acks == nil {
		p.acks = map[string]int{}
	}
	p.acks[name] = max(p.acks[name], at)
	p.releaseWaiters()
}

// replicas are the rows of pg_stat_replication.
func (p *postgres) replicas() []decide.Replica {
	var rows []decide.Replica
	for _, other := range p.n.w.nodes {
		if q := other.pg; q.streaming && q.upstream == p.n.name {
			rows = append(rows, decide.Replica{Name: other.name, Flush: lsnOf(p.acks[other.name]), Streaming: true})
		}
	}
	return rows
}

// ship streams what standbys of ours lack.
func (p *postgres) ship() {
	for _, other := range p.n.w.nodes {
		if q := other.pg; q.streaming && q.upstream == p.n.name {
			p.shipTo(q)
		}
	}
}

func (p *postgres) shipTo(q *postgres) {
	from := len(q.wal)
	if from > len(p.wal) {
		return
	}
	batch := p.wal[from:len(p.wal):len(p.wal)]
	gen, own, tl, history := q.gen, p.gen, p.timeline, p.history
	p.n.w.send(p.n.name, q.n.name, func() {
		q.n.host(func() {
			if q.gen != gen || !q.streaming || q.upstream != p.n.name || len(q.wal) < from {
				return
			}
			q.heard = p.n.w.now
			if q.n.stalled {
				return
			}
			if have := len(q.wal) - from; have < len(batch) {
				q.wal = append(q.wal, batch[have:]...)
			}
			if q.timeline != tl {
				q.timeline, q.history = tl, history
			}
			at := len(q.wal)
			p.n.w.send(q.n.name, p.n.name, func() { p.n.host(func() { p.flushed(q.n.name, own, at) }) })
		})
	})
}

// connect is the WAL receiver of a standby, tried again and again.
func (p *postgres) connect() {
	if p.state != decide.ProcessRunning || !p.inRecovery || p.starting {
		return
	}
	if p.streaming && p.n.w.now-p.heard > moment(2*time.Second) {
		p.streaming = false // wal_receiver_timeout
	}
	up := p.n.w.node(p.upstream)
	if up == nil || p.streaming {
		if up != nil {
			up.pg.keepalive(p)
		}
		return
	}
	gen := p.gen
	p.n.w.send(p.n.name, up.name, func() {
		up.host(func() {
			if !up.pg.running() || up.pg.starting || p.gen != gen || !up.pg.accepts(p) {
				return
			}
			up.w.send(up.name, p.n.name, func() {
				p.n.host(func() {
					if p.gen == gen && p.upstream == up.name && up.pg.running() && up.pg.accepts(p) {
						p.streaming, p.heard = true, p.n.w.now
						up.pg.shipTo(p)
					}
				})
			})
		})
	})
}

// keepalive is a walsender's message while nothing is written.
func (p *postgres) keepalive(q *postgres) {
	if !p.running() || p.n.frozen {
		return
	}
	p.shipTo(q)
}

// accepts reports whether a walsender of ours would begin to stream to q: what PostgreSQL checks is the
// timeline and the position, not the WAL itself. If that lets through WAL that differs, it is a violation.
func (p *postgres) accepts(q *postgres) bool {
	if !canFollow(q.timeline, len(q.wal), p) || len(q.wal) > len(p.wal) {
		return false
	}
	if n := len(q.wal); n > 0 && p.wal[n-1] != q.wal[n-1] {
		p.n.w.violate("corruption", "%s streams from %s on timeline %d, and their WAL differs", q.n.name, p.n.name, p.timeline)
		return false
	}
	return true
}

// canFollow is postgres.CanFollow over the model: the timeline must be in up's history, and not left before end.
func canFollow(tl schema.Timeline, end int, up *postgres) bool {
	for i, b := range up.history {
		if b.timeline == tl {
			return i == len(up.history)-1 || end <= up.history[i+1].at
		}
	}
	return false
}

// stop is a clean shutdown: it ends once the standbys that stream have everything.
func (p *postgres) stop(ended func()) {
	if p.state != decide.ProcessRunning {
		return
	}
	p.state = decide.ProcessStopping
	gen := p.gen
	var wait func()
	wait = func() {
		if p.gen != gen || p.doomed != "" {
			return
		}
		for _, other := range p.n.w.nodes {
			if q := other.pg; !p.inRecovery && q.streaming && q.upstream == p.n.name && len(q.wal) < len(p.wal) {
				p.ship()
				p.n.w.after(10*time.Millisecond, func() { p.n.host(wait) })
				return
			}
		}
		p.clean = !p.inRecovery
		p.end(decide.ProcessStopped)
		ended()
	}
	p.n.w.after(p.n.w.between(20*time.Millisecond, 150*time.Millisecond), func() { p.written(wait) })
}

// copyFrom replaces the data directory by a copy of another server's.
func (p *postgres) copyFrom(up *postgres) {
	p.half, p.removed = false, false
	p.valid, p.systemID, p.timeline, p.history, p.standby, p.clean = true, up.systemID, up.timeline, up.history, true, false
	p.wal, p.shown = append([]entry(nil), up.wal...), 0
	p.redo = len(p.wal)
}

// data is what an inspection finds.
func (p *postgres) data(at schema.Instant) decide.Data {
	if p.removed {
		return decide.Data{State: decide.DataIncomplete, Removed: true, At: at}
	}
	if p.half {
		return decide.Data{State: decide.DataIncomplete, At: at}
	}
	if !p.valid {
		return decide.Data{State: decide.DataEmpty, At: at}
	}
	d := decide.Data{State: decide.DataValid, At: at, SystemID: p.systemID, Timeline: p.timeline, StandbySignal: p.standby, RedoLSN: lsnOf(p.redo)}
	d.CanRewind = !p.standby || p.state == decide.ProcessStopped
	if p.clean {
		d.ShutdownLSN = p.lsn()
	}
	return d
}
