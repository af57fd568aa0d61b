package postgres

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"howdah/consul/schema"
)

// ControlState is the state of the server as its control file has it ("Database cluster state").
type ControlState string

// The states of dbState in src/bin/pg_controldata/pg_controldata.c.
const (
	ControlStartingUp         ControlState = "starting up"
	ControlShutDown           ControlState = "shut down"
	ControlShutDownInRecovery ControlState = "shut down in recovery"
	ControlShuttingDown       ControlState = "shutting down"
	ControlInCrashRecovery    ControlState = "in crash recovery"
	ControlInArchiveRecovery  ControlState = "in archive recovery"
	ControlInProduction       ControlState = "in production"
)

var controlStates = map[ControlState]bool{
	ControlStartingUp: true, ControlShutDown: true, ControlShutDownInRecovery: true, ControlShuttingDown: true,
	ControlInCrashRecovery: true, ControlInArchiveRecovery: true, ControlInProduction: true,
}

// ControlData is the control file, as pg_controldata prints it.
type ControlData struct {
	Version        int // pg_control version number, for example 1300
	CatalogVersion int
	SystemID       string
	State          ControlState
	// CheckpointLSN is where the record of the latest checkpoint begins, RedoLSN where replay from it begins.
	CheckpointLSN, RedoLSN schema.LSN
	Timeline               schema.Timeline // of the latest checkpoint
	PrevTimeline           schema.Timeline
	// MinRecoveryLSN is how far a standby must replay before its files are consistent; zero on a primary.
	MinRecoveryLSN      schema.LSN
	MinRecoveryTimeline schema.Timeline
	BackupEndRequired   bool
	// BackupStartLSN is set from the first start of a copy (pg_basebackup, pg_rewind) until it is consistent.
	BackupStartLSN schema.LSN
	WALLevel       string
	WALLogHints    bool
	// The settings of the primary that a standby must not go below.
	MaxConnections, MaxWorkerProcesses, MaxWalSenders, MaxPreparedXacts, MaxLocksPerXact int
	WALSegmentBytes                                                                      int
	DataChecksums                                                                        int // version; 0 = off
}

// CleanShutdown reports whether the server was last stopped as a primary with a shutdown checkpoint.
func (c ControlData) CleanShutdown() bool { return c.State == ControlShutDown }

// InRecovery reports whether the server was a standby, or in crash recovery, when it last wrote its control file.
func (c ControlData) InRecovery() bool {
	return c.State == ControlShutDownInRecovery || c.State == ControlInArchiveRecovery || c.State == ControlInCrashRecovery
}

// The layout of a checkpoint record, the same from 13 to 18.
const (
	sizeOfXLogRecord          = 24 // SizeOfXLogRecord, src/include/access/xlogrecord.h
	sizeOfDataHeaderShort     = 2  // SizeOfXLogRecordDataHeaderShort, same file
	sizeOfCheckPoint          = 88 // sizeof(CheckPoint), src/include/catalog/pg_control.h
	walPageBytes              = 8192
	sizeOfShortPageHeader     = 24 // SizeOfXLogShortPHD, src/include/access/xlog_internal.h
	sizeOfLongPageHeader      = 40 // SizeOfXLogLongPHD, same file: the first page of a segment
	defaultWALSegmentBytes    = 16 << 20
	checkpointRecordTotalSize = sizeOfXLogRecord + sizeOfDataHeaderShort + sizeOfCheckPoint
)

// ShutdownEnd returns the lowest LSN at which the latest checkpoint's record is surely contained: whoever
// has WAL up to there has all that a clean shutdown wrote. Zero if no checkpoint is known.
//
// The record begins at CheckpointLSN and takes 114 bytes; where it crosses into the next page that
// page's header stands in between. PostgreSQL itself counts up to the next multiple of 8.
func (c ControlData) ShutdownEnd() schema.LSN {
	if c.CheckpointLSN == 0 {
		return 0
	}
	end := c.CheckpointLSN + checkpointRecordTotalSize
	page := c.CheckpointLSN / walPageBytes * walPageBytes
	if end > page+walPageBytes {
		segment := schema.LSN(c.WALSegmentBytes)
		if segment == 0 {
			segment = defaultWALSegmentBytes
		}
		if (page+walPageBytes)%segment == 0 {
			end += sizeOfLongPageHeader
		} else {
			end += sizeOfShortPageHeader
		}
	}
	return end
}

// RedoDistance estimates how many bytes of WAL crash recovery would replay now.
func RedoDistance(flush, redo schema.LSN) uint64 { return redo.Behind(flush) }

