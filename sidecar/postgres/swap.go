package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// How a directory takes the data directory's place. D is the data directory, new is D.init,
// D.clone or D.restore; m is the marker D.howdah; n is the file howdah.swap in a directory, holding the marker's nonce.
//
//	1  m{whole: false}             new is ours and worthless
//	2  new is filled; n into new, synced
//	3  m{whole: true}              new is whole
//	4  rename D to D.old           only if D holds something (a clone)
//	5  rename new to D
//	6  remove D.old                only now: the new contents are whole and in place; then D.rewind (rewindmark.go)
//	7  remove m
//
// FinishSwap after a crash, by what it finds:
//
//	no m                           nothing is ours: nothing to do
//	D has n                        5 has happened: go on with 6
//	m not whole, or an initdb      remove new and m; D was never touched
//	whole, D is there without n    4 has not happened: undo as well. D may have changed since, so the
//	                               decision to replace it must be taken anew
//	whole, D gone, new has n       go on with 5
//	whole, D gone, new gone        rename D.old back
//
// A clone whose old directory goes first (room.go) has three steps more between 1 and 2, and no 4:
//
//	1a rename D to D.old
//	1b m{gone: true}               from here on D.old is no database
//	1c remove D.old
//
//	not gone, D gone, D.old there  1b has not happened: D.old is whole, rename it back; m not whole as above
//	gone, D holds something        somebody put it there without n: an error, nothing is touched
//	gone, whole, new has n         go on with 5
//	gone, else                     remove D.old and new. m stays until a clone is in place: D is DirIncomplete,
//	                               and only Clone begins anything
//
// Before 1 neither new nor D.old may exist, so whatever bears these names under a marker is ours.
type marker struct {
	Work  work   `json:"work"`
	Whole bool   `json:"whole"`
	Nonce string `json:"nonce"`
	// Gone says that this member has no database: the old directory goes, or went, before the copy is there.
	Gone bool `json:"gone,omitempty"`
}

type work string

const (
	workInit    work = "init"
	workClone   work = "clone"
	workRestore work = "restore"
)

const nonceFile = "howdah.swap"

// dirSwap knows the names beside a data directory. step is called before each change; a test
// makes it fail there, as a crash would.
type dirSwap struct {
	dir  string
	log  *zap.Logger
	step func(name string) error
}

func (p *Postgres) swapper() dirSwap {
	return dirSwap{dir: p.o.DataDir, log: p.log, step: func(string) error { return nil }}
}

func (s dirSwap) markerPath() string    { return s.dir + ".howdah" }
func (s dirSwap) oldPath() string       { return s.dir + ".old" }
func (s dirSwap) newPath(w work) string { return s.dir + "." + string(w) }
func (s dirSwap) pwfile() string        { return s.dir + ".pwfile" }
func (s dirSwap) do(name string, f func() error) error {
	if err := s.step(name); err != nil {
		return err
	}
	return f()
}

func (s dirSwap) readMarker() (m marker, found bool, err error) {
	b, err := os.ReadFile(s.markerPath())
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(b, &m); err != nil || (m.Work != workInit && m.Work != workClone && m.Work != workRestore) || m.Nonce == "" {
		return m, false, fmt.Errorf("%s cannot be understood (%v): %w; look at %s.* and remove it", s.markerPath(), err, ErrNotOurs, s.dir)
	}
	return m, true, nil
}

func (s dirSwap) writeMarker(m marker) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = writeFile(s.markerPath(), append(b, '\n'), 0o600)
	return err
}

// begin is step 1. It refuses where something stands in the way. A clone goes on under the marker of one whose old
// directory is gone.
func (s dirSwap) begin(w work) (marker, error) {
	old, found, err := s.readMarker()
	if err != nil {
		return marker{}, err
	}
	if found && old.Gone && w == workClone {
		return old, s.check(s.newPath(w), s.oldPath())
	}
	if err := s.check(s.markerPath(), s.newPath(w), s.oldPath()); err != nil {
		return marker{}, err
	}
	m := marker{Work: w, Nonce: rand.Text()}
	return m, s.do("mark", func() error { return s.writeMarker(m) })
}

