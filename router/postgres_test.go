package router_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/consul/schema"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// cluster is a router in front of a real primary and two standbys.
type cluster struct {
	*rig
	primary, two, three *postgrestest.Server
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{rig: start(t)}
	c.primary = postgrestest.Start(t, postgrestest.WithName("one"))
	c.primary.CreateRole("alice", "CREATEDB")
	c.primary.Exec("GRANT ALL ON SCHEMA public TO alice")
	c.two = c.primary.NewStandby(postgrestest.WithName("two"))
	c.three = c.primary.NewStandby(postgrestest.WithName("three"))
	c.two.CatchUp(c.primary)
	c.three.CatchUp(c.primary)
	c.know.Hear(rt.Primary("one", c.primary.Addr(), 1), rt.Standby("two", c.two.Addr(), 1), rt.Standby("three", c.three.Addr(), 1))
	return c
}

func (c *cluster) dsn(of route.Route, user string, more string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable%s", user, postgrestest.Password, c.Address(of), more)
}

func (c *cluster) connect(t *testing.T, of route.Route, more string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.dsn(of, "alice", more))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func one[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// tool runs one of PostgreSQL's programs through the router.
func (c *cluster) tool(t *testing.T, of route.Route, name string, args ...string) (string, error) {
	t.Helper()
	host, port, err := net.SplitHostPort(c.Address(of).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(postgrestest.BinDir(t), name), args...)
	// pg_basebackup has a process of its own for the WAL, which outlives it and holds its output.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=alice", "PGDATABASE=postgres", "PGPASSWORD="+postgrestest.Password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWithPostgres(t *testing.T) {
	c := startCluster(t)
	for name, f := range map[string]func(*testing.T, *cluster){
		"psql": testPsql, "routes": testRoutes, "copy": testCopy, "notify": testNotify, "cancel": testCancel,
		"large rows": testLargeRows, "pgbench": testPgbench, "replication": testReplication,
		"wrong password": testWrongPassword, "vanishing client": testVanishingClient, "options": testOptions, "tls": testTLS, "cancelled wait": testCancelledWait,
	} {
		t.Run(name, func(t *testing.T) { f(t, c) })
	}
}

func testPsql(t *testing.T, c *cluster) {
	// prefer asks for SSL and GSS first, as psql does by default.
	out, err := c.tool(t, route.Auto, "psql", "-X", "-At", "-c", "SELECT current_user, current_setting('cluster_name')", "-c", `\conninfo`)
	if err != nil || !strings.Contains(out, "alice|one") {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = c.tool(t, route.RO, "psql", "-X", "-At", "-c", "SELECT pg_is_in_recovery()")
	if err != nil || strings.TrimSpace(out) != "t" {
		t.Fatalf("%v: %s", err, out)
	}
}

func testRoutes(t *testing.T, c *cluster) {
	for _, k := range []struct {
		listener route.Route
		more     string
		standby  bool
	}{
		{route.Auto, "", false}, {route.RW, "", false}, {route.RO, "", true},
		{route.Auto, "&howdah.route=ro", true}, {route.RO, "&howdah.route=master", false},
		{route.Auto, "&options=-c%20howdah.route%3Dreplica", true},
		{route.Auto, "&options=--howdah.route%3Dro", true},
		{route.Auto, "&default_transaction_read_only=on", true},
	} {
		conn := c.connect(t, k.listener, k.more)
		if got := one[bool](t, conn, "SELECT pg_is_in_recovery()"); got != k.standby {
			t.Errorf("%s %s: in recovery %v", k.listener, k.more, got)
		}
	}
	// Two new sessions go to two standbys.
	names := map[string]bool{}
	for range 2 {
		names[one[string](t, c.connect(t, route.RO, ""), "SHOW cluster_name")] = true
	}
	if len(names) != 2 {
		t.Errorf("sessions on %v", names)
	}
}

// testOptions: the parameter that chooses the route goes on to PostgreSQL, which takes it for a
// setting of some extension.
func testOptions(t *testing.T, c *cluster) {
	conn := c.connect(t, route.Auto, "&howdah.route=rw&application_name=me")
	if got := one[string](t, conn, "SHOW howdah.route"); got != "rw" {
		t.Errorf("howdah.route %q", got)
	}
	if got := one[string](t, conn, "SHOW application_name"); got != "me" {
		t.Errorf("application_name %q", got)
	}
	conn = c.connect(t, route.Auto, "&options=-c%20howdah.consistency%3DStrict")
	if got := one[string](t, conn, "SHOW howdah.consistency"); got != "Strict" {
		t.Errorf("howdah.consistency %q", got)
	}
	_, err := pgx.Connect(t.Context(), c.dsn(route.Auto, "alice", "&howdah.consistency=strong"))
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "22023" || !strings.Contains(refused.Hint, "eventual, session, strict") {
		t.Errorf("a consistency that does not exist: %v", err)
	}
}

func testCopy(t *testing.T, c *cluster) {
	conn := c.connect(t, route.Auto, "")
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE t (n int, s text)"); err != nil {
		t.Fatal(err)
	}
	const rows = 50000
	n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"n", "s"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
		return []any{i, strings.Repeat("x", i%200)}, nil
	}))
	if err != nil || n != rows {
		t.Fatalf("%d rows, %v", n, err)
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT n FROM t ORDER BY n) TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(out.Bytes(), []byte("\n")); got != rows {
		t.Errorf("%d lines", got)
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("not a number\n"), "COPY t (n) FROM STDIN"); code(err) != "22P02" {
		t.Errorf("bad data: %v", err)
	}
	if got := one[int](t, conn, "SELECT count(*) FROM t"); got != rows {
		t.Errorf("%d rows after a failed copy", got)
	}
}

