package router

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/route"
	"howdah/router/rule"
	"howdah/router/scram"
	"howdah/router/session"
	"howdah/router/wire"
)

// past is a deadline that has passed: it wakes a goroutine out of a read or a write.
var past = time.Unix(1, 0)

// client is one admitted client and, once there is one, its server.
type client struct {
	r    *Router
	conn *link
	// packet is the startup packet, which each of the session's servers gets; user and what follows is what it says that the router needs later.
	packet                                   []byte
	user, database, application, replication string
	login                                    *time.Timer // bounds the login; nil once that is over
	account                                  *account

	// Of the goroutine that connects: auth says who authenticates the client, method is that of the rule that matched, empty without rules; watcher reads from the client meanwhile, callOff ends the search, negotiated says that the client has been told which
	// protocol it gets. Where the router authenticates, credentials open every server of the cluster, and signature is what the client is
	// still to be told of its own proof.
	auth        AuthType
	method      rule.Method
	watcher     *watcher
	callOff     context.CancelCauseFunc
	negotiated  bool
	credentials scram.Credentials
	signature   []byte
	// early is what the client sent while it had no server, first the beginning of that's answer.
	early, first *chunk
	// vouched: the client's certificate has proved who it is, or a rule trusts it. otherName, if it is not empty, is why its certificate does not, though its rule wants that
	// beside a password.
	vouched   bool
	otherName string
	// began stands for what roles and databases set for the session when it logged in (beginWith); empty if that is not known.
	began string
	// lent: that is an answer that another session was given before this one logged in.
	lent bool
	// warnings are what the client is to be told; of the goroutine that connects, and then of that which relays the login.
	warnings *warnings

	// Of the registry's lock.
	key, serverKey wire.Key
	backend        backend
	placed         bool // the session counts as one of backend's
	identified     bool // it counts for its user and its database

	mu      sync.Mutex
	follows followed                // written with the lock held, by the goroutine that connects the session
	machine *session.Session        // nil until the session is relayed
	server  *link                   // nil while there is none
	auto    *auto                   // of a session of route auto whose statements are routed one by one, else nil
	search  context.CancelCauseFunc // ends the search for a server
	attempt context.CancelCauseFunc // ends the present attempt to reach one
	ending  *ending                 // the first reason for which the session ends, once there is one
	// inHand: the router has a request of the client's of which no server has been sent anything, while the session is idle. recall, if it is not nil, is closed when
	// that is cancelled.
	inHand bool
	recall chan struct{}

	// writing is held by whoever is giving the client a message. mid: it has got a part of one that was not its server's.
	writing sync.Mutex
	mid     bool
}

// ending is why the router ends a session.
type ending struct {
	err *wire.Error
	// ofServer: the server is cut off whatever it does, so that what it was doing may or may not
	// take effect.
	ofServer bool
	// said: err is in the words of a server.
	said bool
}

// serve deals with one connection from its first byte to its last. It and what it calls have small frames where the session is relayed: an idle session costs
// little but its stacks, and one that is used by a quarter is not made smaller.
func (r *Router) serve(ctx context.Context, conn *link, of route.Route) {
	defer conn.Close()
	c := r.receive(ctx, conn, of)
	if c == nil {
		return
	}
	defer r.sessions.dismiss(c)
	if c.connected(ctx) {
		c.relay()
		r.sessions.leave(c)
	}
}

// receive returns the client that a connection is of, admitted; nil if there is none to be served.
func (r *Router) receive(ctx context.Context, conn *link, of route.Route) *client {
	log := r.logOf(conn)
	startup, err := r.greet(ctx, conn)
	// A client is admitted first and counts as started then, so that a drain overlooks none.
	started := sync.OnceFunc(func() {
		r.unstarted.Add(-1)
		r.sessions.begun(conn.address())
	})
	defer started()
	if err != nil || startup.Kind == wire.KindCancel {
		started()
	}
	if err != nil {
		r.turnAway(conn, err, log)
		return nil
	}
	if startup.Kind == wire.KindCancel {
		r.relayCancel(ctx, startup.Key, log)
		return nil
	}
	if r.forConsole(startup) {
		r.serveConsole(ctx, conn, startup, started, log)
		return nil
	}
	c := r.newClient(conn, startup)
	if err := c.wish(startup, of); err != nil {
		r.turnAway(conn, err, log)
		return nil
	}
	if err := c.underRules(); err != nil {
		r.turnAway(conn, err, log)
		return nil
	}
	if err := c.admit(); err != nil {
		r.turnAway(conn, err, log)
		return nil
	}
	started()
	if r.draining.Load() && !r.spared(c) {
		// The drain may have looked already.
		r.turnAway(conn, shuttingDown(), log)
		r.sessions.dismiss(c)
		return nil
	}
	return c
}

// newClient returns a client that has sent that startup packet.
func (r *Router) newClient(conn *link, s wire.Startup) *client {
	return &client{
		r: r, conn: conn, account: r.newAccount(), packet: s.Raw, user: s.Parameters["user"], database: database(s), application: s.Parameters["application_name"],
		replication: s.Parameters["replication"],
	}
}

