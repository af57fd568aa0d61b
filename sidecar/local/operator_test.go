package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// howdah runs an operator's command and returns what it printed.
func (r *rig) howdah(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := r.command(unix.SIGKILL, append([]string{args[0]}, append(r.consulFlags(), args[1:]...)...)...)
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Env, bounded.Dir, bounded.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
	out, err := bounded.CombinedOutput()
	t.Logf("howdah %s:\n%s", strings.Join(args, " "), out)
	return string(out), err
}

// does is howdah where it must succeed.
func (r *rig) does(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.howdah(t, args...)
	if err != nil {
		t.Fatalf("howdah %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (r *rig) token() []string { return []string{"--api-token-file", r.SecretFile("api.token")} }

// connect opens a session as the superuser.
func (r *rig) connect(ctx context.Context, address string) (*pgx.Conn, error) {
	password, err := r.Secret("superuser")
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(address, ":")
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres password=%s sslmode=disable default_query_exec_mode=simple_protocol", host, port, password))
}

// run executes one statement on a connection of its own, again and again until it succeeds.
func (r *rig) run(t *testing.T, address, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	if err := Poll(ctx, 50*time.Millisecond, func() bool {
		conn, err := r.connect(ctx, address)
		if err == nil {
			_, err = conn.Exec(ctx, sql)
			_ = conn.Close(ctx)
		}
		last = err
		return err == nil
	}); err != nil {
		t.Fatalf("%s: %v: %v", sql, err, last)
	}
}

// write inserts rows through the router until stop is called, which returns those that were acknowledged.
func (r *rig) write(t *testing.T) (stop func() []int64) {
	t.Helper()
	r.run(t, r.Router().Listen, "create table if not exists ledger (id bigint primary key)")
	ctx, cancel := context.WithCancel(t.Context())
	var acked []int64
	var wg sync.WaitGroup
	wg.Go(func() {
		var conn *pgx.Conn
		var id int64
		_ = Poll(ctx, 5*time.Millisecond, func() bool {
			id++
			var err error
			if conn == nil || conn.IsClosed() {
				if conn, err = r.connect(ctx, r.Router().Listen); err != nil {
					conn = nil
					return false
				}
			}
			if _, err = conn.Exec(ctx, fmt.Sprintf("insert into ledger values (%d)", id)); err == nil {
				acked = append(acked, id)
			}
			return false
		})
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	})
	return func() []int64 {
		cancel()
		wg.Wait()
		return acked
	}
}

// has checks that every acknowledged row is there.
func (r *rig) has(t *testing.T, acked []int64) {
	t.Helper()
	conn, err := r.connect(t.Context(), r.Router().Listen)
	must(t, err)
	defer func() { must(t, conn.Close(t.Context())) }()
	rows, err := conn.Query(t.Context(), "select id from ledger order by id")
	must(t, err)
	there, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	must(t, err)
	for _, id := range acked {
		if _, found := slices.BinarySearch(there, id); !found {
			t.Errorf("row %d was acknowledged and is missing", id)
		}
	}
	t.Logf("%d rows were acknowledged, %d are there", len(acked), len(there))
}

func (r *rig) postmasters(t *testing.T) map[string]int {
	t.Helper()
	pids := map[string]int{}
	for _, m := range r.Members() {
		pid, err := m.Postmaster()
		must(t, err)
		pids[m.Name] = pid
	}
	return pids
}

// stays checks that the primary is the same, in the same epoch, for as long as two failovers take.
func (r *rig) stays(t *testing.T, epoch schema.Epoch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	if err := Poll(ctx, 100*time.Millisecond, func() bool { return r.Look(t.Context()).Epoch() != epoch }); err == nil {
		t.Fatalf("epoch %d is over:\n%s", epoch, r.Look(t.Context()))
	}
}

// TestForcedFailover loses the primary while the only standby lacks more than the rules allow.
func TestForcedFailover(t *testing.T) {
	config := schema.DefaultClusterConfig()
	config.MaximumLagOnFailover = 0
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}, Bootstrap: &config})
	must(t, r.Start(t.Context()))
	look := r.await(t, "a whole cluster", Look.Healthy)
	primary, epoch := look.Primary(), look.Epoch()
	standby := r.Members()[0]
	if standby == primary {
		standby = r.Members()[1]
	}
	to := []string{"failover", "--to", standby.Name}
	if out, err := r.howdah(t, append(to, "--force", "--confirm", r.Name())...); err == nil || !strings.Contains(out, "howdah switchover --to "+standby.Name) {
		t.Errorf("a primary that serves was to be replaced by force: %s", out)
	}
	must(t, standby.Freeze())
	r.run(t, primary.Addresses.Postgres, "create table lost as select generate_series(1, 10000)")
	at := r.Look(t.Context()).Of(primary).Status.Self.LSN
	r.await(t, "the primary to publish it", func(l Look) bool {
		s := l.Of(primary).Status
		return s.Leader != nil && s.Leader.FlushLSN >= at && s.Leader.FlushLSN > look.Of(primary).Status.Self.LSN+100_000
	})
	must(t, primary.Kill())
	must(t, standby.Thaw())
	r.says(t, standby, "may not stand", "maximum_lag_on_failover")
	if out, err := r.howdah(t, append(to, "--timeout", "2s")...); err == nil || !strings.Contains(out, "the wish is withdrawn; "+standby.Name+" says: may not stand") {
		t.Errorf("an unforced failover: %v: %s", err, out)
	}
	if _, err := r.howdah(t, append(to, "--force", "--confirm", "another")...); err == nil {
		t.Error("forced without the cluster's name")
	}
	if out := r.does(t, append(to, "--force", "--confirm", r.Name())...); !strings.Contains(out, "not heard of: "+primary.Name) {
		t.Error("what it costs is not said")
	}
	r.await(t, "the standby to serve", func(l Look) bool { return l.Primary() == standby && l.Epoch() > epoch })
	if out := r.does(t, "history"); !strings.Contains(out, "forced by ") {
		t.Error("the history does not say who forced it")
	}
	must(t, primary.Start())
	r.await(t, "a whole cluster again", Look.Healthy)
}

