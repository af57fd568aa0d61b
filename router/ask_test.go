package router_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// However a session ends, what a standby does for it is cancelled, also while the standby says nothing.
func TestAReadDoesNotOutliveItsSession(t *testing.T) {
	vanish := func(g *reading) {
		g.client.Close()
		g.server.Expect(rt.Terminate)
		g.server.ExpectClose()
	}
	for name, c := range map[string]struct {
		end  func(*reading)
		told string
	}{
		"the client vanishes": {end: vanish},
		"the client vanishes behind what it sent": {end: func(g *reading) {
			g.client.Send(rt.Query(aWrite), rt.Query(aRead))
			vanish(g)
		}},
		"the client vanishes in the middle of the answer": {end: func(g *reading) {
			g.standby.Send(rt.RowDescription("n"), rt.Row("1"))
			g.client.Expect(rt.RowDescription("n"), rt.Row("1"))
			vanish(g)
		}},
		"KILL": {func(g *reading) { g.Kill(1) }, "57P01"},
		"another primary": {func(g *reading) {
			g.know.Hear(rt.Standby("one", g.one.Address(), 1), rt.Standby("two", g.two.Address(), 1), rt.Primary("three", "127.0.0.1:1", 2))
		}, "57P01"},
	} {
		t.Run(name, func(t *testing.T) {
			g := startReading(t)
			g.connected(aRead)
			ask(g.client, g.server, "LISTEN x") // binds the session to its primary
			g.client.Send(rt.Query(aRead))
			g.standby.Expect(rt.Query(aRead))
			c.end(g)
			delivered(g.two, standbyCancel).Close()
			g.standby.ExpectClose()
			if c.told != "" {
				g.client.ExpectError(c.told)
				g.client.ExpectClose()
				g.server.ExpectClose()
			}
			until(t, "the session to end", func() bool { return g.count("") == 0 })
			g.two.ExpectNobody()
			g.one.ExpectNobody()
		})
	}
	t.Run("the standby may not keep it", func(t *testing.T) {
		g := startReading(t)
		g.connected(aRead)
		g.client.Send(rt.Query(aRead))
		g.standby.Expect(rt.Query(aRead))
		g.know.Liveness("two", schema.LivenessDead)
		delivered(g.two, standbyCancel).Close()
		answer(g.client, g.server, aRead)
	})
}

// A client that is there is left alone, however long its read takes and whatever it sends meanwhile.
func TestAClientThatWaitsForAStandbyIsLeftAlone(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	g.client.Send(rt.Query(aRead))
	g.standby.Expect(rt.Query(aRead))
	g.client.Send(rt.Query(aWrite))
	time.AfterFunc(500*time.Millisecond, func() { g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('I')) })
	g.client.Expect(rt.Complete("SELECT 0"), rt.Ready('I'))
	answer(g.client, g.server, aWrite)
	time.AfterFunc(500*time.Millisecond, func() { g.client.Send(rt.Query(aRead)) }) // the pause between two reads is no time that a standby took
	answer(g.client, g.standby, aRead)
}

func TestAVanishedClientsReadIsCancelled(t *testing.T) {
	s := startSplit(t)
	slow := func() bool {
		return s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* slow. */%' AND state = 'active'") == "1"
	}
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	raw, err := conn.PgConn().Hijack() // pgx itself would send a cancel request
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Conn.Write(rt.Query("/* slow. */ SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b")); err != nil {
		t.Fatal(err)
	}
	until(t, "it to run on the standby", slow)
	raw.Conn.Close()
	until(t, "it to be cancelled", func() bool { return !slow() })
	if !s.two.LogContains("canceling statement due to user request") {
		t.Error("it ended by itself")
	}
}

// What a standby cannot read fails once where a part of the answer has gone to the client, and otherwise not at all.
func TestAnUnloggedTableBehindTheFirstRow(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE UNLOGGED TABLE u (n int); GRANT ALL ON u TO alice")
	s.two.CatchUp(s.primary)
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "SELECT n FROM u"); err != nil {
		t.Error(err)
	}
	s.caughtUp(conn)
	sql := "SELECT 1; SELECT n FROM u"
	if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); code(err) != "0A000" {
		t.Errorf("%v, want 0A000", err)
	}
	s.caughtUp(conn)
	if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
		t.Errorf("again: %v", err)
	}
}

// What turns out to write when a part of its answer has gone to the client fails, once.
func TestRefusedBehindTheFirstRow(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SEQUENCE q; CREATE VIEW v AS SELECT repeat('x', 1000), CASE WHEN g > 1000 THEN nextval('q') END AS n FROM generate_series(1, 1001) g; GRANT ALL ON q, v TO alice")
	s.two.CatchUp(s.primary)
	conn := s.connect(t, route.Auto, "")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		sql := "SELECT n FROM v " + s.mark()
		s.caughtUp(conn)
		if mode == pgx.QueryExecModeCacheStatement {
			if _, err := conn.Prepare(t.Context(), sql, sql); err != nil {
				t.Fatal(err)
			}
			s.caughtUp(conn)
		}
		if err := s.exec(conn, mode, sql); code(err) != "25006" {
			t.Errorf("%v: %v, want 25006", mode, err)
		}
		s.caughtUp(conn)
		if err := s.exec(conn, mode, sql); err != nil {
			t.Errorf("%v, again: %v", mode, err)
		}
	}
	if n := s.metric(`howdah_router_errors_total{by="server",sqlstate="25006"}`); n != "3" {
		t.Errorf("%s errors are counted", n)
	}
}

