package detector

import (
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// overhead is what memberlist adds to a message in a packet: its type, a CRC header (5), the
// encryption's version, nonce and tag (29), and the label with two bytes before it (net.go, security.go, label.go).
const overhead = 1 + 5 + 29 + 2 + len(labelPrefix)

// Publish makes st this process's status. It is sent to every live peer at once. Name and Cluster are set here, and
// Instance if it is empty; Instance and Seq are otherwise passed on as they are. Statuses
// replace each other in the order of the calls.
func (d *Detector) Publish(st schema.Status) {
	st.Name, st.Cluster = d.cfg.Name, d.cfg.Cluster
	if st.Instance == "" {
		st.Instance = d.cfg.Instance
	}
	now := d.now()
	d.mu.Lock()
	d.own.Number++
	d.own.Status = st
	d.own.HeardAt = now
	m := d.meta
	m.Role, m.Epoch, m.Instance = st.Role, st.Epoch, st.Instance
	if st.Addresses != (schema.Addresses{}) {
		m.Addresses = st.Addresses
	}
	before := d.meta
	problem := d.setMeta(m)
	metaChanged := before != d.meta
	d.mu.Unlock()
	if problem != "" {
		d.log.Error("the status is sent, but the gossip metadata keeps the former addresses", zap.String("error", problem))
	}
	if metaChanged {
		poke(d.metaNow)
	}
	poke(d.sendNow)
}

// setMeta makes m the metadata. If its addresses are too long it keeps the former ones, and returns why, once for
// each reason. The caller holds mu.
func (d *Detector) setMeta(m meta) string {
	_, err := m.encode()
	if err == nil {
		d.meta = m
		d.encodeMeta()
		return ""
	}
	m.Addresses, m.Instance = d.meta.Addresses, d.meta.Instance
	d.meta = m
	d.encodeMeta()
	if err.Error() == d.metaProblem {
		return ""
	}
	d.metaProblem = err.Error()
	return d.metaProblem
}

// encodeMeta writes meta anew; one that does not fit (an unknown role, a few bytes of epoch) leaves the
// former in place. The caller holds mu.
func (d *Detector) encodeMeta() {
	if b, err := d.meta.encode(); err == nil {
		d.encodedMeta = b
	}
}

// metaLoop tells memberlist of new metadata. UpdateNode waits until the news has been passed on, and must
// not run twice at once.
func (d *Detector) metaLoop() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.metaNow:
		}
		if err := d.ml.UpdateNode(leaveTimeout); err != nil {
			d.log.Debug("metadata not passed on yet", zap.Error(err))
		}
	}
}

// sendLoop sends the own status when it changes, when a peer comes, and after StatusInterval; a mere hello
// while there is none.
func (d *Detector) sendLoop() {
	t := time.NewTimer(d.cfg.Timing.StatusInterval)
	defer t.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.sendNow:
		case <-t.C:
		}
		d.sendStatus()
		t.Reset(d.cfg.Timing.StatusInterval)
	}
}

func (d *Detector) sendStatus() {
	d.mu.Lock()
	own, nodes := d.own, d.table.targets()
	d.mu.Unlock()
	m := message{
		Version: wireVersion, Kind: messageHello, Cluster: d.cfg.Cluster, From: d.cfg.Name, Generation: own.Generation,
	}
	if own.Number > 0 {
		m.Kind, m.Number, m.Status = messageStatus, own.Number, &own.Status
	}
	b := encodeJSON(m)
	for i := range nodes {
		d.counters.statusesSent.Add(1)
		if d.fits(b) {
			d.packet(&nodes[i], b)
			continue
		}
		d.counters.statusesOversized.Add(1)
		d.stream(&nodes[i], b, nil)
	}
}

func (d *Detector) fits(b []byte) bool {
	return len(b)+overhead+len(d.cfg.Cluster) <= d.cfg.Timing.PacketBytes
}

func (d *Detector) packet(n *memberlist.Node, b []byte) {
	if err := d.ml.SendBestEffort(n, b); err != nil {
		d.counters.sendErrors.Add(1)
	}
}

// stream sends b over TCP in a goroutine; of each kind and peer only one is under way at a time, and
// another is left out.
func (d *Detector) stream(n *memberlist.Node, b []byte, key any) {
	type lane struct {
		peer string
		key  any
	}
	l := lane{n.Name, key}
	if _, busy := d.streaming.LoadOrStore(l, struct{}{}); busy {
		return
	}
	started := d.spawn(func() {
		defer d.streaming.Delete(l)
		if err := d.ml.SendReliable(n, b); err != nil {
			d.counters.sendErrors.Add(1)
		}
	})
	if !started {
		d.streaming.Delete(l)
	}
}

// spawn starts f unless the detector is being shut down, which waits for f.
func (d *Detector) spawn(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.wg.Go(f)
	return true
}

// localState is what a push/pull exchange gives to the other side.
func (d *Detector) localState() []byte {
	now := d.now()
	d.mu.Lock()
	s := fullState{Version: wireVersion, Cluster: d.cfg.Cluster, From: d.cfg.Name, Statuses: d.table.statuses(now)}
	if d.own.Number > 0 {
		own := d.own
		own.Kind = d.cfg.Kind
		own.Age = schema.Duration(max(0, now.Sub(own.HeardAt)))
		s.Statuses = append(s.Statuses, own)
	}
	d.mu.Unlock()
	return encodeJSON(s)
}
