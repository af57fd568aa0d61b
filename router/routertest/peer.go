package routertest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"howdah/router/wire"
)

// Patience is how long a peer waits for what it expects.
const Patience = 10 * time.Second

// Peer is one end of a connection that plays its part by hand. A part that goes wrong fails the
// test and ends the goroutine.
type Peer struct {
	Conn
	t testing.TB
}

// Conn is a *net.TCPConn or a *net.UnixConn.
type Conn interface {
	net.Conn
	CloseWrite() error
	SetReadBuffer(bytes int) error
	SyscallConn() (syscall.RawConn, error)
}

// Dial connects to address as a client; the address of a Unix-domain socket begins with / or @. The connection is closed at the test's end.
func Dial(t testing.TB, address string) *Peer {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, address, Patience)
	p := newPeer(t, conn)
	p.check(err, "dial")
	return p
}

// Play goes on by hand on a connection that somebody else has opened. It is closed at the test's end.
func Play(t testing.TB, conn net.Conn) *Peer { return newPeer(t, conn) }

func newPeer(t testing.TB, conn net.Conn) *Peer {
	p := &Peer{t: t}
	if conn != nil {
		p.Conn = conn.(Conn)
		t.Cleanup(func() { conn.Close() })
	}
	return p
}

// SetLinger has the connection reset when it is closed, if sec is 0. A Unix-domain socket knows no reset.
func (p *Peer) SetLinger(sec int) {
	if tcp, is := p.Conn.(*net.TCPConn); is {
		tcp.SetLinger(sec)
	}
}

// Fail fails the test and ends the goroutine.
func (p *Peer) Fail(format string, args ...any) {
	p.t.Helper()
	p.fail(format, args...)
}

func (p *Peer) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Errorf(format, args...)
	runtime.Goexit()
}

func (p *Peer) check(err error, what string) {
	p.t.Helper()
	if err != nil {
		p.fail("%s: %v", what, err)
	}
}

// Send writes the messages, in one go.
func (p *Peer) Send(messages ...[]byte) {
	p.t.Helper()
	p.SetWriteDeadline(time.Now().Add(Patience))
	_, err := p.Write(bytes.Join(messages, nil))
	p.check(err, "send")
}

// Expect reads exactly these messages.
func (p *Peer) Expect(messages ...[]byte) {
	p.t.Helper()
	for _, want := range messages {
		got := make([]byte, len(want))
		p.SetReadDeadline(time.Now().Add(Patience))
		n, err := io.ReadFull(p, got)
		if err != nil || !bytes.Equal(got, want) {
			p.fail("received %q (%v), want %q", got[:n], err, want)
		}
	}
}

// Next reads one message.
func (p *Peer) Next() (typ byte, body []byte) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(Patience))
	var head [wire.HeaderSize]byte
	_, err := io.ReadFull(p, head[:])
	p.check(err, "header of a message")
	body = make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(p, body)
	p.check(err, "body of a message")
	return head[0], body
}

// ExpectError reads one ErrorResponse and returns it.
func (p *Peer) ExpectError(code string) wire.Error {
	p.t.Helper()
	typ, body := p.Next()
	if typ != 'E' {
		p.fail("received %q %q, want an error %s", typ, body, code)
	}
	e, err := wire.ParseError(body)
	p.check(err, "error response")
	if e.Code != code {
		p.fail("received %+v, want an error %s", e, code)
	}
	return e
}

// ExpectClose reads the end of the connection, in whatever way it comes.
func (p *Peer) ExpectClose() {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(Patience))
	var b [64]byte
	n, err := p.Read(b[:])
	var timeout net.Error
	if n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		p.fail("received %q (%v), want the connection closed", b[:n], err)
	}
}

// ExpectStartup reads one startup packet.
func (p *Peer) ExpectStartup() wire.Startup {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(Patience))
	s, err := wire.ReadStartup(p)
	p.check(err, "startup packet")
	return s
}

// ExpectQuiet fails if anything arrives before the router answers to another connection; the
// caller makes sure of the order.
func (p *Peer) ExpectQuiet() {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	var b [64]byte
	if n, err := p.Read(b[:]); n > 0 || err == nil {
		p.fail("received %q, want nothing", b[:n])
	}
}

// Welcome plays a server's part of a login without a password, up to ReadyForQuery.
func (p *Peer) Welcome(key []byte) {
	p.t.Helper()
	p.ExpectStartup()
	p.Send(AuthOK, ParameterStatus("server_version", "15.0"), key, Ready('I'))
}

// Welcomed plays the client's part of Welcome and returns the cancel key it was given.
func (p *Peer) Welcomed() wire.Key {
	p.t.Helper()
	p.Expect(AuthOK, ParameterStatus("server_version", "15.0"))
	typ, body := p.Next()
	if typ != 'K' {
		p.fail("received %q, want a cancel key", typ)
	}
	key, err := wire.ParseKey(body)
	p.check(err, "cancel key")
	p.Expect(Ready('I'))
	return key
}

// Server accepts connections for a test to play the server's part in.
type Server struct {
	t     testing.TB
	l     net.Listener
	conns chan net.Conn
}

// Listen starts a server on a free port of the loopback, or on address if it is not empty.
func Listen(t testing.TB, address string) *Server {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	s := &Server{t: t, l: l, conns: make(chan net.Conn, 100)}
	go func() {
		defer close(s.conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns <- c
		}
	}()
	t.Cleanup(s.Close)
	return s
}

// Address is where it listens.
func (s *Server) Address() string { return s.l.Addr().String() }

// Close stops it and drops the connections that were not accepted.
func (s *Server) Close() {
	s.l.Close()
	for c := range s.conns {
		c.Close()
	}
}

// Accept waits for the next connection.
func (s *Server) Accept() *Peer {
	s.t.Helper()
	select {
	case c, open := <-s.conns:
		if open {
			return newPeer(s.t, c)
		}
	case <-time.After(Patience):
	}
	s.t.Errorf("nobody connected to %s", s.Address())
	runtime.Goexit()
	return nil
}

// Arrivals receives the connections that Accept would return, for Play.
func (s *Server) Arrivals() <-chan net.Conn { return s.conns }

// ExpectNobody fails if a connection is waiting.
func (s *Server) ExpectNobody() {
	s.t.Helper()
	select {
	case <-s.conns:
		s.t.Errorf("somebody connected to %s", s.Address())
	default:
	}
}
