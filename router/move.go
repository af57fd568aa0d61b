package router

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unique"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/wire"
)

// An auto session outlives its server connection where the router can give it an equal one. The connection is cut off at once, as that of any session
// (I6). What reads from the client goes on: it waits for the client's next message, and then, in move, for a primary, where it logs in with the client's
// credentials. The goroutine of the server's direction waits for that meanwhile.

// errDetached ends the server's direction of a session that has lost that server.
var errDetached = errors.New("the session has lost this server")

// moving reports whether the session waits for another server connection. The client's lock is held; a may be nil.
func (a *auto) moving() bool { return a != nil && a.movingSince != schema.Never }

// detach cuts the session off from its server if it can go on with another: it is at rest there, whatever a standby does for it, and the server has
// nothing of it that cannot be made anew. The client's lock is held.
func (c *client) detach(why string) bool {
	a, m := c.auto, c.machine
	if a == nil || c.ending != nil || c.server == nil || a.block || !m.Idle() || m.MidMessage() || m.Terminated() || m.Fatal() || !a.tracker.Movable() {
		return false
	}
	c.r.sessions.leave(c)
	c.server.reset()
	c.server.Close()
	c.server = nil
	if a.attached == nil {
		a.attached = make(chan struct{}, 1)
	}
	c.account.passed = false
	c.log().Debug("session has lost its server and goes on with another", zap.String("member", c.backend.member), zap.String("reason", why))
	return true
}

// leaving is called when the server says that it ends the session. One that still serves as far as is known may have been told to end just this one, as
// pg_terminate_backend does: if it takes a login afterwards, which one that stops does not, it is not given the session again.
func (a *auto) leaving(fatal bool) bool {
	b := a.c.backend
	if !a.c.detach("the server says that it ends the session") {
		return false
	}
	if p := a.c.r.picture.now.Load().Primary; fatal && p != nil && p.Member == b.member && p.Epoch == b.epoch {
		a.dismissed = reign{b.member, b.epoch}
	}
	return true
}

// parameter is called for each ParameterStatus of the server.
func (a *auto) parameter(name, value []byte) {
	a.tracker.Parameter(name, value)
	a.told.set(name, value)
	a.toldVersion++
}

// parameters are what a client was told with ParameterStatus. Most sessions are told the same, so the texts are shared between them.
type parameters []unique.Handle[parameter]

type parameter struct{ name, value string }

// usualParameters is how many of them PostgreSQL reports, with room for a few.
const usualParameters = 16

func (p *parameters) set(name, value []byte) {
	now := unique.Make(parameter{string(name), string(value)})
	for i, was := range *p {
		if was.Value().name == string(name) {
			(*p)[i] = now
			return
		}
	}
	if *p == nil {
		*p = make(parameters, 0, usualParameters)
	}
	*p = append(*p, now)
}

func (p parameters) get(name string) (value string, known bool) {
	for _, one := range p {
		if one := one.Value(); one.name == name {
			return one.value, true
		}
	}
	return "", false
}

// outlives reports whether the session goes on although its direction from server has ended with err.
func (c *client) outlives(server *link, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.As(err, new(errSink)) || c.ending != nil {
		return false
	}
	return c.server != server || errors.As(err, new(errSource)) && c.detach("the server went away")
}

