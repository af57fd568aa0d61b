package schema_test

import (
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestPermanentSlots(t *testing.T) {
	physical := schema.PermanentSlot{Type: "physical"}
	logical := schema.PermanentSlot{Type: "logical", Database: "shop", Plugin: "pgoutput"}
	for name, c := range map[string]struct {
		slot  string
		is    schema.PermanentSlot
		level string // wal_level
		says  string // empty: allowed
	}{
		"physical":                {slot: "backup_1", is: physical},
		"longest name":            {slot: strings.Repeat("a", 63), is: physical},
		"logical":                 {slot: "feed", is: logical, level: "Logical"},
		"too long":                {slot: strings.Repeat("a", 64), is: physical, says: "1 to 63"},
		"empty name":              {slot: "", is: physical, says: "1 to 63"},
		"upper case":              {slot: "Backup", is: physical, says: "lower-case"},
		"hyphen":                  {slot: "back-up", is: physical, says: "lower-case"},
		"line break":              {slot: "backup\n", is: physical, says: "lower-case"},
		"a member's":              {slot: "howdah_pg1", is: physical, says: "members' own slots"},
		"no type":                 {slot: "backup", says: "choose physical or logical"},
		"physical with a plugin":  {slot: "backup", is: schema.PermanentSlot{Type: "physical", Plugin: "x"}, says: "no database and no plugin"},
		"logical, no database":    {slot: "feed", is: schema.PermanentSlot{Type: "logical", Plugin: "x"}, level: "logical", says: "needs a database and a plugin"},
		"logical, no plugin":      {slot: "feed", is: schema.PermanentSlot{Type: "logical", Database: "x"}, level: "logical", says: "needs a database and a plugin"},
		"logical without its WAL": {slot: "feed", is: logical, level: "replica", says: "wal_level=logical"},
		"logical by default":      {slot: "feed", is: logical, says: "wal_level=logical"},
	} {
		t.Run(name, func(t *testing.T) {
			config := schema.DefaultClusterConfig()
			config.Slots = map[string]schema.PermanentSlot{c.slot: c.is}
			if c.level != "" {
				config.Parameters = map[string]string{"wal_level": c.level}
			}
			err := config.Validate()
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("want %q, got %v", c.says, err)
			}
		})
	}
}
