package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"

	"howdah/sidecar/postgres/postgrestest"
)

// removeThenClone does what Clone does with RemoveFirst, on the file system alone.
func removeThenClone(t *testing.T, s dirSwap) error {
	if err := s.finish(); err != nil {
		return err
	}
	m, err := s.begin(workClone)
	if err != nil {
		return err
	}
	if !m.Gone {
		if err := s.setAside(&m); err != nil {
			return err
		}
		if err := s.clear(); err != nil {
			return err
		}
	}
	for _, name := range []string{"fill half", "fill"} {
		if err := s.do(name, func() error { fill(t, s.newPath(workClone), "16\n"); return nil }); err != nil {
			return err
		}
	}
	return s.place(m)
}

// crashInside is crashAt, and leaves half of the old directory where it crashes in the middle of its removal.
func crashInside(s dirSwap, n int, names *[]string) func(string) error {
	step := crashAt(n, names)
	return func(name string) error {
		err := step(name)
		if err != nil && name == "remove the old one" {
			if err := removeFile(filepath.Join(s.oldPath(), "PG_VERSION")); err != nil {
				return err
			}
		}
		return err
	}
}

// TestRemoveFirstCrash crashes at each step of a clone whose old directory goes first, then at each step of each recovery. Before
// the marker says that it is gone the old directory comes back whole; from then on there is no database until the
// clone is in place, whatever happens, and nothing but a clone is begun.
func TestRemoveFirstCrash(t *testing.T) {
	for first := 0; ; first++ {
		done := false
		for second := 0; ; second++ {
			dir := filepath.Join(t.TempDir(), "pg")
			s := dirSwap{dir: dir, log: zap.NewNop()}
			p := &Postgres{o: Options{DataDir: dir}, log: zap.NewNop()}
			fill(t, dir, "15\n")
			fill(t, filepath.Join(dir, "base"), "15\n")
			var names []string
			s.step = crashInside(s, first, &names)
			err := removeThenClone(t, s)
			if done = err == nil; err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("after %v: %v", names, err)
			}
			checkGone(t, p, names, false)
			s.step = crashInside(s, second, &names)
			interrupted := errors.Is(s.finish(), errCrash)
			checkGone(t, p, names, false)
			s.step = crashAt(1000, &names)
			for range 2 {
				if err := s.finish(); err != nil {
					t.Fatalf("after %v: %v", names, err)
				}
				checkGone(t, p, names, true)
			}
			if slices.Contains(names, "mark gone") && contents(dir) == "" {
				for _, w := range []work{workInit, workRestore} {
					if _, err := s.begin(w); !errors.Is(err, ErrNotOurs) {
						t.Fatalf("after %v: %s may begin: %v", names, w, err)
					}
				}
			}
			if err := removeThenClone(t, s); err != nil || contents(dir) != "16\n" {
				t.Fatalf("after %v: the clone does not come about: %v", names, err)
			}
			if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
				t.Fatalf("after %v: left behind %v, %v", names, entries, err)
			}
			if !interrupted {
				break
			}
		}
		if done {
			return
		}
	}
}

// checkGone looks at a data directory after the steps of that name were done. Settled says that an unfinished run has been tidied up.
func checkGone(t *testing.T, p *Postgres, names []string, settled bool) {
	t.Helper()
	d, err := p.look(p.o.DataDir)
	if err != nil {
		t.Fatalf("after %v: %v", names, err)
	}
	gone, placed, away := slices.Contains(names, "mark gone"), slices.Contains(names, "move the new one in"), slices.Contains(names, "move the old one away")
	switch {
	case placed:
		if d.State != DirValid || d.Major != 16 || d.Removed {
			t.Fatalf("after %v: %+v, want the clone", names, d)
		}
	case gone:
		if d.State != DirIncomplete || !d.Removed {
			t.Fatalf("after %v: %+v, want it known that nothing is left", names, d)
		}
		old, err := exists(p.swapper().oldPath())
		if err != nil || settled && old {
			t.Fatalf("after %v: the old directory is left: %v", names, err)
		}
	case !away || settled:
		if d.State != DirValid || d.Major != 15 || d.Removed || contents(filepath.Join(p.o.DataDir, "base")) != "15\n" {
			t.Fatalf("after %v: %+v, want the old directory, whole", names, d)
		}
	default:
		if back := slices.Contains(names, "move the old one back"); !back && d.State != DirIncomplete || d.Removed {
			t.Fatalf("after %v: %+v", names, d)
		}
	}
}

