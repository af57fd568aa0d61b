package router

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"howdah/consul/schema"
	"howdah/router/wire"
)

// gate holds sessions while the router is paused. Whoever shuts it looks at each session afterwards, under the session's lock, and a session looks at
// the gate under that lock too: either the session sees the gate shut, or the other one sees the session at work.
type gate struct {
	mu sync.Mutex
	// opened is closed when the gate opens; nil while it is open.
	opened atomic.Pointer[chan struct{}]
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened.Load() == nil {
		ch := make(chan struct{})
		g.opened.Store(&ch)
	}
}

// open reports whether the gate was shut.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	ch := g.opened.Swap(nil)
	if ch != nil {
		close(*ch)
	}
	return ch != nil
}

// held returns what is closed when the gate opens; nil if it is open.
func (g *gate) held() <-chan struct{} {
	if ch := g.opened.Load(); ch != nil {
		return *ch
	}
	return nil
}

// account is what the administration knows of one client beside the session itself.
type account struct {
	id    uint64    // of the registry's lock; does not change after admission
	since time.Time // wall clock, for people
	begun schema.Instant

	fromClient, fromServer atomic.Uint64
	waited                 atomic.Int64 // nanoseconds, once there is a server

	// passed: the session is beyond the gate although it may not have a server yet. Of the client's lock.
	passed bool
	// stuck: the session has something to send and is held.
	stuck atomic.Bool
	// ended: the session ends. over is closed then, so that one that is held ends too; it is made when somebody asks for it.
	ended atomic.Bool
	mu    sync.Mutex
	over  chan struct{}
}

func (r *Router) newAccount() *account {
	return &account{since: time.Now(), begun: r.now()}
}

// release lets a session that is held go to its end.
func (a *account) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended.Swap(true) && a.over != nil {
		close(a.over)
	}
}

// released reports whether the session has been let go to its end.
func (a *account) released() bool { return a.ended.Load() }

// end returns what is closed when the session is let go to its end.
func (a *account) end() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == nil {
		a.over = make(chan struct{})
		if a.ended.Load() {
			close(a.over)
		}
	}
	return a.over
}

// held says how long a session waits: until resumed is closed, or recalled, if it is not nil, which says that its client has cancelled what it waits with.
type held struct{ resumed, recalled <-chan struct{} }

// wait returns true when the session may go on, false when it ends first.
func (a *account) wait(h held) bool {
	a.stuck.Store(true)
	defer a.stuck.Store(false)
	select {
	case <-h.resumed:
		return true
	case <-h.recalled:
		return true
	case <-a.end():
		return false
	}
}

// mustWait returns what is waited for where a session would begin a transaction with a message of this type, resumed being nil if it may do so now: it waits
// while the router is paused, while its primary is about to stop, and while a cancel request is on its way there for what was asked before. Afterwards it asks
// again. The client's lock is held. A goodbye begins nothing.
func (c *client) mustWait(first byte) held {
	if s := c.server; s != nil && s.cancels.n > 0 && s.cancels.aimed && first != 'X' && !c.machine.Busy() {
		return c.holdBack(s.cancels.none)
	}
	resumed := c.r.gate.held()
	if resumed == nil {
		resumed = c.r.stops.held(c.backend)
	}
	if resumed == nil || first == 'X' || !c.untouched() {
		return held{}
	}
	return c.holdBack(resumed)
}

// hold waits while the router is paused, and reports whether it had to.
func (c *client) hold(search context.Context) (held bool, err error) {
	for {
		c.mu.Lock()
		resumed := c.r.gate.held()
		c.account.passed = resumed == nil
		c.mu.Unlock()
		if resumed == nil {
			return held, nil
		}
		held = true
		select {
		case <-resumed:
		case <-search.Done():
			return held, c.calledOff(search)
		}
	}
}

// atRest reports whether the session does nothing that a paused router waits for. A replication stream has no end to wait for.
func (c *client) atRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending != nil:
		return true
	case c.server == nil: // with it or without it the session is at the gate
		return !c.account.passed && !c.auto.atWork()
	}
	return c.machine.Idle() && !c.auto.atWork() || c.machine.Replicating()
}

// Pause implements console.Router: new sessions wait, and running ones before their next transaction, until Resume. It returns when all
// are at rest, or after DrainTimeout, or when ctx ends; the router stays paused in any case.
func (r *Router) Pause(ctx context.Context) (busy int, waited time.Duration) {
	r.gate.shut()
	begun := r.now()
	r.log.Info("router is paused", zapSessions(r.sessions.count()))
	deadline := time.NewTimer(r.live().DrainTimeout)
	defer deadline.Stop()
	step := time.NewTicker(drainStep)
	defer step.Stop()
	for last := false; ; {
		busy = 0
		for _, c := range r.sessions.all() {
			if !c.atRest() {
				busy++
			}
		}
		if busy == 0 || last {
			return busy, r.now().Sub(begun).Round(time.Millisecond)
		}
		select {
		case <-step.C:
		case <-deadline.C:
			last = true
		case <-ctx.Done():
			last = true
		}
	}
}

// Resume implements console.Router.
func (r *Router) Resume() bool {
	was := r.gate.open()
	if was {
		r.log.Info("router goes on after a pause")
	}
	return was
}

// Kill implements console.Router.
func (r *Router) Kill(id uint64) bool {
	for _, c := range r.sessions.all() {
		if c.account.id == id {
			c.end(ending{ofServer: true, err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection due to administrator command")})
			return true
		}
	}
	return false
}

// Shutdown implements console.Router.
func (r *Router) Shutdown() {
	select {
	case r.finish <- struct{}{}:
	default: // it is on its way
	}
}
