package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"howdah/consul/schema"
)

type fake struct {
	status  schema.ClusterStatus
	events  []schema.Event
	healthy bool
	refusal error
	asked   []string
}

func (f *fake) Status() schema.ClusterStatus { return f.status }
func (f *fake) Healthy() bool                { return f.healthy }
func (f *fake) Parameters(context.Context) ([]schema.Parameter, error) {
	return []schema.Parameter{{Name: "work_mem", Type: "integer", Unit: "kB", Context: "user", Min: "64", Max: "2147483647"}}, nil
}
func (f *fake) Switchover(_ context.Context, to string) error {
	f.asked = append(f.asked, to)
	return f.refusal
}
func (f *fake) Order(_ context.Context, kind schema.OrderKind) (string, error) {
	f.asked = append(f.asked, string(kind))
	return "id1", f.refusal
}
func (f *fake) Reload(context.Context) schema.ReloadReport {
	f.asked = append(f.asked, "reload")
	return schema.ReloadReport{Mistakes: []schema.FileMistake{{File: "/data/postgresql.conf", Line: 3, Setting: "work_mem", Error: "no"}}}
}
func (f *fake) Why() schema.Account { return schema.Account{Member: "a", Events: f.events} }

func (f *fake) ReinitPlan(context.Context) (schema.ReinitPlan, error) {
	return schema.ReinitPlan{DataDir: "/data", Bytes: 5, From: "a"}, f.refusal
}
func (f *fake) Events(after uint64, limit int) []schema.Event {
	if after >= uint64(len(f.events)) {
		return nil
	}
	return f.events[after:min(int(after)+limit, len(f.events))]
}

func primaryStatus() schema.ClusterStatus {
	self := schema.Status{Name: "a", Role: schema.RolePrimary, State: schema.StateRunning, Epoch: 3, Timeline: 2, LSN: 0x5000000,
		LeaseLeft: schema.Duration(2500 * time.Millisecond)}
	return schema.ClusterStatus{Cluster: "main", Member: "a", Version: "v1", Self: self, HoldsLock: true,
		Leader:    &schema.Leader{Member: "a", Epoch: 3, FlushLSN: 0x5000000},
		ConsulAge: schema.Duration(250 * time.Millisecond),
		Members: []schema.MemberView{{Status: self, Liveness: schema.LivenessAlive},
			{Status: schema.Status{Name: "b"}, Liveness: schema.LivenessSuspect, HeardAgo: schema.Duration(1500 * time.Millisecond)},
			{Status: schema.Status{Name: "c"}, Liveness: schema.LivenessUnknown, HeardAgo: -1}}}
}

func standbyStatus() schema.ClusterStatus {
	s := primaryStatus()
	s.Member, s.HoldsLock, s.ConsulAge = "b", false, -1
	s.Self = schema.Status{Name: "b", Role: schema.RoleStandby, State: schema.StateStreaming, Epoch: 3, Timeline: 2, LSN: 0x5000000, ReplayLSN: 0x4f00000} // 1 MB behind
	return s
}

func with(s schema.ClusterStatus, change func(*schema.ClusterStatus)) schema.ClusterStatus {
	change(&s)
	return s
}

