package launch

import (
	"howdah/consul/schema"
)

// ProcessState says what the launcher's postmaster is doing.
type ProcessState string

// The states. In stopped, crashed and fenced no process of this Postgres is left alive, backends included.
const (
	ProcessStopped  ProcessState = "stopped"  // never started, or stopped as asked
	ProcessRunning  ProcessState = "running"  // forked; says nothing about accepting connections
	ProcessStopping ProcessState = "stopping" // signalled by Stop or by the fence, or dead with backends still to be killed
	ProcessCrashed  ProcessState = "crashed"  // went away unasked
	ProcessFenced   ProcessState = "fenced"   // killed because the deadline passed
)

// StopMode is one of PostgreSQL's three ways to shut down.
type StopMode string

// The modes, softest first.
const (
	StopSmart     StopMode = "smart"     // SIGTERM: waits for clients
	StopFast      StopMode = "fast"      // SIGINT: ends sessions, writes a shutdown checkpoint
	StopImmediate StopMode = "immediate" // SIGQUIT to every process, SIGKILL after StopKillAfter: the next start recovers
)

// Status is what the launcher knows.
type Status struct {
	// Seq grows with every change of Process, PID, Armed, Epoch, Ending or of a job's state, also from
	// one launcher to the next on the same boot. An extension of the deadline, a log line or a
	// job's output does not change it.
	Seq uint64 `json:"seq"`
	// Now is the launcher's CLOCK_BOOTTIME when it answered.
	Now     schema.Instant `json:"now"`
	Process ProcessState   `json:"process"`
	// PID is the postmaster's; zero without one.
	PID int `json:"pid,omitempty"`
	// Armed means that Postgres is killed at Deadline. Only the end of Postgres disarms.
	Armed bool `json:"armed"`
	// Epoch is the newest one that this launcher was given; it stays when Postgres ends (I3).
	Epoch schema.Epoch `json:"epoch"`
	// Deadline is the end of the lease, zero if not armed.
	//	I2: Armed and Now >= Deadline => every process of Postgres has been sent SIGQUIT,
	//	    and Now >= Deadline + FenceGrace => every one has been sent SIGKILL.
	Deadline  schema.Instant `json:"deadline,omitempty"`
	StartedAt schema.Instant `json:"started_at,omitempty"`
	// ExitDetail says how the last postmaster ended, for example "killed by SIGKILL".
	ExitDetail string `json:"exit_detail,omitempty"`
	// LastLog holds the last lines of the postmaster's stderr, oldest first.
	LastLog []string `json:"last_log,omitempty"`
	// Job is the running or last long job; nil if there was none. Its Output is the last 4 KiB.
	Job     *Job   `json:"job,omitempty"`
	DataDir string `json:"data_dir"`
	// PostgresMajor is the major version of the binaries, for example 15.
	PostgresMajor int `json:"postgres_major"`
	// Ending means that the launcher itself was told to end and is stopping Postgres.
	Ending bool `json:"ending,omitempty"`
}

// StartRequest asks for a postmaster.
type StartRequest struct {
	// Role standby needs standby.signal or recovery.signal in the data directory. Role primary
	// needs that there is no standby.signal, an Epoch that is not older, and a Deadline to come.
	Role     schema.Role    `json:"role"`
	Epoch    schema.Epoch   `json:"epoch"`
	Deadline schema.Instant `json:"deadline"`
	// Synchronous is told of at Lease.
	Synchronous bool `json:"synchronous,omitempty"`
	// Options are given to postgres as -c key=value; they beat every configuration file.
	Options map[string]string `json:"options,omitempty"`
	// ClientNow is set by Client: the server refuses an Instant of another clock.
	ClientNow schema.Instant `json:"client_now"`
}

// StopRequest asks the postmaster to shut down.
type StopRequest struct {
	Mode StopMode `json:"mode"`
}

// Lease is what a Postgres that accepts writes is armed with.
type Lease struct {
	Epoch    schema.Epoch   `json:"epoch"`
	Deadline schema.Instant `json:"deadline"`
	// Synchronous says that commits may wait for standbys: then Postgres bids no farewell, whose fast stop would end the
	// waits and let others see commits that no standby has, but is killed at Deadline (SIGQUIT).
	Synchronous bool `json:"synchronous,omitempty"`
}

// armRequest is the body of POST /arm.
type armRequest struct {
	Lease
	ClientNow schema.Instant `json:"client_now"`
}

// ToolRestore is the operator's command that fetches a backup: one argument, a line for /bin/sh. It is long. It gives the
// sidecar nothing that it has not got: it says PostgreSQL's restore_command and archive_command, which are lines for the shell, too.
const ToolRestore = "restore"

// RunRequest asks for one of PostgreSQL's programs: initdb, pg_basebackup, pg_rewind, postgres with -C or --single (long: one at
// a time, and no postmaster may be started meanwhile), pg_controldata or pg_waldump (may run beside); or for ToolRestore.
// initdb, pg_rewind, postgres and ToolRestore are refused while a postmaster runs.
type RunRequest struct {
	Tool string   `json:"tool"`
	Args []string `json:"args,omitempty"`
	// Env is added to the launcher's environment; PG*, LC_*, LANG, LANGUAGE and TZ are allowed.
	// Secrets belong here or in Stdin, never in Args.
	Env   map[string]string `json:"env,omitempty"`
	Stdin string            `json:"stdin,omitempty"`
}

// Job is one run of a program.
type Job struct {
	ID        string         `json:"id"`
	Tool      string         `json:"tool"`
	Running   bool           `json:"running"`
	Cancelled bool           `json:"cancelled,omitempty"`
	StartedAt schema.Instant `json:"started_at"`
	EndedAt   schema.Instant `json:"ended_at,omitempty"`
	// ExitCode is the program's, or 128 + n if signal n ended it. Without meaning while Running.
	ExitCode int `json:"exit_code"`
	// Output is the last 64 KiB of stdout and stderr together.
	Output string `json:"output,omitempty"`
}

// JobResult is how a program ended.
type JobResult struct {
	// ExitCode is the program's, or 128 + n if signal n ended it.
	ExitCode int `json:"exit_code"`
	// Output is the last 64 KiB of stdout and stderr together.
	Output string `json:"output"`
}
