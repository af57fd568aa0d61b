// Package api is the sidecar's HTTP API: health checks for load balancers and Kubernetes, the status of
// the cluster for people and tools, metrics, and the switchover.
//
// The health checks have Patroni's paths and codes (its docs/rest_api.rst), so that a load balancer that
// checks Patroni today needs no change: 200 for yes, 503 for no, with GET, HEAD or OPTIONS. One thing is
// stricter: a standby counts only while it receives WAL, because one that is cut off would
// serve older and older reads.
package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Source is what the API shows and orders. Its methods are called from many goroutines.
type Source interface {
	// Status returns what this member knows; it must not wait for I/O.
	Status() schema.ClusterStatus
	// Events returns the oldest limit events after the one of Seq after, oldest first.
	Events(after uint64, limit int) []schema.Event
	// Why returns what the member has to say about why things are as they are.
	Why() schema.Account
	// Healthy reports whether the loop has run lately.
	Healthy() bool
	// Switchover records the wish that to (empty: the best candidate) becomes the primary, and returns once it
	// is recorded. An error is a refusal; its text says why in words for the operator.
	Switchover(ctx context.Context, to string) error
	// Parameters returns what the member's Postgres says of its settings, without their values.
	Parameters(ctx context.Context) ([]schema.Parameter, error)
	// Reload has the member read again its options and its Postgres' configuration files, as far as they may change while it runs.
	Reload(ctx context.Context) schema.ReloadReport
	// Order has this member do something with its own Postgres and returns the order's ID once that is begun; Status
	// tells how it ends. An error is a refusal, as above.
	Order(ctx context.Context, kind schema.OrderKind) (string, error)
	// ReinitPlan says what a reinit would throw away.
	ReinitPlan(ctx context.Context) (schema.ReinitPlan, error)
}

// Options are the settings of the API.
type Options struct {
	// Token is what POST requests must bring; empty refuses them all.
	Token string
	// CertFile and KeyFile switch TLS on; both or none. They are read again when they change.
	CertFile, KeyFile string
}

const (
	maxEvents       = 1000
	maxRequestBytes = 4 << 10
)

type handler struct {
	source Source
	token  string
	log    *zap.Logger
}

// New returns the handler of the API.
func New(source Source, o Options, log *zap.Logger) http.Handler {
	h := &handler{source: source, token: o.Token, log: log}
	mux := http.NewServeMux()
	for path, yes := range h.checks() {
		mux.HandleFunc(path, h.check(yes))
	}
	mux.HandleFunc("/status", only(http.MethodGet, h.status))
	mux.HandleFunc("/parameters", only(http.MethodGet, h.parameters))
	mux.HandleFunc("/events", only(http.MethodGet, h.events))
	mux.HandleFunc("/why", only(http.MethodGet, h.why))
	mux.Handle("/metrics", metrics(source))
	mux.HandleFunc("/switchover", only(http.MethodPost, h.switchover))
	mux.HandleFunc("/restart", only(http.MethodPost, h.order(schema.OrderRestart)))
	mux.HandleFunc("/reload", only(http.MethodPost, h.reload))
	mux.HandleFunc("/reinit", h.reinit)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is nothing at "+strconv.Quote(r.URL.Path)+"; try /status")
	})
	return mux
}

// only lets one method through; HEAD goes with GET.
func only(method string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method && !(method == http.MethodGet && r.Method == http.MethodHead) {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, "use "+method)
			return
		}
		next(w, r)
	}
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, h.source.Status())
}

func (h *handler) why(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, h.source.Why())
}

// events answers, with `after`, with the oldest events after that Seq, so that who asks again from the last one misses
// none; without it, with the newest. Either way they are in their order, at most `limit` of them.
func (h *handler) parameters(w http.ResponseWriter, r *http.Request) {
	all, err := h.source.Parameters(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "PostgreSQL does not say which settings it has: "+err.Error())
		return
	}
	answer(w, http.StatusOK, all)
}

func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	after, err := number(r, "after", 0)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	limit, err := number(r, "limit", maxEvents)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	most := int(min(limit, maxEvents))
	var events []schema.Event
	if r.URL.Query().Has("after") {
		events = h.source.Events(after, most)
	} else {
		events = h.source.Events(0, maxEvents)
		events = events[max(0, len(events)-most):]
	}
	if events == nil {
		events = []schema.Event{}
	}
	answer(w, http.StatusOK, events)
}

func number(r *http.Request, key string, otherwise uint64) (uint64, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, badParameter{key: key, value: text, allowed: "a whole number that is not negative"}
	}
	return n, nil
}

type badParameter struct{ key, value, allowed string }

func (b badParameter) Error() string {
	return b.key + ": " + strconv.Quote(b.value) + " is not allowed; want " + b.allowed
}

func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A client that has gone is no concern of the server.
	_, _ = w.Write(slices.Concat(body, []byte("\n")))
}

// refuse answers with {"error": why}.
func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, map[string]string{"error": why})
}
