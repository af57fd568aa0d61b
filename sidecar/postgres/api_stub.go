package postgres

import (
	"context"
	"errors"

	"howdah/consul/schema"
)

var errTodo = errors.New("not built yet")

type session struct{}

func newSession(*Postgres) *session { return &session{} }
func (s *session) close()           {}

// Inspect looks at the data directory: its files, and pg_controldata. What cannot be read is an error, never "absent".
// A data directory of another major version than the binaries' is a *MajorError.
func (p *Postgres) Inspect(ctx context.Context) (DataDir, error) { return DataDir{}, errTodo }

// FinishSwap tidies up after an Initdb or Clone that was cut short: it takes up again what was past
// its point of no return and undoes the rest. Call it before the first Inspect, and after a failed one.
func (p *Postgres) FinishSwap(ctx context.Context) error { return errTodo }

// Initdb makes a new cluster's data directory, configured as a primary's. Refused unless the path is absent or an empty directory.
func (p *Postgres) Initdb(ctx context.Context, cfg schema.ClusterConfig) error { return errTodo }

// Clone replaces the data directory by a copy of another server's. See CloneRequest.
func (p *Postgres) Clone(ctx context.Context, r CloneRequest) error { return errTodo }

// CloneBytes returns how many bytes a running clone has written so far; 0 if none runs.
func (p *Postgres) CloneBytes() uint64 { return 0 }

// Configure writes the configuration files and says what a running server needs to heed them.
func (p *Postgres) Configure(ctx context.Context, s Settings) (Change, error) { return 0, errTodo }

// Probe asks the running server how it is: one statement on one kept connection.
// errors.Is tells ErrNotListening, ErrNotReady and ErrPassword; anything else is unknown.
func (p *Postgres) Probe(ctx context.Context) (Probe, error) { return Probe{}, errTodo }

// Promote promotes a standby and returns once it accepts writes; nil at once if it does already.
func (p *Postgres) Promote(ctx context.Context) error { return errTodo }

// Checkpoint runs CHECKPOINT.
func (p *Postgres) Checkpoint(ctx context.Context) error { return errTodo }

// EnsureRoles makes howdah's roles with their rights and passwords, on a primary. It changes nothing that is right already.
func (p *Postgres) EnsureRoles(ctx context.Context) error { return errTodo }

// EnsureSlots makes this server's howdah_* physical slots be exactly want: missing ones are created, ones
// not wanted are dropped unless they are in use. Other slots are not touched.
func (p *Postgres) EnsureSlots(ctx context.Context, want []Slot) error { return errTodo }

// TimelineHistory reads the history of a timeline from the local pg_wal. Timeline 1 has none and needs no file.
func (p *Postgres) TimelineHistory(ctx context.Context, t schema.Timeline) (History, error) {
	return History{}, errTodo
}

// Identify asks another server who it is, as howdah_replication.
func (p *Postgres) Identify(ctx context.Context, u Upstream) (Identity, error) {
	return Identity{}, errTodo
}

// UpstreamHistory asks another server for its current timeline's history.
func (p *Postgres) UpstreamHistory(ctx context.Context, u Upstream) (History, error) {
	return History{}, errTodo
}

// LocalEnd returns an LSN past the start of the last WAL record that the stopped server at the data
// directory wrote: what CanFollow compares. After a clean shutdown it comes from the control file, else from pg_waldump.
func (p *Postgres) LocalEnd(ctx context.Context, d DataDir) (schema.LSN, error) { return 0, errTodo }

// CanFollow reports whether a server that has local's WAL up to end can go on along h, and if not, why.
func CanFollow(local schema.Timeline, end schema.LSN, h History) (ok bool, why string) {
	return false, ""
}

// ShutdownEnd returns the lowest LSN at which the latest checkpoint's record is surely contained.
func (c ControlData) ShutdownEnd() schema.LSN { return 0 }
