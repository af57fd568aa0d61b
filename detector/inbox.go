package detector

import (
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// The inbox's bounds. Node events are not bounded by number but by nodes: of each only the
// latest is kept, and none is dropped.
const (
	maxMessages  = 1024
	maxStates    = 16
	maxConflicts = 64
)

// nodeEvent is what memberlist said last about a node.
type nodeEvent struct {
	node memberlist.Node // a deep copy
	gone bool            // dead or left
}

type conflict struct {
	name            string
	existing, other string // host:port
}

// mail is one taking of the inbox's contents.
type mail struct {
	events    map[string]nodeEvent
	messages  [][]byte
	states    [][]byte
	conflicts []conflict
}

// inbox is where memberlist's delegates leave copies of what they are given, under memberlist's
// locks and therefore without waiting. A full one drops the newest message and counts it: statuses are
// sent again and questions are repeated.
type inbox struct {
	mu      sync.Mutex
	mail    mail
	dropped uint64
	signal  chan struct{}
}

func newInbox() *inbox {
	return &inbox{mail: mail{events: map[string]nodeEvent{}}, signal: make(chan struct{}, 1)}
}

func (b *inbox) put(f func(*mail) bool) {
	b.mu.Lock()
	if !f(&b.mail) {
		b.dropped++
	}
	b.mu.Unlock()
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

func (b *inbox) event(n *memberlist.Node, gone bool) {
	c := copyNode(n)
	b.put(func(m *mail) bool {
		m.events[c.Name] = nodeEvent{node: c, gone: gone}
		return true
	})
}

func (b *inbox) message(p []byte) {
	p = slices.Clone(p)
	b.put(func(m *mail) bool { return appendBelow(&m.messages, p, maxMessages) })
}

func (b *inbox) state(p []byte) {
	p = slices.Clone(p)
	b.put(func(m *mail) bool { return appendBelow(&m.states, p, maxStates) })
}

func (b *inbox) conflict(existing, other *memberlist.Node) {
	c := conflict{name: existing.Name, existing: existing.Address(), other: other.Address()}
	b.put(func(m *mail) bool { return appendBelow(&m.conflicts, c, maxConflicts) })
}

// take empties the inbox. The signal may come once more for what was taken.
func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{events: map[string]nodeEvent{}}
	return m
}

func (b *inbox) drops() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

func appendBelow[T any](s *[]T, v T, limit int) bool {
	if len(*s) >= limit {
		return false
	}
	*s = append(*s, v)
	return true
}

// copyNode copies what memberlist changes later under its own lock.
func copyNode(n *memberlist.Node) memberlist.Node {
	c := *n
	c.Addr = slices.Clone(n.Addr)
	c.Meta = slices.Clone(n.Meta)
	return c
}
