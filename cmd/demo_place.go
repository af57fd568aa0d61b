package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// markerFile shows that a directory is a demo's own, to be used again and deleted by --fresh.
const markerFile = ".howdah-demo"

// place is the demo's directory, held by a lock on its marker.
type place struct {
	dir    string
	marker *os.File
	// resumed says that an earlier demo has left something.
	resumed bool
	note    note
}

// note is the content of the marker.
type note struct {
	About string `json:"about"`
	// Lock is where the lock server in memory listened last.
	Lock string `json:"lock,omitempty"`
}

// claim makes or takes dir for one demo. A directory that holds anything without being a demo's is refused, and so is
// one that another demo uses. With fresh what an earlier one left is deleted.
func claim(dir string, fresh bool) (*place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("dir: %w", err)
	}
	p := &place{dir: dir}
	if p.marker, err = p.open(); err != nil {
		return nil, err
	}
	if err := p.take(fresh); err != nil {
		return nil, errors.Join(err, p.marker.Close())
	}
	return p, nil
}

func (p *place) open() (*os.File, error) {
	name := filepath.Join(p.dir, markerFile)
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("dir: %w", err)
	}
	if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) && len(entries) > 0 {
		return nil, fmt.Errorf("dir: %s is not empty and no demo's (it has no %s): nothing in it is touched; choose another --dir", p.dir, markerFile)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("dir: %w", err)
	}
	return f, nil
}

func (p *place) take(fresh bool) error {
	err := unix.Flock(int(p.marker.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("dir: another demo runs in %s; stop it first (Ctrl-C), or choose another --dir", p.dir)
	case err != nil:
		return fmt.Errorf("dir: %s cannot be locked: %w", p.marker.Name(), err)
	}
	if info, err := p.marker.Stat(); err != nil {
		return err
	} else if info.Size() > 0 {
		if err := json.NewDecoder(p.marker).Decode(&p.note); err != nil {
			return fmt.Errorf("dir: %s is not a demo's marker: %w; choose another --dir", p.marker.Name(), err)
		}
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	p.resumed = len(entries) > 1 && !fresh
	if fresh {
		for _, e := range entries {
			if e.Name() == markerFile {
				continue
			}
			if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
				return fmt.Errorf("fresh: %w", err)
			}
		}
	}
	return p.save()
}

// save writes the marker.
func (p *place) save() error {
	p.note.About = "howdah demo keeps its data in this directory; howdah demo --fresh deletes them"
	b, err := json.MarshalIndent(p.note, "", "  ")
	if err != nil {
		return err
	}
	_, err = p.marker.WriteAt(append(b, '\n'), 0)
	return errors.Join(err, p.marker.Truncate(int64(len(b)+1)))
}

// release lets the next demo in.
func (p *place) release() { _ = p.marker.Close() }
