package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/schema"
)

func (r *room) state() schema.ClusterState {
	r.Helper()
	s, err := r.client.ReadState(r.ctx)
	r.must(err)
	return s
}

func (r *room) conflict(what string, err error) {
	r.Helper()
	if !errors.Is(err, consul.ErrConflict) || consul.OutcomeUnknown(err) {
		r.Errorf("%s: want a conflict that is certain, got %v", what, err)
	}
}

func documents(r *room) {
	empty := r.state()
	if empty.Index == 0 || empty.Initialize.Exists || empty.Leader.Exists || !empty.Leader.Known || len(empty.Members) != 0 {
		r.Fatalf("an empty cluster reads as %+v", empty)
	}
	initialize := schema.Initialize{By: "a", Mode: "new"}
	config := schema.DefaultClusterConfig()
	config.HBA = nil // and stays empty
	history := schema.History{Reigns: []schema.Reign{{Epoch: 1, Member: "a", Timeline: 1, At: time.Unix(1700000000, 0).UTC()}}}
	request := schema.Request{ID: "1", Kind: schema.RequestSwitchover, From: "a", At: time.Unix(1700000000, 0).UTC()}
	members := []schema.Member{{Name: "a", Instance: "1"}, {Name: "b-2", Instance: "2"}, {Name: "c.3", Instance: "3"}}
	r.must(r.client.PutInitialize(r.ctx, initialize, 0))
	r.must(r.client.PutConfig(r.ctx, config, 0))
	r.must(r.client.PutHistory(r.ctx, history, 0))
	r.must(r.client.PutRequest(r.ctx, request, 0))
	for _, m := range slices.Backward(members) {
		r.must(r.client.PutMember(r.ctx, m, 0))
	}
	r.put("sync", "a key of a newer howdah")
	lock := r.hold("a")

	s := r.state()
	got := []any{s.Initialize.Value, s.Config.Value, s.History.Value, s.Request.Value, s.Members[0].Value, s.Members[1].Value, s.Members[2].Value, s.Leader.Leader}
	want := []any{initialize, config, history, request, members[0], members[1], members[2], lock.Leader}
	if d := cmp.Diff(want, got); d != "" {
		r.Errorf("the state is not what was written:\n%s", d)
	}
	if s.Leader.Index != lock.Index || s.Leader.AskedAt != s.AskedAt || s.AnsweredAt < s.AskedAt || s.Index < lock.Index {
		r.Errorf("indexes or times are wrong: %+v", s)
	}

	r.conflict("a second bootstrap", r.client.PutInitialize(r.ctx, initialize, 0))
	initialize.SystemID = "7300000000000000000"
	r.must(r.client.PutInitialize(r.ctx, initialize, s.Initialize.Index))
	r.conflict("a stale change", r.client.PutInitialize(r.ctx, initialize, s.Initialize.Index))
	r.conflict("a change of a missing key", r.client.PutMember(r.ctx, schema.Member{Name: "d"}, 5))
	r.conflict("deleting another request", r.client.DeleteRequest(r.ctx, s.Request.Index-1))
	r.must(r.client.DeleteRequest(r.ctx, s.Request.Index))
	r.must(r.client.DeleteRequest(r.ctx, s.Request.Index)) // it is gone already
	r.must(r.client.DeleteMember(r.ctx, "b-2", s.Members[1].Index))

	after := r.state()
	if after.Index <= s.Index || after.Request.Exists || len(after.Members) != 2 || after.Initialize.Value.SystemID == "" {
		r.Errorf("after changes and deletions: %+v", after)
	}
}

// unreadable: whatever stands in a key and is not the document is an error that names the key, never "missing".
func unreadable(r *room) {
	at := r.hold("a")
	for key, values := range map[string][]string{
		"leader":     {"", "null", "{}", "[]", "7", `{"member":"a","epoch":1}`, `{"member":"a","epoch":-1,"lease":"3s"}`, `{"member":"a","epoch":1,"phase":"serving","lease":3}`, `{"member":`},
		"initialize": {"", "null", "{}", `{"system_id":7}`},
		"config":     {"null", "nonsense", `{"lease":"0s"}`, `{"lease":"soon"}`},
		"history":    {"{}", "null", `{"reigns":{}}`},
		"request":    {"{}", "null"},
		"members/a":  {"{}", "null", `{"name":"b"}`},
	} {
		for _, value := range values {
			r.put(key, value)
			s, err := r.client.ReadState(r.ctx)
			if !errors.Is(err, consul.ErrUnreadable) || !strings.Contains(err.Error(), r.key(key)) {
				r.Errorf("%s = %q: want an error that names the key, got %v", key, value, err)
			}
			if d := cmp.Diff(schema.ClusterState{}, s); d != "" {
				r.Errorf("%s = %q: the state is not empty:\n%s", key, value, d)
			}
			if key != "leader" {
				continue
			}
			if v, err := r.client.ReadLeader(r.ctx); !errors.Is(err, consul.ErrUnreadable) || v.Known {
				r.Errorf("leader = %q: %+v, %v", value, v, err)
			}
		}
		_, err := r.raw.KV().Delete(r.key(key), nil)
		r.must(err)
	}
	if s := r.state(); s.Leader.Exists {
		r.Errorf("%+v remains of %+v", s.Leader, at)
	}
}

