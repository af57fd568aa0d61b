package postgres

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/sidecar/postgres/postgrestest"
)

func TestKeyring(t *testing.T) {
	k := newKeyring(Secrets{Superuser: "a", Replication: "r", Rewind: "w", Router: "o"})
	see := func(want ...string) {
		t.Helper()
		if got := k.candidates(SuperuserRole); !slices.Equal(got, want) {
			t.Errorf("tries %v, want %v", got, want)
		}
	}
	change := func(password string, former ...string) {
		s := k.present()
		s.Superuser, s.Former = password, map[string][]string{"superuser": former}
		k.set(s)
	}
	see("a")
	// Nobody has been asked: the present one first, then what it was.
	change("b")
	see("b", "a")
	k.accept(SuperuserRole, "a")
	if k.settled(SuperuserRole) {
		t.Error("a former password is taken for the present one")
	}
	see("a", "b")
	k.accept(SuperuserRole, "b")
	if !k.settled(SuperuserRole) {
		t.Error("the present password is not in force when it was accepted")
	}
	see("b", "a")
	change("c", "x", "y")
	see("b", "c", "x", "y", "a")
	k.accept(SuperuserRole, "c")
	// What the file no longer lists is remembered, for a while.
	for _, p := range []string{"d", "e", "f"} {
		change(p)
		k.accept(SuperuserRole, p)
	}
	see("f", "e", "d", "c", "x")
	change("c")
	see("f", "c", "e", "d", "x")
	if got := k.candidates(ReplicationRole); !slices.Equal(got, []string{"r"}) {
		t.Errorf("replication has %v", got)
	}
}

func TestSetSecretsRefuses(t *testing.T) {
	p, err := New(Options{Name: "one", DataDir: "/d/data", SocketDir: "/d", Port: 5432, Secrets: Secrets{Superuser: "a", Replication: "r", Rewind: "w", Router: "o"}}, tools{})
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]Secrets{
		"secret superuser: must not be empty": {Replication: "hush", Rewind: "hush", Router: "hush"},
		"secret rewind: only printable ASCII": {Superuser: "hush", Replication: "hush", Rewind: "hush\r", Router: "hush"},
		"secret router: only printable ASCII": {Superuser: "hush", Replication: "hush", Rewind: "hush", Router: "hush", Former: map[string][]string{"router": {"hüsh"}}},
	} {
		if err := p.SetSecrets(s); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if got := p.keys.present(); got.Superuser != "a" || got.Rewind != "w" || got.Router != "o" {
		t.Error("refused secrets were taken over")
	}
}

// changed are secrets that have nothing in common with those of newMember.
var changed = Secrets{Superuser: "new superuser", Replication: `new re'pl:i\cation`, Rewind: "new rewind", Router: "new-router"}

// loudly has a server log every statement.
func (m *member) loudly() {
	m.server.Exec("ALTER SYSTEM SET log_statement = 'all'")
	m.server.Exec("ALTER SYSTEM SET log_min_duration_statement = 0")
	m.server.Exec("ALTER SYSTEM SET log_connections = on")
	m.server.Exec("SELECT pg_reload_conf()")
}

// query asks the local server as howdah does, whatever the superuser's password is.
func (m *member) query(sql string) string {
	m.t.Helper()
	var v string
	if err := m.onOwn(m.t.Context(), func(c *pgx.Conn) error { return c.QueryRow(m.t.Context(), sql).Scan(&v) }); err != nil {
		m.t.Fatalf("%s: %s: %v", m.o.Name, sql, err)
	}
	return v
}

