package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

func TestInitdb(t *testing.T) {
	t.Parallel()
	m := newMember(t, "one")
	if d := m.inspect(); d.State != DirAbsent || d.Unfinished {
		t.Fatalf("%+v", d)
	}
	if err := m.Initdb(t.Context(), m.config); err != nil {
		t.Fatal(err)
	}
	d := m.inspect()
	if d.State != DirValid || d.Unfinished || d.Control.DataChecksums == 0 || d.Control.State != ControlShutDown || d.Timeline != 1 || d.StandbySignal {
		t.Fatalf("%+v", d)
	}
	if left := m.beside(); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	m.start()
	p := m.probe()
	if p.InRecovery || p.Timeline != 1 || p.LSN == 0 || p.SystemID != d.SystemID() || p.ServerVersionNum/10000 != d.Major || len(p.PendingRestart) != 0 {
		t.Fatalf("%+v", p)
	}
	for sql, want := range map[string]string{
		"SHOW data_checksums": "on", "SHOW server_encoding": "UTF8", "SHOW cluster_name": "one", "SHOW restart_after_crash": "off", "SHOW max_connections": "50",
		"SHOW wal_level": "replica", "SELECT datcollate FROM pg_database WHERE datname = 'postgres'": "C.UTF-8",
		"SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL": "0",
		"SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL":  "0",
		"SELECT count(*) FROM pg_hba_file_rules":                         fmt.Sprint(len(ownHBA) + len(m.config.HBA)),
	} {
		if got := m.server.Query(sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	// A second initdb finds the directory taken.
	if err := m.Initdb(t.Context(), m.config); !errors.Is(err, ErrNotOurs) {
		t.Fatalf("initdb over a data directory: %v", err)
	}

	if err := m.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.server.Stop(postgrestest.Fast)
	d = m.inspect()
	if !d.Control.CleanShutdown() {
		t.Fatalf("state %s", d.Control.State)
	}
	// pg_waldump knows where the shutdown checkpoint ends: it says so when it looks for the next record.
	_, out, err := postgrestest.Tool{Name: "pg_waldump", Args: []string{"-p", m.o.DataDir + "/pg_wal", "-s", d.Control.CheckpointLSN.String()}}.Run(t.Context())
	if err != nil || !strings.Contains(out, "CHECKPOINT_SHUTDOWN") || !strings.Contains(out, "len (rec/tot):    114/   114") {
		t.Fatalf("%s, %v", out, err)
	}
	// Segments that were made in advance hold zeros, and a directory lists them in any order.
	for n := range 50 {
		if err := os.WriteFile(fmt.Sprintf("%s/pg_wal/0000000100000000000000%02X", m.o.DataDir, 0xA0+n), make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if rec, err := m.lastRecord(t.Context(), d, d.Control.CheckpointLSN); err != nil || rec != d.Control.CheckpointLSN {
		t.Fatalf("last record %s, %v; the checkpoint is at %s", rec, err, d.Control.CheckpointLSN)
	}
	end, err := m.LocalEnd(t.Context(), d)
	if err != nil || end != d.Control.ShutdownEnd() {
		t.Fatalf("end %s, %v", end, err)
	}
}

func TestInitdbFails(t *testing.T) {
	t.Parallel()
	m := newMember(t, "one")
	m.tools = tools{before: failTool("initdb", "initdb: error: could not write: No space left on device")}
	if err := m.Initdb(t.Context(), m.config); !errors.Is(err, ErrDiskFull) {
		t.Fatal(err)
	}
	if left := m.beside(); len(left) != 0 || m.inspect().State != DirAbsent {
		t.Fatalf("left behind: %v", left)
	}
}

func TestEnsureRoles(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	const written = "SELECT string_agg(xmin::text, ',' ORDER BY rolname) FROM pg_authid WHERE rolname LIKE 'howdah%'"
	before := m.server.Query(written)
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := m.server.Query(written); after != before {
		t.Error("roles that were right were written again")
	}
	login := func(role, password, db string) error {
		cfg, err := pgx.ParseConfig(m.server.DSN(role, db))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = password
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			return err
		}
		defer c.Close(t.Context())
		if role == RouterRole {
			_, err = c.Exec(t.Context(), "SELECT 1 / pg_has_role('pg_read_all_stats', 'USAGE')::int")
		}
		if role == RewindRole {
			_, err = c.Exec(t.Context(), "SELECT pg_ls_dir('.', true, false), pg_stat_file('PG_VERSION', true), pg_read_binary_file('PG_VERSION'), pg_read_binary_file('PG_VERSION', 0, 1, true)")
		}
		return err
	}
	for role, password := range map[string]string{RewindRole: m.keys.present().Rewind, RouterRole: m.keys.present().Router} {
		if err := login(role, password, "postgres"); err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if err := login(role, password+"x", "postgres"); err == nil {
			t.Errorf("%s: any password will do", role)
		}
	}
	if id, err := m.Identify(t.Context(), *m.upstream()); err != nil || id.SystemID != m.probe().SystemID || id.Timeline != 1 || id.LSN == 0 {
		t.Errorf("%+v, %v", id, err)
	}

	// A changed password, lost rights and too many rights are put right; with every statement logged, no password shows.
	m.server.Exec("ALTER SYSTEM SET log_statement = 'all'")
	m.server.Exec("ALTER SYSTEM SET log_min_duration_statement = 0")
	m.server.Exec("SELECT pg_reload_conf()")
	m.Close() // what is changed for new connections must not matter to ours
	m.server.Exec("ALTER ROLE howdah_rewind NOLOGIN SUPERUSER; DROP OWNED BY howdah_router; DROP ROLE howdah_router; REVOKE EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean) FROM howdah_rewind")
	m.knows(func(s *Secrets) { s.Replication = "another one" })
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	for role, password := range map[string]string{RewindRole: m.keys.present().Rewind, RouterRole: m.keys.present().Router} {
		if err := login(role, password, "postgres"); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	if _, err := m.Identify(t.Context(), *m.upstream()); err != nil {
		t.Error(err)
	}
	if got := m.server.Query("SELECT string_agg(rolname || rolsuper || rolreplication, ' ' ORDER BY rolname) FROM pg_authid WHERE rolname LIKE 'howdah%'"); got != "howdah_replicationfalsetrue howdah_rewindfalsefalse howdah_routerfalsefalse" {
		t.Error(got)
	}
	for _, secret := range []string{m.keys.present().Superuser, m.keys.present().Replication, m.keys.present().Rewind, m.keys.present().Router, "SCRAM-SHA-256$"} {
		if m.server.LogContains(secret) {
			t.Errorf("the server's log holds %s", secret)
		}
	}
}

func TestConfigure(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	primary := Settings{Role: schema.RolePrimary}
	expect := func(what string, want Change) {
		t.Helper()
		if got := m.configure(primary); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("nothing new", ChangeNone)
	nasty := "it's \\ a \"test\"; # ünï\tcode\nsecond line\\"
	m.config.Parameters["howdah.test"] = nasty
	m.config.Parameters["Work_Mem"] = "5MB"
	expect("a parameter of a session", ChangeReload)
	expect("not reloaded yet", ChangeReload)
	m.reload()
	m.until("reload", func() bool { return m.server.Query("SHOW work_mem") == "5MB" })
	expect("reloaded", ChangeNone)
	if got := m.server.Query("SHOW howdah.test"); got != nasty {
		t.Errorf("%q became %q", nasty, got)
	}
	m.config.HBA = append(m.config.HBA, "host all nobody all reject")
	expect("a line of pg_hba.conf", ChangeReload)
	m.config.Parameters["max_connections"] = "60"
	expect("a parameter of the postmaster", ChangeRestart)
	m.reload()
	m.until("pending restart", func() bool { p := m.probe().PendingRestart; return len(p) == 1 && p[0] == "max_connections" })

	// What ALTER SYSTEM left must not win over howdah's own; the rest stays.
	m.server.Exec("ALTER SYSTEM SET primary_conninfo = 'host=stale'")
	m.server.Exec("ALTER SYSTEM SET maintenance_work_mem = '33MB'")
	expect("a stale setting in postgresql.auto.conf", ChangeReload)
	auto, err := os.ReadFile(filepath.Join(m.o.DataDir, autoConfName))
	if err != nil || strings.Contains(string(auto), "stale") || !strings.Contains(string(auto), "33MB") {
		t.Errorf("%s, %v", auto, err)
	}
	if saved, err := os.ReadFile(filepath.Join(m.o.DataDir, savedAutoConfName)); err != nil || !strings.Contains(string(saved), "stale") {
		t.Errorf("no copy: %s, %v", saved, err)
	}

	// A running primary needs a restart to become a standby; standby.signal stays when the role changes back.
	if got := m.configure(Settings{Role: schema.RoleStandby, Upstream: &Upstream{Member: "x", Host: "127.0.0.1", Port: 1}}); got != ChangeRestart {
		t.Errorf("to standby: %s", got)
	}
	m.configure(primary)
	if d := m.inspect(); !d.StandbySignal {
		t.Error("standby.signal was removed without a promotion")
	}
	m.server.Restart()
	if p := m.probe(); !p.InRecovery || len(p.PendingRestart) != 0 || m.server.Query("SHOW max_connections") != "60" {
		t.Errorf("%+v", p)
	}
	if got := m.server.Query("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL"); got != "0" {
		t.Error("the files have errors")
	}

	m.config.HBA = []string{"host all all all trust\nlocal all all trust"}
	if _, err := m.Configure(t.Context(), Settings{Role: schema.RolePrimary, Config: m.config}); err == nil {
		t.Error("a line break in the hba list was accepted")
	}
	for _, f := range []string{"howdah.conf", "pg_hba.conf", "postgresql.conf", "../data.pgpass"} {
		if info, err := os.Stat(filepath.Join(m.o.DataDir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestInspectStates(t *testing.T) {
	t.Parallel()
	m := newMember(t, "one")
	if err := os.Mkdir(m.o.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if d := m.inspect(); d.State != DirEmpty {
		t.Errorf("empty: %+v", d)
	}
	if err := m.swapper().writeMarker(marker{Work: workInit, Nonce: "n"}); err != nil {
		t.Fatal(err)
	}
	if d := m.inspect(); d.State != DirIncomplete || !d.Unfinished {
		t.Errorf("incomplete: %+v", d)
	}
	if err := m.FinishSwap(t.Context()); err != nil {
		t.Fatal(err)
	}
	holiday := filepath.Join(m.o.DataDir, "holiday.jpg")
	if err := os.WriteFile(holiday, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := m.inspect(); d.State != DirForeign {
		t.Errorf("foreign: %+v", d)
	}
	if err := m.Initdb(t.Context(), m.config); !errors.Is(err, ErrNotOurs) {
		t.Errorf("initdb over a foreign directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(m.o.DataDir, "PG_VERSION"), []byte("fifteen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := m.Inspect(t.Context()); err == nil {
		t.Errorf("unreadable version: %+v", d)
	}
	if err := os.WriteFile(filepath.Join(m.o.DataDir, "PG_VERSION"), []byte("14\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var major *MajorError
	if _, err := m.Inspect(t.Context()); !errors.As(err, &major) || major.Have != 14 {
		t.Errorf("wrong major version: %v", err)
	}
	ours, err := m.BinaryMajor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.o.DataDir, "PG_VERSION"), fmt.Appendln(nil, ours), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := m.Inspect(t.Context()); err == nil {
		t.Errorf("no control file: %+v", d)
	}
	if _, err := os.Stat(holiday); err != nil {
		t.Error(err)
	}
}