func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHealthChecks(t *testing.T) {
	primaries := []string{"/", "/primary", "/master", "/leader", "/read-write", "/primary?lag=1"}
	standbys := []string{"/standby", "/replica", "/replica?lag=1MB", "/replica?lag=1048576", "/standby?lag=1%20GB"}
	for name, c := range map[string]struct {
		status  schema.ClusterStatus
		yes, no []string
	}{
		"primary with the lock": {primaryStatus(), append([]string{"/read-only", "/readiness", "/health", "/liveness"}, primaries...), standbys},
		"primary without the lock": {with(primaryStatus(), func(s *schema.ClusterStatus) { s.HoldsLock = false }),
			[]string{"/health"}, append([]string{"/readiness", "/read-only"}, primaries...)},
		"holder before its promotion": {with(standbyStatus(), func(s *schema.ClusterStatus) { s.HoldsLock, s.Self.State = true, schema.StatePromoting }),
			[]string{"/health"}, append([]string{"/readiness"}, primaries...)},
		"primary that stops": {with(primaryStatus(), func(s *schema.ClusterStatus) { s.Self.State = schema.StateStopping }),
			nil, append([]string{"/readiness", "/health"}, primaries...)},
		"streaming standby": {standbyStatus(), append([]string{"/read-only", "/readiness", "/readiness?lag=2MB", "/health"}, standbys...),
			append([]string{"/replica?lag=1023kB", "/standby?lag=0", "/readiness?lag=16kB"}, primaries...)},
		"standby that receives nothing": {with(standbyStatus(), func(s *schema.ClusterStatus) { s.Self.State = schema.StateRunning }),
			[]string{"/health"}, append([]string{"/readiness", "/read-only"}, standbys...)},
		"standby kept free of reads": {with(standbyStatus(), func(s *schema.ClusterStatus) { s.Self.Tags.NoLoadBalance = true }),
			[]string{"/readiness", "/health"}, append([]string{"/read-only"}, standbys...)},
		"standby of an unknown primary": {with(standbyStatus(), func(s *schema.ClusterStatus) { s.Leader = nil }),
			[]string{"/replica"}, []string{"/replica?lag=1TB"}},
		"unknown": {schema.ClusterStatus{}, nil, append([]string{"/health", "/readiness", "/replica"}, primaries...)},
	} {
		t.Run(name, func(t *testing.T) {
			h := New(&fake{status: c.status, healthy: true}, Options{}, zaptest.NewLogger(t))
			for want, targets := range map[int][]string{http.StatusOK: c.yes, http.StatusServiceUnavailable: c.no} {
				for _, target := range targets {
					for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
						w := do(h, method, target, "")
						if w.Code != want {
							t.Errorf("%s %s: want %d, got %d", method, target, want, w.Code)
						}
						if (w.Body.Len() > 0) != (method == http.MethodGet) {
							t.Errorf("%s %s: a body of %d bytes", method, target, w.Body.Len())
						}
					}
				}
			}
		})
	}
}

func TestLivenessIsOfTheLoopAlone(t *testing.T) {
	f := &fake{status: schema.ClusterStatus{}, healthy: true}
	h := New(f, Options{}, zaptest.NewLogger(t))
	if w := do(h, "GET", "/liveness", ""); w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
	f.status, f.healthy = primaryStatus(), false
	if w := do(h, "GET", "/liveness", ""); w.Code != 503 {
		t.Errorf("got %d", w.Code)
	}
}

func TestWrongRequests(t *testing.T) {
	h := New(&fake{status: standbyStatus()}, Options{}, zaptest.NewLogger(t))
	for _, c := range []struct {
		method, target string
		code           int
		says           string
	}{
		{"GET", "/replica?lag=much", 400, `lag: \"much\" is not allowed`},
		{"GET", "/replica?lag=-1", 400, "kB, MB"},
		{"GET", "/replica?lag=1kBMB", 400, "kB, MB"},
		{"GET", "/replica?lag=99999999TB", 400, "kB, MB"},
		{"GET", "/events?after=x", 400, "after"},
		{"GET", "/events?limit=-5", 400, "limit"},
		{"GET", "/nothing", 404, "/status"},
		{"POST", "/primary", 405, "use GET"},
		{"POST", "/status", 405, "use GET"},
		{"GET", "/switchover", 405, "use POST"},
	} {
		w := do(h, c.method, c.target, "")
		var got struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: got %d %s", c.method, c.target, w.Code, w.Body)
		}
	}
}

