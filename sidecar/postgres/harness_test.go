package postgres

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) { postgrestest.Main(m) }

// tools runs the real tools. before, if set, may answer in their place or change what is run.
type tools struct {
	before func(context.Context, Command) (r Result, answered bool, err error)
}

func (r tools) Run(ctx context.Context, c Command) (Result, error) {
	if r.before != nil {
		if res, answered, err := r.before(ctx, c); answered || err != nil {
			return res, err
		}
	}
	if c.Tool == "pg_basebackup" && !slices.Contains(c.Args, "--version") {
		c.Args = append(slices.Clone(c.Args), "--no-sync") // no test pulls the plug
	}
	if c.Tool == "restore" {
		c.Tool, c.Args = "/bin/sh", append([]string{"-c"}, c.Args...)
	}
	code, out, err := postgrestest.Tool{Name: c.Tool, Args: c.Args, Env: c.Env}.Run(ctx)
	return Result{ExitCode: code, Output: out}, err
}

// member is a Postgres with the server that runs on its data directory.
type member struct {
	*Postgres
	t      testing.TB
	server *postgrestest.Server
	config schema.ClusterConfig
}

// newMember makes a member without a data directory.
func newMember(t testing.TB, name string) *member {
	t.Helper()
	dir := postgrestest.TempDir(t)
	m := &member{t: t, config: schema.DefaultClusterConfig()}
	m.config.Parameters = map[string]string{"shared_buffers": "16MB", "max_connections": "50"}
	o := Options{
		Name: name, Cluster: "test", DataDir: filepath.Join(dir, "data"), SocketDir: dir, ListenAddresses: "127.0.0.1", Port: postgrestest.FreePort(t),
		Secrets: Secrets{Superuser: postgrestest.Password, Replication: `re'pl:i\cation`, Rewind: "rewind secret", Router: "router-secret"},
		Log:     zaptest.NewLogger(t),
	}
	var err error
	if m.Postgres, err = New(o, tools{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// newPrimary makes a running primary with howdah's roles, from the template and not by initdb.
func newPrimary(t testing.TB, name string) *member {
	t.Helper()
	m := newMember(t, name)
	postgrestest.NewDataDir(t, m.o.DataDir)
	m.configure(Settings{Role: schema.RolePrimary})
	if err := os.RemoveAll(m.keptDir()); err != nil { // the template is howdah's own
		t.Fatal(err)
	}
	m.start()
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// knows makes the passwords that change leaves the only ones that the member knows.
func (m *member) knows(change func(*Secrets)) {
	s := m.keys.present()
	change(&s)
	m.keys = newKeyring(s)
}

func (m *member) configure(s Settings) Change {
	m.t.Helper()
	s.Config = m.config
	c, err := m.Configure(m.t.Context(), s)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// start starts the server; fsync=off apart it runs as it is configured.
func (m *member) start() {
	m.t.Helper()
	if m.server == nil {
		m.server = postgrestest.Start(m.t, postgrestest.WithName(m.o.Name), postgrestest.WithDataDir(m.o.DataDir, m.o.SocketDir, m.o.Port))
		return
	}
	m.server.Start()
}

func (m *member) reload() {
	m.t.Helper()
	m.server.Signal(syscall.SIGHUP)
}

func (m *member) upstream() *Upstream {
	return &Upstream{Member: m.o.Name, Host: "127.0.0.1", Port: m.o.Port}
}

func (m *member) probe() Probe {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	p, err := m.Probe(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (m *member) inspect() DataDir {
	m.t.Helper()
	d, err := m.Inspect(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return d
}

func (m *member) cloneRequest(from *member) CloneRequest {
	m.t.Helper()
	return CloneRequest{From: *from.upstream(), SystemID: from.inspect().SystemID(),
		Settings: Settings{Role: schema.RoleStandby, Config: m.config, Upstream: from.upstream()}}
}

// cloneOf makes the member a running, streaming standby of from.
func (m *member) cloneOf(from *member) {
	m.t.Helper()
	if err := m.Clone(m.t.Context(), m.cloneRequest(from)); err != nil {
		m.t.Fatal(err)
	}
	m.start()
	m.waitStreaming()
}

func (m *member) waitStreaming() {
	m.t.Helper()
	m.until("streaming", func() bool { return m.probe().Streaming() })
}

func (m *member) waitReplayed(lsn schema.LSN) {
	m.t.Helper()
	m.until("replay of "+lsn.String(), func() bool { return m.probe().ReplayLSN >= lsn })
}

func (m *member) until(what string, ok func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	postgrestest.Until(ctx, m.t, m.o.Name+": "+what, ok)
}

// beside returns what stands beside the data directory, apart from sockets and the passfile.
func (m *member) beside() []string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(m.o.DataDir))
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); n != "data" && n != "data.pgpass" && !strings.HasPrefix(n, ".s.PGSQL.") {
			names = append(names, n)
		}
	}
	return names
}
