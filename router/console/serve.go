package console

import (
	"context"
	"errors"
	"io"
	"strings"

	"howdah/router/wire"
)

// maxMessage bounds what a client of the console may send in one message: the longest command has a few words.
const maxMessage = 64 << 10

// read takes one message. Too long a one, or none of the protocol, is an *wire.Error.
func read(r io.Reader) (byte, []byte, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	h := wire.ParseHeader(head[:])
	if err := h.CheckClient(true); err != nil {
		return 0, nil, err
	}
	if h.Size() > maxMessage {
		return 0, nil, wire.Fatal(wire.CodeProtocolViolation, "a message of %d bytes; the console takes at most %d", h.Size(), maxMessage)
	}
	body := make([]byte, h.Size()-wire.HeaderSize)
	_, err := io.ReadFull(r, body)
	return h.Type, body, err
}

// Session is one client of the console that has logged in.
type Session struct {
	Conn io.ReadWriter
	// Admin may change things; otherwise the client may only look.
	Admin  bool
	Router Router
	// Log is told of every command that changes something.
	Log func(statement string)
}

// greeting is what stands between AuthenticationOk and the first ReadyForQuery. The version begins with a number because drivers read one.
func (s Session) greeting(v View) []byte {
	superuser := "off"
	if s.Admin {
		superuser = "on"
	}
	var b []byte
	for _, p := range [][2]string{
		{"server_version", "15.0/howdah " + v.Version}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO"},
		{"TimeZone", "GMT"}, {"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"is_superuser", superuser},
	} {
		b = message(b, 'S', []byte(p[0]+"\x00"+p[1]+"\x00")...)
	}
	return message(b, 'Z', 'I')
}

// Run serves commands until the client goes, or ctx ends, which the owner of the connection makes known to Conn. The error is an *wire.Error, to be
// sent, or Conn's; nil after a goodbye.
func (s Session) Run(ctx context.Context) error {
	if _, err := s.Conn.Write(s.greeting(s.Router.View())); err != nil {
		return err
	}
	// skipping: after an error in the extended protocol everything up to Sync is passed over.
	skipping := false
	for {
		typ, body, err := read(s.Conn)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var answer []byte
		then := func() {}
		switch typ {
		case 'X':
			return nil
		case 'Q':
			skipping = false
			answer, then = s.query(ctx, body)
		case 'S':
			skipping = false
			answer = message(nil, 'Z', 'I')
		case 'p':
			return wire.Fatal(wire.CodeProtocolViolation, "invalid frontend message type %d", typ)
		case 'P', 'B', 'E', 'D', 'C', 'F':
			if skipping {
				continue
			}
			answer = failed(wire.CodeFeatureNotSupported, "the console does not speak the extended query protocol").
				WithHint("Use simple queries: psql, psycopg and lib/pq without parameters do; pgx with default_query_exec_mode=simple_protocol, JDBC with preferQueryMode=simple.").Append(nil)
			if skipping = typ != 'F'; !skipping {
				answer = message(answer, 'Z', 'I') // a FunctionCall has no Sync
			}
		default:
			continue // Flush, and copy data that nobody asked for
		}
		_, err = s.Conn.Write(answer)
		then()
		if err != nil {
			return err
		}
	}
}

// query answers one Query message. What it leaves to be done is for after the answer is written: a shutdown ends also the session that asked.
func (s Session) query(ctx context.Context, body []byte) (answer []byte, then func()) {
	then = func() {}
	text, whole := strings.CutSuffix(string(body), "\x00")
	if !whole || strings.Contains(text, "\x00") {
		return message(failed(wire.CodeProtocolViolation, "malformed Query message").Append(nil), 'Z', 'I'), then
	}
	c, err := Parse(text)
	if err == nil && c.Changes() && !s.Admin {
		err = failed(codeInsufficientPrivilege, "permission denied for %s", c.Verb).WithHint("It takes a user of admin-users.")
	}
	if err == nil {
		if c.Changes() && s.Log != nil {
			s.Log(text)
		}
		answer, err = s.carryOut(ctx, c)
	}
	if err != nil {
		return message(err.Append(nil), 'Z', 'I'), then
	}
	if c.Verb == Shutdown {
		then = s.Router.Shutdown
	}
	return message(answer, 'Z', 'I'), then
}

// carryOut returns the answer without its ReadyForQuery. A shutdown is only answered here.
func (s Session) carryOut(ctx context.Context, c Command) ([]byte, *wire.Error) {
	var answer []byte
	switch c.Verb {
	case Nothing:
		return message(nil, 'I'), nil
	case Show:
		answer = shown[c.Topic](s.Router.View()).Append(nil)
	case Pause:
		if busy, waited := s.Router.Pause(ctx); busy > 0 {
			return nil, failed(codeObjectInUse, "%d sessions are not at rest after %s; the router stays paused", busy, waited).
				WithHint("PAUSE again waits on, KILL ends a session (SHOW CLIENTS), RESUME lets all go on.")
		}
	case Resume:
		if !s.Router.Resume() {
			return nil, failed(codeNotInState, "the router is not paused")
		}
	case Reload:
		cs, err := s.Router.Reload()
		if err != nil {
			return nil, failed(codeConfigFile, "nothing was changed: %s", err).WithHint("Correct the options and RELOAD again.")
		}
		answer = changes(cs).Append(nil)
	case Kill:
		if !s.Router.Kill(c.Client) {
			return nil, failed(codeUndefinedObject, "there is no client %d", c.Client).WithHint("SHOW CLIENTS lists them.")
		}
	}
	return complete(answer, string(c.Verb)), nil
}
