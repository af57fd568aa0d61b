package router_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router"
	"howdah/router/route"
	"howdah/router/route/statement"
	rt "howdah/router/routertest"
)

// reading is a session of statement routing with a primary, "one", and a standby, "two", both played by hand.
type reading struct {
	*movable
	standby *rt.Peer // once the session has a connection to it
	known   bool     // the router has asked for the functions
}

// aRead goes to a standby, aWrite to the primary.
const (
	aRead  = "SELECT n FROM t"
	aWrite = "INSERT INTO t VALUES (1)"
)

var (
	primaryCancel = cancelRequest([]byte("\x00\x00\x12\x67sekr"))
	standbyCancel = cancelRequest([]byte("\x00\x00\x00\x63abcd"))
)

func startReading(t *testing.T, change ...func(*router.Options)) *reading {
	t.Helper()
	m := startMovable(t, append([]func(*router.Options){func(o *router.Options) {
		o.DialTimeout, o.CancelTimeout = rt.Patience, rt.Patience
		o.Consistency = route.Eventual // nobody says how far the standby is
	}}, change...)...)
	m.know.Hear(rt.Primary("one", m.one.Address(), 1), rt.Standby("two", m.two.Address(), 1))
	until(t, "the standby to be known", func() bool { return len(m.Status().Standbys) == 1 })
	return &reading{movable: m}
}

// connected has the session connect to its standby, with the text as its first read.
func (g *reading) connected(sql string) {
	g.t.Helper()
	g.client.Send(rt.Query(sql))
	g.standby = g.two.Accept()
	g.welcome(g.standby, clientTold...)
	if !g.known {
		g.functions()
		g.known = true
	}
	answer(g.client, g.standby, sql)
	g.rests()
}

// rests waits until the router has taken in what it has given its clients: they have an answer a moment before their session is at rest.
func (m *movable) rests() {
	m.t.Helper()
	until(m.t, "sessions to be at rest", func() bool { return m.count("active") == 0 })
}

// functions has the standby say that its database has none.
func (g *reading) functions() {
	g.t.Helper()
	g.standby.Expect(rt.Query(statement.FunctionsQuery))
	g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('I'))
}

// cancel sends a cancel request for the session.
func (g *reading) cancel() *rt.Peer {
	g.t.Helper()
	c := g.rig.client(g.t, route.Auto)
	c.Send(cancelRequest([]byte(g.key)))
	return c
}

// remembered has the session cancelled while no server has the client's request.
func (g *reading) remembered() {
	g.t.Helper()
	g.cancel().ExpectClose()
}

func (g *reading) isCancelled(status byte) {
	g.t.Helper()
	g.client.ExpectError("57014")
	g.client.Expect(rt.Ready(status))
}

// delivered plays the part of a server that is told of a cancel request, and returns the connection of that, which is still open.
func delivered(at *rt.Server, request []byte) *rt.Peer {
	c := at.Accept()
	c.Expect(request)
	return c
}

// While the router makes a standby ready for the client's request, a cancel request hits nothing of the router's own, and the client is told at once.
func TestCancelWhileAStandbyIsMadeReady(t *testing.T) {
	// A connection that is being made is given up; what comes next is not to wait for the same.
	t.Run("the connection", func(t *testing.T) {
		g := startReading(t)
		g.know.Hear(rt.Standby("two", deaf(t), 1))
		g.client.Send(rt.Query(aRead))
		until(t, "the request to be in hand", func() bool { return g.count("active") == 1 })
		g.remembered()
		g.isCancelled('I')
		ask(g.client, g.server, aRead)
		g.one.ExpectNobody()
	})
	for name, sql := range map[string]string{"the login": aRead, "the login before a write": aWrite} {
		t.Run(name, func(t *testing.T) {
			g := startReading(t)
			g.client.Send(rt.Query(sql))
			standby := g.two.Accept()
			standby.ExpectStartup()
			g.remembered()
			g.isCancelled('I')
			standby.ExpectClose()
			ask(g.client, g.server, aRead)
			ask(g.client, g.server, aWrite)
			g.one.ExpectNobody()
		})
	}
	// A session's first statement waits for more than others do.
	t.Run("the login before another read", func(t *testing.T) {
		g := startReading(t)
		g.connected(aRead)
		g.client, g.server = g.login()
		ask(g.client, g.server, aWrite)
		g.client.Send(rt.Parse("", aRead), rt.Bind("", ""), rt.Execute(""), rt.Sync, rt.Query(aWrite))
		standby := g.two.Accept()
		standby.ExpectStartup()
		g.remembered()
		g.isCancelled('I')
		standby.ExpectClose()
		answer(g.client, g.server, aWrite)
		g.one.ExpectNobody()
	})
	t.Run("what is asked", func(t *testing.T) {
		g := startReading(t)
		g.client.Send(rt.Query(aRead))
		g.standby = g.two.Accept()
		g.welcome(g.standby, clientTold...)
		g.standby.Expect(rt.Query(statement.FunctionsQuery))
		g.remembered()
		g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('I'))
		g.isCancelled('I')
		ask(g.client, g.standby, aRead) // without the one that was cancelled
		g.one.ExpectNobody()
		g.two.ExpectNobody()
	})
	t.Run("a setting", func(t *testing.T) {
		g := startReading(t)
		g.connected(aRead)
		ask(g.client, g.server, "SET a.b = 1")
		g.client.Send(rt.Parse("", aRead), rt.Bind("", ""), rt.Execute(""), rt.Sync)
		g.standby.Expect(rt.Query("SET a.b = 1"))
		g.remembered()
		g.standby.Send(rt.Complete("SET"), rt.Ready('I'))
		g.isCancelled('I')
		ask(g.client, g.standby, aRead)
		g.two.ExpectNobody()
	})
	// What the router asks before a session's first statement delays also one that is the primary's.
	t.Run("a write", func(t *testing.T) {
		g := startReading(t)
		g.client.Send(rt.Query(aWrite))
		g.standby = g.two.Accept()
		g.welcome(g.standby, clientTold...)
		g.standby.Expect(rt.Query(statement.FunctionsQuery))
		g.remembered()
		g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('I'))
		g.isCancelled('I')
		ask(g.client, g.server, aWrite)
		g.one.ExpectNobody()
	})
}