func TestRemoveFirstTouchesNothingOfOthers(t *testing.T) {
	for name, whole := range map[string]bool{"the clone was under way": false, "the clone was whole": true} {
		dir := filepath.Join(t.TempDir(), "pg")
		s := dirSwap{dir: dir, log: zap.NewNop(), step: func(string) error { return nil }}
		p := &Postgres{o: Options{DataDir: dir}, log: zap.NewNop()}
		if err := s.writeMarker(marker{Work: workClone, Gone: true, Whole: whole, Nonce: "n"}); err != nil {
			t.Fatal(err)
		}
		fill(t, dir, "15\n") // an operator put a directory there
		if err := s.finish(); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := p.look(dir); !errors.Is(err, ErrNotOurs) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: looked at: %v", name, err)
		}
		if contents(dir) != "15\n" {
			t.Errorf("%s: it was touched", name)
		}
	}
}

func TestSourceSize(t *testing.T) {
	row := func(v ...string) *pgproto3.DataRow {
		r := &pgproto3.DataRow{}
		for _, s := range v {
			if s == "" {
				r.Values = append(r.Values, nil)
				continue
			}
			r.Values = append(r.Values, []byte(s))
		}
		return r
	}
	begins := []pgproto3.BackendMessage{&pgproto3.RowDescription{}, row("0/2000028", "1"), &pgproto3.CommandComplete{}, &pgproto3.RowDescription{}}
	for _, c := range []struct {
		name   string
		rows   []pgproto3.BackendMessage
		bytes  uint64
		spaces int
		err    string
	}{
		{"the data directory", []pgproto3.BackendMessage{row("", "", "23456"), &pgproto3.CommandComplete{}}, 23456 << 10, 0, ""},
		{"a big one", []pgproto3.BackendMessage{row("", "", "5000000000"), &pgproto3.CommandComplete{}}, 5000000000 << 10, 0, ""},
		{"a tablespace", []pgproto3.BackendMessage{row("16999", "/fast", "1000"), row("", "", "24"), &pgproto3.CommandComplete{}}, 1 << 20, 1, ""},
		{"no size", []pgproto3.BackendMessage{row("", "", ""), &pgproto3.CommandComplete{}}, 0, 0, "size of a tablespace"},
		{"no estimate", []pgproto3.BackendMessage{row("", "", "-1"), &pgproto3.CommandComplete{}}, 0, 0, "size of a tablespace"},
		{"no data directory", []pgproto3.BackendMessage{&pgproto3.CommandComplete{}}, 0, 0, "no size of the data directory"},
		{"other columns", []pgproto3.BackendMessage{row("", "")}, 0, 0, "2 columns"},
		{"refused", []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Message: "too many walsenders"}}, 0, 0, "too many walsenders"},
		{"files too early", []pgproto3.BackendMessage{&pgproto3.CopyOutResponse{}}, 0, 0, "unexpected"},
		{"the connection ends", nil, 0, 0, "no more"},
	} {
		messages := slices.Concat(begins, c.rows)
		var z sourceSize
		err := z.read(func() (pgproto3.BackendMessage, error) {
			if len(messages) == 0 {
				return nil, errors.New("no more")
			}
			m := messages[0]
			messages = messages[1:]
			return m, nil
		})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && (z.Bytes != c.bytes || z.Tablespaces != c.spaces) {
			t.Errorf("%s: %+v, %v", c.name, z, err)
		}
	}
}

