package clienttest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres"
	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) { postgrestest.Main(m) }

var update = flag.Bool("update", false, "write testdata/expected anew from what clients see without a router")

// chosen is the variable by which a developer runs some clients only. CI may not.
const chosen = "HOWDAH_TEST_CLIENTS"

// runTime bounds one run of a client through all its steps.
const runTime = 2 * time.Minute

// target is where a client connects to.
type target struct {
	name       string // primary, standby, or the route's
	like       string // the target whose results it must have; empty for those that are held against testdata/expected
	host, port string
	reads      bool // whatever writes must fail
	terminated bool // the router itself does SCRAM, so it can bind to its own TLS
	split      bool // statements go to the primary or to a standby
	waits      int  // 1 where a read waits for a standby, and does not go to the primary behind a write
}

// login is what one run is given.
type login struct {
	target
	role string
	// asleep returns once a server shows the role's statement in pg_sleep.
	asleep func(context.Context) error
}

func (l login) env() []string {
	return append(os.Environ(), "PGHOST="+l.host, "PGPORT="+l.port, "PGUSER="+l.role, "PGPASSWORD="+postgrestest.Password, "PGDATABASE=postgres",
		"PGSSLMODE=require", "PGCHANNELBINDING="+l.binding(), "PGAPPNAME="+l.role, "PGTZ=UTC", "LC_ALL=C.UTF-8", "PGCLIENTENCODING=UTF8", "NODE_OPTIONS=--no-deprecation", "PGCONNECT_TIMEOUT=20")
}

// binding is libpq's channel_binding: required wherever the other end of TLS is also that of SCRAM.
func (l login) binding() string {
	if l.like == "" || l.terminated {
		return "require"
	}
	return "prefer"
}

// client runs its steps and returns what it says of each.
type client struct {
	name    string
	needs   []string           // programs and files without which it cannot be
	reads   int                // how many queries the standbys must count where reads wait for them: about half of what they do
	prepare func(t *testing.T) // once
	run     func(*testing.T, login) []string
}

// servers are a primary and two standbys that speak TLS, with roles for every run.
type servers struct {
	primary, two, three *postgrestest.Server
}

func startServers(t *testing.T) *servers {
	t.Helper()
	cert, key := serverCertificate(t)
	tls := func(name string) []postgrestest.Option {
		return []postgrestest.Option{postgrestest.WithName(name), postgrestest.WithParameter("ssl", "on"), postgrestest.WithParameter("ssl_cert_file", cert),
			postgrestest.WithParameter("ssl_key_file", key), postgrestest.WithParameter("max_connections", "200"), postgrestest.WithParameter("max_standby_streaming_delay", "-1"),
			postgrestest.WithParameter("shared_preload_libraries", "pg_stat_statements"), postgrestest.WithParameter("wal_writer_delay", "5ms")}
	}
	s := &servers{primary: postgrestest.Start(t, tls("one")...)}
	s.primary.Exec("CREATE EXTENSION pg_stat_statements")
	s.two, s.three = s.primary.NewStandby(tls("two")...), s.primary.NewStandby(tls("three")...)
	return s
}