// flood has a server send a message over and over, to a client that does not read, until it takes no more, and returns how many bytes that were.
func flood(t *testing.T, server *rt.Peer, message []byte) (sent int) {
	t.Helper()
	messages := bytes.Repeat(message, 1+(64<<10)/len(message))
	for {
		server.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := server.Write(messages)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return sent
		}
		if err != nil || sent > 64<<20 {
			t.Fatalf("%d bytes taken for a client that does not read (%v)", sent, err)
		}
	}
}

// floodedBy has a session's client ask one of its servers for more than it reads.
var floodedBy = map[string]func(*reading) *rt.Peer{
	"standby": func(g *reading) *rt.Peer {
		g.client.Send(rt.Query(aRead))
		g.standby.Expect(rt.Query(aRead))
		return g.standby
	},
	"primary": func(g *reading) *rt.Peer {
		g.client.Send(rt.Query(aWrite))
		g.server.Expect(rt.Query(aWrite))
		return g.server
	},
}

// A client that does not read a standby's answer stops the standby, after a bounded number of bytes, and nobody else.
func TestAnswerOfAStandbyIsHeldInBounds(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	row := rt.Row(strings.Repeat("x", 1000))
	sent := flood(t, floodedBy["standby"](g), row)
	t.Logf("%d bytes on their way", sent)
	client, server := g.login()
	ask(client, server, aWrite)
	// What was taken arrives, and the rest of the answer follows.
	g.standby.SetWriteDeadline(time.Now().Add(rt.Patience))
	go g.standby.Write(append(append(bytes.Clone(row[sent%len(row):]), rt.Complete("SELECT")...), rt.Ready('I')...))
	all := bytes.Repeat(row, sent/len(row)+1)
	g.client.SetReadDeadline(time.Now().Add(rt.Patience))
	got := make([]byte, len(all))
	if n, err := io.ReadFull(g.client, got); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("%d bytes of %d arrived, or others: %v", n, len(all), err)
	}
	g.client.Expect(rt.Complete("SELECT"), rt.Ready('I'))
}

// The router's last word never stands in the middle of a message: where a client has got a part of one, the connection is reset.
func TestNoLastWordInTheMiddleOfAMessage(t *testing.T) {
	// Each buffer of the router's ends a little behind the beginning of a row, so that most of what is written ends one.
	const buffer = 32 << 10
	row := rt.Row(strings.Repeat("x", buffer-len(rt.Row(""))))
	first := rt.RowDescription(strings.Repeat("c", buffer-64-len(rt.RowDescription(""))))
	for name, by := range floodedBy {
		t.Run(name, func(t *testing.T) {
			g := startReading(t, func(o *router.Options) { o.FarewellTimeout = time.Second })
			for id := uint64(1); id <= 3; id++ {
				if id > 1 {
					g.client, g.server = g.login()
				}
				g.connected(aRead)
				server := by(g)
				server.Send(first)
				flood(t, server, row)
				g.Kill(id)
				if name == "standby" {
					delivered(g.two, standbyCancel).Close()
				}
				// The write to the client is given up a second later, and a farewell is tried for another one.
				until(t, "the session's last word", func() bool {
					_, body := g.get(t, "/metrics")
					return strings.Contains(body, fmt.Sprintf(`howdah_router_errors_total{by="router",sqlstate="57P01"} %d`, id)) || g.count("") == 0
				})
				g.client.SetReadDeadline(time.Now().Add(rt.Patience))
				got, err := io.ReadAll(g.client)
				if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
					t.Fatal("the connection was not closed")
				}
				rest, ok := bytes.CutPrefix(got, first)
				for whole := ok; whole; {
					rest, whole = bytes.CutPrefix(rest, row)
				}
				if !ok || !bytes.HasPrefix(row, rest) && !(rest[0] == 'E' && int(binary.BigEndian.Uint32(rest[1:])) == len(rest)-1) {
					t.Errorf("%d bytes that end in %q", len(got), got[max(0, len(got)-200):])
				}
			}
		})
	}
}

// A steady exchange with a standby, sockets included, allocates nothing for each read.
func TestReadsAllocateNothing(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	g.client.SetDeadline(time.Time{})
	g.standby.SetDeadline(time.Time{})
	query := bytes.Join([][]byte{rt.Parse("", aRead), rt.Bind("", ""), rt.Execute(""), rt.Sync}, nil)
	reply := bytes.Join([][]byte{rt.ParseComplete, rt.BindComplete, rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I')}, nil)
	in, out := make([]byte, len(query)), make([]byte, len(reply))
	exchange := func() {
		mustIO(t, g.client.Write, query)
		mustRead(t, g.standby, in)
		mustIO(t, g.standby.Write, reply)
		mustRead(t, g.client, out)
	}
	for range 100 {
		exchange()
	}
	if n := testing.AllocsPerRun(2000, exchange); n > 0 && !raceEnabled {
		t.Errorf("%v allocations for each read", n)
	}
}
