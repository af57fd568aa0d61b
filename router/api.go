package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/console"
	"howdah/router/route"
	"howdah/router/topology"
)

// Status is what GET /status answers.
type Status struct {
	Cluster string       `json:"cluster"`
	Name    string       `json:"name"`
	At      time.Time    `json:"at"` // wall clock, for people only
	Epoch   schema.Epoch `json:"epoch"`
	// Leader is the member whose reign Epoch is, Phase how far it has come.
	Leader string       `json:"leader,omitempty"`
	Phase  schema.Phase `json:"phase,omitempty"`
	// Primary is where new rw sessions go; empty if nowhere, and then Reason says why.
	Primary string `json:"primary,omitempty"`
	Address string `json:"address,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// KnownFor is how old the newest evidence is that this reign is alive; negative if there is none.
	KnownFor schema.Duration `json:"known_for"`
	Standbys []StandbyStatus `json:"standbys"`
	// Unfit says of each other member why it serves no reads.
	Unfit    map[string]string `json:"unfit,omitempty"`
	Sessions []SessionCount    `json:"sessions"`
	// MemberSessions counts the sessions on each member.
	MemberSessions map[string]int `json:"member_sessions"`
	Draining       bool           `json:"draining,omitempty"`
	// Paused: the console's PAUSE is in force.
	Paused bool `json:"paused,omitempty"`
}

// StandbyStatus is one standby as the router sees it.
type StandbyStatus struct {
	Member    string          `json:"member"`
	Address   string          `json:"address"`
	ReplayLSN schema.LSN      `json:"replay_lsn"`
	LagBytes  uint64          `json:"lag_bytes"`
	LagTime   schema.Duration `json:"lag_time"`
	// Serves says that new ro sessions may go there.
	Serves bool `json:"serves"`
}

// SessionCount is how many sessions of a route are in a state.
type SessionCount struct {
	Route string `json:"route"`
	State string `json:"state"`
	Count int    `json:"count"`
}

type stateKey struct {
	route route.Route
	state string
}

// states counts the sessions by route and state.
func (r *Router) states() map[stateKey]int {
	m := map[stateKey]int{}
	for _, c := range r.sessions.all() {
		of, state := c.routeAndState()
		m[stateKey{of, state}]++
	}
	return m
}

// routeAndState are the session's route and one word for what it is doing.
func (c *client) routeAndState() (route.Route, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.follows.route, c.stateNow()
}

// stateNow is state for who has the client's lock.
func (c *client) stateNow() string {
	state := c.serverState()
	if state == console.StateIdle {
		switch {
		case c.auto != nil && c.auto.busy:
			return console.StateActive
		case c.auto.inBlock():
			return console.StateTransaction
		}
	}
	return state
}

// serverState is state as far as the server is concerned that has the session. The client's lock is held.
func (c *client) serverState() string {
	switch m := c.machine; {
	case m == nil:
		return console.StateWaiting
	case !m.Ready():
		return console.StateLogin
	case m.Replicating():
		return console.StateReplication
	case c.auto.moving():
		return console.StateWaiting
	case m.Busy():
		return console.StateActive
	case m.Status() != 'I':
		return console.StateTransaction
	}
	return console.StateIdle
}

// Status returns what GET /status answers.
func (r *Router) Status() Status {
	t := r.picture.now.Load()
	s := Status{
		Cluster: r.o.Cluster, Name: r.o.Name, At: time.Now(), Epoch: t.Epoch, Leader: t.Leader, Phase: t.Phase,
		Reason: t.Reason, KnownFor: -1, Standbys: []StandbyStatus{}, Unfit: t.Unfit, Sessions: []SessionCount{},
		MemberSessions: r.sessions.byMember(), Draining: r.draining.Load(), Paused: r.gate.held() != nil,
	}
	if t.Primary != nil {
		s.Primary, s.Address = t.Primary.Member, t.Primary.Address
	}
	if t.KnownAt != schema.Never {
		s.KnownFor = schema.Duration(r.now().Sub(t.KnownAt))
	}
	for _, b := range t.Standbys {
		s.Standbys = append(s.Standbys, StandbyStatus{
			Member: b.Member, Address: b.Address, ReplayLSN: b.ReplayLSN, LagBytes: b.LagBytes,
			LagTime: schema.Duration(b.LagTime), Serves: serves(t, b),
		})
	}
	for k, n := range r.states() {
		s.Sessions = append(s.Sessions, SessionCount{Route: string(k.route), State: k.state, Count: n})
	}
	return s
}

func serves(t *topology.Topology, s topology.Server) bool { return fits(t, s) && !s.NoLoadBalance }

// healthy reports whether a session of this route would be given a server now; if not, why.
func (r *Router) healthy(of route.Route) (bool, string) {
	t := r.picture.now.Load()
	if r.draining.Load() {
		return false, "the router is shutting down"
	}
	if r.gate.held() != nil {
		return false, "the router is paused"
	}
	if of == route.RO {
		for _, s := range t.Standbys {
			if serves(t, s) {
				return true, ""
			}
		}
		if !r.live().ReadOnlyFallback || t.Primary == nil {
			return false, "no standby may serve"
		}
	}
	return t.Primary != nil, t.Reason
}

// How long a client of the API may take, and how long its last requests have at the end.
const (
	apiTimeout  = 10 * time.Second
	apiFarewell = time.Second
)

// serveAPI serves the API if there is one, and returns what ends it.
func (r *Router) serveAPI(wg *sync.WaitGroup, failed chan<- error) (end func()) {
	if r.api == nil {
		return func() {}
	}
	server := &http.Server{
		Handler: r.handler(), ReadTimeout: apiTimeout, WriteTimeout: apiTimeout, IdleTimeout: apiTimeout,
		ErrorLog: zap.NewStdLog(r.log.Named("api")),
	}
	wg.Go(func() {
		if err := server.Serve(r.api); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("router API: %w", err)
		}
	})
	return func() {
		ctx, stop := context.WithTimeout(context.Background(), apiFarewell)
		defer stop()
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
	}
}

func (r *Router) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, q *http.Request) {
		of := route.RW
		if v := q.URL.Query().Get("route"); v != "" {
			p, err := route.Parse(v)
			if err != nil {
				var bad *route.ErrRoute
				errors.As(err, &bad)
				r.answer(w, http.StatusBadRequest, map[string]string{"error": err.Error(), "hint": bad.Hint()})
				return
			}
			of = p
		}
		ok, why := r.healthy(of)
		if !ok {
			r.answer(w, http.StatusServiceUnavailable, map[string]any{"healthy": false, "reason": why})
			return
		}
		r.answer(w, http.StatusOK, map[string]any{"healthy": true})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { r.answer(w, http.StatusOK, r.Status()) })
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) { r.answer(w, http.StatusOK, r.events.all()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

func (r *Router) answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		r.log.Debug("API answer not delivered", zap.Error(err))
	}
}
