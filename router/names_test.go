package router_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// resolve has every name stand for the address that is in to, as long as the test runs.
func resolve(t *testing.T, to *atomic.Value) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.WriteTo(dnsAnswer(b[:n], net.ParseIP(to.Load().(string)).To4()), from)
			}
		}
	}()
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		conn.Close()
		<-done
	})
}

// dnsAnswer answers a question (RFC 1035): with ip if it is for an A record, else with nothing.
func dnsAnswer(question []byte, ip net.IP) []byte {
	end := 12
	for question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5 // the end of the name, type and class
	a := append([]byte(nil), question[:end]...)
	a[2], a[3] = 0x81, 0x80 // an answer, without an error
	answers := uint16(0)
	if binary.BigEndian.Uint16(a[end-4:]) == 1 {
		answers = 1
		a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name of the question, A, IN, for no time, four bytes
		a = append(a, ip...)
	}
	binary.BigEndian.PutUint16(a[6:], answers)
	binary.BigEndian.PutUint16(a[8:], 0)
	binary.BigEndian.PutUint16(a[10:], 0)
	return a
}

// The name in a member's address is looked up for each connection: what it stands for may change.
func TestNamesAreLookedUpAgain(t *testing.T) {
	var to atomic.Value
	to.Store("127.0.0.1")
	resolve(t, &to)
	first := rt.Listen(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(first.Address())
	if err != nil {
		t.Fatal(err)
	}
	second := rt.Listen(t, "127.0.0.2:"+port)
	g := start(t)
	g.know.Hear(rt.Primary("one", "db.example.:"+port, 1))
	old, oldServer := g.session(t, route.Auto, first)
	to.Store("127.0.0.2")
	next, nextServer := g.session(t, route.Auto, second)
	ask(old, oldServer, "SELECT 1")
	ask(next, nextServer, "SELECT 2")
	first.ExpectNobody()
}

// The router listens at, and connects to, addresses of IPv6 as of IPv4; a cancel request finds its way too.
func TestIPv6(t *testing.T) {
	g := start(t, func(o *router.Options) { o.Listen = "[::1]:0" })
	server := rt.Listen(t, "[::1]:0")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	client := g.client(t, route.Auto)
	client.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.Welcome(rt.KeyData(4711, "sekr"))
	key := client.Welcomed()
	ask(client, s, "SELECT 1")
	cancel := g.client(t, route.Auto)
	cancel.Send(cancelRequest([]byte(key)))
	delivered := server.Accept()
	delivered.Expect(cancelRequest([]byte("\x00\x00\x12\x67sekr")))
	delivered.Close()
	cancel.ExpectClose()
}
