package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
)

// probeSQL asks everything in one statement, because it runs every half second. pg_is_in_recovery is asked
// once, in r: a promotion between two calls would make the functions for the other role fail. The
// timeline of a primary comes from the name of the WAL file being written: the control
// file has the old one until the checkpoint after a promotion is done. wal_waits are those that write or sync WAL, or wait
// for the lock that whoever does so holds; PostgreSQL 17 spells the events WalWrite and so on (wait_event_names.txt). transactions are those of clients that have
// not failed: what is howdah's own is left out, by the application_name of the sidecar and the role of routers.
const probeSQL = `
SELECT json_build_object(
  'in_recovery', r.rec,
  'system_id', s.system_identifier::text,
  'version', current_setting('server_version_num')::int,
  'timeline', CASE WHEN r.rec THEN greatest(w.received_tli, m.min_recovery_end_timeline, c.timeline_id)::bigint
                   ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END,
  'flush', CASE WHEN r.rec THEN NULL ELSE pg_current_wal_flush_lsn() END,
  'receive', CASE WHEN r.rec THEN pg_last_wal_receive_lsn() END,
  'replay', CASE WHEN r.rec THEN pg_last_wal_replay_lsn() END,
  'paused', CASE WHEN r.rec THEN pg_is_wal_replay_paused() ELSE false END,
  'redo', c.redo_lsn,
  'receiver', CASE WHEN w.status IS NOT NULL THEN json_build_object(
     'status', w.status, 'host', w.sender_host, 'port', w.sender_port, 'timeline', w.received_tli,
     'flushed', w.flushed_lsn, 'latest_end', w.latest_end_lsn,
     'silence', extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time)) END,
  'replicas', (SELECT json_agg(json_build_object(
     'name', application_name, 'state', state, 'sync', sync_state, 'sent', sent_lsn, 'flush', flush_lsn, 'replay', replay_lsn,
     'silence', extract(epoch FROM clock_timestamp() - reply_time))) FROM pg_stat_replication),
  'waiting', (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND wait_event_type = 'IPC'),
  'wal_waits', CASE WHEN r.rec THEN 0 ELSE (SELECT count(*) FROM pg_stat_activity
     WHERE wait_event_type = 'IO' AND lower(wait_event) IN ('walwrite', 'walsync', 'walinitwrite', 'walinitsync')
        OR wait_event_type = 'LWLock' AND lower(wait_event) = 'walwrite') END,
  'transactions', CASE WHEN r.rec THEN NULL ELSE (SELECT json_build_object(
     'count', count(*), 'oldest', coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND state IN ('active', 'idle in transaction', 'fastpath function call')
       AND pid <> pg_backend_pid() AND application_name <> 'howdah' AND usename IS DISTINCT FROM '` + RouterRole + `') END,
  'pending_restart', (SELECT json_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart))
FROM (SELECT pg_is_in_recovery() AS rec OFFSET 0) r
CROSS JOIN pg_control_system() s CROSS JOIN pg_control_checkpoint() c CROSS JOIN pg_control_recovery() m
LEFT JOIN pg_stat_wal_receiver w ON true`

// probeRow is the answer to probeSQL. LSNs that are NULL stay zero.
type probeRow struct {
	InRecovery   bool            `json:"in_recovery"`
	SystemID     string          `json:"system_id"`
	Version      int             `json:"version"`
	Timeline     schema.Timeline `json:"timeline"`
	Flush        schema.LSN      `json:"flush"`
	Receive      schema.LSN      `json:"receive"`
	Replay       schema.LSN      `json:"replay"`
	Redo         schema.LSN      `json:"redo"`
	Paused       bool            `json:"paused"`
	Receiver     *receiverRow    `json:"receiver"`
	Replicas     []replicaRow    `json:"replicas"`
	Waiting      int             `json:"waiting"`
	WALWaits     int             `json:"wal_waits"`
	Transactions struct {
		Count  int     `json:"count"`
		Oldest float64 `json:"oldest"` // seconds
	} `json:"transactions"`
	PendingRestart []string `json:"pending_restart"`
}

type receiverRow struct {
	Status    string          `json:"status"`
	Host      string          `json:"host"`
	Port      int             `json:"port"`
	Timeline  schema.Timeline `json:"timeline"`
	Flushed   schema.LSN      `json:"flushed"`
	LatestEnd schema.LSN      `json:"latest_end"`
	Silence   float64         `json:"silence"`
}

type replicaRow struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`
	Sync    string     `json:"sync"`
	Sent    schema.LSN `json:"sent"`
	Flush   schema.LSN `json:"flush"`
	Replay  schema.LSN `json:"replay"`
	Silence float64    `json:"silence"`
}

// Probe asks the running server how it is: one statement on one kept connection, bounded by ctx.
// errors.Is tells ErrNotListening, ErrNotReady and ErrPassword; anything else is unknown.
func (p *Postgres) Probe(ctx context.Context) (Probe, error) {
	var answer []byte
	err := p.probes.do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, probeSQL).Scan(&answer)
	})
	if err != nil {
		return Probe{}, fmt.Errorf("probe: %w", err)
	}
	return parseProbe(answer)
}

func parseProbe(answer []byte) (Probe, error) {
	var r probeRow
	if err := json.Unmarshal(answer, &r); err != nil {
		return Probe{}, fmt.Errorf("probe: answer %q: %w", clip(string(answer)), err)
	}
	p := Probe{
		InRecovery: r.InRecovery, SystemID: r.SystemID, ServerVersionNum: r.Version, Timeline: r.Timeline,
		LSN: r.Flush, ReceiveLSN: r.Receive, ReplayLSN: r.Replay, RedoLSN: r.Redo,
		WaitingSyncCommits: r.Waiting, WALWaits: r.WALWaits, Transactions: r.Transactions.Count, OldestTransaction: seconds(r.Transactions.Oldest), PendingRestart: r.PendingRestart, ReplayPaused: r.Paused,
	}
	if r.InRecovery {
		p.LSN = max(r.Receive, r.Replay)
	}
	if w := r.Receiver; w != nil {
		p.Receiver = Receiver{Status: w.Status, Host: w.Host, Port: w.Port, Timeline: w.Timeline,
			FlushedLSN: w.Flushed, LatestEndLSN: w.LatestEnd, Silence: seconds(w.Silence)}
	}
	for _, x := range r.Replicas {
		p.Replicas = append(p.Replicas, Replica{Name: x.Name, State: x.State, Sync: x.Sync,
			SentLSN: x.Sent, FlushLSN: x.Flush, ReplayLSN: x.Replay, Silence: seconds(x.Silence)})
	}
	slices.SortStableFunc(p.Replicas, func(a, b Replica) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(b.FlushLSN, a.FlushLSN))
	})
	return p, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
