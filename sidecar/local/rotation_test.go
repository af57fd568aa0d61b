package local

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// rotation is a pair whose members have a secrets folder each.
type rotation struct {
	*rig
	folders map[string]string // by member
	used    []string          // every password there was
}

// passwords are the files of one rotation, none of whose passwords was there before.
func (r *rotation) passwords(n int) map[string]string {
	files := map[string]string{}
	for _, name := range []string{"superuser", "replication", "rewind", "router"} {
		files[name] = fmt.Sprintf("%s-number-%d", name, n)
		r.used = append(r.used, files[name])
	}
	return files
}

func (r *rotation) give(t *testing.T, m *Member, files map[string]string) {
	t.Helper()
	for name, text := range files {
		write(t, filepath.Join(r.folders[m.Name], name), text+"\n")
	}
}

func hangup(t *testing.T, m *Member) {
	t.Helper()
	must(t, unix.Kill(m.SidecarPID(), unix.SIGHUP))
}

// login connects as the superuser with one password.
func (r *rotation) login(t *testing.T, m *Member, password string) (*pgx.Conn, error) {
	t.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgresql://postgres@%s/postgres?sslmode=disable", m.Addresses.Postgres))
	must(t, err)
	cfg.Password = password
	return pgx.ConnectConfig(t.Context(), cfg)
}

// inForce waits until a member takes a password, and checks that it takes another one no more.
func (r *rotation) inForce(t *testing.T, m *Member, password, former string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Poll(ctx, 50*time.Millisecond, func() bool {
		conn, err := r.login(t, m, password)
		if err == nil {
			must(t, conn.Close(t.Context()))
		}
		return err == nil
	}); err != nil {
		t.Fatalf("%s does not take the new password: %v", m.Name, err)
	}
	if conn, err := r.login(t, m, former); err == nil {
		must(t, conn.Close(t.Context()))
		t.Errorf("%s takes the old password", m.Name)
	} else if !strings.Contains(err.Error(), "28P01") {
		t.Errorf("%s: %v", m.Name, err)
	}
}

// reconnect ends the replication's connection and waits for another one.
func (r *rotation) reconnect(t *testing.T, primary *Member, password string) {
	t.Helper()
	conn, err := r.login(t, primary, password)
	must(t, err)
	defer func() { must(t, conn.Close(t.Context())) }()
	senders := func() (pids string) {
		must(t, conn.QueryRow(t.Context(), "select coalesce(string_agg(pid::text, ','), '') from pg_stat_replication where state = 'streaming'").Scan(&pids))
		return pids
	}
	eventually(t, "a connection", func() bool { return senders() != "" })
	before := senders()
	_, err = conn.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_replication")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Poll(ctx, 50*time.Millisecond, func() bool { now := senders(); return now != "" && now != before }); err != nil {
		t.Fatalf("replication does not come back: %v", err)
	}
}

// content waits until a member's status says nothing of passwords.
func (r *rotation) content(t *testing.T, m *Member) {
	t.Helper()
	r.await(t, m.Name+" content", func(l Look) bool {
		a := l.Of(m)
		return a.Err == nil && !strings.Contains(a.Status.Self.Reason, "password") && (a.Status.Self.State == schema.StateRunning || a.Status.Self.State == schema.StateStreaming)
	})
}

// silent checks that no log holds a password.
func (r *rotation) silent(t *testing.T) {
	t.Helper()
	logs := 0
	must(t, filepath.WalkDir(r.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".log" && filepath.Ext(path) != ".jsonl" {
			return err
		}
		logs++
		text, err := os.ReadFile(path)
		for _, password := range append(r.used, "SCRAM-SHA-256$") {
			if strings.Contains(string(text), password) {
				t.Errorf("%s holds %q", path, password)
			}
		}
		return err
	}))
	if logs < 5 {
		t.Errorf("only %d logs were found", logs)
	}
}

