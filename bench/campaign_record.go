package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// recordBeat is how often the leader record is read.
const recordBeat = 100 * time.Millisecond

// degradations are the stretches of time in which the leader record may have promised nothing: mode on while too few standbys are there.
// Each is as long as it can have been: from the last reading before that showed a set to the first that showed one again.
type degradations struct {
	all []gap
	// whole is when the last reading that showed a set was asked for.
	whole schema.Instant
	open  bool
}

// read takes in what a reading showed that was asked for at asked and answered at answered.
func (d *degradations) read(set schema.SyncSet, asked, answered schema.Instant) {
	switch {
	case set.Need > 0:
		if d.open {
			d.all[len(d.all)-1].To = answered
		}
		d.open, d.whole = false, asked
	case d.open:
		d.all[len(d.all)-1].To = answered
	default:
		d.open = true
		from := d.whole
		if from == schema.Never {
			from = asked // the first reading
		}
		d.all = append(d.all, gap{from, answered})
	}
}

// at reports whether the record may have promised nothing at any moment between from and to.
func (d *degradations) at(from, to schema.Instant) bool {
	last := len(d.all) - 1
	return slices.ContainsFunc(d.all, func(g gap) bool { return g.From <= to && from <= g.To }) || d.open && from >= d.all[last].From
}

// watchRecord reads the leader record until ctx ends.
func (s *strain) watchRecord(ctx context.Context) {
	_ = local.Poll(ctx, recordBeat, func() bool { // ends with ctx
		asked := boottime.Now()
		if l, err := s.c.LeaderRecord(ctx); err == nil {
			s.mu.Lock()
			s.degraded.read(l.Sync, asked, boottime.Now())
			s.mu.Unlock()
		}
		return false
	})
}

// mayBeLost reports whether commit c may be missing after a fault that the asynchronous cluster may lose commits by.
func (s *strain) mayBeLost(c commit) bool {
	switch s.o.mode {
	case "strict":
		return false
	case "on":
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.degraded.at(c.Sent, c.At)
	}
	return true
}

func total(gaps []gap) time.Duration {
	var sum time.Duration
	for _, g := range gaps {
		sum += g.length()
	}
	return sum
}

// waitsEnded counts the commits so far whose session was ended by a stop of PostgreSQL while they waited for a standby: a warning in the
// servers' logs. Such a commit is not acknowledged, but others can see it before it is safe.
func (s *strain) waitsEnded() int {
	n := 0
	for _, m := range s.c.Members {
		b, err := os.ReadFile(filepath.Join(s.c.LogDir(), m.Name+"-launch.log"))
		if err != nil {
			continue // it never ran
		}
		n += strings.Count(string(b), "canceling the wait for synchronous replication and terminating connection")
	}
	return n
}
