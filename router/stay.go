package router

import (
	"context"
	"math/rand/v2"
	"time"

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
