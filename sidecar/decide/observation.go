package decide

import (
	"slices"
	"time"

	"howdah/consul/schema"
)

// Observation is everything that a decision may rest on.
type Observation struct {
	Now       schema.Instant
	Name      string
	Addresses schema.Addresses
	Tags      schema.Tags
	Config    schema.ClusterConfig
	// Init is what an operator said about a cluster that is not initialised: schema.InitNew (also if empty), InitExisting or
	// InitRestore.
	Init string
	// RemoveFirst is the operator's word that our copy may go before a clone is made, where two have no room.
	RemoveFirst bool

	Consul Consul
	// State is the newest answer of the watch; zero until Consul.Seen.
	State schema.ClusterState
	// Lock is the newest that is known of the leader key, from the watch, a read or a transaction.
	Lock schema.LockView
	// Session is our Consul session; empty while there is none.
	Session string

	Data    Data
	Process Process
	SQL     SQL
	Files   Files
	// Peers are the other members, sorted by name.
	Peers []schema.Peer

	// Order is what an operator ordered this member to do; its zero value where nothing is.
	Order Order
	// DiskAt is when the disk last took a write of ours; Never if it was not tried.
	DiskAt schema.Instant
	// Unsaved says that the record is not on disk yet as it is in memory: what rests on it waits.
	Unsaved bool

	// Busy says, by slot, which kind of action is under way; empty where none is.
	Busy [Slots]Kind
	// Done are the actions that ended since the last call, in the order in which they ended.
	Done []Outcome
}

// Consul is what is known of the way to Consul.
type Consul struct {
	Seen       bool           // it answered at least once since the sidecar started
	AnsweredAt schema.Instant // when it answered last
	Error      string         // what the last failure said; empty after an answer
}

// DataState says what is in the data directory.
type DataState string

// The states of a data directory. Unknown never leads to a change of it.
const (
	DataUnknown    DataState = "unknown"
	DataEmpty      DataState = "empty"      // absent, or there and empty
	DataForeign    DataState = "foreign"    // holds something that is not a PostgreSQL cluster
	DataIncomplete DataState = "incomplete" // our own unfinished initdb, clone or rewind
	DataValid      DataState = "valid"
)

// Data is what an inspection of the data directory found.
type Data struct {
	State    DataState
	At       schema.Instant // when the inspection began
	SystemID string
	Timeline schema.Timeline
	// RedoLSN is where crash recovery would begin.
	RedoLSN schema.LSN
	// ShutdownLSN is the end of the shutdown checkpoint of a primary that was stopped cleanly; else zero.
	ShutdownLSN schema.LSN
	// StandbySignal is whether a start would be a start as standby.
	StandbySignal bool
	// CanRewind is whether its state allows a rewind, RewindWhy why not.
	CanRewind bool
	RewindWhy string
	Detail    string // why it is unknown or foreign
	// Removed is set for DataIncomplete where our copy was removed before the clone that is to replace it.
	Removed bool
}

// ProcessState is the launcher's word for the postmaster.
type ProcessState string

// The states of the postmaster. Unknown means that the launcher did not answer.
const (
	ProcessUnknown  ProcessState = "unknown"
	ProcessStopped  ProcessState = "stopped"
	ProcessRunning  ProcessState = "running"
	ProcessStopping ProcessState = "stopping"
	ProcessCrashed  ProcessState = "crashed"
	ProcessFenced   ProcessState = "fenced"
)

// Process is what the launcher says.
type Process struct {
	State ProcessState
	// At is when the launcher said so; Since is when this state was first observed.
	At, Since schema.Instant
	// Armed, Epoch and Deadline are the fence: past the deadline of an armed Postgres the launcher kills it.
	Armed    bool
	Epoch    schema.Epoch
	Deadline schema.Instant
	Detail   string
	// Ending is set once the launcher itself was told to end: it stops Postgres cleanly and starts none again.
	Ending bool
	// WALMissing is set when Postgres's own log says that its upstream no longer has the WAL it asks for.
	WALMissing bool
}

// Gone reports that no process of Postgres lives: the launcher has seen them all end.
func (p Process) Gone() bool {
	return p.State == ProcessStopped || p.State == ProcessCrashed || p.State == ProcessFenced
}

// SQLState says how Postgres answers.
type SQLState string

// The states of a probe by SQL.
const (
	SQLUnknown  SQLState = "unknown"  // no answer in time, or none yet
	SQLStarting SQLState = "starting" // it answers that it is starting up or shutting down (57P03)
	SQLRefused  SQLState = "refused"  // nothing listens
	SQLOK       SQLState = "ok"
)

// SQL is the newest probe of the local Postgres.
type SQL struct {
	State SQLState
	// At is when the probe began; Failing is since when no probe was answered, Never after an answer.
	At, Failing schema.Instant
	InRecovery  bool
	SystemID    string
	Timeline    schema.Timeline
	// LSN is the flush LSN of a primary, the larger of received and replayed of a standby.
	LSN, ReplayLSN schema.LSN
	// WALWaits is how many processes wait for WAL to be written or flushed.
	WALWaits int
	// Transactions is how many sessions of clients are in a transaction that has not failed, Oldest how long the oldest has been. Those of howdah do
	// not count.
	Transactions int
	Oldest       time.Duration
	// Streaming is whether a WAL receiver of ours is connected; From is its host:port.
	Streaming bool
	From      string
	Version   int
	// Replicas are the standbys that are connected to a primary.
	Replicas []Replica
}

// Replica is a standby as its primary sees it.
type Replica struct {
	Name      string
	Flush     schema.LSN
	Streaming bool
}

// Answers reports a Postgres that took our query.
func (s SQL) Answers() bool { return s.State == SQLOK }

// lease returns the lease that the cluster is configured for.
func (o *Observation) lease() time.Duration { return o.Config.Lease.D() }

// peer returns the peer of that name; its zero value, of unknown liveness, if there is none.
func (o *Observation) peer(name string) schema.Peer {
	i := slices.IndexFunc(o.Peers, func(p schema.Peer) bool { return p.Name == name })
	if i < 0 {
		return schema.Peer{Name: name, Liveness: schema.LivenessUnknown}
	}
	return o.Peers[i]
}

// memberNames returns the registered members and ourselves, sorted.
func (o *Observation) memberNames() []string {
	names := []string{o.Name}
	for _, d := range o.State.Members {
		if d.Exists && d.Value.Name != o.Name {
			names = append(names, d.Value.Name)
		}
	}
	slices.Sort(names)
	return names
}
