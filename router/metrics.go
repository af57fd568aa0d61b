package router

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"howdah/router/route"
	"howdah/router/rule"
	"howdah/router/split"
)

// metrics are the router's own figures, in a registry of their own. What the data path counts is
// plain atomics, read when somebody asks.
type metrics struct {
	registry *prometheus.Registry

	fromClients, fromServers atomic.Uint64

	batches   batchCounters
	sessions  *prometheus.CounterVec
	waits     *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	reads     *prometheus.HistogramVec
	decisions map[route.Consistency][2]prometheus.Observer // by the primary, by a standby
	reroutes  prometheus.Counter
	unknown   *prometheus.CounterVec
	retries   *prometheus.CounterVec
	cancels   *prometheus.CounterVec
	moves     prometheus.Counter
	limits    *prometheus.CounterVec
	open      *prometheus.Desc
	onMember  *prometheus.Desc
	pinned    *prometheus.Desc
	moved     *prometheus.Desc
	epoch     *prometheus.Desc
	primaryUp *prometheus.Desc
	paused    *prometheus.Desc
	ownOpen   *prometheus.Desc
	ownDialed *prometheus.Desc
	samples   *prometheus.Desc
	lagBytes  *prometheus.Desc
	lagTime   *prometheus.Desc
	r         *Router

	mu    sync.Mutex
	codes map[string]bool
}

// batchCounters count what auto sessions could read from a standby, by who did it in the end.
type batchCounters struct{ standby, primary, repeated prometheus.Counter }

// maxCodes bounds the SQLSTATEs told apart: a server's user can raise any five characters.
const maxCodes = 200

func newMetrics(r *Router) *metrics {
	m := &metrics{
		r: r, registry: prometheus.NewRegistry(), codes: map[string]bool{},
		sessions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_sessions_total", Help: "Sessions admitted, by route.",
		}, []string{"route"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "howdah_router_wait_seconds", Help: "Time from a session's startup packet to the first answer of its server.",
			Buckets: []float64{.001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_errors_total", Help: "Errors that clients were told, by who said them (router or server) and SQLSTATE.",
		}, []string{"by", "sqlstate"}),
		reads: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "howdah_router_read_wait_seconds", Help: "Reads that had to see certain writes, by consistency and by who could serve them (standby or primary), with the time until that was known.",
			Buckets: []float64{.00001, .0001, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 10},
		}, []string{"consistency", "by"}),
		decisions: map[route.Consistency][2]prometheus.Observer{},
		reroutes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "howdah_router_reroutes_total", Help: "Sessions ended, or sent on while they began, because their server may not keep them.",
		}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_retries_total", Help: "Attempts to begin a session on a server that failed and were followed by another, by route.",
		}, []string{"route"}),
		cancels: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_cancels_total", Help: "Cancel requests, by where they went: to a server, to the router whose session they mean, to nobody, or held, if no server had the request yet.",
		}, []string{"to"}),
		moves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "howdah_router_moved_total", Help: "Sessions that went on with another server connection to a primary after they had lost theirs.",
		}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_limited_total", Help: "Clients refused because a limit was reached, by which: clients (max-clients), user, database or address.",
		}, []string{"limit"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "howdah_router_settings_unknown_total", Help: "Sessions that began without what is set for their role or database: route (taken for auto), or reads (none goes to a standby).",
		}, []string{"what"}),
		open:      prometheus.NewDesc("howdah_router_sessions", "Sessions now, by route and state (waiting, login, idle, active, transaction, replication).", []string{"route", "state"}, nil),
		onMember:  prometheus.NewDesc("howdah_router_member_sessions", "Sessions now, by member.", []string{"member"}, nil),
		pinned:    prometheus.NewDesc("howdah_router_pinned_sessions", "Sessions of statement routing that stay on the primary with all that they do, by reason.", []string{"reason"}, nil),
		moved:     prometheus.NewDesc("howdah_router_bytes_total", "Bytes relayed, by who sent them (client or server).", []string{"from"}, nil),
		epoch:     prometheus.NewDesc("howdah_router_epoch", "The newest epoch seen.", nil, nil),
		primaryUp: prometheus.NewDesc("howdah_router_primary_known", "1 if a primary is known that takes sessions.", nil, nil),
		paused:    prometheus.NewDesc("howdah_router_paused", "1 while the console's PAUSE is in force.", nil, nil),
		ownOpen:   prometheus.NewDesc("howdah_router_own_connections", "The router's own connections to servers now.", nil, nil),
		samples:   prometheus.NewDesc("howdah_router_samples_total", "Questions to servers how far they are, by role and result (ok or failed).", []string{"role", "result"}, nil),
		lagBytes:  prometheus.NewDesc("howdah_router_standby_lag_bytes", "What a standby has not replayed of the primary's newest known LSN.", []string{"member"}, nil),
		lagTime:   prometheus.NewDesc("howdah_router_standby_lag_seconds", "How long ago the primary was where the standby is.", []string{"member"}, nil),
		ownDialed: prometheus.NewDesc("howdah_router_own_connects_total", "Attempts to open one of the router's own connections, by result (ok or failed).", []string{"result"}, nil),
	}
	batches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "howdah_router_reads_total", Help: "Batches of auto sessions that a standby may carry out, by who did: standby; primary, as no standby could; repeated, on the primary after a standby refused.",
	}, []string{"by"})
	m.registry.MustRegister(batches)
	m.batches = batchCounters{batches.WithLabelValues("standby"), batches.WithLabelValues("primary"), batches.WithLabelValues("repeated")}
	for _, c := range []route.Consistency{route.Session, route.Strict} {
		m.decisions[c] = [2]prometheus.Observer{m.reads.WithLabelValues(string(c), "primary"), m.reads.WithLabelValues(string(c), "standby")}
	}
	for _, kind := range append([]rule.LimitKind{limitClients}, rule.LimitKinds...) {
		m.limits.WithLabelValues(string(kind))
	}
	m.registry.MustRegister(m.sessions, m.waits, m.reads, m.errors, m.limits, m.reroutes, m.retries, m.cancels, m.moves, m.unknown, m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.open, m.onMember, m.pinned, m.moved, m.epoch, m.primaryUp, m.paused, m.ownOpen, m.ownDialed, m.samples, m.lagBytes, m.lagTime} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for k, n := range m.r.states() {
		ch <- prometheus.MustNewConstMetric(m.open, prometheus.GaugeValue, float64(n), string(k.route), k.state)
	}
	for member, n := range m.r.sessions.byMember() {
		ch <- prometheus.MustNewConstMetric(m.onMember, prometheus.GaugeValue, float64(n), member)
	}
	pins := m.r.pins()
	for _, p := range split.Pins() {
		ch <- prometheus.MustNewConstMetric(m.pinned, prometheus.GaugeValue, float64(pins[p]), p.String())
	}
	ch <- prometheus.MustNewConstMetric(m.moved, prometheus.CounterValue, float64(m.fromClients.Load()), "client")
	ch <- prometheus.MustNewConstMetric(m.moved, prometheus.CounterValue, float64(m.fromServers.Load()), "server")
	t := m.r.picture.now.Load()
	ch <- prometheus.MustNewConstMetric(m.epoch, prometheus.GaugeValue, float64(t.Epoch))
	known := 0.0
	if t.Primary != nil {
		known = 1
	}
	ch <- prometheus.MustNewConstMetric(m.primaryUp, prometheus.GaugeValue, known)
	for _, s := range t.Standbys {
		ch <- prometheus.MustNewConstMetric(m.lagBytes, prometheus.GaugeValue, float64(s.LagBytes), s.Member)
		ch <- prometheus.MustNewConstMetric(m.lagTime, prometheus.GaugeValue, s.LagTime.Seconds(), s.Member)
	}
	m.collectOwn(ch)
}

