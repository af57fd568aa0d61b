package role

import (
	"context"
	"fmt"
	"sync"
	"time"

	"howdah/consul/schema"
	"howdah/router/own"
)

// KeptFor is how long an answer may be used again. It only saves questions: whoever finds that an answer does not fit asks anew.
const KeptFor = time.Second

// maxKept bounds how many answers are kept; strangers may ask for any name.
const maxKept = 1000

// Book keeps what servers answer to questions of one kind, by what was asked for. Make it with NewBook; its methods may be called from any goroutine.
type Book[K comparable, A any] struct {
	// about says in errors what is asked for.
	about   string
	ask     func(ctx context.Context, on own.Server, key K) (A, error)
	servers func() []own.Server
	now     func() schema.Instant
	// timeout bounds one question to all servers.
	timeout time.Duration

	mu    sync.Mutex
	pages map[K]*page[A]
	// asking counts the questions under way.
	asking sync.WaitGroup
}

// page is one question, and its answer once done is closed.
type page[A any] struct {
	begun  schema.Instant
	done   chan struct{}
	answer A
	err    error
	// failed, of the book's lock: it is done, and has no answer. before is the last one before this question, nil if there is none.
	failed bool
	before *A
}

// NewBook returns a Book that asks the servers that are returned at that moment, one after the other until one answers: the primary first.
func NewBook[K comparable, A any](about string, ask func(ctx context.Context, on own.Server, key K) (A, error), servers func() []own.Server, now func() schema.Instant, timeout time.Duration) *Book[K, A] {
	return &Book[K, A]{about: about, ask: ask, servers: servers, now: now, timeout: timeout, pages: map[K]*page[A]{}}
}

// Find returns the answer to a question that was asked at since or later. Those who ask for the same at the same time share a question.
func (b *Book[K, A]) Find(ctx context.Context, key K, since schema.Instant) (A, error) {
	p := b.page(key, since)
	select {
	case <-p.done:
		return p.answer, p.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// Last returns the last answer, however old; false if none is kept.
func (b *Book[K, A]) Last(key K) (answer A, kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.pages[key].last(); last != nil {
		return *last, true
	}
	return answer, false
}

// last is the newest answer that p knows of; nil if there is none. p may be nil. The book's lock is held.
func (p *page[A]) last() *A {
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		if p.err == nil {
			answer := p.answer // of its own: a page must not keep all that were before it
			return &answer
		}
	default:
	}
	return p.before
}

func (b *Book[K, A]) page(key K, since schema.Instant) *page[A] {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.pages[key]
	if known != nil && !known.failed && !known.begun.Before(since) {
		return known
	}
	b.makeRoom()
	p := &page[A]{begun: b.now(), done: make(chan struct{}), before: known.last()}
	b.pages[key] = p
	b.asking.Go(func() {
		defer close(p.done)
		// Whoever asked first may go away; others wait for the same answer.
		ctx, stop := context.WithTimeout(context.Background(), b.timeout)
		defer stop()
		if p.answer, p.err = b.find(ctx, key); p.err != nil {
			b.fail(key, p)
		}
	})
	return p
}

// makeRoom forgets what is too old to be used again, and if that is not enough everything.
func (b *Book[K, A]) makeRoom() {
	if len(b.pages) < maxKept {
		return
	}
	old := b.now().Add(-KeptFor)
	for key, p := range b.pages {
		if p.begun.Before(old) {
			delete(b.pages, key)
		}
	}
	if len(b.pages) >= maxKept {
		clear(b.pages)
	}
}

// fail has the next one who wants to know ask anew.
func (b *Book[K, A]) fail(key K, p *page[A]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.failed = true
	if b.pages[key] == p && p.before == nil {
		delete(b.pages, key)
	}
}

func (b *Book[K, A]) find(ctx context.Context, key K) (A, error) {
	err := own.ErrNoPrimary
	for _, s := range b.servers() {
		var a A
		if a, err = b.ask(ctx, s, key); err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	var none A
	return none, fmt.Errorf("look up %s: %w", b.about, err)
}

// Wait returns once no question is under way.
func (b *Book[K, A]) Wait() { b.asking.Wait() }
