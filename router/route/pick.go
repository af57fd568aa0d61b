package route

import "time"

// Candidate is a standby that a read-only session could be given.
type Candidate struct {
	Member string
	// Sessions is how many sessions this router has on it now.
	Sessions int
	// LagBytes is what it lacks of the primary, LagTime how old the newest state is that it is
	// known to show.
	LagBytes uint64
	LagTime  time.Duration
	// NoLoadBalance keeps it out of the choice.
	NoLoadBalance bool
}

// Bound is how stale a standby may be and still be given reads. A zero field bounds nothing.
type Bound struct {
	Bytes uint64
	Time  time.Duration
}

// Allows reports whether c is within b.
func (b Bound) Allows(c Candidate) bool {
	return (b.Bytes == 0 || c.LagBytes <= b.Bytes) && (b.Time == 0 || c.LagTime <= b.Time)
}

// Pick returns the index of the candidate that the next read-only session goes to: the one with
// the fewest sessions, among those equal the least stale one, then the first by name. It returns
// -1 if none may serve.
func Pick(candidates []Candidate, b Bound) int {
	best := -1
	for i, c := range candidates {
		if c.NoLoadBalance || !b.Allows(c) {
			continue
		}
		if best < 0 || before(c, candidates[best]) {
			best = i
		}
	}
	return best
}

// Lighter reports whether a session had better leave one standby for another for balance alone, by the sessions of both. A small difference is not worth a
// login, and one that its change would turn around is none.
func Lighter(other, own int) bool { return other+1 < own && 4*other < 3*own }

// before orders candidates by who is chosen first; it is a strict order over distinct members.
func before(a, b Candidate) bool {
	switch {
	case a.Sessions != b.Sessions:
		return a.Sessions < b.Sessions
	case a.LagBytes != b.LagBytes:
		return a.LagBytes < b.LagBytes
	}
	return a.Member < b.Member
}
