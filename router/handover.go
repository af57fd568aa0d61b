package router

import (
	"errors"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// setReusePort lets another socket listen on the same port, of the same user.
func setReusePort(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

// noNewHandshakes is a classic BPF program for a listening socket: the segments that would begin a handshake (SYN without ACK) are dropped. It is run
// with the TCP header at the beginning of the packet (tcp_v4_rcv in Linux's net/ipv4/tcp_ipv4.c); the flags are its byte 13.
var noNewHandshakes = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

func stopHandshakes(l net.Listener) error {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(noNewHandshakes)), Filter: &noNewHandshakes[0]})
	})
	return errors.Join(err, failed)
}

// handshakeGrace is how long handshakes that have begun have to be completed, at the end of a listener that shares its port.
const handshakeGrace = 300 * time.Millisecond

// handOver ends the admission of clients where another router may listen on the same port. Each socket of the port has a queue of its own, and closing
// one resets the connections in it and the handshakes under way, although the other router would take them. So the socket takes no more
// handshakes first, what it has is accepted and served as ever, and then it is closed. A client whose first segment was dropped meanwhile
// sends it again after a second and comes to the other socket.
func (r *Router) handOver() {
	if !r.o.ReusePort {
		return
	}
	for _, l := range r.listeners {
		if err := stopHandshakes(l); err != nil {
			r.log.Warn("clients that connect at this moment may be refused", zap.Error(err))
		}
	}
	t := time.NewTimer(handshakeGrace)
	defer t.Stop()
	<-t.C
}

// firstWord is how long a session that has just begun has for its first statement before a drain takes it for idle, where the port is shared: its
// client was accepted as the last of a queue and could not know.
const firstWord = time.Second

// spared reports whether a drain leaves c alone for now.
func (r *Router) spared(c *client) bool {
	return r.o.ReusePort && r.now().Sub(c.account.begun) < firstWord
}

// awaited reports whether a drain that began at begun waits for connections that have not said yet what they want.
func (r *Router) awaited(begun schema.Instant) bool {
	return r.o.ReusePort && r.unstarted.Load() > 0 && r.now().Sub(begun) < firstWord
}
