package schema

import "time"

// Epoch is the fencing number of one reign: it grows by at least one with every
// takeover and never decreases (I3). Zero means that no reign is known.
type Epoch uint64

// Phase says how far a reign has come.
type Phase string

// The phases of a reign, in order.
const (
	PhaseBootstrapping Phase = "bootstrapping" // the holder runs initdb or takes a directory over
	PhasePromoting     Phase = "promoting"     // the holder has the lock, its Postgres does not accept writes yet
	PhaseRecovering    Phase = "recovering"    // Postgres is up for standbys alone: commits that waited for them must reach them first
	PhaseServing       Phase = "serving"       // the holder accepts writes
	PhaseFollowing     Phase = "following"     // a standby cluster: the holder is a standby of the remote primary, nobody accepts writes
	PhaseStopping      Phase = "stopping"      // a planned stop has begun; routers hold new transactions
	PhaseReleased      Phase = "released"      // Postgres has provably stopped; the lock is free for Successor at once
)

// Addresses says where a member is reached, as host:port; the host may be a name.
type Addresses struct {
	Postgres string `json:"postgres,omitempty"`
	API      string `json:"api,omitempty"`
	Gossip   string `json:"gossip,omitempty"`
}

// Leader is the value of the leader key: the record of one reign. It changes with every
// renewal, so that a ModifyIndex seen unchanged for a lease means that nobody renewed.
type Leader struct {
	Member    string    `json:"member"`
	Epoch     Epoch     `json:"epoch"`
	Phase     Phase     `json:"phase"`
	Addresses Addresses `json:"addresses"`
	Timeline  Timeline  `json:"timeline"`
	// NextTimeline is the timeline that this reign promotes to, if it promotes. It grows with every
	// takeover: left to itself, PostgreSQL gives two servers that branch off one timeline the same number.
	NextTimeline Timeline `json:"next_timeline,omitempty"`
	FlushLSN     LSN      `json:"flush_lsn"`
	Session      string   `json:"session"`
	// Lease is the length of the lease that the holder counts by. Judges use it, not their own
	// setting, so that a change of the setting never shortens a lease that is in force.
	Lease Duration `json:"lease"`
	// Members are all members whose promise the holder would ask for without Consul. Nobody
	// else may take over this reign: a promise nobody asked for is a promise nobody gave.
	Members []string `json:"members"`
	// Sync is what every acknowledged commit of this and of earlier reigns satisfies. It stands in the record, so that
	// the condition of a takeover covers it: nobody takes over by a set that has changed since.
	Sync SyncSet `json:"sync,omitzero"`
	// Follows is the address (host:port) of the remote primary that a standby cluster follows; empty in any other cluster.
	// Whoever takes over a record with it follows too, and is not promoted.
	Follows string `json:"follows,omitempty"`
	// Successor is the member that a planned release names; empty if any may follow.
	Successor string `json:"successor,omitempty"`
	// ShutdownLSN is the end of the shutdown checkpoint, in PhaseReleased: a successor must have it.
	ShutdownLSN LSN `json:"shutdown_lsn,omitempty"`
}

// LockView is what one consistent read, or one answered transaction, said about the leader key.
type LockView struct {
	// Known is false until the first answer; then nothing below means anything.
	Known bool
	// Exists is false where the key is missing.
	Exists bool
	// Index is the key's ModifyIndex; zero if the key is missing.
	Index uint64
	// Session is the session that holds the lock now; empty if nobody does.
	Session string
	// Leader is the value; the zero Leader if the key is missing.
	Leader Leader
	// AskedAt is this machine's clock read before the request was sent.
	AskedAt Instant
}

// Held reports whether some session holds the lock.
func (v LockView) Held() bool { return v.Exists && v.Session != "" }

// HeldBy reports whether session holds the lock.
func (v LockView) HeldBy(session string) bool { return v.Held() && v.Session == session }

// Margin is what a judge adds to a lease before it counts it as dead: 10 % for clock
// rates that differ, and 200 ms for the time between a deadline and the last signal.
func Margin(lease time.Duration) time.Duration { return lease/10 + 200*time.Millisecond }

// RenewInterval is how often a holder renews a lease of this length.
func RenewInterval(lease time.Duration) time.Duration { return lease / 6 }

// Initialize is the value of the initialize key. Written once, before the first initdb.
type Initialize struct {
	// SystemID is PostgreSQL's system identifier in decimal; empty while the first initdb runs.
	SystemID string `json:"system_id"`
	// By is the member that bootstraps or has bootstrapped.
	By string `json:"by"`
	// Mode is one of InitNew, InitExisting, InitRestore, InitFollow and InitRecovered.
	Mode string `json:"mode"`
}

// Where the first data of a cluster came from.
const (
	InitNew       = "new"       // initdb
	InitExisting  = "existing"  // a data directory that another system or an operator had made, adopted in place
	InitRestore   = "restore"   // a backup that an operator's command fetched, recovered to a target
	InitFollow    = "follow"    // a copy of a remote primary, which the cluster follows until it is promoted
	InitRecovered = "recovered" // the key was lost and written again from a member's own record
)

// Reign is one entry of the history key.
type Reign struct {
	Epoch    Epoch     `json:"epoch"`
	Member   string    `json:"member"`
	Timeline Timeline  `json:"timeline"`
	LSN      LSN       `json:"lsn"` // where the reign began
	At       time.Time `json:"at"`  // wall clock, for people only
	Why      string    `json:"why"`
}

// History is the value of the history key, oldest reign first.
type History struct {
	Reigns []Reign `json:"reigns"`
}

// MaxEpoch returns the newest epoch in the history.
func (h History) MaxEpoch() Epoch {
	var e Epoch
	for _, r := range h.Reigns {
		e = max(e, r.Epoch)
	}
	return e
}

// RequestKind names what an operator asks for.
type RequestKind string

// The kinds of request.
const (
	RequestSwitchover RequestKind = "switchover" // carried out by the primary
	RequestFailover   RequestKind = "failover"   // carried out by the member that it names, while there is no primary
)

// Request is the value of the request key: one thing that an operator asked for.
// Whoever carries it out deletes it by check-and-set.
type Request struct {
	ID   string      `json:"id"`
	Kind RequestKind `json:"kind"`
	// From is the primary that the operator saw; a request about another primary is void.
	From string `json:"from"`
	// To is the wanted successor; empty means the best candidate.
	To string    `json:"to,omitempty"`
	At time.Time `json:"at"`
	// Epoch and LSN are, for a failover, the newest epoch and what the last primary had published when it was asked
	// for: a request about any other situation is void.
	Epoch Epoch `json:"epoch,omitempty"`
	LSN   LSN   `json:"lsn,omitempty"`
	// Force lets a member stand that may not by the rules.
	Force bool `json:"force,omitempty"`
	// By is who asked, as user@host.
	By string `json:"by,omitempty"`
}
