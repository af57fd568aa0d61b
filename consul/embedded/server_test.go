package embedded

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// do sends one request without a network, so that it can be made within a bubble of synctest.
func do(t *testing.T, s *Server, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w
}

func newSession(t *testing.T, s *Server, body string) string {
	t.Helper()
	w := do(t, s, http.MethodPut, "/v1/session/create", body)
	var made struct{ ID string }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return made.ID
}

func holder(t *testing.T, s *Server, key string) string {
	t.Helper()
	var pairs []pair
	w := do(t, s, http.MethodGet, "/v1/kv/"+key, "")
	if w.Code == http.StatusNotFound {
		return "missing"
	}
	if err := json.Unmarshal(w.Body.Bytes(), &pairs); err != nil {
		t.Fatal(err)
	}
	return pairs[0].Session
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(zap.NewNop())
		defer s.Close()
		released := newSession(t, s, `{"TTL":"10s","NodeChecks":[],"LockDelay":"2s"}`)
		deleted := newSession(t, s, `{"TTL":"10s","NodeChecks":[],"Behavior":"delete"}`)
		endless := newSession(t, s, `{"NodeChecks":[]}`)
		for key, id := range map[string]string{"r": released, "d": deleted, "e": endless} {
			if w := do(t, s, http.MethodPut, "/v1/kv/"+key+"?acquire="+id, "x"); w.Body.String() != "true" {
				t.Fatal(w.Body)
			}
		}
		// Renewed for a minute it lives; the other is gone after twice its TTL.
		for range 6 {
			time.Sleep(10 * time.Second)
			if w := do(t, s, http.MethodPut, "/v1/session/renew/"+released, ""); w.Code != http.StatusOK {
				t.Fatalf("renewal: %d %s", w.Code, w.Body)
			}
		}
		if got := holder(t, s, "d"); got != "missing" {
			t.Errorf("a key whose session was to delete it: %q", got)
		}
		if got := holder(t, s, "r"); got != released {
			t.Errorf("a key whose session was renewed: %q", got)
		}
		time.Sleep(20*time.Second - time.Millisecond)
		if got := holder(t, s, "r"); got != released {
			t.Errorf("just before twice the TTL: %q", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := holder(t, s, "r"); got != "" {
			t.Errorf("just after twice the TTL: %q", got)
		}
		if got := holder(t, s, "e"); got != endless {
			t.Errorf("a session without a TTL: %q", got)
		}
		// The lock delay counts from the expiry.
		time.Sleep(1900 * time.Millisecond)
		if w := do(t, s, http.MethodPut, "/v1/kv/r?acquire="+endless, "x"); w.Body.String() != "false" {
			t.Errorf("within the lock delay: %s", w.Body)
		}
		time.Sleep(200 * time.Millisecond)
		if w := do(t, s, http.MethodPut, "/v1/kv/r?acquire="+endless, "x"); w.Body.String() != "true" {
			t.Errorf("after the lock delay: %s", w.Body)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(zap.NewNop())
		do(t, s, http.MethodPut, "/v1/kv/a", "x")
		index := do(t, s, http.MethodGet, "/v1/kv/a", "").Header().Get("X-Consul-Index")
		for wait, low := range map[string]time.Duration{"10s": 10 * time.Second, "": defaultQueryTime, "5h": maxQueryTime} {
			begin := time.Now()
			w := do(t, s, http.MethodGet, "/v1/kv/a?index="+index+"&wait="+wait, "")
			if took := time.Since(begin); w.Code != http.StatusOK || took < low || took > low+low/jitterFraction+time.Millisecond {
				t.Errorf("a wait of %q took %s, answered %d", wait, took, w.Code)
			}
		}
		// A client that goes away, and the server's end, end a query.
		ctx, cancel := context.WithCancel(t.Context())
		codes := make(chan int, 2)
		for _, c := range []context.Context{ctx, t.Context()} {
			go func() {
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(c, http.MethodGet, "/v1/kv/a?index="+index, nil))
				codes <- w.Code
			}()
		}
		synctest.Wait()
		cancel()
		<-codes
		s.Close()
		if code := <-codes; code != http.StatusInternalServerError {
			t.Errorf("at the end of the server: %d", code)
		}
	})
}

// TestIndexesOfARestart: a server that starts anew never repeats the indexes of the one before.
func TestIndexesOfARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := New(zap.NewNop())
		defer first.Close()
		for range 500 {
			do(t, first, http.MethodPut, "/v1/kv/a", time.Now().String())
			time.Sleep(time.Millisecond)
		}
		second := New(zap.NewNop())
		defer second.Close()
		do(t, second, http.MethodPut, "/v1/kv/a", "x")
		before, _, _ := first.store.get("a")
		after, _, _ := second.store.get("a")
		if after.ModifyIndex <= before.ModifyIndex {
			t.Errorf("index %d after %d", after.ModifyIndex, before.ModifyIndex)
		}
	})
}

func TestLimits(t *testing.T) {
	s := New(zap.NewNop())
	defer s.Close()
	big := strings.Repeat("x", maxBody+1)
	many := "[" + strings.Repeat(`{"KV":{"Verb":"get","Key":"a"}},`, maxTxnOps) + `{"KV":{"Verb":"get","Key":"a"}}]`
	for path, body := range map[string]string{"/v1/kv/a": big, "/v1/txn": many} {
		if w := do(t, s, http.MethodPut, path, body); w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	// What is not spoken is refused and not passed over.
	for _, r := range []request{{http.MethodGet, "/v1/kv/a?keys", ""}, {http.MethodGet, "/v1/catalog/nodes", ""}, {http.MethodPut, "/v1/txn", `[{"Node":{"Verb":"get"}}]`}} {
		if w := do(t, s, r.method, r.path, r.body); w.Code < 400 {
			t.Errorf("%s %s: %d %s", r.method, r.path, w.Code, w.Body)
		}
	}
}

type request struct{ method, path, body string }
