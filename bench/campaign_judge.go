package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"howdah/consul/schema"
)

// commit is one acknowledged row. All instants are this machine's CLOCK_BOOTTIME.
type commit struct {
	ID     int64
	Writer int
	// Sent is before the statement was sent, Executed the server's own clock while it ran, At after the answer had come.
	Sent, Executed, At schema.Instant
	// LSN is where the server's WAL ended while it ran.
	LSN uint64
	// Server is the member that ran it, Shift by how much its wall clock was ahead.
	Server string
	Shift  time.Duration
}

// reign is the time of one primary.
type reign struct {
	Epoch  schema.Epoch `json:"epoch"`
	Member string       `json:"member"`
	// Elected is when it had taken the lock, Promoted when it accepted writes. Ended is when it is known not to have accepted
	// any more: stopped, fenced, crashed; Never if nothing was heard of it, as of a host that lost its power.
	Elected  schema.Instant `json:"elected"`
	Promoted schema.Instant `json:"promoted"`
	Ended    schema.Instant `json:"ended"`
}

// reignsOf reads the reigns from events, in any order and with repetitions, by promotion. A reign whose election nobody told of
// is taken to have been elected when it was promoted.
func reignsOf(events []schema.Event) []reign {
	type who struct {
		epoch  schema.Epoch
		member string
	}
	found := map[who]*reign{}
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b schema.Event) int { return cmp.Compare(a.At, b.At) })
	elected := map[who]schema.Instant{}
	for _, e := range events {
		k := who{e.Epoch, e.By}
		r := found[k]
		switch e.Kind {
		case schema.EventElected:
			if _, known := elected[k]; !known {
				elected[k] = e.At
			}
		case schema.EventPromoted:
			if r == nil {
				found[k] = &reign{Epoch: e.Epoch, Member: e.By, Elected: e.At, Promoted: e.At}
			}
		case schema.EventRestarted:
			if r != nil {
				r.Ended = schema.Never
			}
		case schema.EventDemoted, schema.EventFenced, schema.EventCrashed, schema.EventReleased:
			for _, r := range found {
				if r.Member == e.By && r.Ended == schema.Never {
					r.Ended = e.At
				}
			}
		}
	}
	var reigns []reign
	for k, r := range found {
		if at, known := elected[k]; known {
			r.Elected = min(at, r.Promoted)
		}
		reigns = append(reigns, *r)
	}
	slices.SortFunc(reigns, func(a, b reign) int {
		return cmp.Or(cmp.Compare(a.Promoted, b.Promoted), cmp.Compare(a.Epoch, b.Epoch))
	})
	return reigns
}

// usurps reports whether member acted as a primary at an instant at which another had been promoted in a newer epoch than
// member's newest. The member's own reign counts from its election: what it does between that and its report is its right.
func usurps(reigns []reign, member string, at schema.Instant) bool {
	var own, other schema.Epoch
	for _, r := range reigns {
		switch {
		case r.Member == member && r.Elected <= at:
			own = max(own, r.Epoch)
		case r.Member != member && r.Promoted <= at:
			other = max(other, r.Epoch)
		}
	}
	return other > own
}

// usurpers returns the commits that a server accepted after the promotion of a newer primary, by the server's own
// clock. late counts those that it had accepted before, and acknowledged only after: the answer was on its way.
func usurpers(reigns []reign, commits []commit) (found []commit, late int) {
	for _, c := range commits {
		switch {
		case usurps(reigns, c.Server, c.Executed):
			found = append(found, c)
		case usurps(reigns, c.Server, c.At):
			late++
		}
	}
	return found, late
}

// reading is what one query of a reader saw.
type reading struct {
	// Session numbers the sessions of all readers, Route is rw, ro, or strict: auto with howdah.consistency strict.
	Session int
	Route   string
	// Standby says that one carried it out.
	Standby bool
	// Began is before the query was sent, At after its answer.
	Began, At schema.Instant
	// Seen is the highest id of each writer.
	Seen []int64
}

// byWriter sorts the commits of each writer by their time.
func byWriter(commits []commit, writers int) [][]commit {
	all := make([][]commit, writers)
	for _, c := range commits {
		all[c.Writer] = append(all[c.Writer], c)
	}
	for _, one := range all {
		slices.SortFunc(one, func(a, b commit) int { return cmp.Compare(a.ID, b.ID) })
	}
	return all
}

