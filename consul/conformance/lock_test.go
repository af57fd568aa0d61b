package conformance

import (
	"errors"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"howdah/consul"
	"howdah/consul/schema"
)

// race runs n attempts at once, demands that one wins and all others are refused for certain, and returns the winner's view.
func (r *room) race(n int, attempt func(i int) (schema.LockView, error)) schema.LockView {
	r.Helper()
	views, errs := make([]schema.LockView, n), make([]error, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			views[i], errs[i] = attempt(i)
		})
	}
	start.Done()
	done.Wait()
	var won []schema.LockView
	for i, err := range errs {
		switch {
		case err == nil:
			won = append(won, views[i])
		case !errors.Is(err, consul.ErrRefused) || consul.OutcomeUnknown(err):
			r.Errorf("attempt %d: want a refusal, got %v", i, err)
		}
	}
	if len(won) != 1 {
		r.Fatalf("%d of %d attempts won, want one", len(won), n)
	}
	return won[0]
}

// stands demands that a read shows what a winner was told.
func (r *room) stands(won schema.LockView) {
	r.Helper()
	got := r.read()
	won.AskedAt, got.AskedAt = 0, 0
	if d := cmp.Diff(won, got); d != "" {
		r.Errorf("the winner was told otherwise than is read (-told +read):\n%s", d)
	}
}

func (r *room) refused(what string, err error) {
	r.Helper()
	if !errors.Is(err, consul.ErrRefused) || consul.OutcomeUnknown(err) {
		r.Errorf("%s: want a refusal that is certain, got %v", what, err)
	}
}

func contendedAcquire(r *room) {
	const n = 24
	at := r.read()
	if at.Exists || !at.Known {
		r.Fatalf("a new cluster has the leader %+v", at)
	}
	var sessions [n]string
	for i := range sessions {
		sessions[i] = r.session("contender")
	}
	won := r.race(n, func(i int) (schema.LockView, error) {
		return r.client.Acquire(r.ctx, at, sessions[i], record(string(rune('a'+i)), 1))
	})
	r.stands(won)
}

func contendedTakeOver(r *room) {
	const n = 12
	at := r.hold("old")
	var sessions [n]string
	for i := range sessions {
		sessions[i] = r.session("contender")
	}
	won := r.race(n, func(i int) (schema.LockView, error) {
		return r.client.TakeOver(r.ctx, at, sessions[i], record(string(rune('a'+i)), 2))
	})
	if won.Leader.Epoch != 2 || won.Session == at.Session {
		r.Errorf("the winner has %+v", won)
	}
	r.stands(won)
}

func renewalAgainstTakeOver(r *room) {
	const rounds = 25
	at := r.hold("a")
	sessions := map[string]string{"a": at.Session, "b": r.session("b")}
	other := map[string]string{"a": "b", "b": "a"}
	for range rounds {
		holder := at.Leader.Member
		rival := other[holder]
		at = r.race(2, func(i int) (schema.LockView, error) {
			if i == 0 {
				return r.client.Renew(r.ctx, at, at.Leader)
			}
			return r.client.TakeOver(r.ctx, at, sessions[rival], record(rival, at.Leader.Epoch+1))
		})
		r.stands(at)
	}
}

func staleTakeOver(r *room) {
	at := r.hold("a")
	rival := r.session("b")
	renewed, err := r.client.Renew(r.ctx, at, at.Leader)
	r.must(err)
	_, err = r.client.TakeOver(r.ctx, at, rival, record("b", 2))
	r.refused("a takeover from before the renewal", err)
	r.stands(renewed)
	// With the view that is up to date it succeeds.
	won, err := r.client.TakeOver(r.ctx, renewed, rival, record("b", 2))
	r.must(err)
	r.stands(won)
}

