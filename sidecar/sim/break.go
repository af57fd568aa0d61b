package sim

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// Break is one thing that breaks. Its text form is a line of a script, see script.go.
type Break struct {
	Kind Fault
	// Member is whom it hits; Consul and the network are hit as a whole.
	Member string
	// For is how long it lasts; zero for what heals only when the script says so.
	For time.Duration
	// Other is the other end of a one-way cut, the successor of a switchover, or what becomes of the configuration.
	Other string
	// Inward says that a one-way cut stops what comes from Other, not what goes there.
	Inward bool
}

// String is how a script says it: "one-way cut pg1 from consul for 3.1s".
func (b Break) String() string {
	text := string(b.Kind)
	if hitsMember(b.Kind) {
		text += " " + b.Member
	}
	if b.Other != "" {
		word := " to "
		if b.Inward {
			word = " from "
		}
		text += word + b.Other
	}
	if b.For > 0 {
		text += " for " + b.For.String()
	}
	return text
}

// parseBreak reads what String writes.
func parseBreak(line string) (Break, error) {
	var b Break
	for _, k := range AllFaults {
		if (line == string(k) || strings.HasPrefix(line, string(k)+" ")) && len(k) > len(b.Kind) {
			b.Kind = k
		}
	}
	if b.Kind == "" {
		return b, fmt.Errorf("%q begins with no kind of fault", line)
	}
	words := strings.Fields(strings.TrimPrefix(line, string(b.Kind)))
	if hitsMember(b.Kind) {
		if len(words) == 0 {
			return b, fmt.Errorf("%q: say whom it hits", line)
		}
		b.Member, words = words[0], words[1:]
	}
	for len(words) >= 2 {
		switch words[0] {
		case "to", "from":
			b.Other, b.Inward = words[1], words[0] == "from"
		case "for":
			d, err := time.ParseDuration(words[1])
			if err != nil {
				return b, fmt.Errorf("%q: %w", line, err)
			}
			b.For = d
		default:
			return b, fmt.Errorf("%q: %q is not understood", line, words[0])
		}
		words = words[2:]
	}
	if len(words) > 0 {
		return b, fmt.Errorf("%q: %q is left over", line, words[0])
	}
	return b, nil
}

// hitsMember reports whether a fault of kind k is one of a member.
func hitsMember(k Fault) bool {
	switch k {
	case ConsulAway, ConsulWiped, ConsulRestored, SlowNetwork, SessionGone, Reconfigured, Pause:
		return false
	}
	return true
}

// drawn is a fault of kind k as chance has it.
func (w *World) drawn(k Fault) Break {
	b := Break{Kind: k, Member: w.victim().name, For: 200*time.Millisecond + time.Duration(w.dice.Int64N(int64(cmp.Or(w.o.Longest, 12*time.Second)))).Truncate(time.Millisecond)}
	anybody := func() string { return w.nodes[w.dice.IntN(len(w.nodes))].name }
	switch k {
	case ConsulAway, Pause:
		b.For *= 2
	case Switchover:
		b.Other, b.For = anybody(), 0
	case ForcedFailover:
		b.Other = anybody()
	case PostmasterKill, SessionGone, ConsulWiped, ConsulRestored, Restart, Reinit:
		b.For = 0
	case CutOneWay:
		b.Other, b.Inward = consulName, w.dice.IntN(2) == 0
		if w.dice.IntN(2) == 0 {
			b.Other = anybody()
		}
	case Reconfigured:
		b.For = 0
		b.Other = []string{"work_mem=8MB", fmt.Sprintf("lease=%ds", 2+w.dice.IntN(4))}[w.dice.IntN(2)]
		if w.o.Sync != schema.SyncStrict && w.dice.IntN(2) == 0 {
			b.Other = "sync=" + []string{schema.SyncOff, schema.SyncOn, schema.SyncStrict}[w.dice.IntN(3)]
		}
	}
	return b
}