// next returns the pump of the server's direction once there is a server connection again, or ended when what reads from the client has ended, with
// whether the client vanished.
func (a *auto) next(done <-chan bool) (down *pump, gone, ended bool) {
	for {
		select {
		case <-a.attached:
			if down, err := a.nextDown(); err == nil {
				return down, false, false
			} else if err != errDetached {
				a.c.end(ending{ofServer: true, err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the server went away")})
			}
		case gone = <-done:
			return nil, gone, true
		}
	}
}

// nextDown returns the pump of the server's direction; errDetached if the server has been lost again.
func (a *auto) nextDown() (*pump, error) {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil, errDetached
	}
	var held *chunk
	if len(a.early) > 0 {
		held = newChunk()
		held.w = copy(held.b[:], a.early)
		a.early = nil
	}
	return c.newDown(held)
}

// move gives the session another server connection, for the message that p holds. It returns an error if the session ends.
func (a *auto) move(p *pump) error {
	c := a.c
	search, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	c.mu.Lock()
	if c.ending != nil || c.account.released() {
		c.mu.Unlock()
		return errEnded
	}
	if c.machine.Recalling() {
		c.mu.Unlock()
		return nil
	}
	c.search, a.movingSince = stop, c.r.now()
	movable := a.tracker.Move()
	c.mu.Unlock()
	err := error(wire.Fatal(wire.CodeAdminShutdown, "the server has state of the session that cannot be made anew"))
	w := c.watch(stop, p.held)
	if movable {
		err = a.reattach(search, p)
	}
	w.end(c.conn)
	c.mu.Lock()
	c.search, c.attempt, a.movingSince = nil, nil, schema.Never
	ended := c.ending != nil || c.account.released()
	recalled := movable && c.machine.Recalling()
	if recalled && c.server == nil {
		c.account.passed = false
	}
	c.mu.Unlock()
	var why *wire.Error
	switch {
	case w.gone:
		return errSource{io.EOF}
	case err == nil, errors.As(err, new(errSource)):
		return err
	case recalled && !ended:
		return nil // the next message looks on
	case !ended && errors.As(err, &why):
		c.end(ending{err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the server changed: %s", why.Message).
			WithDetail("%s", why.Detail).WithHint("Connect again; what was sent last has not been carried out.")})
	}
	return errEnded
}

// reattach looks for a primary until the session has a connection to it. The error that the client is told is a *wire.Error.
func (a *auto) reattach(search context.Context, p *pump) error {
	c := a.c
	deadline := time.Now().Add(c.r.live().FailoverWait)
	for pauseFor := firstPause; ; pauseFor = min(2*pauseFor, lastPause) {
		if held, err := c.hold(search); err != nil {
			return err
		} else if held {
			deadline = time.Now().Add(c.r.live().FailoverWait)
		}
		changed := c.r.picture.next()
		b, found, why := c.r.sessions.choose(c, c.r.picture.now.Load(), false, nil)
		if found {
			err := a.reattachTo(search, p, b)
			if err == nil {
				return nil
			}
			c.r.sessions.leave(c)
			if errors.As(err, new(*wire.Error)) || errors.As(err, new(errSource)) {
				return err
			}
			c.r.metrics.retried(c.follows.route)
			c.log().Debug("session does not go on with this server yet", zap.String("member", b.member), zap.Error(err))
			why = fmt.Sprintf("%s at %s: %s", b.member, b.address, err)
		}
		if err := c.waitForServer(search, changed, deadline, pauseFor, found, why); err != nil {
			return err
		}
	}
}

// reattachTo makes a connection to b the session's: logged in as the client, with the session's settings in force.
func (a *auto) reattachTo(search context.Context, p *pump, b backend) error {
	c := a.c
	ctx, cancel := context.WithCancelCause(search)
	defer cancel(nil)
	c.mu.Lock()
	c.attempt = cancel
	c.mu.Unlock()
	// The session is registered with b already: either this look sees a change, or the sweep that follows the change finds the session.
	if keep, why := b.kept(c.r.picture.now.Load()); !keep {
		return errors.New(why)
	}
	now := map[string]string{}
	was := c.began
	c.beginWith(ctx, b, c.askSettings(ctx, b))
	if c.began != was {
		a.drop() // it was like the session as that began before
	}
	rd, err := c.logInAt(ctx, b, func(name, value []byte) { now[string(name)] = string(value) })
	if err != nil {
		return unlessLater(err)
	}
	stop := context.AfterFunc(ctx, func() { rd.conn.socket.Close() })
	err = a.equip(rd, now)
	if a.dismissed == (reign{b.member, b.epoch}) {
		err = wire.Fatal(wire.CodeAdminShutdown, "%s has ended this session and goes on with others", b.member)
	}
	var changes []byte
	if err == nil {
		changes, err = a.differences(now)
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = a.tellChanges(changes, now)
	}
	if err == nil && !a.attach(ctx, p, rd) {
		err = errEnded
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		rd.conn.reset()
		rd.conn.Close()
	}
	return err
}

// unlessLater makes an error of a login one that the client is told, unless it may succeed later.
func unlessLater(err error) error {
	var said *notYet
	switch {
	case errors.As(err, &said) && !refusal(said.said.Code) && said.said.Code != wire.CodeTooManyConnections:
		return wire.Fatal(wire.CodeAdminShutdown, "the login at the new server failed: %s", said.said.Message)
	case errors.As(err, new(*errNoLogin)):
		return wire.Fatal(wire.CodeAdminShutdown, "the login at the new server failed: %s", err)
	}
	return broken(err)
}

// equip puts the session's settings in force on a new connection.
func (a *auto) equip(rd *reader, now map[string]string) error {
	if now["in_hot_standby"] == "on" {
		return fmt.Errorf("%s is not the primary yet", rd.member)
	}
	for _, text := range a.tracker.SettingsSince(0) {
		if err := rd.exec(text, nil); errors.As(err, new(errSaid)) {
			return wire.Fatal(wire.CodeAdminShutdown, "a setting of the session could not be put in force at the new server").WithDetail("%s", err)
		} else if err != nil {
			return broken(err)
		}
	}
	return nil
}

// unalterable are the parameters by which clients write what they send: their next message is written already.
var unalterable = []string{
	"server_encoding", "client_encoding", "standard_conforming_strings", "integer_datetimes", "DateStyle", "IntervalStyle", "TimeZone", "session_authorization",
}

// differences returns the messages that tell the client what is different with the new connection, or the *wire.Error if it could not go on with it.
func (a *auto) differences(now map[string]string) ([]byte, error) {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	var changes []byte
	for name, value := range now {
		was, known := a.told.get(name)
		if was == value {
			continue
		}
		if known && (slices.Contains(unalterable, name) || name == "server_version" && major(was) != major(value)) {
			return nil, wire.Fatal(wire.CodeAdminShutdown, "%s is %q at the new server, and was %q", name, value, was)
		}
		changes = appendParameterStatus(changes, name, value)
	}
	return changes, nil
}

func appendParameterStatus(dst []byte, name, value string) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, 'S'), uint32(4+len(name)+1+len(value)+1))
	return append(append(append(append(dst, name...), 0), value...), 0)
}

