package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"howdah/consul/schema"
)

const slotNames = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots WHERE slot_name NOT LIKE 'howdah%'"

// TestPermanentSlots makes, moves up and drops the slots of the configuration, and touches nobody else's.
func TestPermanentSlots(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	two.cloneOf(one)
	want := map[string]schema.PermanentSlot{"backup": {Type: schema.SlotPhysical}}
	ensure := func(m *member, says string) {
		t.Helper()
		err := m.EnsurePermanentSlots(t.Context(), want)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Fatalf("%s: want %q, got %v", m.o.Name, says, err)
		}
	}
	slots := func(m *member, names string) {
		t.Helper()
		if got := m.server.Query(slotNames); got != names {
			t.Fatalf("%s has the slots %q, want %q", m.o.Name, got, names)
		}
	}
	position := func(m *member) schema.LSN {
		t.Helper()
		at, err := parseLSN(m.server.Query("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'backup'"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, m := range []*member{one, two} {
		m.server.Exec("SELECT pg_create_physical_replication_slot('foreign', true)")
		ensure(m, "")
		slots(m, "backup,foreign")
	}

	// On the standby the slot goes as far as it has come on the primary, and no further.
	was := position(two)
	one.server.Exec("CREATE TABLE t AS SELECT generate_series(1, 10000)")
	end := one.probe().LSN
	two.waitReplayed(end)
	ensure(two, "")
	if got := position(two); got > max(position(one), was) {
		t.Fatalf("moved to %s, past the primary's %s", got, position(one))
	}
	one.server.Exec("SELECT pg_replication_slot_advance('backup', '" + end.String() + "')")
	ensure(two, "")
	if got := position(two); got != end {
		t.Fatalf("the slot is at %s, want %s", got, end)
	}

	// Of the same name and somebody else's: used if it fits, never dropped or changed.
	want["foreign"] = schema.PermanentSlot{Type: schema.SlotLogical, Database: "postgres", Plugin: "test_decoding"}
	ensure(one, "not howdah's")
	slots(one, "backup,foreign")
	want["foreign"] = schema.PermanentSlot{Type: schema.SlotPhysical}
	ensure(one, "")

	// A slot in use is kept, one that nobody names is dropped, unless somebody else made it.
	clear(want)
	for _, m := range []*member{one, two} {
		ensure(m, "")
		slots(m, "foreign")
	}

	// One that somebody made anew under a name that was ours is theirs.
	want["backup"] = schema.PermanentSlot{Type: schema.SlotPhysical}
	ensure(one, "")
	one.server.Exec("SELECT pg_drop_replication_slot('backup')")
	one.server.Exec("SELECT pg_create_physical_replication_slot('backup')")
	clear(want)
	ensure(one, "")
	slots(one, "backup,foreign")

	// The mark is still there after a restart, which reads the slot's directory.
	want["kept"] = schema.PermanentSlot{Type: schema.SlotPhysical}
	ensure(one, "")
	one.server.Kill()
	one.start()
	if _, err := os.Stat(filepath.Join(one.o.DataDir, "pg_replslot", "kept", slotMark)); err != nil {
		t.Fatal(err)
	}
	clear(want)
	ensure(one, "")
	slots(one, "backup,foreign")
}

// TestPermanentLogicalSlots makes logical slots on a primary only.
func TestPermanentLogicalSlots(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	want := map[string]schema.PermanentSlot{
		"a_nowhere": {Type: schema.SlotLogical, Database: "nowhere", Plugin: "test_decoding"},
		"feed":      {Type: schema.SlotLogical, Database: "postgres", Plugin: "pgoutput"},
	}
	if err := one.EnsurePermanentSlots(t.Context(), want); err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Fatalf("want a word about wal_level, got %v", err)
	}
	one.config.Parameters = map[string]string{"wal_level": "logical"}
	one.configure(Settings{Role: schema.RolePrimary})
	one.server.Kill()
	one.start()
	// A database that is not there does not keep the others' slots from being made.
	if err := one.EnsurePermanentSlots(t.Context(), want); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Fatalf("want a word about the database, got %v", err)
	}
	const made = "SELECT string_agg(slot_name || ' ' || plugin || ' ' || database, ',') FROM pg_replication_slots WHERE slot_type = 'logical'"
	if got := one.server.Query(made); got != "feed pgoutput postgres" {
		t.Fatal(got)
	}
	delete(want, "a_nowhere")
	two.config = one.config
	two.cloneOf(one)
	if err := two.EnsurePermanentSlots(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got := two.server.Query(slotNames); got != "" {
		t.Fatalf("the standby has %s", got)
	}
	// After a failover it is made anew.
	one.server.Kill()
	promoteAndCheck(t, two, 2)
	if err := two.EnsurePermanentSlots(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got := two.server.Query(slotNames); got != "feed" {
		t.Fatal(got)
	}
}

// The plan alone, for what takes a former primary, a lost slot or PostgreSQL 17.
func TestPlanPermanent(t *testing.T) {
	physical := schema.PermanentSlot{Type: schema.SlotPhysical}
	logical := schema.PermanentSlot{Type: schema.SlotLogical, Database: "d", Plugin: "p"}
	row := func(is schema.PermanentSlot, active, lost, synced, ours bool) permanentRow {
		return permanentRow{slotRow: slotRow{name: "s", active: active, lost: lost, restart: 1}, is: is, synced: synced, ours: ours}
	}
	for name, c := range map[string]struct {
		have    permanentRow
		want    schema.PermanentSlot // none: not named
		standby bool
		steps   string
	}{
		"a former primary's logical slot":      {have: row(logical, false, false, false, true), want: logical, standby: true, steps: "drop"},
		"one that PostgreSQL keeps":            {have: row(logical, false, false, true, true), want: logical, standby: true},
		"one that PostgreSQL keeps, not named": {have: row(logical, false, false, true, true), standby: true},
		"lost on a standby":                    {have: row(physical, false, true, false, true), want: physical, standby: true, steps: "drop create"},
		"lost on the primary":                  {have: row(physical, false, true, false, true), want: physical},
		"in use, not named":                    {have: row(physical, true, false, false, true)},
		"not named":                            {have: row(physical, false, false, false, true), steps: "drop"},
		"of another type":                      {have: row(physical, false, false, false, true), want: logical, steps: "drop create"},
		"another plugin":                       {have: row(logical, false, false, false, true), want: schema.PermanentSlot{Type: schema.SlotLogical, Database: "d", Plugin: "q"}, steps: "drop create"},
		"foreign on a standby":                 {have: row(physical, false, false, false, false), want: physical, standby: true},
		"foreign, not named":                   {have: row(physical, false, false, false, false), standby: true},
		"moved up":                             {have: row(physical, false, false, false, true), want: physical, standby: true, steps: "advance"},
	} {
		want := map[string]schema.PermanentSlot{}
		if c.want.Type != "" {
			want["s"] = c.want
		}
		source := map[string]schema.LSN{"s": 5}
		if strings.HasPrefix(name, "lost") {
			source = nil
		}
		steps, err := planPermanent([]permanentRow{c.have}, want, c.standby, 4, source)
		var got []string
		for _, s := range steps {
			got = append(got, s.verb)
			if s.verb == "advance" && s.to != 4 {
				t.Errorf("%s: moved to %s, past replay", name, s.to)
			}
		}
		if strings.Join(got, " ") != c.steps || err != nil {
			t.Errorf("%s: %v, %v; want %q", name, got, err, c.steps)
		}
	}
}