// check refuses names that are taken and data directories that cannot be renamed.
func (s dirSwap) check(names ...string) error {
	for _, path := range names {
		there, err := exists(path)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("%s is in the way: %w; move it elsewhere", path, ErrNotOurs)
		}
	}
	info, err := os.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(filepath.Dir(s.dir))
		return err
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory (or a symbolic link): %w; give the real path", s.dir, ErrNotOurs)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, s.dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	// Known since Linux 5.8. An older kernel says nothing, and rename(2) refuses in the end.
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return fmt.Errorf("%s is a mount point and cannot be replaced in one step; make the data directory a folder below it", s.dir)
	}
	return nil
}

// place is steps 2 to 7 for a directory that is filled and synced.
func (s dirSwap) place(m marker) error {
	fresh := s.newPath(m.Work)
	if err := s.do("nonce", func() error { _, err := writeFile(filepath.Join(fresh, nonceFile), []byte(m.Nonce), 0o600); return err }); err != nil {
		return err
	}
	m.Whole = true
	if err := s.do("mark whole", func() error { return s.writeMarker(m) }); err != nil {
		return err
	}
	full, err := holdsSomething(s.dir)
	if err != nil {
		return err
	}
	if full {
		if m.Work != workClone || m.Gone {
			return fmt.Errorf("%s is not empty: %w", s.dir, ErrNotOurs)
		}
		if err := s.do("move the old one away", func() error { return s.rename(s.dir, s.oldPath()) }); err != nil {
			return err
		}
	}
	if err := s.do("move the new one in", func() error { return s.rename(fresh, s.dir) }); err != nil {
		return err
	}
	return s.tidy()
}

// setAside is steps 1a and 1b: after it there is no database any more.
func (s dirSwap) setAside(m *marker) error {
	if err := s.do("move the old one away", func() error { return s.rename(s.dir, s.oldPath()) }); err != nil {
		return err
	}
	gone := *m
	gone.Gone = true
	if err := s.do("mark gone", func() error { return s.writeMarker(gone) }); err != nil {
		return err
	}
	*m = gone
	return nil
}

// clear is step 1c. It follows no links, and may be done again.
func (s dirSwap) clear() error {
	if err := s.do("remove the old one", func() error { return os.RemoveAll(s.oldPath()) }); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.dir))
}

// tidy is steps 6 and 7.
func (s dirSwap) tidy() error {
	if err := s.do("remove the old one", func() error { return os.RemoveAll(s.oldPath()) }); err != nil {
		return fmt.Errorf("the new data directory is in place; remove what it replaced: %w", err)
	}
	// What a rewind had left half-written is no more.
	if err := s.unmarkRewind(); err != nil {
		return err
	}
	return s.unmark()
}

// undo removes the directory that was being made, and the marker.
func (s dirSwap) undo(m marker) error {
	if err := s.do("remove the new one", func() error { return os.RemoveAll(s.newPath(m.Work)) }); err != nil {
		return err
	}
	return s.unmark()
}

func (s dirSwap) unmark() error {
	if err := s.do("remove the password file", func() error { return removeFile(s.pwfile()) }); err != nil {
		return err
	}
	parent := filepath.Dir(s.dir)
	// What was removed must be gone for good before the marker that made it ours is.
	if err := syncDir(parent); err != nil {
		return err
	}
	if err := s.do("unmark", func() error { return removeFile(s.markerPath()) }); err != nil {
		return err
	}
	return syncDir(parent)
}

// rename moves a directory onto a name that is free or an empty directory: rename(2) refuses
// any other with ENOTEMPTY, which os.Rename would not get to.
func (s dirSwap) rename(from, to string) error {
	if err := syscall.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return syncDir(filepath.Dir(s.dir))
}