func oldHolder(r *room) {
	at := r.hold("a")
	won, err := r.client.TakeOver(r.ctx, at, r.session("b"), record("b", 2))
	r.must(err)
	_, err = r.client.Renew(r.ctx, at, at.Leader)
	r.refused("the old holder's renewal", err)
	_, err = r.client.Release(r.ctx, at, at.Leader)
	r.refused("the old holder's release", err)
	r.stands(won)
	// The old session lives on and holds nothing: its end changes nothing.
	r.must(r.client.RenewSession(r.ctx, at.Session))
	r.must(r.client.DestroySession(r.ctx, at.Session))
	r.stands(won)
}

func sameValue(r *room) {
	at := r.hold("a")
	for range 5 {
		next, err := r.client.Renew(r.ctx, at, at.Leader)
		r.must(err)
		if next.Index <= at.Index {
			r.Fatalf("a renewal with the same value left the index at %d", at.Index)
		}
		if next.AskedAt < at.AskedAt {
			r.Errorf("asked at %d after %d", next.AskedAt, at.AskedAt)
		}
		r.stands(next)
		at = next
	}
	// Also after the lock has been freed and taken again.
	r.must(r.client.DestroySession(r.ctx, at.Session))
	at = r.read()
	var next schema.LockView
	r.eventually("the end of the lock delay", func() bool {
		var err error
		next, err = r.client.Acquire(r.ctx, at, r.session("a"), at.Leader)
		return err == nil
	})
	r.stands(next)
}

func release(r *room) {
	at := r.hold("a")
	v := at.Leader
	v.Phase, v.Successor, v.ShutdownLSN = schema.PhaseReleased, "b", 0x4000028
	free, err := r.client.Release(r.ctx, at, v)
	r.must(err)
	if free.Held() || !free.Exists || free.Leader.Successor != "b" {
		r.Errorf("after the release: %+v", free)
	}
	r.stands(free)
	// At once: a release is no invalidation and has no lock delay.
	won, err := r.client.TakeOver(r.ctx, free, r.session("b"), record("b", 2))
	r.must(err)
	r.stands(won)
	_, err = r.client.Renew(r.ctx, at, at.Leader)
	r.refused("renewal of a released lock", err)
}

func acquireConditions(r *room) {
	missing := r.read()
	at := r.hold("a")
	_, err := r.client.Acquire(r.ctx, missing, r.session("b"), record("b", 1))
	r.refused("acquiring a key that is there by now", err)
	v := at.Leader
	v.Phase = schema.PhaseReleased
	free, err := r.client.Release(r.ctx, at, v)
	r.must(err)
	won, err := r.client.Acquire(r.ctx, free, r.session("c"), record("c", 2))
	r.must(err)
	_, err = r.client.Acquire(r.ctx, free, r.session("d"), record("d", 2))
	r.refused("acquiring what another has acquired since", err)
	_, err = r.raw.KV().Delete(r.key("leader"), nil)
	r.must(err)
	_, err = r.client.Renew(r.ctx, won, won.Leader)
	r.refused("renewing a key that was deleted", err)
	_, err = r.client.TakeOver(r.ctx, won, r.session("e"), record("e", 3))
	r.refused("taking over a key that was deleted", err)
	if v := r.read(); v.Exists || v.Index != 0 || !v.Known {
		r.Errorf("a deleted key is read as %+v", v)
	}
}

