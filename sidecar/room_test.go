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

// answers is a Lock that is asked again and again: it gives each view for one reading, and the last for all that follow.
type answers struct {
	Lock
	views []schema.LockView
	err   error
}

func (l *answers) ReadLeader(context.Context) (schema.LockView, error) {
	v := l.views[0]
	if len(l.views) > 1 {
		l.views = l.views[1:]
	}
	return v, l.err
}

func TestACopyGoesOnlyWhileTheLockIsAsItWas(t *testing.T) {
	const now = schema.Instant(time.Hour)
	then := schema.LockView{Known: true, Exists: true, Index: 70, Session: "s1", AskedAt: now.Add(-time.Second),
		Leader: schema.Leader{Member: "pg1", Epoch: 4, Phase: schema.PhaseServing}}
	for _, c := range []struct {
		name   string
		first  func(*schema.LockView) // what is read first
		second func(*schema.LockView) // and later
		err    error
		want   string
	}{
		{"renewed while it looks", nil, func(v *schema.LockView) { v.Index = 90 }, nil, ""},
		{"as it was, and not renewed", nil, nil, nil, "no longer renews"},
		{"renewed after it was decided, and not since", func(v *schema.LockView) { v.Index = 90 }, func(v *schema.LockView) { v.Index = 90 }, nil, "no longer renews"},
		{"consul does not answer", nil, nil, errors.New("no leader"), "cannot be read: no leader"},
		{"held by nobody", nil, func(v *schema.LockView) { v.Session = "" }, nil, "has changed"},
		{"gone", func(v *schema.LockView) { *v = schema.LockView{Known: true} }, nil, nil, "has changed"},
		{"held by another", nil, func(v *schema.LockView) { v.Index, v.Leader.Member = 90, "pg3" }, nil, `says "pg3"`},
		{"held by this one", func(v *schema.LockView) { v.Leader.Member = "pg2" }, nil, nil, `says "pg2"`},
		{"a later epoch", nil, func(v *schema.LockView) { v.Index, v.Leader.Epoch = 90, 5 }, nil, "epoch 5"},
		{"stopping", func(v *schema.LockView) { v.Leader.Phase = schema.PhaseStopping }, nil, nil, "stopping"},
		{"commits count on it now", nil, func(v *schema.LockView) {
			v.Index, v.Leader.Sync = 90, schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
		}, nil, "commits count on"},
	} {
		views := []schema.LockView{then, then}
		for i, change := range []func(*schema.LockView){c.first, c.second} {
			if change != nil {
				change(&views[i])
			}
		}
		at := now
		s := &Sidecar{o: Options{Name: "pg2"}, d: Deps{Lock: &answers{views: views, err: c.err}, Now: func() schema.Instant { at = at.Add(4 * time.Millisecond); return at }}}
		x := actor{s: s, config: schema.DefaultClusterConfig()}
		x.config.Lease = schema.Duration(20 * time.Millisecond)
		err := x.stillServes(t.Context(), decide.Action{Kind: decide.Clone, Holder: decide.Upstream{Member: "pg1"}, At: then})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
