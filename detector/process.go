package detector

import (
	"errors"
	"strings"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// findings are of one call of process: what it has found out, to be told once the lock is released.
type findings struct {
	changed     bool
	newConflict []string
	foreign     []string
	malformed   []error
	asks        []message
	answers     []message
	cancels     []message // to be carried out
	cancelled   []message
}

// process takes in what has arrived and tells who must know.
func (d *Detector) process(m mail, ticked bool) {
	now := d.now()
	var r findings
	d.mu.Lock()
	d.table.wake(now)
	for _, ev := range m.events {
		d.note(&r, d.table.event(ev, now))
		r.changed = true
	}
	for _, b := range m.states {
		d.takeState(&r, b, now)
	}
	for _, b := range m.messages {
		d.takeMessage(&r, b, now)
	}
	for _, c := range m.conflicts {
		d.conflict(&r, c.name, false, now)
	}
	if ticked {
		d.table.tick(now)
	}
	transitions := d.table.takeTransitions()
	d.mu.Unlock()

	if len(m.conflicts) > 0 {
		d.joiner.again(d.joinNow)
	}
	if len(transitions) > 0 {
		r.changed = true
		poke(d.joinNow)
		// Who has just come learns this process's status now and not an interval later.
		poke(d.sendNow)
	}
	d.tell(r, transitions)
	for _, q := range r.asks {
		d.dispatch(q)
	}
	for _, a := range r.answers {
		d.promises.replies.deliver(a, *a.Answer)
	}
	for _, c := range r.cancels {
		d.carryOut(c)
	}
	for _, c := range r.cancelled {
		d.cancels.deliver(c)
	}
	if r.changed {
		poke(d.changes)
	}
}

// note sorts out what could not be read.
func (d *Detector) note(r *findings, err error) {
	switch {
	case err == nil:
	case errors.Is(err, errForeign):
		d.counters.foreign.Add(1)
		if key := err.Error(); !d.foreign[key] && len(d.foreign) < maxForeign {
			d.foreign[key] = true
			r.foreign = append(r.foreign, key)
		}
	default:
		d.counters.malformed.Add(1)
		r.malformed = append(r.malformed, err)
	}
}

// maxForeign bounds for how many other clusters a warning is logged.
const maxForeign = 16

func (d *Detector) takeState(r *findings, b []byte, now schema.Instant) {
	s, err := decodeState(b, d.cfg.Cluster)
	if err != nil {
		d.note(r, err)
		return
	}
	for _, h := range s.Statuses {
		if h.Status.Name == d.cfg.Name {
			d.namesake(r, h, now)
			continue
		}
		if d.table.relayed(h, now) {
			d.counters.statusesRelayed.Add(1)
			r.changed = true
		}
	}
}

func (d *Detector) takeMessage(r *findings, b []byte, now schema.Instant) {
	m, err := decodeMessage(b, d.cfg.Cluster)
	if err != nil {
		d.note(r, err)
		return
	}
	switch m.Kind {
	case messageHello:
		if d.table.hello(m.From, m.Generation, now) {
			d.conflict(r, m.From, true, now)
		}
	case messageStatus:
		d.takeStatus(r, held{Generation: m.Generation, Number: m.Number, Status: *m.Status}, now)
	case messageAsk:
		if m.To == d.cfg.Name {
			r.asks = append(r.asks, m)
		}
	case messageAnswer:
		r.answers = append(r.answers, m)
	case messageCancel:
		if m.To == d.cfg.Name {
			r.cancels = append(r.cancels, m)
		}
	case messageCancelled:
		r.cancelled = append(r.cancelled, m)
	}
}

func (d *Detector) takeStatus(r *findings, h held, now schema.Instant) {
	if h.Status.Name == d.cfg.Name {
		d.namesake(r, h, now)
		return
	}
	taken, conflict := d.table.direct(h, now)
	if conflict {
		d.conflict(r, h.Status.Name, true, now)
	}
	if !taken {
		d.counters.statusesStale.Add(1)
		return
	}
	d.counters.statusesHeard.Add(1)
	r.changed = true
}

// namesake takes in a status under this process's own name. Its own comes back with its generation. One of
// another generation that is fresh although this process has been running for a while
// comes from a second process; one that is old is the legacy of a former process, and if
// that ran by a later clock, others hold it for newer until this one passes it.
func (d *Detector) namesake(r *findings, h held, now schema.Instant) {
	if h.Generation == d.own.Generation {
		return
	}
	if h.Age.D() <= sayingSoNow {
		if now.Sub(d.startedAt) > conflictAfter {
			d.conflict(r, d.cfg.Name, true, now)
		}
		return
	}
	if h.Generation > d.own.Generation {
		d.log.Info("others hold a later status of a former process of this name; passing it",
			zap.String("former instance", h.Status.Instance))
		d.own.Generation = h.Generation + 1
		d.meta.Generation = d.own.Generation
		d.encodeMeta()
		poke(d.metaNow)
		poke(d.sendNow)
	}
}

func (d *Detector) conflict(r *findings, name string, certain bool, now schema.Instant) {
	if d.conflicts.note(name, certain, now) {
		r.newConflict = append(r.newConflict, name)
		r.changed = true
	}
}

// tell logs what process has found out.
func (d *Detector) tell(r findings, transitions []transition) {
	for _, t := range transitions {
		fields := []zap.Field{zap.String("peer", t.name), zap.String("kind", t.kind),
			zap.String("was", string(t.from)), zap.Duration("silent for", round(t.silence))}
		switch t.to {
		case schema.LivenessDead:
			d.log.Warn("peer is dead", fields...)
		case schema.LivenessSuspect:
			d.log.Debug("peer is suspect", fields...)
		default:
			d.log.Info("peer is "+string(t.to), fields...)
		}
	}
	for _, name := range r.newConflict {
		d.log.Error("two live processes have the same name; stop one of them or give it another name (option name)",
			zap.String("name", name), zap.Bool("own name", name == d.cfg.Name))
	}
	for _, f := range r.foreign {
		d.log.Warn(f + "; refused. Give each cluster its own gossip addresses")
	}
	if len(r.malformed) > 0 {
		var texts []string
		for _, err := range r.malformed {
			texts = append(texts, err.Error())
		}
		// Through the same sieve as memberlist's lines: a sender that is broken is so several times a second.
		d.logs.logger().Print("[WARN] " + strings.Join(texts, "; "))
	}
}
