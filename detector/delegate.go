package detector

import (
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls, mostly under its own lock: every method copies and returns.
// NotifyAlive alone must judge at once; it reads at most 512 bytes.
type delegate struct{ d *Detector }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
)

func (g delegate) NodeMeta(int) []byte {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	return slices.Clone(g.d.encodedMeta)
}

func (g delegate) NotifyMsg(b []byte) { g.d.box.message(b) }

// GetBroadcasts has nothing to add: statuses go to each peer directly.
func (g delegate) GetBroadcasts(int, int) [][]byte { return nil }

func (g delegate) LocalState(bool) []byte { return g.d.localState() }

func (g delegate) MergeRemoteState(b []byte, _ bool) { g.d.box.state(b) }

func (g delegate) NotifyJoin(n *memberlist.Node)   { g.event(n, false) }
func (g delegate) NotifyUpdate(n *memberlist.Node) { g.event(n, false) }
func (g delegate) NotifyLeave(n *memberlist.Node)  { g.event(n, true) }

func (g delegate) event(n *memberlist.Node, gone bool) {
	if n.Name != g.d.cfg.Name {
		g.d.box.event(n, gone)
	}
}

func (g delegate) NotifyConflict(existing, other *memberlist.Node) { g.d.box.conflict(existing, other) }

// NotifyAlive keeps out what does not belong here although it has the key and the label.
func (g delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err == nil && m.Cluster != g.d.cfg.Cluster {
		err = fmt.Errorf("%w: %q", errForeign, m.Cluster)
	}
	return err
}