// serverCertificate returns files that PostgreSQL's user may read.
func serverCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	dir := postgrestest.TempDir(t)
	cert, key, _ = rt.Certificate(t, dir, "postgres")
	if c := postgrestest.Credential(t); c != nil {
		for _, f := range []string{cert, key} {
			if err := os.Chown(f, int(c.Uid), int(c.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return cert, key
}

func (s *servers) all() []*postgrestest.Server {
	return []*postgrestest.Server{s.primary, s.two, s.three}
}

// asleep waits until one of the servers shows a statement of role in pg_sleep.
func (s *servers) asleep(ctx context.Context, role string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, server := range s.all() {
			n, err := server.Try("SELECT count(*) FROM pg_stat_activity WHERE usename = '" + role + "' AND wait_event = 'PgSleep'")
			if err != nil {
				return err
			}
			if n != "0" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no server shows a statement of %s asleep: %w", role, ctx.Err())
		}
	}
}

// served counts the queries of a role that the standbys have carried out, by what they themselves count; without those by which a router gets a session ready,
// and those of the steps "prepared", which are many and among the first.
func (s *servers) served(t *testing.T, role string) (n int) {
	t.Helper()
	for _, standby := range []*postgrestest.Server{s.two, s.three} {
		calls, err := standby.Try("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE userid = '" + role + "'::regrole AND query ~* '^select' AND query !~ 'pg_proc|pg_db_role_setting|set_config|int \\* '")
		if err != nil {
			t.Fatal(err)
		}
		more, err := strconv.Atoi(calls)
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	return n
}

const routerSecret = "router-secret"

// ensureRoles has the sidecar's code make the role howdah_router, by which a router asks how others log in.
func (s *servers) ensureRoles(t *testing.T) {
	t.Helper()
	p, err := postgres.New(postgres.Options{
		Name: s.primary.Name, Cluster: rt.Cluster, DataDir: s.primary.DataDir, SocketDir: s.primary.SocketDir, ListenAddresses: s.primary.Host, Port: s.primary.Port,
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

// startRouter runs a router with TLS only, and returns its addresses by route.
func (s *servers) startRouter(t *testing.T, change func(*router.Options)) *router.Router {
	t.Helper()
	o := router.DefaultOptions()
	o.Cluster, o.Name = rt.Cluster, "router-1"
	o.Listen, o.ListenRW, o.ListenRO = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.DrainTimeout = 0
	o.ReadOnlyFallback = false
	o.TLSMode = router.TLSRequire
	o.TLSCertFile, o.TLSKeyFile, _ = rt.Certificate(t, t.TempDir(), "router")
	change(&o)
	know := rt.NewKnowledge(boottime.Now)
	r, err := router.New(o, know, boottime.Now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("router: %v", err)
		}
	})
	know.Hear(rt.Primary("one", s.primary.Addr(), 1), rt.Standby("two", s.two.Addr(), 1), rt.Standby("three", s.three.Addr(), 1))
	return r
}

func at(t *testing.T, tg target, address string) target {
	t.Helper()
	var err error
	if tg.host, tg.port, err = net.SplitHostPort(address); err != nil {
		t.Fatal(err)
	}
	return tg
}

// targets are the servers themselves and every route to them: once with logins that are passed through to servers in clear, once with SCRAM that ends in the
// router and TLS on both sides. Those that others are held against come first.
func (s *servers) targets(t *testing.T) []target {
	relayed := s.startRouter(t, func(o *router.Options) { o.AuthType = router.AuthPassThrough })
	s.ensureRoles(t)
	ends := func(c route.Consistency) *router.Router {
		return s.startRouter(t, func(o *router.Options) {
			o.AuthType, o.ServerTLSMode, o.StatementRouting = router.AuthSCRAM, router.ServerTLSRequire, true
			o.OwnPassword = func() (string, error) { return routerSecret, nil }
			o.Consistency, o.ReadWait = c, time.Second
		})
	}
	ended, strict := ends(route.Session), ends(route.Strict)
	return []target{
		at(t, target{name: "primary"}, s.primary.Addr()),
		at(t, target{name: "standby", reads: true}, s.two.Addr()),
		at(t, target{name: "rw", like: "primary"}, relayed.Address(route.RW).String()),
		at(t, target{name: "auto", like: "primary"}, relayed.Address(route.Auto).String()),
		at(t, target{name: "ro", like: "standby", reads: true}, relayed.Address(route.RO).String()),
		at(t, target{name: "rw_scram", like: "primary", terminated: true}, ended.Address(route.RW).String()),
		at(t, target{name: "auto_scram", like: "primary", terminated: true, split: true}, ended.Address(route.Auto).String()),
		at(t, target{name: "auto_strict", like: "primary", terminated: true, split: true, waits: 1}, strict.Address(route.Auto).String()),
		at(t, target{name: "ro_scram", like: "standby", reads: true, terminated: true}, ended.Address(route.RO).String()),
	}
}

func roleOf(c client, tg target) string { return c.name + "_" + tg.name }

// createRoles gives every run its role, schema and tables, so that runs do not see each other.
func (s *servers) createRoles(t *testing.T, clients []client, targets []target) {
	t.Helper()
	var sql strings.Builder
	for _, c := range clients {
		for _, tg := range targets {
			role := roleOf(c, tg)
			fmt.Fprintf(&sql, `CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s'; CREATE SCHEMA %[1]s AUTHORIZATION %[1]s; SET ROLE %[1]s;
				CREATE TABLE %[1]s.t (id int PRIMARY KEY, s text); INSERT INTO %[1]s.t SELECT i, 'row ' || i FROM generate_series(1, 3) i;
				CREATE TABLE %[1]s.copied (id int, s text); RESET ROLE;`, role, postgrestest.Password)
		}
	}
	s.primary.Exec(sql.String())
	for _, standby := range []*postgrestest.Server{s.two, s.three} {
		standby.CatchUp(s.primary)
	}
}

// chooseClients returns all clients, or those that a developer named in the variable.
func chooseClients(t *testing.T) (clients []client, all bool) {
	t.Helper()
	list := os.Getenv(chosen)
	if list == "" {
		return known, true
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is set: in CI every client is tested", chosen)
	}
	for _, name := range strings.Fields(strings.ReplaceAll(list, ",", " ")) {
		i := slices.IndexFunc(known, func(c client) bool { return c.name == name })
		if i < 0 {
			t.Fatalf("%s: no client %q; choose from %s", chosen, name, names(known))
		}
		clients = append(clients, known[i])
	}
	return clients, false
}

func names(clients []client) string {
	var all []string
	for _, c := range clients {
		all = append(all, c.name)
	}
	return strings.Join(all, ", ")
}

func TestClients(t *testing.T) {
	clients, all := chooseClients(t)
	for _, c := range clients {
		for _, need := range c.needs {
			if err := present(need); err != nil {
				t.Fatalf("%s: %v. `make clients` installs what is missing; %s=%s runs some clients only", c.name, err, chosen, names(clients[:1]))
			}
		}
	}
	s := startServers(t)
	targets := s.targets(t)
	s.createRoles(t, clients, targets)
	accepted := readDifferences(t)
	var ran atomic.Int32
	t.Run("run", func(t *testing.T) {
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				ran.Add(1)
				if c.prepare != nil {
					c.prepare(t)
				}
				results := map[string][]string{}
				for _, tg := range targets {
					began := time.Now()
					role := roleOf(c, tg)
					got := c.run(t, login{target: tg, role: role, asleep: func(ctx context.Context) error { return s.asleep(ctx, role) }})
					results[tg.name] = check(t, c.name, tg.name, got)
					t.Logf("%s: %d lines in %s", tg.name, len(results[tg.name]), time.Since(began).Round(time.Millisecond))
					if tg.split {
						n, floor := s.served(t, role), max(1, tg.waits*c.reads)
						if t.Logf("%s: the standbys count %d queries", tg.name, n); n < floor {
							t.Errorf("%s: the standbys count %d queries, want %d", tg.name, n, floor)
						}
					}
					if tg.like == "" {
						expect(t, c.name+"."+tg.name, results[tg.name])
						continue
					}
					for _, d := range differ(results[tg.like], results[tg.name]) {
						if !accepted.covers(c.name, tg.name, d) {
							t.Errorf("route %s, step %q:\n  directly:           %s\n  through the router: %s", tg.name, d.step, d.direct, d.routed)
						}
					}
				}
			})
		}
	})
	if all && int(ran.Load()) == len(known) && !t.Failed() { // not under -run for some
		for _, d := range accepted.unused() {
			t.Errorf("differences.txt: this no longer happens, remove it: %s", d)
		}
	}
}

// present reports whether a program is in PATH, or a file with a slash exists.
func present(need string) error {
	if strings.Contains(need, "/") {
		_, err := os.Stat(need)
		return err
	}
	_, err := exec.LookPath(need)
	return err
}

// check takes out the line about versions and fails on what is no result.
func check(t *testing.T, client, target string, lines []string) (steps []string) {
	t.Helper()
	for _, line := range lines {
		if v, is := strings.CutPrefix(line, "version: "); is {
			t.Log(v)
			continue
		}
		if strings.Contains(line, "failed") {
			t.Errorf("%s at %s: %.600s", client, target, line)
		}
		steps = append(steps, line)
	}
	if len(steps) < 3 {
		t.Errorf("%s at %s: only %d steps: %q", client, target, len(steps), steps)
	}
	return steps
}

// expect holds what a client says without a router against its reviewed file.
func expect(t *testing.T, name string, steps []string) {
	t.Helper()
	path, got := filepath.Join("testdata", "expected", name), strings.Join(steps, "\n")+"\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./router/clienttest -update writes it for review", err)
	}
	for _, d := range differ(strings.Split(strings.TrimSuffix(string(want), "\n"), "\n"), steps) {
		t.Errorf("%s without a router, step %q:\n  expected: %s\n  got:      %s", name, d.step, d.direct, d.routed)
	}
}

