package schema

import "time"

// ClusterStatus is what one member knows of the whole cluster: GET /status on its API.
type ClusterStatus struct {
	Cluster string    `json:"cluster"`
	Member  string    `json:"member"` // who answers
	Version string    `json:"version"`
	At      time.Time `json:"at"` // wall clock, for people only
	Self    Status    `json:"self"`
	// Leader is the leader record as last seen; nil if none was.
	Leader *Leader `json:"leader,omitempty"`
	// LeaderSeenFor is how long ago this record was first seen: a holder that renews keeps it small.
	LeaderSeenFor Duration `json:"leader_seen_for,omitempty"`
	// HoldsLock says that the answering member holds the lock and its lease is in force.
	HoldsLock bool `json:"holds_lock"`
	// ConsulAge is how long ago Consul answered last; negative if it never did.
	ConsulAge Duration      `json:"consul_age"`
	Members   []MemberView  `json:"members"`
	Config    ClusterConfig `json:"config"`
	// Promises says, of a primary that cannot renew, what each member that it asks for a promise last said.
	Promises []PromiseView `json:"promises,omitempty"`
	// Order is the newest order that the answering member was given; nil if there was none since it started.
	Order *OrderStatus `json:"order,omitempty"`
}

// PromiseView is what a primary without Consul knows of one member's promise not to take over.
type PromiseView struct {
	Member string `json:"member"`
	// Given is the newest answer; Why is why it was refused, or why there was none. Both are empty before the first.
	Given bool   `json:"given"`
	Why   string `json:"why,omitempty"`
	// AskedAgo is how long ago the question of that answer was sent, GivenAgo that of the newest promise; negative if there is none.
	AskedAgo Duration `json:"asked_ago"`
	GivenAgo Duration `json:"given_ago"`
}

// MemberView is one member as another one sees it.
type MemberView struct {
	Status
	Liveness Liveness `json:"liveness"`
	// HeardAgo is how old the status is; negative if none was ever heard.
	HeardAgo Duration `json:"heard_ago"`
}

// EventKind names a step in the life of a cluster.
type EventKind string

// The kinds of event. A failover reads: lost, judged, elected, promoted, rerouted.
const (
	EventLost       EventKind = "lost"          // a router or member noticed that the primary is gone
	EventJudged     EventKind = "judged"        // a candidate counts the lease as dead
	EventElected    EventKind = "elected"       // a takeover succeeded
	EventPromoted   EventKind = "promoted"      // the new primary accepts writes
	EventRerouted   EventKind = "rerouted"      // a router sends new sessions to the new primary
	EventDemoted    EventKind = "demoted"       // a primary has stopped accepting writes
	EventFenced     EventKind = "fenced"        // the launcher killed Postgres at the deadline
	EventCrashed    EventKind = "crashed"       // the postmaster went away unasked
	EventRestarted  EventKind = "restarted"     // a crashed primary accepts writes again in the same reign
	EventReleased   EventKind = "released"      // a planned release
	EventFollowing  EventKind = "following"     // a standby streams from a (new) primary
	EventCloned     EventKind = "cloned"        // a clone is complete
	EventRemoved    EventKind = "removed"       // a member without room for two removed its own copy, to be cloned
	EventRewound    EventKind = "rewound"       // a rewind onto the primary's history is complete
	EventInitdb     EventKind = "initialized"   // the first initdb is complete
	EventPromise    EventKind = "promised"      // a lease is extended by promises, without Consul
	EventUnpromised EventKind = "unpromised"    // a promise that a primary without Consul needs was refused or not answered
	EventHung       EventKind = "hung"          // a primary's Postgres leaves probes unanswered, or flushes no WAL
	EventConsulAway EventKind = "consul away"   // Consul no longer answers
	EventConsulBack EventKind = "consul back"   // Consul answers again
	EventBarred     EventKind = "may not stand" // nobody reigns, and the recorder does not stand: for this reason
	EventRecovering EventKind = "recovering"    // a crashed primary is restarted in place instead of handing over
	EventHandOver   EventKind = "handing over"  // a primary stops to let another one follow
	EventOrdered    EventKind = "ordered"       // what an operator ordered is done
	EventActionFail EventKind = "action failed"
	EventConfigured EventKind = "configured" // Postgres has read a changed configuration
	EventRefused    EventKind = "refused"    // Postgres does not take a part of the cluster's configuration
)

// Event is one step, as recorded by whoever took it: GET /events on the APIs.
type Event struct {
	// Seq numbers what one member has recorded, from 1 and over restarts of its sidecar; a router leaves it at zero.
	Seq  uint64    `json:"seq,omitempty"`
	Kind EventKind `json:"kind"`
	// At is the recorder's CLOCK_BOOTTIME in nanoseconds: comparable on one machine only, and zero if it has booted since.
	At     Instant   `json:"at"`
	Wall   time.Time `json:"wall"`
	By     string    `json:"by"`
	Epoch  Epoch     `json:"epoch"`
	Detail string    `json:"detail,omitempty"`
	// Evidence is what the step rested on, where it is a decision.
	Evidence *Evidence `json:"evidence,omitempty"`
}