func FuzzSegmentBytes(f *testing.F) {
	for text, want := range map[string]uint64{"16MB": 16 << 20, "1GB": 1 << 30, "1MB": 1 << 20} {
		f.Add(text)
		if got, err := parseSegmentBytes(text); err != nil || got != want {
			f.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "16", "MB", "0MB", "-1MB", "16kB", "70000GB"} {
		f.Add(text)
		if _, err := parseSegmentBytes(text); err == nil {
			f.Errorf("%q was taken", text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseSegmentBytes(text); (err == nil) != (n > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	})
}

// small makes a stopped standby on a file system with room for one copy and no second one.
func small(t *testing.T, primary *member) *member {
	t.Helper()
	two := newMember(t, "two")
	dir := postgrestest.TempDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=500m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	c := postgrestest.Credential(t)
	if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
		t.Fatal(err)
	}
	two.o.DataDir = filepath.Join(dir, "data")
	two.cloneOf(primary)
	two.server.Stop(postgrestest.Fast)
	// What it has collected beside what the primary has, so that a new copy has room for its WAL.
	if err := os.WriteFile(filepath.Join(two.o.DataDir, "of old"), make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	size, err := two.measure(t.Context(), two.cloneRequest(primary))
	if err != nil {
		t.Fatal(err)
	}
	used, err := treeBlocks(two.o.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if size.SegmentBytes != defaultWALSegmentBytes || size.Bytes < 10<<20 || used-64<<20 < size.Bytes || used-64<<20 > size.Bytes+5*size.SegmentBytes {
		t.Fatalf("the source says %d bytes, a copy has %d", size.Bytes, used)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", used+size.Bytes+size.SegmentBytes/2)); err != nil {
		t.Fatal(err)
	}
	return two
}

// untouched wants the old directory as it was.
func (m *member) untouched(what string) {
	m.t.Helper()
	if _, err := os.Stat(filepath.Join(m.o.DataDir, "of old")); err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	if d := m.inspect(); d.State != DirValid || d.Removed || d.Unfinished {
		m.t.Fatalf("%s: %+v", what, d)
	}
	if left := m.beside(); len(left) != 0 {
		m.t.Fatalf("%s: left behind %v", what, left)
	}
}

// TestCloneWithoutRoom clones where two copies have no room, which only root can arrange.
func TestCloneWithoutRoom(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root: TestRemoveFirstCrash has the steps on any disk")
		return
	}
	one := newPrimary(t, "one")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	two := small(t, one)
	good := two.cloneRequest(one)

	if err := two.Clone(t.Context(), good); !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "as it was; make room") {
		t.Fatalf("kept: %v", err)
	}
	two.untouched("kept")

	removed := 0
	allow := func(r CloneRequest, confirm error) CloneRequest {
		r.RemoveFirst = &RemoveFirst{Confirm: func(context.Context) error { return confirm }, Removed: func() { removed++ }}
		return r
	}
	refused := func(what string, r CloneRequest, confirm error, want error, words string) {
		t.Helper()
		if err := two.Clone(t.Context(), allow(r, confirm)); err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
			t.Fatalf("%s: %v", what, err)
		}
		two.untouched(what)
	}
	r := good
	r.From.Port = postgrestest.FreePort(t)
	refused("unreachable", r, nil, ErrUnreachable, "one at")
	r = good
	r.SystemID = "42"
	refused("another cluster", r, nil, ErrOtherCluster, "42")
	refused("the lock is not sure", good, errors.New("no longer renews its lease"), ErrDiskFull, "not sure: no longer renews")
	password := two.keys.present().Replication
	two.knows(func(s *Secrets) { s.Replication = "wrong" })
	refused("wrong password", good, nil, ErrPassword, ReplicationRole)
	two.knows(func(s *Secrets) { s.Replication = password })
	link := filepath.Join(two.o.DataDir, "pg_tblspc", "16999")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	refused("a tablespace", good, nil, ErrDiskFull, "1 tablespaces")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	two.tools = otherSystem(two.o.DataDir)
	refused("the directory is another cluster's", good, nil, ErrOtherCluster, "system identifier 43")
	two.tools = tools{}

	source, err := two.measure(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		source sourceSize
		need   uint64
		words  string
	}{
		"no room in its place either":  {source, 1 << 40, "would not fit in its place either"},
		"a tablespace of the source's": {sourceSize{Tablespaces: 2}, 1 << 20, "2 tablespaces"},
	} {
		if err := two.mayGo(t.Context(), two.swapper(), allow(good, nil), c.source, c.need, 0); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	two.start()
	refused("it runs", good, nil, nil, "stop it first")
	two.server.Stop(postgrestest.Fast)

	// It goes, and then the copy fails: the member has none, and nothing but a clone is begun.
	two.tools = tools{before: failTool("pg_basebackup", "pg_basebackup: error: the source went away")}
	if err := two.Clone(t.Context(), allow(good, nil)); err == nil || removed != 1 {
		t.Fatalf("%v, removed %d times", err, removed)
	}
	for range 2 { // at once, and after a restart
		if d := two.inspect(); d.State != DirIncomplete || !d.Removed {
			t.Fatalf("%+v", d)
		}
		if err := two.FinishSwap(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	two.tools = tools{}
	if err := two.Initdb(t.Context(), two.config); !errors.Is(err, ErrNotOurs) {
		t.Fatalf("initdb: %v", err)
	}
	if left := two.beside(); !slices.Equal(left, []string{"data.howdah"}) {
		t.Fatalf("left behind %v", left)
	}

	// Tried again, also by a sidecar that is to keep directories.
	two.cloneAgain(one, good)
	if removed != 1 {
		t.Fatalf("removed %d times", removed)
	}
}

// TestRemoveFirst is what an operator wants of the setting: the copy is made, although two have no room.
func TestRemoveFirst(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root: TestRemoveFirstCrash has the steps on any disk")
		return
	}
	one := newPrimary(t, "one")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	two := small(t, one)
	r, removed := two.cloneRequest(one), false
	r.RemoveFirst = &RemoveFirst{
		Confirm: func(context.Context) error { two.untouchedYet(); return nil },
		Removed: func() {
			removed = true
			if d := two.inspect(); d.State != DirIncomplete || !d.Removed {
				t.Errorf("it is removed, and %+v", d)
			}
		},
	}
	two.cloneAgain(one, r)
	if !removed {
		t.Fatal("it was not removed first")
	}
	if got := one.server.Query("SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'howdah clone%'"); got != "0" {
		t.Errorf("%s base backups run on", got)
	}

	// With room nothing goes first.
	three := newMember(t, "three")
	three.cloneOf(one)
	three.server.Stop(postgrestest.Fast)
	if err := os.WriteFile(filepath.Join(three.o.DataDir, "of old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = three.cloneRequest(one)
	r.RemoveFirst = &RemoveFirst{Confirm: func(context.Context) error { return nil }, Removed: func() { t.Error("removed, and there was room") }}
	three.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		if c.Tool == "pg_basebackup" && !slices.Contains(c.Args, "--version") {
			three.untouchedYet()
		}
		return Result{}, false, nil
	}}
	three.cloneAgain(one, r)
}

// untouchedYet wants the old directory where it was, while a clone is being made.
func (m *member) untouchedYet() {
	m.t.Helper()
	if _, err := os.Stat(filepath.Join(m.o.DataDir, "of old")); err != nil {
		m.t.Error(err)
	}
}

// cloneAgain has a stopped member cloned, and wants it to stream.
func (m *member) cloneAgain(from *member, r CloneRequest) {
	m.t.Helper()
	if err := m.Clone(m.t.Context(), r); err != nil {
		m.t.Fatal(err)
	}
	if left := m.beside(); len(left) != 0 {
		m.t.Fatalf("left behind %v", left)
	}
	if there, err := exists(filepath.Join(m.o.DataDir, "of old")); err != nil || there {
		m.t.Fatalf("it is the old directory still: %v", err)
	}
	m.start()
	m.waitStreaming()
	from.server.Exec("INSERT INTO t VALUES (2)")
	m.waitReplayed(from.probe().LSN)
	if got, want := m.server.Query("SELECT count(*) FROM t"), from.server.Query("SELECT count(*) FROM t"); got != want || got == "0" {
		m.t.Fatalf("%s rows, want %s", got, want)
	}
}

// otherSystem lets pg_controldata find another system identifier in dir.
func otherSystem(dir string) tools {
	return tools{before: func(ctx context.Context, c Command) (Result, bool, error) {
		if c.Tool != "pg_controldata" || !slices.Contains(c.Args, dir) {
			return Result{}, false, nil
		}
		code, out, err := postgrestest.Tool{Name: c.Tool, Args: c.Args, Env: c.Env}.Run(ctx)
		lines := strings.Split(out, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "Database system identifier:") {
				lines[i] = "Database system identifier:           43"
			}
		}
		return Result{ExitCode: code, Output: strings.Join(lines, "\n")}, true, err
	}}
}
