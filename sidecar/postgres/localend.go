package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"howdah/consul/schema"
)

// LocalEnd returns an LSN past the beginning of the last WAL record that the stopped server at the data
// directory wrote on d.Timeline: what CanFollow compares. A switch of timelines lies at
// the end of a record, so a record that begins before it also ends before it.
//
// After a clean shutdown it comes from the control file, else pg_waldump reads the WAL from the latest
// checkpoint on, which takes as long as reading those files takes.
func (p *Postgres) LocalEnd(ctx context.Context, d DataDir) (schema.LSN, error) {
	if d.State != DirValid {
		return 0, fmt.Errorf("end of WAL: the data directory is %s", d.State)
	}
	if d.Control.CleanShutdown() {
		return d.Control.ShutdownEnd(), nil
	}
	start := d.Control.RedoLSN
	if d.Timeline != d.Control.Timeline {
		// The segments of the newer timeline begin with a copy of the older one up to the switch.
		h, err := readHistory(p.o.DataDir, d.Timeline)
		if err != nil {
			return 0, fmt.Errorf("end of WAL: %w", err)
		}
		if n := len(h.Switches); n > 0 {
			start = max(start, h.Switches[n-1].LSN)
		}
	}
	last, err := p.lastRecord(ctx, d, start)
	if err != nil {
		return 0, fmt.Errorf("end of WAL on timeline %d: %w", d.Timeline, err)
	}
	return max(last+1, d.Control.MinRecoveryLSN), nil
}

var (
	// What pg_waldump says where valid WAL ends (main in src/bin/pg_waldump/pg_waldump.c), and of each record.
	waldumpEnd    = regexp.MustCompile(`error in WAL record at ([0-9A-F]+/[0-9A-F]+):`)
	waldumpRecord = regexp.MustCompile(`(?m)^rmgr: .* lsn: ([0-9A-F]+/[0-9A-F]+), prev `)
	// waldumpNone is what it says if there is not one record at or after the start.
	waldumpNone = regexp.MustCompile(`could not find a valid record after ([0-9A-F]+/[0-9A-F]+)`)
)

// lastRecord returns where the last valid WAL record from start on begins; start itself if there is none.
func (p *Postgres) lastRecord(ctx context.Context, d DataDir, start schema.LSN) (schema.LSN, error) {
	from, to, err := walSegments(p.o.DataDir+"/pg_wal", d, start)
	if err != nil {
		return 0, err
	}
	args := []string{"--path=" + p.o.DataDir + "/pg_wal", "--start=" + start.String(), from, to}
	last, err := p.waldump(ctx, append(args, "--quiet"), waldumpEnd)
	if err != nil || last != 0 {
		return last, err
	}
	// Valid WAL ends where a segment ends and the next one is not there: then pg_waldump names no position, and the
	// last record that it prints has to do. A runner keeps the end of the output.
	last, err = p.waldump(ctx, args, waldumpRecord)
	if err != nil {
		return 0, err
	}
	if last == 0 {
		return 0, errors.New("pg_waldump found no record")
	}
	return last, nil
}

// walSegments names the segment with start on d.Timeline and the last one that follows it without a gap. They are given to
// pg_waldump by name: left to itself it reads the size of segments off whichever file of the directory comes first, and that may be one
// that was made in advance and holds nothing but zeros (search_directory, src/bin/pg_waldump/pg_waldump.c).
func walSegments(dir string, d DataDir, start schema.LSN) (from, to string, err error) {
	size := uint64(d.Control.WALSegmentBytes)
	if size == 0 {
		size = defaultWALSegmentBytes
	}
	name := func(n uint64) string { // XLogFileName, src/include/access/xlog_internal.h
		perID := (uint64(1) << 32) / size
		return fmt.Sprintf("%08X%08X%08X", uint32(d.Timeline), n/perID, n%perID)
	}
	for n := uint64(start) / size; ; n++ {
		_, err := os.Stat(filepath.Join(dir, name(n)))
		switch {
		case err == nil && from == "":
			from, to = name(n), name(n)
		case err == nil:
			to = name(n)
		case errors.Is(err, fs.ErrNotExist) && from != "":
			return from, to, nil
		default:
			return "", "", err
		}
	}
}

// waldump returns the last LSN that form finds in pg_waldump's output; zero if it finds none.
func (p *Postgres) waldump(ctx context.Context, args []string, form *regexp.Regexp) (schema.LSN, error) {
	out, err := p.runTool(ctx, Command{Tool: "pg_waldump", Args: args})
	// It fails where valid WAL ends, which is what is asked.
	if failed := (*toolError)(nil); err != nil && !errors.As(err, &failed) {
		return 0, err
	}
	if m := waldumpNone.FindStringSubmatch(out); m != nil {
		return parseLSN(m[1])
	}
	found := form.FindAllStringSubmatch(out, -1)
	if len(found) == 0 {
		return 0, nil
	}
	return parseLSN(found[len(found)-1][1])
}