// parseControlData reads the output of pg_controldata, run with LC_ALL=C. It is strict: a warning, a
// label that is missing or stands twice, or a value of another form is an error, because a
// control file that is half understood decides about data.
func parseControlData(out string) (ControlData, error) {
	values := map[string]string{}
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		label, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "WARNING") || strings.HasPrefix(line, "pg_controldata:") {
			return ControlData{}, fmt.Errorf("pg_controldata printed %q: want lines of the form label: value, without warnings", clip(line))
		}
		if _, twice := values[label]; twice {
			return ControlData{}, fmt.Errorf("pg_controldata printed %q twice", clip(label))
		}
		values[label] = strings.TrimLeft(value, " ")
	}
	r := controlReader{values: values}
	c := ControlData{
		Version:             r.number("pg_control version number", 1),
		CatalogVersion:      r.number("Catalog version number", 1),
		SystemID:            r.systemID("Database system identifier"),
		State:               ControlState(r.text("Database cluster state")),
		CheckpointLSN:       r.lsn("Latest checkpoint location"),
		RedoLSN:             r.lsn("Latest checkpoint's REDO location"),
		Timeline:            r.timeline("Latest checkpoint's TimeLineID"),
		PrevTimeline:        r.timeline("Latest checkpoint's PrevTimeLineID"),
		MinRecoveryLSN:      r.lsn("Minimum recovery ending location"),
		MinRecoveryTimeline: r.timeline("Min recovery ending loc's timeline"),
		BackupStartLSN:      r.lsn("Backup start location"),
		BackupEndRequired:   r.flag("End-of-backup record required", "yes", "no"),
		WALLevel:            r.text("wal_level setting"),
		WALLogHints:         r.flag("wal_log_hints setting", "on", "off"),
		MaxConnections:      r.number("max_connections setting", 0),
		MaxWorkerProcesses:  r.number("max_worker_processes setting", 0),
		MaxWalSenders:       r.number("max_wal_senders setting", 0),
		MaxPreparedXacts:    r.number("max_prepared_xacts setting", 0),
		MaxLocksPerXact:     r.number("max_locks_per_xact setting", 0),
		WALSegmentBytes:     r.number("Bytes per WAL segment", 1<<20),
		DataChecksums:       r.number("Data page checksum version", 0),
	}
	switch {
	case r.err != nil:
		return ControlData{}, r.err
	case !controlStates[c.State]:
		return ControlData{}, fmt.Errorf("pg_controldata: unknown cluster state %q", clip(string(c.State)))
	case c.CheckpointLSN == 0 || c.RedoLSN == 0 || c.Timeline == 0:
		return ControlData{}, fmt.Errorf("pg_controldata: no checkpoint (location %s, redo %s, timeline %d)", c.CheckpointLSN, c.RedoLSN, c.Timeline)
	}
	return c, nil
}

// controlReader takes values out by label and keeps the first error.
type controlReader struct {
	values map[string]string
	err    error
}

func (r *controlReader) fail(label, value, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("pg_controldata: %s is %q, want %s", label, clip(value), want)
	}
}

func (r *controlReader) text(label string) string {
	v, ok := r.values[label]
	if !ok && r.err == nil {
		r.err = fmt.Errorf("pg_controldata did not print %q", label)
	}
	return v
}

func (r *controlReader) number(label string, low int) int {
	v := r.text(label)
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || int(n) < low {
		r.fail(label, v, fmt.Sprintf("a number from %d", low))
	}
	return int(n)
}

func (r *controlReader) systemID(label string) string {
	v := r.text(label)
	if n, err := strconv.ParseUint(v, 10, 64); err != nil || n == 0 {
		r.fail(label, v, "a 64-bit number")
	}
	return v
}

func (r *controlReader) timeline(label string) schema.Timeline {
	v := r.text(label)
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		r.fail(label, v, "a timeline")
	}
	return schema.Timeline(n)
}

func (r *controlReader) lsn(label string) schema.LSN {
	v := r.text(label)
	l, err := parseLSN(v)
	if err != nil {
		r.fail(label, v, "an LSN")
	}
	return l
}

func (r *controlReader) flag(label, yes, no string) bool {
	v := r.text(label)
	if v != yes && v != no {
		r.fail(label, v, yes+" or "+no)
	}
	return v == yes
}

var lsnForm = regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`)

// parseLSN is schema.ParseLSN without its leniency about what follows the number.
func parseLSN(s string) (schema.LSN, error) {
	if !lsnForm.MatchString(s) {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers, such as 16/B374D848", clip(s))
	}
	return schema.ParseLSN(s)
}