// deaf returns the address of a listener that takes no connection, because its queue is full.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	err = errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0))
	bound, named := syscall.Getsockname(fd)
	if err = errors.Join(err, named); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("a listener without a queue takes any number of connections")
	return ""
}

// A cancel request goes to the server that has the request, and until it has been delivered that server is given nothing else.
func TestNothingFollowsACancelRequestUntilItIsDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		sql     string
		request []byte
		has     func(*reading) (*rt.Server, *rt.Peer)
	}{
		"standby": {aRead, standbyCancel, func(g *reading) (*rt.Server, *rt.Peer) { return g.two, g.standby }},
		"primary": {aWrite, primaryCancel, func(g *reading) (*rt.Server, *rt.Peer) { return g.one, g.server }},
	} {
		t.Run(name, func(t *testing.T) {
			g := startReading(t)
			g.connected(aRead)
			at, server := c.has(g)
			g.client.Send(rt.Query(c.sql))
			server.Expect(rt.Query(c.sql))
			cancels := g.cancel()
			under := delivered(at, c.request)
			server.Send(rt.Complete("OK"), rt.Ready('I')) // it was too late
			g.client.Expect(rt.Complete("OK"), rt.Ready('I'))
			g.client.Send(rt.Query(c.sql))
			server.ExpectQuiet()
			cancels.ExpectQuiet()
			under.Close()
			cancels.ExpectClose()
			answer(g.client, server, c.sql)
			g.one.ExpectNobody()
			g.two.ExpectNobody()
		})
	}
}

// What was to be cancelled is not repeated on the primary.
func TestACancelledReadIsNotRepeated(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	g.client.Send(rt.Query(aRead))
	g.standby.Expect(rt.Query(aRead))
	g.cancel()
	delivered(g.two, standbyCancel).Close()
	g.standby.Send(rt.Error("40001", "canceling statement due to conflict with recovery"), rt.Ready('I'))
	g.isCancelled('I')
	g.client.Send(rt.Query(aRead))
	g.standby.Expect(rt.Query(aRead))
	g.cancel()
	delivered(g.two, standbyCancel).Close()
	g.standby.Close()
	g.isCancelled('I')
	ask(g.client, g.server, aWrite)
}

// A cancel request is for one request, and not for what the client sent behind that.
func TestCancelOfAReadWithSomethingBehindIt(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	g.client.Send(rt.Query(aRead), rt.Query(aWrite))
	g.standby.Expect(rt.Query(aRead))
	g.cancel()
	delivered(g.two, standbyCancel).Close()
	g.standby.Send(rt.Error("57014", "canceled"), rt.Ready('I'))
	g.isCancelled('I')
	answer(g.client, g.server, aWrite)
	ask(g.client, g.server, aWrite)
	g.one.ExpectNobody()
}

