package detector

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"

	"howdah/consul/schema"
)

// at returns an instant so many milliseconds from some beginning.
func at(ms int) schema.Instant {
	return schema.Instant(time.Hour).Add(time.Duration(ms) * time.Millisecond)
}

func word(name string, generation, number uint64) held {
	return held{Generation: generation, Number: number, Status: schema.Status{Name: name, Cluster: "test", Seq: number, Instance: fmt.Sprint(generation)}}
}

func nodeWith(t *testing.T, name string, m meta) memberlist.Node {
	t.Helper()
	m.Kind, m.Cluster = KindMember, "test"
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return memberlist.Node{Name: name, Addr: []byte{127, 0, 0, 1}, Port: 1, Meta: b}
}

func TestOrderOfStatuses(t *testing.T) {
	tb := newTable("self", "test", LAN())
	shown := func() string {
		s := tb.snapshot()[0].Status
		return fmt.Sprintf("%s/%d", s.Instance, s.Seq)
	}
	for i, c := range []struct {
		h        held
		direct   bool
		at       int
		taken    bool
		conflict bool
		shown    string
	}{
		{word("a", 10, 5), true, 0, true, false, "10/5"},
		{word("a", 10, 4), true, 10, false, false, "10/5"},
		{word("a", 10, 5), true, 20, false, false, "10/5"},
		{word("a", 10, 6), false, 30, true, false, "10/6"},
		{word("a", 12, 1), false, 40, true, false, "12/1"},
		{word("a", 10, 7), true, 50, false, false, "12/1"},
		{word("a", 10, 999), false, 60, false, false, "12/1"},
		{word("a", 12, 2), true, 70, true, false, "12/2"},
		{word("a", 10, 1000), true, 1900, false, false, "12/2"},
		{word("a", 10, 1001), true, 2100, false, true, "12/2"},
	} {
		var taken, conflict bool
		if c.direct {
			taken, conflict = tb.direct(c.h, at(c.at))
		} else {
			taken = tb.relayed(c.h, at(c.at))
		}
		if taken != c.taken || conflict != c.conflict || shown() != c.shown {
			t.Errorf("step %d: taken %t, conflict %t, shows %s; want %+v", i, taken, conflict, shown(), c)
		}
	}
}

func TestAgeOfStatuses(t *testing.T) {
	tb := newTable("self", "test", LAN())
	h := word("a", 1, 1)
	h.Age = schema.Duration(700 * time.Millisecond)
	tb.relayed(h, at(0))
	if p := tb.snapshot()[0]; p.HeardAt != at(-700) || p.Liveness != schema.LivenessUnknown {
		t.Errorf("relayed: %+v", p)
	}
	if out := tb.statuses(at(300)); out[0].Age.D() != time.Second {
		t.Errorf("passed on with age %s", out[0].Age)
	}
	// The same word once more makes it no younger.
	tb.direct(word("a", 1, 1), at(500))
	if p := tb.snapshot()[0]; p.HeardAt != at(-700) {
		t.Errorf("heard at %d", p.HeardAt)
	}
	h = word("b", 1, 1)
	h.Age = schema.Duration(LAN().ForgetAfter + 1)
	if tb.relayed(h, at(0)) || len(tb.peers) != 1 {
		t.Error("what was forgotten came back")
	}
}

