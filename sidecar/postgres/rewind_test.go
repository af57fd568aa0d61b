package postgres

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

// parted makes two members whose histories part: two is the primary on timeline 2, and one, which is stopped, went on
// alone on timeline 1 and ended as end does it.
func parted(t *testing.T, end func(*postgrestest.Server)) (one, two *member) {
	t.Helper()
	one, two = newPrimary(t, "one"), newMember(t, "two")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE TABLE big AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n")
	two.cloneOf(one)
	two.waitReplayed(one.probe().LSN)
	two.server.Stop(postgrestest.Fast)
	one.server.Exec("INSERT INTO t VALUES (666); CREATE TABLE lost AS SELECT generate_series(1, 1000)")
	end(one.server)
	two.configure(Settings{Role: schema.RoleStandby})
	two.start()
	promoteAndCheck(t, two, 2)
	two.server.Exec("INSERT INTO t VALUES (2)")
	return one, two
}

func crashed(s *postgrestest.Server) { s.Kill() }
func stopped(s *postgrestest.Server) { s.Stop(postgrestest.Fast) }

func (m *member) rewindRequest(to *member) RewindRequest {
	m.t.Helper()
	r := m.cloneRequest(to)
	return RewindRequest{From: r.From, SystemID: r.SystemID, Settings: r.Settings}
}

// checkRejoined starts a member that was rewound or cloned and wants the primary's contents and no others.
func checkRejoined(t *testing.T, m, primary *member) {
	t.Helper()
	m.start()
	m.waitStreaming()
	primary.server.Exec("INSERT INTO t VALUES (3)")
	m.waitReplayed(primary.probe().LSN)
	if got := m.server.Query("SELECT string_agg(n::text, ',' ORDER BY n) || ' ' || coalesce(to_regclass('lost')::text, '') FROM t"); got != "1,2,3 " {
		t.Errorf("rows %q", got)
	}
	if got := m.server.Query("SELECT count(*) FROM big"); got != "20000" {
		t.Errorf("%s rows in the big table", got)
	}
	if got := m.server.Query("SHOW cluster_name"); got != m.o.Name {
		t.Errorf("the configuration is that of %s", got)
	}
	if left := m.beside(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRewind rejoins members whose histories have parted, and clones nothing.
func TestRewind(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*postgrestest.Server){"crashed": crashed, "stopped cleanly": stopped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := parted(t, end)
			if err := two.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ok, why := CanRewind(one.inspect()); !ok {
				t.Fatal(why)
			}
			kept := inodes(t, one.o.DataDir)
			var given Command
			one.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
				if c.Tool == "pg_rewind" && len(c.Args) > 1 {
					given = c
				}
				return Result{}, c.Tool == "pg_basebackup", nil
			}}
			if err := one.Rewind(t.Context(), one.rewindRequest(two)); err != nil {
				t.Fatal(err)
			}
			if given.Env["PGPASSWORD"] != one.keys.present().Rewind || strings.Contains(strings.Join(given.Args, " "), one.keys.present().Rewind) {
				t.Error("the password goes by the environment, and by nothing else")
			}
			d := one.inspect()
			if !d.StandbySignal || !d.BackupLabel || d.State != DirValid {
				t.Errorf("%+v", d)
			}
			if ok, _ := CanRewind(d); ok {
				t.Error("may be rewound again before it was ever consistent")
			}
			// Far less than a clone: the files that did not change are the same files.
			same := 0
			for path, inode := range inodes(t, one.o.DataDir) {
				if kept[path] == inode {
					same++
				}
			}
			if same < len(kept)*3/4 {
				t.Errorf("only %d of %d relation files were kept", same, len(kept))
			}
			checkRejoined(t, one, two)
			if d := one.inspect(); d.Control.BackupStartLSN != 0 {
				t.Errorf("consistent, and its control file says that its backup began at %s", d.Control.BackupStartLSN)
			}
		})
	}
}