// TestReload changes files of real members and has them read again, also where one Postgres is stopped and answers nobody.
func TestReload(t *testing.T) {
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}})
	must(t, r.Start(t.Context()))
	look := r.await(t, "a whole cluster", Look.Healthy)
	primary, epoch := look.Primary(), look.Epoch()
	other := r.Members()[0]
	if other == primary {
		other = r.Members()[1]
	}
	reload := append([]string{"reload"}, r.token()...)
	if out := r.does(t, reload...); !strings.Contains(out, "pg1: reloaded\n") || !strings.Contains(out, "pg2: reloaded\n") {
		t.Error("not both were reloaded")
	}
	conf := filepath.Join(other.DataDir, "postgresql.conf")
	before, err := os.ReadFile(conf)
	must(t, err)
	must(t, os.WriteFile(conf, slices.Concat([]byte("no_such_setting = 1\n"), before), 0o600))
	wrong := fmt.Sprintf("%s: %s, line 1, no_such_setting: ", other.Name, conf)
	if out, err := r.howdah(t, reload...); err == nil || !strings.Contains(out, wrong) || strings.Contains(out, other.Name+": reloaded") || !strings.Contains(out, primary.Name+": reloaded\n") {
		t.Errorf("%v; want %q", err, wrong)
	}
	must(t, os.WriteFile(conf, before, 0o600))

	pid, err := other.Postmaster()
	must(t, err)
	must(t, unix.Kill(pid, unix.SIGSTOP))
	defer func() { must(t, unix.Kill(pid, unix.SIGCONT)) }()
	if out, err := r.howdah(t, append(reload, primary.Name)...); err != nil || !strings.Contains(out, primary.Name+": reloaded\n") {
		t.Errorf("%v: the other member is not reloaded while a Postgres is stopped", err)
	}
	// Its backends run on, so the session that the sidecar keeps still answers.
	if out, err := r.howdah(t, append(reload, other.Name)...); err == nil || !strings.Contains(out, other.Name+": postgres: ") {
		t.Errorf("%v: a Postgres whose postmaster is stopped was reloaded", err)
	}
	if l := r.Look(t.Context()); l.Primary() != primary || l.Epoch() != epoch {
		t.Errorf("the primary is another:\n%s", l)
	}
}

