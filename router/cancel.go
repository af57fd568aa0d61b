package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"howdah/router/wire"
)

// relayCancel brings a cancel request to the server of the session that it names, or to the router that has that session. The client's
// connection is closed afterwards, as PostgreSQL does it: the end of it says that the signal was
// sent. A key that is no session's is passed over without a word, so that none can be guessed.
func (r *Router) relayCancel(ctx context.Context, key wire.Key, log *zap.Logger) {
	if r.cancelOwn(ctx, key) || r.forwardCancel(ctx, key, log) {
		return
	}
	r.metrics.cancelled("nobody")
}

// cancelOwn carries out a cancel request for a session of this router; false if it is for none.
func (r *Router) cancelOwn(ctx context.Context, key wire.Key) bool {
	c := r.sessions.holder(key)
	if c != nil {
		c.cancel(ctx)
	}
	return c != nil
}

// CancelForwarded carries out a cancel request that another router passes on; false if it is for no session of this router. It goes no
// further, so no request goes round in circles, whatever its key says.
func (r *Router) CancelForwarded(ctx context.Context, key []byte) bool {
	k, err := wire.ParseKey(key)
	return err == nil && r.cancelOwn(ctx, k)
}

// cancels are the cancel requests that are on their way to one server connection. PostgreSQL cancels whatever runs there when one arrives, so nothing
// else is to run until then. Of the client's lock.
type cancels struct {
	none chan struct{} // closed when n is 0 again
	n    int32
	// aimed: one is for a request that was outstanding; others come too late or too early, as they do where there is no router.
	aimed bool
	// stray: one was not delivered as far as is known, and may arrive at any time.
	stray bool
}

func (s *cancels) begin(aimed bool) {
	if s.n == 0 {
		s.none, s.aimed = make(chan struct{}), false
	}
	s.n++
	s.aimed = s.aimed || aimed
}

func (s *cancels) end(delivered bool) {
	s.stray = s.stray || !delivered
	if s.n--; s.n == 0 {
		close(s.none)
		s.none = nil
	}
}

// shot is a cancel request that is on its way to a server connection.
type shot struct {
	to      *link
	address string
	key     wire.Key
}

// cancel has the client's request cancelled, by whichever server has it. If none has it yet, that is made up for.
func (c *client) cancel(ctx context.Context) {
	if s, ok := c.aim(); ok {
		c.shoot(ctx, s)
	}
}

func (c *client) aim() (shot, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil {
		return shot{}, false
	}
	if c.inHand {
		c.recallInHand()
		return shot{}, false
	}
	if a := c.auto; a != nil && (a.busy || c.machine.HidesBlock()) {
		a.cancelled.Store(true)
		if a.at == nil {
			a.callOff()
			return shot{}, false
		}
		return a.aim(), true
	}
	return c.aimAtServer()
}

// aimAtServer begins a cancel request to the session's server. The client's lock is held.
func (c *client) aimAtServer() (shot, bool) {
	address, key, found := c.r.sessions.targetOf(c)
	if !found || c.server == nil {
		return shot{}, false
	}
	c.server.cancels.begin(c.machine != nil && c.machine.Busy())
	return shot{c.server, address, key}, true
}

// aim begins a cancel request to the standby that has the client's batch. The client's lock is held.
func (a *auto) aim() shot {
	a.at.conn.cancels.begin(true)
	return shot{a.at.conn, a.at.address, a.at.key}
}

// shoot delivers a cancel request.
func (c *client) shoot(ctx context.Context, s shot) {
	err := c.r.sendCancel(ctx, s.address, s.key)
	if err != nil {
		c.log().Info("cancel request not delivered", zap.String("server", s.address), zap.Error(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.to.cancels.end(err == nil)
}

// settled waits until no cancel request is on its way to a connection. It returns false if one may still come, or the session ends.
func (a *auto) settled(to *link) bool {
	a.c.mu.Lock()
	none, stray := to.cancels.none, to.cancels.stray
	a.c.mu.Unlock()
	if none == nil {
		return !stray
	}
	select {
	case <-none:
	case <-a.c.account.end():
		return false
	}
	return a.settled(to)
}

// catchUp sends the cancel request that came while no server had the client's request, if one has it now. dealt says that all of the request has been
// dealt with, so that it is too late if none has it any more.
func (a *auto) catchUp(dealt bool) {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.cancelled.Load() || a.busy || c.machine.HidesBlock() || c.ending != nil {
		return
	}
	busy := c.machine.Busy()
	a.cancelled.Store(!busy && !dealt)
	if !busy {
		return
	}
	if s, ok := c.aimAtServer(); ok {
		c.r.work.Go(func() { c.shoot(context.Background(), s) })
	}
}

// unhidden is called when the server has answered what takeOver sent it: from now on a cancel request finds the client's own. The client's lock is held.
func (a *auto) unhidden() {
	if a.cancelled.Load() {
		a.c.r.work.Go(func() { a.catchUp(false) })
	}
}

// cancelLeft cancels what a standby carries out for a session that has left it. The client's lock is held.
func (a *auto) cancelLeft() {
	rd := a.at
	if rd == nil || rd.left {
		return
	}
	rd.left = true
	a.c.r.work.Go(func() {
		if err := a.c.r.sendCancel(context.Background(), rd.address, rd.key); err != nil {
			a.c.log().Info("what a standby did for a session that has left it could not be cancelled", zap.String("member", rd.member), zap.Error(err))
		}
	})
}

// sendCancel delivers one cancel request and waits until the server has dealt with it, which it
// shows by closing the connection.
func (r *Router) sendCancel(ctx context.Context, address string, key wire.Key) error {
	ctx, stop := context.WithTimeout(ctx, r.live().CancelTimeout)
	defer stop()
	conn, err := r.dialServer(ctx, address)
	if err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := conn.Write(key.CancelRequest()); err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cancel request: waiting for the server to close: %w", err)
	}
	r.metrics.cancelled("server")
	return nil
}

// cancelAbandoned cancels what runs in a session whose client has vanished.
func (r *Router) cancelAbandoned(c *client) {
	address, key, found := r.sessions.targetOf(c)
	if !found {
		return
	}
	begun := time.Now()
	if err := r.sendCancel(context.Background(), address, key); err != nil {
		c.log().Info("the statement of a client that vanished could not be cancelled", zap.String("server", address), zap.Error(err))
		return
	}
	c.log().Debug("the statement of a client that vanished was cancelled", zap.Duration("took", time.Since(begun)))
}
