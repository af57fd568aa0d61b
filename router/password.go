package router

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"

	"howdah/router/scram"
	"howdah/router/wire"
)

// Exchanges with a client in one message, as those that PostgreSQL's methods md5 and password have. What is stored of an md5 password opens the servers to
// its role, and so do the keys of SCRAM that a password in clear gives: the router logs in with these as after SCRAM itself.

// maxPassword is the longest PasswordMessage that is taken. PostgreSQL 15 takes 1,000 bytes (recv_password_packet, src/backend/libpq/auth.c), others more.
const maxPassword = maxLetter

func checkPassword(h wire.Header) *wire.Error {
	if h.Type != 'p' {
		return wire.Fatal(wire.CodeProtocolViolation, "expected password response, got message type %d", h.Type)
	}
	if h.Length < 4 || h.Length > maxPassword {
		return wire.Fatal(wire.CodeProtocolViolation, "invalid message length %d in a password", h.Length)
	}
	return nil
}

// password asks for a PasswordMessage and returns what it says.
func (l *letters) password(code uint32, salt []byte) ([]byte, error) {
	l.check = checkPassword
	if err := l.ask(code, salt); err != nil {
		return nil, err
	}
	body, err := l.response()
	if err != nil {
		return nil, err
	}
	text, rest, ended := bytes.Cut(body, []byte{0})
	switch {
	case !ended || len(rest) > 0:
		return nil, wire.Fatal(wire.CodeProtocolViolation, "invalid password packet size")
	case len(text) == 0:
		return nil, wire.Fatal(wire.CodeInvalidPassword, "empty password returned by client")
	}
	return text, nil
}

// byMD5 is exchange for a role whose password is md5, or that seems to have such a one.
func (c *client) byMD5(l *letters, e exchange) error {
	var salt [scram.MD5SaltSize]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	answer, err := l.password(scram.CodeMD5, salt[:])
	if err != nil {
		return err
	}
	credentials, ok := scram.CheckMD5(e.user, e.known.Verifier, salt, answer)
	return c.proved(e, credentials, ok)
}

// inClear is exchange with a password that the client sends in clear, under TLS or by a Unix-domain socket.
func (c *client) inClear(search context.Context, l *letters, e exchange) error {
	password, err := l.password(scram.CodePassword, nil)
	if err != nil {
		return err
	}
	check := func() (scram.Credentials, bool) {
		v := e.known.Verifier
		if v.Kind == scram.KindNone {
			v = e.verifier(c.r.secret[:])
		}
		return scram.CheckPassword(e.user, v, string(password))
	}
	credentials, ok := check()
	if !ok && !e.fresh {
		if e.known, err = c.r.roles.Find(search, e.user, c.r.now()); err != nil {
			return fmt.Errorf("look up again: %w", err)
		}
		credentials, ok = check()
	}
	return c.proved(e, credentials, ok)
}

// proved ends an exchange of one message.
func (c *client) proved(e exchange, credentials scram.Credentials, ok bool) error {
	if !ok {
		return because{refused(e.user), cmp.Or(e.known.Why, "the password is wrong")}
	}
	if err := c.rightName(); err != nil {
		return err
	}
	c.credentials = credentials
	return nil
}
