package decide

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"
	"time"

	"howdah/consul/schema"
)

// The twin counts over bit sets, in every way that there is: members 0 to 4, 0 is the primary.
const everybody = 5

func named(set uint) []string {
	var names []string
	for i := range everybody {
		if set&(1<<i) != 0 {
			names = append(names, fmt.Sprint(i))
		}
	}
	return names
}

// eachSet calls f with every set of members in of and every need that it can meet, and with none at all.
func eachSet(of uint, f func(set uint, need int)) {
	f(0, 0)
	for set := uint(1); set < 1<<everybody; set++ {
		if set&^of != 0 {
			continue
		}
		for need := 1; need <= bits.OnesCount(set); need++ {
			f(set, need)
		}
	}
}

// satisfied is F1 by brute force: whoever acknowledges under applied, enough of record have the commit.
func satisfied(record uint, need int, applied uint, acks int) bool {
	for holders := uint(0); holders < 1<<everybody; holders++ {
		if holders&^applied == 0 && bits.OnesCount(holders) == acks && bits.OnesCount((holders|1)&record) < need {
			return false
		}
	}
	return true
}

func TestCoversAgainstItsTwin(t *testing.T) {
	const all = 1<<everybody - 1
	n := 0
	eachSet(all, func(record uint, need int) {
		eachSet(all&^1, func(applied uint, acks int) {
			r, p := schema.SyncSet{Need: need, Standbys: named(record)}, schema.SyncSet{Need: acks, Standbys: named(applied)}
			got := covers(r, p, "0")
			want := satisfied(record, need, applied, acks)
			if got && !want {
				t.Fatalf("record %v, applied %v: covers says yes, and there is a commit that fails it", r, p)
			}
			if want && !got && record&applied == record&^1 { // it may be cautious, but not about sets that contain one another
				t.Fatalf("record %v, applied %v: covers says no, and every commit satisfies it", r, p)
			}
			n++
		})
	})
	t.Logf("%d pairs", n)
}

func TestBetweenCoversBoth(t *testing.T) {
	const all = 1<<everybody - 1
	eachSet(all, func(record uint, need int) {
		eachSet(all&^1, func(target uint, acks int) {
			r, p := schema.SyncSet{Need: need, Standbys: named(record)}, schema.SyncSet{Need: acks, Standbys: named(target)}
			mid := between(r, p)
			if !covers(mid, p, "0") {
				t.Fatalf("between %v and %v: %v does not cover the second", r, p, mid)
			}
			if mid.Need > need || record&^bitsOf(mid.Standbys) != 0 && mid.Need > 0 {
				t.Fatalf("between %v and %v: %v asks more than the first", r, p, mid)
			}
		})
	})
}

func bitsOf(names []string) uint {
	var set uint
	for i := range everybody {
		for _, n := range names {
			if n == fmt.Sprint(i) {
				set |= 1 << i
			}
		}
	}
	return set
}

// I4: whoever is elected has seen a holder of every commit.
func TestElectsMeetsEveryHolder(t *testing.T) {
	eachSet(1<<everybody-1, func(record uint, need int) {
		r := schema.SyncSet{Need: need, Standbys: named(record)}
		for seen := uint(0); seen < 1<<everybody; seen++ {
			meets := true // every set of need holders shares a member with seen
			for holders := uint(0); holders < 1<<everybody; holders++ {
				if holders&^record == 0 && bits.OnesCount(holders) == need && holders&seen == 0 {
					meets = false
				}
			}
			if got := elects(r, named(seen)); got != meets && need > 0 {
				t.Fatalf("record %v, seen %v: elects says %v, want %v", r, named(seen), got, meets)
			}
		}
	})
}

// A set that grows is first widened in the record and then applied; narrowing the record again in between would go on for ever.
func TestAGrowingSetIsApplied(t *testing.T) {
	o, m := holder()
	o.Config.SynchronousMode = schema.SyncOn
	for _, n := range []string{"pg2", "pg3"} {
		o.SQL.Replicas = append(o.SQL.Replicas, Replica{Name: n, Flush: 0x6000, Streaming: true})
	}
	one := schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
	m.Reign.Sync = Synchronous{Recorded: one, Wanted: one, Applied: one, AppliedAt: t0 - schema.Instant(time.Minute), AppliedLSN: 0x5000}
	for i := range 6 {
		o = o.at(time.Duration(i)*100*time.Millisecond, 0)
		o.SQL.At = o.Now
		var p Plan
		p, m = Decide(o, m)
		if slices.Contains(planned(p), SetSync) {
			return
		}
		m.Reign.Sync.Recorded = m.Reign.Sync.Wanted // as the next renewal writes it
	}
	t.Errorf("never applied: %+v", m.Reign.Sync)
}