func testNotify(t *testing.T, c *cluster) {
	listener, speaker := c.connect(t, route.Auto, ""), c.connect(t, route.Auto, "")
	if _, err := listener.Exec(t.Context(), "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	if _, err := speaker.Exec(t.Context(), "NOTIFY news, 'hello'"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), rt.Patience)
	defer stop()
	n, err := listener.WaitForNotification(ctx)
	if err != nil || n.Payload != "hello" {
		t.Fatalf("%v, %v", n, err)
	}
}

func testCancel(t *testing.T, c *cluster) {
	type result struct {
		err error
	}
	sleepers := map[*pgx.Conn]chan result{}
	for range 2 {
		for _, of := range []route.Route{route.RW, route.RO} {
			conn := c.connect(t, of, "&application_name=sleeper")
			done := make(chan result, 1)
			sleepers[conn] = done
			go func() {
				_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
				done <- result{err}
			}()
		}
	}
	asleep := func() int {
		n := 0
		for _, s := range []*postgrestest.Server{c.primary, c.two, c.three} {
			if s.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'") != "0" {
				n++
			}
		}
		return n
	}
	until(t, "all to sleep", func() bool { return asleep() == 3 && c.count("active") >= 4 })
	left := len(sleepers)
	for conn, done := range sleepers {
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := <-done; code(r.err) != "57014" {
			t.Fatalf("cancelled: %v", r.err)
		}
		left--
		n := 0
		for _, other := range sleepers {
			n += len(other)
		}
		if n != 0 {
			t.Fatal("a cancel reached another session")
		}
		if got := one[int](t, conn, "SELECT 1"); got != 1 {
			t.Fatal("the session is of no use after its cancel")
		}
	}
}

