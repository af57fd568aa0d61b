package sim

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// Fault is a kind of thing that breaks.
type Fault string

// The kinds of fault. Each heals by itself after a while.
const (
	SidecarCrash   Fault = "sidecar crash"
	SidecarHang    Fault = "sidecar hang"
	HostFreeze     Fault = "host freeze"
	HostCrash      Fault = "host crash"
	PostmasterKill Fault = "postmaster kill"
	CutFromAll     Fault = "cut from all"
	CutFromConsul  Fault = "cut from consul"
	CutOneWay      Fault = "one-way cut"
	CutFromMembers Fault = "cut from members"
	ConsulAway     Fault = "consul away"
	SlowNetwork    Fault = "slow network"
	Switchover     Fault = "switchover"
	SessionGone    Fault = "session gone"
	LaunchEnding   Fault = "launcher restart"
	Restart        Fault = "restart ordered"
	Reinit         Fault = "reinit ordered"
	Pause          Fault = "pause"
	ForcedFailover Fault = "forced failover" // after the loss of a host
	DiskStall      Fault = "disk stall"
	LauncherSilent Fault = "launcher silent"
	SlowEyes       Fault = "observers late"
	ConsulWiped    Fault = "consul wiped"
	ConsulRestored Fault = "consul restored"
	Reconfigured   Fault = "configuration changed"
)

// AllFaults are all kinds of fault.
var AllFaults = []Fault{
	SidecarCrash, SidecarHang, HostFreeze, HostCrash, PostmasterKill, CutFromAll, CutFromConsul, CutOneWay, CutFromMembers, ConsulAway,
	SlowNetwork, Switchover, SessionGone, LaunchEnding, Restart, Reinit, Pause, LauncherSilent, SlowEyes, ConsulWiped, ConsulRestored, Reconfigured, DiskStall, ForcedFailover,
}

// Mutation is a rule of howdah that is broken on purpose.
type Mutation string

// The mutations, each with the rule that it breaks.
const (
	NoMutation              Mutation = ""
	DeadlineFromReply       Mutation = "deadline counted from the reply"
	NoMargin                Mutation = "no margin"
	TakeOverUnconditionally Mutation = "takeover without its condition"
	ReleaseEarly            Mutation = "released before postgres has stopped"
	NoFence                 Mutation = "no fence"
	PromiseAnything         Mutation = "promises given by whoever may take over"
	PromiseForgotten        Mutation = "promises forgotten"
	EpochForgotten          Mutation = "epoch forgotten over a restart"
	StrangersStand          Mutation = "members stand that the record does not name"
	SameTimeline            Mutation = "a branch of the same number followed"
	ClonesAtOnce            Mutation = "clones of one source at once"
	TakeOverByDestroying    Mutation = "takeover by destroying the holder's session"
	SyncSetFirst            Mutation = "a synchronous set in effect before it is recorded"
	SyncNarrowedEarly       Mutation = "the record narrowed before the commits are there"
	CandidateAlone          Mutation = "a candidate that has not seen enough of the set"
	EmptyConsulIsNew        Mutation = "an empty consul read as a new cluster"
	UnknownIsEmpty          Mutation = "an unknown data directory read as empty"
	OldRecordBelieved       Mutation = "a record of an older epoch believed"
	CopyGoesUnasked         Mutation = "a copy removed without asking the source or the lock"
	LapsedBelieved          Mutation = "a reign whose lease had run out taken up again at once"
	RouterForgets           Mutation = "a router that forgets the newest epoch, and who is silent"
)

// Result is how a run ended.
type Result struct {
	Violations []string
	Story      string
	// Reigns is how many reigns there were, Acked how many writes were acknowledged, Missing how many of
	// those the last primary does not have.
	Reigns, Acked, Missing int
	// Removed is how many copies were removed before the clone that replaced them was made.
	Removed int

	struck []struck
}

// Run makes a world, breaks it for a while, lets it become whole, and reports.
func Run(o Options) Result {
	return run(o, func(w *World) {
		if o.Faults > 0 {
			w.scheduleFault()
		}
	})
}

// replay is Run with these faults instead of random ones.
func replay(o Options, breaks []struck) Result {
	return run(o, func(w *World) {
		for _, s := range breaks {
			w.after(time.Duration(s.at-w.now), func() { w.strike(s.b) })
		}
	})
}

func run(o Options, faults func(*World)) Result {
	w := NewWorld(o)
	w.clients()
	w.backups()
	w.runUntil(comesUp)
	faults(w)
	if o.Late {
		w.after(w.between(0, o.Length), w.nodes[o.Members-1].boot)
	}
	w.runUntil(comesUp + moment(o.Length))
	w.o.Faults = 0
	w.healAll()
	w.runUntil(w.now + moment(o.Quiet))
	r := Result{Reigns: w.ledger.reigns, Acked: len(w.ledger.acked), Removed: w.ledger.removed, struck: w.struck}
	if len(w.violations) == 0 {
		if primary := w.ledger.whole(); primary != nil {
			r.Missing = w.ledger.missing(primary)
			w.ledger.staleReads(primary)
		}
	}
	r.Violations, r.Story = w.violations, w.Story()
	return r
}