func epochs(r *room) {
	at := r.hold("a")
	b := r.session("b")
	for what, attempt := range map[string]func() (schema.LockView, error){
		"takeover with the same epoch":  func() (schema.LockView, error) { return r.client.TakeOver(r.ctx, at, b, record("b", 1)) },
		"renewal with an older epoch":   func() (schema.LockView, error) { v := at.Leader; v.Epoch = 0; return r.client.Renew(r.ctx, at, v) },
		"renewal for another member":    func() (schema.LockView, error) { v := at.Leader; v.Member = "b"; return r.client.Renew(r.ctx, at, v) },
		"renewal with another session":  func() (schema.LockView, error) { v := at.Leader; v.Session = b; return r.client.Renew(r.ctx, at, v) },
		"acquiring from a view of none": func() (schema.LockView, error) { return r.client.Acquire(r.ctx, schema.LockView{}, b, record("b", 9)) },
		"acquiring a lock that is held": func() (schema.LockView, error) { return r.client.Acquire(r.ctx, at, b, record("b", 9)) },
		"a record without a lease": func() (schema.LockView, error) {
			v := record("b", 2)
			v.Lease = 0
			return r.client.TakeOver(r.ctx, at, b, v)
		},
	} {
		if _, err := attempt(); err == nil || consul.OutcomeUnknown(err) {
			r.Errorf("%s: want an error before anything is sent, got %v", what, err)
		}
	}
	r.stands(at)
	risen := at.Leader
	risen.Epoch = 2 // a holder that hears of a newer epoch rises above it
	at, err := r.client.Renew(r.ctx, at, risen)
	r.must(err)
	r.stands(at)
	older := at.Leader
	older.Epoch = 1
	if _, err := r.client.Renew(r.ctx, at, older); err == nil || consul.OutcomeUnknown(err) {
		r.Errorf("renewal back to epoch 1: want an error before anything is sent, got %v", err)
	}
	r.stands(at)
	r.must(r.client.DestroySession(r.ctx, at.Session))
	free := r.read()
	if _, err := r.client.Acquire(r.ctx, free, b, record("b", 1)); err == nil {
		r.Error("another member acquired with the epoch of the last reign")
	}
}

func destroyedSession(r *room) {
	at := r.hold("a")
	r.must(r.client.DestroySession(r.ctx, at.Session))
	got := r.read()
	if got.Held() || !got.Exists || got.Index <= at.Index {
		r.Errorf("after the session's end: %+v, was %+v", got, at)
	}
	if d := cmp.Diff(at.Leader, got.Leader); d != "" {
		r.Errorf("the value has changed:\n%s", d)
	}
	// Within the lock delay Consul tells of that and not of the session.
	r.eventually("a refusal that tells that the session is gone", func() bool {
		_, err := r.client.Renew(r.ctx, at, at.Leader)
		r.refused("renewal after the session's end", err)
		return errors.Is(err, consul.ErrSessionGone)
	})
	if err := r.client.RenewSession(r.ctx, at.Session); !errors.Is(err, consul.ErrSessionGone) {
		r.Errorf("renewing a destroyed session: %v", err)
	}
	r.must(r.client.DestroySession(r.ctx, at.Session)) // again: no error
	_, err := r.client.TakeOver(r.ctx, got, at.Session, record("b", 2))
	if !errors.Is(err, consul.ErrSessionGone) {
		r.Errorf("taking over with a session that is gone: %v", err)
	}
}

func sessionExpiry(r *room) {
	const ttl = 10 * time.Second
	begin := time.Now()
	at := r.hold("a")
	kept := r.session("kept")
	renew := time.NewTicker(2 * time.Second)
	defer renew.Stop()
	r.eventually("the expiry", func() bool {
		select {
		case <-renew.C:
			r.must(r.client.RenewSession(r.ctx, kept))
		default:
		}
		return !r.read().Held()
	})
	if took := time.Since(begin); took < ttl || took > 2*ttl+5*time.Second {
		r.Errorf("a session of %s expired after %s", ttl, took)
	}
	got := r.read()
	if !got.Exists || got.Index <= at.Index || got.Leader.Member != "a" {
		r.Errorf("after the expiry: %+v, was %+v", got, at)
	}
	if err := r.client.RenewSession(r.ctx, at.Session); !errors.Is(err, consul.ErrSessionGone) {
		r.Errorf("renewing an expired session: %v", err)
	}
	_, err := r.client.Renew(r.ctx, at, at.Leader)
	r.refused("renewing the lock of an expired session", err)
	r.eventually("the end of the lock delay", func() bool {
		_, err = r.client.Acquire(r.ctx, got, kept, record("b", 2))
		return err == nil
	})
}