func testLargeRows(t *testing.T, c *cluster) {
	conn := c.connect(t, route.Auto, "")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// pgconn would hold each row; so the bytes are read as they come.
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Conn.Close()
	const size = 64 << 20
	if _, err := raw.Conn.Write(append(rt.Query(fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, 4)", size)), rt.Terminate...)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, struct{ io.Reader }{raw.Conn})
	if err != nil || n < 4*size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	// Under the race detector a sync.Pool forgets on purpose.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 && !raceEnabled {
		t.Errorf("%d MB allocated to pass %d MB on", grown>>20, n>>20)
	}
}

func testPgbench(t *testing.T, c *cluster) {
	if out, err := c.tool(t, route.Auto, "pgbench", "-i", "-s", "1", "-q"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		out, err := c.tool(t, route.Auto, "pgbench", "-c", "8", "-j", "2", "-T", "2", "-M", mode)
		if err != nil || !strings.Contains(out, "failed transactions: 0") {
			t.Fatalf("%s: %v: %s", mode, err, out)
		}
	}
	if out, err := c.tool(t, route.RO, "pgbench", "-n", "-S", "-C", "-c", "4", "-T", "1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func testReplication(t *testing.T, c *cluster) {
	c.primary.CreateRole("walker", "REPLICATION")
	dir := t.TempDir()
	out, err := c.tool(t, route.RW, "pg_basebackup", "-U", "walker", "-D", filepath.Join(dir, "copy"), "-X", "stream", "-c", "fast", "--no-sync")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "copy", "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Connect(t.Context(), c.dsn(route.RW, "walker", "&replication=database"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if r, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll(); err != nil || len(r) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
}

func testWrongPassword(t *testing.T, c *cluster) {
	_, err := pgx.Connect(t.Context(), strings.Replace(c.dsn(route.Auto, "alice", ""), postgrestest.Password, "wrong", 1))
	if code(err) != "28P01" {
		t.Fatal(err)
	}
}

func testVanishingClient(t *testing.T, c *cluster) {
	conn := c.connect(t, route.Auto, "&application_name=vanishing")
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Conn.Write(rt.Query("SELECT pg_sleep(600)")); err != nil {
		t.Fatal(err)
	}
	const sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vanishing'"
	until(t, "the statement to run", func() bool { return c.primary.Query(sessions+" AND wait_event = 'PgSleep'") == "1" })
	raw.Conn.Close()
	until(t, "the statement to be cancelled", func() bool { return c.primary.Query(sessions) == "0" })
}

func TestFailoverWithPostgres(t *testing.T) {
	c := startCluster(t)
	c.primary.Exec("CREATE TABLE t (n int); GRANT ALL ON t TO alice")
	c.two.CatchUp(c.primary)
	idle, inTransaction := c.connect(t, route.Auto, ""), c.connect(t, route.Auto, "")
	reader := c.connect(t, route.RO, "")
	for one[string](t, reader, "SHOW cluster_name") != "three" {
		reader = c.connect(t, route.RO, "")
	}
	tx, err := inTransaction.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	// A commit that hangs: the primary waits for a standby that does not exist.
	c.primary.Exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	c.primary.Exec("SELECT pg_reload_conf()")
	committing := c.connect(t, route.Auto, "&application_name=committing")
	outcome := make(chan error, 1)
	go func() {
		_, err := committing.Exec(context.Background(), "INSERT INTO t VALUES (2)")
		outcome <- err
	}()
	until(t, "the commit to wait", func() bool {
		return c.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'committing' AND wait_event = 'SyncRep'") == "1"
	})
	c.primary.Freeze()
	c.two.Promote()
	c.know.Hear(rt.Standby("one", c.primary.Addr(), 1), rt.Primary("two", c.two.Addr(), 2), with(rt.Standby("three", c.three.Addr(), 2), func(s *schema.Status) { s.Upstream = "two" }))
	if err := <-outcome; code(err) != "08007" {
		t.Errorf("the commit in flight: %v", err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (3)"); code(err) != "57P01" {
		t.Errorf("in a transaction: %v", err)
	}
	if _, err := idle.Exec(t.Context(), "SELECT 1"); code(err) != "57P01" {
		t.Errorf("idle: %v", err)
	}
	if got := one[string](t, reader, "SHOW cluster_name"); got != "three" {
		t.Errorf("the reader is on %s", got)
	}
	next := c.connect(t, route.Auto, "")
	if got := one[string](t, next, "SHOW cluster_name"); got != "two" {
		t.Errorf("a new session is on %s", got)
	}
	if _, err := next.Exec(t.Context(), "INSERT INTO t VALUES (4)"); err != nil {
		t.Errorf("write to the new primary: %v", err)
	}
	kinds := ""
	for _, e := range c.events(t) {
		kinds += string(e.Kind) + " "
	}
	if kinds != "rerouted lost rerouted " {
		t.Errorf("events: %s", kinds)
	}
}

func with(s schema.Status, change func(*schema.Status)) schema.Status { change(&s); return s }