// accepts reports whether a role gets in with a password, by TCP as others do, or over the socket.
func (m *member) accepts(role, password string) bool {
	m.t.Helper()
	cfg, err := pgx.ParseConfig(m.server.DSN(role, "postgres"))
	if role == SuperuserRole {
		cfg, err = pgx.ParseConfig(m.server.SocketDSN(role, "postgres"))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	cfg.Password = password
	if role == ReplicationRole {
		cfg.RuntimeParams["replication"] = "true"
	}
	c, err := pgx.ConnectConfig(m.t.Context(), cfg)
	if err == nil {
		_ = c.Close(m.t.Context())
		return true
	}
	if !strings.Contains(err.Error(), "28P01") {
		m.t.Errorf("%s as %s: %v", m.o.Name, role, err)
	}
	return false
}

// reconnect ends the standby's connection to its upstream and waits until it has another. A password that is refused meanwhile is no end.
func (m *member) reconnect(upstream *member) {
	m.t.Helper()
	const sender = "SELECT coalesce(string_agg(pid::text, ','), '') FROM pg_stat_replication WHERE state = 'streaming'"
	m.waitStreaming()
	before := upstream.query(sender)
	upstream.query("SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_replication")
	m.until("another connection", func() bool { now := upstream.query(sender); return now != "" && now != before })
	m.waitStreaming()
}

// heeds does as the sidecar does, until the standby knows that the present passwords are in force.
func (m *member) heeds(upstream *member) {
	m.t.Helper()
	m.until("the present passwords", func() bool {
		var from *Upstream
		if !m.probe().Streaming() {
			from = upstream.upstream()
		}
		settled, err := m.HeedPasswords(m.t.Context(), from)
		return settled && err == nil
	})
}

func (m *member) passfileHolds(password string) {
	m.t.Helper()
	text, err := os.ReadFile(m.passfile())
	if err != nil || string(text) != "*:*:*:"+ReplicationRole+":"+quotePassfile(password)+"\n" {
		m.t.Errorf("%s: the passfile holds another password than wanted (%v)", m.o.Name, err)
	}
}

// inserts writes rows over one connection until stop is called, which fails the test if one was refused.
func (m *member) inserts() (stop func() int) {
	m.t.Helper()
	conn := m.server.Connect(SuperuserRole, "postgres")
	m.server.Exec("CREATE TABLE ledger (id bigint)")
	ctx, cancel := context.WithCancel(m.t.Context())
	rows := 0
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil && failed == nil {
			if _, failed = conn.Exec(context.WithoutCancel(ctx), "INSERT INTO ledger VALUES ($1)", rows); failed == nil {
				rows++
			}
		}
	})
	return func() int {
		m.t.Helper()
		cancel()
		wg.Wait()
		if failed != nil {
			m.t.Errorf("after %d rows: %v", rows, failed)
		}
		return rows
	}
}

// TestRotation changes every password of a running pair under a writer: the standby's file first, then the primary's. Nobody is
// restarted, nothing is refused on the way, and no password shows in a log.
func TestRotation(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	two.cloneOf(one)
	old := one.keys.present()
	one.loudly()
	two.until("a loud standby", func() bool {
		_, err := two.server.Try("SELECT pg_reload_conf()")
		return err == nil
	})
	pids := []int{one.server.PID(), two.server.PID()}
	stop := one.inserts()

	if err := two.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if settled, err := two.HeedPasswords(t.Context(), nil); settled || err != nil {
			t.Errorf("settled: %v, %v", settled, err)
		}
		two.passfileHolds(old.Replication)
		two.reconnect(one)
		two.Close() // its next logins are new ones
		two.probe()
		two.query("SELECT ''")
	}
	if settled, err := two.HeedPasswords(t.Context(), nil); settled || err != nil {
		t.Errorf("settled: %v, %v", settled, err)
	}
	if _, err := two.Identify(t.Context(), *one.upstream()); err != nil {
		t.Error(err)
	}

	if err := one.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	if err := one.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	two.heeds(one)
	two.passfileHolds(changed.Replication)
	one.passfileHolds(changed.Replication)
	two.reconnect(one)
	for _, m := range []*member{one, two} {
		m.Close()
		m.probe()
	}
	conn, err := two.connectSource(t.Context(), *one.upstream())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	rows := stop()
	two.waitReplayed(one.probe().LSN)
	if got := two.query("SELECT count(*)::text FROM public.ledger"); got == "0" || got != one.query("SELECT count(*)::text FROM public.ledger") {
		t.Errorf("the standby has %s rows of %d", got, rows)
	}
	if now := []int{one.server.PID(), two.server.PID()}; !slices.Equal(now, pids) {
		t.Errorf("the postmasters were %v and are %v", pids, now)
	}
	for _, m := range []*member{one, two} {
		if m.server.LogContains("authentication failed") {
			t.Errorf("%s refused a password during an orderly change:\n%s", m.o.Name, m.server.Log())
		}
		for role, password := range changed.present() {
			if was := old.present()[role]; !m.accepts(role, password) || m.accepts(role, was) {
				t.Errorf("%s: not the new password alone is accepted of %s", m.o.Name, role)
			}
		}
	}
	for _, m := range []*member{one, two} {
		for _, s := range []Secrets{old, changed} {
			for role, password := range s.present() {
				if m.server.LogContains(password) {
					t.Errorf("the log of %s holds a password of %s", m.o.Name, role)
				}
			}
		}
		if m.server.LogContains("SCRAM-SHA-256$") {
			t.Errorf("the log of %s holds a verifier", m.o.Name)
		}
	}
}

