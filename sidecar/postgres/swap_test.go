package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

var errCrash = errors.New("crash")

// crashAt returns a step function that fails from the n-th step on, and remembers the names of the steps.
func crashAt(n int, names *[]string) func(string) error {
	i := 0
	return func(name string) error {
		if i++; i > n {
			return errCrash
		}
		*names = append(*names, name)
		return nil
	}
}

func fill(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func contents(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return ""
	}
	return string(b)
}

// replace does what Clone or Initdb does, on the file system alone.
func replace(t *testing.T, s dirSwap, w work) error {
	m, err := s.begin(w)
	if err != nil {
		return err
	}
	if err := s.do("fill half", func() error { return os.MkdirAll(s.newPath(w), 0o700) }); err != nil {
		return err
	}
	if err := s.do("fill", func() error { fill(t, s.newPath(w), "new"); return nil }); err != nil {
		return err
	}
	return s.place(m)
}

// TestSwapCrash crashes at each step of a swap, then at each step of each recovery, and wants either
// the old or the new contents, whole, and nothing left beside them.
func TestSwapCrash(t *testing.T) {
	for _, c := range []struct {
		name   string
		work   work
		before string // contents of the data directory; "-" for an empty one, "" for none
	}{
		{"clone over data", workClone, "old"}, {"clone to nothing", workClone, ""}, {"clone to an empty directory", workClone, "-"},
		{"restore to nothing", workRestore, ""}, {"restore to an empty directory", workRestore, "-"},
		{"initdb to nothing", workInit, ""}, {"initdb to an empty directory", workInit, "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for first := 0; ; first++ {
				done := false
				for second := 0; ; second++ {
					s := dirSwap{dir: filepath.Join(t.TempDir(), "pg"), log: zap.NewNop()}
					switch c.before {
					case "-":
						if err := os.Mkdir(s.dir, 0o700); err != nil {
							t.Fatal(err)
						}
					case "":
					default:
						fill(t, s.dir, c.before)
					}
					var names []string
					s.step = crashAt(first, &names)
					err := replace(t, s, c.work)
					if done = err == nil; err != nil && !errors.Is(err, errCrash) {
						t.Fatalf("after %v: %v", names, err)
					}
					s.step = crashAt(second, &names)
					interrupted := errors.Is(s.finish(), errCrash)
					s.step = crashAt(1000, &names)
					if err := s.finish(); err != nil {
						t.Fatalf("after %v: %v", names, err)
					}
					checkSwapped(t, s, c.before, names, done)
					if !interrupted {
						break
					}
				}
				if done {
					break
				}
			}
		})
	}
}

func checkSwapped(t *testing.T, s dirSwap, before string, names []string, done bool) {
	t.Helper()
	old := before
	if old == "-" {
		old = ""
	}
	got := contents(s.dir)
	if got != "new" && (done || got != old) {
		t.Fatalf("after %v: holds %q", names, got)
	}
	if slices.Contains(names, "move the new one in") != (got == "new") {
		t.Fatalf("after %v: holds %q", names, got)
	}
	// Once the old contents are away there is only one way: forward.
	if slices.Contains(names, "move the old one away") && !slices.Contains(names, "move the old one back") && got != "new" {
		t.Fatalf("after %v: holds %q", names, got)
	}
	entries, err := os.ReadDir(filepath.Dir(s.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(s.dir) {
			t.Fatalf("after %v: %s is left", names, e.Name())
		}
	}
}

func TestSwapTouchesNothingOfOthers(t *testing.T) {
	setup := func() dirSwap {
		s := dirSwap{dir: filepath.Join(t.TempDir(), "pg"), log: zap.NewNop(), step: func(string) error { return nil }}
		fill(t, s.dir, "old")
		return s
	}
	for _, ext := range []string{".clone", ".init", ".old"} {
		s := setup()
		fill(t, s.dir+ext, "somebody's")
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
		w := workClone
		if ext == ".init" {
			w = workInit
		}
		if _, err := s.begin(w); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s in the way: %v", ext, err)
		}
		if contents(s.dir+ext) != "somebody's" || contents(s.dir) != "old" {
			t.Errorf("%s was touched", ext)
		}
	}

	// A marker that cannot be read says nothing about who owns what.
	s := setup()
	fill(t, s.dir+".clone", "somebody's")
	if err := os.WriteFile(s.markerPath(), []byte(`{"work": "clo`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(); !errors.Is(err, ErrNotOurs) || contents(s.dir+".clone") == "" {
		t.Errorf("unreadable marker: %v", err)
	}

	// Someone put a directory back by hand between the renames: two candidates, neither is removed.
	s = setup()
	fill(t, s.oldPath(), "older")
	fill(t, s.newPath(workClone), "new")
	if err := s.writeMarker(marker{Work: workClone, Whole: true, Nonce: "n"}); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(); !errors.Is(err, ErrNotOurs) || contents(s.oldPath()) != "older" || contents(s.dir) != "old" {
		t.Errorf("two candidates: %v", err)
	}

	// The clone vanished after the old directory had moved away: it comes back.
	s = setup()
	if err := os.Rename(s.dir, s.oldPath()); err != nil {
		t.Fatal(err)
	}
	if err := s.writeMarker(marker{Work: workClone, Whole: true, Nonce: "n"}); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(); err != nil || contents(s.dir) != "old" {
		t.Errorf("the old directory is not back: %v", err)
	}

	// Initdb and Restore never replace anything.
	for _, w := range []work{workInit, workRestore} {
		s = setup()
		m, err := s.begin(w)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s.newPath(w), "new")
		if err := s.place(m); !errors.Is(err, ErrNotOurs) || contents(s.dir) != "old" {
			t.Errorf("%s over data: %v", w, err)
		}
	}

	// A symbolic link would be replaced, and what it points to left behind.
	s = setup()
	link := dirSwap{dir: s.dir + "-link", log: s.log, step: s.step}
	if err := os.Symlink(s.dir, link.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := link.begin(workClone); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("symbolic link: %v", err)
	}
}