func sessionRules(r *room) {
	for _, ttl := range []time.Duration{0, 9 * time.Second, 25 * time.Hour} {
		if _, err := r.client.NewSession(r.ctx, ttl, "x"); err == nil || consul.OutcomeUnknown(err) {
			r.Errorf("a session of %s: %v", ttl, err)
		}
		// The server has the same rule.
		if _, _, err := r.raw.Session().CreateNoChecks(&api.SessionEntry{TTL: ttl.String()}, nil); (err == nil) != (ttl == 0) {
			r.Errorf("the server on a session of %s: %v", ttl, err)
		}
	}
	entry, _, err := r.raw.Session().Info(r.session("name"), nil)
	r.must(err)
	if entry == nil || len(entry.Checks)+len(entry.NodeChecks)+len(entry.ServiceChecks) != 0 {
		r.Fatalf("the session has checks: %+v", entry)
	}
	if entry.LockDelay != time.Millisecond || entry.Behavior != api.SessionBehaviorRelease || entry.TTL != "10s" || entry.Name != "name" {
		r.Errorf("the session is %+v", entry)
	}
}

// lockDelay is tried again with a longer delay where a busy machine let it pass before the lock was tried for.
func lockDelay(r *room) {
	for delay := 700 * time.Millisecond; !lockDelayed(r, delay); delay *= 2 {
		if delay > 10*time.Second {
			r.Fatalf("a lock delay of %s passes before one request is answered", delay)
		}
	}
}

// lockDelayed returns false if the delay was over before it could be seen.
func lockDelayed(r *room, delay time.Duration) bool {
	next := r.session("next")
	id, _, err := r.raw.Session().CreateNoChecks(&api.SessionEntry{TTL: "10s", LockDelay: delay}, nil)
	r.must(err)
	pair := &api.KVPair{Key: r.key("delayed-" + delay.String()), Session: id}
	if ok, _, err := r.raw.KV().Acquire(pair, nil); err != nil || !ok {
		r.Fatal(ok, err)
	}
	begin := time.Now()
	_, err = r.raw.Session().Destroy(id, nil)
	r.must(err)
	ops := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVLock, Key: pair.Key, Session: next}}}
	ok, resp, _, err := r.raw.Txn().Txn(ops, nil)
	r.must(err)
	if time.Since(begin) >= delay {
		return false
	}
	if ok || len(resp.Errors) != 1 || resp.Errors[0].What != `failed to lock key "`+pair.Key+`" due to lock delay` {
		r.Errorf("within the lock delay: %v %+v", ok, resp)
	}
	r.eventually("the end of the lock delay", func() bool {
		ok, _, err := r.raw.KV().Acquire(&api.KVPair{Key: pair.Key, Session: next}, nil)
		r.must(err)
		return ok
	})
	if took := time.Since(begin); took < delay {
		r.Errorf("acquired after %s, the lock delay is %s", took, delay)
	}
	return true
}

func rolledBackWhole(r *room) {
	at := r.hold("a")
	r.put("other", "before")
	before, _, err := r.raw.KV().List(r.key(""), nil)
	r.must(err)
	ops := api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: r.key("other"), Value: []byte("after")}},
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: r.key("new"), Value: []byte("x")}},
		{KV: &api.KVTxnOp{Verb: api.KVUnlock, Key: r.key("leader"), Session: at.Session, Value: []byte("{}")}},
		{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: r.key("leader")}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckIndex, Key: r.key("other"), Index: 1}},
	}
	ok, resp, _, err := r.raw.Txn().Txn(ops, nil)
	r.must(err)
	if ok || len(resp.Errors) != 1 || resp.Errors[0].OpIndex != 4 || len(resp.Results) != 0 {
		r.Errorf("want one error, about the last operation: %v %+v", ok, resp)
	}
	after, _, err := r.raw.KV().List(r.key(""), nil)
	r.must(err)
	if d := cmp.Diff(before, after); d != "" {
		r.Errorf("something was left of a transaction that was rolled back:\n%s", d)
	}
	r.stands(at)
}
