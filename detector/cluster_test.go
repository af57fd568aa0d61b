package detector

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"howdah/consul/schema"
)

func st(seq uint64) schema.Status {
	return schema.Status{Role: schema.RoleStandby, State: schema.StateStreaming, Epoch: 2, LSN: schema.LSN(seq), Seq: seq}
}

func heard(d *Detector, name string, seq uint64) func() bool {
	return func() bool { p := find(d, name); return p.Status.Seq == seq && p.Liveness == schema.LivenessAlive }
}

func TestEverybodyLearnsOfEverybody(t *testing.T) {
	t.Parallel()
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	rc := config("router", b.Addr())
	rc.Kind = KindRouter
	r := start(t, rc)
	for i, d := range []*Detector{a, b, r} {
		d.Publish(st(uint64(10 + i)))
	}
	until(t, a, "router's status", heard(a, "router", 12))
	until(t, r, "a's status", heard(r, "a", 10))
	until(t, b, "a's status", heard(b, "a", 10))
	p := find(a, "router")
	if p.Kind != KindRouter || p.Status.Cluster != "test" || p.Status.Instance != "instance of router" || p.HeardAt == schema.Never {
		t.Errorf("%+v", p)
	}
	if l, since := a.LivenessSince("router"); l != schema.LivenessAlive || since == schema.Never || since > now() {
		t.Errorf("%s since %d", l, since)
	}
	if l, since := a.LivenessSince("nobody"); l != schema.LivenessUnknown || since != schema.Never {
		t.Errorf("%s since %d", l, since)
	}
	if peers := b.Peers(); len(peers) != 2 || peers[0].Name != "a" || peers[1].Name != "router" {
		t.Errorf("b's peers: %+v", peers)
	}

	// A newcomer learns all statuses by its first exchange, that of a dead process too.
	crash(b)
	until(t, a, "b is dead", sees(a, "b", schema.LivenessDead))
	c := start(t, config("c", a.Addr()))
	until(t, c, "b's last status", func() bool { return find(c, "b").Status.Seq == 11 && find(c, "router").Status.Seq == 12 })
	if p := find(c, "b"); p.Liveness == schema.LivenessAlive || now().Sub(p.HeardAt) < 500*time.Millisecond {
		t.Errorf("b, which c never met: %+v", p)
	}
	m := a.Metrics()
	if m.Peers[schema.LivenessAlive] != 2 || m.Peers[schema.LivenessDead] != 1 || m.StatusesSent == 0 || m.StatusesHeard < 1 || m.Dropped+m.Malformed+m.Foreign != 0 {
		t.Errorf("%+v", m)
	}
}

func TestPublishReachesOthersAtOnce(t *testing.T) {
	tm := quick()
	tm.StatusInterval, tm.SuspectAfter = 10*time.Second, 20*time.Second
	ca := config("a")
	ca.Timing = tm
	a := start(t, ca)
	cb := config("b", a.Addr())
	cb.Timing = tm
	b := start(t, cb)
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	until(t, b, "a", sees(b, "a", schema.LivenessAlive))
	var longest time.Duration
	for seq := uint64(1); seq <= 50; seq++ {
		began := time.Now()
		a.Publish(st(seq))
		until(t, b, "the status", heard(b, "a", seq))
		longest = max(longest, time.Since(began))
	}
	t.Logf("longest of 50 from Publish to Peers of another process, found by polling: %s", longest)
	if longest > 400*time.Millisecond {
		t.Errorf("took %s, so it waited for a push/pull", longest)
	}
}

func TestOversizedStatusGoesOverTCP(t *testing.T) {
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	s := st(1)
	s.Reason = strings.Repeat("long ", 1000)
	a.Publish(s)
	until(t, b, "the status", heard(b, "a", 1))
	if find(b, "a").Status.Reason != s.Reason || a.Metrics().StatusesOversized == 0 {
		t.Errorf("%+v", a.Metrics())
	}
	s.Reason, s.Seq = "", 2
	s.Addresses.API = strings.Repeat("x", 600)
	a.Publish(s)
	until(t, b, "a status with an address too long for metadata", heard(b, "a", 2))
}

func TestRoleAndEpochTravelByMetadata(t *testing.T) {
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	s := st(1)
	s.Role, s.Epoch, s.Addresses = schema.RolePrimary, 9, schema.Addresses{Postgres: "db:5432"}
	b.Publish(s)
	until(t, a, "the metadata", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		m, err := decodeMeta(a.table.peers["b"].node.Meta)
		return err == nil && m.Role == schema.RolePrimary && m.Epoch == 9 && m.Addresses.Postgres == "db:5432"
	})
}

func TestRestartSupersedes(t *testing.T) {
	t.Parallel()
	a := start(t, config("a"))
	first := start(t, config("b", a.Addr()))
	first.Publish(st(1000))
	until(t, a, "the first b", heard(a, "b", 1000))
	crash(first)
	second := start(t, config("b", a.Addr())) // on another port
	second.Publish(st(1))
	until(t, a, "the second b", heard(a, "b", 1))
	if c := a.Conflicts(); len(c) != 0 {
		t.Errorf("a restart was called a conflict: %v", c)
	}

	// The third runs by a clock that was set back; it passes what the others remember.
	crash(second)
	c := config("b", a.Addr())
	c.generation = 5
	third := start(t, c)
	third.Publish(st(2))
	until(t, a, "the third b", heard(a, "b", 2))
}

