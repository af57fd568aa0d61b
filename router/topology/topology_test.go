package topology_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"howdah/consul/schema"
	"howdah/router/topology"
)

const cluster = "c"

// at is the time of these tests: now is at(0), and the past is negative.
func at(d time.Duration) schema.Instant { return schema.Instant(time.Hour).Add(d) }

func peer(s schema.Status, heard time.Duration) schema.Peer {
	s.Cluster = cluster
	if s.Addresses.Postgres == "" {
		s.Addresses.Postgres = s.Name + ":5432"
	}
	return schema.Peer{Name: s.Name, Kind: "member", Liveness: schema.LivenessAlive, Status: s, HeardAt: at(heard)}
}

func primary(name string, epoch schema.Epoch) schema.Status {
	return schema.Status{Name: name, Role: schema.RolePrimary, State: schema.StateRunning, Epoch: epoch, LSN: 1000, Timeline: schema.Timeline(epoch)}
}

func standby(name string, epoch schema.Epoch) schema.Status {
	return schema.Status{Name: name, Role: schema.RoleStandby, State: schema.StateStreaming, Epoch: epoch, LSN: 1000, ReplayLSN: 1000, Timeline: schema.Timeline(epoch)}
}

func with(s schema.Status, change func(*schema.Status)) schema.Status { change(&s); return s }

func record(member string, epoch schema.Epoch, phase schema.Phase, answered time.Duration) *schema.ClusterState {
	return &schema.ClusterState{
		AnsweredAt: at(answered),
		Leader: schema.LockView{Known: true, Exists: true, Index: uint64(epoch)*100 + 1, Leader: schema.Leader{
			Member: member, Epoch: epoch, Phase: phase, Lease: schema.Duration(3 * time.Second),
			Addresses: schema.Addresses{Postgres: member + ":5432"}, FlushLSN: 900,
		}},
	}
}

func input(state *schema.ClusterState, peers ...schema.Peer) topology.Input {
	in := topology.Input{Now: at(0), Cluster: cluster, Peers: peers}
	if state != nil {
		in.State, in.HasState = *state, true
	}
	return in
}

