package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"howdah/consul/schema"
)

var (
	seeds = flag.Int("seeds", 2000, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first seed")
	often = flag.Duration("faults", 3*time.Second, "how often something is broken, on average")
	mode  = flag.String("sync", "", "off, on or strict; empty takes each in turn")
	trace = flag.Bool("story", false, "print the story of the first seed and nothing else")
)

func options(seed uint64) Options {
	sync := *mode
	if sync == "" {
		sync = []string{schema.SyncOff, schema.SyncStrict, schema.SyncOff, schema.SyncOn}[seed%4]
	}
	return Options{Sync: sync, Seed: seed, Members: 3 + 2*int(seed%2), Length: 30 * time.Second, Quiet: 40 * time.Second, Faults: *often, Late: seed%5 == 0}
}

// TestSeeds runs random faults; the invariants, corruption, stale reads and liveness are checked as things happen.
func TestSeeds(t *testing.T) {
	if *trace {
		o := options(*first)
		o.Trace = true
		r := Run(o)
		fmt.Println(r.Story)
		fmt.Println(r.Reigns, "reigns,", r.Acked, "acknowledged,", r.Missing, "missing", r.Violations)
		return
	}
	var next, ended, reigns, acked, missing atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !failed.Load() {
				i := next.Add(1) - 1
				if i >= int64(*seeds) {
					return
				}
				seed := *first + uint64(i)
				r := Run(options(seed))
				reigns.Add(int64(r.Reigns))
				acked.Add(int64(r.Acked))
				missing.Add(int64(r.Missing))
				if len(r.Violations) > 0 {
					failed.Store(true)
					t.Errorf("seed %d: %v\nreplay: go test ./sidecar/sim -run TestSeeds -first %d -story\nthe same as a script, for testdata:\n%s",
						seed, r.Violations, seed, Shrink(options(seed), r))
				}
				if n := ended.Add(1); n%1000 == 0 {
					took := time.Since(began)
					fmt.Fprintf(os.Stderr, "%d of %d seeds, %.0f a second, %d reigns, no violation, %s\n", n, *seeds, float64(n)/took.Seconds(), reigns.Load(), took.Round(time.Second))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds: %d reigns, %d writes acknowledged, %d of them lost to asynchronous failovers", *seeds, reigns.Load(), acked.Load(), missing.Load())
}

// TestNothingIsLost runs what must not cost a single acknowledged write, although replication is asynchronous, and
// what must not even change the primary.
func TestNothingIsLost(t *testing.T) {
	for _, c := range []struct {
		name   string
		kinds  []Fault
		reigns int // at most; zero: any number
	}{
		{"switchovers", []Fault{Switchover}, 0},
		{"launchers restarted in order", []Fault{LaunchEnding}, 0},
		{"consul comes and goes", []Fault{ConsulAway}, 1},
		{"sessions expire", []Fault{SessionGone}, 1},
		{"the configuration changes", []Fault{Reconfigured}, 1},
		{"postmasters are killed now and then", []Fault{PostmasterKill}, 0},
		{"restarts are ordered", []Fault{Restart}, 1},
		{"restarts, reinits and switchovers are ordered", []Fault{Restart, Reinit, Switchover}, 0},
		{"postmasters are killed, restarts ordered, while it is paused now and then", []Fault{Pause, Pause, Restart, PostmasterKill}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 40; seed++ {
				o := options(seed)
				o.Kinds, o.Late = c.kinds, false
				if c.kinds[0] == PostmasterKill { // one that crashes again and again hands over instead
					o.Faults = 25 * time.Second
				}
				r := Run(o)
				if len(r.Violations) > 0 || r.Missing > 0 || c.reigns > 0 && r.Reigns > c.reigns {
					t.Fatalf("seed %d: %v; %d of %d acknowledged writes lost in %d reigns", seed, r.Violations, r.Missing, r.Acked, r.Reigns)
				}
			}
		})
	}
}

// TestForcedFailovers loses hosts and has operators force a failover to anybody, healthy primary or not: it may cost
// writes, and never I1 to I3.
func TestForcedFailovers(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		o := options(seed)
		o.Kinds, o.Late = []Fault{ForcedFailover, CutFromAll, SidecarHang}, false
		if r := Run(o); len(r.Violations) > 0 {
			t.Fatalf("seed %d: %v", seed, r.Violations)
		}
	}
}

// TestNoRoomForTwo has members without room for two copies remove their own before they are cloned, while things break.
func TestNoRoomForTwo(t *testing.T) {
	ending := []Fault{Reinit, Reinit, SidecarCrash, SidecarHang, HostFreeze, HostCrash, CutFromAll, PostmasterKill, Switchover, ConsulAway, SlowNetwork, DiskStall} // in clones
	removed := 0
	for seed := uint64(1); seed <= 60; seed++ {
		o := options(seed)
		o.NoRoom, o.Faults, o.Kinds = true, 2*time.Second, ending
		r := Run(o)
		removed += r.Removed
		if len(r.Violations) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, r.Violations, Shrink(o, r))
		}
	}
	if removed == 0 {
		t.Error("no copy was removed in all these runs")
	}
	t.Logf("%d copies were removed", removed)
}