func TestDepartureIsNotDeath(t *testing.T) {
	t.Parallel()
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	c := start(t, config("c", a.Addr()))
	until(t, c, "b", sees(c, "b", schema.LivenessAlive))
	stop(t, b)
	until(t, a, "b left", sees(a, "b", schema.LivenessLeft))
	until(t, c, "b left", sees(c, "b", schema.LivenessLeft))
	again := start(t, config("b", a.Addr()))
	until(t, c, "b is back", sees(c, "b", schema.LivenessAlive))
	until(t, again, "c", sees(again, "c", schema.LivenessAlive))
}

func TestALoneStartAndASeedThatComesLater(t *testing.T) {
	// A port that is free now and taken later.
	probe := start(t, config("probe"))
	seed := probe.Addr()
	stop(t, probe)
	a := start(t, config("a", seed, "no-such.invalid:1", "localhost:1"))
	until(t, a, "three problems", func() bool { return len(a.JoinProblems()) == 3 })
	for _, p := range a.JoinProblems() {
		if p.Err == nil || p.Since == schema.Never || errors.Is(p.Err, ErrWrongKey) {
			t.Errorf("%+v", p)
		}
	}
	c := config("b")
	c.Bind = seed
	b := start(t, c)
	until(t, a, "the seed", sees(a, "b", schema.LivenessAlive))
	until(t, b, "who joined", sees(b, "a", schema.LivenessAlive))
	until(t, a, "one problem less", func() bool { return len(a.JoinProblems()) == 2 })
	if err := a.Join([]string{"nonsense", b.Addr()}); err == nil {
		t.Error("an address without a port was taken")
	}
}

func TestWrongKeyCannotJoin(t *testing.T) {
	core, seen := observer.New(zap.WarnLevel)
	a := startLogged(t, config("a"), zap.New(core))
	c := config("b", a.Addr())
	c.Keys = [][]byte{key(2)}
	b := startLogged(t, c, zap.NewNop())
	until(t, b, "the problem", func() bool {
		p := b.JoinProblems()
		return len(p) == 1 && errors.Is(p[0].Err, ErrWrongKey) && strings.Contains(p[0].Err.Error(), "same key file")
	})
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Errorf("%v %v", a.Peers(), b.Peers())
	}
	until(t, a, "a word in the log", func() bool { return seen.FilterMessageSnippet(noKey).Len() > 0 })
	if n := seen.Len(); n > 3 {
		t.Errorf("%d warnings", n)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	core, seen := observer.New(zap.WarnLevel)
	a := startLogged(t, config("a"), zap.New(core))
	c := config("b", a.Addr())
	c.Cluster = "other"
	b := startLogged(t, c, zap.NewNop())
	until(t, b, "the problem", func() bool {
		p := b.JoinProblems()
		return len(p) == 1 && errors.Is(p[0].Err, ErrHungUp)
	})
	until(t, a, "three refusals", func() bool { return a.Metrics().Foreign >= 3 })
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Errorf("%v %v", a.Peers(), b.Peers())
	}
	if logged := seen.FilterMessageSnippet("another cluster refused").All(); len(logged) != 1 {
		t.Errorf("logged %d times: %v", len(logged), logged)
	}
	// Someone with the label of this cluster, but another one in its words.
	a.box.message(encodeJSON(message{Version: 1, Kind: messageStatus, Cluster: "third", From: "x", Status: &schema.Status{Name: "x", Cluster: "third"}}))
	a.box.message(encodeJSON(message{Version: 1, Kind: messageStatus, Cluster: "third", From: "x", Status: &schema.Status{Name: "x", Cluster: "third"}}))
	until(t, a, "one warning", func() bool { return seen.FilterMessageSnippet(`"third"`).Len() == 1 })
	foreign, err := meta{Kind: KindMember, Cluster: "third"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := (delegate{a}).NotifyAlive(&memberlist.Node{Name: "x", Meta: foreign}); !errors.Is(err, errForeign) {
		t.Errorf("%v", err)
	}
}

func TestKeyRotationWhileRunning(t *testing.T) {
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	c := start(t, config("c", a.Addr()))
	all := []*Detector{a, b, c}
	seq := uint64(0)
	check := func() {
		t.Helper()
		seq++
		for _, d := range all {
			d.Publish(st(seq))
		}
		for _, d := range all {
			for _, other := range all {
				if other != d {
					until(t, d, "status of "+other.cfg.Name, heard(d, other.cfg.Name, seq))
				}
			}
		}
	}
	check()
	for _, keys := range [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}} {
		for _, d := range all {
			if err := d.UseKeys(keys); err != nil {
				t.Fatal(err)
			}
			check()
		}
	}
	if err := a.UseKeys([][]byte{[]byte("short")}); !errors.Is(err, ErrKey) {
		t.Errorf("%v", err)
	}
	old := startLogged(t, config("old", a.Addr()), zap.NewNop())
	until(t, old, "the problem of the old key", func() bool {
		p := old.JoinProblems()
		return len(p) == 1 && errors.Is(p[0].Err, ErrWrongKey)
	})
	for _, d := range all {
		for _, p := range d.Peers() {
			if p.Liveness != schema.LivenessAlive {
				t.Errorf("%s sees %s as %s", d.cfg.Name, p.Name, p.Liveness)
			}
		}
	}
}