// major is the part of a version before the first point or space.
func major(version string) string {
	if i := strings.IndexAny(version, ". "); i >= 0 {
		return version[:i]
	}
	return version
}

// tellChanges gives the client messages that tell it the parameters of a new connection, whatever becomes of that next.
func (a *auto) tellChanges(messages []byte, now map[string]string) error {
	c := a.c
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(messages) > 0 {
		if n, err := c.conn.Write(messages); err != nil {
			c.mid = n > 0
			return errSource{err}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, value := range now {
		a.parameter([]byte(name), []byte(value))
	}
	return nil
}

// attach makes a connection the session's, unless the attempt has been called off.
func (a *auto) attach(ctx context.Context, p *pump, rd *reader) bool {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil || c.ending != nil || c.account.released() {
		return false
	}
	c.r.sessions.rekey(c, rd.key)
	c.machine.Resume()
	c.server, a.early = rd.conn, rd.rest
	p.server, p.dst = rd.conn, rd.conn.Conn
	a.seen = true // the standby may have less than the session was shown
	select {
	case a.attached <- struct{}{}:
	default: // the other goroutine has not seen the last one yet
	}
	c.r.metrics.moves.Inc()
	c.log().Debug("session goes on", zap.String("member", rd.member), zap.Uint64("epoch", uint64(rd.epoch)))
	return true
}
