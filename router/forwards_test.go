package router

import (
	"testing"
	"time"

	"howdah/consul/schema"
)

func TestForwardsAreBounded(t *testing.T) {
	var f forwards
	now := schema.Instant(time.Hour)
	begin := func(want bool, n int) {
		t.Helper()
		for i := range n {
			if got := f.begin(now); got != want {
				t.Fatalf("number %d: %v", i, got)
			}
		}
	}
	begin(true, maxForwards)
	begin(false, 1)
	for range maxForwards {
		f.end()
	}
	for range forwardRate - maxForwards {
		begin(true, 1)
		f.end()
	}
	begin(false, 1)
	now = now.Add(time.Second - 1)
	begin(false, 1)
	now++
	begin(true, 1)
}

func TestForwardsKnowRouters(t *testing.T) {
	var f forwards
	if f.marked(1) != nil {
		t.Error("somebody is known before anything was heard")
	}
	peer := func(name, kind, cluster string, l schema.Liveness) schema.Peer {
		return schema.Peer{Name: name, Kind: kind, Liveness: l, Status: schema.Status{Name: name, Cluster: cluster}}
	}
	f.learn([]schema.Peer{
		peer("alive", "router", "c", schema.LivenessAlive), peer("suspect", "router", "c", schema.LivenessSuspect),
		peer("self", "router", "c", schema.LivenessAlive), peer("pg1", "member", "c", schema.LivenessAlive),
		peer("foreign", "router", "d", schema.LivenessAlive), peer("dead", "router", "c", schema.LivenessDead), peer("left", "router", "c", schema.LivenessLeft),
	}, "c", "self")
	if got := *f.routers.Load(); len(got) != 2 || got[0] != "alive" || got[1] != "suspect" {
		t.Errorf("known: %v", got)
	}
}
