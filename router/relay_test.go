package router_test

import (
	"io"
	"net"
	"testing"
	"time"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// A steady exchange through the whole router, sockets included, allocates nothing for each message.
func TestRelayAllocatesNothing(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	client, backend := g.session(t, route.Auto, server)
	client.SetDeadline(time.Time{})
	backend.SetDeadline(time.Time{})
	query := append(append(append(rt.Bind("", "s"), rt.Execute("")...), rt.Sync...), rt.Query("SELECT abalance FROM pgbench_accounts")...)
	reply := append(append(append(append(append(append([]byte{}, rt.BindComplete...), rt.Row("1")...), rt.Complete("SELECT 1")...), rt.Ready('I')...), rt.Row("12345")...), append(rt.Complete("SELECT 1"), rt.Ready('I')...)...)
	in, out := make([]byte, len(query)), make([]byte, len(reply))
	exchange := func() {
		mustIO(t, client.Write, query)
		mustRead(t, backend, in)
		mustIO(t, backend.Write, reply)
		mustRead(t, client, out)
	}
	for range 100 {
		exchange()
	}
	// The garbage collector may empty the pool of buffers now and then; that is no allocation for
	// each message.
	if n := testing.AllocsPerRun(2000, exchange); n > 0 && !raceEnabled {
		t.Errorf("%v allocations for each exchange", n)
	}
}

func mustIO(t *testing.T, f func([]byte) (int, error), b []byte) {
	if _, err := f(b); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, r io.Reader, b []byte) {
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
}

// A client that does not read stops its own server, after a bounded number of bytes, and nobody else.
func TestSlowReaderSlowsOnlyItself(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	slow, slowServer := g.session(t, route.Auto, server)
	quick, quickServer := g.session(t, route.Auto, server)
	slow.SetReadBuffer(4096)
	row := rt.Row(string(make([]byte, 64<<10)))
	sent := 0
	for {
		slowServer.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := slowServer.Write(row)
		sent += n
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			break
		}
		if err != nil || sent > 256<<20 {
			t.Fatalf("%d bytes taken for a client that does not read (%v)", sent, err)
		}
	}
	quick.Send(rt.Query("SELECT"))
	quickServer.Expect(rt.Query("SELECT"))
	quickServer.Send(rt.Ready('I'))
	quick.Expect(rt.Ready('I'))
	// And it can still be ended.
	g.know.Hear(rt.Standby("one", server.Address(), 2))
	slowServer.ExpectClose()
	until(t, "the session to end", func() bool { return g.count("") == 0 })
}
