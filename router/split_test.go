package router_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// split is a router that routes statements, in front of a real primary and a standby which log every statement.
type splitCluster struct {
	*cluster
	t     *testing.T
	marks int
}

func startSplit(t *testing.T, change ...func(*router.Options)) *splitCluster {
	t.Helper()
	logs := postgrestest.WithParameter("log_statement", "all")
	primary := postgrestest.Start(t, postgrestest.WithName("one"), logs)
	ensureRoles(t, primary)
	primary.CreateRole("alice")
	primary.CreateRole("bob")
	primary.Exec("GRANT bob TO alice")
	primary.Exec("GRANT ALL ON SCHEMA public TO alice, bob")
	primary.Exec("CREATE TABLE t (n int PRIMARY KEY, s text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g; GRANT ALL ON t TO alice, bob")
	standby := primary.NewStandby(postgrestest.WithName("two"), logs)
	standby.CatchUp(primary)
	s := &splitCluster{cluster: &cluster{primary: primary, two: standby}, t: t}
	s.rig = start(t, append([]func(*router.Options){func(o *router.Options) {
		o.AuthType, o.StatementRouting = router.AuthSCRAM, true
		o.OwnPassword = func() (string, error) { return routerSecret, nil }
	}}, change...)...)
	s.know.Hear(rt.Primary("one", primary.Addr(), 1), rt.Standby("two", standby.Addr(), 1))
	return s
}

// mark returns a comment that no other statement has.
func (s *splitCluster) mark() string {
	s.marks++
	return fmt.Sprintf("/* mark %d. */", s.marks)
}

// ran says which servers have logged the mark, once one has.
func (s *splitCluster) ran(mark string) string {
	s.t.Helper()
	var on []string
	until(s.t, mark+" to be logged", func() bool {
		on = nil
		for _, server := range []*postgrestest.Server{s.primary, s.two} {
			if server.LogContains(mark) {
				on = append(on, server.Name)
			}
		}
		return len(on) > 0
	})
	return strings.Join(on, " ")
}

// caughtUp returns once the session's reads go to the standby again.
func (s *splitCluster) caughtUp(conn *pgx.Conn) {
	s.t.Helper()
	until(s.t, "reads on the standby", func() bool {
		m := s.mark()
		if _, err := conn.Exec(context.Background(), "SELECT n FROM t WHERE n = 1 "+m, pgx.QueryExecModeSimpleProtocol); err != nil {
			s.t.Fatal(err)
		}
		return s.ran(m) == "two"
	})
}

func (s *splitCluster) exec(conn *pgx.Conn, mode pgx.QueryExecMode, sql string) error {
	_, err := conn.Exec(context.Background(), sql, mode)
	return err
}

func TestStatementRouting(t *testing.T) {
	s := startSplit(t)
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		for _, c := range []struct{ sql, on string }{
			{"SELECT s FROM t WHERE n = 5", "two"},
			{"SELECT count(*) FROM t", "two"},
			{"INSERT INTO t VALUES (1000) ON CONFLICT DO NOTHING", "one"},
			{"SELECT n FROM t FOR UPDATE", "one"},
			{"WITH x AS (DELETE FROM t WHERE n = 1000 RETURNING n) SELECT * FROM x", "one"},
			{"SELECT pg_advisory_xact_lock(1)", "one"},
			{"SELECT txid_current()", "one"},
			{"SHOW transaction_read_only", "one"},
			{"SELECT pg_is_in_recovery()", "one"},
		} {
			s.caughtUp(conn)
			for range 2 { // a statement that gets a name is made on the primary
				m := s.mark()
				if err := s.exec(conn, mode, c.sql+m); err != nil {
					t.Errorf("%v %s: %v", mode, c.sql, err)
				}
				if on := s.ran(m); on != c.on && !(mode == pgx.QueryExecModeCacheStatement && strings.Contains(on, c.on)) {
					t.Errorf("%v %s: ran on %s, want %s", mode, c.sql, on, c.on)
				}
			}
		}
	}
}

