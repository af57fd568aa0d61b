package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/router/route"
	"howdah/router/scram"
	"howdah/router/wire"
)

// errClientGone is a client that closed its connection while it waited.
var errClientGone = errors.New("the client has gone")

// notYet is a server's answer that means: not now. The session tries on.
type notYet struct{ said wire.Error }

func (e *notYet) Error() string { return "the server says: " + e.said.Message }

// The pause between two attempts doubles from the first to the last of these; a change of the
// picture ends it early.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// connect finds a server, gives it the startup packet and reads the beginning of its answer. It
// waits for a server up to FailoverWait; then the error is a *wire.Error with 57P03. What the
// client sent meanwhile is returned as early, the answer's beginning as first.
func (c *client) connect(ctx context.Context) (early, first *chunk, err error) {
	search, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.mu.Lock()
	c.search = stop
	ended := c.ending != nil
	c.mu.Unlock()
	if ended {
		stop(errEnded)
	}
	c.callOff = stop
	c.watcher = c.watch(stop, newChunk())
	defer func() {
		early = c.watcher.end(c.conn)
		if c.watcher.gone && err == nil {
			// Found out only now; the session is relayed to its quick end.
			err = errClientGone
			c.stopLogin()
			c.server.Close()
			c.r.sessions.leave(c)
		}
		if err != nil {
			early.free()
			first.free()
		}
	}()
	counted := sync.OnceFunc(func() { c.r.metrics.admitted(c.follows.route) })
	defer counted()
	deadline := time.Now().Add(c.r.live().FailoverWait)
	failed := map[string]bool{}
	var last error
	pauseFor := firstPause
	for {
		if held, err := c.hold(search); err != nil {
			return nil, nil, err
		} else if held {
			deadline = time.Now().Add(c.r.live().FailoverWait)
		}
		changed := c.r.picture.next()
		c.takeRoute(search)
		counted()
		b, found, why := c.r.sessions.choose(c, c.r.picture.now.Load(), c.r.live().ReadOnlyFallback, failed)
		if found {
			first, last = c.try(search, b, &deadline)
			if last == nil {
				return nil, first, nil
			}
			c.r.sessions.leave(c)
			var end final
			if errors.As(last, &end) {
				return nil, nil, end.error
			}
			c.r.metrics.retried(c.follows.route)
			c.log().Debug("no session with this server", zap.String("member", b.member), zap.Error(last))
			if c.follows.route == route.RO && !failed[b.member] {
				failed[b.member] = true
				continue // another one may do at once
			}
			why = fmt.Sprintf("%s at %s: %s", b.member, b.address, last)
		}
		clear(failed)
		if err := c.waitForServer(search, changed, deadline, pauseFor, found, why); err != nil {
			return nil, nil, err
		}
		pauseFor = min(2*pauseFor, lastPause)
	}
}

// waitForServer returns nil when it is time to look again: after a change, or a pause if a server
// was there that could not be used.
func (c *client) waitForServer(search context.Context, changed <-chan struct{}, deadline time.Time, pauseFor time.Duration, found bool, why string) error {
	left := time.Until(deadline)
	if found {
		left = min(left, pauseFor)
	}
	t := time.NewTimer(max(left, 0))
	defer t.Stop()
	select {
	case <-search.Done():
		return c.calledOff(search)
	case <-changed:
		if time.Now().Before(deadline) {
			return nil
		}
	case <-t.C:
		if time.Now().Before(deadline) {
			return nil
		}
	}
	if search.Err() != nil {
		return c.calledOff(search)
	}
	kind := "primary"
	if c.follows.route == route.RO {
		kind = "server"
	}
	return wire.Fatal(wire.CodeCannotConnectNow, "no %s is available: %s", kind, why).
		WithDetail("The router waited %s.", c.r.live().FailoverWait).WithHint("Try again later.")
}