// program runs one to its end, with the answer to `sleeping` that doc.go promises, and returns the lines of its output, stdout and stderr together.
// input is what it reads first.
func program(t *testing.T, l login, input string, wake func(*exec.Cmd, io.Writer) error, name string, args ...string) []string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), runTime)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = l.env()
	// Children too, such as the programs that psql pipes to: else a killed client would leave its output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, input); err != nil {
		t.Errorf("%s at %s: %v", name, l.name, err)
	}
	var lines []string
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 4<<20)
	for scanner.Scan() {
		if scanner.Text() != "sleeping" {
			lines = append(lines, scanner.Text())
			continue
		}
		err := l.asleep(ctx)
		if err == nil {
			err = wake(cmd, in)
		}
		if err != nil {
			t.Errorf("%s at %s: %v", name, l.name, err)
			stop()
		}
	}
	in.Close()
	err = errors.Join(scanner.Err(), cmd.Wait())
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return append(lines, fmt.Sprintf("exit code: %d", exit.ExitCode()))
	}
	if err != nil {
		t.Errorf("%s at %s: %v (%v); it said\n%s", name, l.name, err, context.Cause(ctx), strings.Join(lines, "\n"))
	}
	return lines
}

// byLine wakes a program that waits for a line.
func byLine(_ *exec.Cmd, in io.Writer) error {
	_, err := io.WriteString(in, "\n")
	return err
}

// byInterrupt is what a Ctrl-C does.
func byInterrupt(cmd *exec.Cmd, _ io.Writer) error { return cmd.Process.Signal(os.Interrupt) }

func output(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
}
