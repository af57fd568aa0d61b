package embedded

import (
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

func (s *Server) routes() {
	s.handle("GET /v1/kv/", s.getKV)
	s.handle("PUT /v1/kv/", s.putKV)
	s.handle("DELETE /v1/kv/", s.deleteKV)
	s.handle("PUT /v1/txn", s.putTxn)
	s.handle("PUT /v1/session/create", s.createSession)
	s.handle("PUT /v1/session/destroy/{id}", s.destroySession)
	s.handle("PUT /v1/session/renew/{id}", s.renewSession)
	s.handle("GET /v1/session/info/{id}", s.listSessions)
	s.handle("GET /v1/session/list", s.listSessions)
	s.handle("GET /v1/session/node/{node}", s.listSessions)
	s.handle("GET /v1/status/leader", answer("127.0.0.1:8300"))
	s.handle("GET /v1/status/peers", answer([]string{"127.0.0.1:8300"}))
	s.handle("GET /v1/agent/self", answer(map[string]any{
		"Config": map[string]any{"Datacenter": datacenter, "NodeName": nodeName, "Server": true, "Version": "1.22.6"},
	}))
	s.handle("PUT /v1/agent/service/register", s.registerService)
	s.handle("PUT /v1/agent/service/deregister/{id}", s.deregisterService)
	s.handle("GET /v1/agent/services", s.listServices)
	s.handle("PUT /v1/agent/check/", func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK) // checks are not kept
		return nil
	})
	s.handle("/", func(http.ResponseWriter, *http.Request) error {
		return &httpError{http.StatusNotFound, "Invalid URL path: not a recognized HTTP API endpoint"}
	})
}

func answer(v any) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error { return reply(w, http.StatusOK, v) }
}

// kvKey takes the key from the path as Consul does: cleaned, but with the last slash kept.
func kvKey(r *http.Request) (string, error) {
	raw := strings.TrimPrefix(r.URL.Path, "/v1/kv/")
	if raw == "" {
		return "", nil
	}
	key := path.Clean(raw)
	if strings.HasSuffix(raw, "/") && !strings.HasSuffix(key, "/") {
		key += "/"
	}
	if strings.HasPrefix(key, " ") || strings.HasSuffix(key, " ") {
		return "", fmt.Errorf("invalid key name, leading/trailing spaces are not allowed")
	}
	return key, nil
}

