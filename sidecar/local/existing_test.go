package local

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"howdah/consul/schema"
)

// former is a server that something else than howdah has made and keeps.
type former struct {
	*testing.T
	r      *rig
	member *Member
	dir    string
}

// run runs one of PostgreSQL's programs as its user.
func (f former) run(tool string, args ...string) string {
	f.Helper()
	cmd := exec.CommandContext(f.Context(), filepath.Join(f.r.o.BinDir, tool), args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=10")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.r.user.credential}
	var out bytes.Buffer // a file of its own would be kept open by a server that is started
	cmd.Stdout, cmd.Stderr = &out, &out
	if tool == "pg_ctl" {
		cmd.Stdout, cmd.Stderr = nil, nil
	}
	if err := cmd.Run(); err != nil {
		f.Fatalf("%s %v: %v: %s", tool, args, err, out.String())
	}
	return out.String()
}

func (f former) write(name, text string) {
	f.Helper()
	path := filepath.Join(f.dir, name)
	write(f.T, path, text)
	must(f.T, os.Chown(path, int(f.r.user.UID), int(f.r.user.GID)))
}

func (f former) start() {
	f.run("pg_ctl", "-D", f.dir, "-w", "-o", "-k "+f.member.runDir(), "-l", f.dir+".log", "start")
}

func (f former) stop() { f.run("pg_ctl", "-D", f.dir, "-w", "-m", "fast", "stop") }

// psql asks the member's server: postgres over its socket, where howdah's own lines let it in, others by TCP.
func (f former) psql(user, password, sql string) string {
	f.Helper()
	_, port, _ := strings.Cut(f.member.Addresses.Postgres, ":")
	host := "127.0.0.1"
	if user == "postgres" {
		host = f.member.runDir()
	}
	return strings.TrimSpace(f.run("psql", "-XAtw", "-d", fmt.Sprintf("host=%s port=%s dbname=postgres user=%s password=%s", host, port, user, password), "-c", sql))
}

const formerHBA = "# the old system's\nlocal all all trust\nhost all boss 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\nhost all app 127.0.0.1/32 md5\n"

// newFormer makes a primary with users, data and settings of its own, and a standby of it. dress makes the directories
// as another keeper leaves them.
func newFormer(t *testing.T, dress func(former, bool)) (primary, standby former) {
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}, MemberFlags: []string{"--init", "existing"}})
	primary = former{t, r, r.Member("pg1"), r.Member("pg1").DataDir}
	standby = former{t, r, r.Member("pg2"), r.Member("pg2").DataDir}
	primary.run("initdb", "-D", primary.dir, "-U", "boss", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
	conf := read(t, filepath.Join(primary.dir, "postgresql.conf"))
	_, port, _ := strings.Cut(primary.member.Addresses.Postgres, ":")
	primary.write("postgresql.conf", conf+"\nlisten_addresses = '127.0.0.1'\nport = "+port+"\nshared_buffers = 16MB\nwork_mem = '7MB'\nwal_level = logical\n"+
		"max_replication_slots = 33\narchive_mode = on\narchive_command = '/bin/true'\nshared_preload_libraries = 'auto_explain'\nfsync = off\n")
	primary.write("pg_hba.conf", formerHBA)
	dress(primary, false)
	primary.start()
	for _, sql := range []string{
		"SET password_encryption = 'md5'; CREATE ROLE app LOGIN PASSWORD 'app-secret'",
		"CREATE TABLE kept AS SELECT g FROM generate_series(1, 100) g; GRANT SELECT ON kept TO app",
		"ALTER SYSTEM SET maintenance_work_mem = '33MB'",
		"SELECT pg_create_logical_replication_slot('feed', 'test_decoding')",
	} {
		primary.psql("boss", "", sql)
	}
	primary.run("pg_basebackup", "-D", standby.dir, "-R", "-X", "stream", "-c", "fast", "-d", "host=127.0.0.1 port="+port+" user=boss")
	dress(standby, true)
	return primary, standby
}