// inodes are the relation files of a data directory.
func inodes(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "base", "*", "[0-9]*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	m := map[string]uint64{}
	for _, f := range files {
		if m[f], err = inodeOf(f); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestRewindStandby rewinds a standby that has replayed what the next primary never had.
func TestRewindStandby(t *testing.T) {
	t.Parallel()
	one, two, three := newPrimary(t, "one"), newMember(t, "two"), newMember(t, "three")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE TABLE big AS SELECT generate_series(1, 20000)")
	two.cloneOf(one)
	three.cloneOf(one)
	two.waitReplayed(one.probe().LSN)
	two.server.Stop(postgrestest.Fast)
	one.server.Exec("INSERT INTO t VALUES (666); CREATE TABLE lost AS SELECT generate_series(1, 1000)")
	three.waitReplayed(one.probe().LSN)
	one.server.Kill()
	two.configure(Settings{Role: schema.RoleStandby})
	two.start()
	promoteAndCheck(t, two, 2)
	two.server.Exec("INSERT INTO t VALUES (2)")
	if err := two.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	three.server.Stop(postgrestest.Fast)
	if err := three.Rewind(t.Context(), three.rewindRequest(two)); err != nil {
		t.Fatal(err)
	}
	checkRejoined(t, three, two)
}

// TestRewindWaitsForTheCheckpoint: a source that was promoted a moment ago still has the old timeline in its control
// file, and pg_rewind before 16 would find that there is nothing to do.
func TestRewindWaitsForTheCheckpoint(t *testing.T) {
	t.Parallel()
	one, two := parted(t, stopped)
	// The checkpoint that PostgreSQL itself begins after a promotion is spread over time; this one is not.
	go func() { _ = two.Checkpoint(t.Context()) }()
	if err := one.Rewind(t.Context(), one.rewindRequest(two)); err != nil {
		t.Fatal(err)
	}
	checkRejoined(t, one, two)
}

// TestRewindRefuses: after each refusal the directory is what it was, and a clone is what remains.
func TestRewindRefuses(t *testing.T) {
	t.Parallel()
	one, two := parted(t, stopped)
	if err := two.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := one.rewindRequest(two)
	before := one.inspect()
	try := func(name string, r RewindRequest, want error, words string) {
		t.Helper()
		err := one.Rewind(t.Context(), r)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v; want %v and %q", name, err, want, words)
		}
		if d := one.inspect(); d != before {
			t.Errorf("%s: %+v, was %+v", name, d, before)
		}
		if left := one.beside(); len(left) != 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	r := good
	r.From.Port = postgrestest.FreePort(t)
	try("unreachable", r, ErrUnreachable, "two at")
	r = good
	r.SystemID = "42"
	try("another cluster", r, ErrCannotRewind, "42")
	password := one.keys.present().Rewind
	one.knows(func(s *Secrets) { s.Rewind = "wrong" })
	try("wrong password", good, ErrPassword, RewindRole)
	one.knows(func(s *Secrets) { s.Rewind = password })
	one.tools = tools{before: failTool("pg_rewind", "pg_rewind: error: could not open file")}
	try("a tool that fails at once", good, ErrCannotRewind, "could not open file")
	one.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		return Result{Output: "pg_rewind: no rewind required\n"}, c.Tool == "pg_rewind", nil
	}}
	try("nothing to do, it says", good, ErrCannotRewind, notNeeded)
	one.tools = tools{}

	// The WAL of the loser since the last common checkpoint is gone.
	segments, err := filepath.Glob(filepath.Join(one.o.DataDir, "pg_wal", "00000001*"))
	if err != nil || len(segments) < 2 {
		t.Fatal(segments, err)
	}
	slices.Sort(segments)
	for _, s := range segments[:len(segments)-1] {
		if s == filepath.Join(one.o.DataDir, "pg_wal", segmentOf(before.Control.CheckpointLSN)) {
			break
		}
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	try("missing WAL", good, ErrCannotRewind, "could not")
	one.cloneOf(two)
	one.server.Stop(postgrestest.Fast)
	checkRejoined(t, one, two)
}

// segmentOf is the name of the segment of timeline 1 that holds an LSN.
func segmentOf(l schema.LSN) string {
	const digits = "0123456789ABCDEF"
	name := []byte("000000010000000000000000")
	for i, n := 23, uint64(l)>>24; i >= 16; i, n = i-1, n>>4 {
		name[i] = digits[n&15]
	}
	return string(name)
}

// TestRewindCutShort ends a rewind at each point at which it can be ended, and wants a directory that nothing but a
// clone makes usable.
func TestRewindCutShort(t *testing.T) {
	t.Parallel()
	one, two := parted(t, crashed)
	if err := two.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(postgrestest.TempDir(t), "saved")
	copyDir(t, one.o.DataDir, saved)
	run := func(c Command) Result {
		t.Helper()
		code, out, err := postgrestest.Tool{Name: c.Tool, Args: append(slices.Clone(c.Args), "--no-sync"), Env: c.Env}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return Result{ExitCode: code, Output: out}
	}
	points := map[string]func(Command) (Result, bool, error){
		"before it wrote anything, no word from it": func(Command) (Result, bool, error) { return Result{}, true, context.DeadlineExceeded },
		"killed by a signal":                        func(Command) (Result, bool, error) { return Result{ExitCode: 137}, true, nil },
		"half-way, with an error": func(c Command) (Result, bool, error) {
			r := run(c)
			return Result{ExitCode: 1, Output: r.Output}, true, nil
		},
		"half-way, no word from it": func(c Command) (Result, bool, error) { run(c); return Result{}, true, context.Canceled },
		"done, and no control file to be read": func(c Command) (Result, bool, error) {
			r := run(c)
			if err := os.Rename(filepath.Join(one.o.DataDir, "global/pg_control"), filepath.Join(one.o.DataDir, "global/pg_control.away")); err != nil {
				t.Fatal(err)
			}
			return r, true, nil
		},
	}
	left := len(points)
	for name, at := range points {
		one.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
			if c.Tool != "pg_rewind" || len(c.Args) == 1 {
				return Result{}, false, nil
			}
			return at(c)
		}}
		err := one.Rewind(t.Context(), one.rewindRequest(two))
		if err == nil || errors.Is(err, ErrCannotRewind) || !strings.Contains(err.Error(), "must be cloned") {
			t.Errorf("%s: %v", name, err)
		}
		// A sidecar that starts anew sees it too, and tidying up does not make it whole.
		if err := one.FinishSwap(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := one.inspect(); d.State != DirIncomplete {
			t.Errorf("%s: the directory is %s", name, d.State)
		}
		one.tools = tools{}
		if err := one.Rewind(t.Context(), one.rewindRequest(two)); !errors.Is(err, ErrCannotRewind) {
			t.Errorf("%s: once more: %v", name, err)
		}
		if left--; left == 0 {
			break
		}
		if err := errors.Join(os.RemoveAll(one.o.DataDir), os.Remove(one.o.DataDir+".rewind")); err != nil {
			t.Fatal(err)
		}
		copyDir(t, saved, one.o.DataDir)
	}
	if err := one.Clone(t.Context(), one.cloneRequest(two)); err != nil {
		t.Fatal(err)
	}
	checkRejoined(t, one, two)
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
}

