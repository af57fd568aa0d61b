package schema

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The types of replication slots, as pg_replication_slots.slot_type has them.
const (
	SlotPhysical = "physical"
	SlotLogical  = "logical"
)

// PermanentSlot is a replication slot that howdah keeps for somebody else than its members: a physical one on every
// member, a logical one on the primary.
type PermanentSlot struct {
	Type string `json:"type"`
	// Database and Plugin belong to a logical slot, and to no other.
	Database string `json:"database,omitempty"`
	Plugin   string `json:"plugin,omitempty"`
}

// slotName is ReplicationSlotValidateName of src/backend/replication/slot.c with NAMEDATALEN 64.
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// memberSlotPrefix begins the names of the members' own slots.
const memberSlotPrefix = "howdah_"

// checkSlots returns every mistake in the permanent slots.
func (c ClusterConfig) checkSlots() []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Slots)) {
		s := c.Slots[name]
		wrong := func(why string) { errs = append(errs, fmt.Errorf("slots.%s: %s", name, why)) }
		if !slotName.MatchString(name) {
			wrong("the name is not allowed; use 1 to 63 lower-case letters, digits and underscores")
		}
		if strings.HasPrefix(name, memberSlotPrefix) {
			wrong("names that begin with howdah_ are the members' own slots; choose another")
		}
		switch s.Type {
		case SlotPhysical:
			if s.Database != "" || s.Plugin != "" {
				wrong("a physical slot has no database and no plugin; take them out or choose type logical")
			}
		case SlotLogical:
			if s.Database == "" || s.Plugin == "" {
				wrong("a logical slot needs a database and a plugin, such as pgoutput")
			}
		default:
			wrong(fmt.Sprintf("type %q is not allowed; choose physical or logical", s.Type))
		}
	}
	if c.LogicalSlots() && !strings.EqualFold(c.walLevel(), "logical") {
		errs = append(errs, errors.New("slots: logical slots need parameters.wal_level=logical, which a restart heeds; set it as well"))
	}
	return errs
}

func (c ClusterConfig) walLevel() string {
	for name, value := range c.Parameters {
		if strings.EqualFold(name, "wal_level") {
			return value
		}
	}
	return ""
}

// LogicalSlots reports whether any permanent slot is a logical one.
func (c ClusterConfig) LogicalSlots() bool {
	for _, s := range c.Slots {
		if s.Type == SlotLogical {
			return true
		}
	}
	return false
}
