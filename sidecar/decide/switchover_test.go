package decide

import (
	"strings"
	"testing"

	"howdah/consul/schema"
)

// A request that was carried out is dropped by the new primary, and nothing is called refused.
func TestARequestThatWasCarriedOutIsNotRefused(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		refused        bool
	}{
		{"we were named", "pg9", "pg1", false},
		{"whoever was the best, and we are", "pg9", "", false},
		{"somebody else was named", "pg9", "pg2", true},
		{"we are asked to hand over to ourselves", "pg1", "pg1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o.State.Request = schema.Doc[schema.Request]{Exists: true, Index: 5, Value: schema.Request{
				ID: "1", Kind: schema.RequestSwitchover, From: strings.Replace(c.from, "pg1", o.Name, 1), To: strings.Replace(c.to, "pg1", o.Name, 1),
			}}
			plan, after := Decide(o, m)
			refused := false
			for _, e := range plan.Events {
				refused = refused || strings.Contains(e.Detail, "refused")
			}
			dropped := false
			for _, a := range plan.Actions {
				dropped = dropped || a.Kind == DropRequest
			}
			if !dropped || refused != c.refused || after.Switch.To != "" {
				t.Errorf("dropped %v, refused %v, switch %+v", dropped, refused, after.Switch)
			}
		})
	}
}
