package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"howdah/consul/schema"
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

// keeper writes the record beside the loop, which never waits for the disk: a disk that hangs may be what the loop has to
// deal with. It also tries the disk, so that a member knows of its own that it could not go on as a primary: where
// no WAL arrives, as while the primary's disk hangs, nothing else would tell.
type keeper struct {
	file  *recordFile
	want  chan decide.Record // holds the newest one only
	every atomic.Int64       // nanoseconds between two tries
}

func newKeeper(f *recordFile) *keeper {
	k := &keeper{file: f, want: make(chan decide.Record, 1)}
	k.every.Store(int64(time.Second))
	return k
}

// keep has rec written instead of what still waits to be. The loop alone calls it.
func (k *keeper) keep(rec decide.Record) {
	select {
	case <-k.want:
	default:
	}
	k.want <- rec
}

// run writes and tries until ctx ends. wrote is told of each write, saved of each record. An error is that a record cannot
// be written: a member that cannot remember an epoch must not act on it.
func (k *keeper) run(ctx context.Context, now func() schema.Instant, wrote func(schema.Instant), saved func(decide.Record)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case rec := <-k.want:
			if err := k.file.save(rec); err != nil {
				return err
			}
			saved(rec)
		case <-time.After(time.Duration(k.every.Load())):
			if err := k.file.try(); err != nil {
				continue // a disk that is full or broken answers; PostgreSQL will say more about it
			}
		}
		wrote(now())
	}
}

// try overwrites a byte of the lock file and waits until it is on disk.
func (r *recordFile) try() error {
	if _, err := r.lock.WriteAt([]byte{'.'}, 0); err != nil {
		return err
	}
	return unix.Fdatasync(int(r.lock.Fd()))
}