func TestReadsSeeTheSessionsWrites(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE TABLE own (n int); GRANT ALL ON own TO alice")
	done := make(chan error)
	const sessions = 8
	for i := range sessions {
		conn := s.connect(t, route.Auto, "")
		go func() {
			ctx := context.Background()
			for n := range 300 {
				var got int
				if _, err := conn.Exec(ctx, "INSERT INTO own VALUES ($1)", i); err != nil {
					done <- err
					return
				}
				for range 3 {
					if err := conn.QueryRow(ctx, "SELECT count(*) FROM own WHERE n = $1", i).Scan(&got); err != nil || got != n+1 {
						done <- fmt.Errorf("session %d sees %d of its %d rows: %v", i, got, n+1, err)
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
}

func TestSettingsFollow(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SCHEMA other; CREATE TABLE other.t (n int, s text); INSERT INTO other.t VALUES (1, 'other'); GRANT USAGE ON SCHEMA other TO alice; GRANT SELECT ON other.t TO alice")
	s.two.CatchUp(s.primary)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		conn := s.connect(t, route.Auto, "")
		s.caughtUp(conn)
		read := func(want string) {
			t.Helper()
			s.caughtUp(conn)
			m := s.mark()
			var got string
			if err := conn.QueryRow(context.Background(), "SELECT s FROM t WHERE n = 1 "+m, mode).Scan(&got); err != nil || got != want {
				t.Errorf("%v: %q, %v; want %q", mode, got, err, want)
			}
			if on := s.ran(m); on != "two" {
				t.Errorf("%v: ran on %s", mode, on)
			}
		}
		do := func(sql string) {
			t.Helper()
			if err := s.exec(conn, mode, sql); err != nil {
				t.Fatal(err)
			}
		}
		read("x")
		do("SET search_path = other, public")
		read("other")
		do("BEGIN")
		do("SET LOCAL search_path = public")
		do("COMMIT")
		read("other")
		if err := s.exec(conn, mode, "SET search_path = 'x' 'y'"); err == nil {
			t.Error("no error")
		}
		read("other")
		do("RESET search_path")
		read("x")
		do("SET search_path = other")
		do("DISCARD ALL")
		read("x")
		do("SET ROLE bob")
		m := s.mark()
		s.caughtUp(conn)
		var who string
		if err := conn.QueryRow(context.Background(), "SELECT current_user "+m, mode).Scan(&who); err != nil || who != "bob" {
			t.Errorf("%v: %s, %v", mode, who, err)
		}
		if on := s.ran(m); on != "two" {
			t.Errorf("current_user ran on %s", on)
		}
	}
}

// What no tracker can follow keeps a session on the primary.
func TestPinned(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE FUNCTION sets() RETURNS int LANGUAGE plpgsql AS 'BEGIN SET search_path = pg_catalog; RETURN 1; END'")
	s.two.CatchUp(s.primary)
	for _, sql := range []string{
		"CREATE TEMP TABLE mine (n int)", "SELECT set_config('search_path', 'public', false)", "BEGIN; SET search_path = public; COMMIT", "SELECT sets()", "DO 'BEGIN END'",
		"EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1 AS n",
	} {
		conn := s.connect(t, route.Auto, "")
		s.caughtUp(conn)
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			<-time.After(20 * time.Millisecond)
			m := s.mark()
			if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "SELECT 1 "+m); err != nil || s.ran(m) != "one" {
				t.Errorf("after %s: %v, ran on %s", sql, err, s.ran(m))
			}
		}
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "DISCARD ALL"); err != nil {
			t.Fatal(err)
		}
		s.caughtUp(conn)
	}
}

// What a standby refuses is repeated on the primary, and goes there at once from then on.
func TestRefusedByTheStandby(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SEQUENCE q; CREATE VIEW v AS SELECT nextval('q') AS n; GRANT ALL ON q, v TO alice")
	s.two.CatchUp(s.primary)
	conn := s.connect(t, route.Auto, "")
	for i, sql := range []string{"SELECT n FROM v", "SELECT n FROM v"} {
		s.caughtUp(conn)
		var n int
		before := strings.Count(s.two.Log(), "cannot execute nextval() in a read-only transaction")
		if err := conn.QueryRow(context.Background(), sql, pgx.QueryExecModeExec).Scan(&n); err != nil || n != i+1 {
			t.Errorf("%d: %d, %v", i, n, err)
		}
		if refused := strings.Count(s.two.Log(), "cannot execute nextval() in a read-only transaction") - before; i > 0 && refused > 0 {
			t.Error("the standby was asked again")
		}
	}
	// An error is told as the primary tells it.
	s.caughtUp(conn)
	if err := s.exec(conn, pgx.QueryExecModeExec, "SELECT 1/0"); code(err) != "22012" {
		t.Error(err)
	}
	s.caughtUp(conn)
	if err := s.exec(conn, pgx.QueryExecModeExec, "SELECT nothing FROM nowhere"); code(err) != "42P01" {
		t.Error(err)
	}
}

func TestCancelReachesTheStandby(t *testing.T) {
	s := startSplit(t)
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	done := make(chan error, 1)
	go func() {
		done <- s.exec(conn, pgx.QueryExecModeSimpleProtocol, "/* slow. */ SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b")
	}()
	until(t, "it to run on the standby", func() bool {
		return s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* slow. */%' AND state = 'active'") == "1"
	})
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("%v, want 57014", err)
	}
	s.caughtUp(conn)
}

