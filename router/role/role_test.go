package role

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/scram"
)

// table answers from a map and counts.
type table struct {
	mu    sync.Mutex
	asked []string
	err   map[string]error
	took  time.Duration
	kind  scram.Kind
}

func (a *table) ask(ctx context.Context, on own.Server, name string) (Role, error) {
	a.mu.Lock()
	a.asked = append(a.asked, on.Member+" "+name)
	err, took, kind := a.err[on.Member], a.took, a.kind
	a.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return Role{}, ctx.Err()
	}
	return Role{Verifier: scram.Verifier{Kind: kind}}, err
}

func (a *table) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func book(a *table) *Roles {
	begun := time.Now()
	return NewRoles(a.ask, func() []own.Server { return []own.Server{{Member: "one", Epoch: 1}, {Member: "two"}} },
		func() schema.Instant { return schema.Instant(time.Since(begun)) }, 5*time.Second)
}

func TestAnswersAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &table{kind: scram.KindSCRAM, took: 10 * time.Millisecond}
		b := book(a)
		find := func(since schema.Instant, want int) {
			t.Helper()
			if r, err := b.Find(t.Context(), "alice", since); err != nil || r.Verifier.Kind != scram.KindSCRAM || a.count() != want {
				t.Errorf("%v, %v; asked %d times, want %d", r, err, a.count(), want)
			}
		}
		find(b.now().Add(-KeptFor), 1)
		find(b.now().Add(-KeptFor), 1)
		find(b.now(), 2) // a question that was asked before is too old
		time.Sleep(KeptFor + time.Millisecond)
		find(b.now().Add(-KeptFor), 3)
		if _, err := b.Find(t.Context(), "bob", b.now().Add(-KeptFor)); err != nil || a.count() != 4 {
			t.Errorf("%v; asked %d times", err, a.count())
		}
	})
}

func TestQuestionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &table{took: time.Second}
		b := book(a)
		since := b.now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := b.Find(t.Context(), "alice", since); err != nil {
					t.Error(err)
				}
			})
		}
		// Who goes away takes nobody's answer along.
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := b.Find(gone, "alice", since); !errors.Is(err, context.Canceled) {
			t.Errorf("gone: %v", err)
		}
		all.Wait()
		if a.count() != 1 {
			t.Errorf("asked %d times", a.count())
		}
		b.Wait()
	})
}

func TestOtherServersAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &table{err: map[string]error{"one": errors.New("cannot be reached")}}
		b := book(a)
		if _, err := b.Find(t.Context(), "alice", b.now()); err != nil || fmt.Sprint(a.asked) != "[one alice two alice]" {
			t.Errorf("%v, %v", a.asked, err)
		}
		// An error is not kept.
		a.err["two"] = ErrNoFunction
		for range 2 {
			if _, err := b.Find(t.Context(), "bob", b.now().Add(-KeptFor)); !errors.Is(err, ErrNoFunction) {
				t.Errorf("%v", err)
			}
		}
		if a.count() != 6 {
			t.Errorf("asked: %v", a.asked)
		}
		a.took = time.Hour
		if _, err := b.Find(t.Context(), "carol", b.now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if r, err := b.Find(t.Context(), "not \xff UTF-8", b.now()); err != nil || r.Why == "" {
			t.Errorf("%v, %v", r, err)
		}
		b.servers = func() []own.Server { return nil }
		if _, err := b.Find(t.Context(), "dave", b.now()); !errors.Is(err, own.ErrNoPrimary) {
			t.Errorf("%v", err)
		}
	})
}

// Where nobody answers any more, what was answered last can still be had.
func TestTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &table{kind: scram.KindSCRAM, err: map[string]error{}}
		b := book(a)
		last := func(what string, want scram.Kind) {
			t.Helper()
			if r, kept := b.Last("alice"); kept != (want != scram.KindNone) || r.Verifier.Kind != want {
				t.Errorf("%s: %v, %v", what, r, kept)
			}
		}
		last("nobody was asked", scram.KindNone)
		fails := func() {
			t.Helper()
			time.Sleep(time.Millisecond)
			if _, err := b.Find(t.Context(), "alice", b.now()); err == nil {
				t.Error("no error")
			}
		}
		answers := func() {
			t.Helper()
			time.Sleep(time.Millisecond)
			if _, err := b.Find(t.Context(), "alice", b.now()); err != nil {
				t.Error(err)
			}
		}
		a.err["one"], a.err["two"] = errors.New("cannot be reached"), errors.New("cannot be reached")
		fails()
		last("nobody answered", scram.KindNone)
		clear(a.err)
		answers()
		last("the first", scram.KindSCRAM)
		a.err["one"], a.err["two"] = errors.New("cannot be reached"), errors.New("cannot be reached")
		for range 3 {
			fails()
			last("they are gone", scram.KindSCRAM)
		}
		if n := a.count(); n != 9 {
			t.Errorf("asked %d times: a failure is no answer", n)
		}
		a.mu.Lock()
		a.took, a.kind, a.err = time.Hour, scram.KindMD5, nil
		a.mu.Unlock()
		time.Sleep(time.Millisecond)
		hurried, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		if _, err := b.Find(hurried, "alice", b.now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		last("they hang", scram.KindSCRAM)
		b.Wait()
		a.took = 0
		answers()
		last("they are back", scram.KindMD5)
	})
}

// Strangers may ask for as many names as they like.
func TestWhatIsKeptIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &table{}
		b := book(a)
		for i := range 5 * maxKept {
			if _, err := b.Find(t.Context(), fmt.Sprint("stranger", i), b.now()); err != nil {
				t.Fatal(err)
			}
			if n := len(b.pages); n > maxKept {
				t.Fatalf("%d answers are kept", n)
			}
		}
	})
}
