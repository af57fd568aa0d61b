package router_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// A client that sends no more after its goodbye gets what it has asked for; without one it counts as gone (TestClientThatVanishesIsCancelled).
func TestHalfClose(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	client, backend := g.session(t, route.Auto, server)
	client.Send(rt.Query("SELECT 1"), rt.Terminate)
	client.CloseWrite()
	backend.Expect(rt.Query("SELECT 1"), rt.Terminate)
	backend.Send(rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'))
	client.Expect(rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'))
	backend.Close()
	client.ExpectClose()

	// A server that says nothing more is one that has gone, though it may still read.
	client, backend = g.session(t, route.Auto, server)
	backend.CloseWrite()
	client.ExpectError("57P01")
	client.ExpectClose()
	backend.ExpectClose()
}

// A client that goes away in the middle of something leaves nothing behind on any server: no transaction, no lock, no row of a copy that has not ended.
func TestClientGoneInTheMiddle(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE TABLE copied (n int); GRANT ALL ON copied TO alice")
	s.two.CatchUp(s.primary)
	const backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone'"
	locked := func(table string) string {
		return fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE relation = '%s'::regclass AND mode = 'RowExclusiveLock'", table)
	}
	for name, c := range map[string]struct {
		sent [][]byte
		// until says on the primary that it has come so far
		until string
		rows  int // of so many bytes the answer is read
	}{
		"in a transaction":          {sent: [][]byte{rt.Query("BEGIN"), rt.Query("UPDATE t SET s = 'gone' WHERE n = 1")}, until: locked("t")},
		"with a batch open":         {sent: [][]byte{rt.Parse("", "UPDATE t SET s = 'gone' WHERE n = 1"), rt.Bind("", ""), rt.Execute(""), rt.Flush}, until: locked("t")},
		"in a copy in":              {sent: [][]byte{rt.Query("COPY copied FROM STDIN"), rt.CopyData([]byte("1\n2\n"))}, until: locked("copied")},
		"in the data of a copy":     {sent: [][]byte{rt.Query("COPY copied FROM STDIN"), rt.CopyData(bytes.Repeat([]byte("1\n"), 5000))[:7000]}, until: locked("copied")},
		"in a copy by a batch":      {sent: [][]byte{rt.Parse("", "COPY copied FROM STDIN"), rt.Bind("", ""), rt.Execute(""), rt.Sync, rt.CopyData([]byte("1\n"))}, until: locked("copied")},
		"in a copy out":             {sent: [][]byte{rt.Query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT")}, until: "SELECT 1", rows: 100 << 10},
		"in rows of the primary":    {sent: [][]byte{rt.Query("/* howdah: primary */ SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")}, until: "SELECT 1", rows: 100 << 10},
		"in rows of the standby":    {sent: [][]byte{rt.Query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")}, until: "SELECT 1", rows: 100 << 10},
		"in a block of the standby": {sent: [][]byte{rt.Query("BEGIN READ ONLY"), rt.Query("SELECT 1")}, until: "SELECT 1"},
		"in a message":              {sent: [][]byte{rt.Query("SELECT 1")[:8]}, until: "SELECT 1"},
	} {
		for _, of := range []route.Route{route.RW, route.Auto} {
			t.Run(name+", "+string(of), func(t *testing.T) {
				conn := s.connect(t, of, "&application_name=gone")
				if of == route.Auto {
					s.caughtUp(conn)
				}
				hijacked, err := conn.PgConn().Hijack()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := hijacked.Conn.Write(bytes.Join(c.sent, nil)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.CopyN(io.Discard, hijacked.Conn, int64(c.rows)); err != nil {
					t.Fatal(err)
				}
				until(t, "it to be in the middle", func() bool { return s.primary.Query(c.until) == "1" })
				if err := hijacked.Conn.Close(); err != nil {
					t.Fatal(err)
				}
				until(t, "its backends to be gone", func() bool { return s.primary.Query(backends) == "0" && s.two.Query(backends) == "0" })
				if n := s.primary.Query("SELECT count(*) FROM copied"); n != "0" {
					t.Errorf("%s rows of a copy that has not ended", n)
				}
				if n := s.primary.Query("SELECT count(*) FROM t WHERE s = 'gone'"); n != "0" {
					t.Errorf("%s rows of a transaction that was not committed", n)
				}
			})
		}
	}
}

// A READ ONLY block that idles away on a standby ends the session as one on the primary does, as soon as the client speaks.
func TestIdleBlockOnAStandby(t *testing.T) {
	s := startSplit(t)
	for _, next := range []string{"SELECT 1", "COMMIT", "SELECT n FROM t WHERE n = 1 FOR SHARE"} {
		conn := s.connect(t, route.Auto, "&application_name=idle&idle_in_transaction_session_timeout=300")
		s.caughtUp(conn)
		m := s.mark()
		if _, err := conn.PgConn().Exec(t.Context(), "BEGIN READ ONLY "+m).ReadAll(); err != nil || s.ran(m) != "two" {
			t.Fatalf("%v, or it was not the standby's", err)
		}
		until(t, "the standby to end it", func() bool {
			return s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'") == "0"
		})
		if _, err := conn.PgConn().Exec(t.Context(), next).ReadAll(); code(err) != "25P03" {
			t.Errorf("%s: %v, want 25P03", next, err)
		}
		until(t, "its backends to be gone", func() bool {
			return s.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'") == "0"
		})
	}
}

// What a server's own timeouts end, ends for the client in the server's words.
func TestServerTimeouts(t *testing.T) {
	s := startSplit(t)
	for setting, c := range map[string]struct{ begin, code string }{
		"idle_in_transaction_session_timeout": {"BEGIN; SELECT n FROM t WHERE n = 1 FOR UPDATE", "25P03"}, "idle_session_timeout": {"SELECT 1", "57P05"},
	} {
		for _, of := range []route.Route{route.RW, route.Auto} {
			conn := s.connect(t, of, "&application_name=idle&"+setting+"=300")
			if _, err := conn.PgConn().Exec(t.Context(), c.begin).ReadAll(); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), rt.Patience)
			_, err := conn.PgConn().ReceiveMessage(ctx)
			stop()
			if code(err) != c.code {
				t.Errorf("%s, %s: %v, want %s", of, setting, err, c.code)
			}
			until(t, "its backends to be gone", func() bool {
				return s.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'") == "0" && s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'") == "0"
			})
		}
	}
}