// collectOwn tells of what the router itself asks servers.
func (m *metrics) collectOwn(ch chan<- prometheus.Metric) {
	n := m.r.reads.Stats()
	ch <- prometheus.MustNewConstMetric(m.samples, prometheus.CounterValue, float64(n.Primary), "primary", "ok")
	ch <- prometheus.MustNewConstMetric(m.samples, prometheus.CounterValue, float64(n.PrimaryFailed), "primary", "failed")
	ch <- prometheus.MustNewConstMetric(m.samples, prometheus.CounterValue, float64(n.Standby), "standby", "ok")
	ch <- prometheus.MustNewConstMetric(m.samples, prometheus.CounterValue, float64(n.StandbyFailed), "standby", "failed")
	paused := 0.0
	if m.r.gate.held() != nil {
		paused = 1
	}
	ch <- prometheus.MustNewConstMetric(m.paused, prometheus.GaugeValue, paused)
	asking := m.r.own.Stats()
	ch <- prometheus.MustNewConstMetric(m.ownOpen, prometheus.GaugeValue, float64(asking.Open))
	ch <- prometheus.MustNewConstMetric(m.ownDialed, prometheus.CounterValue, float64(asking.Opened), "ok")
	ch <- prometheus.MustNewConstMetric(m.ownDialed, prometheus.CounterValue, float64(asking.Failed), "failed")
}

// decided counts a read that samples decided.
func (m *metrics) decided(c route.Consistency, standby bool, waited time.Duration) {
	by := 0
	if standby {
		by = 1
	}
	m.decisions[c][by].Observe(waited.Seconds())
}

func (m *metrics) admitted(of route.Route) { m.sessions.WithLabelValues(string(of)).Inc() }

func (m *metrics) connected(of route.Route, waited time.Duration) {
	m.waits.WithLabelValues(string(of)).Observe(waited.Seconds())
}

// refused counts an error that the router itself tells a client.
func (m *metrics) refused(sqlstate string) { m.errors.WithLabelValues("router", sqlstate).Inc() }

// limited counts a client that a limit keeps out.
func (m *metrics) limited(by rule.LimitKind) { m.limits.WithLabelValues(string(by)).Inc() }

func (m *metrics) serverError(sqlstate string, _ bool) {
	m.mu.Lock()
	if !m.codes[sqlstate] {
		if len(m.codes) >= maxCodes || !plainCode(sqlstate) {
			sqlstate = "other"
		}
		m.codes[sqlstate] = true
	}
	m.mu.Unlock()
	m.errors.WithLabelValues("server", sqlstate).Inc()
}

// plainCode reports whether s has the form of a SQLSTATE.
func plainCode(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(s) == 5
}

func (m *metrics) rerouted(n int) { m.reroutes.Add(float64(n)) }

func (m *metrics) retried(of route.Route) { m.retries.WithLabelValues(string(of)).Inc() }

func (m *metrics) cancelled(to string) { m.cancels.WithLabelValues(to).Inc() }
