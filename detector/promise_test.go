package detector

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"howdah/consul/schema"
)

func TestPromises(t *testing.T) {
	t.Parallel()
	request := schema.PromiseRequest{From: "a", Epoch: 3, Lease: schema.Duration(3 * time.Second)}
	ask := func(d *Detector, member string, patience time.Duration) (schema.PromiseReply, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return d.AskPromise(ctx, member, request)
	}
	ca, cb := config("a"), config("b")
	dropA, dropB := faulty(&ca), faulty(&cb)
	a, b := start(t, ca), start(t, cb)
	if _, err := ask(a, "b", 100*time.Millisecond); !errors.Is(err, ErrNoAddress) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unknown member: %v", err)
	}
	if err := b.Join([]string{a.Addr()}); err != nil {
		t.Fatal(err)
	}
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	if r, err := ask(a, "b", 3*time.Second); err != nil || r.Given || r.Member != "b" || r.Why == "" {
		t.Errorf("without a handler: %+v, %v", r, err)
	}
	var calls atomic.Int32
	b.HandlePromises(func(r schema.PromiseRequest) schema.PromiseReply {
		calls.Add(1)
		return schema.PromiseReply{Given: r == request, Member: "whoever"}
	})
	times := func(n int) (longest time.Duration) {
		for range n {
			began := time.Now()
			if r, err := ask(a, "b", 3*time.Second); err != nil || !r.Given || r.Member != "b" {
				t.Errorf("%+v, %v", r, err)
			}
			longest = max(longest, time.Since(began))
		}
		return longest
	}
	t.Logf("no loss: longest of 20 %s", times(20))
	half := func(_ string, stream bool) bool { return !stream && rand.IntN(2) == 0 }
	dropA.Store(&half)
	dropB.Store(&half)
	t.Logf("half of the packets lost each way: longest of 20 %s", times(20))
	noUDP := func(_ string, stream bool) bool { return !stream }
	dropA.Store(&noUDP)
	dropB.Store(&noUDP)
	t.Logf("TCP only: longest of 5 %s", times(5))
	if n := calls.Load(); n != 45 {
		t.Errorf("45 questions were answered by %d calls", n)
	}
	all := func(string, bool) bool { return true }
	dropB.Store(&all)
	began := time.Now()
	if _, err := ask(a, "b", 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if _, err := ask(a, "a", time.Second); err == nil {
		t.Error("asked itself")
	}
	dropA.Store(nil)
	dropB.Store(nil)
	stop(t, a)
	if _, err := a.AskPromise(context.Background(), "b", request); !errors.Is(err, ErrShutdown) {
		t.Errorf("after the shutdown: %v", err)
	}
}

// A handler that hangs holds up neither gossip nor other questions for ever, and is bounded.
func TestSlowPromiseHandlers(t *testing.T) {
	a := start(t, config("a"))
	b := start(t, config("b", a.Addr()))
	until(t, a, "b", sees(a, "b", schema.LivenessAlive))
	release := make(chan struct{})
	var busy, most atomic.Int32
	b.HandlePromises(func(schema.PromiseRequest) schema.PromiseReply {
		n := busy.Add(1)
		defer busy.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		return schema.PromiseReply{Given: true}
	})
	const asked = 3 * maxHandlers
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var given atomic.Int32
	var wg sync.WaitGroup
	for range asked {
		wg.Go(func() {
			if r, err := a.AskPromise(ctx, "b", schema.PromiseRequest{}); err == nil && r.Given {
				given.Add(1)
			}
		})
	}
	until(t, b, "every slot is taken", func() bool { return b.Metrics().PromisesDropped > 0 && busy.Load() == maxHandlers })
	a.Publish(st(1))
	until(t, b, "gossip goes on", heard(b, "a", 1))
	close(release)
	wg.Wait()
	if given.Load() != asked || most.Load() > maxHandlers {
		t.Errorf("%d promises of %d; %d handlers at a time", given.Load(), asked, most.Load())
	}
}
