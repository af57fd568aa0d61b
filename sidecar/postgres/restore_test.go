package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

func TestRestoreOptions(t *testing.T) {
	good := RestoreOptions{Command: "cp -a /backup/. %d"}
	for name, c := range map[string]struct {
		change func(*RestoreOptions)
		want   string // empty where all is well
	}{
		"least": {func(*RestoreOptions) {}, ""},
		"everything": {func(o *RestoreOptions) {
			*o = RestoreOptions{"x %d %%", "cp /a/%f %p", "lsn=0/3000150", "current", true}
		}, ""},
		"a timeline":          {func(o *RestoreOptions) { o.Timeline = "3" }, ""},
		"immediate":           {func(o *RestoreOptions) { o.Target = "immediate" }, ""},
		"a name":              {func(o *RestoreOptions) { o.Target = "name=a = b" }, ""},
		"a time":              {func(o *RestoreOptions) { o.Target = "time=2026-11-27 05:30:00.25+01" }, ""},
		"another time":        {func(o *RestoreOptions) { o.Target = "time=2026-11-27T05:30:00Z" }, ""},
		"no command":          {func(o *RestoreOptions) { o.Command = "" }, "restore-command: is required"},
		"no directory":        {func(o *RestoreOptions) { o.Command = "pgbackrest restore %%d" }, "does not say %d"},
		"unknown percent":     {func(o *RestoreOptions) { o.Command = "date +%s; x %d" }, "restore-command: knows only %d"},
		"PostgreSQL's":        {func(o *RestoreOptions) { o.Command = "cp /archive/%f %p" }, "is --restore-fetch here"},
		"not PostgreSQL's":    {func(o *RestoreOptions) { o.Fetch = "cp -a /backup/. %d" }, "restore-fetch: want"},
		"no target":           {func(o *RestoreOptions) { o.Target = "yesterday" }, "restore-target: choose"},
		"no kind of target":   {func(o *RestoreOptions) { o.Target = "date=1" }, "restore-target: choose"},
		"a time of no zone":   {func(o *RestoreOptions) { o.Target = "time=2026-11-27 05:30:00" }, "offset from UTC"},
		"no transaction":      {func(o *RestoreOptions) { o.Target = "xid=-1" }, "xid: give"},
		"no LSN":              {func(o *RestoreOptions) { o.Target = "lsn=3000150" }, "lsn: give"},
		"an empty name":       {func(o *RestoreOptions) { o.Target = "name=" }, "name: give"},
		"no timeline":         {func(o *RestoreOptions) { o.Timeline = "0" }, "restore-target-timeline: choose"},
		"exclusive of a name": {func(o *RestoreOptions) { o.Target, o.Exclusive = "name=x", true }, "restore-target-inclusive: false goes"},
	} {
		o := good
		c.change(&o)
		err := o.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := RestoreOptions{Command: "x --to=%d '%%d' 100%%; y %d"}
	if line, err := o.line("/a b"); err != nil || line != "x --to=/a b '%d' 100%; y /a b" {
		t.Errorf("%q, %v", line, err)
	}
}

// archived makes a server that archives its WAL and takes a base backup between two of its rows; returns where both are.
// The restore point named here is after row 2, and row 3 after that.
func archived(t *testing.T) (backup, archive string) {
	t.Helper()
	m := newMember(t, "source")
	dir := filepath.Dir(m.o.DataDir)
	backup, archive = filepath.Join(dir, "backup"), filepath.Join(dir, "archive")
	postgrestest.MustRun(t, "/bin/mkdir", archive)
	m.config.Parameters["archive_mode"], m.config.Parameters["archive_command"] = "on", "cp %p "+archive+"/%f"
	postgrestest.NewDataDir(t, m.o.DataDir)
	m.configure(Settings{Role: schema.RolePrimary})
	m.start()
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.server.Exec("CREATE TABLE rows (n int); INSERT INTO rows VALUES (1)")
	postgrestest.MustRun(t, "pg_basebackup", "-D", backup, "-c", "fast", "-X", "none", "--no-sync",
		"-d", fmt.Sprintf("host=%s port=%d user=%s password=%s", m.o.SocketDir, m.o.Port, ReplicationRole, quoteConninfo(m.keys.present().Replication)))
	m.server.Exec("INSERT INTO rows VALUES (2)")
	m.server.Exec("SELECT pg_create_restore_point('here')")
	m.server.Exec("INSERT INTO rows VALUES (3)")
	m.server.Stop(postgrestest.Fast)
	return backup, archive
}

func TestRestoreToATarget(t *testing.T) {
	t.Parallel()
	backup, archive := archived(t)
	for _, c := range []struct{ name, target, rows string }{
		{"the named point", "name=here", "1,2"}, {"the end", "latest", "1,2,3"}, {"the end of the backup", "immediate", "1"},
	} {
		m := newMember(t, "pg1")
		// What pgbackrest leaves: a target of its own, which must not last, and signals.
		m.o.Restore = RestoreOptions{Target: c.target, Fetch: "cp " + archive + "/%f %p",
			Command: "cp -a " + backup + "/. %d && echo \"recovery_target_xid = '1'\" >>%d/postgresql.auto.conf && touch %d/standby.signal && echo 1 >%d/postmaster.pid"}
		if err := m.Restore(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		d := m.inspect()
		if d.State != DirValid || !d.Control.CleanShutdown() || d.StandbySignal || d.Unfinished || d.Timeline < 2 {
			t.Errorf("%s: %+v", c.name, d)
		}
		if left := m.beside(); len(left) > 0 {
			t.Errorf("%s: left %v", c.name, left)
		}
		if err := m.Adopt(t.Context(), m.config); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if text, err := os.ReadFile(filepath.Join(m.o.DataDir, autoConfName)); err != nil || strings.Contains(string(text), "recovery_target") {
			t.Errorf("%s: %v: %s", c.name, err, text)
		}
		m.start()
		if got := m.server.Query("SELECT string_agg(n::text, ',' ORDER BY n) FROM rows"); got != c.rows {
			t.Errorf("%s: rows %s, want %s", c.name, got, c.rows)
		}
		m.server.Stop(postgrestest.Fast)
	}
}

// A restore that fails says why and leaves nothing, and neither does one that is given up.
func TestRestoreFails(t *testing.T) {
	t.Parallel()
	backup, archive := archived(t)
	for _, c := range []struct {
		name, command, fetch, target, want string
	}{
		{"the command fails", "touch %d/half; echo no such stanza >&2; exit 7", "", "", "exit code 7: no such stanza"},
		{"it does nothing", "echo all is well %d", "", "", "left no data directory"},
		{"the target is not there", "cp -a " + backup + "/. %d", "cp " + archive + "/%f %p", "name=nowhere", "recovery ended before configured recovery target was reached"},
		{"the WAL is not there", "cp -a " + backup + "/. %d", "", "", "could not locate required checkpoint record"},
		{"WAL elsewhere", "cp -a " + backup + "/. %d && mv %d/pg_wal %d/wal && ln -s %d/wal %d/pg_wal", "", "", "is a symbolic link"},
		{"no configuration", "cp -a " + backup + "/. %d && rm %d/postgresql.conf", "", "", "has no postgresql.conf"},
	} {
		m := newMember(t, "pg1")
		m.o.Restore = RestoreOptions{Command: c.command, Fetch: c.fetch, Target: c.target}
		err := m.Restore(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if d, left := m.inspect(), m.beside(); d.State != DirAbsent || d.Unfinished || len(left) > 0 {
			t.Errorf("%s: %s, left %v", c.name, d.State, left)
		}
	}
	m := newMember(t, "pg1")
	m.o.Restore = RestoreOptions{Command: "touch %d/begun; sleep 600"}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Restore(ctx) }()
	m.until("the command", func() bool {
		there, err := exists(m.o.DataDir + ".restore/begun")
		return err == nil && there
	})
	if d := m.inspect(); d.State != DirIncomplete {
		t.Errorf("meanwhile: %s", d.State)
	}
	cancel()
	if err := <-ended; err == nil || len(m.beside()) > 0 {
		t.Errorf("given up: %v, left %v", err, m.beside())
	}
	fill(t, m.o.DataDir, "15")
	if err := m.Restore(t.Context()); err == nil || contents(m.o.DataDir) != "15" {
		t.Errorf("over data: %v", err)
	}
}