func (s *Server) getKV(w http.ResponseWriter, r *http.Request) error {
	key, err := kvKey(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if q.Has("keys") {
		return &httpError{http.StatusNotImplemented, "the embedded server does not list keys; use recurse"}
	}
	recurse := q.Has("recurse")
	if key == "" && !recurse {
		return &httpError{http.StatusBadRequest, "Missing key name"}
	}
	var pairs []pair
	err = s.query(w, r, func() (uint64, bool) {
		var index uint64
		if recurse {
			pairs, index = s.store.list(key)
			return index, true
		}
		p, index, ok := s.store.get(key)
		pairs = nil
		if ok {
			pairs = []pair{p}
		}
		return index, ok
	})
	switch {
	case err != nil:
		return err
	case len(pairs) == 0:
		w.WriteHeader(http.StatusNotFound)
		return nil
	case q.Has("raw") && !recurse:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(pairs[0].Value)
		return nil
	}
	return reply(w, http.StatusOK, pairs)
}

// number reads a query parameter that must be a number if it is there.
func number(r *http.Request, name string) (uint64, error) {
	if !r.URL.Query().Has(name) {
		return 0, nil
	}
	return strconv.ParseUint(r.URL.Query().Get(name), 10, 64)
}

// exclusive refuses parameters that cannot be combined.
func exclusive(r *http.Request, names ...string) error {
	n := 0
	for _, name := range names {
		if r.URL.Query().Has(name) {
			n++
		}
	}
	if n > 1 {
		return &httpError{http.StatusBadRequest, fmt.Sprintf("Conflicting flags: %v\n", r.URL.Query().Encode())}
	}
	return nil
}

func (s *Server) putKV(w http.ResponseWriter, r *http.Request) error {
	key, err := kvKey(r)
	if err != nil {
		return err
	}
	if key == "" {
		return &httpError{http.StatusBadRequest, "Missing key name"}
	}
	if err := exclusive(r, "cas", "acquire", "release"); err != nil {
		return err
	}
	p := pair{Key: key}
	if p.Flags, err = number(r, "flags"); err != nil {
		return err
	}
	cas, err := number(r, "cas")
	if err != nil {
		return err
	}
	if p.Value, err = readBody(w, r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q, ok := r.URL.Query(), true
	t := s.store.begin()
	switch {
	case q.Has("cas"):
		_, ok = t.cas(p, cas)
	case q.Has("acquire"):
		p.Session = q.Get("acquire")
		if s.store.delayed(key, time.Now()) {
			return reply(w, http.StatusOK, false)
		}
		_, ok, err = t.lock(p)
	case q.Has("release"):
		p.Session = q.Get("release")
		_, ok, err = t.unlock(p)
	default:
		t.set(p)
	}
	if err != nil {
		return fmt.Errorf("raft apply failed: %w", err)
	}
	if t.commit() {
		s.announce()
	}
	return reply(w, http.StatusOK, ok)
}

func (s *Server) deleteKV(w http.ResponseWriter, r *http.Request) error {
	key, err := kvKey(r)
	if err != nil {
		return err
	}
	if err := exclusive(r, "recurse", "cas"); err != nil {
		return err
	}
	q, ok := r.URL.Query(), true
	if key == "" && !q.Has("recurse") {
		return &httpError{http.StatusBadRequest, "Missing key name"}
	}
	cas, err := number(r, "cas")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.store.begin()
	switch {
	case q.Has("recurse"):
		t.removeTree(key)
	case q.Has("cas"):
		ok = t.removeCAS(key, cas)
	default:
		t.remove(key)
	}
	if t.commit() {
		s.announce()
	}
	return reply(w, http.StatusOK, ok)
}

func (s *Server) putTxn(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	var ops []txnOp
	if err := decode(body, &ops); err != nil {
		return &httpError{http.StatusBadRequest, fmt.Sprintf("Failed to parse body: %v", err)}
	}
	if len(ops) > maxTxnOps {
		return &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("Transaction contains too many operations (%d > %d)", len(ops), maxTxnOps)}
	}
	s.mu.Lock()
	result, changed := s.store.run(ops, time.Now())
	if changed {
		s.announce()
	}
	s.mu.Unlock()
	if len(result.Errors) > 0 {
		return reply(w, http.StatusConflict, result)
	}
	return reply(w, http.StatusOK, result)
}

func (s *Server) createSession(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	in, err := parseSession(body, nodeName)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.addSession(in)
	s.mu.Unlock()
	return reply(w, http.StatusOK, map[string]string{"ID": in.ID})
}

func (s *Server) destroySession(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	if in := s.store.sessions[r.PathValue("id")]; in != nil {
		s.endSession(in)
	}
	s.mu.Unlock()
	return reply(w, http.StatusOK, true)
}

func (s *Server) renewSession(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.store.sessions[r.PathValue("id")]
	if in == nil {
		return &httpError{http.StatusNotFound, fmt.Sprintf("Session id '%s' not found", r.PathValue("id"))}
	}
	in.renew()
	return reply(w, http.StatusOK, []*session{in})
}

// listSessions answers info, list and node: all sessions that have the ID and the node that are asked for.
func (s *Server) listSessions(w http.ResponseWriter, r *http.Request) error {
	id, node := r.PathValue("id"), r.PathValue("node")
	out := []session{}
	err := s.query(w, r, func() (uint64, bool) {
		out = out[:0]
		for _, in := range s.store.sessions {
			if (id == "" || in.ID == id) && (node == "" || in.Node == node) {
				out = append(out, *in)
			}
		}
		return s.store.sessIndex, id == "" || len(out) > 0
	})
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

// service is what was registered; only what is asked for again is kept.
type service struct {
	ID, Name string
	Service  string
	Tags     []string
	Address  string
	Port     int
}

func (s *Server) registerService(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	var in service
	if err := decode(body, &in); err != nil {
		return &httpError{http.StatusBadRequest, fmt.Sprintf("Request decode failed: %v", err)}
	}
	if in.Name == "" {
		return &httpError{http.StatusBadRequest, "Missing service name"}
	}
	if in.ID == "" {
		in.ID = in.Name
	}
	in.Service = in.Name
	s.mu.Lock()
	s.store.services[in.ID] = in
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) deregisterService(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.store.services[id]; !ok {
		return &httpError{http.StatusNotFound, fmt.Sprintf("Unknown service ID %q. Ensure that the service ID is passed, not the service name.", id)}
	}
	delete(s.store.services, id)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) listServices(w http.ResponseWriter, _ *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return reply(w, http.StatusOK, s.store.services)
}
