package sidecar

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// oneAnswer is a Lock that answers one question.
type oneAnswer struct {
	Lock
	view schema.LockView
	err  error
}

func (l oneAnswer) ReadLeader(context.Context) (schema.LockView, error) { return l.view, l.err }

func TestACopyGoesOnlyWhileTheLockIsAsItWas(t *testing.T) {
	const now = schema.Instant(time.Hour)
	then := schema.LockView{Known: true, Exists: true, Index: 70, Session: "s1", AskedAt: now.Add(-time.Second),
		Leader: schema.Leader{Member: "pg1", Epoch: 4, Phase: schema.PhaseServing}}
	for _, c := range []struct {
		name   string
		change func(*schema.LockView)
		decide func(*schema.LockView)
		err    error
		want   string
	}{
		{"a moment later", nil, nil, nil, ""},
		{"renewed meanwhile", func(v *schema.LockView) { v.Index = 90 }, func(v *schema.LockView) { v.AskedAt = now.Add(-time.Minute) }, nil, ""},
		{"not renewed for longer than a lease", nil, func(v *schema.LockView) { v.AskedAt = now.Add(-4 * time.Second) }, nil, "no longer renews"},
		{"consul does not answer", nil, nil, errors.New("no leader"), "cannot be read: no leader"},
		{"held by nobody", func(v *schema.LockView) { v.Session = "" }, nil, nil, "has changed"},
		{"gone", func(v *schema.LockView) { *v = schema.LockView{Known: true} }, nil, nil, "has changed"},
		{"held by another", func(v *schema.LockView) { v.Leader.Member = "pg3" }, nil, nil, `says "pg3"`},
		{"held by this one", func(v *schema.LockView) { v.Leader.Member = "pg2" }, nil, nil, `says "pg2"`},
		{"a later epoch", func(v *schema.LockView) { v.Leader.Epoch = 5 }, nil, nil, "epoch 5"},
		{"stopping", func(v *schema.LockView) { v.Leader.Phase = schema.PhaseStopping }, nil, nil, "stopping"},
		{"commits count on it now", func(v *schema.LockView) { v.Leader.Sync = schema.SyncSet{Need: 1, Standbys: []string{"pg2"}} }, nil, nil, "commits count on"},
	} {
		view, at := then, then
		if c.change != nil {
			c.change(&view)
		}
		if c.decide != nil {
			c.decide(&at)
		}
		s := &Sidecar{o: Options{Name: "pg2"}, d: Deps{Lock: oneAnswer{view: view, err: c.err}, Now: func() schema.Instant { return now }}}
		x := actor{s: s, config: schema.DefaultClusterConfig()}
		err := x.stillServes(t.Context(), decide.Action{Kind: decide.Clone, Holder: decide.Upstream{Member: "pg1"}, At: at})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