// strike breaks something and has it heal in its time.
func (w *World) strike(b Break) {
	w.struck = append(w.struck, struck{w.now, b})
	w.disturbed = max(w.disturbed, w.now+2*moment(b.For))
	w.tell("--- %s", b)
	heal := func(f func()) {
		if b.For > 0 {
			w.after(b.For, f)
		}
	}
	if !hitsMember(b.Kind) {
		w.strikeConsul(b, heal)
		return
	}
	n := w.node(b.Member)
	switch b.Kind {
	case SidecarCrash:
		n.crash()
		heal(n.boot)
	case SidecarHang:
		n.hung = true
		gen := n.gen
		heal(func() { n.unhang(gen) })
	case HostFreeze:
		n.frozen = true
		heal(n.thaw)
	case HostCrash:
		n.crash()
		n.pg.end(decide.ProcessStopped)
		heal(n.boot)
	case PostmasterKill:
		if n.pg.running() {
			n.pg.die(decide.ProcessCrashed)
		}
	case LauncherSilent:
		n.silent = true
		heal(func() { n.silent = false })
	case SlowEyes:
		n.dull = true
		heal(func() { n.dull = false })
	case CutFromAll, CutFromConsul, CutOneWay, CutFromMembers:
		w.cutOff(b)
	case Switchover:
		w.request(n.name, b.Other)
	case DiskStall:
		n.stalled = true
		heal(n.resume)
	case ForcedFailover:
		n.crash()
		n.pg.end(decide.ProcessStopped)
		heal(n.boot)
		w.after(b.For/2, func() { w.force(b.Other) })
	case Restart:
		n.order(schema.OrderRestart)
	case Reinit:
		n.order(schema.OrderReinit)
	case LaunchEnding:
		n.pg.ending = true
		n.host(func() { n.pg.stop(func() {}) })
		heal(func() { n.pg.ending = false })
	}
}

// strikeConsul breaks what is nobody's alone.
func (w *World) strikeConsul(b Break, heal func(func())) {
	c := w.consul
	switch b.Kind {
	case ConsulAway:
		c.up = false
		heal(func() {
			c.up = true
			w.tell("--- consul is back")
		})
	case ConsulWiped:
		c.wipe()
	case ConsulRestored:
		c.restore()
	case SlowNetwork:
		w.slow = true
		heal(func() { w.slow = false })
	case SessionGone:
		if s := c.sessions[c.leader.Session]; s != nil && c.up {
			c.expire(s, s.gen)
		}
	case Pause:
		w.pause(true)
		heal(func() { w.pause(false) })
	case Reconfigured:
		c.reconfigure(b.Other)
	}
}

// request asks the primary for a switchover.
func (w *World) request(from, to string) {
	c := w.consul
	if c.request.Exists || !c.up {
		return
	}
	c.request = schema.Doc[schema.Request]{Exists: true, Value: schema.Request{
		ID: fmt.Sprint(w.seq), Kind: schema.RequestSwitchover, From: from, To: to,
	}}
	c.request.Index = c.change()
}

// cutOff cuts connections of a member, as the kind says.
func (w *World) cutOff(b Break) {
	var cuts [][2]string
	both := func(other string) { cuts = append(cuts, [2]string{b.Member, other}, [2]string{other, b.Member}) }
	if b.Kind == CutFromAll || b.Kind == CutFromConsul {
		both(consulName)
	}
	for _, other := range w.nodes {
		if other.name != b.Member && (b.Kind == CutFromAll || b.Kind == CutFromMembers) {
			both(other.name)
		}
	}
	if b.Kind == CutFromAll {
		for _, r := range w.routers {
			both(r.name)
		}
	}
	if b.Kind == CutOneWay {
		cuts = append(cuts, [2]string{b.Member, b.Other})
		if b.Inward {
			cuts[0] = [2]string{b.Other, b.Member}
		}
	}
	for _, c := range cuts {
		w.cut[c] = true
	}
	if b.For > 0 {
		w.after(b.For, func() {
			for _, c := range cuts {
				delete(w.cut, c)
			}
		})
	}
}
