package router_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres"
	"howdah/sidecar/postgres/postgrestest"
)

const routerSecret = "router-secret"

// ensureRoles has the sidecar's code make howdah's roles and the function on s.
func ensureRoles(t *testing.T, s *postgrestest.Server) {
	t.Helper()
	p, err := postgres.New(postgres.Options{
		Name: s.Name, Cluster: rt.Cluster, DataDir: s.DataDir, SocketDir: s.SocketDir, ListenAddresses: s.Host, Port: s.Port,
		Secrets: postgres.Secrets{Superuser: postgrestest.Password, Replication: "x", Rewind: "x", Router: routerSecret},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// authenticating is a router that ends SCRAM in front of a real primary and a standby, with TLS for clients.
type authenticating struct {
	*cluster
	caFile  string
	logs    *observer.ObservedLogs
	options router.Options
}

func startAuthenticating(t *testing.T) *authenticating {
	t.Helper()
	primary := postgrestest.Start(t, postgrestest.WithName("one"), postgrestest.WithHBA(
		"host all older,older2 all md5", "host all trusted all trust", "host all shut all reject", "host all plain all password", "host nowhere all all reject"))
	ensureRoles(t, primary)
	primary.CreateRole("alice")
	primary.CreateRole("late", "VALID UNTIL '2001-01-01'")
	primary.CreateRole("off", "NOLOGIN")
	primary.CreateRole("full", "CONNECTION LIMIT 0")
	primary.CreateRole("trusted")
	primary.CreateRole("plain")
	primary.CreateRole("shut")
	primary.CreateRole(`Ödön the user's`)
	primary.Exec("CREATE ROLE blank LOGIN")
	primary.Exec(fmt.Sprintf("SET password_encryption = md5; CREATE ROLE older LOGIN PASSWORD '%[1]s'; CREATE ROLE old LOGIN PASSWORD '%[1]s'; CREATE ROLE older2 LOGIN PASSWORD '%[1]s'", postgrestest.Password))
	standby := primary.NewStandby(postgrestest.WithName("two"), postgrestest.WithHBA("host all older,older2 all md5", "host all trusted all trust"))
	standby.CatchUp(primary)
	core, logs := observer.New(zapcore.DebugLevel)
	dir := t.TempDir()
	option, _ := withTLS(t, dir, router.TLSAllow)
	a := &authenticating{cluster: &cluster{primary: primary, two: standby}, caFile: filepath.Join(dir, "tls.crt"), logs: logs}
	a.rig = startLogging(t, zap.New(core), option, func(o *router.Options) {
		o.AuthType = router.AuthSCRAM
		o.OwnPassword = func() (string, error) { return routerSecret, nil }
		o.UnixSocketDir = socketDir(t)
		a.options = *o
	})
	a.know.Hear(rt.Primary("one", primary.Addr(), 1), rt.Standby("two", standby.Addr(), 1))
	return a
}

// psql logs in at address and returns what it printed; how is a connection string.
func psql(t *testing.T, how, password string, sql ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	args := []string{"-X", "-At", "-w", how}
	for _, s := range sql {
		args = append(args, "-c", s)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(postgrestest.BinDir(t), "psql"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func connString(address, user, db, more string) string {
	u := url.URL{Scheme: "postgres", Host: address, User: url.User(user), Path: "/" + db, RawQuery: more}
	return u.String()
}

// said is what a server told a client of pgx that it refused, and psql's whole output without the address.
func said(t *testing.T, address, user, password, db string) (string, string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(connString(address, user, db, "sslmode=disable"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = password
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		conn.Close(t.Context())
		return "welcome", "welcome"
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err.Error(), ""
	}
	out, _ := psql(t, connString(address, user, db, "sslmode=disable"), password, "SELECT 1")
	_, out, _ = strings.Cut(out, "failed: ")
	return fmt.Sprintf("%s %s: %s (%s) (%s)", e.Severity, e.Code, e.Message, e.Detail, e.Hint), out
}

func TestSCRAMWithPostgres(t *testing.T) {
	a := startAuthenticating(t)
	for _, f := range []struct {
		name string
		test func(*testing.T, *authenticating)
	}{
		{"as if direct", testAsIfDirect}, {"channel binding", testChannelBinding}, {"what works behind it", testBehindSCRAM},
		{"a new password", testNewPassword}, {"a standby behind", testStandbyBehind}, {"roles with md5", testMD5WithPostgres}, {"passwords in clear", testClearWithPostgres}, {"whom a rule trusts", testTrustWithPostgres}, {"by a Unix-domain socket", testUnixSocketWithPostgres}, {"without a primary", testWithoutPrimary},
	} {
		t.Run(f.name, func(t *testing.T) { f.test(t, a) })
	}
	for _, e := range a.logs.All() {
		line := fmt.Sprint(e.Message, e.ContextMap())
		for _, secret := range []string{postgrestest.Password, "SCRAM-SHA-256$", "wrong password", md5Of("older", postgrestest.Password), routerSecret, "c=biws", ",p=", ",r="} {
			if strings.Contains(line, secret) {
				t.Errorf("the log holds %s: %s", secret, line)
			}
		}
	}
}

// What a client is told does not depend on whether it is the router or the server that says it.
func testAsIfDirect(t *testing.T, a *authenticating) {
	through := a.Address(route.Auto).String()
	for _, k := range []struct{ user, password, db, want string }{
		{"alice", postgrestest.Password, "postgres", "welcome"},
		{"alice", "wrong password", "postgres", "FATAL 28P01"},
		{"nobody", postgrestest.Password, "postgres", "FATAL 28P01"},
		{"late", postgrestest.Password, "postgres", "FATAL 28P01"},
		{"late", "wrong password", "postgres", "FATAL 28P01"},
		{"off", postgrestest.Password, "postgres", "FATAL 28000"},
		{"off", "wrong password", "postgres", "FATAL 28P01"},
		{"full", postgrestest.Password, "postgres", "FATAL 53300"},
		{"blank", postgrestest.Password, "postgres", "FATAL 28P01"},
		{"older", postgrestest.Password, "postgres", "welcome"},
		{"older", "wrong password", "postgres", "FATAL 28P01"},
		{"old", postgrestest.Password, "postgres", "FATAL 28P01"}, // md5 where pg_hba.conf wants SCRAM
		{"shut", postgrestest.Password, "postgres", "FATAL 28000"},
		{"alice", postgrestest.Password, "missing", "FATAL 3D000"},
		{"alice", postgrestest.Password, "nowhere", "FATAL 28000"},
		{"alice", "wrong password", "missing", "FATAL 28P01"},
		{`Ödön the user's`, postgrestest.Password, "postgres", "welcome"},
		{`Ödön the user's`, "wrong password", "postgres", "FATAL 28P01"},
		{"trusted", postgrestest.Password, "postgres", "welcome"},
	} {
		direct, directly := said(t, a.primary.Addr(), k.user, k.password, k.db)
		got, psqlSaid := said(t, through, k.user, k.password, k.db)
		if got != direct || psqlSaid != directly || !strings.HasPrefix(got, k.want) {
			t.Errorf("%s in %s with %q: told %q (%q), and directly %q (%q), want %s", k.user, k.db, k.password, got, psqlSaid, direct, directly, k.want)
		}
	}
	// Whom the server trusts, the router does not.
	if got, _ := said(t, through, "trusted", "wrong password", "postgres"); !strings.HasPrefix(got, "FATAL 28P01") {
		t.Errorf("trusted with a wrong password: %s", got)
	}
	if got, _ := said(t, through, "plain", postgrestest.Password, "postgres"); !strings.HasPrefix(got, "FATAL 28000: one asks for a password in clear") {
		t.Errorf("a password in clear: %s", got)
	}
}

func testChannelBinding(t *testing.T, a *authenticating) {
	for _, more := range []string{
		"sslmode=disable", "sslmode=prefer", "sslmode=require", "sslmode=require&channel_binding=require", "sslmode=require&channel_binding=disable",
		"sslmode=verify-full&channel_binding=require&sslrootcert=" + url.QueryEscape(a.caFile),
	} {
		for of, want := range map[route.Route]string{route.Auto: "alice|one", route.RO: "alice|two"} {
			address := strings.Replace(a.Address(of).String(), "127.0.0.1", "localhost", 1)
			out, err := psql(t, connString(address, "alice", "postgres", more), postgrestest.Password, "SELECT current_user, current_setting('cluster_name')", `\conninfo`)
			if err != nil || !strings.HasPrefix(out, want) || strings.Contains(more, "require") != strings.Contains(out, "SSL connection") && more != "sslmode=prefer" {
				t.Errorf("%s, %s: %v: %s", of, more, err, out)
			}
			if out, err := psql(t, connString(address, "alice", "postgres", more), "wrong password", "SELECT 1"); err == nil || !strings.Contains(out, `password authentication failed for user "alice"`) {
				t.Errorf("%s, %s, wrong password: %v: %s", of, more, err, out)
			}
		}
	}
	if out, err := psql(t, connString(a.Address(route.Auto).String(), "alice", "postgres", "sslmode=disable&channel_binding=require"), postgrestest.Password, "SELECT 1"); err == nil || !strings.Contains(out, "channel binding") {
		t.Errorf("channel binding without TLS: %v: %s", err, out)
	}
	// To a client that must bind the channel a server that only takes md5 is none.
	if out, err := psql(t, connString(a.Address(route.Auto).String(), "older", "postgres", "sslmode=require&channel_binding=require"), postgrestest.Password, "SELECT 1"); err == nil || !strings.Contains(out, "channel binding") {
		t.Errorf("channel binding and md5: %v: %s", err, out)
	}
}

func testBehindSCRAM(t *testing.T, a *authenticating) {
	conn := a.connect(t, route.Auto, "&application_name=me&options=-c%20work_mem%3D5MB")
	for name, want := range map[string]string{"application_name": "me", "server_version": a.primary.Query("SHOW server_version"), "is_superuser": "off", "session_authorization": "alice"} {
		if got := conn.PgConn().ParameterStatus(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := one[string](t, conn, "SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem %s", got)
	}
	slept := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
		slept <- err
	}()
	until(t, "the statement to run", func() bool {
		return a.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'me' AND wait_event = 'PgSleep'") == "1"
	})
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-slept; code(err) != "57014" {
		t.Errorf("cancelled: %v", err)
	}
	a.primary.CreateRole("walker", "REPLICATION")
	for _, of := range []route.Route{route.RW, route.Auto, route.RO} {
		if out, err := a.tool(t, of, "pg_basebackup", "-U", "walker", "-D", filepath.Join(t.TempDir(), "copy"), "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
			t.Errorf("%s: %v: %s", of, err, out)
		}
	}
}

// A new password counts at once, and an old one no longer, whatever the router has in mind.
func testNewPassword(t *testing.T, a *authenticating) {
	through := a.Address(route.Auto).String()
	old := postgrestest.Password
	for _, next := range []string{"second", "third", postgrestest.Password} {
		if got, _ := said(t, through, "alice", old, "postgres"); got != "welcome" {
			t.Errorf("before: %s", got)
		}
		a.primary.Exec(fmt.Sprintf("ALTER ROLE alice PASSWORD '%s'", next))
		if got, _ := said(t, through, "alice", next, "postgres"); got != "welcome" {
			t.Errorf("the new password: %s", got)
		}
		if got, _ := said(t, through, "alice", old, "postgres"); !strings.HasPrefix(got, "FATAL 28P01") {
			t.Errorf("the old password: %s", got)
		}
		old = next
	}
	for _, k := range []struct{ sql, want string }{
		{"ALTER ROLE alice VALID UNTIL '2001-01-01'", "FATAL 28P01"}, {"ALTER ROLE alice VALID UNTIL 'infinity'", "welcome"},
		{"ALTER ROLE alice NOLOGIN", "FATAL 28000"}, {"ALTER ROLE alice LOGIN", "welcome"},
		{"ALTER ROLE alice PASSWORD NULL", "FATAL 28P01"}, {fmt.Sprintf("ALTER ROLE alice PASSWORD '%s'", postgrestest.Password), "welcome"},
		{"ALTER ROLE alice RENAME TO alicia", "FATAL 28P01"}, {"ALTER ROLE alicia RENAME TO alice", "welcome"},
	} {
		a.primary.Exec(k.sql)
		if got, _ := said(t, through, "alice", postgrestest.Password, "postgres"); !strings.HasPrefix(got, k.want) {
			t.Errorf("after %s: %s, want %s", k.sql, got, k.want)
		}
	}
	a.two.CatchUp(a.primary)
}

// A standby that has not replayed a new password is not one to log in to: the primary's word counts.
func testStandbyBehind(t *testing.T, a *authenticating) {
	a.two.Exec("SELECT pg_wal_replay_pause()")
	a.primary.CreateRole("bob")
	a.primary.Exec("ALTER ROLE alice PASSWORD 'newer'")
	for user, password := range map[string]string{"alice": "newer", "bob": postgrestest.Password} {
		out, err := psql(t, connString(a.Address(route.RO).String(), user, "postgres", "sslmode=disable"), password, "SHOW cluster_name")
		if err != nil || out != "one" {
			t.Errorf("%s: %v: %s", user, err, out)
		}
	}
	if got, _ := said(t, a.Address(route.RO).String(), "alice", postgrestest.Password, "postgres"); !strings.HasPrefix(got, "FATAL 28P01") {
		t.Errorf("the old password, which the standby still takes: %s", got)
	}
	a.two.Exec("SELECT pg_wal_replay_resume()")
	a.primary.Exec(fmt.Sprintf("ALTER ROLE alice PASSWORD '%s'", postgrestest.Password))
	a.two.CatchUp(a.primary)
}

func testWithoutPrimary(t *testing.T, a *authenticating) {
	a.primary.Stop(postgrestest.Immediate)
	defer a.primary.Start()
	a.know.Hear(rt.Standby("one", a.primary.Addr(), 1), rt.Standby("two", a.two.Addr(), 1))
	for password, want := range map[string]string{postgrestest.Password: "welcome", "wrong password": "FATAL 28P01"} {
		if got, _ := said(t, a.Address(route.RO).String(), "alice", password, "postgres"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", password, got)
		}
	}
}

// What the router may not look up it passes through, unless it was told not to.
func TestLookupsThatAreNotLet(t *testing.T) {
	bare := postgrestest.Start(t, postgrestest.WithName("bare"))
	bare.CreateRole("howdah_router") // as an older sidecar made it
	bare.CreateRole("alice")
	full := postgrestest.Start(t, postgrestest.WithName("full"))
	ensureRoles(t, full)
	full.CreateRole("alice")
	for name, k := range map[string]struct {
		server   *postgrestest.Server
		auth     router.AuthType
		password string
		want     string
	}{
		"no function":                 {bare, router.AuthAuto, postgrestest.Password, "welcome"},
		"no function, scram":          {bare, router.AuthSCRAM, postgrestest.Password, "FATAL 57P03: this router may not look up how users log in"},
		"a wrong password":            {full, router.AuthAuto, "wrong", "welcome"},
		"a wrong password, and scram": {full, router.AuthSCRAM, "wrong", "FATAL 57P03: this router may not look up how users log in"},
		"all as it should be":         {full, router.AuthAuto, routerSecret, "welcome"},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.InfoLevel)
			g := startLogging(t, zap.New(core), func(o *router.Options) {
				o.AuthType, o.OwnPassword = k.auth, func() (string, error) { return k.password, nil }
			})
			g.know.Hear(rt.Primary("one", k.server.Addr(), 1))
			for range 2 {
				if got, _ := said(t, g.Address(route.Auto).String(), "alice", postgrestest.Password, "postgres"); !strings.HasPrefix(got, k.want) {
					t.Errorf("told %s, want %s", got, k.want)
				}
			}
			if got := logs.FilterMessageSnippet("passed through").Len(); (got == 1) != (k.auth == router.AuthAuto && k.password != routerSecret) {
				t.Errorf("said %d times that logins are passed through", got)
			}
		})
	}
}
