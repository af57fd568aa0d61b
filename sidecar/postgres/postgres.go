package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Roles that howdah uses. SuperuserRole is initdb's; EnsureRoles makes the others.
const (
	SuperuserRole   = "postgres"
	ReplicationRole = "howdah_replication"
	RewindRole      = "howdah_rewind"
	RouterRole      = "howdah_router"
)

// Options say which server this is. All paths are absolute and the same for the sidecar
// and for whatever runs the tools and the server.
type Options struct {
	// Name is the member's name: cluster_name, application_name and the slot's name come from it.
	Name string
	// Cluster is howdah's name of the cluster, for messages.
	Cluster string
	DataDir string
	// SocketDir is where the server puts its unix socket.
	SocketDir string
	// ListenAddresses is PostgreSQL's listen_addresses; Port its port, also of the unix socket.
	ListenAddresses string
	Port            int
	// Secrets are what it begins with; see SetSecrets.
	Secrets Secrets
	// Restore is what Restore does; its zero value where there is nothing to restore.
	Restore RestoreOptions
	Log     *zap.Logger
}

// Command is one run of a PostgreSQL tool: initdb, pg_basebackup, pg_rewind, pg_controldata, pg_waldump, postgres
// with -C or --single, or restore with a line for the shell.
type Command struct {
	Tool string
	Args []string
	// Env is added to the runner's own environment.
	Env map[string]string
	// Stdin is the tool's standard input.
	Stdin string
}

// Result is what a tool left behind. Output holds stdout and stderr together; a runner may
// keep only the end of it, but at least 64 KiB.
type Result struct {
	ExitCode int
	Output   string
}

// Runner runs a tool as the user that owns the data directory and waits for its end. When ctx
// ends first the tool is killed and ctx's error returned. An error means that the
// outcome is unknown; a tool that ran and failed is a Result with its exit code.
type Runner interface {
	Run(ctx context.Context, c Command) (Result, error)
}

// errWorking is the answer to a second Initdb, Clone or FinishSwap at a time.
var errWorking = errors.New("an initdb, clone or rewind of this data directory runs already")

// Postgres is one server and its data directory. Its methods may be called from several goroutines,
// except that Configure must not overlap itself, Initdb, Clone or Rewind.
type Postgres struct {
	o     Options
	tools Runner
	log   *zap.Logger
	keys  *keyring // the only place where passwords are kept

	probes *session // for Probe alone, so that nothing delays it
	duties *session

	// swap is held while names beside the data directory change, so that Inspect never sees
	// the moment between two renames.
	swap sync.RWMutex

	// working is held by Initdb, Clone, Rewind and FinishSwap.
	working sync.Mutex
	cloning atomic.Bool

	provenLock   sync.Mutex // held while the file of what is proven changes
	passfileLock sync.Mutex // held while the passfile is written
}

// New checks o and returns a Postgres. It touches no file and opens no connection.
func New(o Options, tools Runner) (*Postgres, error) {
	var errs []error
	for _, d := range []struct{ key, path string }{{"data directory", o.DataDir}, {"socket directory", o.SocketDir}} {
		if !filepath.IsAbs(d.path) || filepath.Clean(d.path) != d.path || d.path == "/" {
			errs = append(errs, fmt.Errorf("%s %q: give an absolute path without a slash at its end", d.key, d.path))
		}
		if strings.ContainsAny(d.path, "\x00\n\r") {
			errs = append(errs, fmt.Errorf("%s %q: must not contain line breaks", d.key, d.path))
		}
	}
	if o.Name == "" {
		errs = append(errs, errors.New("member name: must not be empty"))
	}
	if o.Port < 1 || o.Port > 65535 {
		errs = append(errs, fmt.Errorf("port %d: choose from 1 to 65535", o.Port))
	}
	errs = append(errs, o.Secrets.validate())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	p := &Postgres{o: o, tools: tools, log: o.Log, keys: newKeyring(o.Secrets)}
	p.o.Secrets = Secrets{}
	p.probes, p.duties = newSession(p), newSession(p)
	return p, nil
}

// Close ends the connections that are kept.
func (p *Postgres) Close() {
	p.probes.close()
	p.duties.close()
}

// DirState is what stands at the data directory's path.
type DirState string

// The states of a data directory.
const (
	DirAbsent     DirState = "absent"     // nothing there, and nothing of ours beside it
	DirEmpty      DirState = "empty"      // an empty directory
	DirForeign    DirState = "foreign"    // holds something that is not a PostgreSQL data directory
	DirIncomplete DirState = "incomplete" // a swap was cut short: FinishSwap brings a directory back; or a rewind: only Clone does
	DirValid      DirState = "valid"      // a PostgreSQL data directory whose control file can be read
)

// DataDir is what Inspect learned. Fields below Removed are set for DirValid only.
type DataDir struct {
	State DirState
	// Unfinished says that an initdb or clone was cut short, or runs now: call FinishSwap if none runs.
	Unfinished bool
	// Removed says that this member removed its own copy for want of room and is to be cloned; see RemoveFirst.
	Removed bool

	Major         int  // of PG_VERSION
	StandbySignal bool // standby.signal exists: it starts as a standby
	BackupLabel   bool // backup_label exists: the first start after a base backup is still to come
	Control       ControlData
	// Timeline is the newest one in which the directory has WAL: what CanFollow compares. The control file's
	// own is older when the server crashed after a promotion and before the checkpoint that follows it.
	Timeline schema.Timeline
}

// SystemID returns PostgreSQL's system identifier in decimal; empty unless the state is DirValid.
func (d DataDir) SystemID() string { return d.Control.SystemID }

