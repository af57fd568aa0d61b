package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"howdah/consul/schema"
)

// collector makes metrics out of a status when it is asked, so that no number is kept twice.
type collector struct {
	source  Source
	metrics map[string]*prometheus.Desc
}

// metricHelp are the metrics without their prefix howdah_; labels come after cluster and member.
var metricHelp = []struct {
	name, help string
	labels     []string
}{
	{"info", "Always 1; the version is a label.", []string{"version"}},
	{"role", "1 for the role that this member's Postgres has.", []string{"role"}},
	{"state", "1 for the state that this member is in.", []string{"state"}},
	{"holds_lock", "1 if this member holds the lock and its lease is in force.", nil},
	{"loop_healthy", "1 if the sidecar's loop has run lately.", nil},
	{"paused", "1 if the cluster is paused (maintenance), as far as this member knows.", nil},
	{"epoch", "The newest epoch that this member knows.", nil},
	{"timeline", "PostgreSQL's timeline; missing while unknown.", nil},
	{"lsn_bytes", "Flush LSN of a primary, received LSN of a standby; missing while unknown.", nil},
	{"replay_lsn_bytes", "Replayed LSN of a standby; missing while unknown.", nil},
	{"replay_lag_bytes", "What a standby has not replayed of what the primary published last; missing while unknown.", nil},
	{"pending_restart", "How many settings of PostgreSQL wait for a restart; counted up to 12.", nil},
	{"lease_left_seconds", "How long the lease of this primary lasts still; missing on a standby.", nil},
	{"leader_seen_seconds", "For how long the leader record has not changed; missing while there is none.", nil},
	{"consul_age_seconds", "How long ago Consul answered last; missing if it never did.", nil},
	{"member_liveness", "1 for what gossip says about another member.", []string{"peer", "liveness"}},
	{"member_heard_seconds", "How long ago another member was heard; missing if it never was.", []string{"peer"}},
}

func metrics(source Source) http.Handler {
	c := &collector{source: source, metrics: map[string]*prometheus.Desc{}}
	for _, m := range metricHelp {
		c.metrics[m.name] = prometheus.NewDesc("howdah_"+m.name, m.help, append([]string{"cluster", "member"}, m.labels...), nil)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.metrics {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Status()
	set := func(name string, value float64, labels ...string) {
		labels = append([]string{s.Cluster, s.Member}, labels...)
		out <- prometheus.MustNewConstMetric(c.metrics[name], prometheus.GaugeValue, value, labels...)
	}
	// known leaves a metric out where zero means unknown: a zero would look like a measurement.
	known := func(name string, value uint64) {
		if value != 0 {
			set(name, float64(value))
		}
	}
	set("info", 1, s.Version)
	for _, role := range []schema.Role{schema.RolePrimary, schema.RoleStandby} {
		set("role", one(s.Self.Role == role), string(role))
	}
	for _, state := range states {
		set("state", one(s.Self.State == state), string(state))
	}
	set("holds_lock", one(s.HoldsLock))
	set("loop_healthy", one(c.source.Healthy()))
	set("paused", one(s.Config.Pause))
	set("epoch", float64(s.Self.Epoch))
	known("timeline", uint64(s.Self.Timeline))
	known("lsn_bytes", uint64(s.Self.LSN))
	known("replay_lsn_bytes", uint64(s.Self.ReplayLSN))
	if lag, ok := replayLag(s); ok {
		set("replay_lag_bytes", float64(lag))
	}
	set("pending_restart", float64(len(s.Self.PendingRestart)))
	if s.Self.Role == schema.RolePrimary {
		set("lease_left_seconds", s.Self.LeaseLeft.D().Seconds())
	}
	if s.Leader != nil {
		set("leader_seen_seconds", s.LeaderSeenFor.D().Seconds())
	}
	if s.ConsulAge >= 0 {
		set("consul_age_seconds", s.ConsulAge.D().Seconds())
	}
	for _, m := range s.Members {
		if m.Name == s.Member {
			continue
		}
		for _, l := range livenesses {
			set("member_liveness", one(m.Liveness == l), m.Name, string(l))
		}
		if m.HeardAgo >= 0 {
			set("member_heard_seconds", m.HeardAgo.D().Seconds(), m.Name)
		}
	}
}

var states = []schema.State{
	schema.StateUnknown, schema.StateInitializing, schema.StateCloning, schema.StateStarting, schema.StateRunning,
	schema.StateStreaming, schema.StatePromoting, schema.StateStopping, schema.StateStopped, schema.StateCrashed,
	schema.StateFenced, schema.StateWaiting, schema.StateNeedsOperator,
}

var livenesses = []schema.Liveness{
	schema.LivenessUnknown, schema.LivenessAlive, schema.LivenessSuspect, schema.LivenessDead, schema.LivenessLeft,
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
