package local

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/consultest"
	"howdah/consul/schema"
	"howdah/sidecar/local/localtest"
)

// configRig is a cluster whose configuration is changed by howdah's own commands.
type configRig struct {
	t      *testing.T
	ctx    context.Context
	c      *Cluster
	consul string
}

// configTimeout is generous: the machine may be busy. Nothing waits for it when all is well.
const configTimeout = 4 * time.Minute

func newConfigRig(t *testing.T) configRig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), configTimeout)
	t.Cleanup(cancel)
	bin, err := FindBinDir(ctx)
	must(t, err)
	r := configRig{t: t, ctx: ctx, consul: consultest.StartEmbedded(t)}
	if !strings.Contains(r.consul, "://") {
		r.consul = "http://" + r.consul
	}
	r.c, err = New(Options{Binary: localtest.Binary(t), Dir: localtest.Dir(t), BinDir: bin, Cluster: "conf", Members: []string{"a", "b", "c"}, Consul: r.consul, Log: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.c.Stop(stop); err != nil {
			t.Error(err)
		}
	})
	must(t, r.c.Start(ctx))
	_, err = r.c.Await(ctx, "a whole cluster", Look.Healthy)
	must(t, err)
	return r
}

// set runs howdah config set.
func (r configRig) set(words ...string) (string, error) {
	args := append([]string{"config", "set", "--cluster", r.c.Name(), "--consul-addr", r.consul}, words...)
	out, err := exec.CommandContext(r.ctx, r.c.Binary(), args...).CombinedOutput()
	return string(out), err
}

func (r configRig) query(m *Member, sql string) (string, error) {
	password, err := r.c.Secret("superuser")
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(r.ctx, fmt.Sprintf("postgres://postgres:%s@%s/postgres?connect_timeout=5", password, m.Addresses.Postgres))
	if err != nil {
		return "", err
	}
	defer conn.Close(r.ctx)
	var v string
	err = conn.QueryRow(r.ctx, sql).Scan(&v)
	return v, err
}

// everywhere waits until sql says want on every member.
func (r configRig) everywhere(sql, want string) {
	r.t.Helper()
	for _, m := range r.c.Members() {
		var got string
		var err error
		if Poll(r.ctx, 50*time.Millisecond, func() bool { got, err = r.query(m, sql); return err == nil && got == want }) != nil {
			r.t.Fatalf("%s: %s is %q (%v), want %q\n%s", m.Name, sql, got, err, want, r.c.Look(r.ctx))
		}
	}
}

// all waits until ok of every member's own status.
func (r configRig) all(what string, ok func(schema.Status) bool) {
	r.t.Helper()
	for _, m := range r.c.Members() {
		if Poll(r.ctx, 50*time.Millisecond, func() bool { s, err := m.Status(r.ctx); return err == nil && ok(s.Self) }) != nil {
			r.t.Fatalf("%s: no %s\n%s", m.Name, what, r.c.Look(r.ctx))
		}
	}
}

// A changed configuration is in force on all members within seconds and nothing is restarted; what only a restart
// heeds is shown; what PostgreSQL refuses is refused at once, or reported and left out.
func TestConfigurationReachesRunningServers(t *testing.T) {
	r := newConfigRig(t)
	since := map[string]string{}
	for _, m := range r.c.Members() {
		var err error
		since[m.Name], err = r.query(m, "SELECT pg_postmaster_start_time()::text")
		must(t, err)
	}
	if out, err := r.set("parameters.work_mem=7MB", `hba=["host all all 0.0.0.0/0 scram-sha-256","host all visitor 10.0.0.0/8 reject"]`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.everywhere("SHOW work_mem", "7MB")
	r.everywhere("SELECT count(*)::text FROM pg_hba_file_rules WHERE 'visitor' = ANY(user_name)", "1")

	if out, err := r.set("parameters.max_connections=120"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.all("pending restart", func(s schema.Status) bool { return slices.Equal(s.PendingRestart, []string{"max_connections"}) })

	for word, want := range map[string]string{
		"parameters.wrok_mem=1MB":  "did you mean work_mem?",
		"parameters.work_mem=1kB":  "choose from 64",
		"parameters.work_mem=lots": "want a number",
	} {
		if out, err := r.set(word); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in %s", word, err, want, out)
		}
	}

	// An address that PostgreSQL alone reads: what was there before stays, and everybody says so.
	if out, err := r.set(`hba=["host all all 0.0.0.0/99 scram-sha-256"]`, "parameters.work_mem=8MB"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.everywhere("SHOW work_mem", "8MB")
	r.all("word of the refused hba list", func(s schema.Status) bool { return strings.Contains(s.Reason, "the hba list is not in force: line 1") })
	r.everywhere("SELECT count(*)::text FROM pg_hba_file_rules WHERE 'visitor' = ANY(user_name)", "1")

	for name, at := range since {
		if got, err := r.query(r.c.Member(name), "SELECT pg_postmaster_start_time()::text"); err != nil || got != at {
			t.Errorf("%s was restarted: %s, %v", name, got, err)
		}
	}
}