// Upstream is a server to receive WAL from.
type Upstream struct {
	Member string
	Host   string // a name, an address, or the absolute path of a socket directory
	Port   int
	// Remote says that it is no member: then Slot is the slot there, or empty for none, and SSLMode libpq's.
	Remote        bool
	Slot, SSLMode string
}

// slot is the slot to use on the upstream; empty for none.
func (o Options) slot(u Upstream) string {
	if u.Remote {
		return u.Slot
	}
	return SlotName(o.Name)
}

// Settings are what Configure writes down.
type Settings struct {
	// Role is what the server will be started as. RolePrimary never removes standby.signal:
	// only a promotion does, because it alone begins a new timeline.
	Role   schema.Role
	Config schema.ClusterConfig
	// Upstream is where a standby streams from; nil for a primary, or while nobody is known.
	Upstream *Upstream
	// SynchronousStandbyNames is PostgreSQL's setting of that name; empty for asynchronous.
	SynchronousStandbyNames string
	// Closed leaves the operator's lines out of pg_hba.conf: only howdah itself gets in.
	Closed bool
}

// Change says what a running server needs for what Configure wrote to take effect.
type Change int

// The changes, in order of weight.
const (
	ChangeNone Change = iota
	ChangeReload
	ChangeRestart
)

// String returns none, reload or restart.
func (c Change) String() string { return [...]string{"none", "reload", "restart"}[c] }

// Replica is one row of pg_stat_replication.
type Replica struct {
	Name  string // application_name: the member
	State string // startup, catchup, streaming, backup, stopping
	Sync  string // async, potential, sync, quorum
	// SentLSN, FlushLSN and ReplayLSN are zero where the server reports none.
	SentLSN, FlushLSN, ReplayLSN schema.LSN
	// Silence is how long ago the standby's last reply was sent, by the two servers' clocks: for people only.
	Silence time.Duration
}

// Receiver is the row of pg_stat_wal_receiver.
type Receiver struct {
	// Status is streaming, or starting, restarting, waiting, stopping, stopped; empty if there is no receiver.
	Status     string
	Host       string
	Port       int
	Timeline   schema.Timeline
	FlushedLSN schema.LSN
	// LatestEndLSN is the end of WAL that the upstream last reported.
	LatestEndLSN schema.LSN
	// Silence is how long ago the upstream's last message came, by this machine's clock; zero if there is no receiver.
	Silence time.Duration
}

// Probe is what one question to the running server said, all of one moment.
type Probe struct {
	InRecovery       bool
	SystemID         string
	ServerVersionNum int
	// Timeline is the one being written (primary), or the newest one received or replayed (standby).
	Timeline schema.Timeline
	// LSN is the flush LSN of a primary; of a standby the greater of what it has received (and
	// flushed) and what it has replayed. Candidates are compared by it.
	LSN schema.LSN
	// ReplayLSN and ReceiveLSN are a standby's; zero on a primary.
	ReplayLSN, ReceiveLSN schema.LSN
	// RedoLSN is where crash recovery would begin; see RedoDistance.
	RedoLSN  schema.LSN
	Receiver Receiver
	// Replicas are sorted by name, then by flush LSN from the greatest.
	Replicas []Replica
	// WaitingSyncCommits counts sessions whose commit waits for a standby: a fast shutdown would
	// acknowledge those with a mere WARNING.
	WaitingSyncCommits int
	// WALWaits counts processes of a primary that wait for WAL to be written or flushed to disk.
	WALWaits int
	// Transactions counts sessions of clients on a primary that are in a transaction which has not failed; howdah's own do not count. OldestTransaction is
	// how long the oldest has been.
	Transactions      int
	OldestTransaction time.Duration
	// PendingRestart names the settings whose new value waits for a restart.
	PendingRestart []string
	// ReplayPaused says that replay was paused, by pg_wal_replay_pause or by settings lower than the primary's.
	ReplayPaused bool
}

// Streaming reports whether a standby receives WAL.
func (p Probe) Streaming() bool { return p.InRecovery && p.Receiver.Status == "streaming" }

// Slot is a physical replication slot that a member should have.
type Slot struct {
	Name string
	// AdvanceTo is how far its consumer is known to be. On a standby, where nobody consumes the slot,
	// it is moved up to there, but never past this server's own replay. Zero: leave it.
	AdvanceTo schema.LSN
}

// SlotName is the name of a member's slot on every other member: howdah_ and the name in lower
// case with every character that a slot's name may not hold made an underscore.
func SlotName(member string) string {
	b := []byte("howdah_" + strings.ToLower(member))
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	// NAMEDATALEN - 1 of src/include/pg_config_manual.h.
	return string(b[:min(len(b), 63)])
}

// String returns the member's name and its address, for messages.
func (u Upstream) String() string {
	return fmt.Sprintf("%s at %s", u.Member, net.JoinHostPort(u.Host, strconv.Itoa(u.Port)))
}

// CloneRequest says what to clone.
type CloneRequest struct {
	// From is copied: the primary, or a standby of the server that Settings.Upstream names.
	From Upstream
	// SystemID is the cluster's system identifier; a source with another one is refused.
	SystemID string
	// Settings are written into the clone before it takes the data directory's place; their Role must be RoleStandby.
	Settings Settings
	// RemoveFirst lets the old directory go before the copy is made; nil keeps it until then.
	RemoveFirst *RemoveFirst
}

// Identity is what a server says of itself on a replication connection.
type Identity struct {
	SystemID         string
	Timeline         schema.Timeline
	LSN              schema.LSN // flush LSN (primary) or replay LSN (standby)
	ServerVersionNum int
}
