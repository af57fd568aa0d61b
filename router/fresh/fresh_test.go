package fresh_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/fresh"
	"howdah/router/own"
	"howdah/router/route"
)

// world is what the servers answer. Each answer takes delay.
type world struct {
	mu       sync.Mutex
	delay    time.Duration
	primary  route.Position
	standbys map[string]route.Position
	broken   map[string]bool
	asked    map[string]int
}

func (w *world) look(ctx context.Context, s own.Server) (schema.Timeline, schema.LSN, error) {
	w.mu.Lock()
	w.asked[s.Member]++
	delay := w.delay
	w.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.primary
	if !s.Primary() {
		p = w.standbys[s.Member]
	}
	if w.broken[s.Member] {
		return 0, 0, errors.New("it does not answer")
	}
	return p.Timeline, p.LSN, nil
}

func (w *world) PrimaryLSN(ctx context.Context, s own.Server) (schema.Timeline, schema.LSN, error) {
	return w.look(ctx, s)
}

func (w *world) ReplayLSN(ctx context.Context, s own.Server) (schema.Timeline, schema.LSN, error) {
	return w.look(ctx, s)
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) count(member string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[member]
}

const wait = 20 * time.Millisecond

var (
	one   = own.Server{Member: "one", Address: "1:1", Epoch: 1}
	two   = own.Server{Member: "two", Address: "2:1"}
	three = own.Server{Member: "three", Address: "3:1"}
)

// bench is Reads before a world, with the clock of a bubble.
type bench struct {
	*fresh.Reads
	*world
	now func() schema.Instant
}

// bubble runs f in a bubble, with one primary and two standbys that lack nothing.
func bubble(t *testing.T, f func(*testing.T, *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		b := &bench{
			world: &world{
				delay: 100 * time.Microsecond, primary: route.Position{Timeline: 1, LSN: 100},
				standbys: map[string]route.Position{"two": {Timeline: 1, LSN: 100}, "three": {Timeline: 1, LSN: 100}},
				broken:   map[string]bool{}, asked: map[string]int{},
			},
			now: func() schema.Instant { return schema.Instant(time.Since(begun)) + 1 },
		}
		b.Reads = fresh.New(fresh.Options{Sampler: b.world, Wait: wait, Now: b.now, Log: zap.NewNop()})
		b.Set([]own.Server{one, two, three})
		defer b.Close()
		time.Sleep(time.Second)
		f(t, b)
	})
}

// readers are both standbys, with connections that were there from the beginning.
func readers() []route.Reader {
	return []route.Reader{
		{Candidate: route.Candidate{Member: "two"}, Address: two.Address, Since: 1},
		{Candidate: route.Candidate{Member: "three"}, Address: three.Address, Since: 1},
	}
}

// choose returns who serves, empty for the primary, and how long that took.
func (b *bench) choose(m *fresh.Mark, c route.Consistency, rs []route.Reader) (string, time.Duration) {
	begun := time.Now()
	i := b.Choose(context.Background(), m, c, rs, route.Bound{})
	if i < 0 {
		return "", time.Since(begun)
	}
	return rs[i].Member, time.Since(begun)
}

func TestNobodyIsAskedUnlessNeeded(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		for _, c := range []route.Consistency{route.Eventual, route.Session} {
			if got, took := b.choose(&m, c, readers()); got != "three" || took != 0 {
				t.Errorf("%s without a write: %q after %s", c, got, took)
			}
		}
		time.Sleep(time.Hour)
		if n := b.count("one") + b.count("two") + b.count("three"); n != 0 {
			t.Errorf("servers were asked %d times", n)
		}
	})
}

func TestAWriteIsSeenNext(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		m.Wrote(b.now(), 1)
		if got, took := b.choose(&m, route.Session, readers()); got == "" || took > time.Millisecond {
			t.Errorf("%q after %s", got, took)
		}
		// From now on that is known, and nobody has to be asked.
		time.Sleep(time.Second)
		n := b.count("one") + b.count("two")
		for range 100 {
			if got, took := b.choose(&m, route.Session, readers()); got == "" || took != 0 {
				t.Fatalf("%q after %s", got, took)
			}
		}
		time.Sleep(time.Hour)
		if more := b.count("one") + b.count("two") - n; more != 0 {
			t.Errorf("servers were asked %d times more", more)
		}
		// Another write is another matter.
		b.set(func() { b.primary.LSN = 200 })
		m.Wrote(b.now(), 1)
		b.set(func() { b.standbys["two"] = route.Position{Timeline: 1, LSN: 200} })
		if got, _ := b.choose(&m, route.Session, readers()); got != "two" {
			t.Errorf("%q", got)
		}
	})
}