// What b says does not reach a; c hears both. a must see that something is wrong and nobody may be called dead.
func TestOneWayCutIsSuspectAndNotDead(t *testing.T) {
	t.Parallel()
	a := start(t, config("a"))
	cb := config("b", a.Addr())
	drop := faulty(&cb)
	b := start(t, cb)
	c := start(t, config("c", a.Addr()))
	for _, d := range []*Detector{a, b, c} {
		d.Publish(st(1))
	}
	until(t, c, "b", heard(c, "b", 1))
	until(t, a, "b", heard(a, "b", 1))
	drop.Store(cut(a.Addr()))
	until(t, a, "b is suspect", sees(a, "b", schema.LivenessSuspect))
	during(t, a, 2*time.Second, "b is called dead by nobody", func() bool {
		return find(a, "b").Liveness != schema.LivenessDead && find(c, "b").Liveness == schema.LivenessAlive && find(b, "a").Liveness != schema.LivenessDead
	})
	b.Publish(st(7))
	until(t, a, "what b says comes by way of c", func() bool { return find(a, "b").Status.Seq == 7 })
	drop.Store(nil)
	until(t, a, "b is alive", sees(a, "b", schema.LivenessAlive))
}

// Both sides forget each other and have no seeds in common: the last known addresses bring them together.
func TestPartitionHealsAfterMemberlistForgets(t *testing.T) {
	t.Parallel()
	tm := quick()
	tm.GossipToTheDead = 100 * time.Millisecond
	conf := func(name string, join ...string) Config {
		c := config(name, join...)
		c.Timing = tm
		return c
	}
	ca := conf("a")
	dropA := faulty(&ca)
	a := start(t, ca)
	cb := conf("b", a.Addr())
	dropB := faulty(&cb)
	b := start(t, cb)
	cc := conf("c", a.Addr())
	dropC := faulty(&cc)
	c := start(t, cc)
	until(t, b, "c", sees(b, "c", schema.LivenessAlive))
	// a and b on one side, c on the other.
	dropC.Store(cut(a.Addr(), b.Addr()))
	dropA.Store(cut(c.Addr()))
	dropB.Store(cut(c.Addr()))
	apart := func() bool {
		return find(a, "c").Liveness == schema.LivenessDead && find(c, "a").Liveness == schema.LivenessDead
	}
	until(t, a, "the two sides call each other dead", apart)
	until(t, a, "memberlist forgets", func() bool {
		for _, n := range a.ml.Members() {
			if n.Name == "c" {
				return false
			}
		}
		return a.Metrics().JoinFailures > 2
	})
	dropA.Store(nil)
	dropB.Store(nil)
	dropC.Store(nil)
	until(t, a, "c is back", sees(a, "c", schema.LivenessAlive))
	until(t, c, "a is back", sees(c, "a", schema.LivenessAlive))
	until(t, b, "c is back", sees(b, "c", schema.LivenessAlive))
}

func TestTwoLiveProcessesOfOneName(t *testing.T) {
	t.Parallel()
	core, seen := observer.New(zap.ErrorLevel)
	a := startLogged(t, config("a"), zap.New(core))
	quiet := zap.NewNop()
	b1 := startLogged(t, config("b", a.Addr()), quiet)
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	c2 := config("b", a.Addr())
	c2.Instance = "the second"
	b2 := startLogged(t, c2, quiet)
	stopPublishing := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for seq := uint64(1); ; seq++ {
			b1.Publish(st(seq))
			b2.Publish(st(seq))
			select {
			case <-stopPublishing:
				return
			case <-tick.C:
			}
		}
	})
	until(t, a, "the conflict", func() bool { return cmp.Equal(a.Conflicts(), []string{"b"}) })
	until(t, b2, "the second sees it too", func() bool { return cmp.Equal(b2.Conflicts(), []string{"b"}) })
	close(stopPublishing)
	wg.Wait()
	if seen.FilterMessageSnippet("give it another name").Len() != 1 {
		t.Errorf("%v", seen.All())
	}
	// Once the first is gone the second takes its place, and the conflict ends.
	crash(b1)
	until(t, a, "it is over", func() bool { return len(a.Conflicts()) == 0 })
	b2.Publish(st(5000))
	until(t, a, "the second", heard(a, "b", 5000))
}

func TestShutdownIsQuickAndRepeatable(t *testing.T) {
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr(), "192.0.2.1:7946"))
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	began := time.Now()
	stop(t, b)
	stop(t, b)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	b.Publish(st(1))
	if err := b.Join([]string{a.Addr()}); err != nil {
		t.Error(err)
	}
	_ = fmt.Sprint(b.Metrics())
}