// TestMaintenance restarts a cluster under a writer, pauses it, and breaks what must then stay broken.
func TestMaintenance(t *testing.T) {
	r := newRig(t, Options{Members: []string{"pg1", "pg2", "pg3"}})
	must(t, r.Start(t.Context()))
	look := r.await(t, "a whole cluster", Look.Healthy)
	primary, epoch := look.Primary(), look.Epoch()

	stop := r.write(t)
	before := r.postmasters(t)
	out := r.does(t, append([]string{"restart"}, r.token()...)...)
	for name, pid := range r.postmasters(t) {
		if pid == before[name] {
			t.Errorf("%s was not restarted", name)
		}
	}
	look = r.await(t, "a whole cluster after the restarts", Look.Healthy)
	if look.Primary() != primary || look.Epoch() != epoch || strings.Index(out, primary.Name+": back") < strings.LastIndex(out, ": start\n") {
		t.Errorf("%s is the primary in epoch %d; it was %s in %d; the primary goes last:\n%s", look.Primary().Name, look.Epoch(), primary.Name, epoch, out)
	}

	r.does(t, "pause", "--why", "a test")
	if out := r.does(t, "status"); !strings.HasPrefix(out, "PAUSED by ") || !strings.Contains(out, ": a test") {
		t.Error("status does not begin with the pause")
	}
	pid, err := primary.Postmaster()
	must(t, err)
	must(t, unix.Kill(pid, unix.SIGINT)) // what pg_ctl stop sends
	r.says(t, primary, "the cluster is paused", "howdah restart starts it")
	r.stays(t, epoch)
	if _, err := primary.Postmaster(); err == nil {
		t.Error("a Postgres that was stopped by hand was started again")
	}
	r.does(t, append([]string{"restart", primary.Name}, r.token()...)...)
	look = r.await(t, "the same primary again", Look.Healthy)
	if look.Primary() != primary || look.Epoch() != epoch {
		t.Errorf("%s in epoch %d", look.Primary().Name, look.Epoch())
	}
	var other *Member
	for _, m := range r.Members() {
		if m != primary {
			other = m
		}
	}
	must(t, os.WriteFile(filepath.Join(other.DataDir, "of old"), nil, 0o644))
	r.does(t, append([]string{"reinit", other.Name, "--yes"}, r.token()...)...)
	if _, err := os.Stat(filepath.Join(other.DataDir, "of old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s has its old data directory still: %v", other.Name, err)
	}
	if _, err := r.howdah(t, append([]string{"reinit", primary.Name, "--yes"}, r.token()...)...); err == nil {
		t.Error("the primary's data were thrown away")
	}
	r.await(t, "a whole cluster after the reinit", Look.Healthy)
	acked := stop()
	r.has(t, acked)

	must(t, primary.Kill())
	for _, m := range r.Members() {
		if m != primary {
			r.says(t, m, "may not stand: the cluster is paused by ", "(a test)")
		}
	}
	r.does(t, "resume")
	look = r.await(t, "another primary", func(l Look) bool { return l.Primary() != nil && l.Epoch() > epoch })
	if look.Primary() == primary {
		t.Error("a killed member serves")
	}
	must(t, primary.Start())
	r.await(t, "a whole cluster again", Look.Healthy)
}