func TestStatusAndEvents(t *testing.T) {
	f := &fake{status: primaryStatus()}
	h := New(f, Options{}, zaptest.NewLogger(t))
	var status schema.ClusterStatus
	if err := json.Unmarshal(do(h, "GET", "/status", "").Body.Bytes(), &status); err != nil || status.Self.LSN != 0x5000000 {
		t.Errorf("%v, %+v", err, status)
	}
	if got := do(h, "GET", "/events", "").Body.String(); got != "[]\n" {
		t.Errorf("no events: %q", got)
	}
	for i := range 5 {
		f.events = append(f.events, schema.Event{Kind: schema.EventPromoted, Epoch: schema.Epoch(i + 1)})
	}
	var events []schema.Event
	if err := json.Unmarshal(do(h, "GET", "/events?after=2&limit=2", "").Body.Bytes(), &events); err != nil || len(events) != 2 || events[0].Epoch != 3 {
		t.Errorf("%v, %+v", err, events)
	}
	for query, want := range map[string]schema.Epoch{"limit=2": 4, "after=0&limit=2": 1, "": 1} { // the newest without after, the oldest with it
		events = nil
		if err := json.Unmarshal(do(h, "GET", "/events?"+query, "").Body.Bytes(), &events); err != nil || events[0].Epoch != want {
			t.Errorf("%q: %v, %+v", query, err, events)
		}
	}
	var account schema.Account
	if err := json.Unmarshal(do(h, "GET", "/why", "").Body.Bytes(), &account); err != nil || account.Member != "a" || len(account.Events) != 5 {
		t.Errorf("%v, %+v", err, account)
	}
}

func TestSwitchover(t *testing.T) {
	const bearer = "Bearer right"
	for name, c := range map[string]struct {
		token, header, body string
		refusal             error
		code                int
		says                string
		asked               string
	}{
		"accepted":           {"right", bearer, `{"to":"b"}`, nil, 202, `{"from":"a","epoch":3,"to":"b"}`, "b"},
		"best candidate":     {"right", bearer, ``, nil, 202, `{"from":"a","epoch":3}`, ""},
		"empty object":       {"right", bearer, `{}`, nil, 202, `"from":"a"`, ""},
		"no token here":      {"", bearer, `{}`, nil, 401, "has no API token", "-"},
		"no empty token":     {"", "Bearer ", `{}`, nil, 401, "has no API token", "-"},
		"no header":          {"right", "", `{}`, nil, 401, "Authorization: Bearer", "-"},
		"wrong token":        {"right", "Bearer wrong", `{}`, nil, 401, "not this cluster's", "-"},
		"prefix of token":    {"right", "Bearer righ", `{}`, nil, 401, "not this cluster's", "-"},
		"other scheme":       {"right", "Basic right", `{}`, nil, 401, "Authorization: Bearer", "-"},
		"not possible":       {"right", bearer, `{"to":"c"}`, errors.New("c is 3 GB behind"), 412, `{"error":"c is 3 GB behind"}`, "c"},
		"outcome not known":  {"right", bearer, `{}`, fmt.Errorf("consul: %w", context.DeadlineExceeded), 504, "not known whether", ""},
		"unknown field":      {"right", bearer, `{"too":"b"}`, nil, 400, `unknown field \"too\"`, "-"},
		"no JSON":            {"right", bearer, `to=b`, nil, 400, "want {", "-"},
		"something after it": {"right", bearer, `{} {}`, nil, 400, "nothing after it", "-"},
		"too large":          {"right", bearer, `{"to":"` + strings.Repeat("x", 5000) + `"}`, nil, 413, "4 KiB", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{status: primaryStatus(), refusal: c.refusal}
			w := do(New(f, Options{Token: c.token}, zaptest.NewLogger(t)), "POST", "/switchover", c.body, "Authorization", c.header)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("headers %v", w.Header())
			}
			if asked := strings.Join(f.asked, ","); c.asked == "-" && len(f.asked) > 0 || c.asked != "-" && asked != c.asked {
				t.Errorf("the source was asked for %q", f.asked)
			}
			if bytes.Contains(w.Body.Bytes(), []byte("right\"")) {
				t.Error("the token stands in the answer")
			}
		})
	}
}

func TestOrders(t *testing.T) {
	for _, kind := range []string{"restart", "reinit"} {
		for name, c := range map[string]struct {
			header, body string
			refusal      error
			code         int
			says         string
		}{
			"begun":        {"Bearer right", "", nil, 202, `{"id":"id1"}`},
			"wrong token":  {"Bearer wrong", "", nil, 401, "not this cluster's"},
			"not possible": {"Bearer right", "{}", errors.New("it is the primary"), 412, `{"error":"it is the primary"}`},
			"not known":    {"Bearer right", "{}", context.Canceled, 504, "not known whether the " + kind},
			"a wish":       {"Bearer right", `{"to":"b"}`, nil, 400, "want {} or nothing"},
		} {
			f := &fake{status: primaryStatus(), refusal: c.refusal}
			w := do(New(f, Options{Token: "right"}, zaptest.NewLogger(t)), "POST", "/"+kind, c.body, "Authorization", c.header)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("%s, %s: got %d %s", kind, name, w.Code, w.Body)
			}
			if asked := len(f.asked) > 0 && f.asked[0] == kind; asked != (c.code == 202 || c.refusal != nil) {
				t.Errorf("%s, %s: asked %v", kind, name, f.asked)
			}
		}
	}
}

