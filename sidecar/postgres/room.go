package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// RemoveFirst lets a Clone remove the old directory before it makes the copy. It does so only where
//
//	the old directory is of this cluster, and no server runs on it
//	the source, asked just before, is of this cluster and begins a base backup
//	what that would send has no room beside the old directory, and has room in its place
//	neither has tablespaces: pg_basebackup fills none that holds something, and so could not make the copy
//	Confirm says so
//
// and keeps it, with an error, where any of that is not so or cannot be known (I5, I7).
type RemoveFirst struct {
	// Confirm is asked last: an error keeps the directory.
	Confirm func(context.Context) error
	// Removed is called once the directory is no database any more.
	Removed func()
}

// copySegments is how many WAL segments, of full length, a copy needs besides the files: pg_basebackup fills the one that the
// copy begins in and makes the next.
const copySegments = 2

// measureTimeout bounds the checkpoint that a base backup begins with.
const measureTimeout = 10 * time.Minute

// sourceSize is what a server says of a base backup of itself.
type sourceSize struct {
	Identity
	// Bytes is the estimate of what it would send, without WAL.
	Bytes uint64
	// Tablespaces is how many it has besides its data directory.
	Tablespaces int
	// SegmentBytes is the length of a WAL segment.
	SegmentBytes uint64
}

// removeFirst removes the old directory if two have no room. With room, or with nothing to remove, it does nothing.
func (p *Postgres) removeFirst(ctx context.Context, s dirSwap, m *marker, r CloneRequest) error {
	if full, err := holdsSomething(s.dir); err != nil || !full {
		return err
	}
	source, err := p.measure(ctx, r)
	if err != nil {
		return fmt.Errorf("ask how much room a copy needs: %w", err)
	}
	free, err := freeBytes(filepath.Dir(s.dir))
	if err != nil {
		return err
	}
	need := source.Bytes + copySegments*source.SegmentBytes
	if need <= free {
		return nil
	}
	if err := p.mayGo(ctx, s, r, source, need, free); err != nil {
		return fmt.Errorf("%w below %s: a copy of %d MiB does not fit beside %s (%d MiB are free), which is not removed first: %w",
			ErrDiskFull, filepath.Dir(s.dir), need>>20, s.dir, free>>20, err)
	}
	p.log.Warn("removing the old data directory before it is cloned: there is no room for both", zap.String("data_dir", s.dir), zap.String("from", r.From.String()),
		zap.Uint64("copy_bytes", need), zap.Uint64("free_bytes", free))
	if err := p.setAside(s, m); err != nil {
		return err
	}
	r.RemoveFirst.Removed()
	return s.clear()
}

// setAside holds off Inspect between the rename and the marker.
func (p *Postgres) setAside(s dirSwap, m *marker) error {
	p.swap.Lock()
	defer p.swap.Unlock()
	return s.setAside(m)
}

// mayGo returns why the old directory must stay; nothing if it may go.
func (p *Postgres) mayGo(ctx context.Context, s dirSwap, r CloneRequest, source sourceSize, need, free uint64) error {
	// Of the directory itself: one that a rewind left half-way is no DirValid.
	c, err := p.controlData(ctx, s.dir)
	if err != nil {
		return err
	}
	if c.SystemID != r.SystemID {
		return fmt.Errorf("it has the system identifier %s, this cluster has %s: %w", c.SystemID, r.SystemID, ErrOtherCluster)
	}
	spaces, err := os.ReadDir(filepath.Join(s.dir, "pg_tblspc"))
	if err != nil {
		return err
	}
	if n := max(len(spaces), source.Tablespaces); n > 0 {
		return fmt.Errorf("there are %d tablespaces, and pg_basebackup fills none whose directory holds something: make room, or clear them by hand", n)
	}
	freed, err := treeBlocks(s.dir)
	if err != nil {
		return err
	}
	if need > free+freed {
		return fmt.Errorf("the copy would not fit in its place either (%d MiB)", (free+freed)>>20)
	}
	if err := p.checkStopped(ctx); err != nil {
		return err
	}
	if err := r.RemoveFirst.Confirm(ctx); err != nil {
		return fmt.Errorf("whether %s is there to be copied is not sure: %w", r.From, err)
	}
	return nil
}

