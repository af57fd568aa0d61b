package router

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"howdah/router/scram"
	"howdah/router/wire"
)

// letters are the messages of a login, one at a time and whole.
type letters struct {
	conn net.Conn
	in   *chunk // what was read and not dealt with yet
	// check returns an error if the peer may not send a message with this header.
	check func(wire.Header) *wire.Error
}

// maxLetter is the longest message of a login that is taken: a SASL message with the name of its mechanism, or what a server says in an error.
const maxLetter = 16 << 10

func checkClient(h wire.Header) *wire.Error {
	if h.Type != 'p' {
		return wire.Fatal(wire.CodeProtocolViolation, "expected SASL response, got message type %d", h.Type)
	}
	if h.Length < 4 || h.Length > scram.MaxMessage+64 {
		return wire.Fatal(wire.CodeProtocolViolation, "invalid message length %d in a SASL response", h.Length)
	}
	return nil
}

func checkServer(h wire.Header) *wire.Error {
	if h.Length < 4 || h.Size() > maxLetter {
		return wire.Fatal(wire.CodeProtocolViolation, "the server sent a message of type %q with an impossible length %d", rune(h.Type), h.Length)
	}
	return nil
}

// peek waits for a whole message and returns it without taking it. It is valid until more is read.
func (l *letters) peek() ([]byte, error) {
	need := wire.HeaderSize
	for {
		held := l.in.b[l.in.r:l.in.w]
		if len(held) >= wire.HeaderSize {
			h := wire.ParseHeader(held)
			if bad := l.check(h); bad != nil {
				return nil, bad
			}
			need = h.Size()
		}
		if len(held) >= need {
			return held[:need], nil
		}
		if l.in.r > 0 {
			l.in.w = copy(l.in.b[:], held)
			l.in.r = 0
		}
		n, err := l.conn.Read(l.in.b[l.in.w:])
		l.in.w += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && l.in.w > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// take takes the message that was peeked at.
func (l *letters) take(message []byte) { l.in.r += len(message) }

// response takes the body of a client's SASL response.
func (l *letters) response() ([]byte, error) {
	m, err := l.peek()
	if err != nil {
		return nil, err
	}
	l.take(m)
	return m[wire.HeaderSize:], nil
}

// ask sends an authentication request.
func (l *letters) ask(code uint32, data []byte) error {
	_, err := l.conn.Write(authentication(code, data))
	return err
}

// authentication is a message R.
func authentication(code uint32, data []byte) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'R'}, uint32(len(data)+8))
	m = binary.BigEndian.AppendUint32(m, code)
	return append(m, data...)
}

// authenticator is how the router authenticates a client.
type authenticator struct {
	// ours reports whether the router does so at all; if not, the login is passed through.
	ours func() bool
	// prove has the client prove who it is, in the exchange that the server has begun.
	prove func(scram.Asked) error
}

// logIn carries the authentication at a server through, up to but without the message that ends it, which is left in in: AuthenticationOk, an error, or
// whatever comes where the login is passed through. The client is authenticated on the way, once, when it is known what the server asks for. A
// server that fails later is followed by another one, to which the client's credentials open the way.
func (c *client) logIn(server *link, in *chunk, a authenticator) error {
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	l := &letters{conn: server, in: in, check: checkServer}
	s := scram.NewClient(scram.Channel{EndPoint: server.endPoint}, nonce)
	said := false // something was said to the server
	for {
		m, err := l.peek()
		switch {
		case in.r < in.w && in.b[in.r] == 'E':
			return lastWords(m, err, said)
		case err != nil:
			return fmt.Errorf("login: %w", broken(err))
		case m[0] != 'R':
			if err := c.passOn(m); err != nil {
				return err
			}
			l.take(m)
			continue
		case c.vouched && !isOK(m):
			return c.noKey(server, s, m)
		case !said && !c.authenticated() && !a.ours():
			return c.relayable(server, m)
		}
		reply, err := s.Request(m[wire.HeaderSize:])
		switch {
		case err != nil && !said:
			return c.otherMethod(err)
		case err != nil:
			return fmt.Errorf("login: %w", broken(err))
		case s.Done():
			return c.accepted(a)
		}
		l.take(m)
		if s.Challenged() {
			if !c.authenticated() {
				if err := a.prove(s.Asked()); err != nil {
					return err
				}
			}
			if reply, err = s.Answer(c.credentials); err != nil {
				return fmt.Errorf("login: %w", err)
			}
		}
		if len(reply) > 0 {
			said = true
			if _, err := server.Write(reply); err != nil {
				return fmt.Errorf("login: %w", err)
			}
		}
	}
}

// authenticated reports whether the client has proved who it is.
func (c *client) authenticated() bool { return c.vouched || c.credentials.Known() }

// accepted is called when the server has let the client in, and tells the client.
func (c *client) accepted(a authenticator) error {
	if !c.authenticated() {
		// The server trusts this router, or everybody; the router does not trust the client.
		if err := a.prove(scram.Asked{}); err != nil {
			return err
		}
	}
	if c.signature != nil {
		if _, err := c.conn.Write(authentication(scram.CodeSASLFinal, c.signature)); err != nil {
			return final{errClientGone}
		}
		c.signature = nil
	}
	return nil
}

// passOn gives the client what a server says beside the authentication: which protocol it gets, once; notices.
func (c *client) passOn(message []byte) error {
	switch message[0] {
	case 'v':
		if c.negotiated {
			return nil
		}
		c.negotiated = true
	case 'N':
	default:
		return fmt.Errorf("login: the server sent a message of type %q", rune(message[0]))
	}
	if _, err := c.conn.Write(message); err != nil {
		return final{errClientGone}
	}
	return nil
}

// otherMethod refuses a server that asks for what would show the router a password in clear, or is bound to a host.
func (c *client) otherMethod(err error) error {
	var other *scram.ErrMethod
	if !errors.As(err, &other) {
		return fmt.Errorf("login: %w", broken(err))
	}
	return final{wire.Fatal(wire.CodeInvalidAuthorization, "%s asks for %s", c.backend.member, other.Method).
		WithDetail("This router logs in by SCRAM-SHA-256 or md5 for clients that it authenticates.").
		WithHint("Use scram-sha-256 in the servers' pg_hba.conf, or auth-type pass-through or a rule with that method here.")}
}

// isOK reports whether an authentication request is the end of the authentication.
func isOK(message []byte) bool {
	return len(message) == wire.HeaderSize+4 && binary.BigEndian.Uint32(message[wire.HeaderSize:]) == scram.CodeOK
}

// lastWords leaves an error of the server for the client, unless it means "not now".
func lastWords(message []byte, err error, said bool) error {
	switch {
	case err != nil && said:
		return fmt.Errorf("login: %w", broken(err))
	case err != nil:
		return nil // an error in the form of protocol 2
	}
	if e, err := wire.ParseError(message[wire.HeaderSize:]); err == nil && refusal(e.Code) {
		return &notYet{said: e}
	}
	return nil
}

// broken takes the *wire.Error out of an error about a server: no client of ours has made that mistake.
func broken(err error) error {
	var told *wire.Error
	if errors.As(err, &told) {
		return errors.New(told.Message)
	}
	return err
}
