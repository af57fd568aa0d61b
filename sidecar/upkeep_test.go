package sidecar

import (
	"context"
	"slices"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/postgres"
)

// countingServer counts how often slots were seen to.
type countingServer struct {
	Server
	slots     int
	permanent []int
}

func (c *countingServer) EnsureSlots(context.Context, []postgres.Slot) error { c.slots++; return nil }

// A Postgres that was started anew may have been cloned, without slots: a failover to it must not wait for the next round.
func TestSlotsAfterAClone(t *testing.T) {
	server := &countingServer{}
	u := &upkeep{s: &Sidecar{o: Options{Name: "pg1"}, d: Deps{Server: server}}}
	at := schema.Instant(time.Hour)
	for i, c := range []struct {
		now, started schema.Instant
		members      []string
		want         int
	}{
		{at, at, []string{"pg1", "pg2"}, 1},
		{at.Add(time.Second), at, []string{"pg1", "pg2"}, 1},
		{at.Add(2 * time.Second), at.Add(time.Second), []string{"pg1", "pg2"}, 2},
		{at.Add(3 * time.Second), at.Add(time.Second), []string{"pg1", "pg2", "pg3"}, 3},
		{at.Add(3*time.Second + slowUpkeep), at.Add(time.Second), []string{"pg1", "pg2", "pg3"}, 4},
	} {
		if err := u.slots(t.Context(), duties{now: c.now, started: c.started, members: c.members}); err != nil || server.slots != c.want {
			t.Errorf("%d: seen to %d times, want %d (%v)", i, server.slots, c.want, err)
		}
	}
}

func (c *countingServer) EnsurePermanentSlots(_ context.Context, want map[string]schema.PermanentSlot) error {
	c.permanent = append(c.permanent, len(want))
	return nil
}

// Slots that the configuration names no longer are dropped, so a configuration that was never read is not one without slots.
func TestPermanentSlotsNeedTheConfiguration(t *testing.T) {
	server := &countingServer{}
	u := &upkeep{s: &Sidecar{o: Options{Name: "pg1"}, d: Deps{Server: server}}}
	d := duties{now: schema.Instant(time.Hour)}
	see := func(want ...int) {
		t.Helper()
		if err := u.permanentSlots(t.Context(), d); err != nil || !slices.Equal(server.permanent, want) {
			t.Errorf("seen to with %v slots, want %v (%v)", server.permanent, want, err)
		}
	}
	see()
	d.state.Config.Exists = true
	d.state.Config.Value.Slots = map[string]schema.PermanentSlot{"backup": {Type: schema.SlotPhysical}}
	see(1)
	see(1)
	d.now = d.now.Add(slowUpkeep)
	see(1, 1)
	d.serving = true // a new primary does not wait for the next round
	see(1, 1, 1)
	d.started = d.now // a clone comes without slots
	see(1, 1, 1, 1)
}

// documents keeps the member document that was put last.
type documents struct {
	Documents
	put schema.Member
}

func (d *documents) PutMember(_ context.Context, m schema.Member, _ uint64) error {
	d.put = m
	return nil
}

// Tags that change while the sidecar runs reach what decides, and the document in Consul.
func TestTagsChangeWhileRunning(t *testing.T) {
	docs := &documents{}
	s := &Sidecar{o: Options{Name: "pg1"}, d: Deps{Documents: docs}}
	want := schema.Tags{Priority: 3, NoFailover: true}
	if err := s.SetTags(want); err == nil {
		t.Error("tags were taken before there is a loop")
	}
	s.loop = &loop{s: s, ctx: t.Context(), mail: make(chan func(), 1), wakeUpkeep: make(chan struct{}, 1)}
	s.running.Store(true)
	if err := s.SetTags(want); err != nil {
		t.Fatal(err)
	}
	s.loop.drain()
	u := &upkeep{s: s}
	if err := u.member(t.Context(), s.loop.duties()); err != nil || docs.put.Tags != want || s.loop.obs.Tags != want {
		t.Errorf("document %+v, observation %+v, want %+v (%v)", docs.put.Tags, s.loop.obs.Tags, want, err)
	}
	select {
	case <-s.loop.wakeUpkeep:
	default:
		t.Error("upkeep was not woken")
	}
}