func TestMetaStandsInForAStatus(t *testing.T) {
	tb := newTable("self", "test", LAN())
	m := meta{Role: schema.RolePrimary, Epoch: 4, Generation: 7, Addresses: schema.Addresses{Postgres: "h:1"}}
	event := func(m meta, ms int) {
		t.Helper()
		if err := tb.event(nodeEvent{node: nodeWith(t, "a", m)}, at(ms)); err != nil {
			t.Fatal(err)
		}
	}
	event(m, 0)
	p := tb.snapshot()[0]
	if p.Status.Role != schema.RolePrimary || p.Status.Epoch != 4 || p.Status.State != schema.StateUnknown || p.HeardAt != at(0) || p.Liveness != schema.LivenessAlive {
		t.Errorf("%+v", p)
	}
	if len(tb.statuses(at(1))) != 0 {
		t.Error("metadata was passed on as a status")
	}
	tb.direct(word("a", 7, 1), at(10))
	m.Epoch = 5
	event(m, 20)
	if p := tb.snapshot()[0]; p.Status.Seq != 1 || p.Status.Epoch != 0 {
		t.Errorf("metadata replaced a status: %+v", p.Status)
	}
	m.Generation = 8
	event(m, 30)
	if p := tb.snapshot()[0]; p.Status.Epoch != 5 || p.Status.Seq != 0 {
		t.Errorf("metadata of a newer process did not: %+v", p.Status)
	}
	if err := tb.event(nodeEvent{node: memberlist.Node{Name: "x", Meta: []byte{0}}}, at(40)); !errors.Is(err, errMeta) {
		t.Errorf("%v", err)
	}
}

func TestLivenessInTheTable(t *testing.T) {
	tm := LAN()
	tb := newTable("self", "test", tm)
	n := nodeWith(t, "a", meta{Generation: 1})
	is := func(want schema.Liveness, ms int) {
		t.Helper()
		tb.wake(at(ms))
		tb.tick(at(ms))
		if got := tb.snapshot()[0].Liveness; got != want {
			t.Errorf("at %d: %s, want %s", ms, got, want)
		}
	}
	steps := func(from, to int) {
		for ms := from; ms <= to; ms += 100 {
			tb.wake(at(ms))
		}
	}
	tb.wake(at(0))
	tb.event(nodeEvent{node: n}, at(0))
	is(schema.LivenessAlive, 400)
	steps(400, 600)
	is(schema.LivenessSuspect, 600)
	tb.direct(word("a", 1, 1), at(700))
	is(schema.LivenessAlive, 700)

	// This process sleeps: the others' silence, and a death found on waking, are not believed at once.
	tb.wake(at(5000))
	tb.event(nodeEvent{node: n, gone: true}, at(5000))
	is(schema.LivenessSuspect, 5000)
	steps(5000, 5800)
	is(schema.LivenessSuspect, 5800)
	steps(5800, 6000)
	is(schema.LivenessDead, 6000)
	if len(tb.targets()) != 0 {
		t.Error("a dead node is a target")
	}

	// Another pause does not take back what was believed.
	is(schema.LivenessDead, 7000)

	tb.event(nodeEvent{node: n}, at(7100))
	is(schema.LivenessAlive, 7100)
	tb.event(nodeEvent{node: nodeWith(t, "a", meta{Generation: 1, Leaving: true}), gone: true}, at(7200))
	is(schema.LivenessLeft, 7200)

	var path []string
	for _, tr := range tb.takeTransitions() {
		path = append(path, string(tr.to))
	}
	if diff := cmp.Diff([]string{"alive", "suspect", "alive", "suspect", "dead", "alive", "left"}, path); diff != "" {
		t.Error(diff)
	}
	tb.tick(at(7201).Add(tm.ForgetAfter))
	if len(tb.snapshot()) != 0 {
		t.Error("it was not forgotten")
	}
}

func TestConflictsNeedRepetition(t *testing.T) {
	c := newConflicts(LAN())
	if c.note("a", false, at(0)) || c.note("a", false, at(500)) || len(c.names(at(600))) != 0 {
		t.Error("a restart on another address was called a conflict")
	}
	if !c.note("a", false, at(2500)) || c.note("a", false, at(2600)) {
		t.Error("a conflict must become certain once")
	}
	if !c.note("b", true, at(2600)) || !cmp.Equal(c.names(at(2700)), []string{"a", "b"}) {
		t.Errorf("%v", c.names(at(2700)))
	}
	if names := c.names(at(2700).Add(3 * LAN().PushPullInterval)); len(names) != 0 {
		t.Errorf("%v did not end", names)
	}
	if c.note("a", false, at(60000)) {
		t.Error("an old sign counted")
	}
}
