package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/router/route"
	"howdah/router/rule"
	"howdah/router/wire"
)

func (r *Router) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: r.o.KeepAliveIdle, Interval: r.o.KeepAliveInterval, Count: r.o.KeepAliveCount}
}

// setUserTimeout sets TCP_USER_TIMEOUT; Go's net package has no call for it. TCP_NODELAY is Go's
// default.
func (r *Router) setUserTimeout(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(r.live().TCPUserTimeout.Milliseconds()))
	})
	return errors.Join(err, failed)
}

func (r *Router) listen() error {
	lc := net.ListenConfig{KeepAliveConfig: r.keepAlive()}
	if r.o.ReusePort {
		lc.SetMultipathTCP(false) // Go's default; no filter can be attached to such a socket (handover.go)
		lc.Control = func(_, _ string, raw syscall.RawConn) error { return setReusePort(raw) }
	}
	for of, address := range r.o.listenAddresses() {
		l, err := lc.Listen(context.Background(), "tcp", address)
		if err != nil {
			return fmt.Errorf("router: cannot listen for %s sessions; choose a free port: %w", of, err)
		}
		r.listeners[of] = l
	}
	if err := r.listenUnix(); err != nil {
		return err
	}
	if r.o.APIListen != "" {
		l, err := lc.Listen(context.Background(), "tcp", r.o.APIListen)
		if err != nil {
			return fmt.Errorf("router: cannot listen for the API; choose a free port with api-listen: %w", err)
		}
		r.api = l
	}
	return nil
}

// closeListeners stops admitting clients. The API, if it is served, is closed with its server.
func (r *Router) closeListeners() {
	for _, l := range r.listeners {
		l.Close()
	}
	for _, l := range r.sockets {
		l.Close()
	}
}

// acceptPause is how long the router waits when the system has no more file descriptors.
const acceptPause = 50 * time.Millisecond

func (r *Router) accept(ctx context.Context, l net.Listener, of route.Route) error {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case r.draining.Load():
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			r.log.Warn("a client cannot be accepted; raise the limit of open files", zap.Error(err))
			if !pause(ctx, acceptPause) {
				return nil
			}
			continue
		case errors.Is(err, syscall.ECONNABORTED):
			continue
		default:
			return err
		}
		link := newLink(conn.(socket)) // listeners make no others
		if !r.takes(link) {
			r.metrics.refused(wire.CodeTooManyConnections)
			link.reset()
			link.Close()
			continue
		}
		r.work.Go(func() { r.serve(ctx, link, of) })
	}
}

// takes counts a connection as one that has not said what it wants; false if there are too many of those.
func (r *Router) takes(conn *link) bool {
	if r.unstarted.Add(1) > maxUnstarted {
		r.unstarted.Add(-1)
		return false
	}
	if !r.sessions.arrive(conn.address(), r.live().limits) {
		r.unstarted.Add(-1)
		r.metrics.limited(rule.LimitAddress)
		r.log.Debug("connection reset, as there are too many of its address", zap.Stringer("client", conn.from()))
		return false
	}
	return true
}

// pause waits for d; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
