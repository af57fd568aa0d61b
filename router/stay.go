package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/route"
	"howdah/router/topology"
)

// A session stays with the standby that it reads from, for a change costs it a login. It changes where that one does not show what it must see and another
// does, and for balance. Whatever the session has seen, by then on its old standby or on the primary, the new one must show.

const (
	// behindFor is how long a standby must have been of no use to its session before that looks for another one: longer than it takes a healthy one to replay.
	behindFor = 500 * time.Millisecond
	// balanceEvery is about how often a session looks whether another standby has less to do.
	balanceEvery = 10 * time.Second
)

// balanceAgain is when a session looks next whether another standby has less to do. Sessions that change together do not look together.
func (r *Router) balanceAgain() schema.Instant {
	every := r.o.balanceEvery
	if every == 0 {
		every = balanceEvery
	}
	return r.now().Add(every/2 + rand.N(every))
}

// stay returns the session's standby, or the one that it changes to; nil if neither shows what it must see.
func (a *auto) stay(t *topology.Topology, c route.Consistency, wait context.Context) *reader {
	now := a.c.r.now()
	if a.shows(t, c, wait) {
		a.behind = schema.Never
		if now.Before(a.balanceAt) {
			return a.reader
		}
		a.balanceAt = a.c.r.balanceAgain()
		if !a.change(t, c, wait, a.reader) {
			return a.reader // it showed all that it had to when it was asked
		}
	} else {
		if a.behind == schema.Never {
			a.behind = now
		}
		if now.Sub(a.behind) < behindFor || now.Before(a.retryAt) || !a.change(t, c, wait, nil) {
			return nil
		}
	}
	if !a.shows(t, c, context.Background()) {
		return nil
	}
	return a.reader
}

// shows reports whether the session's standby shows what it must see.
func (a *auto) shows(t *topology.Topology, c route.Consistency, wait context.Context) bool {
	for {
		a.offer(t, a.reader, nil)
		if a.c.r.reads.Choose(wait, &a.mark, c, a.readers, bound(t)) < 0 {
			return false
		}
		if !a.seen || c != route.Session {
			return true
		}
		a.remember()
		wait = context.Background()
	}
}

// beginMark has the session see what the primary had when it began. That does not keep it from learning the functions before: without them its first statement
// could keep it on the primary.
func (a *auto) beginMark(began schema.Instant) {
	if a.mark.Empty() && a.c.r.o.OwnPassword != nil { // without it nobody knows what a standby has
		a.mark.Wrote(began, a.c.backend.epoch)
		a.young = true
	}
}

// remember makes all that the session has seen a part of what it must see.
func (a *auto) remember() {
	a.mark.Wrote(a.c.r.now(), a.c.backend.epoch)
	a.seen, a.shown = false, false
}

// change gives the session another standby, if one is known to show what it must see: its writes, and, within the time that a read may wait, all that it has
// read. If lighter is not nil only one that has less to do than that.
func (a *auto) change(t *topology.Topology, c route.Consistency, wait context.Context, lighter *reader) bool {
	a.offer(t, nil, a.reader)
	if lighter != nil {
		a.offerLighter(lighter)
	}
	i := a.c.r.reads.Choose(wait, &a.mark, c, a.readers, bound(t))
	if i < 0 {
		return false
	}
	to := a.readers[i]
	if c != route.Session {
		a.seen = a.seen || a.shown
		return a.connect(to, lighter)
	}
	if a.seen || a.shown {
		a.remember()
		a.readers = append(a.readers[:0], to)
		if a.c.r.reads.Choose(context.Background(), &a.mark, c, a.readers, bound(t)) < 0 {
			return false
		}
	}
	return a.connect(to, lighter)
}

// offer sets the standbys that may be chosen from: all without one, or only the one that the session is connected to.
func (a *auto) offer(t *topology.Topology, only, without *reader) {
	a.readers = a.readers[:0]
	for i := range t.Standbys {
		s := &t.Standbys[i]
		is := func(rd *reader) bool { return s.Member == rd.member && s.Address == rd.address }
		if !s.Fresh || only != nil && !is(only) || without != nil && is(without) {
			continue
		}
		r := route.Reader{Candidate: candidate(*s, 0), Address: s.Address}
		if only != nil {
			r.Since = only.since
		} else {
			r.Sessions = a.c.r.sessions.onMember(s.Member)
		}
		a.readers = append(a.readers, r)
	}
}

// offerLighter takes those from the offer that have not less to do.
func (a *auto) offerLighter(than *reader) {
	own, kept := a.c.r.sessions.onMember(than.member), a.readers[:0]
	for _, r := range a.readers {
		if route.Lighter(r.Sessions, own) {
			kept = append(kept, r)
		}
	}
	a.readers = kept
}

// connect makes a connection to the standby, in place of the one that the session has. If lighter is not nil it must have less to do than that standby.
func (a *auto) connect(to route.Reader, lighter *reader) bool {
	at := backend{member: to.Member, address: to.Address, role: schema.RoleStandby}
	if !a.c.r.sessions.borrow(a.c, at, lighter) {
		return false
	}
	if lighter != nil {
		defer a.c.r.sessions.left(lighter)
	}
	ctx, done := a.dialing()
	rd, err := a.c.openReader(ctx, at)
	if err != nil {
		a.c.r.sessions.giveBack(a.c, at)
		if done() {
			a.retryAt = a.c.r.now().Add(retryFirst) // what follows is not to wait for the same
			return false
		}
		a.c.log().Debug("no connection to a standby for the session's reads", zap.String("member", to.Member), zap.Error(err))
		a.retryAt = a.c.r.now().Add(a.retryFor)
		a.retryFor = min(2*a.retryFor, retryLast)
		var no *errNoLogin
		if errors.As(err, &no) {
			a.pinToServer()
		}
		return false
	}
	a.retryFor, a.behind, a.balanceAt = retryFirst, schema.Never, a.c.r.balanceAgain()
	_, rd.reset = a.tracker.SettingsVersion()
	a.c.mu.Lock()
	old, ended := a.reader, a.c.ending != nil
	if !ended {
		a.reader = rd
	}
	a.c.mu.Unlock()
	done()
	if ended {
		a.c.r.sessions.giveBack(a.c, at)
		rd.conn.Close()
		return false
	}
	if old != nil {
		a.c.r.sessions.giveBack(a.c, old.backend)
		old.close()
	}
	return true
}
