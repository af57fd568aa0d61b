package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// nodeName and datacenter are what the server calls itself.
const (
	nodeName   = "embedded"
	datacenter = "dc1"
)

// Consul's limits: kv_max_value_size, txn_max_req_len, maxTxnOps, DefaultQueryTime, MaxQueryTime, JitterFraction.
const (
	maxBody          = 512 << 10
	maxTxnOps        = 128
	defaultQueryTime = 300 * time.Second
	maxQueryTime     = 600 * time.Second
	jitterFraction   = 16
)

// Server is one Consul in memory. It is safe for concurrent use.
type Server struct {
	log *zap.Logger
	mux *http.ServeMux

	mu      sync.Mutex
	store   *store
	changed chan struct{} // closed and replaced at each change
	closed  chan struct{}
}

// New returns an empty server. Serve its Handler, and Close it at the end.
func New(log *zap.Logger) *Server {
	s := &Server{
		log: log, mux: http.NewServeMux(), store: newStore(time.Now()),
		changed: make(chan struct{}), closed: make(chan struct{}),
	}
	s.routes()
	return s
}

// Handler answers Consul's HTTP API.
func (s *Server) Handler() http.Handler { return s.mux }

// Close ends the waiting queries and the clocks of the sessions. It may be called once.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.closed)
	for _, in := range s.store.sessions {
		if in.timer != nil {
			in.timer.Stop()
		}
	}
}

// announce wakes all waiting queries. The mutex is held.
func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// httpError is an error with a status code of its own; all others are answered by 500, as in Consul.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

// handle wraps f in what Consul does for every request: the headers, the parameters that are refused, and errors.
func (s *Server) handle(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Consul-Default-ACL-Policy", "allow")
		err := refuseParameters(r)
		if err == nil {
			err = f(w, r)
		}
		if err == nil {
			return
		}
		code := http.StatusInternalServerError
		var he *httpError
		if errors.As(err, &he) {
			code = he.code
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, err.Error())
	})
}

// consulError is an error in Consul's own words, which begin with a capital.
type consulError string

func (e consulError) Error() string { return string(e) }

func asConsul(format string, args ...any) error { return consulError(fmt.Sprintf(format, args...)) }

func refuseParameters(r *http.Request) error {
	q := r.URL.Query()
	switch {
	case q.Get("ns") != "":
		return &httpError{400, `Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature`}
	case q.Get("partition") != "":
		return &httpError{400, `Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature`}
	case q.Get("dc") != "" && q.Get("dc") != datacenter:
		return asConsul("No path to datacenter")
	case q.Has("stale") && q.Has("consistent"):
		return &httpError{400, "Cannot specify ?stale with ?consistent, conflicting semantics."}
	}
	return nil
}

// reply sends v as JSON.
func reply(w http.ResponseWriter, code int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a client that is gone needs no answer
	return nil
}

// setMeta sets the headers of a query's answer. An index of 0 would make clients ask in a busy loop.
func setMeta(w http.ResponseWriter, index uint64) {
	w.Header().Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
	w.Header().Set("X-Consul-Effective-Consistency", "consistent")
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("Request body too large. Max allowed is %d bytes.", maxBody)}
	}
	return b, err
}

// decode reads JSON with a Decoder, as Consul does, whose errors differ from Unmarshal's.
func decode(body []byte, into any) error {
	return json.NewDecoder(bytes.NewReader(body)).Decode(into)
}

// query runs look under the mutex, again after each change until the index of its answer is above the
// one that the request waits for, or its wait is over: blockingquery.Query. look keeps its result.
func (s *Server) query(w http.ResponseWriter, r *http.Request, look func() (index uint64, found bool)) error {
	after, wait, err := parseWait(r)
	if err != nil {
		return err
	}
	wait += rand.N(wait/jitterFraction + 1)
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	missed := false
	for {
		s.mu.Lock()
		index, found := look()
		changed := s.changed
		s.mu.Unlock()
		if !found {
			if missed { // still missing: not a change, whatever else was written
				after = index
			}
			missed = true
		}
		if r.FormValue("index") == "" || after == 0 || index > after {
			setMeta(w, index)
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			setMeta(w, index)
			return nil
		case <-s.closed:
			return errors.New("the server is shutting down")
		}
	}
}

func parseWait(r *http.Request) (after uint64, wait time.Duration, err error) {
	q := r.URL.Query()
	wait = defaultQueryTime
	if v := q.Get("wait"); v != "" {
		if wait, err = time.ParseDuration(v); err != nil {
			return 0, 0, &httpError{400, "Invalid wait time"}
		}
	}
	if v := q.Get("index"); v != "" {
		if after, err = strconv.ParseUint(v, 10, 64); err != nil {
			return 0, 0, &httpError{400, "Invalid index"}
		}
	}
	switch {
	case wait <= 0:
		wait = defaultQueryTime
	case wait > maxQueryTime:
		wait = maxQueryTime
	}
	return after, wait, nil
}
