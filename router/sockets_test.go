package router_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// socketOf returns the descriptor of this process's socket that has that address and that peer, -1 if there is none.
func socketOf(t *testing.T, local, remote net.Addr) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		here, err := unix.Getsockname(fd)
		if err != nil {
			continue // it is no socket, or was closed meanwhile
		}
		there, err := unix.Getpeername(fd)
		if err == nil && addressOf(here) == local.String() && addressOf(there) == remote.String() {
			return fd
		}
	}
	return -1
}

func addressOf(a unix.Sockaddr) string {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("%s:%d", net.IP(a.Addr[:]), a.Port)
	case *unix.SockaddrInet6:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	}
	return ""
}

// Whoever goes away without a word is noticed: every socket of the router, on either side, has keepalive and TCP_USER_TIMEOUT.
func TestSocketOptions(t *testing.T) {
	s := startScripted(t, func(o *router.Options) {
		o.TCPUserTimeout, o.KeepAliveIdle, o.KeepAliveInterval, o.KeepAliveCount = 123*time.Second, 41*time.Second, 17*time.Second, 5
	})
	check := func(name string, local, remote net.Addr) {
		t.Helper()
		fd := socketOf(t, local, remote)
		if fd < 0 {
			t.Errorf("%s: no socket from %s to %s", name, local, remote)
			return
		}
		for _, o := range []struct {
			name          string
			level, option int
			want          int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 41}, {"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 17}, {"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 5},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 123_000},
		} {
			if got, err := unix.GetsockoptInt(fd, o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s: %s is %d (%v), want %d", name, o.name, got, err, o.want)
			}
		}
	}
	far := func(p *rt.Peer) (local, remote net.Addr) { return p.RemoteAddr(), p.LocalAddr() }
	for name, p := range map[string]*rt.Peer{"client": s.client, "primary": s.server, "standby": s.standby} {
		local, remote := far(p)
		check(name, local, remote)
	}
	rw := s.rig.client(t, route.RW)
	rw.Send(rt.Startup("user", "alice")[:5])
	until(t, "the socket of a client that has not said who it is", func() bool { return socketOf(t, rw.RemoteAddr(), rw.LocalAddr()) >= 0 })
	until(t, "its options to be set", func() bool {
		n, err := unix.GetsockoptInt(socketOf(t, rw.RemoteAddr(), rw.LocalAddr()), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		return err == nil && n == 123_000
	})
	asking := s.rig.client(t, route.Auto)
	asking.Send(cancelRequest([]byte(s.key)))
	delivering := s.one.Accept()
	local, remote := far(delivering)
	check("cancel request", local, remote)
	delivering.Close()
	asking.ExpectClose()
}