func TestPrimary(t *testing.T) {
	ago := -100 * time.Millisecond
	for name, c := range map[string]struct {
		in     topology.Input
		want   string // the primary; empty if none
		epoch  schema.Epoch
		reason string // part of why there is none
		over   bool
	}{
		"nothing known":                  {in: input(nil), reason: "heard of"},
		"by gossip alone":                {in: input(nil, peer(primary("a", 1), ago)), want: "a", epoch: 1},
		"by Consul alone":                {in: input(record("a", 1, schema.PhaseServing, ago)), want: "a", epoch: 1},
		"by both":                        {in: input(record("a", 1, schema.PhaseServing, ago), peer(primary("a", 1), ago)), want: "a", epoch: 1},
		"gossip is ahead":                {in: input(record("a", 1, schema.PhaseServing, ago), peer(primary("b", 2), ago)), want: "b", epoch: 2},
		"Consul is ahead":                {in: input(record("b", 2, schema.PhaseServing, ago), peer(primary("a", 1), ago)), want: "b", epoch: 2},
		"a standby knows of a new epoch": {in: input(record("a", 1, schema.PhaseServing, ago), peer(standby("b", 2), ago)), epoch: 2, reason: "epoch 2 has begun"},
		"history knows of a new epoch": {in: func() topology.Input {
			s := record("a", 1, schema.PhaseServing, ago)
			s.History.Value.Reigns = []schema.Reign{{Epoch: 3}}
			return input(s)
		}(), epoch: 3, reason: "epoch 3 has begun"},
		"another router knows": {in: func() topology.Input {
			p := peer(schema.Status{Name: "r", Epoch: 5}, ago)
			p.Kind = "router"
			return input(record("a", 1, schema.PhaseServing, ago), p)
		}(), epoch: 5, reason: "epoch 5"},
		"promoting":                   {in: input(record("b", 2, schema.PhasePromoting, ago)), epoch: 2, reason: "promoting"},
		"promoting, but says it runs": {in: input(record("b", 2, schema.PhasePromoting, ago), peer(primary("b", 2), ago)), want: "b", epoch: 2},
		"a standby cluster":           {in: input(record("b", 2, schema.PhaseFollowing, ago), peer(standby("b", 2), -time.Millisecond)), epoch: 2, reason: "standby cluster of a remote primary, led by b"},
		"bootstrapping":               {in: input(record("b", 1, schema.PhaseBootstrapping, ago)), epoch: 1, reason: "bootstrapping"},
		"stopping by Consul":          {in: input(record("a", 1, schema.PhaseStopping, ago), peer(primary("a", 1), ago)), epoch: 1, reason: "planned stop"},
		"stopping by gossip":          {in: input(record("a", 1, schema.PhaseServing, ago), peer(with(primary("a", 1), func(s *schema.Status) { s.Stopping = true }), ago)), epoch: 1, reason: "planned stop"},
		"released":                    {in: input(record("a", 1, schema.PhaseReleased, ago)), epoch: 1, reason: "released", over: true},
		"fenced":                      {in: input(record("a", 1, schema.PhaseServing, ago), peer(with(primary("a", 1), func(s *schema.Status) { s.State = schema.StateFenced }), ago)), epoch: 1, reason: "fenced", over: true},
		"crashed":                     {in: input(nil, peer(with(primary("a", 1), func(s *schema.Status) { s.State = schema.StateCrashed }), ago)), epoch: 1, reason: "crashed", over: true},
		"stopped, no role left":       {in: input(record("a", 1, schema.PhaseServing, ago), peer(schema.Status{Name: "a", Epoch: 1, State: schema.StateStopped}, ago)), epoch: 1, reason: "stopped", over: true},
		"not stopped but not begun":   {in: input(record("a", 1, schema.PhaseBootstrapping, ago), peer(schema.Status{Name: "a", Epoch: 1, State: schema.StateStopped}, ago)), epoch: 1, reason: "bootstrapping"},
		"starting again":              {in: input(record("a", 1, schema.PhaseServing, ago), peer(with(primary("a", 1), func(s *schema.Status) { s.State = schema.StateStarting }), ago)), epoch: 1, reason: "starting"},
		"says standby, newer":         {in: input(record("a", 1, schema.PhaseServing, -time.Second), peer(standby("a", 1), ago)), epoch: 1, reason: "as standby"},
		"said standby, older":         {in: input(record("a", 1, schema.PhaseServing, ago), peer(standby("a", 1), -time.Second)), want: "a", epoch: 1},
		"old word counts no more":     {in: input(record("a", 1, schema.PhaseServing, ago), peer(with(primary("a", 1), func(s *schema.Status) { s.State = schema.StateFenced }), -time.Minute)), want: "a", epoch: 1},
		"both have grown old":         {in: input(record("a", 1, schema.PhaseServing, -time.Minute), peer(primary("a", 1), -4*time.Second)), epoch: 1, reason: "last heard of 4s ago"},
		"just within lease, margin":   {in: input(nil, peer(primary("a", 1), -3500*time.Millisecond)), want: "a", epoch: 1},
		"just past it":                {in: input(nil, peer(primary("a", 1), -3501*time.Millisecond)), epoch: 1, reason: "longer than its lease"},
		"two claim one epoch":         {in: input(nil, peer(primary("a", 1), ago), peer(primary("b", 1), ago)), epoch: 1, reason: "both claim"},
		"the lock decides":            {in: input(record("b", 1, schema.PhaseServing, ago), peer(primary("a", 1), ago), peer(primary("b", 1), ago)), want: "b", epoch: 1},
		"gossip thinks it dead": {in: func() topology.Input {
			p := peer(primary("a", 1), ago)
			p.Liveness = schema.LivenessDead
			return input(record("a", 1, schema.PhaseServing, ago), p)
		}(), want: "a", epoch: 1},
		"another cluster": {in: func() topology.Input {
			p := peer(primary("x", 9), ago)
			p.Status.Cluster = "other"
			return input(record("a", 1, schema.PhaseServing, ago), p)
		}(), want: "a", epoch: 1},
		"no address": {in: func() topology.Input {
			s := record("a", 1, schema.PhaseServing, ago)
			s.Leader.Leader.Addresses.Postgres = ""
			return input(s)
		}(), epoch: 1, reason: "address"},
	} {
		t.Run(name, func(t *testing.T) {
			top, _ := topology.Merge(c.in, topology.Memory{})
			got := ""
			if top.Primary != nil {
				got = top.Primary.Member
				if top.Primary.Address != got+":5432" {
					t.Errorf("address %q", top.Primary.Address)
				}
			}
			if got != c.want || top.Epoch != c.epoch || top.Over != c.over || !strings.Contains(top.Reason, c.reason) {
				t.Errorf("primary %q, epoch %d, over %v, reason %q", got, top.Epoch, top.Over, top.Reason)
			}
			if (top.Primary == nil) != (top.Reason != "") {
				t.Errorf("primary %v with reason %q", top.Primary, top.Reason)
			}
		})
	}
}

