package detector

import "sync"

// replies are what this process waits for from others, by whom it asked and the id of the question.
type replies[T any] struct {
	mu      sync.Mutex
	waiting map[question]chan T
}

func newReplies[T any]() *replies[T] { return &replies[T]{waiting: map[question]chan T{}} }

// expect begins to wait; forget must follow.
func (r *replies[T]) expect(q question) <-chan T {
	c := make(chan T, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[q] = c
	return c
}

func (r *replies[T]) forget(q question) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, q)
}

// deliver hands an answer to who waits for it; one that comes twice, or too late, is let go.
func (r *replies[T]) deliver(m message, answer T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.waiting[question{from: m.From, id: m.ID}]; c != nil {
		select {
		case c <- answer:
		default:
		}
	}
}
