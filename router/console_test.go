package router_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/router"
	"howdah/router/console"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

const consolePassword = "open sesame"

func withConsole(o *router.Options) {
	o.AdminUsers, o.StatsUsers, o.Version = []string{"root"}, []string{"watcher"}, "9"
	o.ConsolePassword = func() (string, error) { return consolePassword, nil }
}

// psql runs statements in the console with the real psql and returns what it says, both streams.
func (g *rig) psql(t *testing.T, user, password string, statements ...string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(g.Address(route.Auto).String())
	args := []string{"-X", "-A", "-v", "ON_ERROR_STOP=1", "-d", "host=" + host + " port=" + port + " dbname=howdah user=" + user}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(postgrestest.BinDir(t), "psql"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=10")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// console opens a session of the console with a driver.
func (g *rig) console(t *testing.T, user string) *pgx.Conn {
	t.Helper()
	conn, err := g.consoleOf(t, user, consolePassword)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

func (g *rig) consoleOf(t *testing.T, user, password string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig("postgres://" + g.Address(route.Auto).String() + "/howdah?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	c.User, c.Password, c.DefaultQueryExecMode = user, password, pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(t.Context(), c)
}

// rows returns the answer to a statement, each row by the names of its columns.
func rows(t *testing.T, conn *pgx.Conn, sql string) []map[string]any {
	t.Helper()
	r, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	list, err := pgx.CollectRows(r, pgx.RowToMap)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return list
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// The real psql, with no primary known and every client's place taken.
func TestConsoleWithPsql(t *testing.T) {
	g := start(t, withConsole, func(o *router.Options) { o.MaxClients, o.FailoverWait = 1, time.Minute })
	waiting := g.client(t, route.Auto)
	waiting.Send(rt.Startup("user", "alice", "database", "shop", "application_name", "till"))
	until(t, "the client to wait", func() bool { return g.count("waiting") == 1 })
	out, err := g.psql(t, "root", consolePassword, "SHOW VERSION", "show pools;", "SHOW CLIENTS", "SHOW SERVERS", "SHOW STATS", "SHOW CONFIG", "SHOW ROUTES", "SHOW TOPOLOGY", "SHOW LISTS", "SHOW DATABASES", "SHOW STATE", "SHOW HELP")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"howdah 9\n", "shop|alice|0|1|", "C|alice|shop|waiting|127.0.0.1|", "|till|1|auto||0||||default||\n", "no primary has been heard of", "RELOAD|", "paused|no", "(0 rows)"} {
		if !strings.Contains(out, want) {
			t.Errorf("psql does not show %q in\n%s", want, out)
		}
	}
	for _, c := range []struct{ statement, want string }{
		{"SELECT 1", `the console has no command "SELECT"`}, {"SHOW TABLES", "Choose from CLIENTS"}, {`\d`, "the console has no command"}, {"KILL 99", "there is no client 99"}, {"RESUME", "not paused"},
		{"RELOAD", "nothing was changed"},
	} {
		if out, err := g.psql(t, "root", consolePassword, c.statement); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v %s", c.statement, err, out)
		}
	}
	// A second client is one too many; a second console is not.
	two := g.client(t, route.Auto)
	two.Send(rt.Startup("user", "bob"))
	two.ExpectError("53300")
	if out, err := g.psql(t, "root", consolePassword, "KILL 1"); err != nil || !strings.Contains(out, "KILL") {
		t.Errorf("%v %s", err, out)
	}
	if e := waiting.ExpectError("57P01"); !strings.Contains(e.Message, "administrator") {
		t.Errorf("%+v", e)
	}
}

func TestConsoleLogin(t *testing.T) {
	password, failing := consolePassword, error(nil)
	g := start(t, withConsole, func(o *router.Options) {
		o.ConsolePassword = func() (string, error) { return password, failing }
	})
	for _, c := range []struct{ user, password string }{{"root", "wrong"}, {"root", ""}, {"stranger", consolePassword}, {"watcher", "open"}} {
		if _, err := g.consoleOf(t, c.user, c.password); sqlstate(err) != "28P01" && c.password != "" || err == nil {
			t.Errorf("%s with %q: %v", c.user, c.password, err)
		}
	}
	conn := g.console(t, "watcher")
	if got := rows(t, conn, "SHOW VERSION"); got[0]["version"] != "howdah 9" {
		t.Errorf("%v", got)
	}
	for _, statement := range []string{"PAUSE", "RESUME", "RELOAD", "KILL 1", "SHUTDOWN"} {
		if _, err := conn.Exec(t.Context(), statement); sqlstate(err) != "42501" {
			t.Errorf("%s by who may look: %v", statement, err)
		}
	}
	failing = errors.New("no such file")
	if _, err := g.consoleOf(t, "root", consolePassword); sqlstate(err) != "28P01" {
		t.Errorf("without a password file: %v", err)
	}
}

// Over TLS the login is bound to the router's certificate, and who is on it is shown.
func TestConsoleOverTLS(t *testing.T) {
	cert, key, _ := rt.Certificate(t, t.TempDir(), "router")
	g := start(t, withConsole, func(o *router.Options) { o.TLSMode, o.TLSCertFile, o.TLSKeyFile = router.TLSRequire, cert, key })
	t.Setenv("PGSSLMODE", "require")
	t.Setenv("PGCHANNELBINDING", "require")
	if out, err := g.psql(t, "root", consolePassword, "SHOW VERSION"); err != nil || !strings.Contains(out, "howdah 9") {
		t.Errorf("%v %s", err, out)
	}
	if out, err := g.psql(t, "root", "wrong", "SHOW VERSION"); err == nil || !strings.Contains(out, "password authentication failed") {
		t.Errorf("%v %s", err, out)
	}
	t.Setenv("PGSSLMODE", "disable")
	t.Setenv("PGCHANNELBINDING", "prefer")
	if out, err := g.psql(t, "root", consolePassword, "SHOW VERSION"); err == nil || !strings.Contains(out, "without TLS") {
		t.Errorf("in clear: %v %s", err, out)
	}
}

// Where nobody may use a console, howdah is a database like any other.
func TestNoConsole(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "root", "database", "howdah"))
	server.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
}

func TestConsoleProtocol(t *testing.T) {
	g := start(t, withConsole)
	conn := g.console(t, "root")
	// A driver in its usual mode is told what to do, and the session goes on.
	_, err := conn.Query(t.Context(), "SHOW VERSION", pgx.QueryExecModeDescribeExec)
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "0A000" || !strings.Contains(e.Hint, "simple_protocol") {
		t.Errorf("extended protocol: %v", err)
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "SET application_name = 'x'"); err != nil {
		t.Errorf("set: %v", err)
	}
	// Byte by byte: what follows a mistake up to Sync is passed over, and one ReadyForQuery answers it.
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	peer := rt.Play(t, raw.Conn)
	peer.Send(rt.Parse("", "SHOW VERSION"), rt.Bind("", ""), rt.Describe(""), rt.Execute(""), rt.Flush, rt.Sync)
	peer.ExpectError("0A000")
	peer.Expect(rt.Ready('I'))
	peer.Send(rt.Query("SHOW VERSION"), rt.Query(";"), rt.Query("RESUME"))
	peer.Expect(rt.RowDescription("version"), rt.Row("howdah 9"), rt.Complete("SHOW"), rt.Ready('I'), rt.Empty, rt.Ready('I'))
	peer.ExpectError("55000")
	peer.Expect(rt.Ready('I'))
	peer.Send(rt.Message('Q', make([]byte, 1<<17)))
	peer.ExpectError("08P01")
	peer.ExpectClose()
}

// PAUSE holds new sessions, and running ones at their next transaction.
func TestPause(t *testing.T) {
	g := start(t, withConsole, func(o *router.Options) { o.DrainTimeout, o.FailoverWait = rt.Patience, 100*time.Millisecond })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	idle, idleServer := g.session(t, route.Auto, server)
	working, workingServer := g.session(t, route.Auto, server)
	flushed, flushedServer := g.session(t, route.Auto, server)
	working.Send(rt.Query("BEGIN"))
	workingServer.Expect(rt.Query("BEGIN"))
	workingServer.Send(rt.Complete("BEGIN"), rt.Ready('T'))
	working.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
	// Without a Sync a transaction is open although everything is answered.
	flushed.Send(rt.Parse("", "SELECT 1"), rt.Flush)
	flushedServer.Expect(rt.Parse("", "SELECT 1"), rt.Flush)
	flushedServer.Send(rt.ParseComplete)
	flushed.Expect(rt.ParseComplete)

	root, other := g.console(t, "root"), g.console(t, "root")
	paused := make(chan error, 1)
	go func() {
		_, err := root.Exec(t.Context(), "PAUSE")
		paused <- err
	}()
	until(t, "the pause", func() bool { return rows(t, other, "SHOW STATE")[1]["value"] == "yes" })
	idle.Send(rt.Query("SELECT 2"))
	until(t, "the idle session to be held", func() bool { return rows(t, other, "SHOW CLIENTS")[0]["held"] == int64(1) })
	idleServer.ExpectQuiet()
	waiting := g.client(t, route.Auto)
	waiting.Send(rt.Startup("user", "bob"))
	until(t, "the new session to wait", func() bool { return g.count("waiting") == 1 })
	// Transactions under way go on to their end.
	working.Send(rt.Query("SELECT 3"))
	workingServer.Expect(rt.Query("SELECT 3"))
	workingServer.Send(rt.Complete("SELECT 1"), rt.Ready('T'))
	working.Expect(rt.Complete("SELECT 1"), rt.Ready('T'))
	flushed.Send(rt.Sync)
	flushedServer.Expect(rt.Sync)
	flushedServer.Send(rt.Ready('I'))
	flushed.Expect(rt.Ready('I'))
	select {
	case err := <-paused:
		t.Fatalf("PAUSE did not wait for a transaction: %v", err)
	default:
	}
	working.Send(rt.Query("COMMIT"))
	workingServer.Expect(rt.Query("COMMIT"))
	workingServer.Send(rt.Complete("COMMIT"), rt.Ready('I'))
	working.Expect(rt.Complete("COMMIT"), rt.Ready('I'))
	if err := <-paused; err != nil {
		t.Fatalf("PAUSE: %v", err)
	}
	// A goodbye is not held; health says that nobody is served.
	flushed.Send(rt.Terminate)
	flushedServer.Expect(rt.Terminate)
	if code, body := g.get(t, "/health"); code != 503 || !strings.Contains(body, "paused") {
		t.Errorf("/health %d %s", code, body)
	}
	server.ExpectNobody()
	if _, err := root.Exec(t.Context(), "RESUME"); err != nil {
		t.Fatal(err)
	}
	idleServer.Expect(rt.Query("SELECT 2"))
	server.Accept().Welcome(rt.KeyData(9, "abcd"))
	waiting.Welcomed()
	if code, body := g.get(t, "/health"); code != 200 {
		t.Errorf("/health %d %s", code, body)
	}
}

// PAUSE is bounded: it says how many are not at rest, and the pause stays. Whoever is held can still be ended.
func TestPauseIsBounded(t *testing.T) {
	g := start(t, withConsole)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c, s := g.session(t, route.Auto, server)
	held, heldServer := g.session(t, route.Auto, server)
	c.Send(rt.Query("x"))
	s.Expect(rt.Query("x"))
	root := g.console(t, "root")
	_, err := root.Exec(t.Context(), "PAUSE")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "55006" || !strings.Contains(e.Message, "1 sessions are not at rest") || !strings.Contains(e.Hint, "RESUME") {
		t.Fatalf("%v", err)
	}
	// Its server goes away while a session is held.
	held.Send(rt.Query("y"))
	until(t, "the session to be held", func() bool { return rows(t, root, "SHOW CLIENTS")[1]["held"] == int64(1) })
	heldServer.Close()
	held.ExpectError("57P01")
	another := g.client(t, route.Auto)
	another.Send(rt.Startup("user", "bob"))
	until(t, "the new session to wait", func() bool { return g.count("waiting") == 1 })
	g.stop()
	another.ExpectError("57P01")
	c.ExpectError("08007")
}

func TestStatsOutliveSessions(t *testing.T) {
	g := start(t, withConsole)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	root := g.console(t, "root")
	for range 2 {
		c, s := g.session(t, route.Auto, server)
		c.Send(rt.Query("x"))
		s.Expect(rt.Query("x"))
		s.Send(rt.Complete("SELECT 1"), rt.Ready('I'))
		c.Expect(rt.Complete("SELECT 1"), rt.Ready('I'))
		c.Send(rt.Terminate)
		s.Expect(rt.Terminate)
		s.Close()
		c.ExpectClose()
	}
	until(t, "the sessions to be forgotten", func() bool { return g.count("") == 0 })
	got := rows(t, root, "SHOW STATS")
	if len(got) != 1 || got[0]["database"] != "alice" || got[0]["total_query_count"] != int64(2) || got[0]["total_xact_count"] != int64(2) || got[0]["total_server_assignment_count"] != int64(2) ||
		got[0]["total_received"].(int64) != 2*int64(len(rt.Query("x"))+len(rt.Terminate)) {
		t.Errorf("%v", got)
	}
}

func TestReloadAndShutdown(t *testing.T) {
	answer, failing := []console.Change{{Name: "max-clients", Old: "1", New: "2"}, {Name: "listen", Old: ":1", New: ":2", Restart: true}}, error(nil)
	g := start(t, withConsole, func(o *router.Options) {
		o.ReadAgain = func() ([]console.Change, error) { return answer, failing }
		o.Settings = func() []console.Setting { return []console.Setting{{Name: "listen", Value: ":1", Default: ":0"}} }
	})
	root := g.console(t, "root")
	got := rows(t, root, "RELOAD")
	if len(got) != 2 || got[0]["effect"] != "in force" || got[1]["effect"] != "needs a restart" || got[1]["key"] != "listen" {
		t.Errorf("%v", got)
	}
	failing = errors.New("howdah.yaml: max_cliens: unknown key")
	if _, err := root.Exec(t.Context(), "RELOAD"); sqlstate(err) != "F0000" || !strings.Contains(err.Error(), "max_cliens") {
		t.Errorf("%v", err)
	}
	if got := rows(t, root, "SHOW CONFIG"); got[0]["key"] != "listen" || got[0]["changeable"] != "no" {
		t.Errorf("%v", got)
	}
	if _, err := root.Exec(t.Context(), "SHUTDOWN"); err != nil {
		t.Fatal(err)
	}
	until(t, "the console to end", func() bool { return root.Ping(t.Context()) != nil })
	if _, err := net.DialTimeout("tcp", g.Address(route.Auto).String(), rt.Patience); err == nil {
		t.Error("the router still listens")
	}
}

// What Apply changes is in force for the next session.
func TestApply(t *testing.T) {
	g := start(t, withConsole)
	o := router.DefaultOptions()
	o.MaxClients, o.FailoverWait, o.AdminUsers = 1, 0, []string{"boss"}
	if err := g.Apply(o); err != nil {
		t.Fatal(err)
	}
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	if e := c.ExpectError("57P03"); !strings.Contains(e.Detail, "waited 0s") {
		t.Errorf("%+v", e)
	}
	if _, err := g.consoleOf(t, "root", consolePassword); sqlstate(err) != "28P01" {
		t.Errorf("who is no admin any more: %v", err)
	}
	g.console(t, "boss")
	o.MaxClients = 0
	if err := g.Apply(o); err == nil || !strings.Contains(err.Error(), "max-clients") {
		t.Errorf("%v", err)
	}
}
