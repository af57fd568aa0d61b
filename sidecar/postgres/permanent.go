package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// slotMark is the file in a permanent slot's directory that says that howdah made the slot. It lives and dies with it:
// pg_replslot is left out of base backups and emptied by pg_rewind, PostgreSQL removes the directory with the slot and
// looks at nothing else in it (RestoreSlotFromDisk, ReplicationSlotDropPtr of src/backend/replication/slot.c). A slot that
// lost its mark in a crash is taken for somebody else's: it is kept.
const slotMark = "howdah"

func (p *Postgres) slotMarkPath(slot string) string {
	return filepath.Join(p.o.DataDir, "pg_replslot", slot, slotMark)
}

// permanentRow is a slot as a server has it, besides the members' own.
type permanentRow struct {
	slotRow
	is     schema.PermanentSlot
	synced bool // kept by PostgreSQL 17 and newer after the primary's
	ours   bool // howdah made it
}

// planPermanent says what to change so that the slots become want. source is how far the upstream's slots are, of those
// that are known; replay is this server's replay LSN if it is a standby, else zero.
// Somebody else's slots are never dropped or moved, nor is one in use dropped.
func planPermanent(have []permanentRow, want map[string]schema.PermanentSlot, standby bool, replay schema.LSN, source map[string]schema.LSN) ([]slotStep, error) {
	var steps []slotStep
	var errs []error
	there := map[string]bool{}
	for _, h := range have {
		w, wanted := want[h.name]
		there[h.name] = wanted
		// On a standby a logical slot of its own is a former primary's: it holds WAL, and its catalog rows are not kept.
		fits := w == h.is && !(standby && w.Type == schema.SlotLogical) && !(standby && h.lost)
		switch {
		case h.synced && standby:
		case h.ours && !h.active && !(wanted && fits):
			steps = append(steps, slotStep{verb: "drop", name: h.name})
			there[h.name] = false
		case wanted && w != h.is:
			errs = append(errs, fmt.Errorf("slots.%s: there is a %s slot of this name that is in use or not howdah's; drop it, or choose another name", h.name, h.is.Type))
		case h.ours && wanted && standby && !h.active:
			if to := min(source[h.name], replay); h.restart != 0 && to > h.restart {
				steps = append(steps, slotStep{verb: "advance", name: h.name, to: to})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !there[name] && !(standby && want[name].Type == schema.SlotLogical) {
			steps = append(steps, slotStep{verb: "create", name: name})
		}
	}
	return steps, errors.Join(errs...)
}

// EnsurePermanentSlots makes the slots of the cluster's configuration be there: physical ones on every member, on a
// standby moved up to where the server it streams from has them, logical ones on a primary. One that want does not name
// is dropped if howdah made it and nobody uses it, so give want only where it is known for certain. One slot
// that fails does not keep the others from being seen to.
func (p *Postgres) EnsurePermanentSlots(ctx context.Context, want map[string]schema.PermanentSlot) error {
	var steps []slotStep
	var errs []error
	err := p.duties.do(ctx, func(c *pgx.Conn) error {
		_, replay, err := readSlots(ctx, c)
		if err != nil {
			return err
		}
		have, standby, err := p.readPermanent(ctx, c)
		if err != nil {
			return err
		}
		var source map[string]schema.LSN
		errs = nil
		if standby && slices.ContainsFunc(have, func(r permanentRow) bool { return r.ours }) {
			if source, err = p.sourceSlots(ctx, c); err != nil {
				errs = append(errs, err) // they stay where they are
			}
		}
		steps, err = planPermanent(have, want, standby, replay, source)
		errs = append(errs, err)
		return nil
	})
	if err != nil {
		return fmt.Errorf("ensure permanent slots: %w", err)
	}
	for _, s := range steps {
		if err := p.permanentStep(ctx, s, want[s.name]); err != nil {
			errs = append(errs, fmt.Errorf("%s slot %s: %w", s.verb, s.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ensure permanent slots: %w", err)
	}
	return nil
}

func (p *Postgres) readPermanent(ctx context.Context, c *pgx.Conn) (have []permanentRow, standby bool, err error) {
	if err := c.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return nil, false, err
	}
	rows, err := c.Query(ctx, `SELECT slot_name::text, active, coalesce(wal_status = 'lost', false), coalesce(restart_lsn, '0/0')::text,
		slot_type, coalesce(database::text, ''), coalesce(plugin::text, ''), coalesce((to_jsonb(s) ->> 'synced')::boolean, false)
		FROM pg_replication_slots s WHERE NOT temporary ORDER BY slot_name`)
	if err != nil {
		return nil, false, err
	}
	have, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s permanentRow, err error) {
		var lsn string
		if err = r.Scan(&s.name, &s.active, &s.lost, &lsn, &s.is.Type, &s.is.Database, &s.is.Plugin, &s.synced); err == nil {
			s.restart, err = parseLSN(lsn)
		}
		return s, err
	})
	have = slices.DeleteFunc(have, func(r permanentRow) bool { return strings.HasPrefix(r.name, "howdah_") })
	for i := range have {
		if have[i].ours, err = exists(p.slotMarkPath(have[i].name)); err != nil {
			return nil, false, err
		}
	}
	return have, standby, err
}

// sourceSlots asks the server that this one streams from how far the physical slots there are. Nothing where it
// streams from nobody.
func (p *Postgres) sourceSlots(ctx context.Context, c *pgx.Conn) (map[string]schema.LSN, error) {
	var u Upstream
	err := c.QueryRow(ctx, "SELECT coalesce(sender_host, ''), coalesce(sender_port, 0) FROM pg_stat_wal_receiver WHERE status = 'streaming'").Scan(&u.Host, &u.Port)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && u.Host == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	source, err := p.connectSource(ctx, u)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = source.Close(ctx)
	}()
	have, _, err := readSlots(ctx, source)
	if err != nil {
		return nil, remoteError(u, RewindRole, "rewind", err)
	}
	at := map[string]schema.LSN{}
	for _, h := range have {
		if !h.lost {
			at[h.name] = h.restart
		}
	}
	return at, nil
}

func (p *Postgres) permanentStep(ctx context.Context, s slotStep, is schema.PermanentSlot) error {
	if s.verb != "create" || is.Type == schema.SlotPhysical {
		if err := p.duties.do(ctx, func(c *pgx.Conn) error { return p.slotStep(ctx, c, s) }); err != nil {
			return err
		}
	} else if err := p.createLogical(ctx, s.name, is); err != nil {
		return err
	}
	if s.verb != "create" {
		return nil
	}
	// After the slot: a mark that came first could be left on somebody else's.
	_, err := writeFile(p.slotMarkPath(s.name), nil, 0o600)
	return err
}

// createLogical makes a logical slot, from PostgreSQL 17 on one that standbys keep too. It waits for the
// transactions that write, so it is bounded on the server as well.
func (p *Postgres) createLogical(ctx context.Context, name string, is schema.PermanentSlot) error {
	c, err := p.connectDatabase(ctx, is.Database)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = c.Close(ctx)
	}()
	if _, err := c.Exec(ctx, "SET statement_timeout = '2s'"); err != nil {
		return err
	}
	var version int
	if err := c.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	query := "SELECT pg_create_logical_replication_slot($1, $2)"
	if feat, err := featuresOf(version / 10000); err == nil && feat.slotSync {
		query = "SELECT pg_create_logical_replication_slot($1, $2, failover => true)"
	}
	if _, err := c.Exec(ctx, query, name, is.Plugin); err != nil {
		return err
	}
	p.log.Info("replication slot", zap.String("done", "create"), zap.String("slot", name), zap.String("database", is.Database))
	return nil
}
