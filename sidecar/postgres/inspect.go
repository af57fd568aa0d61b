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

	"howdah/consul/schema"
)

// Inspect looks at the data directory: its files, and pg_controldata. What cannot be read is an error,
// never "absent". A data directory of another major version than the binaries' is a *MajorError,
// together with what could be learned.
func (p *Postgres) Inspect(ctx context.Context) (DataDir, error) {
	p.swap.RLock()
	defer p.swap.RUnlock()
	d, err := p.look(p.o.DataDir)
	if err != nil || d.State != DirValid {
		return d, err
	}
	return p.readControl(ctx, p.o.DataDir, d)
}

// look reads what needs no tool.
func (p *Postgres) look(dir string) (DataDir, error) {
	var d DataDir
	m, marked, err := p.swapper().readMarker()
	if err != nil {
		return d, err
	}
	d.Unfinished = marked
	if dir == p.o.DataDir {
		if d.Removed, err = p.removedFirst(m); err != nil || d.Removed {
			d.State = DirIncomplete
			return d, err
		}
		if half, err := p.leftByRewind(m, marked); err != nil || half {
			d.State = DirIncomplete
			return d, err
		}
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.State = DirAbsent
	case errors.Is(err, syscall.ENOTDIR):
		d.State = DirForeign
		return d, nil
	case err != nil:
		return DataDir{}, fmt.Errorf("data directory: %w", err)
	case len(entries) == 0:
		d.State = DirEmpty
	}
	if d.State == DirAbsent || d.State == DirEmpty {
		if marked {
			d.State = DirIncomplete
		}
		return d, nil
	}
	d.Major, err = readMajor(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.State = DirForeign
		return d, nil
	}
	if err != nil {
		return DataDir{}, fmt.Errorf("data directory: %w", err)
	}
	d.State = DirValid
	if d.StandbySignal, err = exists(filepath.Join(dir, "standby.signal")); err != nil {
		return DataDir{}, err
	}
	if d.BackupLabel, err = exists(filepath.Join(dir, "backup_label")); err != nil {
		return DataDir{}, err
	}
	return d, nil
}

// removedFirst reports whether the data directory went before its clone was made, and no clone is in its place yet.
func (p *Postgres) removedFirst(m marker) (bool, error) {
	if !m.Gone {
		return false, nil
	}
	s := p.swapper()
	if placed, err := s.hasNonce(s.dir, m); err != nil || placed {
		return false, err
	}
	full, err := holdsSomething(s.dir)
	if err == nil && full {
		err = s.notGone()
	}
	return err == nil, err
}

// leftByRewind reports whether a rewind left the data directory half-written. An empty or absent one is not, and
// neither is a clone that has taken its place and was not tidied up after.
func (p *Postgres) leftByRewind(m marker, marked bool) (bool, error) {
	s := p.swapper()
	if full, err := holdsSomething(s.dir); err != nil || !full {
		return false, err
	}
	if marked {
		if placed, err := s.hasNonce(s.dir, m); err != nil || placed {
			return false, err
		}
	}
	return s.halfRewound()
}

// readControl adds the control file, and the timeline, to a DataDir that is DirValid.
func (p *Postgres) readControl(ctx context.Context, dir string, d DataDir) (DataDir, error) {
	major, err := p.BinaryMajor(ctx)
	if err != nil {
		return DataDir{}, err
	}
	if major != d.Major {
		return d, &MajorError{What: "the data directory " + dir, Have: d.Major, Want: major}
	}
	if d.Control, err = p.controlData(ctx, dir); err != nil {
		return DataDir{}, err
	}
	if d.Timeline, err = newestTimeline(dir, d.Control); err != nil {
		return DataDir{}, fmt.Errorf("timelines of %s: %w", dir, err)
	}
	return d, nil
}

// controlReads is how often the control file is read before a torn one is believed: up to PostgreSQL 16
// pg_controldata takes no lock and may read while the server writes.
const controlReads = 5

func (p *Postgres) controlData(ctx context.Context, dir string) (ControlData, error) {
	var last error
	for range controlReads {
		out, err := p.runTool(ctx, Command{Tool: "pg_controldata", Args: []string{"-D", dir}})
		if err != nil {
			return ControlData{}, err
		}
		c, err := parseControlData(out)
		if err == nil {
			return c, nil
		}
		last = err
	}
	return ControlData{}, last
}

// newestTimeline returns the newest timeline in which the data directory has WAL: that of the control file, or
// a descendant that was begun after its latest checkpoint and has at least one segment in pg_wal.
func newestTimeline(dir string, c ControlData) (schema.Timeline, error) {
	newest := max(c.Timeline, c.MinRecoveryTimeline)
	if c.CleanShutdown() {
		return c.Timeline, nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, "pg_wal"))
	if err != nil {
		return 0, err
	}
	segments := map[schema.Timeline]bool{}
	for _, e := range entries {
		if t, ok := segmentTimeline(e.Name()); ok {
			segments[t] = true
		}
	}
	for t := range segments {
		if t <= newest {
			continue
		}
		h, err := readHistory(dir, t)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a segment that was made ready or received for a timeline that never began here
		}
		if err != nil {
			return 0, err
		}
		for _, s := range h.Switches {
			if s.Timeline == c.Timeline {
				newest = max(newest, t)
			}
		}
	}
	return newest, nil
}

// segmentTimeline reads the timeline of a WAL segment's name (XLogFileName, src/include/access/xlog_internal.h).
func segmentTimeline(name string) (schema.Timeline, bool) {
	if len(name) != 24 || strings.Trim(name, "0123456789ABCDEF") != "" {
		return 0, false
	}
	t, err := strconv.ParseUint(name[:8], 16, 32)
	return schema.Timeline(t), err == nil && t > 0
}

func readHistory(dir string, t schema.Timeline) (History, error) {
	if t == 1 {
		return History{Current: 1}, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, "pg_wal", fmt.Sprintf("%08X.history", uint32(t))))
	if err != nil {
		return History{}, err
	}
	return ParseHistory(t, string(b))
}

// TimelineHistory reads the history of timeline t from the local pg_wal. Timeline 1 has none and needs no file.
func (p *Postgres) TimelineHistory(ctx context.Context, t schema.Timeline) (History, error) {
	if err := ctx.Err(); err != nil {
		return History{}, err
	}
	return readHistory(p.o.DataDir, t)
}