func TestEpochIsNeverForgotten(t *testing.T) {
	_, mem := topology.Merge(input(nil, peer(primary("b", 7), 0)), topology.Memory{})
	// Consul was restored from an old backup and gossip has lost b.
	top, mem := topology.Merge(input(record("a", 3, schema.PhaseServing, 0), peer(primary("a", 3), 0)), mem)
	if top.Epoch != 7 || top.Primary != nil || mem.Epoch != 7 {
		t.Fatalf("epoch %d, primary %v", top.Epoch, top.Primary)
	}
}

func TestUnchangedRecordIsNoNews(t *testing.T) {
	s := record("a", 1, schema.PhaseServing, -10*time.Second)
	in := input(s)
	in.Now = at(-10 * time.Second)
	top, mem := topology.Merge(in, topology.Memory{})
	if top.Primary == nil {
		t.Fatal(top.Reason)
	}
	s.AnsweredAt = at(0) // Consul says the same again
	if top, _ = topology.Merge(input(s), mem); top.Primary != nil {
		t.Fatalf("a record unchanged for 10 s serves; known at %d", top.KnownAt)
	}
	s.Leader.Index++ // a renewal
	if top, _ = topology.Merge(input(s), mem); top.Primary == nil {
		t.Fatal(top.Reason)
	}
}

func TestKeeps(t *testing.T) {
	merge := func(in topology.Input) topology.Topology { top, _ := topology.Merge(in, topology.Memory{}); return top }
	serving := merge(input(nil, peer(primary("b", 2), 0), peer(standby("c", 2), 0)))
	for name, c := range map[string]struct {
		top    topology.Topology
		member string
		epoch  schema.Epoch
		want   bool
	}{
		"its own reign":      {serving, "b", 2, true},
		"an old one":         {serving, "a", 1, false},
		"its own old one":    {serving, "b", 1, false},
		"somebody else":      {serving, "a", 2, false},
		"grown old":          {merge(input(nil, peer(primary("b", 2), -time.Minute))), "b", 2, true},
		"stopping":           {merge(input(record("b", 2, schema.PhaseStopping, 0))), "b", 2, true},
		"released":           {merge(input(record("b", 2, schema.PhaseReleased, 0))), "b", 2, false},
		"fenced":             {merge(input(nil, peer(with(primary("b", 2), func(s *schema.Status) { s.State = schema.StateFenced }), 0))), "b", 2, false},
		"newer, by nobody":   {merge(input(nil, peer(standby("c", 3), 0))), "b", 2, false},
		"unknown altogether": {merge(input(nil)), "b", 2, true},
	} {
		if got, why := c.top.KeepsPrimary(c.member, c.epoch); got != c.want || got != (why == "") {
			t.Errorf("%s: %v, %q", name, got, why)
		}
	}
	for member, want := range map[string]bool{"b": false, "c": true, "d": false} {
		if got, why := serving.KeepsStandby(member); got != want || got != (why == "") {
			t.Errorf("standby %s: %v, %q", member, got, why)
		}
	}
}

