package router

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/role"
	"howdah/router/rule"
	"howdah/router/scram"
	"howdah/router/wire"
)

// AuthType says who authenticates clients.
type AuthType string

// The kinds.
const (
	// AuthAuto is AuthSCRAM where the router has a password of its own and the servers have the function it needs; AuthPassThrough else.
	AuthAuto AuthType = "auto"
	// AuthPassThrough relays whatever method the server has. The router learns nothing that it could log in with.
	AuthPassThrough AuthType = "pass-through"
	// AuthSCRAM ends SCRAM-SHA-256 in the router, which then logs in to the server with what the client's proof leaves.
	AuthSCRAM AuthType = "scram"
)

// validateAuth returns the mistakes of the options about authentication.
func (o Options) validateAuth() []error {
	if _, _, err := o.parseRules(); err != nil {
		return []error{err}
	}
	switch {
	case !slices.Contains([]AuthType{AuthAuto, AuthPassThrough, AuthSCRAM}, o.AuthType):
		return []error{fmt.Errorf("auth-type: %q is not allowed; choose auto, scram or pass-through", o.AuthType)}
	case o.AuthType == AuthSCRAM && o.OwnPassword == nil:
		return []error{errors.New("auth-type: scram needs the password of the role howdah_router, to look up how others log in; give router-password-file")}
	}
	return nil
}

// endsSCRAM reports whether the router authenticates the client itself.
func (c *client) endsSCRAM() bool { return c.auth != AuthPassThrough && c.r.o.OwnPassword != nil }

// because is an error with what only the log is told of its reason.
type because struct {
	error
	reason string
}

func (e because) Unwrap() error { return e.error }

// final is an error that ends a session's beginning: no other server is tried.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

// refused is PostgreSQL's answer to everybody who cannot log in, whatever the reason (auth_failed, src/backend/libpq/auth.c).
func refused(user string) *wire.Error {
	return wire.Fatal(wire.CodeInvalidPassword, "password authentication failed for user \"%s\"", user)
}

// errNotCurrent is a server whose verifiers are not those in force, or not yet: another one may be right, or this one soon.
var errNotCurrent = errors.New("the server has another verifier of this user than the primary")

// ours reports whether the router can authenticate clients. Where nothing else was asked for, it passes logins through to servers whose sidecars do not make
// the function yet, or that do not let it in.
func (c *client) ours(search context.Context) bool {
	_, err := c.r.roles.Find(search, c.user, c.r.now().Add(-role.KeptFor))
	if c.auth != AuthAuto || !errors.Is(err, role.ErrNoFunction) && !errors.Is(err, role.ErrRefused) {
		return true
	}
	c.r.passing.Do(func() {
		c.log().Warn("logins are passed through as long as the servers do not tell this router how roles log in; their sidecars may be older", zap.Error(err))
	})
	return false
}

// authenticate has the client prove that it knows its password, in the exchange that the server would have had with it, and keeps the credentials that
// the proof leaves. A final error ends the session's beginning; after any other the client has been told nothing.
func (c *client) authenticate(search context.Context, by scram.Asked) error {
	user := c.user
	// The salt that a primary asks for tells whether a kept answer is still right. That of a standby, which may be behind itself, does not; md5 has none.
	fresh := c.backend.role != schema.RolePrimary || by.Salt == ""
	since := c.r.now()
	if !fresh {
		since = since.Add(-role.KeptFor)
	}
	known, err := c.r.roles.Find(search, user, since)
	if err == nil && !fresh && !by.Fits(known.Verifier) {
		fresh = true
		known, err = c.r.roles.Find(search, user, c.r.now())
	}
	switch {
	case search.Err() != nil:
		return final{c.calledOff(search)}
	case errors.Is(err, role.ErrNoFunction), errors.Is(err, role.ErrRefused):
		c.log().Warn("no client can be authenticated", zap.Error(err))
		return final{wire.Fatal(wire.CodeCannotConnectNow, "this router may not look up how users log in").
			WithHint("Its log says why.")}
	case err != nil:
		return err // as a server that cannot be reached
	case by != scram.Asked{} && !by.Fits(known.Verifier):
		return errNotCurrent
	}
	early := c.watcher.end(c.conn)
	if c.watcher.gone {
		c.watcher = idleWatcher(early)
		return final{errClientGone}
	}
	c.conn.SetDeadline(time.Now().Add(c.r.live().LoginTimeout))
	stop := context.AfterFunc(search, func() { c.conn.SetDeadline(past) })
	err = c.exchange(search, &letters{conn: c.conn, in: early, check: checkClient}, exchange{user: user, by: by, known: known, fresh: fresh})
	if err == nil {
		if full := c.identify(); full != nil {
			err = full
		}
	}
	stop()
	c.conn.SetDeadline(time.Time{})
	if err != nil {
		c.watcher = idleWatcher(early)
		return final{c.explain(search, err)}
	}
	c.watcher = c.watch(c.callOff, early)
	return nil
}