// A standby that does not replay is left out until it does, and a session waits only once for one write.
func TestReplayIsPaused(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		b.set(func() { b.primary.LSN = 200 })
		m.Wrote(b.now(), 1)
		if got, took := b.choose(&m, route.Session, readers()); got != "" || took != wait {
			t.Fatalf("%q after %s", got, took)
		}
		if n := b.count("one"); n != 1 {
			t.Errorf("the primary was asked %d times", n)
		}
		if n := b.count("two"); n < 2 || n > 4 {
			t.Errorf("a standby was asked %d times within %s", n, wait)
		}
		for range 5 {
			if got, took := b.choose(&m, route.Session, readers()); got != "" || took != 0 {
				t.Fatalf("%q after %s", got, took)
			}
			time.Sleep(time.Second)
		}
		if n := b.count("two"); n > 10 {
			t.Errorf("a standby was asked %d times", n)
		}
		b.set(func() { b.standbys["three"] = route.Position{Timeline: 1, LSN: 200} })
		b.choose(&m, route.Session, readers()) // has it asked
		time.Sleep(time.Second)
		if got, took := b.choose(&m, route.Session, readers()); got != "three" || took != 0 {
			t.Errorf("%q after %s", got, took)
		}
	})
}

func TestReplayGoesOnWhileSomebodyWaits(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		b.set(func() { b.primary.LSN = 200 })
		m.Wrote(b.now(), 1)
		time.AfterFunc(5*time.Millisecond, func() { b.set(func() { b.standbys["two"] = route.Position{Timeline: 1, LSN: 200} }) })
		if got, took := b.choose(&m, route.Session, readers()); got != "two" || took < 5*time.Millisecond || took > 15*time.Millisecond {
			t.Errorf("%q after %s", got, took)
		}
	})
}

// All strict reads that wait share samples, and none is served by one that was asked before it came.
func TestStrictReadsShareSamples(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.set(func() { b.delay = 2 * time.Millisecond })
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond)
				var m fresh.Mark
				if got, took := b.choose(&m, route.Strict, readers()); got == "" || took < 2*time.Millisecond {
					t.Errorf("%q after %s", got, took)
				}
				if !m.Empty() {
					t.Error("a read has left a mark")
				}
			})
		}
		wg.Wait()
		if n := b.count("one"); n < 2 || n > 3 {
			t.Errorf("200 reads within 2 ms had the primary asked %d times", n)
		}
		// A commit of anybody moves the primary, and holds strict reads away from who lacks it.
		b.set(func() { b.primary.LSN = 300; b.standbys["two"] = route.Position{Timeline: 1, LSN: 300} })
		var m fresh.Mark
		if got, _ := b.choose(&m, route.Strict, readers()); got != "two" {
			t.Errorf("%q", got)
		}
		b.set(func() { b.primary.LSN = 400 })
		if got, took := b.choose(&m, route.Strict, readers()); got != "" || took != wait {
			t.Errorf("%q after %s", got, took)
		}
	})
}

// A restarted standby may show less than it did, so a new connection needs a new sample; so does another server of the same name.
func TestNewConnections(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		m.Wrote(b.now(), 1)
		if got, _ := b.choose(&m, route.Session, readers()[:1]); got != "two" {
			t.Fatalf("%q", got)
		}
		b.set(func() { b.standbys["two"] = route.Position{Timeline: 1, LSN: 90} })
		rs := readers()[:1]
		rs[0].Since = schema.Never
		if got, took := b.choose(&m, route.Session, rs); got != "two" || took != 0 {
			t.Errorf("whom to connect to: %q after %s", got, took)
		}
		rs[0].Since = b.now()
		if got, _ := b.choose(&m, route.Session, rs); got != "" {
			t.Errorf("a restarted standby: %q", got)
		}
		rs = readers()[1:]
		rs[0].Address = "3:2"
		m.Wrote(b.now(), 1)
		if got, _ := b.choose(&m, route.Session, rs); got != "" {
			t.Errorf("another server of that name: %q", got)
		}
	})
}

func TestAnotherPrimary(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		b.set(func() { b.primary.LSN = 200 })
		m.Wrote(b.now(), 1)
		b.choose(&m, route.Session, readers())
		// Two is promoted without the end of the WAL; three has gone further on the old timeline.
		promoted := own.Server{Member: "two", Address: two.Address, Epoch: 2}
		b.set(func() {
			b.primary = route.Position{Timeline: 2, LSN: 150}
			b.standbys["three"] = route.Position{Timeline: 1, LSN: 500}
		})
		b.Set([]own.Server{promoted, three})
		m.Wrote(b.now(), 2)
		if got, _ := b.choose(&m, route.Session, readers()[1:]); got != "" {
			t.Errorf("a standby on a branch given up serves: %q", got)
		}
		b.set(func() { b.standbys["three"] = route.Position{Timeline: 2, LSN: 150} })
		b.choose(&m, route.Session, readers()[1:])
		time.Sleep(time.Second)
		if got, took := b.choose(&m, route.Session, readers()[1:]); got != "three" || took != 0 {
			t.Errorf("%q after %s", got, took)
		}
		// A mark that was bounded on the old timeline is proved anew.
		b.Set([]own.Server{{Member: "four", Address: "4:1", Epoch: 3}, three})
		b.set(func() {
			b.primary = route.Position{Timeline: 3, LSN: 180}
			b.standbys["three"] = route.Position{Timeline: 3, LSN: 180}
		})
		var strict fresh.Mark
		b.choose(&strict, route.Strict, readers()[1:]) // has learnt of both by now
		if got, took := b.choose(&m, route.Session, readers()[1:]); got != "three" || took != 0 {
			t.Errorf("%q after %s", got, took)
		}
	})
}

