package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"howdah/consul/schema"
)

// TestWatchIndexRules plays a server that follows a script and writes down what the watch asks with.
func TestWatchIndexRules(t *testing.T) {
	type step struct {
		wantIndex string // of the query
		status    int
		index     string // of the answer
		wantErr   string
	}
	script := []step{
		{"", 200, "10", ""},
		{"10", 200, "12", ""},
		{"12", 200, "12", ""},                   // the wait was over
		{"12", 200, "7", ""},                    // backwards: what came is told, and the next query does not wait
		{"", 200, "8", ""},                      //
		{"8", 500, "", "answered 500"},          // an error starts anew
		{"", 200, "0", "no X-Consul-Index"},     // no Consul sends this
		{"", 200, "", "no X-Consul-Index"},      //
		{"", 404, "9", ""},                      // nothing is there
		{"9", 404, "", "answered 404"},          // another server's 404
		{"", 200, "11", ""},                     //
		{"11", 200, "bad", "no X-Consul-Index"}, // not a number
		{"", 200, "13", ""},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type told struct {
		index uint64
		err   error
	}
	answers := make(chan told)
	n := 0
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n >= len(script) {
			return
		}
		s := script[n]
		n++
		q := r.URL.Query()
		if q.Get("index") != s.wantIndex || q.Has("wait") != (s.wantIndex != "") || !q.Has("consistent") || !q.Has("recurse") {
			t.Errorf("step %d: asked with %v", n-1, q)
		}
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		if s.index != "" {
			w.Header().Set("X-Consul-Index", s.index)
		}
		w.WriteHeader(s.status)
		fmt.Fprint(w, "[]")
	}))
	defer h.Close()
	c := newTestClient(t, Options{Address: h.URL})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.WatchState(ctx, func(s schema.ClusterState, err error) {
			if s.AskedAt == schema.Never {
				t.Error("an answer without the time it was asked at")
			}
			select {
			case answers <- told{s.Index, err}:
			case <-ctx.Done():
			}
		})
	}()
	for i, s := range script {
		got := <-answers
		if s.wantErr == "" && (got.err != nil || fmt.Sprint(got.index) != s.index) {
			t.Errorf("step %d: told index %d, %v", i, got.index, got.err)
		}
		if s.wantErr != "" && (got.err == nil || !strings.Contains(got.err.Error(), s.wantErr)) {
			t.Errorf("step %d: want an error with %q, got %v", i, s.wantErr, got.err)
		}
	}
	cancel()
	<-done
}

func TestConfigOfAnOlderHowdah(t *testing.T) {
	start := schema.DefaultClusterConfig()
	start.HBA = nil
	got, err := decode(&api.KVPair{Key: "config", Value: []byte(`{"lease":"5s","session_ttl":"20s","newer":{"x":1}}`)}, start, checkConfigRead)
	if err != nil {
		t.Fatal(err)
	}
	want := start
	want.Lease, want.SessionTTL = got.Lease, got.SessionTTL
	if d := cmp.Diff(want, got); d != "" || got.Lease.D().Seconds() != 5 {
		t.Errorf("fields that are not there do not have their defaults:\n%s", d)
	}
}

func TestMemberService(t *testing.T) {
	c := newTestClient(t, Options{})
	got, err := c.MemberService("a", schema.RoleStandby, "[::1]:5433", "http://x/")
	want := Service{ID: "test-a", Name: "test", Address: "::1", Port: 5433, Tags: []string{"standby", "replica"}, CheckURL: "http://x/"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "x:y", "x:70000"} {
		if _, err := c.MemberService("a", schema.RolePrimary, bad, ""); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// FuzzDecode: whatever stands in a key, what is read of it without an error is a document that a member may
// have written, and writes back as itself.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", "[]", "{", `{"member":"a","epoch":1,"phase":"serving","lease":"3s"}`,
		`{"member":"a","epoch":18446744073709551616,"phase":"serving","lease":"3s"}`, `{"member":"a","epoch":1,"phase":"serving","lease":"3s","flush_lsn":"x"}`,
		`{"lease":"3s","session_ttl":"10s"}`, `{"reigns":[{"epoch":1}]}`, `{"id":"1","kind":"switchover"}`, `{"name":"a"}`, `{"by":"a"}` + "\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kv := &api.KVPair{Key: "k", Value: b}
		roundTrip(t, kv, schema.Leader{}, checkLeader)
		roundTrip(t, kv, schema.Initialize{}, checkInitialize)
		roundTrip(t, kv, schema.ClusterConfig{}, checkConfigRead)
		roundTrip(t, kv, schema.History{}, checkHistory)
		roundTrip(t, kv, schema.Request{}, checkRequest)
		roundTrip(t, kv, schema.Member{}, checkMember)
	})
}

func roundTrip[T any](t *testing.T, kv *api.KVPair, start T, check func(T) error) {
	v, err := decode(kv, start, check)
	if err != nil {
		var zero T
		if !errors.Is(err, ErrUnreadable) || !reflect.DeepEqual(v, zero) {
			t.Fatalf("%q: %+v, %v", kv.Value, v, err)
		}
		return
	}
	b, err := encode(v, check)
	if err != nil {
		t.Fatalf("%q was read as %+v, which cannot be written: %v", kv.Value, v, err)
	}
	again, err := decode(&api.KVPair{Key: "k", Value: b}, start, check)
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	b2, err := json.Marshal(again)
	if err != nil || string(b) != string(b2) {
		t.Fatalf("%s became %s, %v", b, b2, err)
	}
}
