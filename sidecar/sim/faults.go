package sim

import (
	"cmp"
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
	ConfigChange   Fault = "configuration changed"
	DiskStall      Fault = "disk stall"
)

// AllFaults are all kinds of fault.
var AllFaults = []Fault{
	SidecarCrash, SidecarHang, HostFreeze, HostCrash, PostmasterKill, CutFromAll, CutFromConsul, CutOneWay, CutFromMembers, ConsulAway,
	SlowNetwork, Switchover, SessionGone, LaunchEnding, Restart, Reinit, Pause, ConfigChange, DiskStall, ForcedFailover,
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
)

// Result is how a run ended.
type Result struct {
	Violations []string
	Story      string
	// Reigns is how many reigns there were, Acked how many writes were acknowledged, Missing how many of
	// those the last primary does not have.
	Reigns, Acked, Missing int
}

// Run makes a world, breaks it for a while, lets it become whole, and reports.
func Run(o Options) Result {
	w := NewWorld(o)
	w.ledger.acked = map[uint64]bool{}
	w.clients()
	w.runUntil(moment(15 * time.Second)) // to bootstrap
	if o.Faults > 0 {
		w.scheduleFault()
	}
	if o.Late {
		w.after(w.between(0, o.Length), w.nodes[o.Members-1].boot)
	}
	w.runUntil(moment(15*time.Second + o.Length))
	w.o.Faults = 0
	w.healAll()
	w.runUntil(w.now + moment(o.Quiet))
	r := Result{Reigns: w.ledger.reigns, Acked: len(w.ledger.acked)}
	if len(w.violations) == 0 {
		if primary := w.ledger.whole(); primary != nil {
			r.Missing = w.ledger.missing(primary)
		}
	}
	r.Violations, r.Story = w.violations, w.Story()
	return r
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
	w.after(time.Duration(w.rng.ExpFloat64()*float64(w.o.Faults)), func() {
		if w.o.Faults == 0 {
			return
		}
		kinds := w.o.Kinds
		if len(kinds) == 0 {
			kinds = AllFaults
		}
		w.break_(kinds[w.rng.IntN(len(kinds))])
		w.scheduleFault()
	})
}

// victim is the primary two times in three, else anybody.
func (w *World) victim() *node {
	if w.chance(0.66) {
		for _, n := range w.nodes {
			if n.pg.writable() {
				return n
			}
		}
	}
	return w.nodes[w.rng.IntN(len(w.nodes))]
}

// break_ breaks something of kind k and has it heal.
func (w *World) break_(k Fault) {
	n := w.victim()
	length := w.between(200*time.Millisecond, cmp.Or(w.o.Longest, 12*time.Second))
	w.disturbed = max(w.disturbed, w.now+2*moment(length))
	w.tell("--- %s: %s for %s", k, n.name, length.Round(time.Millisecond))
	switch k {
	case SidecarCrash:
		n.crash()
		w.after(length, n.boot)
	case SidecarHang:
		n.hung = true
		gen := n.gen
		w.after(length, func() { n.unhang(gen) })
	case HostFreeze:
		n.frozen = true
		w.after(length, n.thaw)
	case HostCrash:
		n.crash()
		n.pg.end(decide.ProcessStopped)
		w.after(length, n.boot)
	case PostmasterKill:
		if n.pg.running() {
			n.pg.die(decide.ProcessCrashed)
		}
	case CutFromAll, CutFromConsul, CutOneWay, CutFromMembers:
		w.cutOff(k, n, length)
	case ConsulAway:
		w.consul.up = false
		w.after(2*length, func() {
			w.consul.up = true
			w.tell("--- consul is back")
		})
	case SlowNetwork:
		w.slow = true
		w.after(length, func() { w.slow = false })
	case Switchover:
		if !w.consul.request.Exists && w.consul.up {
			to := w.nodes[w.rng.IntN(len(w.nodes))]
			w.consul.request = schema.Doc[schema.Request]{Exists: true, Value: schema.Request{
				ID: fmt.Sprint(w.seq), Kind: schema.RequestSwitchover, From: n.name, To: to.name,
			}}
			w.consul.request.Index = w.consul.change()
		}
	case SessionGone:
		if id := w.consul.leader.Session; id != "" && w.consul.up {
			w.consul.expire(w.consul.sessions[id], w.consul.sessions[id].gen)
		}
	case Restart:
		n.order(schema.OrderRestart)
	case Reinit:
		n.order(schema.OrderReinit)
	case ForcedFailover:
		n.crash()
		n.pg.end(decide.ProcessStopped)
		w.after(length, n.boot)
		w.after(w.between(0, 8*time.Second), w.force)
	case Pause:
		w.pause(true)
		w.after(2*length, func() { w.pause(false) })
	case ConfigChange:
		if w.consul.up {
			w.consul.config = w.consul.change()
		}
	case DiskStall:
		n.stalled = true
		w.after(length, n.resume)
	case LaunchEnding:
		n.pg.ending = true
		n.host(func() { n.pg.stop(func() {}) })
		w.after(length, func() { n.pg.ending = false })
	}
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
func (w *World) force() {
	c, l := w.consul, w.consul.leader.Leader
	if !c.up {
		return
	}
	c.request = schema.Doc[schema.Request]{Exists: true, Value: schema.Request{
		ID: fmt.Sprint(w.seq), Kind: schema.RequestFailover, From: l.Member, To: w.nodes[w.rng.IntN(len(w.nodes))].name, Epoch: l.Epoch,
		LSN: l.FlushLSN, Force: true, By: "an operator",
	}}
	c.request.Index = c.change()
	w.tell("--- a failover to %s is forced", c.request.Value.To)
}

// pause writes the cluster's configuration.
func (w *World) pause(paused bool) {
	c := w.consul
	if !c.up || c.paused == paused {
		return
	}
	c.paused = paused
	w.tell("--- paused: %v", paused)
	c.change()
}

// cutOff cuts connections of n, as k says, for a while.
func (w *World) cutOff(k Fault, n *node, length time.Duration) {
	var cuts [][2]string
	both := func(other string) { cuts = append(cuts, [2]string{n.name, other}, [2]string{other, n.name}) }
	if k == CutFromAll || k == CutFromConsul {
		both(consulName)
	}
	for _, other := range w.nodes {
		if other != n && (k == CutFromAll || k == CutFromMembers) {
			both(other.name)
		}
	}
	if k == CutOneWay {
		other := consulName
		if w.chance(0.5) {
			other = w.nodes[w.rng.IntN(len(w.nodes))].name
		}
		cuts = append(cuts, [2]string{n.name, other})
		if w.chance(0.5) {
			cuts[0] = [2]string{other, n.name}
		}
	}
	for _, c := range cuts {
		w.cut[c] = true
	}
	w.after(length, func() {
		for _, c := range cuts {
			delete(w.cut, c)
		}
	})
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
		n.pg.ending = false
	}
}
