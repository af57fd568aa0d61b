package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"howdah/sidecar/decide"
)

// recordFile keeps decide.Record beside the data directory, locked against a second sidecar.
type recordFile struct {
	path string
	lock *os.File
}

// openRecord locks and reads the record beside dataDir. A record of another cluster or member is
// refused: the data directory next to it is not ours to touch.
func openRecord(dataDir, cluster, name string) (*recordFile, decide.Record, error) {
	own := decide.Record{Cluster: cluster, Name: name}
	r := &recordFile{path: dataDir + ".member.json"}
	lock, err := os.OpenFile(r.path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, own, fmt.Errorf("the member's record is kept beside the data directory; its folder must exist and be writable: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, own, fmt.Errorf("another sidecar runs for the data directory %s: stop it first, or give this one a --data-dir of its own: %w", dataDir, err)
	}
	r.lock = lock
	b, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, own, nil
	}
	var rec decide.Record
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil {
		lock.Close()
		return nil, own, fmt.Errorf("the member's record %s cannot be read: %w", r.path, err)
	}
	if rec.Cluster != cluster || rec.Name != name {
		lock.Close()
		return nil, own, fmt.Errorf("the data directory %s is that of member %s of cluster %s (says %s), not of %s of %s: check --name, --cluster and --data-dir",
			dataDir, rec.Name, rec.Cluster, r.path, name, cluster)
	}
	return r, rec, nil
}

// save writes the record so that a crash leaves the old one or the new one.
func (r *recordFile) save(rec decide.Record) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	tmp := r.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, r.path)
	}
	if err != nil {
		return fmt.Errorf("the member's record cannot be written: %w", err)
	}
	dir, err := os.Open(filepath.Dir(r.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (r *recordFile) close() { r.lock.Close() }