func TestStandbys(t *testing.T) {
	dead := peer(standby("dead", 1), 0)
	dead.Liveness = schema.LivenessDead
	left := peer(standby("left", 1), 0)
	left.Liveness = schema.LivenessLeft
	never := peer(schema.Status{Name: "never"}, 0)
	never.HeardAt, never.Status = schema.Never, schema.Status{}
	suspect := peer(standby("suspect", 1), 0)
	suspect.Liveness = schema.LivenessSuspect
	s := record("p", 2, schema.PhaseServing, 0)
	s.History.Value.Reigns = []schema.Reign{{Epoch: 1, Timeline: 1}, {Epoch: 2, Timeline: 2, LSN: 950}}
	top, _ := topology.Merge(input(s,
		peer(primary("p", 2), 0), peer(standby("good", 2), 0), dead, left, never, suspect,
		peer(with(standby("cloning", 1), func(s *schema.Status) { s.State = schema.StateCloning }), 0),
		peer(with(standby("lost", 1), func(s *schema.Status) { s.Role = schema.RoleUnknown }), 0),
		peer(with(standby("diverged", 1), func(s *schema.Status) { s.LSN = 951; s.State = schema.StateRunning }), 0),
		peer(with(standby("not yet over", 1), func(s *schema.Status) { s.LSN = 950; s.ReplayLSN = 950 }), 0),
		peer(with(standby("follows", 1), func(s *schema.Status) { s.LSN = 999; s.Upstream = "p" }), 0),
		peer(standby("silent", 2), -5*time.Second),
		peer(with(standby("unlisted", 2), func(s *schema.Status) { s.Tags.NoLoadBalance = true }), 0),
	), topology.Memory{})
	got := map[string]string{}
	for _, b := range top.Standbys {
		got[b.Member] = fmt.Sprintf("lag %d fresh %v nolb %v", b.LagBytes, b.Fresh, b.NoLoadBalance)
	}
	// suspect says timeline 1 and has gone past 950 without following p.
	want := map[string]string{
		"good": "lag 0 fresh true nolb false", "not yet over": "lag 50 fresh true nolb false",
		"follows": "lag 0 fresh true nolb false", "silent": "lag 0 fresh false nolb false", "unlisted": "lag 0 fresh true nolb true",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"dead", "left", "never", "cloning", "lost", "diverged", "suspect"} {
		if top.Unfit[name] == "" {
			t.Errorf("%s is fit", name)
		}
	}
}

// A standby that stays d behind a busy primary is counted as d old, give or take a sample.
func TestLagTime(t *testing.T) {
	const behind = 4 * time.Second
	spacing := schema.DefaultClusterConfig().MaxStalenessTime.D() / 8
	mem := topology.Memory{}
	for now := time.Duration(0); now < time.Minute; now += 100 * time.Millisecond {
		lsn := func(d time.Duration) schema.LSN { return schema.LSN(1000 + max(d, 0)/time.Millisecond) }
		p := with(primary("p", 1), func(s *schema.Status) { s.LSN = lsn(now) })
		b := with(standby("b", 1), func(s *schema.Status) { s.ReplayLSN = lsn(now - behind) })
		in := input(nil, peer(p, now), peer(b, now))
		in.Now = at(now)
		var top topology.Topology
		top, mem = topology.Merge(in, mem)
		got := top.Standbys[0].LagTime
		if want := min(now, behind); got < want || got > want+spacing+100*time.Millisecond {
			t.Fatalf("after %s: lag %s, want about %s", now, got, want)
		}
		if got, want := top.Standbys[0].LagBytes, uint64(min(now, behind)/time.Millisecond); got != want {
			t.Fatalf("after %s: %d bytes, want %d", now, got, want)
		}
	}
	// Once nothing is written it catches up, and is not old any more.
	p := with(primary("p", 1), func(s *schema.Status) { s.LSN = 1 << 20 })
	b := with(standby("b", 1), func(s *schema.Status) { s.ReplayLSN = 1 << 20 })
	in := input(nil, peer(p, time.Hour), peer(b, time.Hour))
	in.Now = at(time.Hour + 3*time.Second)
	if top, _ := topology.Merge(in, mem); top.Standbys[0].LagTime != 0 {
		t.Fatalf("lag %s", top.Standbys[0].LagTime)
	}
}

