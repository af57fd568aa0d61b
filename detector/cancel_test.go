package detector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"howdah/consul/schema"
)

func TestCancelRequests(t *testing.T) {
	t.Parallel()
	cancel := func(d *Detector, router string, patience time.Duration) (bool, error) {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		return d.Cancel(ctx, router, []byte("key"))
	}
	ca, cb := config("a"), config("b")
	dropA, dropB := faulty(&ca), faulty(&cb)
	a, b := start(t, ca), start(t, cb)
	if _, err := cancel(a, "b", time.Second); !errors.Is(err, ErrNoAddress) {
		t.Errorf("of a router that is not known: %v", err)
	}
	if err := b.Join([]string{a.Addr()}); err != nil {
		t.Fatal(err)
	}
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	if found, err := cancel(a, "b", 5*time.Second); found || err != nil {
		t.Errorf("without a handler: %v, %v", found, err)
	}
	var calls atomic.Int32
	var known atomic.Bool
	b.HandleCancels(func(_ context.Context, key []byte) bool {
		calls.Add(1)
		return known.Load() && string(key) == "key"
	})
	if found, err := cancel(a, "b", 5*time.Second); found || err != nil {
		t.Errorf("of no session's: %v, %v", found, err)
	}
	known.Store(true)
	if found, err := cancel(a, "b", 5*time.Second); !found || err != nil {
		t.Errorf("of a session's: %v, %v", found, err)
	}
	// A request whose answer is lost is not sent again: what it would hit is another statement.
	all := func(string, bool) bool { return true }
	dropB.Store(&all)
	if _, err := cancel(a, "b", 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an answer: %v", err)
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("3 requests came %d times", n)
	}
	dropB.Store(nil)
	dropA.Store(&all)
	if _, err := cancel(a, "b", 300*time.Millisecond); err == nil {
		t.Error("a request that was lost succeeded")
	}
	dropA.Store(nil)
	stop(t, a)
	if _, err := cancel(a, "b", time.Second); !errors.Is(err, ErrShutdown) {
		t.Errorf("after the shutdown: %v", err)
	}
}

// A flood of cancel requests takes no more than its slots.
func TestTooManyCancelRequests(t *testing.T) {
	t.Parallel()
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	release := make(chan struct{})
	var busy atomic.Int32
	b.HandleCancels(func(context.Context, []byte) bool {
		busy.Add(1)
		<-release
		return true
	})
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	var wg sync.WaitGroup
	for range maxCancels {
		wg.Go(func() {
			if found, err := a.Cancel(ctx, "b", []byte("key")); !found || err != nil {
				t.Errorf("one of those with a slot: %v, %v", found, err)
			}
		})
	}
	until(t, b, "every slot is taken", func() bool { return busy.Load() == maxCancels })
	if _, err := a.Cancel(ctx, "b", []byte("key")); !errors.Is(err, errCancelDropped) {
		t.Errorf("one too many: %v", err)
	}
	if m := b.Metrics(); m.CancelsDropped != 1 {
		t.Errorf("%d were dropped", m.CancelsDropped)
	}
	close(release)
	wg.Wait()
	if m := b.Metrics(); m.CancelsCarriedOut != maxCancels {
		t.Errorf("%d were carried out", m.CancelsCarriedOut)
	}
}