// logOf is the log with who is at the other end. It is made where something is logged, which most sessions never do.
func (r *Router) logOf(conn *link) *zap.Logger {
	return r.log.WithLazy(zap.Stringer("client", conn.from()))
}

func (c *client) log() *zap.Logger { return c.r.logOf(c.conn) }

// greet reads first packets until one says what the client wants. A client may ask for either kind of encryption once, in
// either order, and then go on; or begin with TLS at once.
func (r *Router) greet(ctx context.Context, conn *link) (wire.Startup, error) {
	conn.SetDeadline(time.Now().Add(r.live().LoginTimeout))
	stop := context.AfterFunc(ctx, func() { conn.socket.SetDeadline(past) })
	defer stop()
	if tcp, is := conn.socket.(*net.TCPConn); is {
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = r.setUserTimeout(raw)
		}
		if err != nil {
			return wire.Startup{}, err
		}
	}
	s, err := r.firstPacket(ctx, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) && !errors.As(err, new(errHandshake)) {
		return s, wire.Fatal(wire.CodeProtocolViolation, "no complete startup packet came within %s", r.live().LoginTimeout)
	}
	if err != nil {
		return s, err
	}
	return s, conn.SetDeadline(time.Time{})
}

// firstPacket returns the first packet that is no request for encryption.
func (r *Router) firstPacket(ctx context.Context, conn *link) (wire.Startup, error) {
	asked := map[wire.Kind]bool{}
	if b, err := conn.first(); err != nil {
		return wire.Startup{}, err
	} else if b == wire.TLSHandshake && r.tls != nil && !conn.local() {
		asked[wire.KindSSL], asked[wire.KindGSS] = true, true
		if err := r.handshake(ctx, conn, true); err != nil {
			return wire.Startup{}, err
		}
	}
	for {
		s, err := wire.ReadStartup(conn)
		switch {
		case err != nil:
			return s, err
		case s.Kind != wire.KindSSL && s.Kind != wire.KindGSS:
			return s, r.encrypted(conn, s)
		case asked[s.Kind]:
			return s, wire.Fatal(wire.CodeProtocolViolation, "a second %s on one connection", s.Kind)
		}
		asked[s.Kind] = true
		if s.Kind == wire.KindSSL {
			err = r.answerSSL(ctx, conn)
			asked[wire.KindGSS] = asked[wire.KindGSS] || conn.tls != nil
		} else {
			_, err = conn.Write([]byte{'N'})
		}
		if err != nil {
			return s, err
		}
	}
}

// turnAway ends a connection that never became a session.
func (r *Router) turnAway(conn *link, err error, log *zap.Logger) {
	var told *wire.Error
	switch {
	case errors.As(err, &told):
		r.metrics.refused(told.Code)
		log.Info("client turned away", append(why(err), zap.String("sqlstate", told.Code), zap.String("reason", told.Message))...)
		r.farewell(conn, told)
	case errors.Is(err, wire.ErrDirectTLS), errors.As(err, new(errHandshake)) && !handshakeEnded(err):
		log.Info("client turned away", append(why(err), zap.Error(err))...)
		r.linger(conn.socket)
	case errors.Is(err, io.EOF):
		log.Debug("connection closed before a startup packet") // a health check, most likely
	default:
		log.Debug("connection lost before a startup packet was complete", zap.Error(err))
	}
}

func shuttingDown() *wire.Error {
	return wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the router is shutting down").
		WithHint("Connect again.")
}

// maxDiscard is how much of what a client is still sending is read after a farewell.
const maxDiscard = 1 << 20

// farewell writes a last error. Closing with unread data would make the kernel send a reset, which
// can destroy the error before the client has read it; so what comes is read until the client
// closes, for a bounded time.
func (r *Router) farewell(conn *link, e *wire.Error) {
	conn.SetDeadline(time.Now().Add(r.live().FarewellTimeout))
	if _, err := conn.Write(e.Append(nil)); err != nil {
		return
	}
	if err := conn.CloseWrite(); err != nil {
		return
	}
	io.CopyN(io.Discard, conn, maxDiscard)
}

// linger is the end of farewell for a client whose last word was TLS's own: an alert.
func (r *Router) linger(conn socket) {
	conn.SetDeadline(time.Now().Add(r.live().FarewellTimeout))
	if conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn, maxDiscard)
	}
}

// connected finds a server for an admitted client. It returns false if the session ends before it has begun.
func (c *client) connected(ctx context.Context) bool {
	begun := time.Now()
	var err error
	c.early, c.first, err = c.connect(ctx)
	c.watcher, c.callOff = nil, nil // they would keep buffers
	if err != nil {
		if errors.Is(err, errClientGone) {
			c.log().Debug("client went away while it waited for a server")
			return false
		}
		c.r.turnAway(c.conn, err, c.log())
		return false
	}
	c.r.metrics.connected(c.follows.route, time.Since(begun))
	c.countUnknown()
	c.account.waited.Store(int64(time.Since(begun)))
	c.log().Debug("session begins", zap.String("member", c.backend.member), zap.String("route", string(c.follows.route)))
	return true
}

