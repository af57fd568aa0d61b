package sim

import (
	"time"

	"howdah/sidecar/decide"
)

// rewind brings the data directory onto another server's history. For a while it holds neither the old nor the new, and
// whatever ends the rewind then, the end of the sidecar that ordered it included, leaves it so.
func (n *node) rewind(up *node, report func(decide.Certainty)) {
	gen := n.gen
	// A standby would serve it too; that it is not asked to is checked when it begins.
	possible := func() bool {
		return !n.pg.running() && up.pg.state == decide.ProcessRunning && !up.pg.starting && !up.stalled && !up.frozen && n.w.connected(n.name, up.name)
	}
	n.w.after(n.w.between(50*time.Millisecond, 500*time.Millisecond), func() {
		n.pg.written(func() {
			switch {
			case n.gen != gen || n.pg.running() || !n.pg.valid:
				return
			case n.w.chance(0.1): // its WAL does not go back far enough
				report(decide.Refused)
				return
			case !possible():
				report(decide.Unclear)
				return
			}
			n.w.ledger.cloned(n, up)
			n.pg.valid, n.pg.half = false, true
			n.w.after(n.w.between(50*time.Millisecond, time.Second), func() {
				n.pg.written(func() {
					if n.gen != gen || !n.up || n.w.chance(0.15) || !possible() || !up.pg.writable() {
						n.w.tell("%s: a rewind ends half-way", n.name)
						report(decide.Unclear)
						return
					}
					n.w.ledger.cloned(n, up)
					n.pg.copyFrom(up.pg)
					report(decide.OK)
				})
			})
		})
	})
}
