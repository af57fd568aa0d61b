package schema

// Role is what a Postgres is at the moment.
type Role string

// The roles. ParseRole also accepts what people call them elsewhere.
const (
	RoleUnknown Role = ""
	RolePrimary Role = "primary"
	RoleStandby Role = "standby"
)

// ParseRole accepts primary, standby and their aliases (master, replica).
func ParseRole(s string) (Role, bool) {
	switch s {
	case "primary", "master":
		return RolePrimary, true
	case "standby", "replica":
		return RoleStandby, true
	}
	return RoleUnknown, false
}

// State is what a member's Postgres is doing, in one word for people and routers.
type State string

// The states of a member.
const (
	StateUnknown       State = "unknown"        // nothing was learned; never read as dead
	StateInitializing  State = "initializing"   // initdb runs
	StateCloning       State = "cloning"        // pg_basebackup runs, or pg_rewind
	StateStarting      State = "starting"       // the postmaster runs, no connection is accepted yet
	StateRunning       State = "running"        // accepts connections
	StateStreaming     State = "streaming"      // a standby that receives WAL
	StatePromoting     State = "promoting"      // the promotion has begun
	StateStopping      State = "stopping"       // a planned stop has begun
	StateStopped       State = "stopped"        // no postmaster
	StateCrashed       State = "crashed"        // the postmaster is gone without having been asked to stop
	StateFenced        State = "fenced"         // killed because the lease ran out
	StateWaiting       State = "waiting"        // nothing to do yet; Reason says for what it waits
	StateNeedsOperator State = "needs operator" // nothing is safe to do; Reason says what the operator can do
)

// Tags are what an operator says about a member.
type Tags struct {
	// Priority orders candidates before their LSN does; higher goes first. Default 0.
	Priority int `json:"priority,omitempty"`
	// NoFailover keeps a member from standing.
	NoFailover bool `json:"nofailover,omitempty"`
	// NoSync keeps a member out of the synchronous set.
	NoSync bool `json:"nosync,omitempty"`
	// NoLoadBalance keeps reads away.
	NoLoadBalance bool `json:"noloadbalance,omitempty"`
	// CloneFrom has others copy this member, while it is a healthy standby, instead of the primary.
	CloneFrom bool `json:"clonefrom,omitempty"`
}

// Member is the value of members/<name>: what changes seldom.
type Member struct {
	Name      string    `json:"name"`
	Addresses Addresses `json:"addresses"`
	SystemID  string    `json:"system_id,omitempty"`
	// PostgresVersion is server_version_num, for example 150018.
	PostgresVersion int    `json:"postgres_version,omitempty"`
	Version         string `json:"version"`
	Tags            Tags   `json:"tags"`
	// Instance is made anew at each start of the sidecar; two live instances under one name are a mistake.
	Instance string `json:"instance"`
}

// Status is what a member says about itself, several times a second, by gossip and on its API.
type Status struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Instance string `json:"instance"`
	// Seq grows with every status of one Instance, so that an old message never replaces a newer one.
	Seq       uint64    `json:"seq"`
	Addresses Addresses `json:"addresses"`
	Role      Role      `json:"role"`
	State     State     `json:"state"`
	// Reason says why, in words for a person; empty when all is well.
	Reason   string   `json:"reason,omitempty"`
	SystemID string   `json:"system_id,omitempty"`
	Timeline Timeline `json:"timeline,omitempty"`
	// Epoch is the newest epoch that the member knows. In a status with RolePrimary it is its own.
	Epoch Epoch `json:"epoch"`
	// LSN is the flush LSN of a primary, the received (flushed) LSN of a standby.
	LSN LSN `json:"lsn"`
	// ReplayLSN is the replayed LSN of a standby; zero on a primary.
	ReplayLSN LSN `json:"replay_lsn,omitempty"`
	// Upstream is the member that a standby receives WAL from; empty if it receives none.
	Upstream string `json:"upstream,omitempty"`
	// CloneFrom is the member that this one is cloning from, in StateCloning, or waits to clone from; else empty.
	CloneFrom string `json:"clone_from,omitempty"`
	// LeaseLeft is, for the holder of the lock in whatever phase, how long its lease lasts still at the moment of sending.
	LeaseLeft Duration `json:"lease_left,omitempty"`
	// Resumes is set on a stopped member that was the last primary as far as it knows: nobody has a commit that it lacks.
	Resumes bool `json:"resumes,omitempty"`
	// Stopping is set on a primary once a planned stop has begun: routers hold new transactions.
	Stopping bool `json:"stopping,omitempty"`
	// DiskSilent is how long the member's disk has not taken a write, if that is longer than usual; zero while it does.
	DiskSilent      Duration `json:"disk_silent,omitempty"`
	PostgresVersion int      `json:"postgres_version,omitempty"`
	Tags            Tags     `json:"tags"`
	// PendingRestart names the settings whose new value waits for a restart of Postgres (pg_settings.pending_restart),
	// sorted, at most MaxPendingRestart of them.
	PendingRestart []string `json:"pending_restart,omitempty"`
}

// MaxPendingRestart is how many settings a status names: with more it would not fit one packet of gossip.
const MaxPendingRestart = 12

// Liveness is the gossip layer's opinion of a process.
type Liveness string

// The opinions. Unknown is not dead (I5).
const (
	LivenessUnknown Liveness = "unknown" // never heard of, or gossip has just begun
	LivenessAlive   Liveness = "alive"
	LivenessSuspect Liveness = "suspect"
	LivenessDead    Liveness = "dead" // failed every probe, also through others, for the suspicion time
	LivenessLeft    Liveness = "left" // said goodbye
)

// Peer is one process in the gossip, as one member sees it.
type Peer struct {
	Name     string
	Kind     string // "member" or "router"
	Liveness Liveness
	// Status is the newest heard; its zero value if none was.
	Status Status
	// HeardAt is this machine's clock when Status arrived.
	HeardAt Instant
}

// PromiseRequest is what a primary without Consul asks of every member.
type PromiseRequest struct {
	From  string `json:"from"`
	Epoch Epoch  `json:"epoch"`
	// Lease is how long the promise must last, counted by the giver from when it gives it.
	Lease Duration `json:"lease"`
	// Mark is that of the member's newest reply which has reached the asker; zero if none has. It shows that the
	// asker hears the member: a promise to one who cannot hear it would bind for nothing.
	Mark Instant `json:"mark,omitempty"`
	// Report asks for no promise but for how far the member's WAL goes.
	Report bool `json:"report,omitempty"`
}

// PromiseReply answers a PromiseRequest. Given means: I shall not take over, nor promote, before
// Lease plus its margin have passed on my clock.
type PromiseReply struct {
	Member string `json:"member"`
	Given  bool   `json:"given"`
	Why    string `json:"why,omitempty"` // why not
	// Mark is the member's own clock when it replied, to be shown to it with the next request. It means nothing to
	// anybody else.
	Mark Instant `json:"mark,omitempty"`
	// LSN and Timeline answer a request with Report: what a standby has flushed; zero if it cannot tell.
	LSN      LSN      `json:"lsn,omitempty"`
	Timeline Timeline `json:"timeline,omitempty"`
}
