package sim

import (
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// configures has every action that writes the configuration files write the newest that the sidecar knows.
func (n *node) configures(k decide.Kind) {
	switch k {
	case decide.StartPrimary, decide.StartStandby, decide.Follow, decide.SetSync:
		n.pg.config = n.obs.State.Config.Index
	}
}

// compareFiles is the comparison of the configuration files with what they should be.
func (n *node) compareFiles(now schema.Instant) {
	if n.obs.State.Index == 0 {
		return
	}
	if st, ok := decide.Configured(&n.obs, n.memory); ok {
		n.obs.Files = decide.Files{At: now, For: st, Differ: n.pg.config != n.obs.State.Config.Index}
	}
}

// reconfigure writes the files after a while, whatever has become of the server by then. The files of a standby would
// make a primary start as one, and those of a primary say what commits wait for.
func (n *node) reconfigure(a decide.Action, report func(bool)) {
	p, index := n.pg, n.obs.State.Config.Index
	gen := p.gen
	n.w.after(n.w.between(time.Millisecond, 300*time.Millisecond), func() {
		n.host(func() {
			switch {
			case p.gen != gen || !p.running():
				report(false)
				return
			case a.Role == schema.RoleStandby && !p.inRecovery:
				n.w.violate("configuration", "%s is a primary and is configured as a standby", n.name)
			case a.Role == schema.RolePrimary:
				p.setSync(a.Sync)
			default:
				p.upstream = a.From.Member
			}
			p.config = index
			report(true)
		})
	})
}
