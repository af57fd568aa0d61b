package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// rewindMarker is D.rewind, beside the data directory because pg_rewind removes from it what its source does not have:
//
//	1  D.rewind, synced            D is worth nothing from here on
//	2  pg_rewind
//	3  configuration, standby.signal, synced
//	4  remove D.rewind             D is a standby's
//
// While it is there D is DirIncomplete, and nothing but a clone in its place makes D.rewind go (tidy).
// It names the directory by its inode, so that another one put there by hand is not taken for the half-written one.
type rewindMarker struct {
	Inode uint64 `json:"inode"`
}

func (s dirSwap) rewindPath() string { return s.dir + ".rewind" }

func (s dirSwap) markRewind() error {
	there, err := exists(s.rewindPath())
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("%s is there: an earlier rewind was cut short", s.rewindPath())
	}
	inode, err := inodeOf(s.dir)
	if err != nil {
		return err
	}
	b, err := json.Marshal(rewindMarker{Inode: inode})
	if err != nil {
		return err
	}
	return s.do("mark the rewind", func() error { _, err := writeFile(s.rewindPath(), append(b, '\n'), 0o600); return err })
}

func (s dirSwap) unmarkRewind() error {
	if err := s.do("unmark the rewind", func() error { return removeFile(s.rewindPath()) }); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.dir))
}

// halfRewound reports whether the directory is one that a rewind left half-written. A marker of another
// directory is an error: somebody was here, and has to say which of the two is right.
func (s dirSwap) halfRewound() (bool, error) {
	b, err := os.ReadFile(s.rewindPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var m rewindMarker
	if err := json.Unmarshal(b, &m); err != nil || m.Inode == 0 {
		return false, fmt.Errorf("%s cannot be understood (%v): %w; remove %s and it if the directory is not whole, else it alone", s.rewindPath(), err, ErrNotOurs, s.dir)
	}
	inode, err := inodeOf(s.dir)
	if err != nil {
		return false, err
	}
	if inode != m.Inode {
		return false, fmt.Errorf("%s says that a rewind was cut short, of another directory than now stands at %s: if this one is whole remove the file, else the directory", s.rewindPath(), s.dir)
	}
	return true, nil
}

func inodeOf(path string) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// syncTree makes everything written to a data directory last, wherever its links lead.
func syncTree(dir string) error {
	roots, err := treeRoots(dir)
	if err != nil {
		return err
	}
	for _, root := range roots {
		f, err := os.Open(root)
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(f.Fd()))
		f.Close()
		if err != nil {
			return fmt.Errorf("sync the file system of %s: %w", root, err)
		}
	}
	return nil
}
