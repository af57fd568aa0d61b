package decide

import (
	"slices"

	"howdah/consul/schema"
)

// Record is the part of a member's memory that survives its restart. The shell writes it to disk, beside the loop;
// see DecideSaved for what waits until it has.
type Record struct {
	Cluster  string `json:"cluster"`
	Name     string `json:"name"`
	SystemID string `json:"system_id,omitempty"`
	// Epoch is the newest epoch ever seen (I3).
	Epoch schema.Epoch `json:"epoch"`
	// Reigned is the epoch of the newest reign of our own.
	Reigned schema.Epoch `json:"reigned,omitempty"`
	// Named is the newest epoch whose leader record was seen to name us as a member.
	Named schema.Epoch `json:"named,omitempty"`
	// Timeline is the newest timeline ever heard of.
	Timeline schema.Timeline `json:"timeline,omitempty"`
	// Session is the session of our reign, so that a restarted sidecar finds it again.
	Session string `json:"session,omitempty"`
	// Members are all members last known.
	Members []string `json:"members,omitempty"`
	// Follows is what the newest leader record said of the remote primary that the cluster follows.
	Follows string `json:"follows,omitempty"`
}

// Equal reports whether r and s say the same.
func (r Record) Equal(s Record) bool {
	return slices.Equal(r.Members, s.Members) && r.Cluster == s.Cluster && r.Name == s.Name && r.SystemID == s.SystemID &&
		r.Epoch == s.Epoch && r.Reigned == s.Reigned && r.Named == s.Named && r.Timeline == s.Timeline && r.Session == s.Session && r.Follows == s.Follows
}

// Memory is what a member carries from one decision to the next.
type Memory struct {
	Record Record
	Seen   Seen
	Reign  Reign
	// PromisedUntil is until when we neither take over nor promote.
	PromisedUntil schema.Instant
	// SeizeFailedAt is when a seizure ended without success; a read from later settles what became of it.
	SeizeFailedAt schema.Instant
	Reports       Reports
	Rejoin        Rejoin
	Rewinds       Rewinds
	Rewinding     Rewinding
	Clone         Cloning
	// Removed says that our copy was last seen removed; see Data.
	Removed bool
	Switch  Switch
	Ordered Ordered
	// Barred is what was said last of why we do not stand.
	Barred string
	// Following is the upstream that Postgres was last configured for by us.
	Following Upstream
	// NotStreaming is since when a running standby has had no WAL receiver.
	NotStreaming schema.Instant
	// Timeline is the newest timeline that our data directory was seen on.
	Timeline schema.Timeline
	// Inspected says that the data directory was looked at since the sidecar started, or replaced it: before, Timeline may be one that is over.
	Inspected bool
	// LSN is the newest LSN that our Postgres was seen at.
	LSN schema.LSN
	// Stall is what suggests that the WAL cannot be written.
	Stall Stall
	// Adopted is the system identifier of the data directory that this process has adopted.
	Adopted string
	// Crashes are the restarts in place since Postgres last ran well for a minute.
	Crashes   int
	HealthyAt schema.Instant
	// Retries hold back what has failed, by slot.
	Retries [Slots]Retry
	// SessionAt is when the session was last made or renewed; ReadAt when the leader key was last read.
	SessionAt, ReadAt schema.Instant
	// EpochAt is when we first heard of Record.Epoch; Never if that was before the sidecar started.
	EpochAt schema.Instant
	// JudgedAt is when we counted the lease of Seen.Index as dead.
	JudgedAt schema.Instant
	// HandledAt is when the last action of the Postgres slot ended: what was seen of the data directory
	// before does not count.
	HandledAt schema.Instant
	// StopAt is when Postgres was last told to stop at once.
	StopAt schema.Instant
	// LaunchLost is since when the launcher has not answered.
	LaunchLost schema.Instant
	// Refused is what Postgres refused of the cluster's configuration, as it was last noted.
	Refused string
	// ConsulLost says that we have said so.
	ConsulLost bool
}

// Seen is a ModifyIndex and when we first saw it. Judges count from At:
//
//	holder's deadline <= (its request sent) + lease <= At + lease
type Seen struct {
	Known  bool
	Exists bool
	Index  uint64
	At     schema.Instant
}

// Reign is our own hold of the lock.
type Reign struct {
	Active  bool
	Epoch   schema.Epoch
	Phase   schema.Phase
	Session string
	// Index is the ModifyIndex of our newest write that was answered.
	Index uint64
	// Deadline is until when we may accept writes (I2): the time before the newest answered
	// renewal, or full round of promises, was sent, plus the lease it was for.
	Deadline schema.Instant
	// AskedAt is when the newest renewal was sent, RenewedAt when the newest answered one was sent,
	// PromisesAt when the newest round of promises was sent.
	AskedAt, RenewedAt, PromisesAt schema.Instant
	// Marks show the members that we hear them.
	Marks []Mark
	// Since is when the reign, or its present phase, began.
	Since schema.Instant
	// Found is when a record gave us the reign back: after a restart of the sidecar, or after our lease had run out. Never for one that
	// has been in force ever since we began it.
	Found schema.Instant
	// Written are the members named in our newest answered write, Attempted those in a write whose
	// outcome is not known. Promises are asked of both.
	Written, Attempted []string
	// WrittenPhase is the phase that Consul has.
	WrittenPhase schema.Phase
	Why          string
	// Noted is set once the reign stands in the history.
	Noted bool
	// Followed is set where the reign began by following a remote: its promotion stands in the history too.
	Followed bool
	// NextTimeline is the timeline that is ours to promote to.
	NextTimeline schema.Timeline
	Sync         Synchronous
	// Lease is that of our newest answered write: what judges who missed every later one count by.
	Lease schema.Duration
	// HandOver is why the lock is to be let go, once that is decided; it stays decided.
	HandOver string
	// Promises are the answers of the members that are asked for a promise, since the newest answered renewal.
	Promises []Promised
}

// Promised is what one member last said when it was asked for a promise.
type Promised struct {
	schema.PromiseReply
	// AskedAt is when that was asked; GivenAt is when the newest promise was asked for, Never if there was none.
	AskedAt, GivenAt schema.Instant
}

// Stall is a flush LSN that does not move while somebody waits for it.
type Stall struct {
	LSN schema.LSN
	// Since is when it was first seen so; Never while nobody waits.
	Since schema.Instant
	// Told says that there is an event about it.
	Told bool
}

// Mark is that of the newest reply of a member to a request for a promise.
type Mark struct {
	Member string
	Mark   schema.Instant // the member's clock
}

// Rejoin is what is known about our history against the leader's.
type Rejoin struct {
	Epoch   schema.Epoch // the leader's epoch it was checked for
	Checked bool
	Follows bool
	At      schema.Instant
}

// Switch is a switchover under way.
type Switch struct {
	ID   string
	To   string
	Step Step
	// Since is when the step began.
	Since schema.Instant
}

// Step is a step of a switchover or of an order.
type Step string

// The steps, in order.
const (
	StepNone       Step = ""
	StepCheckpoint Step = "checkpoint"
	StepDrain      Step = "drain" // of a switchover, and of the ordered restart of a primary: transactions under way may end
	StepStop       Step = "stop"
	StepVerify     Step = "verify"
	StepClone      Step = "clone" // of an order to reinit
	StepStart      Step = "start" // of an order: Postgres is to come up again
)

// Retry holds back a kind of action that has failed.
type Retry struct {
	Kind  Kind
	Until schema.Instant
	Count int
	Error string
}