// The primary goes on with a block of the standby's: the BEGIN that it is sent for that is not the client's, so no cancel request hits it.
func TestCancelWhileABlockIsTakenOver(t *testing.T) {
	const begin = "BEGIN READ ONLY ISOLATION LEVEL READ COMMITTED"
	start := func(t *testing.T) *reading {
		g := startReading(t)
		g.connected(aRead)
		g.client.Send(rt.Query(begin))
		g.standby.Expect(rt.Query(begin))
		g.standby.Send(rt.Complete("BEGIN"), rt.Ready('T'))
		g.client.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
		g.rests()
		return g
	}
	begun := [][]byte{rt.Complete("BEGIN"), rt.Ready('T')}
	t.Run("the standby's part has not ended", func(t *testing.T) {
		g := start(t)
		g.client.Send(rt.Query(aWrite))
		g.server.Expect(rt.Query(begin))
		g.standby.Expect(rt.Query("ROLLBACK"))
		g.remembered()
		g.standby.Send(rt.Complete("ROLLBACK"), rt.Ready('I'))
		g.server.Expect(rt.Query(aWrite))
		g.one.ExpectNobody()
		g.remembered()
		g.server.Send(begun...)
		delivered(g.one, primaryCancel).Close()
		g.server.Send(rt.Error("57014", "canceled"), rt.Ready('E'))
		g.isCancelled('E')
		g.two.ExpectNobody()
		g.one.ExpectNobody()
	})
	t.Run("BEGIN is answered", func(t *testing.T) {
		g := start(t)
		g.client.Send(rt.Query(aWrite))
		g.server.Expect(rt.Query(begin))
		g.standby.Expect(rt.Query("ROLLBACK"))
		g.remembered()
		g.server.Send(begun...)
		g.standby.Send(rt.Complete("ROLLBACK"), rt.Ready('I'))
		g.server.Expect(rt.Query(aWrite))
		delivered(g.one, primaryCancel).Close()
		g.server.Send(rt.Error("57014", "canceled"), rt.Ready('E'))
		g.isCancelled('E')
	})
	t.Run("a late one", func(t *testing.T) {
		g := start(t)
		late := g.cancel() // nothing runs
		under := delivered(g.one, primaryCancel)
		g.client.Send(rt.Query(aWrite))
		g.server.ExpectQuiet()
		under.Close()
		late.ExpectClose()
		g.server.Expect(rt.Query(begin))
		g.standby.Expect(rt.Query("ROLLBACK"))
		g.standby.Send(rt.Complete("ROLLBACK"), rt.Ready('I'))
		g.server.Expect(rt.Query(aWrite))
	})
	// What is cancelled in a block before the standby has it makes the block fail, on the primary then.
	t.Run("in the block", func(t *testing.T) {
		g := start(t)
		g.client.Send(rt.Query(aRead))
		g.standby.Expect(rt.Query(aRead))
		g.cancel()
		under := delivered(g.two, standbyCancel)
		g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('T'))
		g.client.Expect(rt.Complete("SELECT 0"), rt.Ready('T'))
		g.client.Send(rt.Query(aRead))
		g.standby.ExpectQuiet()
		g.remembered()
		under.Close()
		g.isCancelled('E')
		g.standby.Expect(rt.Terminate)
		g.client.Send(rt.Query("ROLLBACK"))
		// It has read, so that the primary has it read too before it fails.
		g.server.Expect(rt.Query(begin + "\n;DECLARE the_block_read_on_a_standby CURSOR FOR SELECT 1;CLOSE the_block_read_on_a_standby" +
			"\n;ROLLBACK TO SAVEPOINT the_block_failed_on_a_standby"))
		g.server.Send(rt.Complete("BEGIN"), rt.Complete("DECLARE CURSOR"), rt.Complete("CLOSE CURSOR"), rt.Error("3B001", "no such savepoint"), rt.Ready('E'))
		answer(g.client, g.server, "ROLLBACK")
	})
}

// Whoever waits until a cancel request has been delivered never has what follows cancelled, wherever that runs and whatever the router does for it.
func TestNoCancelRequestHitsWhatFollows(t *testing.T) {
	s := startSplit(t)
	const sessions, rounds = 4, 60
	done := make(chan error, sessions)
	var cancelled atomic.Int32
	for i := range sessions {
		conn := s.connect(t, route.Auto, "")
		go func() {
			for n := range rounds {
				asked := make(chan error, 1)
				go func() { asked <- conn.PgConn().CancelRequest(context.Background()) }()
				err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, fmt.Sprintf("SELECT count(*) FROM generate_series(1, %d)", n%20*3000))
				if code(err) == "57014" {
					cancelled.Add(1)
				} else if err != nil {
					done <- err
					return
				}
				if err := <-asked; err != nil {
					done <- err
					return
				}
				for _, sql := range []string{
					fmt.Sprintf("SET a.b = %d", n), "SELECT count(*) FROM t", "BEGIN READ ONLY", "SELECT count(*) FROM t", "SELECT n FROM t WHERE n = 1 FOR SHARE", "ROLLBACK",
				} {
					if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil && code(err) != "25006" {
						done <- fmt.Errorf("session %d, round %d: %s: %w", i, n, sql, err)
						return
					}
				}
			}
			done <- nil
		}()
	}
	for range sessions {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if t.Logf("%d of %d were cancelled", cancelled.Load(), sessions*rounds); cancelled.Load() == 0 {
		t.Error("nothing was cancelled")
	}
}