// adopted starts both members and looks at what they made of the directories.
func adopted(primary, standby former) {
	t, r := primary.T, primary.r
	before := read(t, filepath.Join(standby.dir, "base", "1", "PG_VERSION"))
	if primary.member.SidecarPID() == 0 {
		must(t, primary.member.Start())
	}
	r.await(t, "the adopted directory serving", func(l Look) bool { return l.Primary() == primary.member })
	must(t, standby.member.Start())
	look := r.await(t, "both healthy", Look.Healthy)
	if p := look.Of(primary.member).Status.Self; p.Epoch != 1 || p.Timeline != 1 {
		t.Errorf("epoch %d, timeline %d; want the first epoch on the timeline that was there", p.Epoch, p.Timeline)
	}
	events, err := standby.member.Events(t.Context())
	must(t, err)
	for _, e := range events {
		if e.Kind == schema.EventCloned || e.Kind == schema.EventRewound {
			t.Errorf("the old standby was not simply started: %+v", e)
		}
	}
	if now := read(t, filepath.Join(standby.dir, "base", "1", "PG_VERSION")); now != before {
		t.Error("the standby's directory is another one")
	}
	if got := primary.psql("app", "app-secret", "SELECT count(*) FROM kept"); got != "100" {
		t.Errorf("the application's user with its md5 password reads %q", got)
	}
	superuser, err := r.Secret("superuser")
	must(t, err)
	for name, want := range map[string]string{"work_mem": "7MB", "shared_preload_libraries": "auto_explain", "archive_command": "/bin/true", "maintenance_work_mem": "33MB",
		"wal_level": "logical", "max_replication_slots": "33", "max_wal_senders": "20", "restart_after_crash": "off"} {
		if got := primary.psql("postgres", superuser, "SHOW "+name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := primary.psql("postgres", superuser, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'feed'"); got != "1" {
		t.Errorf("the logical slot: %q", got)
	}
	if got := read(t, filepath.Join(primary.dir+".before-howdah", "pg_hba.conf")); got != formerHBA {
		t.Errorf("the copy of pg_hba.conf: %q", got)
	}
	primary.psql("postgres", superuser, "CREATE TABLE after AS SELECT 1")
	must(t, primary.member.Kill())
	r.await(t, "the old standby taking over", func(l Look) bool { return l.Primary() == standby.member })
	if got := standby.psql("postgres", superuser, "SELECT count(*) FROM kept"); got != "100" {
		t.Errorf("after a failover: %q rows", got)
	}
}

// A single server with a standby, kept by pg_ctl. It is left alone while it runs.
func TestAdoptSingleServer(t *testing.T) {
	primary, standby := newFormer(t, func(former, bool) {})
	must(t, primary.member.Start())
	eventually(t, "the launcher's refusal", func() bool {
		b, _ := os.ReadFile(primary.member.LaunchLog)
		return strings.Contains(string(b), "a PostgreSQL that howdah did not start runs on the data directory")
	})
	if got := primary.psql("boss", "", "SELECT count(*) FROM kept"); got != "100" {
		t.Errorf("it was not left alone: %q", got)
	}
	primary.stop()
	adopted(primary, standby)
}

// As Patroni leaves it: its own postgresql.conf includes the former one and holds recovery settings, too.
func TestAdoptPatroni(t *testing.T) {
	primary, standby := newFormer(t, func(f former, standby bool) {
		if !standby {
			f.write("postgresql.base.conf", read(f.T, filepath.Join(f.dir, "postgresql.conf")))
			f.write("patroni.dynamic.json", `{"ttl": 30, "postgresql": {"use_pg_rewind": true}}`)
		}
		f.write("postgresql.conf", "# Do not edit this file manually!\ninclude 'postgresql.base.conf'\n\ncluster_name = 'batman'\nhot_standby = 'on'\nmax_wal_senders = '10'\n"+
			"recovery_target_timeline = 'latest'\nprimary_conninfo = 'user=boss host=127.0.0.1 port=1'\nprimary_slot_name = 'pg2'\n")
	})
	primary.stop()
	adopted(primary, standby)
}

// As stolon leaves it: one whole postgresql.conf, postgresql.auto.conf a link to /dev/null, a database state beside.
func TestAdoptStolon(t *testing.T) {
	primary, standby := newFormer(t, func(former, bool) {})
	primary.stop()
	for _, f := range []former{primary, standby} {
		f.write("stolon-temp-postgresql.conf", "listen_addresses = ''\n")
		f.write("recovery.conf", "standby_mode = 'on'\n")
	}
	auto := filepath.Join(primary.dir, "postgresql.auto.conf")
	conf := filepath.Join(primary.dir, "postgresql.conf")
	primary.write("postgresql.conf", read(t, conf)+"maintenance_work_mem = '33MB'\nrecovery_target_time = '2020-01-01 00:00:00+00'\n")
	must(t, os.Remove(auto))
	must(t, os.Symlink("/dev/null", auto))
	adopted(primary, standby)
	if info, err := os.Lstat(auto); err != nil || !info.Mode().IsRegular() {
		t.Errorf("postgresql.auto.conf is no file: %v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(standby.dir, "recovery.conf")); !os.IsNotExist(err) {
		t.Errorf("recovery.conf: %v", err)
	}
}
