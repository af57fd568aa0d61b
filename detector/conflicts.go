package detector

import (
	"maps"
	"slices"
	"time"

	"howdah/consul/schema"
)

// conflicts remembers the names under which two processes live. memberlist also speaks of a conflict
// while a process that was restarted on another address has not been called dead on its old one; so its
// word counts only once it has been repeated for longer than that takes.
type conflicts struct {
	after, hold time.Duration
	seen        map[string]*conflictSeen
}

type conflictSeen struct {
	first, last schema.Instant
	certain     bool
}

func newConflicts(t Timing) *conflicts {
	worst := time.Duration(t.SuspicionMaxMult)*t.suspicion(10) + 2*time.Duration(t.AwarenessMax)*t.ProbeInterval
	return &conflicts{
		after: max(conflictAfter, worst),
		hold:  3 * t.PushPullInterval,
		seen:  map[string]*conflictSeen{},
	}
}

// note records a sign and reports whether it is the one that makes the conflict certain.
func (c *conflicts) note(name string, certain bool, now schema.Instant) bool {
	s := c.seen[name]
	if s == nil || now.Sub(s.last) > c.hold {
		s = &conflictSeen{first: now}
		c.seen[name] = s
	}
	s.last = now
	if s.certain || !certain && now.Sub(s.first) < c.after {
		return false
	}
	s.certain = true
	return true
}

// names returns the names in conflict, sorted. One that was not seen for three push/pull intervals is over.
func (c *conflicts) names(now schema.Instant) []string {
	maps.DeleteFunc(c.seen, func(_ string, s *conflictSeen) bool { return now.Sub(s.last) > c.hold })
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.seen)) {
		if c.seen[name].certain {
			names = append(names, name)
		}
	}
	return names
}