// watcher collects what a watch tells.
type watcher struct {
	mu     sync.Mutex
	states []schema.ClusterState
	errs   []error
	last   error
	calls  int
}

func (w *watcher) each(s schema.ClusterState, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.last = err
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	w.states = append(w.states, s)
}

func (w *watcher) newest() (schema.ClusterState, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil || len(w.states) == 0 {
		return schema.ClusterState{}, false
	}
	return w.states[len(w.states)-1], true
}

func (w *watcher) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// watching starts a watch that ends, for certain, with the test.
func (r *room) watching() *watcher {
	w := &watcher{}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.client.WatchState(ctx, w.each)
	}()
	r.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func watch(r *room) {
	w := r.watching()
	r.eventually("the first answer", func() bool { s, ok := w.newest(); return ok && !s.Leader.Exists })
	at := r.hold("a")
	r.eventually("the acquired lock", func() bool { s, _ := w.newest(); return s.Leader.Index == at.Index })
	for range 3 {
		next, err := r.client.Renew(r.ctx, at, at.Leader)
		r.must(err)
		at = next
		r.eventually("a renewal", func() bool { s, _ := w.newest(); return s.Leader.Index == at.Index })
	}
	r.must(r.client.PutMember(r.ctx, schema.Member{Name: "a"}, 0))
	r.eventually("a member", func() bool { s, _ := w.newest(); return len(s.Members) == 1 })
	s, _ := w.newest()
	r.must(r.client.DeleteMember(r.ctx, "a", s.Members[0].Index))
	r.eventually("its deletion", func() bool { s, _ := w.newest(); return len(s.Members) == 0 })
	r.must(r.client.DestroySession(r.ctx, at.Session))
	r.eventually("the freed lock", func() bool { s, _ := w.newest(); return s.Leader.Exists && !s.Leader.Held() })
	// With no change at all the answers go on, and what is held stays young.
	quiet := boottime.Now()
	r.eventually("two answers without a change", func() bool { s, _ := w.newest(); return s.AskedAt.Sub(quiet) > 1100*time.Millisecond })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errs) > 0 || w.calls > 40 {
		r.Errorf("%d answers, errors %v", w.calls, w.errs)
	}
	for i, s := range w.states {
		if i > 0 && (s.AskedAt < w.states[i-1].AskedAt || s.Index < w.states[i-1].Index) || s.AnsweredAt < s.AskedAt {
			r.Errorf("answer %d is out of order: %+v", i, s)
		}
	}
}

func watchUnreadable(r *room) {
	w := r.watching()
	r.eventually("the first answer", func() bool { _, ok := w.newest(); return ok })
	r.put("config", "oops")
	r.eventually("the error", func() bool { err := w.failed(); return errors.Is(err, consul.ErrUnreadable) })
	if err := w.failed(); !strings.Contains(err.Error(), r.key("config")) {
		r.Errorf("the error does not name the key: %v", err)
	}
	_, err := r.raw.KV().Delete(r.key("config"), nil)
	r.must(err)
	r.must(r.client.PutConfig(r.ctx, schema.DefaultClusterConfig(), 0))
	r.eventually("the configuration", func() bool { s, ok := w.newest(); return ok && s.Config.Exists })
}

func services(r *room) {
	s, err := r.client.MemberService("a", schema.RolePrimary, "127.0.0.1:5432", "http://127.0.0.1:1/primary")
	r.must(err)
	r.must(r.client.Register(r.ctx, s))
	r.must(r.client.Register(r.ctx, s)) // again: the same
	all, err := r.raw.Agent().Services()
	r.must(err)
	got := all[r.cluster+"-a"]
	if got == nil || got.Service != r.cluster || got.Port != 5432 || !slices.Equal(got.Tags, []string{"primary", "master"}) {
		r.Errorf("registered is %+v", got)
	}
	r.must(r.client.Deregister(r.ctx, s.ID))
	r.must(r.client.Deregister(r.ctx, s.ID)) // again: no error
	if all, err = r.raw.Agent().Services(); err != nil || all[s.ID] != nil {
		r.Errorf("after deregistering: %+v, %v", all[s.ID], err)
	}
}