// begin makes the connection to server the session's own, unless the attempt has been called off.
func (c *client) begin(attempt context.Context, server *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if attempt.Err() != nil || c.ending != nil {
		return false
	}
	c.search, c.attempt = nil, nil
	c.server = server
	c.machine = session.New(hooks{c})
	if c.splits() {
		c.auto = newAuto(c)
		c.machine = session.New(follower{hooks{c}})
	}
	c.login = time.AfterFunc(c.r.live().LoginTimeout, func() {
		c.end(ending{err: wire.Fatal(wire.CodeQueryCanceled, "canceling authentication due to timeout").
			WithDetail("The login was not complete within %s.", c.r.live().LoginTimeout)})
	})
	return true
}

// hooks let the client hear what the machine of its session is told. The client's lock is held.
type hooks struct{ c *client }

func (h hooks) Key(server wire.Key) (wire.Key, error) {
	return h.c.r.sessions.issue(h.c, server, h.c.r.instance)
}

func (h hooks) Notices() []byte { return h.c.notices() }

func (h hooks) Authenticated() *wire.Error { return h.c.welcomed() }

func (h hooks) Error(code string, fatal bool) { h.c.r.metrics.serverError(code, fatal) }

// loggedIn ends the bound of the login. The client's lock is held.
func (c *client) loggedIn() {
	if c.login != nil {
		c.login.Stop()
		c.login = nil
	}
}

// stopLogin is loggedIn without the lock.
func (c *client) stopLogin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loggedIn()
}

// moved is called when the server may not keep the session. One that is still looking for a server
// looks on, and one that can go on with another server gets it when its client speaks again.
func (c *client) moved(why string) {
	c.mu.Lock()
	if c.server == nil {
		if c.attempt != nil {
			c.attempt(errors.New(why))
		}
		c.mu.Unlock()
		return
	}
	if c.detach(why) {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.end(ending{ofServer: true, err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the server changed: %s", why).
		WithHint("Connect again; the router leads to the server that serves now.")})
}

// end cuts the session off from its server, at once, and has the client told why. The first call
// counts. What the server was sent and has not received yet is thrown away.
func (c *client) end(e ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil {
		return
	}
	c.ending = &e
	if c.server != nil {
		c.server.reset()
		c.server.Close()
	}
	if c.auto != nil {
		c.auto.interrupt()
	}
	c.wake()
}

// endIfIdle ends a session that loses nothing by it. A client that waits for a server loses nothing.
func (c *client) endIfIdle(e *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil || c.machine != nil && (!c.machine.Idle() || c.auto.atWork()) {
		return
	}
	c.endInOrder(e)
}

// endInOrder ends a session for which nothing is under way, and that has no ending yet. The client's lock is held.
func (c *client) endInOrder(e *wire.Error) {
	c.ending = &ending{err: e}
	if c.server != nil {
		c.sayGoodbye(c.server)
		c.server.Close()
	}
	c.wake()
}

// splits reports whether the session's statements are routed one by one: the router must be able to log in to a standby as the client, and to ask servers itself.
func (c *client) splits() bool {
	return c.r.live().StatementRouting && c.follows.route == route.Auto && c.backend.role == schema.RolePrimary && c.authenticated() && c.r.o.OwnPassword != nil && c.replication == ""
}

// standbyMoved is called when the standby that the session reads from may not keep it.
func (c *client) standbyMoved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auto != nil {
		c.auto.interrupt()
	}
}

// wake gets the session's goroutines out of whatever they wait for. A write to the client may go
// on for a moment, so that a message that it is in the middle of can be completed.
func (c *client) wake() {
	c.account.release()
	if c.search != nil {
		c.search(errEnded)
	}
	if c.machine != nil {
		c.conn.SetReadDeadline(past)
		c.conn.SetWriteDeadline(time.Now().Add(c.r.live().FarewellTimeout))
	}
}

// terminate is the message Terminate.
var terminate = []byte{'X', 0, 0, 0, 4}

// sayGoodbye spares an idle server the log line about a client that vanished.
func (c *client) sayGoodbye(server *link) {
	server.SetWriteDeadline(time.Now().Add(c.r.live().FarewellTimeout))
	server.Write(terminate) // it is closed next in any case
}

// errEnded stops a session's goroutines once it has an ending.
var errEnded = errors.New("the router ends the session")

// lastWord returns what the client is told in the end, nil for nothing, and whether a server says so. Its two goroutines have
// ended.
func (c *client) lastWord() (told *wire.Error, said bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.ending
	if e == nil {
		if c.machine.Terminated() || c.machine.Fatal() {
			return nil, false
		}
		e = &ending{ofServer: true, err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the server %s went away", c.backend.member).
			WithHint("Connect again.")}
	}
	if e.ofServer && c.backend.role == schema.RolePrimary && c.machine.OutcomeUnknown() {
		return wire.Fatal(wire.CodeResolutionUnknown, "the outcome of the last transaction is unknown: %s", e.err.Message).
			WithHint("It may or may not have been committed. Find out before you repeat it."), false
	}
	return e.err, e.said
}