func TestStaleStandbyIsDropped(t *testing.T) {
	top, _ := topology.Merge(input(nil,
		peer(with(primary("p", 1), func(s *schema.Status) { s.LSN = 1 << 30 }), 0), peer(standby("b", 1), 0)), topology.Memory{})
	if ok, why := top.KeepsStandby("b"); ok || !strings.Contains(why, "behind") {
		t.Fatalf("%v %q", ok, why)
	}
	// One that has not been heard for longer than the bound cannot be shown to be within it.
	top, _ = topology.Merge(input(nil, peer(primary("p", 1), 0), peer(standby("b", 1), -11*time.Second)), topology.Memory{})
	if ok, _ := top.KeepsStandby("b"); ok {
		t.Fatal("kept")
	}
	top, _ = topology.Merge(input(nil, peer(primary("p", 1), 0), peer(standby("b", 1), -9*time.Second)), topology.Memory{})
	if ok, why := top.KeepsStandby("b"); !ok || top.Standbys[0].Fresh {
		t.Fatal(why)
	}
}

// Facts arrive in any order, and peers are listed in any order: once all have arrived the picture
// is the same, and on the way the epoch never decreases.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var facts []func(*topology.Input)
		names := []string{"a", "b", "c", "d"}
		for _, n := range names {
			if rng.IntN(5) == 0 {
				continue
			}
			st := standby(n, schema.Epoch(rng.IntN(4)))
			if rng.IntN(3) == 0 {
				st = primary(n, schema.Epoch(rng.IntN(4)))
			}
			st.Stopping = st.Role == schema.RolePrimary && rng.IntN(4) == 0
			st.ReplayLSN = schema.LSN(rng.IntN(2000))
			p := peer(st, -time.Duration(rng.IntN(5000))*time.Millisecond)
			facts = append(facts, func(in *topology.Input) { in.Peers = append(in.Peers, p) })
		}
		phases := []schema.Phase{schema.PhasePromoting, schema.PhaseServing, schema.PhaseStopping, schema.PhaseReleased}
		if rng.IntN(3) > 0 {
			s := record(names[rng.IntN(4)], schema.Epoch(1+rng.IntN(3)), phases[rng.IntN(4)], -time.Second)
			facts = append(facts, func(in *topology.Input) { in.State, in.HasState = *s, true })
		}
		var first *topology.Topology
		for range 6 {
			rng.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
			in := input(nil)
			mem := topology.Memory{}
			var top topology.Topology
			for _, f := range facts {
				f(&in)
				in.Peers = slices.Clone(in.Peers)
				before := mem.Epoch
				if top, mem = topology.Merge(in, mem); mem.Epoch < before {
					t.Fatalf("seed %d: epoch fell from %d to %d", seed, before, mem.Epoch)
				}
			}
			if first == nil {
				first = &top
				continue
			}
			// How old a standby is depends on what was heard when; who may serve does not.
			if d := cmp.Diff(*first, top, cmpopts.IgnoreFields(topology.Server{}, "LagTime")); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
		}
	}
}

// The one that leads a standby cluster takes reads like the others.
func TestLeaderOfAStandbyClusterServesReads(t *testing.T) {
	in := input(record("a", 1, schema.PhaseFollowing, -time.Millisecond), peer(standby("a", 1), 0), peer(standby("b", 1), 0))
	top, _ := topology.Merge(in, topology.Memory{})
	if len(top.Standbys) != 2 || top.Standbys[0].Member != "a" {
		t.Errorf("standbys: %v, unfit: %v", top.Standbys, top.Unfit)
	}
	if ok, why := top.KeepsStandby("a"); !ok {
		t.Error(why)
	}
	in = input(record("a", 1, schema.PhasePromoting, -time.Millisecond), peer(standby("a", 1), 0), peer(standby("b", 1), 0))
	if top, _ = topology.Merge(in, topology.Memory{}); len(top.Standbys) != 1 {
		t.Errorf("while it is promoted: %v", top.Standbys)
	}
}