// finish is FinishSwap; see the table above marker.
func (s dirSwap) finish() error {
	m, found, err := s.readMarker()
	if err != nil || !found {
		return err
	}
	placed, err := s.hasNonce(s.dir, m)
	if err != nil {
		return err
	}
	if placed {
		s.log.Info("data directory is in place, tidying up", zap.String("work", string(m.Work)))
		return s.tidy()
	}
	full, err := holdsSomething(s.dir)
	if err != nil {
		return err
	}
	if m.Gone {
		return s.finishGone(m, full)
	}
	if m.Work == workInit || !m.Whole || full {
		if m.Work == workClone {
			if err := s.putBack(full); err != nil {
				return err
			}
		}
		s.log.Info("removing what an unfinished run left", zap.String("work", string(m.Work)), zap.String("path", s.newPath(m.Work)))
		return s.undo(m)
	}
	fresh, err := s.hasNonce(s.newPath(m.Work), m)
	if err != nil {
		return err
	}
	if fresh {
		s.log.Info("putting the finished directory in place", zap.String("work", string(m.Work)))
		if err := s.do("move the new one in", func() error { return s.rename(s.newPath(m.Work), s.dir) }); err != nil {
			return err
		}
		return s.tidy()
	}
	if err := s.putBack(false); err != nil {
		return err
	}
	return s.undo(m)
}

// putBack makes D.old, if it is there, the data directory again: it is whole. Where both hold something nobody but an operator
// knows which is right.
func (s dirSwap) putBack(full bool) error {
	there, err := exists(s.oldPath())
	if err != nil || !there {
		return err
	}
	if full {
		return fmt.Errorf("both %s and %s hold something and neither is the clone of %s: %w; decide which to keep", s.dir, s.oldPath(), s.markerPath(), ErrNotOurs)
	}
	s.log.Warn("there is no clone to take its place, putting the old data directory back")
	return s.do("move the old one back", func() error { return s.rename(s.oldPath(), s.dir) })
}

// finishGone is finish for a directory that went before its clone was made. The marker stays until there is one.
func (s dirSwap) finishGone(m marker, full bool) error {
	if full {
		return s.notGone()
	}
	fresh, err := s.hasNonce(s.newPath(m.Work), m)
	if err != nil {
		return err
	}
	if m.Whole && fresh {
		s.log.Info("putting the finished directory in place", zap.String("work", string(m.Work)))
		if err := s.do("move the new one in", func() error { return s.rename(s.newPath(m.Work), s.dir) }); err != nil {
			return err
		}
		return s.tidy()
	}
	s.log.Warn("this member's own copy was removed for want of room, and is to be cloned; removing what is left of it", zap.String("path", s.oldPath()))
	if err := s.clear(); err != nil {
		return err
	}
	if err := s.do("remove the new one", func() error { return os.RemoveAll(s.newPath(m.Work)) }); err != nil {
		return err
	}
	if m.Whole {
		m.Whole = false
		return s.do("mark gone", func() error { return s.writeMarker(m) })
	}
	return nil
}

// notGone is what is said of a directory that stands where the marker says that there is none.
func (s dirSwap) notGone() error {
	return fmt.Errorf("%s says that this member's copy was removed to be cloned anew, and now %s holds something: %w; "+
		"if that is a whole data directory remove the file, else move the directory away", s.markerPath(), s.dir, ErrNotOurs)
}

func (s dirSwap) hasNonce(dir string, m marker) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, nonceFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return err == nil && string(b) == m.Nonce, err
}

// holdsSomething reports whether there is anything at path but an empty directory.
func holdsSomething(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, syscall.ENOTDIR):
		return true, nil
	}
	return len(entries) > 0, err
}

// FinishSwap tidies up after an Initdb, Clone or Restore that was cut short: it takes up again what was past
// its point of no return and undoes the rest. Call it before the first Inspect, once no tool that an
// earlier run of the sidecar started is still at work; Initdb, Clone and Restore call it
// themselves, and while one of them runs it is refused. Names that are not ours are left alone.
func (p *Postgres) FinishSwap(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	p.swap.Lock()
	defer p.swap.Unlock()
	if err := p.swapper().finish(); err != nil {
		return fmt.Errorf("finish what was begun at %s: %w", p.o.DataDir, err)
	}
	return nil
}
