package decide

import (
	"fmt"
	"slices"
	"strings"

	"howdah/consul/schema"
)

// Cloning is the clone that a member makes, or waits to make.
type Cloning struct {
	From Upstream
	// Since is since when the others may have heard of it.
	Since schema.Instant
	Why   string
}

// clone has the data directory replaced by a copy. The copy follows up, the holder of the lock; it is taken from up too,
// or from a standby of up that is there to be copied. A source is copied by so many members at a time as the
// configuration allows. Nobody hands out turns: each member says what it wants, waits a beat so that all have heard, and
// goes by what it has heard. Messages that are lost may let two go at once, which costs time and harms nothing.
//
// A rewind neither waits nor counts: it copies what differs, and it is how a primary that has failed comes back.
func (d *decision) clone(up Upstream, why string) {
	if busy := d.o.Busy[SlotPostgres]; busy == Clone || busy == Rewind {
		return // tellClone or tellRewind speaks
	}
	if d.heldBack(Clone) { // others may go meanwhile
		d.say(schema.StateWaiting, "waiting to clone again: %s", why)
		return
	}
	c := &d.m.Clone
	if from := d.cloneSource(up); c.From != from {
		*c = Cloning{From: from, Since: d.o.Now}
	}
	c.Why = why
	d.plan.CloneFrom = c.From.Member
	if wait := d.cloneTurn(); wait != "" {
		d.say(schema.StateWaiting, "waiting to clone from %s: %s; %s", c.From.Member, wait, why)
		return
	}
	a := Action{Kind: Clone, From: c.From, Holder: up, Why: why}
	if a.Keeps = d.keepsCopy(up); d.o.RemoveFirst && a.Keeps == "" {
		a.RemoveFirst, a.At = true, d.o.Lock
	}
	d.do(a)
	d.say(schema.StateCloning, "cloning from %s: %s", c.From.Member, why)
}

// tellClone says what a clone that runs is doing, whatever else this member waits for, and forgets one that is
// no longer wanted.
func (d *decision) tellClone() {
	c := &d.m.Clone
	switch {
	case d.o.Busy[SlotPostgres] == Clone:
		d.plan.CloneFrom = c.From.Member
		why := c.Why
		if d.o.Data.Removed && why != removedCopy {
			why = removedCopy + "; " + why
		}
		d.plan.State, d.plan.Reason = schema.StateCloning, fmt.Sprintf("cloning from %s: %s", c.From.Member, why)
	case d.plan.CloneFrom == "":
		*c = Cloning{}
	}
}

// cloneTurn returns for whom a clone has to wait; nothing if it may begin.
func (d *decision) cloneTurn() string {
	c, most := d.m.Clone, d.o.Config.ClonesPerSource()
	var under, before []string
	for _, p := range d.o.Peers {
		switch {
		case p.Status.CloneFrom != c.From.Member || !d.speaks(p):
		case p.Status.State == schema.StateCloning:
			under = append(under, p.Name)
		case p.Name < d.o.Name:
			before = append(before, p.Name)
		}
	}
	switch {
	case len(under) >= most:
		return fmt.Sprintf("%s is being cloned from it (max_clones_per_source is %d)", strings.Join(under, ", "), most)
	case len(under)+len(before) >= most:
		return fmt.Sprintf("it is the turn of %s (max_clones_per_source is %d)", strings.Join(append(under, before...), ", "), most)
	case d.o.Now.Sub(c.Since) < schema.RenewInterval(d.o.lease()):
		return "others may be about to"
	}
	return ""
}

// speaks reports a member that is alive and was heard lately: what it wants counts.
func (d *decision) speaks(p schema.Peer) bool {
	return p.Liveness == schema.LivenessAlive && d.o.Now.Sub(p.HeardAt) < d.o.lease()
}

// cloneSource returns whom to copy: of the standbys that are there for it the one that fewest are cloned from, or up
// if there is none, if the last attempt has failed, or if the record counts on what we have flushed: a standby may lack
// a commit that we acknowledged, and then F1 would no longer hold.
func (d *decision) cloneSource(up Upstream) Upstream {
	if r := d.m.Retries[SlotPostgres]; r.Kind == Clone && r.Count > 0 || slices.Contains(d.o.Lock.Leader.Sync.Standbys, d.o.Name) {
		return up
	}
	best, least := up, 0
	for _, p := range d.o.Peers {
		if !d.mayBeCopied(p, up.Member) {
			continue
		}
		from := Upstream{Member: p.Name, Address: p.Status.Addresses.Postgres}
		if from == d.m.Clone.From {
			return from // what others have heard of counts
		}
		if n := d.clonesFrom(p.Name); best == up || n < least {
			best, least = from, n
		}
	}
	return best
}

// clonesFrom counts the members that are cloned from one, or wait to be.
func (d *decision) clonesFrom(name string) int {
	n := 0
	for _, p := range d.o.Peers {
		if p.Status.CloneFrom == name && d.speaks(p) {
			n++
		}
	}
	return n
}

// mayBeCopied reports a standby that has what the holder of the lock has (I7): it says so itself, lately, in this epoch.
// The copying then asks both servers.
func (d *decision) mayBeCopied(p schema.Peer, holder string) bool {
	s, l := p.Status, d.o.Lock.Leader
	return s.Tags.CloneFrom && d.speaks(p) && s.Role == schema.RoleStandby && s.State == schema.StateStreaming &&
		s.Upstream == holder && s.Epoch == l.Epoch && s.Timeline == l.Timeline && s.SystemID == d.o.State.Initialize.Value.SystemID &&
		s.LSN.Behind(l.FlushLSN) <= d.o.Config.MaximumLagOnFailover && s.Addresses.Postgres != ""
}