// exchange is what an exchange with a client is about.
type exchange struct {
	user  string
	by    scram.Asked
	known role.Role
	// fresh: known was asked for after the client came.
	fresh bool
}

// verifier is what the exchange runs with: known's own, or a mock that cannot be told from one.
func (e exchange) verifier(secret []byte) scram.Verifier {
	switch {
	case e.known.Verifier.Kind == scram.KindSCRAM:
		return e.known.Verifier
	case e.by.Salt == "":
		return scram.Mock(secret, e.user)
	}
	return scram.MockLike(secret, e.user, e.by.Salt, e.by.Iterations)
}

// explain turns what ended an exchange into what the client is told.
func (c *client) explain(search context.Context, err error) error {
	var told *wire.Error
	switch {
	case errors.As(err, &told):
		return err
	case search.Err() != nil:
		return c.calledOff(search)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return wire.Fatal(wire.CodeQueryCanceled, "canceling authentication due to timeout").
			WithDetail("The login was not complete within %s.", c.r.live().LoginTimeout)
	}
	return errClientGone
}

// byMD5 reports whether the exchange is one of md5: the server has begun such a one, or has begun none and the role's password is md5.
func (e exchange) byMD5() bool {
	return e.by.MD5 || e.by == scram.Asked{} && e.known.Verifier.Kind == scram.KindMD5
}

// exchange is the server's side of the exchange with the client, up to but without the server-final-message, which goes to the client once a server has let it in. A
// proof that does not hold is held against what the servers know now before it is refused, so that no new password is ever refused for an old one's sake; and
// so is one of a user that does not exist, so that it takes as long.
func (c *client) exchange(search context.Context, l *letters, e exchange) error {
	switch {
	case c.method == rule.Password:
		return c.inClear(search, l, e)
	case e.byMD5() && c.method != rule.SCRAM:
		return c.byMD5(l, e)
	}
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	s := scram.NewServer(scram.Channel{EndPoint: c.conn.endPoint}, nonce)
	if err := c.prove(l, s, e.verifier(c.r.secret[:])); err != nil {
		return err
	}
	credentials, signature, ok := s.Check(e.user, e.verifier(c.r.secret[:]))
	if !ok && !e.fresh {
		if e.known, err = c.r.roles.Find(search, e.user, c.r.now()); err != nil {
			return fmt.Errorf("look up again: %w", err)
		}
		credentials, signature, ok = s.Check(e.user, e.verifier(c.r.secret[:]))
	}
	if !ok {
		return because{refused(e.user), cmp.Or(e.known.Why, "the password is wrong")}
	}
	if err := c.rightName(); err != nil {
		return err
	}
	c.credentials, c.signature = credentials, signature
	return nil
}

// prove carries the exchange to where s can check the proof.
func (c *client) prove(l *letters, s *scram.Server, v scram.Verifier) error {
	if err := l.ask(scram.CodeSASL, scram.Offer(s.Mechanisms())); err != nil {
		return err
	}
	body, err := l.response()
	if err != nil {
		return err
	}
	first, err := scram.ParseInitial(body)
	if err != nil {
		return wire.Fatal(wire.CodeProtocolViolation, "invalid SASL response: %s", err)
	}
	if first.Data == nil && slices.Contains(s.Mechanisms(), first.Mechanism) {
		// A client may leave its first message for later.
		if err := l.ask(scram.CodeSASLContinue, nil); err != nil {
			return err
		}
		if first.Data, err = l.response(); err != nil {
			return err
		}
	}
	if bad := s.First(first.Mechanism, first.Data); bad != nil {
		return bad
	}
	if err := l.ask(scram.CodeSASLContinue, s.Challenge(v)); err != nil {
		return err
	}
	if body, err = l.response(); err != nil {
		return err
	}
	if bad := s.Final(body); bad != nil {
		return bad
	}
	return nil
}

func newNonce() (string, error) {
	var random [scram.NonceBytes]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	return scram.Nonce(random), nil
}
