package schema

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ClusterConfig is the value of the config key: what holds for the whole cluster.
type ClusterConfig struct {
	// Pause puts the cluster into maintenance: howdah takes no decision of itself beyond keeping the lease and its fence.
	// PauseBy and PauseReason say who wanted that and why, for people.
	Pause       bool   `json:"pause,omitempty"`
	PauseBy     string `json:"pause_by,omitempty"`
	PauseReason string `json:"pause_reason,omitempty"`
	// Lease is how long the primary may accept writes after a renewal that was answered. At least 1 s.
	Lease Duration `json:"lease"`
	// SessionTTL is the TTL of the Consul sessions, the backstop of the lease. Consul allows 10 s to 24 h.
	SessionTTL Duration `json:"session_ttl"`
	// MaximumLagOnFailover is how many bytes a candidate may lack of the LSN that the primary published last.
	MaximumLagOnFailover uint64 `json:"maximum_lag_on_failover"`
	// MaxStalenessBytes and MaxStalenessTime bound what a standby may lack to be given reads.
	MaxStalenessBytes uint64   `json:"max_staleness_bytes"`
	MaxStalenessTime  Duration `json:"max_staleness_time"`
	// CrashRecoveryBound is how long crash recovery in place may be expected to take; past it a crashed
	// primary hands over to a standby that may stand.
	CrashRecoveryBound Duration `json:"crash_recovery_bound"`
	// HangTimeout is how long a primary may leave every probe unanswered, or commits waiting for WAL that is not
	// flushed, before it hands over to a standby that may stand. It must be longer than the storage's longest pause.
	// Empty is 3 s: a configuration that an older version wrote has none.
	HangTimeout Duration `json:"hang_timeout,omitempty"`
	// SwitchoverDrain is how long a planned switchover or the ordered restart of a primary waits for transactions under way, while routers hold new ones. Empty is 1 s: a configuration
	// that an older version wrote has none.
	SwitchoverDrain Duration `json:"switchover_drain,omitempty"`
	// StopTimeout bounds the fast shutdown of a planned stop, StartTimeout a start.
	StopTimeout  Duration `json:"stop_timeout"`
	StartTimeout Duration `json:"start_timeout"`
	// SynchronousMode is off, on or strict; empty is off. A commit then waits for so many standbys as there are,
	// at least MinSynchronousStandbys and at most MaxSynchronousStandbys.
	SynchronousMode        string `json:"synchronous_mode,omitempty"`
	MinSynchronousStandbys int    `json:"min_synchronous_standbys,omitempty"`
	MaxSynchronousStandbys int    `json:"max_synchronous_standbys,omitempty"`
	// MaxClonesPerSource is how many members may be cloned from one server at a time; zero is 1.
	MaxClonesPerSource int `json:"max_clones_per_source,omitempty"`
	// Follow is the remote primary that a standby cluster follows. It is given to a new cluster; to take it away
	// promotes the cluster, for good.
	Follow Remote `json:"follow,omitzero"`
	// Parameters are PostgreSQL settings for every member; those that howdah rules are refused.
	Parameters map[string]string `json:"parameters,omitempty"`
	// HBA are lines of pg_hba.conf, after the ones that howdah needs for itself.
	HBA []string `json:"hba,omitempty"`
	// Slots are replication slots that howdah keeps for others, by name.
	Slots map[string]PermanentSlot `json:"slots,omitempty"`
}

// maxPauseText bounds who paused a cluster and why, in bytes: it stands in every member's reasons.
const maxPauseText = 500

// DefaultHangTimeout is HangTimeout where nothing else is said.
const DefaultHangTimeout = Duration(3 * time.Second)

// HangBound returns HangTimeout or, where it is not set, its default.
func (c ClusterConfig) HangBound() time.Duration {
	return cmp.Or(c.HangTimeout, DefaultHangTimeout).D()
}

// DefaultSwitchoverDrain is SwitchoverDrain where nothing else is said: who waits for a transaction to be over holds up everybody else.
const DefaultSwitchoverDrain = Duration(time.Second)

// DrainBound returns SwitchoverDrain or, where it is not set, its default.
func (c ClusterConfig) DrainBound() time.Duration {
	return cmp.Or(c.SwitchoverDrain, DefaultSwitchoverDrain).D()
}

// DefaultClusterConfig is what a new cluster gets where nothing else is said.
func DefaultClusterConfig() ClusterConfig {
	return ClusterConfig{
		Lease:                Duration(3 * time.Second),
		SessionTTL:           Duration(10 * time.Second),
		MaximumLagOnFailover: 1 << 20,
		MaxStalenessBytes:    16 << 20,
		MaxStalenessTime:     Duration(10 * time.Second),
		CrashRecoveryBound:   Duration(2 * time.Second),
		HangTimeout:          DefaultHangTimeout,
		SwitchoverDrain:      DefaultSwitchoverDrain,
		StopTimeout:          Duration(30 * time.Second),
		StartTimeout:         Duration(60 * time.Second),
		MaxClonesPerSource:   1,
		HBA: []string{
			"host all all 0.0.0.0/0 scram-sha-256",
			"host all all ::/0 scram-sha-256",
		},
	}
}

