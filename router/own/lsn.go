package own

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
)

// ErrNotStandby is the answer of a standby that has been promoted.
var ErrNotStandby = errors.New("the server is no standby any more")

// PrimaryLSN returns how far the WAL of the primary s reaches, with its timeline: every commit acknowledged before the call lies at or before
// it, those with synchronous_commit = off included, which is why it is the insert LSN. A server in recovery refuses this with 55000.
func (c *Connections) PrimaryLSN(ctx context.Context, s Server) (schema.Timeline, schema.LSN, error) {
	var timeline int64
	var insert, flush, block uint64
	// pg_walfile_name begins with the insertion timeline, 8 hexadecimal digits. The subtraction makes a bigint of an LSN. The insert LSN is read first.
	const ask = `SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
		(pg_current_wal_insert_lsn() - '0/0')::bigint, (pg_current_wal_flush_lsn() - '0/0')::bigint, current_setting('wal_block_size')::bigint`
	err := c.Do(ctx, s, Samples, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, ask).Scan(&timeline, &insert, &flush, &block)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("how far the primary is: %w", err)
	}
	return schema.Timeline(timeline), end(insert, flush, block), nil
}

// pageHeader is the longest header that a page of WAL has, the first of a segment (SizeOfXLogLongPHD); with the shorter one of the others (24) no record
// fits into it, as the shortest has 24 bytes too.
const pageHeader = 40

// end is where the WAL ends, up to the last record. Where that fills its page, or the segment as after pg_switch_wal, the insert LSN is behind the header of the
// next page already, which nobody flushes, sends or replays before a record follows.
func end(insert, flush, block uint64) schema.LSN {
	if flush%block == 0 && insert > flush && insert-flush <= pageHeader {
		return schema.LSN(flush)
	}
	return schema.LSN(insert)
}

// ReplayLSN returns how far the standby s has replayed, with the timeline that it receives; the timeline is zero while it receives none.
// PostgreSQL begins to receive a timeline only where its own history leads there, so what it has replayed lies on that timeline or before it.
// The role needs pg_read_all_stats for that, which the sidecar grants; without it the timeline is zero.
func (c *Connections) ReplayLSN(ctx context.Context, s Server) (schema.Timeline, schema.LSN, error) {
	var timeline int64
	var lsn *uint64
	const ask = `SELECT coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0)::bigint, (pg_last_wal_replay_lsn() - '0/0')::bigint WHERE pg_is_in_recovery()`
	err := c.Do(ctx, s, Samples, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, ask).Scan(&timeline, &lsn)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && lsn == nil:
		return 0, 0, fmt.Errorf("%s: %w", s.Member, ErrNotStandby)
	case err != nil:
		return 0, 0, fmt.Errorf("how far the standby has replayed: %w", err)
	}
	return schema.Timeline(timeline), schema.LSN(*lsn), nil
}