// restoring are the faults among which an old backup of Consul finds a primary that has heard of nothing newer.
var restoring = []Fault{ConsulRestored, CutFromAll, CutFromMembers, Restart, PostmasterKill, SidecarCrash}

// TestRestoredConsul brings old backups of Consul back while primaries of old are cut off, or have just come back.
func TestRestoredConsul(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		o := options(seed)
		o.Kinds, o.Late = restoring, false
		o.Faults = 2 * time.Second
		if r := Run(o); len(r.Violations) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, r.Violations, Shrink(o, r))
		}
	}
}

// TestMutations proves that the checks can fail: each broken rule is caught within a few hundred seeds of the faults
// that it is there for. That a takeover be preceded by a later read is not among them: the condition in its
// transaction alone keeps it safe, and the read only spares a refusal.
func TestMutations(t *testing.T) {
	for _, c := range []struct {
		mutation Mutation
		kinds    []Fault
		sync     string
		late     bool
	}{
		{DeadlineFromReply, []Fault{SlowNetwork, HostFreeze, SidecarHang, CutFromMembers}, "", false},
		{NoMargin, []Fault{CutFromConsul, SidecarCrash, CutFromAll}, "", false},
		{TakeOverUnconditionally, nil, "", false},
		{TakeOverByDestroying, []Fault{SlowNetwork, HostFreeze, SidecarHang, CutFromConsul}, "", false},
		{ReleaseEarly, []Fault{Switchover}, "", false},
		{NoFence, nil, "", false},
		{PromiseAnything, []Fault{CutFromConsul, ConsulAway, SlowNetwork}, "", false},
		{PromiseForgotten, []Fault{CutFromConsul, ConsulAway}, "", false},
		{EpochForgotten, nil, "", false},
		{StrangersStand, []Fault{CutFromConsul}, "", true},
		{SameTimeline, []Fault{HostFreeze, HostCrash, CutFromAll}, "", false},
		{ClonesAtOnce, nil, "", false},
		{SyncSetFirst, nil, schema.SyncStrict, false},
		{SyncNarrowedEarly, nil, schema.SyncStrict, false},
		{CandidateAlone, nil, schema.SyncStrict, false},
		{EmptyConsulIsNew, []Fault{ConsulWiped, SidecarCrash}, "", false},
		{UnknownIsEmpty, []Fault{LauncherSilent}, "", false},
		{OldRecordBelieved, []Fault{ConsulRestored, Switchover, CutFromAll, HostCrash}, "", false},
		{CopyGoesUnasked, []Fault{HostCrash, CutFromAll, PostmasterKill, Switchover, Reinit}, "", false},
		{LapsedBelieved, restoring, "", false},
		{RouterForgets, []Fault{ConsulRestored, HostFreeze, HostCrash}, "", false},
	} {
		t.Run(string(c.mutation), func(t *testing.T) {
			t.Parallel()
			const enough = 600
			for seed := uint64(1); seed <= enough; seed++ {
				o := options(seed)
				o.Mutate, o.Faults, o.Kinds, o.Late, o.NoRoom = c.mutation, 2*time.Second, c.kinds, c.late, c.mutation == CopyGoesUnasked
				if c.mutation == TakeOverByDestroying { // the holder renews just before it is judged, and is not heard
					o.Faults, o.Longest, o.Length, o.Members = 500*time.Millisecond, 4*time.Second, time.Minute, 3
				}
				if c.mutation == DeadlineFromReply { // it shows where a renewal is answered just before its lease is over
					o.Faults, o.Longest, o.Length, o.Members = 500*time.Millisecond, 3200*time.Millisecond, time.Minute, 3
				}
				if c.sync != "" {
					o.Sync = c.sync
				}
				if r := Run(o); len(r.Violations) > 0 {
					t.Logf("seed %d: %s", seed, r.Violations[0])
					return
				}
			}
			t.Errorf("not caught in %d seeds: either the rule is not needed or the checks are blind", enough)
		})
	}
}

// BenchmarkRun measures one run.
func BenchmarkRun(b *testing.B) {
	for i := range b.N {
		Run(options(uint64(i + 1)))
	}
}