// backups are made of Consul now and then.
func (w *World) backups() {
	w.after(w.between(5*time.Second, 25*time.Second), func() {
		w.consul.snapshot()
		w.backups()
	})
}

// clients write to whoever takes it: to the primary that there is, and to any other server on the chance that it is
// a primary that should not be one.
func (w *World) clients() {
	var again func()
	again = func() {
		for _, n := range w.nodes {
			id := w.ledger.nextID()
			w.after(w.between(100*time.Microsecond, time.Millisecond), func() {
				n.host(func() { n.pg.write(id, func() { w.ledger.acked[id] = true }) })
			})
		}
		w.after(20*time.Millisecond, again)
	}
	w.after(0, again)
}

// scheduleFault breaks something, and goes on doing so.
func (w *World) scheduleFault() {
	w.after(time.Duration(w.dice.ExpFloat64()*float64(w.o.Faults)), func() {
		if w.o.Faults == 0 {
			return
		}
		kinds := w.o.Kinds
		if len(kinds) == 0 {
			kinds = AllFaults
		}
		w.strike(w.drawn(kinds[w.dice.IntN(len(kinds))]))
		w.scheduleFault()
	})
}

// victim is the primary two times in three, else anybody.
func (w *World) victim() *node {
	if w.dice.Float64() < 0.66 {
		for _, n := range w.nodes {
			if n.pg.writable() {
				return n
			}
		}
	}
	return w.nodes[w.dice.IntN(len(w.nodes))]
}

// order gives n an order, as POST /restart and /reinit do: what cannot be is refused.
func (n *node) order(k schema.OrderKind) {
	n.sidecar(func() {
		n.obs.Now = n.clock.now()
		if n.obs.Order.ID == "" && decide.Unable(&n.obs, n.memory, k) == "" {
			n.obs.Order = decide.Order{ID: fmt.Sprint("order", n.w.seq), Kind: k}
			n.wake()
		}
	})
}

// force has an operator ask for a failover to some member, about the situation as Consul shows it.
func (w *World) force(to string) {
	c, l := w.consul, w.consul.leader.Leader
	if !c.up {
		return
	}
	c.request = schema.Doc[schema.Request]{Exists: true, Value: schema.Request{
		ID: fmt.Sprint(w.seq), Kind: schema.RequestFailover, From: l.Member, To: to, Epoch: l.Epoch,
		LSN: l.FlushLSN, Force: true, By: "an operator",
	}}
	c.request.Index = c.change()
	w.tell("--- a failover to %s is forced", c.request.Value.To)
}

// pause writes the cluster's configuration.
func (w *World) pause(paused bool) {
	c := w.consul
	if !c.up || c.config.Exists && c.config.Value.Pause == paused {
		return
	}
	c.configured().Pause = paused
	w.tell("--- paused: %v", paused)
	c.config.Index = c.change()
}

// unhang lets a hung sidecar go on with what has come meanwhile.
func (n *node) unhang(gen int) {
	if n.gen != gen || !n.hung {
		return
	}
	n.hung = false
	todo := n.onWake
	n.onWake = nil
	for _, f := range todo {
		f()
	}
}

// thaw lets a host go on: its kernel's timers first, then everything that has come meanwhile, in any order.
func (n *node) thaw() {
	if !n.frozen {
		return
	}
	n.frozen = false
	n.w.tell("%s: thaws", n.name)
	if p := n.pg; p.armed && p.running() && p.deadline <= n.clock.now() {
		p.fence(p.fenceGen)
	}
	todo := slices.Clone(n.onThaw)
	n.onThaw = nil
	n.w.rng.Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	for _, f := range todo {
		n.w.after(n.w.between(0, 3*time.Millisecond), func() { n.host(f) })
	}
}

// resume lets a disk go on.
func (n *node) resume() {
	if !n.stalled {
		return
	}
	n.stalled = false
	n.w.tell("%s: the disk goes on", n.name)
	todo := n.onResume
	n.onResume = nil
	for _, f := range todo {
		n.w.after(n.w.between(0, 3*time.Millisecond), func() { n.host(f) })
	}
}

// disk runs f once the disk takes its writes.
func (n *node) disk(f func()) {
	if n.stalled {
		n.onResume = append(n.onResume, func() { n.disk(f) })
		return
	}
	f()
}

// healAll ends whatever is still broken.
func (w *World) healAll() {
	w.cut = map[[2]string]bool{}
	w.slow, w.consul.up = false, true
	w.pause(false)
	for _, n := range w.nodes {
		n.thaw()
		n.resume()
		n.unhang(n.gen)
		n.boot()
		n.pg.ending, n.silent, n.dull = false, false, false
	}
}
