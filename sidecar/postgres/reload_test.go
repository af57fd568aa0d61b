package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"howdah/consul/schema"
)

// A reload takes in what somebody wrote into PostgreSQL's files, and says which of it PostgreSQL does not heed.
func TestReloadFiles(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.settled(Settings{Role: schema.RolePrimary})
	reload := func() schema.ReloadReport {
		t.Helper()
		r, err := m.ReloadFiles(t.Context(), func(context.Context) error { m.reload(); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := reload(); r.Failed() || len(r.PendingRestart) > 0 {
		t.Errorf("nothing was changed: %+v", r)
	}
	file := filepath.Join(m.server.DataDir, "postgresql.conf")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(string(before), "\n")
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(file, append(slices.Clone(before), more...), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("deadlock_timeout = 7s\n")
	if r := reload(); r.Failed() || m.server.Query("SHOW deadlock_timeout") != "7s" {
		t.Errorf("a good line: %+v, deadlock_timeout %s", r, m.server.Query("SHOW deadlock_timeout"))
	}
	write("max_files_per_process = 1234\n")
	if r := reload(); r.Failed() || !slices.Equal(r.PendingRestart, []string{"max_files_per_process"}) {
		t.Errorf("one for the next start: %+v", r)
	}
	// A name that it does not know keeps PostgreSQL from looking at any value.
	for wrong, want := range map[string]string{
		"deadlock_timeout = never": "deadlock_timeout setting could not be applied: ", "no_such_setting = 1": "no_such_setting unrecognized",
	} {
		write("deadlock_timeout = 8s\n" + wrong + "\n")
		want = fmt.Sprintf("{%s %d %s", file, lines+2, want)
		if said := fmt.Sprint(reload().Mistakes); !strings.Contains(said, want) {
			t.Errorf("want %q in %s", want, said)
		}
	}
	write("")

	for setting, line := range map[string]string{"hba_file": "host all all 127.0.0.1/32 scram-sha-255\n", "ident_file": "one two\n"} {
		file := m.server.Query("SHOW " + setting)
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r := reload()
		if !slices.ContainsFunc(r.Mistakes, func(m schema.FileMistake) bool { return m.File == file && m.Line > 0 && m.Error != "" }) {
			t.Errorf("%s: %+v", file, r)
		}
	}
	if _, err := m.ReloadFiles(t.Context(), func(context.Context) error { return os.ErrClosed }); err == nil {
		t.Error("a server that cannot be told was reloaded")
	}
}

// A postmaster that is stopped takes connections in the kernel and answers nobody, while a session that is open already still
// answers: nothing was reloaded, the caller's bound holds, and the session for other duties is free.
func TestReloadFilesOfAStoppedPostmaster(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.settled(Settings{Role: schema.RolePrimary})
	m.server.Signal(syscall.SIGSTOP)
	defer m.server.Signal(syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if r, err := m.ReloadFiles(ctx, func(context.Context) error { m.reload(); return nil }); err == nil || ctx.Err() == nil {
		t.Errorf("%+v, %v", r, err)
	}
	select {
	case token := <-m.duties.turn:
		m.duties.turn <- token
	default:
		t.Error("the session for other duties is taken")
	}
}

// What PostgreSQL takes nothing of is not called reloaded.
func TestReloadFilesThatAreNotTaken(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.settled(Settings{Role: schema.RolePrimary})
	file := filepath.Join(m.server.DataDir, "postgresql.conf")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line, taken := range map[string]bool{"deadlock_timeout = never": true, "no_such_setting = 1": false, "what is this": false} {
		if err := os.WriteFile(file, slices.Concat([]byte("vacuum_cost_limit = 777\n"+line+"\n"), before), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := m.ReloadFiles(t.Context(), func(context.Context) error { m.reload(); return nil })
		if err != nil || (r.Postgres == "") != taken || len(r.Mistakes) != 1 || r.Mistakes[0].File != file || r.Mistakes[0].Line != 2 {
			t.Errorf("%s: %+v, %v", line, r, err)
		}
	}
}
