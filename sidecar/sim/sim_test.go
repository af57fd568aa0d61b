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
)

var (
	seeds = flag.Int("seeds", 2000, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first seed")
	often = flag.Duration("faults", 3*time.Second, "how often something is broken, on average")
	trace = flag.Bool("story", false, "print the story of the first seed and nothing else")
)

func options(seed uint64) Options {
	return Options{Seed: seed, Members: 3 + 2*int(seed%2), Length: 40 * time.Second, Quiet: 40 * time.Second, Faults: *often}
}

// TestSeeds runs random faults; I1 to I3, I7, corruption and liveness are checked as things happen.
func TestSeeds(t *testing.T) {
	if *trace {
		o := options(*first)
		o.Trace = true
		r := Run(o)
		fmt.Println(r.Story)
		fmt.Println(r.Reigns, "reigns,", r.Acked, "acknowledged,", r.Missing, "missing", r.Violations)
		return
	}
	var next, reigns, acked, missing atomic.Int64
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
					t.Errorf("seed %d: %v\nreplay: go test ./sidecar/sim -run TestSeeds -first %d -story", seed, r.Violations, seed)
				}
				if i%10000 == 9999 {
					fmt.Fprintf(os.Stderr, "%d seeds, %d reigns, %s\n", i+1, reigns.Load(), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds: %d reigns, %d writes acknowledged, %d of them lost to asynchronous failovers", *seeds, reigns.Load(), acked.Load(), missing.Load())
}

// TestMutations proves that the checks can fail: each broken rule is caught within a few hundred seeds.
func TestMutations(t *testing.T) {
	for _, m := range Mutations {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			const enough = 600
			for seed := uint64(1); seed <= enough; seed++ {
				o := options(seed)
				o.Mutate, o.Faults = m, 2*time.Second
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
