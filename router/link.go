package router

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"howdah/router/rule"
)

// link is the connection to a client: a socket, and TLS over it where the client asked for that.
type link struct {
	// Conn is what is read and written: socket, or TLS over it.
	net.Conn
	socket socket
	tls    *tls.Conn // nil for plaintext
	// endPoint is the hash of the certificate that the client was shown, for channel binding; nil without TLS, or where the certificate's signature has none.
	endPoint []byte
	// cancels are the cancel requests that are on their way to a server. Of the client's lock.
	cancels cancels
	// subject is whom the client's certificate is for, which was verified; nil without one. showed: the server asked for this router's, and got it.
	subject *rule.Subject
	showed  bool
}

// socket is a *net.TCPConn, or the *net.UnixConn of a client.
type socket interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

func newLink(s socket) *link { return &link{Conn: s, socket: s} }

// secure goes over to TLS after a handshake that has succeeded.
func (l *link) secure(t *tls.Conn) { l.Conn, l.tls = shortRecords{t}, t }

// recordSize is how much is written into one TLS record at most, as much as PostgreSQL's server does (PQ_SEND_BUFFER_SIZE, src/backend/libpq/pqcomm.c). libpq
// makes room for that much and takes one record at a time (pqReadData, src/interfaces/libpq/fe-misc.c). Of a longer one the rest stays inside its TLS library, and who waits at the
// socket, as pg_basebackup does and asynchronous drivers do, waits for ever.
const recordSize = 8192

// shortRecords writes records that libpq takes whole.
type shortRecords struct{ *tls.Conn }

func (c shortRecords) Write(b []byte) (n int, err error) {
	for {
		m, err := c.Conn.Write(b[n:min(n+recordSize, len(b))])
		if n += m; err != nil || n >= len(b) {
			return n, err
		}
	}
}

// Close closes the socket. A TLS close_notify would have to wait for a peer that may not read; CloseWrite sends it.
func (l *link) Close() error { return l.socket.Close() }

// CloseWrite says that nothing more will come.
func (l *link) CloseWrite() error {
	if l.tls != nil {
		if err := l.tls.CloseWrite(); err != nil {
			return err
		}
	}
	return l.socket.CloseWrite()
}

// reset makes the next Close throw away what the kernel still holds for the peer. A Unix-domain socket holds nothing that the peer does not have.
func (l *link) reset() {
	if tcp, is := l.socket.(*net.TCPConn); is {
		tcp.SetLinger(0)
	}
}

// first waits for the first byte and leaves it unread.
func (l *link) first() (byte, error) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	n, failed := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if failed != syscall.EINTR {
				return failed != syscall.EAGAIN
			}
		}
	})
	if err = errors.Join(err, failed); err == nil && n == 0 {
		err = io.EOF
	}
	return b[0], err
}

// unread reports whether the socket holds bytes that nobody has read. It does not wait.
func (l *link) unread() (bool, error) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return false, err
	}
	n, failed := 0, error(nil)
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if errors.Is(failed, syscall.EAGAIN) || errors.Is(failed, syscall.EINTR) {
		failed = nil
	}
	return n > 0, errors.Join(err, failed)
}

// hungUp reports whether the other side has closed the connection, also behind bytes that nobody has read yet. It does not wait.
func (l *link) hungUp() (bool, error) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return false, err
	}
	var failed error
	p := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err = raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, failed = unix.Poll(p, 0)
	})
	if errors.Is(failed, unix.EINTR) {
		failed = nil
	}
	return p[0].Revents != 0, errors.Join(err, failed)
}
