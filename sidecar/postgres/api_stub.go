package postgres

import (
	"context"
	"errors"

	"howdah/consul/schema"
)

var errTodo = errors.New("not built yet")

// Initdb makes a new cluster's data directory, configured as a primary's. Refused unless the path is absent or an empty directory.
func (p *Postgres) Initdb(ctx context.Context, cfg schema.ClusterConfig) error { return errTodo }

// Clone replaces the data directory by a copy of another server's. See CloneRequest.
func (p *Postgres) Clone(ctx context.Context, r CloneRequest) error { return errTodo }

// CloneBytes returns how many bytes a running clone has written so far; 0 if none runs.
func (p *Postgres) CloneBytes() uint64 { return 0 }

// Configure writes the configuration files and says what a running server needs to heed them.
func (p *Postgres) Configure(ctx context.Context, s Settings) (Change, error) { return 0, errTodo }

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
