package cmd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

func TestReinit(t *testing.T) {
	for name, c := range map[string]struct {
		member, input string
		yes           bool
		prepare       func(*cluster)
		ordered       string
		says          string
	}{
		"agreed":              {"b", "y\n", false, nil, "reinit b", "2.0 GB in /data are thrown away, and cloned anew from a"},
		"by a script":         {"b", "", true, nil, "reinit b", "b: cloned, and streams again"},
		"declined":            {"b", "n\n", false, nil, "", "it wants a yes, or --yes"},
		"nobody to ask":       {"b", "", false, nil, "", "it wants a yes, or --yes"},
		"the primary":         {"a", "", true, nil, "", "a is the primary"},
		"nobody":              {"x", "", true, nil, "", `no member "x"`},
		"no source":           {"b", "", true, func(c *cluster) { c.plan.Refusal = "the primary is not heard of" }, "", "b refuses: the primary is not heard of"},
		"refused after all":   {"b", "", true, func(c *cluster) { c.refusal = errors.New("busy") }, "reinit b", "b refuses: busy"},
		"it comes to nothing": {"b", "", true, func(c *cluster) { c.fails = map[string]string{"b": "no space"} }, "reinit b", "the reinit came to nothing: no space"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			members := newCluster(t, "a", "b")
			members.plan = schema.ReinitPlan{DataDir: "/data", Bytes: 2 << 30, From: "a"}
			if c.prepare != nil {
				c.prepare(members)
			}
			stdio, out, _ := testStdio()
			stdio.In = strings.NewReader(c.input)
			r := NewReinit(stdio)
			r.API, r.APIToken, r.Name, r.Yes, r.Timeout = []string{members.addresses["a"]}, apiToken, c.member, c.yes, 5*time.Second
			err := r.Run(testContext(t))
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if got := strings.Join(members.ordered, ", "); got != c.ordered || !strings.Contains(text, c.says) {
				t.Errorf("ordered %q; want %q in\n%s", got, c.says, text)
			}
		})
	}
}
