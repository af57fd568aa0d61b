package conformance

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/consul/schema"
)

func configChanges(r *room) {
	read := func() schema.Doc[schema.ConfigHistory] {
		r.Helper()
		h, err := r.client.ReadConfigHistory(r.ctx)
		r.must(err)
		return h
	}
	if h := read(); h.Exists || h.Index != 0 {
		r.Fatalf("an empty history reads as %+v", h)
	}
	config := schema.DefaultClusterConfig()
	r.must(r.client.PutConfig(r.ctx, config, 0))
	config.Lease = schema.Duration(5 * time.Second)
	at := r.state().Config.Index
	h := schema.ConfigHistory{}.Add(schema.ConfigChange{At: time.Unix(1700000000, 0).UTC(), By: "me@here", Changes: []string{"lease: 3s -> 5s"}})
	r.must(r.client.ChangeConfig(r.ctx, config, at, h, 0))
	s, got := r.state(), read()
	if d := cmp.Diff([]any{config, h}, []any{s.Config.Value, got.Value}); d != "" || got.Index != s.Config.Index {
		r.Errorf("not what was written, or not at once:\n%s", d)
	}
	// Either of the two is enough to refuse both.
	r.conflict("an old configuration", r.client.ChangeConfig(r.ctx, config, at, h, got.Index))
	r.conflict("an old history", r.client.ChangeConfig(r.ctx, config, s.Config.Index, h, 0))
	if r.state().Config.Index != s.Config.Index || read().Index != got.Index {
		r.Error("a refused change changed something")
	}
	if err := r.client.ChangeConfig(r.ctx, schema.ClusterConfig{}, s.Config.Index, h, got.Index); err == nil {
		r.Error("a configuration that is not valid was written")
	}
}