// A standby that dies takes no session with it, unless that has got a part of an answer.
func TestALostStandby(t *testing.T) {
	s := startSplit(t)
	idle, waiting, reading := s.connect(t, route.Auto, ""), s.connect(t, route.Auto, ""), s.connect(t, route.Auto, "")
	for _, conn := range []*pgx.Conn{idle, waiting, reading} {
		s.caughtUp(conn)
	}
	rows, err := reading.Query(context.Background(), "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)", pgx.QueryExecModeSimpleProtocol)
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.exec(waiting, pgx.QueryExecModeExec, "/* slow. */ SELECT count(*) FROM generate_series(1, 3000) a, generate_series(1, 1000) b")
	}()
	until(t, "it to run on the standby", func() bool {
		return s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* slow. */%'") != "0"
	})
	s.two.Kill()
	if err := <-done; err != nil {
		t.Errorf("a read of which nothing had been told: %v", err)
	}
	if err := s.exec(idle, pgx.QueryExecModeExec, "SELECT 1"); err != nil {
		t.Errorf("a session that used it before: %v", err)
	}
	for rows.Next() {
	}
	if rows.Err() == nil {
		t.Error("half an answer was taken for a whole one")
	}
}

func TestPreparedStatementsFollow(t *testing.T) {
	s := startSplit(t)
	conn := s.connect(t, route.Auto, "")
	ctx := context.Background()
	m := s.mark()
	if _, err := conn.Prepare(ctx, "read", "SELECT s FROM t WHERE n = $1 "+m); err != nil {
		t.Fatal(err)
	}
	get := func(want string) {
		t.Helper()
		var got string
		if err := conn.QueryRow(ctx, "read", 7).Scan(&got); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	get("x")
	s.caughtUp(conn)
	get("x")
	if on := s.ran("execute read: SELECT s FROM t WHERE n = $1 " + m); !strings.Contains(on, "two") {
		t.Errorf("ran on %s", on)
	}
	// In a transaction it is used on the primary, and after it on the standby again.
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "UPDATE t SET s = 'y' WHERE n = 7"); err != nil {
		t.Fatal(err)
	}
	get("y")
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	get("x")
	s.caughtUp(conn)
	get("x")
	if err := conn.Deallocate(ctx, "read"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Prepare(ctx, "read", "SELECT 'another' FROM t WHERE n = $1"); err != nil {
		t.Fatal(err)
	}
	get("another")
	s.caughtUp(conn)
	get("another")
	get("another")
}

// pgbench checks nothing but fails on any error: its three ways to send statements, reads and reads with writes.
func TestPgbenchByStatement(t *testing.T) {
	s := startSplit(t)
	if out, err := s.tool(t, route.RW, "pgbench", "-i", "-q", "-s", "1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.two.CatchUp(s.primary)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, script := range []string{"select-only", "simple-update"} {
			out, err := s.tool(t, route.Auto, "pgbench", "-n", "-b", script, "-M", mode, "-c", "4", "-t", "100")
			if err != nil || !strings.Contains(out, "400/400") {
				t.Errorf("%s %s: %v: %s", mode, script, err, out)
			}
		}
	}
	before := s.two.Query("SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE relname = 'pgbench_accounts'")
	t.Logf("%s index scans on the standby", before)
	if before == "0" {
		t.Error("the standby served nothing")
	}
}
