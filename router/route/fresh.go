package route

import "howdah/consul/schema"

// Position is a place in the history of WAL. LSNs say nothing across timelines: a server may have gone further on a timeline that was
// given up than the primary has come on its own. Timelines are never numbered twice in one cluster.
type Position struct {
	Timeline schema.Timeline
	LSN      schema.LSN
}

// Passed reports whether a server that has replayed up to by, on by's timeline, has all that lies at or before p.
func (p Position) Passed(by Position) bool {
	return p.Timeline != 0 && p.Timeline == by.Timeline && p.LSN <= by.LSN
}

// PrimarySample is what the primary of Epoch answered when it was asked how far it has come. Whatever it had acknowledged before AskedAt
// lies at or before the Position. For that it must be the insert LSN: with synchronous_commit = off a commit is acknowledged before it is flushed.
type PrimarySample struct {
	AskedAt schema.Instant // before the question was sent
	Epoch   schema.Epoch
	Position
}

// StandbySample is how far a standby had replayed at some time after AskedAt. Its timeline is the one that it receives: a standby
// does not receive a timeline that its own history has parted from. Zero while it is not known.
type StandbySample struct {
	AskedAt schema.Instant
	Position
}

// Mark is what a session has to see: all that was acknowledged before At by primaries up to that of Epoch. The zero Mark asks for nothing.
type Mark struct {
	At    schema.Instant
	Epoch schema.Epoch
	// bound is where all that lies, by a sample of the primary asked after At; unknown while its timeline is zero.
	bound Position
}

// Wrote returns the mark after a statement that may have written has been answered, in whatever way, by the primary of epoch. now is
// read after the answer was.
func (m Mark) Wrote(now schema.Instant, epoch schema.Epoch) Mark {
	return Mark{At: now, Epoch: max(m.Epoch, epoch)}
}

// Empty reports whether the mark asks for nothing.
func (m Mark) Empty() bool { return m.At == schema.Never }

// Learn returns the mark with what a sample of the primary says about it. A sample bounds it if it was asked after all that the mark is
// about, at a primary that is not older. A bound on another timeline than the primary's is of no more use: then the new primary's sample, which
// has all that is left of what the old ones acknowledged, takes its place.
func (m Mark) Learn(p PrimarySample) Mark {
	if m.Empty() || p.Timeline == 0 || p.AskedAt < m.At || p.Epoch < m.Epoch || p.Timeline == m.bound.Timeline {
		return m
	}
	m.Epoch, m.bound = p.Epoch, p.Position
	return m
}

// Bounded reports whether it is known how far a standby must have come.
func (m Mark) Bounded() bool { return m.Empty() || m.bound.Timeline != 0 }

// Seen reports whether a standby of which s was learnt shows all that the mark asks for to a connection that was established at since, and
// goes on to. A standby that is restarted ends its connections and may come back with less than it had replayed, so a sample
// from before the connection shows nothing. Never for since leaves that out.
func (m Mark) Seen(s StandbySample, since schema.Instant) bool {
	return m.Empty() || m.bound.Passed(s.Position) && s.AskedAt >= since
}

// Reader is a standby that a read could be given.
type Reader struct {
	Candidate
	// Address tells servers of one name apart: what is known of one says nothing of another.
	Address string
	Sample  StandbySample
	// Since is when the session's connection to it was established; Never if there is none. Then the choice is only of a standby to
	// connect to, and must be made again with the connection before anything is sent.
	Since schema.Instant
}

// Wait is what has to be learnt before a standby may serve.
type Wait string

// What is waited for.
const (
	WaitNothing Wait = ""        // one may serve, or none will
	WaitPrimary Wait = "primary" // a sample of the primary asked after Mark.At
	WaitReplay  Wait = "replay"  // a sample of a standby that has come far enough
)

// Fresh returns the index of the standby that a read with this mark may be given, by the order of Pick; if there is none it
// returns -1, and what would have to come.
func Fresh(m Mark, readers []Reader, b Bound) (serve int, wait Wait) {
	serve = -1
	for i := range readers {
		r := &readers[i]
		if r.NoLoadBalance || !b.Allows(r.Candidate) {
			continue
		}
		switch {
		case !m.Seen(r.Sample, r.Since):
			wait = WaitReplay
		case serve < 0 || before(r.Candidate, readers[serve].Candidate):
			serve = i
		}
	}
	switch {
	case serve >= 0:
		return serve, WaitNothing
	case wait == WaitReplay && !m.Bounded():
		return -1, WaitPrimary
	}
	return -1, wait
}
