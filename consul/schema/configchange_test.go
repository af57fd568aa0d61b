package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestConfigHistoryIsBounded(t *testing.T) {
	var h schema.ConfigHistory
	for i := range 2 * schema.KeptConfigChanges {
		h = h.Add(schema.ConfigChange{By: fmt.Sprint(i), Changes: []string{"short", strings.Repeat("x", 1<<20), "after"}})
	}
	last := h.Changes[len(h.Changes)-1]
	if len(h.Changes) != schema.KeptConfigChanges || h.Changes[0].By != fmt.Sprint(schema.KeptConfigChanges) || last.By != fmt.Sprint(2*schema.KeptConfigChanges-1) {
		t.Errorf("%d changes from %s to %s", len(h.Changes), h.Changes[0].By, last.By)
	}
	if len(last.Changes) != 2 || last.Changes[1] != "and 2 more" {
		t.Errorf("got %.80q", last.Changes)
	}
}

func TestConfigChangesOfTheSame(t *testing.T) {
	c := schema.DefaultClusterConfig()
	if got := c.Changes(schema.DefaultClusterConfig()); got != nil {
		t.Error(got)
	}
}