// TestRewindMarker: what is there beside a marker decides.
func TestRewindMarker(t *testing.T) {
	t.Parallel()
	m := newMember(t, "one")
	s := m.swapper()
	fill(t, s.dir, "15\n")
	if err := s.markRewind(); err != nil {
		t.Fatal(err)
	}
	if d := m.inspect(); d.State != DirIncomplete {
		t.Errorf("marked: %s", d.State)
	}
	if err := s.markRewind(); err == nil {
		t.Error("marked twice")
	}
	// A clone that is cut short at any step leaves the mark or the clone.
	for n := 0; ; n++ {
		var names []string
		s := dirSwap{dir: s.dir, log: zap.NewNop(), step: crashAt(n, &names)}
		err := replace(t, s, workClone)
		s.step = crashAt(1000, &names)
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
		half, herr := s.halfRewound()
		if herr != nil || half == (contents(s.dir) == "new") {
			t.Fatalf("after %v: holds %q, half-rewound: %v, %v", names, contents(s.dir), half, herr)
		}
		if err == nil {
			break
		}
		if !half { // the clone is in place: begin anew
			if err := os.RemoveAll(s.dir); err != nil {
				t.Fatal(err)
			}
			fill(t, s.dir, "15\n")
			if err := s.markRewind(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Another directory in its place: whole or not, a person must say.
	if err := s.markRewind(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.dir, s.dir+".mine"); err != nil {
		t.Fatal(err)
	}
	if d := m.inspect(); d.State != DirAbsent {
		t.Errorf("moved away: %s", d.State)
	}
	fill(t, s.dir, "15\n")
	if _, err := m.Inspect(t.Context()); err == nil || !strings.Contains(err.Error(), "another directory") {
		t.Errorf("put there by hand: %v", err)
	}
}

func TestCanRewind(t *testing.T) {
	t.Parallel()
	good := DataDir{State: DirValid, Control: ControlData{State: ControlShutDown, DataChecksums: 1}}
	for _, c := range []struct {
		name   string
		change func(*DataDir)
		why    string
	}{
		{"a clean primary", func(*DataDir) {}, ""},
		{"a crashed primary", func(d *DataDir) { d.Control.State = ControlInProduction }, ""},
		{"one that crashed while it stopped", func(d *DataDir) { d.Control.State = ControlShuttingDown }, ""},
		{"a clean standby", func(d *DataDir) { d.Control.State, d.StandbySignal = ControlShutDownInRecovery, true }, ""},
		{"hints instead of checksums", func(d *DataDir) { d.Control.DataChecksums, d.Control.WALLogHints = 0, true }, ""},
		{"neither", func(d *DataDir) { d.Control.DataChecksums = 0 }, "wal_log_hints"},
		{"a crashed standby", func(d *DataDir) { d.Control.State = ControlInArchiveRecovery }, "not shut down cleanly"},
		{"a crashed primary made a standby", func(d *DataDir) { d.Control.State, d.StandbySignal = ControlInProduction, true }, "not shut down cleanly"},
		{"a clone before its first start", func(d *DataDir) { d.BackupLabel = true }, "never consistent"},
		{"a clone that did not come up", func(d *DataDir) { d.Control.BackupEndRequired = true }, "never consistent"},
		{"rewound, and not consistent since", func(d *DataDir) { d.Control.BackupStartLSN = 5 }, "never consistent"},
		{"half-written", func(d *DataDir) { d.State = DirIncomplete }, "incomplete"},
	} {
		d := good
		c.change(&d)
		if ok, why := CanRewind(d); ok != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, %q", c.name, ok, why)
		}
	}
}

// TestRewindWithoutChecksums: neither checksums nor hints, so no rewind.
func TestRewindWithoutChecksums(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newPrimary(t, "two")
	one.server.Stop(postgrestest.Fast)
	code, out, err := postgrestest.Tool{Name: "pg_checksums", Args: []string{"--disable", "--no-sync", "-D", one.o.DataDir}}.Run(t.Context())
	if err != nil || code != 0 {
		t.Fatalf("%s, %v", out, err)
	}
	one.config.Parameters["wal_log_hints"] = "off"
	one.configure(Settings{Role: schema.RolePrimary})
	one.start()
	one.server.Stop(postgrestest.Fast)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := one.Rewind(ctx, one.rewindRequest(two)); !errors.Is(err, ErrCannotRewind) || !strings.Contains(err.Error(), "wal_log_hints") {
		t.Fatal(err)
	}
}