// TestRotationPrimaryFirst changes the primary's file while the standby has the old one only.
func TestRotationPrimaryFirst(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	two.cloneOf(one)
	if err := one.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	if err := one.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	two.waitReplayed(one.probe().LSN)
	_, err := two.HeedPasswords(t.Context(), nil)
	if !errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), `"superuser"`) || !strings.Contains(err.Error(), "give this member the changed file too") {
		t.Errorf("want what to do, got %v", err)
	}
	if !two.probe().Streaming() {
		t.Error("a connection that was there has ended")
	}
	// One that must connect anew cannot, until its file is changed too; then by itself.
	one.query("SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_replication")
	one.server.WaitLog("password authentication failed for user \"" + ReplicationRole + "\"")
	if _, err := two.HeedPasswords(t.Context(), one.upstream()); !errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), `"replication"`) {
		t.Errorf("want what to do, got %v", err)
	}
	if err := two.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	if _, err := two.HeedPasswords(t.Context(), one.upstream()); err != nil {
		t.Error(err)
	}
	two.waitStreaming()
	two.heeds(one)
	two.Close()
	two.probe()
}

// TestRotationThroughAFailover promotes a standby that has the new file, while the primary had the old one, which then comes back.
func TestRotationThroughAFailover(t *testing.T) {
	t.Parallel()
	one, two, three := newPrimary(t, "one"), newMember(t, "two"), newMember(t, "three")
	two.cloneOf(one)
	three.cloneOf(one)
	if err := two.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	if err := three.SetSecrets(changed); err != nil {
		t.Fatal(err)
	}
	three.waitReplayed(one.probe().LSN)
	one.server.Kill()
	promoteAndCheck(t, two, 2)
	if err := two.EnsureSlots(t.Context(), []Slot{{Name: SlotName("three")}}); err != nil {
		t.Fatal(err)
	}
	// Before the new primary has changed anything a third member follows by the former password.
	three.configure(Settings{Role: "standby", Upstream: two.upstream()})
	three.reload()
	three.waitStreaming()
	if err := two.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	three.heeds(two)
	three.reconnect(two)
	if two.accepts(ReplicationRole, one.keys.present().Replication) {
		t.Error("the old password is still accepted")
	}
	if _, err := one.Identify(t.Context(), *two.upstream()); !errors.Is(err, ErrPassword) {
		t.Errorf("with the old passwords: %v", err)
	}
	// The new primary's sidecar is given the old file again: its file counts, and who has the new one still gets in.
	if err := two.SetSecrets(one.keys.present()); err != nil {
		t.Fatal(err)
	}
	if err := two.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := three.HeedPasswords(t.Context(), two.upstream()); err != nil {
		t.Error(err)
	}
	three.passfileHolds(one.keys.present().Replication)
	three.reconnect(two)
}

// TestRotationAfterARestart begins, as a sidecar that was restarted does, with the changed file alone.
func TestRotationAfterARestart(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	old := m.keys.present()
	m.Close()
	m.keys = newKeyring(changed)
	err := m.EnsureRoles(t.Context())
	if !errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), "write the former password below the present one") || !Answered(err) {
		t.Fatalf("want what to do, got %v", err)
	}
	s := changed
	s.Former = map[string][]string{"superuser": {"an older one", old.Superuser}}
	if err := m.SetSecrets(s); err != nil {
		t.Fatal(err)
	}
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !m.accepts(SuperuserRole, changed.Superuser) || m.accepts(SuperuserRole, old.Superuser) {
		t.Error("the new password is not in force")
	}
	if m.server.LogContains("an older one") || m.server.LogContains(postgrestest.Password) {
		t.Error("the log holds a password")
	}
}
