package console

import (
	"encoding/binary"
	"io"

	"howdah/router/scram"
	"howdah/router/wire"
)

// Login is what a console's password is held against.
type Login struct {
	User string
	// Allowed: User may use the console. A stranger is asked for a password all the same and cannot tell.
	Allowed bool
	// Password is the one for all users of the console; printable ASCII.
	Password string
	// Secret makes salts that are nobody's guess and the same for the life of the process.
	Secret []byte
	Nonce  [scram.NonceBytes]byte
	// Channel is what the connection can be bound to.
	Channel scram.Channel
}

// The codes of Authentication messages.
const (
	authOK       = 0
	authSASL     = 10
	authContinue = 11
	authFinal    = 12
)

// Authenticate asks for the password by SCRAM-SHA-256. The error is an *wire.Error, to be sent, or conn's. AuthenticationOk has been written
// if there is none.
func (l Login) Authenticate(conn io.ReadWriter) error {
	s := scram.NewServer(l.Channel, scram.Nonce(l.Nonce))
	body, err := exchange(conn, authentication(authSASL, scram.Offer(s.Mechanisms())))
	if err != nil {
		return err
	}
	mechanism, first, ok := initial(body)
	if !ok {
		return wire.Fatal(wire.CodeProtocolViolation, "malformed SASLInitialResponse")
	}
	if err := s.First(mechanism, first); err != nil {
		return err
	}
	// A stranger's salt is made like a user's, and takes as long.
	mock := scram.Mock(l.Secret, l.User)
	c, err := scram.FromPassword(l.User, l.Password, mock.Salt, mock.Iterations)
	if err != nil {
		return err
	}
	verifier := c.Verifier()
	if !l.Allowed || l.Password == "" {
		verifier = mock
	}
	if body, err = exchange(conn, authentication(authContinue, s.Challenge(verifier))); err != nil {
		return err
	}
	if err := s.Final(body); err != nil {
		return err
	}
	_, signature, holds := s.Check(l.User, verifier)
	if !holds {
		return wire.Fatal(codeInvalidPassword, "password authentication failed for user \"%s\"", l.User).
			WithHint("The console takes users of admin-users and stats-users, with the password of admin-password-file.")
	}
	_, err = conn.Write(append(authentication(authFinal, signature), authentication(authOK, nil)...))
	return err
}

func authentication(code uint32, data []byte) []byte {
	return message(nil, 'R', append(binary.BigEndian.AppendUint32(nil, code), data...)...)
}

// exchange sends a challenge and returns what the client answers.
func exchange(conn io.ReadWriter, challenge []byte) ([]byte, error) {
	if _, err := conn.Write(challenge); err != nil {
		return nil, err
	}
	typ, body, err := read(conn)
	if err != nil {
		return nil, err
	}
	if typ != 'p' {
		return nil, wire.Fatal(wire.CodeProtocolViolation, "expected SASL response, got message type %d", typ)
	}
	return body, nil
}

// initial takes a SASLInitialResponse apart.
func initial(body []byte) (mechanism string, data []byte, ok bool) {
	for i, b := range body {
		if b != 0 {
			continue
		}
		rest := body[i+1:]
		if len(rest) < 4 || binary.BigEndian.Uint32(rest) != uint32(len(rest)-4) {
			return "", nil, false
		}
		return string(body[:i]), rest[4:], true
	}
	return "", nil, false
}