// measure has the source begin a base backup, and takes from it what that would send: so it is known too that it
// has a walsender for it and lets the role in. The rest of the backup is not wanted: it is
// sent as slowly as can be, and the connection ended, which the source logs.
func (p *Postgres) measure(ctx context.Context, r CloneRequest) (sourceSize, error) {
	var size sourceSize
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	err := p.onReplication(ctx, r.From, func(c *pgconn.PgConn) (err error) {
		if size.Identity, err = identify(ctx, c); err != nil {
			return err
		}
		if size.SystemID != r.SystemID {
			return fmt.Errorf("it has the system identifier %s, this cluster has %s: %w", size.SystemID, r.SystemID, ErrOtherCluster)
		}
		if size.SegmentBytes, err = segmentBytes(ctx, c); err != nil {
			return err
		}
		sql := "BASE_BACKUP LABEL 'howdah asks for the size' PROGRESS FAST NOWAIT MAX_RATE 32"
		if size.ServerVersionNum >= 150000 {
			sql = "BASE_BACKUP (LABEL 'howdah asks for the size', PROGRESS, CHECKPOINT 'fast', WAIT false, MAX_RATE 32)"
		}
		c.Frontend().SendQuery(&pgproto3.Query{String: sql})
		if err := c.Frontend().Flush(); err != nil {
			return err
		}
		return size.read(func() (pgproto3.BackendMessage, error) { return c.ReceiveMessage(ctx) })
	})
	return size, err
}

// read takes in the two results that come before the files (SendXlogRecPtrResult, SendTablespaceList in
// src/backend/backup/basebackup_copy.c): where the backup begins, and for each tablespace its OID, place and size in KiB. The
// data directory itself comes without OID and place. pglogrepl's reader leaves that row out and keeps eight bits of a size.
func (z *sourceSize) read(next func() (pgproto3.BackendMessage, error)) error {
	results, known := 0, false
	for results < 2 {
		m, err := next()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CommandComplete:
			results++
		case *pgproto3.DataRow:
			if results == 0 {
				continue
			}
			if len(m.Values) != 3 {
				return fmt.Errorf("BASE_BACKUP: a tablespace of %d columns, want 3", len(m.Values))
			}
			kib, err := strconv.ParseUint(string(m.Values[2]), 10, 53)
			if err != nil {
				return fmt.Errorf("BASE_BACKUP: the size of a tablespace: %w", err)
			}
			z.Bytes += kib << 10
			if m.Values[0] == nil {
				known = true
			} else {
				z.Tablespaces++
			}
		case *pgproto3.RowDescription, *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return fmt.Errorf("BASE_BACKUP: unexpected %T", m)
		}
	}
	if !known {
		return errors.New("BASE_BACKUP: no size of the data directory")
	}
	return nil
}

// segmentBytes asks for wal_segment_size, a power of two from 1MB to 1GB, which SHOW prints in MB or GB.
func segmentBytes(ctx context.Context, c *pgconn.PgConn) (uint64, error) {
	results, err := c.Exec(ctx, "SHOW wal_segment_size").ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return 0, errors.New("SHOW wal_segment_size: want one row of one column")
	}
	return parseSegmentBytes(string(results[0].Rows[0][0]))
}

func parseSegmentBytes(text string) (uint64, error) {
	number, shift := strings.TrimSuffix(text, "MB"), 20
	if n, isGB := strings.CutSuffix(text, "GB"); isGB {
		number, shift = n, 30
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || number == text || n == 0 {
		return 0, fmt.Errorf("wal_segment_size is %q: want for example 16MB", text)
	}
	return n << shift, nil
}

// freeBytes returns what a user who is not root may still write to the file system of dir.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// treeBlocks returns how many bytes a removal of dir frees. What cannot be read, or lies on another file system, is an error: it
// could not be removed either. Links are not followed, and files with other names free nothing.
func treeBlocks(dir string) (uint64, error) {
	var sum, device uint64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: its size cannot be read", path)
		}
		if path == dir {
			device = st.Dev
		}
		if st.Dev != device {
			return fmt.Errorf("%s is another file system, inside the data directory", path)
		}
		if e.IsDir() || st.Nlink == 1 {
			sum += uint64(st.Blocks) * 512
		}
		return nil
	})
	return sum, err
}
