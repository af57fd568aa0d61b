package postgres

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// slotRow is a physical slot as the server has it.
type slotRow struct {
	name    string
	active  bool
	lost    bool // its WAL is gone: it can no longer be used
	restart schema.LSN
}

// slotStep is one change.
type slotStep struct {
	verb string // "drop", "create", "advance"
	name string
	to   schema.LSN // for advance
}

var howdahSlot = regexp.MustCompile(`^howdah_[a-z0-9_]{1,56}$`)

// planSlots says what to change so that the howdah_* slots become want. replay is this server's replay LSN
// if it is a standby, else zero. Slots that are in use are never dropped; others' slots are not looked at.
func planSlots(have []slotRow, want []Slot, replay schema.LSN) ([]slotStep, error) {
	wanted := map[string]bool{}
	for _, w := range want {
		if !howdahSlot.MatchString(w.Name) {
			return nil, fmt.Errorf("slot %q: want the form of SlotName, howdah_<member>", w.Name)
		}
		if wanted[w.Name] {
			return nil, fmt.Errorf("slot %q is wanted twice: two members' names differ only in letter case or in characters that a slot's name may not hold; rename one", w.Name)
		}
		wanted[w.Name] = true
	}
	var steps []slotStep
	usable := map[string]slotRow{}
	for _, h := range have {
		switch {
		case !howdahSlot.MatchString(h.name):
		case h.active || (wanted[h.name] && !h.lost):
			usable[h.name] = h
		default:
			steps = append(steps, slotStep{verb: "drop", name: h.name})
		}
	}
	for _, w := range want {
		h, ok := usable[w.Name]
		if !ok {
			steps = append(steps, slotStep{verb: "create", name: w.Name})
		}
		// A slot made just now begins at the last restartpoint, which may be past AdvanceTo: the next round advances it.
		if to := min(w.AdvanceTo, replay); ok && !h.active && h.restart != 0 && to > h.restart {
			steps = append(steps, slotStep{verb: "advance", name: w.Name, to: to})
		}
	}
	return steps, nil
}

// EnsureSlots makes this server's howdah_* physical slots be exactly want: missing ones are created with WAL
// reserved at once, ones not wanted are dropped unless they are in use, and on a standby those
// that nobody uses are advanced. Other slots are not touched. An empty want drops every unused
// howdah_* slot: give it only when the members are known for certain.
func (p *Postgres) EnsureSlots(ctx context.Context, want []Slot) error {
	err := p.duties.do(ctx, func(c *pgx.Conn) error {
		have, replay, err := readSlots(ctx, c)
		if err != nil {
			return err
		}
		steps, err := planSlots(have, want, replay)
		if err != nil {
			return err
		}
		for _, s := range steps {
			if err := p.slotStep(ctx, c, s); err != nil {
				return fmt.Errorf("%s slot %s: %w", s.verb, s.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ensure slots: %w", err)
	}
	return nil
}

func readSlots(ctx context.Context, c *pgx.Conn) (have []slotRow, replay schema.LSN, err error) {
	var at string
	if err := c.QueryRow(ctx, "SELECT coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END, '0/0')::text").Scan(&at); err != nil {
		return nil, 0, err
	}
	if replay, err = parseLSN(at); err != nil {
		return nil, 0, err
	}
	rows, err := c.Query(ctx, `SELECT slot_name::text, active, coalesce(wal_status = 'lost', false), coalesce(restart_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name`)
	if err != nil {
		return nil, 0, err
	}
	have, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s slotRow, err error) {
		var lsn string
		if err = r.Scan(&s.name, &s.active, &s.lost, &lsn); err == nil {
			s.restart, err = parseLSN(lsn)
		}
		return s, err
	})
	return have, replay, err
}

func (p *Postgres) slotStep(ctx context.Context, c *pgx.Conn, s slotStep) error {
	var err error
	switch s.verb {
	case "create":
		_, err = c.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", s.name)
	case "drop":
		_, err = c.Exec(ctx, "SELECT pg_drop_replication_slot($1)", s.name)
	case "advance":
		_, err = c.Exec(ctx, "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)", s.name, s.to.String())
	}
	if err == nil && s.verb != "advance" {
		p.log.Info("replication slot", zap.String("done", s.verb), zap.String("slot", s.name))
	}
	return err
}