// calledOff is why a search ended before its time.
func (c *client) calledOff(search context.Context) error {
	if errors.Is(context.Cause(search), errClientGone) {
		return errClientGone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil {
		return c.ending.err
	}
	return shuttingDown()
}

// try gives the startup packet to b and returns the beginning of its answer, with the session
// begun. It holds no more than one attempt, bounded by deadline but never by less than DialTimeout. The time in which a client proves who it is
// does not count; deadline is set anew after it.
func (c *client) try(search context.Context, b backend, deadline *time.Time) (*chunk, error) {
	ctx, cancel := context.WithCancelCause(search)
	defer cancel(nil)
	c.mu.Lock()
	c.attempt = cancel
	c.mu.Unlock()
	// The session is registered with b already: either this look sees a change, or the sweep that
	// follows the change finds the session.
	if keep, why := b.kept(c.r.picture.now.Load()); !keep {
		return nil, errors.New(why)
	}
	timer := time.AfterFunc(max(time.Until(*deadline), c.r.live().DialTimeout), func() { cancel(os.ErrDeadlineExceeded) })
	defer timer.Stop()
	settings := c.askSettings(ctx, b)
	server, err := c.r.dialServer(ctx, b.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { server.socket.SetDeadline(past) })
	c.beginWith(ctx, b, settings)
	first, err := c.knock(server)
	if err == nil && (c.endsSCRAM() || c.vouched || server.showed) {
		err = c.logIn(server, first, authenticator{
			ours: func() bool { return c.endsSCRAM() && c.ours(search) },
			prove: func(by scram.Asked) error {
				timer.Stop()
				defer timer.Reset(c.r.live().DialTimeout)
				err := c.authenticate(search, by)
				if c.authenticated() {
					*deadline = time.Now().Add(c.r.live().FailoverWait)
				}
				return err
			},
		})
	}
	if err == nil && stop() && c.begin(ctx, server) {
		return first, nil
	}
	stop()
	first.free()
	var end final
	if errors.As(err, &end) {
		server.Close() // in order: it has nothing to log
		return nil, err
	}
	server.reset()
	server.Close()
	if err == nil || ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// knock sends the startup packet and reads the beginning of the answer. If that is an error that
// says "not now", it is an *notYet and nothing of it has gone to the client.
func (c *client) knock(server *link) (*chunk, error) {
	if _, err := server.Write(c.packet); err != nil {
		return nil, err
	}
	in := newChunk()
	need := wire.HeaderSize
	for in.w < need {
		n, err := server.Read(in.b[in.w:])
		in.w += n
		if in.w >= wire.HeaderSize && in.b[0] == 'E' {
			need = min(wire.ParseHeader(in.b[:]).Size(), len(in.b))
		}
		if err != nil && in.w < need {
			if errors.Is(err, io.EOF) && in.w > 0 {
				return in, nil // what a postmaster says that cannot fork has no proper header
			}
			in.free()
			return nil, fmt.Errorf("no answer to the startup packet: %w", err)
		}
	}
	if in.b[0] == 'E' && need > wire.HeaderSize && need <= in.w {
		if said, err := wire.ParseError(in.b[wire.HeaderSize:need]); err == nil && refusal(said.Code) {
			in.free()
			return nil, &notYet{said: said}
		}
	}
	return in, nil
}

// refusal reports whether a server that answers a startup packet so may take it later, or another
// server now: it starts, stops, or has just been stopped.
func refusal(code string) bool {
	return code == wire.CodeCannotConnectNow || code == wire.CodeAdminShutdown || code == wire.CodeCrashShutdown
}

// watcher reads from a client that waits for a server, so that its going away is noticed.
type watcher struct {
	done chan struct{}
	in   *chunk
	gone bool
}

// watch reads on into in.
func (c *client) watch(stop context.CancelCauseFunc, in *chunk) *watcher {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	w := &watcher{done: make(chan struct{}), in: in}
	go func() {
		defer close(w.done)
		for w.in.w < len(w.in.b) {
			n, err := c.conn.Read(w.in.b[w.in.w:])
			w.in.w += n
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					w.gone = true
					stop(errClientGone)
				}
				return
			}
		}
	}()
	return w
}

// idleWatcher watches nothing.
func idleWatcher(in *chunk) *watcher {
	w := &watcher{done: make(chan struct{}), in: in}
	close(w.done)
	return w
}

// end stops watching and returns what was read.
func (w *watcher) end(conn *link) *chunk {
	conn.SetReadDeadline(past)
	<-w.done
	if !w.gone {
		conn.SetReadDeadline(time.Time{})
	}
	return w.in
}