func TestReinitPlan(t *testing.T) {
	f := &fake{status: standbyStatus()}
	h := New(f, Options{}, zaptest.NewLogger(t))
	if w := do(h, "GET", "/reinit", ""); w.Code != 200 || w.Body.String() != `{"data_dir":"/data","bytes":5,"from":"a"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f.refusal = errors.New("starting")
	if w := do(h, "GET", "/reinit", ""); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	for name, c := range map[string]struct {
		status    schema.ClusterStatus
		want, not []string
	}{
		"primary": {primaryStatus(), []string{
			`howdah_info{cluster="main",member="a",version="v1"} 1`, `howdah_role{cluster="main",member="a",role="primary"} 1`,
			`howdah_role{cluster="main",member="a",role="standby"} 0`, `howdah_state{cluster="main",member="a",state="running"} 1`,
			`howdah_holds_lock{cluster="main",member="a"} 1`, `howdah_epoch{cluster="main",member="a"} 3`, `howdah_timeline{cluster="main",member="a"} 2`,
			`howdah_lsn_bytes{cluster="main",member="a"} 8.388608e+07`, `howdah_lease_left_seconds{cluster="main",member="a"} 2.5`,
			`howdah_consul_age_seconds{cluster="main",member="a"} 0.25`, `howdah_member_liveness{cluster="main",liveness="suspect",member="a",peer="b"} 1`,
			`howdah_member_heard_seconds{cluster="main",member="a",peer="b"} 1.5`, `howdah_loop_healthy{cluster="main",member="a"} 1`, "go_goroutines",
		}, []string{"howdah_replay_lsn_bytes{", "howdah_replay_lag_bytes{", `howdah_member_heard_seconds{cluster="main",member="a",peer="c"}`}},
		"standby": {standbyStatus(), []string{`howdah_replay_lag_bytes{cluster="main",member="b"} 1.048576e+06`, `howdah_holds_lock{cluster="main",member="b"} 0`},
			[]string{"howdah_lease_left_seconds{", "howdah_consul_age_seconds{"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(New(&fake{status: c.status, healthy: true}, Options{}, zaptest.NewLogger(t)), "GET", "/metrics", "")
			if w.Code != 200 {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			for _, line := range c.want {
				if !strings.Contains(w.Body.String(), line) {
					t.Errorf("missing: %s", line)
				}
			}
			for _, line := range c.not {
				if strings.Contains(w.Body.String(), line) {
					t.Errorf("not wanted: %s", line)
				}
			}
			if t.Failed() {
				t.Log(w.Body.String())
			}
		})
	}
}

func TestEverySchemaStateIsAMetric(t *testing.T) {
	seen := map[schema.State]bool{}
	for _, s := range states {
		if seen[s] {
			t.Errorf("%s twice", s)
		}
		seen[s] = true
	}
	if len(seen) != 13 {
		t.Errorf("want 13 states, got %d", len(seen))
	}
}

func TestReload(t *testing.T) {
	f := &fake{}
	h := New(f, Options{Token: "secret"}, zaptest.NewLogger(t))
	for token, want := range map[string]int{"": 401, "other": 401, "secret": 200} {
		r := httptest.NewRequest("POST", "/reload", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("token %q: %d, want %d", token, w.Code, want)
		}
		if said := w.Body.String(); want == 200 && said != `{"mistakes":[{"file":"/data/postgresql.conf","line":3,"setting":"work_mem","error":"no"}]}`+"\n" {
			t.Error(said)
		}
	}
	if w := do(h, "GET", "/reload", ""); w.Code != 405 {
		t.Errorf("GET: %d", w.Code)
	}
	if len(f.asked) != 1 {
		t.Errorf("asked %v", f.asked)
	}
}
