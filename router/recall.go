package router

import (
	"context"
	"errors"

	"howdah/router/session"
)

// A cancel request for what no server has been sent anything of is carried out here: the client is answered 57014, and the request goes nowhere. Such a
// request is one that is held back, waits for another primary, or has the router read what it must know first.

// errRecalled ends a wait of the router for a request that its client has cancelled.
var errRecalled = errors.New("the client has cancelled the request")

// untouched reports whether no server has anything of what the client sends next, nor a transaction of the session's. The client's lock is held.
func (c *client) untouched() bool {
	return c.machine.Idle() && !c.auto.inBlock() && (c.auto == nil || !c.auto.tracker.Injected())
}

// takeUp notes that what becomes of the client's request is decided now. The client's lock is held.
func (c *client) takeUp() { c.inHand, c.recall = false, nil }

// holdBack has the client's request wait for resumed. One that a server has a part of cannot be recalled. The client's lock is held.
func (c *client) holdBack(resumed <-chan struct{}) held {
	if !c.untouched() {
		return held{resumed: resumed}
	}
	c.inHand, c.recall = true, make(chan struct{})
	return held{resumed, c.recall}
}

// recallInHand cancels the request that the router has in hand. The client's lock is held.
func (c *client) recallInHand() {
	c.machine.Recall()
	c.r.metrics.cancelled("held")
	if c.recall != nil {
		close(c.recall)
	}
	c.takeUp()
	if c.search != nil {
		c.search(errRecalled)
	}
	if c.auto != nil {
		c.auto.callOff()
	}
}

// callOff ends an attempt to connect to a standby. The client's lock is held.
func (a *auto) callOff() {
	if a.dial != nil {
		a.dial(errRecalled)
	}
}

// answer gives the client what the router itself answers to a part of what it sent.
func (c *client) answer(o session.Order) error {
	if o.Err != nil {
		c.r.metrics.refused(o.Err.Code)
	}
	if len(o.Insert) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	over := c.ending != nil || c.machine.Fatal()
	c.mu.Unlock()
	if over {
		return errEnded
	}
	if n, err := c.conn.Write(o.Insert); err != nil {
		c.mid = n > 0
		return errSource{err}
	}
	return nil
}

// dialing returns a context that ends when the session's attempt to connect to a standby does before its time; done ends the attempt, and reports whether it did.
func (a *auto) dialing() (ctx context.Context, done func() bool) {
	ctx, stop := context.WithCancelCause(context.Background())
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.dial = stop; a.cancelled.Load() || c.machine.Recalling() {
		stop(errRecalled)
	}
	return ctx, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		a.dial = nil
		called := ctx.Err() != nil
		stop(nil)
		return called
	}
}
