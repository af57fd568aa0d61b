package own

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// The pause after a failure to connect doubles from the first to the last of these.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	// goodbyeTimeout bounds the Terminate to a server that may not read it.
	goodbyeTimeout = 100 * time.Millisecond
)

// errCancel is what pgx gets when it wants to connect once more, to send a cancel request for a statement of ours: statement_timeout ends
// that anyway.
var errCancel = errors.New("no cancel requests")

// line is the connection to one server for one use.
type line struct {
	c      *Connections
	server Server
	gone   context.Context
	log    *zap.Logger
	open   atomic.Bool

	turn chan struct{} // holds one token: whoever has it uses what follows
	conn *pgx.Conn
	// release undoes what cuts the connection off when the server leaves the picture, and reset cuts it off now.
	release func() bool
	reset   func()
	pause   time.Duration
	retryAt schema.Instant
	failure error // of the last attempt to connect
}

func newLine(c *Connections, s Server, use Use, gone context.Context) *line {
	l := &line{
		c: c, server: s, gone: gone, turn: make(chan struct{}, 1),
		log: c.o.Log.With(zap.String("member", s.Member), zap.String("address", s.Address), zap.String("use", string(use))),
	}
	l.turn <- struct{}{}
	return l
}

func (l *line) do(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { l.turn <- struct{}{} }()
	if l.conn != nil {
		err := f(ctx, l.conn)
		if err == nil || !lost(l.conn, err) {
			return err
		}
		l.drop()
		if ctx.Err() != nil {
			return err
		}
	}
	if err := l.connect(ctx); err != nil {
		return err
	}
	err := f(ctx, l.conn)
	if err != nil && lost(l.conn, err) {
		l.drop()
	}
	return err
}

// connect opens the connection, unless a failure was a moment ago.
func (l *line) connect(ctx context.Context) error {
	if l.failure != nil && l.c.o.Now().Before(l.retryAt) {
		return l.failure
	}
	err := l.dial(ctx)
	switch {
	case err == nil:
		l.c.opened.Add(1)
		if l.failure != nil {
			l.log.Info("the router's own connection is there again")
		}
		l.failure, l.pause = nil, 0
		return nil
	case ctx.Err() != nil:
		// Who waited has gone, or the time was too short to tell anything.
		return err
	}
	l.c.failed.Add(1)
	if l.failure == nil {
		l.log.Warn("the router's own connection cannot be opened", zap.Error(err))
	}
	l.failure = err
	l.pause = min(max(2*l.pause, firstPause), lastPause)
	l.retryAt = l.c.o.Now().Add(l.pause)
	return err
}

func (l *line) dial(ctx context.Context) error {
	cfg, err := l.c.config(l.server.Address)
	if err != nil {
		return err
	}
	dialing, stop := context.WithTimeout(ctx, l.c.o.DialTimeout)
	defer stop()
	var raw *net.TCPConn
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		if raw != nil {
			return nil, errCancel
		}
		conn, socket, err := l.c.o.dial(ctx, l.server.Address) // with its name, which a certificate shows
		if err != nil {
			return nil, err
		}
		raw = socket
		return conn, nil
	}
	conn, err := pgx.ConnectConfig(dialing, cfg)
	if err != nil {
		return err
	}
	l.conn = conn
	l.reset = func() {
		// What the kernel still holds for the server is thrown away.
		_ = raw.SetLinger(0)
		_ = raw.Close()
	}
	l.release = context.AfterFunc(l.gone, func() {
		l.reset()
		l.open.Store(false)
	})
	l.open.Store(l.gone.Err() == nil)
	return nil
}

func (o Options) dial(ctx context.Context, address string) (net.Conn, *net.TCPConn, error) {
	if o.Dial != nil {
		return o.Dial(ctx, address)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	return conn, conn.(*net.TCPConn), nil // a dialler of "tcp" makes no other
}

// leave drops the connection if nobody uses it.
func (l *line) leave() {
	select {
	case <-l.turn:
	default:
		return
	}
	if l.conn != nil {
		l.drop()
	}
	l.turn <- struct{}{}
}

// drop ends the connection and returns once nothing of it is left.
func (l *line) drop() {
	l.release()
	if l.gone.Err() == nil && !l.conn.IsClosed() {
		ctx, stop := context.WithTimeout(context.Background(), goodbyeTimeout)
		_ = l.conn.Close(ctx)
		stop()
	}
	l.reset()
	if l.conn.IsClosed() {
		<-l.conn.PgConn().CleanupDone()
	}
	l.conn = nil
	l.open.Store(false)
}

// lost reports whether a connection is of no more use after err.
func lost(c *pgx.Conn, err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) && (said.Severity == "FATAL" || said.SeverityUnlocalized == "FATAL") {
		return true
	}
	return c.IsClosed() || c.PgConn().IsBusy()
}
