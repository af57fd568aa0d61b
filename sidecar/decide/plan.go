package decide

import (
	"fmt"
	"time"

	"howdah/consul/schema"
)

// Kind names an action.
type Kind string

// Slot is where an action runs. A slot runs one action at a time, so that no two
// of its actions ever overlap; actions of different slots may.
type Slot int

// The slots.
const (
	SlotLock     Slot = iota // the leader key
	SlotSession              // the Consul session
	SlotDocs                 // the other keys
	SlotPostgres             // the data directory and the postmaster: the long actions
	SlotFence                // stopping at once, whatever else runs
	SlotArm                  // the launcher's deadline
	SlotPromises             // a round of promises
	SlotLook                 // a look at another server, which changes nothing and may take long: whoever is elected need not wait for it

	slotCount
)

// Slots is how many slots there are.
const Slots = int(slotCount)

// The kinds of action, by slot.
const (
	ReadLeader Kind = "read leader" // consistently
	Seize      Kind = "seize"       // acquire or take over, conditional on At
	Renew      Kind = "renew"
	Release    Kind = "release"

	OpenSession  Kind = "open session"
	RenewSession Kind = "renew session"

	PutInitialize Kind = "put initialize"
	PutHistory    Kind = "put history"
	DropRequest   Kind = "drop request"

	Initdb       Kind = "initdb"
	Adopt        Kind = "adopt"   // make a data directory that howdah did not make its own, in place
	Restore      Kind = "restore" // have the operator's command fetch a backup, and recover it
	Clone        Kind = "clone"
	Rewind       Kind = "rewind" // bring a stopped data directory onto the history of From
	StartPrimary Kind = "start primary"
	StartStandby Kind = "start standby"
	Follow       Kind = "follow" // point a running standby at From
	CheckHistory Kind = "check history"
	Promote      Kind = "promote"
	SetSync      Kind = "set synchronous standbys"
	Reconfigure  Kind = "reconfigure" // write the configuration again and have a running Postgres read it
	Checkpoint   Kind = "checkpoint"
	StopFast     Kind = "stop fast" // a clean stop: every standby has every byte, or it takes too long

	StopNow Kind = "stop now" // SIGQUIT

	Arm Kind = "arm"

	AskPromises Kind = "ask promises"
	AskReports  Kind = "ask reports" // how far standbys are, before a synchronous failover
)

var slots = map[Kind]Slot{
	ReadLeader: SlotLock, Seize: SlotLock, Renew: SlotLock, Release: SlotLock,
	OpenSession: SlotSession, RenewSession: SlotSession,
	PutInitialize: SlotDocs, PutHistory: SlotDocs, DropRequest: SlotDocs,
	Initdb: SlotPostgres, Adopt: SlotPostgres, Restore: SlotPostgres, Clone: SlotPostgres, Rewind: SlotPostgres, StartPrimary: SlotPostgres, StartStandby: SlotPostgres,
	Follow: SlotPostgres, CheckHistory: SlotLook, Promote: SlotPostgres, SetSync: SlotPostgres, Reconfigure: SlotPostgres, Checkpoint: SlotPostgres, StopFast: SlotPostgres,
	StopNow: SlotFence, Arm: SlotArm, AskPromises: SlotPromises, AskReports: SlotPromises,
}

// Slot returns where actions of this kind run.
func (k Kind) Slot() Slot { return slots[k] }

// Upstream is the server that a standby receives from.
type Upstream struct {
	Member  string
	Address string // host:port
}

// Action is one thing to do. Which fields mean something depends on Kind.
type Action struct {
	Kind Kind
	// At is the lock as it was when this was decided: the condition of every change of it.
	At     schema.LockView
	Leader schema.Leader
	// Epoch and Deadline are the fence that StartPrimary, Promote and Arm carry.
	Epoch    schema.Epoch
	Deadline schema.Instant
	// Sync is what PostgreSQL is to go by from here on; Closed keeps clients out.
	Sync   schema.SyncSet
	Closed bool
	// Role is what Reconfigure writes the configuration of.
	Role schema.Role
	// Timeline is the one that Promote begins.
	Timeline schema.Timeline
	From     Upstream
	// Holder is the holder of the lock, for Clone: the copy follows it, whoever it is copied from.
	Holder Upstream
	// RemoveFirst, for Clone, lets our copy go before, where two have no room, if the lock is still as At says; Keeps is why that is
	// not so although the operator has allowed it.
	RemoveFirst bool
	Keeps       string
	Session     string // for RenewSession
	Members     []string
	// Marks are those that AskPromises shows to the members.
	Marks []Mark
	Lease schema.Duration
	// Timeout bounds the action; zero means that it has no bound but its own progress.
	Timeout    time.Duration
	Initialize schema.Initialize
	Reign      schema.Reign
	// Index is the ModifyIndex for PutInitialize, PutHistory and DropRequest.
	Index uint64
	Why   string
	// Evidence is what Seize rests on; nothing is done with it but to record it.
	Evidence *schema.Evidence
}

// Mark returns the mark to show to the member of that name; Never if there is none.
func (a Action) Mark(member string) schema.Instant {
	for _, m := range a.Marks {
		if m.Member == member {
			return m.Mark
		}
	}
	return schema.Never
}

// String is what an action is called in a log or a script.
func (a Action) String() string {
	switch a.Kind {
	case Clone, Rewind, Follow, StartStandby, CheckHistory:
		return fmt.Sprintf("%s from %s", a.Kind, a.From.Member)
	case Seize, Renew, Release:
		return fmt.Sprintf("%s epoch %d %s", a.Kind, a.Leader.Epoch, a.Leader.Phase)
	case StartPrimary, Promote:
		return fmt.Sprintf("%s epoch %d", a.Kind, a.Epoch)
	}
	return string(a.Kind)
}

// Certainty says what is known of how an action ended.
type Certainty string

// The ways an action ends.
const (
	OK      Certainty = "ok"
	Refused Certainty = "refused" // it certainly had no effect
	Unclear Certainty = "unclear" // it may have had its effect, or may yet have it
)

// Outcome is an action that ended.
type Outcome struct {
	Action Action
	Result Certainty
	Error  string
	// View is what the lock's actions learned.
	View schema.LockView
	// Session is the session that OpenSession made; empty after a RenewSession that found it gone.
	Session string
	// Follows answers CheckHistory: whether our history leads to that of From.
	Follows bool
	// SystemID is what Initdb made, or Adopt or Restore found.
	SystemID string
	// Promises answers AskPromises, one reply for each member asked; a member without one is missing.
	Promises []schema.PromiseReply
	// StartedAt is this machine's clock from before the first byte was sent.
	StartedAt schema.Instant
	// EndedAt is this machine's clock when it had ended.
	EndedAt schema.Instant
}

// Plan is what to do now, and what to tell people about it.
type Plan struct {
	Actions []Action
	// State and Reason become the member's status.
	State  schema.State
	Reason string
	// CloneFrom is whom the member is cloned from, or waits to be; it becomes part of the status.
	CloneFrom string
	// Resumes says that we were the last primary, see resumes.
	Resumes bool
	// Stopping tells routers to hold new transactions.
	Stopping bool
	// Hurry asks for probes as fast as they go: somebody waits for our LSN.
	Hurry bool
	// Events are steps worth recording; At and By are filled in by the shell.
	Events []schema.Event
}