// RuledParameters are the PostgreSQL settings that howdah sets itself: a cluster configuration that
// names one is refused, because the promise behind it would be broken.
var RuledParameters = map[string]string{
	"listen_addresses":          "set by the member's postgres-listen option",
	"port":                      "set by the member's postgres-listen option",
	"unix_socket_directories":   "set by howdah launch",
	"data_directory":            "set by howdah launch",
	"hba_file":                  "howdah writes it; use the hba list of the cluster configuration",
	"primary_conninfo":          "howdah points standbys at the primary",
	"primary_slot_name":         "one slot for each member",
	"recovery_target_timeline":  "standbys follow the newest timeline",
	"hot_standby":               "standbys must answer reads and probes",
	"wal_level":                 "set to replica or higher by howdah",
	"synchronous_standby_names": "howdah keeps it in step with what Consul records",
	"cluster_name":              "howdah uses the member's name",
	"promote_trigger_file":      "promotion goes through the lock",
	"restart_after_crash":       "the sidecar decides what follows a crash",
}

// Validate returns every mistake in c at once, each with the key, the value and what is allowed.
func (c ClusterConfig) Validate() error {
	var errs []error
	bound := func(key string, v Duration, low, high time.Duration) {
		if v.D() < low || v.D() > high {
			errs = append(errs, fmt.Errorf("%s: %s is not allowed; choose from %s to %s", key, v, low, high))
		}
	}
	bound("lease", c.Lease, time.Second, time.Minute)
	bound("session_ttl", c.SessionTTL, 10*time.Second, 24*time.Hour)
	bound("max_staleness_time", c.MaxStalenessTime, 100*time.Millisecond, 24*time.Hour)
	bound("crash_recovery_bound", c.CrashRecoveryBound, 0, time.Hour)
	if c.HangTimeout != 0 {
		bound("hang_timeout", c.HangTimeout, time.Second, time.Hour)
	}
	if c.SwitchoverDrain != 0 {
		bound("switchover_drain", c.SwitchoverDrain, time.Millisecond, time.Minute)
	}
	bound("stop_timeout", c.StopTimeout, time.Second, time.Hour)
	bound("start_timeout", c.StartTimeout, time.Second, 24*time.Hour)
	if c.SessionTTL.D() < c.Lease.D()+Margin(c.Lease.D()) {
		errs = append(errs, fmt.Errorf("session_ttl: %s is shorter than the lease of %s and its margin; the session is the backstop and must outlive the lease", c.SessionTTL, c.Lease))
	}
	switch c.SynchronousMode {
	case "", SyncOff, SyncOn, SyncStrict:
	default:
		errs = append(errs, fmt.Errorf("synchronous_mode: %q is not allowed; choose off, on or strict", c.SynchronousMode))
	}
	if _, high := c.SyncBounds(); c.MinSynchronousStandbys < 0 || c.MaxSynchronousStandbys != 0 && c.MaxSynchronousStandbys < c.MinSynchronousStandbys || high > 16 {
		errs = append(errs, fmt.Errorf("min_synchronous_standbys, max_synchronous_standbys: %d and %d are not allowed; choose 1 to 16, the first not above the second",
			c.MinSynchronousStandbys, c.MaxSynchronousStandbys))
	}
	if c.MaxClonesPerSource < 0 || c.MaxClonesPerSource > 64 {
		errs = append(errs, fmt.Errorf("max_clones_per_source: %d is not allowed; choose from 1 to 64", c.MaxClonesPerSource))
	}
	if len(c.PauseBy)+len(c.PauseReason) > maxPauseText {
		errs = append(errs, fmt.Errorf("pause_by, pause_reason: %d bytes are not allowed; choose at most %d together", len(c.PauseBy)+len(c.PauseReason), maxPauseText))
	}
	errs = append(errs, c.Follow.validate()...)
	for _, k := range slices.Sorted(maps.Keys(c.Parameters)) {
		if why, ruled := RuledParameters[k]; ruled && (k != "wal_level" || !strings.EqualFold(c.Parameters[k], "logical")) {
			errs = append(errs, fmt.Errorf("parameters: %s cannot be set here: %s", k, why))
		}
	}
	return errors.Join(append(errs, c.checkSlots()...)...)
}

// Synchronous reports whether commits wait for standbys: modes on and strict.
func (c ClusterConfig) Synchronous() bool {
	return c.SynchronousMode == SyncOn || c.SynchronousMode == SyncStrict
}

// ClonesPerSource returns how many members may be cloned from one server at a time.
func (c ClusterConfig) ClonesPerSource() int { return max(c.MaxClonesPerSource, 1) }

// SyncBounds returns the least and the greatest number of standbys that a commit waits for, in modes on and strict.
func (c ClusterConfig) SyncBounds() (low, high int) {
	low = max(c.MinSynchronousStandbys, 1)
	return low, max(c.MaxSynchronousStandbys, low)
}