// newestBefore returns the newest commit of one writer, sorted, that was acknowledged before at and is among the rows
// that are there at the end; ok is false if there is none. A lost row cannot make a read stale.
func newestBefore(commits []commit, at schema.Instant, lost map[int64]bool) (commit, bool) {
	// A writer has one statement at a time, so the order of the ids is that of the times.
	i, _ := slices.BinarySearchFunc(commits, at, func(c commit, at schema.Instant) int { return cmp.Compare(c.At, at) })
	for i--; i >= 0; i-- {
		if !lost[commits[i].ID] {
			return commits[i], true
		}
	}
	return commit{}, false
}

// staleReads returns the readings of the rw route, and the strict ones, that do not show a row which had been acknowledged before the reading
// began, and which is there at the end: they came from a server that was no primary any more, or from a standby that was behind.
func staleReads(readings []reading, commits [][]commit, lost map[int64]bool) []reading {
	var stale []reading
	for _, r := range readings {
		if r.Route == "ro" {
			continue
		}
		for w, seen := range r.Seen {
			if c, ok := newestBefore(commits[w], r.Began, lost); ok && c.ID > seen {
				stale = append(stale, r)
				break
			}
		}
	}
	return stale
}

// staleness is how far a reading was behind: the age of the oldest acknowledged row that it does not show; 0 if
// it shows all.
func staleness(r reading, commits [][]commit, lost map[int64]bool) time.Duration {
	var worst time.Duration
	for w, seen := range r.Seen {
		i, _ := slices.BinarySearchFunc(commits[w], seen+1, func(c commit, id int64) int { return cmp.Compare(c.ID, id) })
		for ; i < len(commits[w]) && commits[w][i].At < r.Began; i++ {
			if !lost[commits[w][i].ID] {
				worst = max(worst, r.Began.Sub(commits[w][i].At))
				break
			}
		}
	}
	return worst
}

// backwards returns the readings that show less than an earlier one of the same session.
func backwards(readings []reading) []reading {
	last := map[int][]int64{}
	var found []reading
	for _, r := range readings {
		for w, before := range last[r.Session] {
			if r.Seen[w] < before {
				found = append(found, r)
				break
			}
		}
		last[r.Session] = r.Seen
	}
	return found
}

// publishes is how old the LSN in the leader record may be in a primary that renews: lease/6, with room for slow replies.
const publishes = 1500 * time.Millisecond

// inWindow checks the documented window of an asynchronous cluster: a candidate may lack at most lag bytes of what the
// primary published last, and the primary accepted writes for at most one lease after that. So the first row that was lost must
// not lie more than lag before the row that was written a lease and the age of a publication before the last one lost. It returns why
// not, or nothing.
func inWindow(lost, commits []commit, lag uint64, lease time.Duration) string {
	byServer := map[string][]commit{}
	for _, c := range lost {
		byServer[c.Server] = append(byServer[c.Server], c)
	}
	for _, server := range slices.Sorted(maps.Keys(byServer)) {
		gone := byServer[server]
		first := slices.MinFunc(gone, func(a, b commit) int { return cmp.Compare(a.LSN, b.LSN) })
		last := slices.MaxFunc(gone, func(a, b commit) int { return cmp.Compare(a.At, b.At) })
		published := last.At.Add(-lease - publishes)
		var base uint64
		for _, c := range commits {
			if c.Server == server && c.At <= published && c.LSN > base {
				base = c.LSN
			}
		}
		if first.LSN+lag < base {
			return fmt.Sprintf("%s lost row %d at WAL byte %d, %d bytes before what it had written %s before the last lost row; %d are allowed",
				server, first.ID, first.LSN, base-first.LSN, lease+publishes, lag)
		}
	}
	return ""
}

// served returns the stretches of time in which acknowledgements followed each other within pause.
func served(at []schema.Instant, pause time.Duration) []gap {
	var found []gap
	for _, t := range at {
		if n := len(found); n > 0 && t.Sub(found[n-1].To) <= pause {
			found[n-1].To = t
			continue
		}
		found = append(found, gap{t, t})
	}
	return found
}