// A server that hangs or fails costs no more than the wait.
func TestServersThatDoNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		b.set(func() { b.broken["one"] = true })
		m.Wrote(b.now(), 1)
		if got, took := b.choose(&m, route.Session, readers()); got != "" || took != wait {
			t.Errorf("a primary that fails: %q after %s", got, took)
		}
		if n := b.count("one"); n > 4 {
			t.Errorf("it was asked %d times", n)
		}
		if b.Stats().PrimaryFailed == 0 {
			t.Error("nobody counts that")
		}
		time.Sleep(time.Second) // what was asked last has been answered
		b.set(func() { b.broken["one"] = false; b.delay = time.Hour })
		m.Wrote(b.now(), 1)
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer stop()
		begun := time.Now()
		if i := b.Choose(ctx, &m, route.Session, readers(), route.Bound{}); i >= 0 || time.Since(begun) != 5*time.Millisecond {
			t.Errorf("a primary that hangs: %d after %s", i, time.Since(begun))
		}
		// It hangs on; what waits ends with Close all the same.
	})
}

// Where no standby can become good enough nobody waits.
func TestNothingToWaitFor(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		var m fresh.Mark
		m.Wrote(b.now(), 1)
		rs := readers()
		for i := range rs {
			rs[i].LagBytes = 1000
		}
		begun := time.Now()
		for _, c := range []route.Consistency{route.Eventual, route.Session, route.Strict} {
			if i := b.Choose(context.Background(), &m, c, rs, route.Bound{Bytes: 999}); i >= 0 || time.Since(begun) != 0 {
				t.Errorf("%s: %d after %s", c, i, time.Since(begun))
			}
			if i := b.Choose(context.Background(), &m, c, nil, route.Bound{}); i >= 0 || time.Since(begun) != 0 {
				t.Errorf("%s without standbys: %d after %s", c, i, time.Since(begun))
			}
		}
	})
}

func TestOff(t *testing.T) {
	r := fresh.New(fresh.Options{Wait: wait, Now: func() schema.Instant { return 5 }, Log: zap.NewNop()})
	defer r.Close()
	r.Set([]own.Server{one, two})
	var m fresh.Mark
	if i := r.Choose(t.Context(), &m, route.Session, readers(), route.Bound{}); i < 0 {
		t.Error("a session that wrote nothing gets no standby")
	}
	m.Wrote(1, 1)
	if i := r.Choose(t.Context(), &m, route.Session, readers(), route.Bound{}); i >= 0 {
		t.Error("nothing is known and a standby serves")
	}
	if i := r.Choose(t.Context(), &m, route.Strict, readers(), route.Bound{}); i >= 0 {
		t.Error("nothing is known and a standby serves a strict read")
	}
}

func TestNoAllocations(t *testing.T) {
	w := &world{primary: route.Position{Timeline: 1, LSN: 1}, standbys: map[string]route.Position{"two": {Timeline: 1, LSN: 1}}, asked: map[string]int{}}
	observed := 0
	r := fresh.New(fresh.Options{Sampler: w, Wait: time.Minute, Now: func() schema.Instant { return 5 }, Log: zap.NewNop(), Observe: func(_ route.Consistency, standby bool, _ time.Duration) {
		if standby {
			observed++
		}
	}})
	defer r.Close()
	r.Set([]own.Server{one, two})
	var m fresh.Mark
	m.Wrote(5, 1)
	rs := readers()[:1]
	if i := r.Choose(t.Context(), &m, route.Session, rs, route.Bound{}); i != 0 {
		t.Fatal("no standby")
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { r.Choose(ctx, &m, route.Session, rs, route.Bound{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if observed != 1002 {
		t.Errorf("observed %d reads by a standby", observed)
	}
}

// With a context that has ended nobody waits, but the next read knows more.
func TestWhoDoesNotWaitLearns(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		ended, end := context.WithCancel(context.Background())
		end()
		for _, c := range []route.Consistency{route.Session, route.Strict} {
			var m fresh.Mark
			m.Wrote(b.now(), 1)
			n := b.count("two")
			begun := time.Now()
			if i := b.Choose(ended, &m, c, readers(), route.Bound{}); i >= 0 || time.Since(begun) != 0 {
				t.Errorf("%s: %d after %s", c, i, time.Since(begun))
			}
			time.Sleep(time.Second)
			if b.count("two") != n+1 {
				t.Errorf("%s: asked %d times", c, b.count("two")-n)
			}
			if got, took := b.choose(&m, route.Session, readers()); got == "" || took != 0 {
				t.Errorf("%s: then %q after %s", c, got, took)
			}
		}
	})
}
