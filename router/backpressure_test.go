package router_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// blockedFor is how long a write must take to count as one that nobody reads.
const blockedFor = 300 * time.Millisecond

// fill writes b again and again until nobody reads it any more, and returns how much was taken.
func fill(t *testing.T, p *rt.Peer, b []byte) (taken int) {
	t.Helper()
	for {
		p.SetWriteDeadline(time.Now().Add(blockedFor))
		n, err := p.Write(b)
		taken += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return taken
		}
		if err != nil || taken > 256<<20 {
			t.Fatalf("%d bytes are taken that nobody reads (%v)", taken, err)
		}
	}
}

// A server that does not read stops its own client, after a bounded number of bytes, and nobody else.
func TestSlowServerSlowsOnlyItsClient(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	slow, slowServer := g.session(t, route.Auto, server)
	quick, quickServer := g.session(t, route.Auto, server)
	slowServer.SetReadBuffer(4096)
	fill(t, slow, rt.Query("INSERT INTO t VALUES ('"+strings.Repeat("x", 64<<10)+"')"))
	ask(quick, quickServer, "SELECT 1")
	// What the server says is passed on all the same, and the session can be ended.
	slowServer.Send(rt.Notice("full"))
	slow.Expect(rt.Notice("full"))
	g.know.Hear(rt.Standby("one", server.Address(), 2))
	slow.ExpectError("08007")
	until(t, "the session to end", func() bool { return g.count("") == 0 })
}

// The same where a standby answers: what reads from the client waits for the client, and neither the primary nor others do.
func TestSlowReaderOfAStandby(t *testing.T) {
	s := startScripted(t)
	quick, quickServer := s.login()
	s.client.SetReadBuffer(4096)
	s.client.Send(rt.Query("SELECT 1"))
	s.standby.Expect(rt.Query("SELECT 1"))
	fill(t, s.standby, rt.Row(strings.Repeat("x", 64<<10)))
	ask(quick, quickServer, "INSERT INTO t VALUES (1)")
	fill(t, s.server, rt.Notice(strings.Repeat("x", 64<<10))) // is not in the way of the end, either
	done := make(chan struct{})
	go func() { defer close(done); s.stop() }()
	s.standby.ExpectClose()
	select {
	case <-done:
	case <-time.After(rt.Patience):
		t.Error("the router does not end")
	}
}

// A result without end, to a client that reads it, leaves others their turns, whichever server it is from.
func TestEndlessResultsStarveNobody(t *testing.T) {
	s := startScripted(t)
	quick, quickServer := s.login()
	row := rt.Row(strings.Repeat("x", 64<<10))
	endless := func(client, server *rt.Peer) *atomic.Int64 {
		client.SetDeadline(time.Time{})
		server.SetDeadline(time.Time{})
		go func() {
			for err := error(nil); err == nil; { // until the test ends
				_, err = server.Write(row)
			}
		}()
		read := &atomic.Int64{}
		go func() {
			b := make([]byte, 1<<20)
			for {
				n, err := client.Read(b)
				if read.Add(int64(n)); err != nil {
					return
				}
			}
		}()
		return read
	}
	s.client.Send(rt.Query("SELECT 1"))
	s.standby.Expect(rt.Query("SELECT 1"))
	fromStandby := endless(s.client, s.standby)
	other, otherServer := s.login()
	other.Send(rt.Query("UPDATE t SET n = 1 RETURNING n"))
	otherServer.Expect(rt.Query("UPDATE t SET n = 1 RETURNING n"))
	fromPrimary := endless(other, otherServer)
	for range 10 {
		before := [2]int64{fromStandby.Load(), fromPrimary.Load()}
		until(t, "both results to go on", func() bool {
			ask(quick, quickServer, "INSERT INTO t VALUES (1)") // has rt.Patience
			return fromStandby.Load() > before[0]+1<<20 && fromPrimary.Load() > before[1]+1<<20
		})
	}
}

// A standby that does not take a batch is given up for the primary; the statements that the batch needs can make it longer than what sockets hold.
func TestStandbyThatDoesNotRead(t *testing.T) {
	s := startScripted(t)
	var makes, uses [][]byte
	for i := range 30 {
		name := fmt.Sprint("s", i)
		makes = append(makes, rt.Parse(name, "SELECT '"+strings.Repeat("x", 30<<10)+"'"))
		uses = append(uses, rt.Bind("", name), rt.Execute(""))
	}
	for _, m := range makes {
		s.client.Send(m, rt.Sync)
		s.server.Expect(m, rt.Sync)
		s.server.Send(rt.ParseComplete, rt.Ready('I'))
		s.client.Expect(rt.ParseComplete, rt.Ready('I'))
	}
	s.standby.SetReadBuffer(4096)
	if err := unix.SetsockoptInt(socketOf(t, s.standby.RemoteAddr(), s.standby.LocalAddr()), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	uses = append(uses, rt.Sync)
	s.client.Send(uses...)
	s.server.Expect(uses...)
	s.server.Send(rt.Ready('I'))
	s.client.Expect(rt.Ready('I'))
}
