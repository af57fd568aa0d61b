package sidecar

import (
	"context"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/launch"
	"howdah/sidecar/postgres"
)

// Lock is what the sidecar needs of Consul for the leader key; see package consul for the protocol.
type Lock interface {
	NewSession(ctx context.Context, ttl time.Duration, name string) (string, error)
	RenewSession(ctx context.Context, id string) error
	ReadLeader(ctx context.Context) (schema.LockView, error)
	Acquire(ctx context.Context, at schema.LockView, session string, v schema.Leader) (schema.LockView, error)
	TakeOver(ctx context.Context, at schema.LockView, session string, v schema.Leader) (schema.LockView, error)
	Renew(ctx context.Context, at schema.LockView, v schema.Leader) (schema.LockView, error)
	Release(ctx context.Context, at schema.LockView, v schema.Leader) (schema.LockView, error)
}

// Documents is what the sidecar needs of Consul's KV store besides the leader key.
type Documents interface {
	WatchState(ctx context.Context, each func(schema.ClusterState, error))
	PutInitialize(ctx context.Context, v schema.Initialize, index uint64) error
	PutConfig(ctx context.Context, v schema.ClusterConfig, index uint64) error
	PutMember(ctx context.Context, v schema.Member, index uint64) error
	PutHistory(ctx context.Context, v schema.History, index uint64) error
	PutRequest(ctx context.Context, v schema.Request, index uint64) error
	DeleteRequest(ctx context.Context, index uint64) error
}

// Gossip is what the sidecar needs of the detector.
type Gossip interface {
	Publish(schema.Status)
	Peers() []schema.Peer
	Changes() <-chan struct{}
	AskPromise(ctx context.Context, member string, r schema.PromiseRequest) (schema.PromiseReply, error)
	HandlePromises(func(schema.PromiseRequest) schema.PromiseReply)
	Join(addrs []string)
}

// Launcher is what the sidecar needs of howdah launch.
type Launcher interface {
	Status(ctx context.Context) (launch.Status, error)
	WaitStatus(ctx context.Context, after uint64) (launch.Status, error)
	Start(ctx context.Context, r launch.StartRequest) error
	Stop(ctx context.Context, r launch.StopRequest) error
	Reload(ctx context.Context) error
	CancelJob(ctx context.Context, id string) error
	Arm(ctx context.Context, l launch.Lease) error
}

// Server is what the sidecar needs of package postgres.
type Server interface {
	FinishSwap(ctx context.Context) error
	Inspect(ctx context.Context) (postgres.DataDir, error)
	Probe(ctx context.Context) (postgres.Probe, error)
	Initdb(ctx context.Context, cfg schema.ClusterConfig) error
	Existing(ctx context.Context, cfg schema.ClusterConfig) (schema.ClusterConfig, error)
	Adopt(ctx context.Context, cfg schema.ClusterConfig) error
	Restore(ctx context.Context) error
	Clone(ctx context.Context, r postgres.CloneRequest) error
	Rewind(ctx context.Context, r postgres.RewindRequest) error
	Configure(ctx context.Context, s postgres.Settings) (postgres.Change, error)
	SetSynchronousStandbys(names string) error
	Synchronous(ctx context.Context) (bool, error)
	AwaitSynchronous(ctx context.Context) error
	Apply(ctx context.Context, s postgres.Settings, reload func(context.Context) error) error
	Compare(ctx context.Context, s postgres.Settings, control postgres.ControlData) (postgres.Comparison, error)
	Started(s postgres.Settings) error
	Parameters(ctx context.Context) ([]schema.Parameter, error)
	ReloadFiles(ctx context.Context, reload func(context.Context) error) (schema.ReloadReport, error)
	NotStarted(s postgres.Settings, why string, log []string) (blamed []string, err error)
	ReserveTimeline(next schema.Timeline) error
	Promote(ctx context.Context) error
	Checkpoint(ctx context.Context) error
	EnsureRoles(ctx context.Context) error
	SetSecrets(s postgres.Secrets) error
	HeedPasswords(ctx context.Context, from *postgres.Upstream) (settled bool, err error)
	EnsureSlots(ctx context.Context, want []postgres.Slot) error
	EnsurePermanentSlots(ctx context.Context, want map[string]schema.PermanentSlot) error
	Identify(ctx context.Context, u postgres.Upstream) (postgres.Identity, error)
	UpstreamHistory(ctx context.Context, u postgres.Upstream) (postgres.History, error)
	LocalEnd(ctx context.Context, d postgres.DataDir) (schema.LSN, error)
}

// Deps are the parts that main puts together.
type Deps struct {
	Lock      Lock
	Documents Documents
	Gossip    Gossip
	Launcher  Launcher
	Server    Server
	// Register announces the member's role in Consul's service catalogue; nil announces nothing.
	Register func(ctx context.Context, role schema.Role) error
	// Refused reports an error of Lock or Documents after which nothing was changed, for certain.
	Refused func(error) bool
	// SessionGone reports an error of RenewSession that says that there is no such session.
	SessionGone func(error) bool
	// Now reads CLOCK_BOOTTIME.
	Now func() schema.Instant
}

// Runner makes launch.Client the runner of PostgreSQL's tools.
type Runner struct{ Client *launch.Client }

// Run implements postgres.Runner.
func (r Runner) Run(ctx context.Context, c postgres.Command) (postgres.Result, error) {
	res, err := r.Client.RunWait(ctx, launch.RunRequest{Tool: c.Tool, Args: c.Args, Env: c.Env, Stdin: c.Stdin})
	return postgres.Result{ExitCode: res.ExitCode, Output: res.Output}, err
}