// insert writes rows over one session of the router until stop is called, which fails the test if one was not acknowledged.
func (r *rotation) insert(t *testing.T) (stop func() []int64) {
	t.Helper()
	r.run(t, r.Router().Listen, "create table ledger (id bigint primary key)")
	conn, err := r.connect(t.Context(), r.Router().Listen)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var acked []int64
	done := make(chan error, 1)
	go func() {
		var err error
		for id := int64(0); ctx.Err() == nil && err == nil; id++ {
			if _, err = conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("insert into ledger values (%d)", id)); err == nil {
				acked = append(acked, id)
			}
		}
		_ = conn.Close(context.WithoutCancel(ctx))
		done <- err
	}()
	return func() []int64 {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the session ended after %d rows: %v", len(acked), err)
		}
		return acked
	}
}

// TestPasswordRotation changes all passwords of a running pair, in each order, under a writer.
func TestPasswordRotation(t *testing.T) {
	rig := newRig(t, Options{Members: []string{"pg1", "pg2"}})
	r := &rotation{rig: rig, folders: map[string]string{"pg1": rig.path("secrets"), "pg2": rig.path("secrets-of-pg2")}}
	primary, standby := r.Member("pg1"), r.Member("pg2")
	must(t, primary.Start())
	r.await(t, "a primary", func(l Look) bool { return l.Primary() == primary })
	must(t, r.user.own(r.folders["pg2"]))
	was := map[string]string{}
	for _, name := range []string{"superuser", "replication", "rewind", "router", "gossip.key", "api.token"} {
		file := filepath.Join(r.folders["pg2"], name)
		was[name] = strings.TrimSpace(read(t, r.SecretFile(name)))
		r.used = append(r.used, was[name])
		write(t, file, was[name]+"\n")
		must(t, os.Chown(file, int(r.user.UID), int(r.user.GID)))
	}
	standby.with("--secrets-dir", r.folders["pg2"])
	must(t, standby.Start())
	r.streams(t, standby)
	must(t, r.Router().Start())
	stop := r.insert(t)
	epoch, pids := r.Look(t.Context()).Epoch(), r.postmasters(t)

	// The standby first, by a signal.
	one := r.passwords(1)
	r.give(t, standby, one)
	hangup(t, standby)
	eventually(t, "the standby to read them", func() bool { return strings.Contains(read(t, standby.sidecar.log), "passwords read again") })
	r.reconnect(t, primary, was["superuser"])
	r.give(t, primary, one)
	hangup(t, primary)
	for _, m := range r.Members() {
		r.inForce(t, m, one["superuser"], was["superuser"])
	}
	eventually(t, "the new passfile", func() bool { return strings.Contains(read(t, standby.DataDir+".pgpass"), one["replication"]) })
	r.reconnect(t, primary, one["superuser"])

	// The primary first, and nobody is told.
	two := r.passwords(2)
	r.give(t, primary, two)
	r.inForce(t, primary, two["superuser"], one["superuser"])
	r.says(t, standby, "another password", "give this member the changed file too")
	r.give(t, standby, two)
	r.content(t, standby)
	r.inForce(t, standby, two["superuser"], one["superuser"])
	r.reconnect(t, primary, two["superuser"])

	// A bad file.
	r.give(t, primary, map[string]string{"superuser": ""})
	hangup(t, primary)
	r.says(t, primary, "the passwords stay as they were", "superuser is empty")
	r.inForce(t, primary, two["superuser"], one["superuser"])
	r.give(t, primary, two)
	r.content(t, primary)

	// The primary's sidecar is restarted before it has changed anything, and knows the new passwords only.
	three := r.passwords(3)
	r.give(t, primary, three)
	must(t, primary.KillSidecar(true))
	r.says(t, primary, "superuser", "write the former password below the present one")
	both := maps.Clone(three)
	both["superuser"] += "\n" + two["superuser"]
	r.give(t, primary, both)
	hangup(t, primary)
	r.inForce(t, primary, three["superuser"], two["superuser"])
	r.content(t, primary)
	r.give(t, standby, three)
	hangup(t, standby)
	r.inForce(t, standby, three["superuser"], two["superuser"])
	r.content(t, standby)
	r.reconnect(t, primary, three["superuser"])

	acked := stop()
	r.give(t, primary, three)
	r.has(t, acked)
	if now := r.postmasters(t); !maps.Equal(now, pids) {
		t.Errorf("the postmasters were %v and are %v", pids, now)
	}
	if look := r.Look(t.Context()); look.Primary() != primary || look.Epoch() != epoch {
		t.Errorf("the epoch was %d:\n%s", epoch, look)
	}
	r.silent(t)
}
