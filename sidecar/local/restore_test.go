package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"howdah/consul/schema"
)

// A cluster begins with a base backup and the archive of a server that is gone, at a named point. What goes wrong on the way leaves
// nothing, and is begun again.
func TestRestoreACluster(t *testing.T) {
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}})
	source := former{t, r, r.Member("pg1"), r.path("pg1", "source")}
	backup, archive := r.path("pg1", "backup"), r.path("pg1", "archive")
	for _, dir := range []string{source.dir, backup, archive} {
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.Chown(dir, int(r.user.UID), int(r.user.GID)))
	}
	source.run("initdb", "-D", source.dir, "-U", "boss", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
	_, port, _ := strings.Cut(source.member.Addresses.Postgres, ":")
	source.write("postgresql.conf", read(t, filepath.Join(source.dir, "postgresql.conf"))+"\nlisten_addresses = '127.0.0.1'\nport = "+port+
		"\nshared_buffers = 16MB\narchive_mode = on\narchive_command = 'cp %p "+archive+"/%f'\n")
	source.write("pg_hba.conf", formerHBA)
	source.start()
	source.psql("boss", "", "CREATE TABLE kept AS SELECT g FROM generate_series(1, 100) g")
	source.run("pg_basebackup", "-D", backup, "-X", "none", "-c", "fast", "-d", "host=127.0.0.1 port="+port+" user=boss")
	source.psql("boss", "", "INSERT INTO kept SELECT g FROM generate_series(101, 150) g")
	source.psql("boss", "", "SELECT pg_create_restore_point('before-the-mistake')")
	source.psql("boss", "", "DELETE FROM kept")
	source.stop()

	first, second := r.Member("pg1"), r.Member("pg2")
	restore := func(command string) []string {
		return []string{"--init", "restore", "--restore-command", command, "--restore-fetch", "cp " + archive + "/%f %p", "--restore-target", "name=before-the-mistake"}
	}
	nothing := func() bool {
		left, err := filepath.Glob(first.DataDir + "*/*")
		return err == nil && len(left) == 0
	}
	r.o.MemberFlags = restore("touch %d/PG_VERSION && echo no such stanza >&2 && exit 7")
	must(t, first.Start())
	r.says(t, first, "the restore failed and left nothing", "exit code 7: no such stanza")
	eventually(t, "nothing of it being left", nothing)

	// The sidecar is killed while the command is at work.
	must(t, first.KillSidecar(false))
	begun := filepath.Join(archive, "begun")
	r.o.MemberFlags = restore("cp -a " + backup + "/. %d && touch " + begun + " && sleep 600")
	must(t, first.StartSidecar())
	r.await(t, "the command being at work", func(Look) bool { _, err := os.Stat(begun); return err == nil })
	must(t, first.KillSidecar(false))
	r.o.MemberFlags = restore("cp -a " + backup + "/. %d")
	must(t, first.StartSidecar())
	r.await(t, "the restored primary", func(l Look) bool { return l.Primary() == first })
	must(t, second.Start())
	look := r.await(t, "both healthy", Look.Healthy)
	if p := look.Of(first).Status.Self; p.Epoch != 1 || p.Timeline != 2 {
		t.Errorf("epoch %d, timeline %d; want the first epoch on the timeline that the recovery began", p.Epoch, p.Timeline)
	}
	events, err := second.Events(t.Context())
	must(t, err)
	if !slices.ContainsFunc(events, func(e schema.Event) bool { return e.Kind == schema.EventCloned }) {
		t.Errorf("the standby was not cloned: %+v", events)
	}
	superuser, err := r.Secret("superuser")
	must(t, err)
	rows := func(m *Member) string {
		return former{t, r, m, m.DataDir}.psql("postgres", superuser, "SELECT count(*) FROM kept")
	}
	if got := rows(first); got != "150" {
		t.Errorf("%s rows, want those before the restore point, 150", got)
	}
	for _, name := range []string{"recovery_target_name", "recovery_target"} {
		if got := (former{t, r, first, first.DataDir}).psql("postgres", superuser, "SHOW "+name); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if left, err := filepath.Glob(first.DataDir + ".restore"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	must(t, first.Kill())
	look = r.await(t, "the standby taking over", func(l Look) bool { return l.Primary() == second })
	if p := look.Of(second).Status.Self; p.Epoch != 2 || p.Timeline <= 2 {
		t.Errorf("after a failover: epoch %d, timeline %d", p.Epoch, p.Timeline)
	}
	if got := rows(second); got != "150" {
		t.Errorf("after a failover: %s rows", got)
	}
}
