package main

import (
	"slices"
	"sync"
	"time"

	"howdah/consul/schema"
)

// ack is one commit that a server acknowledged: the id of the row and when the answer had come.
type ack struct {
	ID int64          `json:"id"`
	At schema.Instant `json:"at"`
}

// ledger holds every acknowledged commit, in the order of the answers. It is safe for concurrent use.
type ledger struct {
	mu   sync.Mutex
	acks []ack
}

func (l *ledger) add(id int64, at schema.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, ack{ID: id, At: at})
}

// all returns a copy.
func (l *ledger) all() []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acks)
}

// last returns the newest; a zero one if there is none.
func (l *ledger) last() ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acks) == 0 {
		return ack{}
	}
	return l.acks[len(l.acks)-1]
}

// gap is a time without an acknowledged commit.
type gap struct {
	From, To schema.Instant
}

func (g gap) length() time.Duration { return g.To.Sub(g.From) }

// longestGap returns the longest time between two acknowledgements next to each other, of those that reach into
// [from, to]. Where none came after the last one, that time counts up to to.
func longestGap(acks []ack, from, to schema.Instant) gap {
	var longest gap
	previous := from
	for _, a := range acks {
		if a.At < from {
			previous = a.At
			continue
		}
		if g := (gap{previous, a.At}); g.length() > longest.length() {
			longest = g
		}
		previous = a.At
		if a.At >= to {
			return longest
		}
	}
	if g := (gap{previous, to}); g.length() > longest.length() {
		longest = g
	}
	return longest
}

// steadySince returns since when, at the earliest from, no time between two acknowledgements next to each other has
// been longer than limit; now if none has come for that long.
func steadySince(acks []ack, from, now schema.Instant, limit time.Duration) schema.Instant {
	since, previous := from, from
	for _, a := range acks {
		if a.At.Sub(previous) > limit {
			since = a.At
		}
		previous = schema.Latest(previous, a.At)
	}
	if now.Sub(previous) > limit {
		return now
	}
	return since
}

// missing returns the acknowledged ids that are not present.
func missing(acks []ack, present map[int64]bool) []int64 {
	var lost []int64
	for _, a := range acks {
		if !present[a.ID] {
			lost = append(lost, a.ID)
		}
	}
	return lost
}

// after counts the acknowledgements that came later than at; none does if at is Never.
func after(acks []ack, at schema.Instant) int {
	n := 0
	for _, a := range acks {
		if at != schema.Never && a.At > at {
			n++
		}
	}
	return n
}

// tail returns the acknowledgements from the last one before from.
func (l *ledger) tail(from schema.Instant) []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.acks)
	for i > 0 && l.acks[i-1].At >= from {
		i--
	}
	return slices.Clone(l.acks[max(0, i-1):])
}
