package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
	"howdah/sidecar/launch"
	"howdah/sidecar/postgres"
)

// actor carries out one action, with the state as it was when the action was planned.
type actor struct {
	s       *Sidecar
	config  schema.ClusterConfig
	state   schema.ClusterState
	data    postgres.DataDir
	running bool
	sql     decide.SQL
	// timeline is the newest one that this data directory is known to have been on.
	timeline schema.Timeline
}

// run carries out a and says how it ended. Every action is bounded by its own Timeout.
func (x actor) run(ctx context.Context, a decide.Action) decide.Outcome {
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Timeout)
		defer cancel()
	}
	out := decide.Outcome{Action: a, StartedAt: x.s.d.Now(), Session: ""}
	var err error
	switch a.Kind.Slot() {
	case decide.SlotLock:
		out.View, err = x.lock(ctx, a)
	case decide.SlotSession:
		out.Session, err = x.session(ctx, a)
	case decide.SlotDocs:
		err = x.document(ctx, a)
	case decide.SlotPostgres, decide.SlotLook:
		err = x.postgres(ctx, a, &out)
	case decide.SlotFence:
		err = x.s.d.Launcher.Stop(ctx, launch.StopRequest{Mode: launch.StopImmediate})
	case decide.SlotArm:
		err = x.arm(ctx, a)
	case decide.SlotPromises:
		out.Promises = x.promises(ctx, a)
	}
	switch {
	case err == nil:
		out.Result = decide.OK
		return out
	case a.Kind == decide.RenewSession && !x.s.d.SessionGone(err):
		out.Result = decide.Unclear
	case x.s.d.Refused(err), errors.Is(err, postgres.ErrCannotRewind):
		out.Result = decide.Refused
	default:
		out.Result = decide.Unclear
	}
	out.Error = err.Error()
	out.Session = "" // refused means that there is none; an unclear one is not looked at
	return out
}

// lock carries out an action on the leader key.
func (x actor) lock(ctx context.Context, a decide.Action) (schema.LockView, error) {
	k := x.s.d.Lock
	switch a.Kind {
	case decide.ReadLeader:
		return k.ReadLeader(ctx)
	case decide.Seize:
		if a.At.Held() {
			return k.TakeOver(ctx, a.At, a.Leader.Session, a.Leader)
		}
		return k.Acquire(ctx, a.At, a.Leader.Session, a.Leader)
	case decide.Renew:
		return k.Renew(ctx, a.At, a.Leader)
	case decide.Release:
		return k.Release(ctx, a.At, a.Leader)
	}
	return schema.LockView{}, unknownKind(a)
}

// session makes or renews the session. A renewal that is refused means that the session is gone.
func (x actor) session(ctx context.Context, a decide.Action) (string, error) {
	if a.Kind == decide.OpenSession {
		return x.s.d.Lock.NewSession(ctx, x.config.SessionTTL.D(), "howdah/"+x.s.o.Cluster+"/"+x.s.o.Name)
	}
	return a.Session, x.s.d.Lock.RenewSession(ctx, a.Session)
}

// document changes one of the other keys.
func (x actor) document(ctx context.Context, a decide.Action) error {
	k := x.s.d.Documents
	switch a.Kind {
	case decide.PutInitialize:
		return k.PutInitialize(ctx, a.Initialize, a.Index)
	case decide.PutHistory:
		h := x.state.History.Value
		a.Reign.At = time.Now().UTC()
		h.Reigns = append(h.Reigns[max(0, len(h.Reigns)-keptReigns):len(h.Reigns):len(h.Reigns)], a.Reign)
		return k.PutHistory(ctx, h, a.Index)
	case decide.DropRequest:
		return k.DeleteRequest(ctx, a.Index)
	}
	return unknownKind(a)
}

// keptReigns is how many reigns the history key keeps: Consul bounds a value to 512 KiB.
const keptReigns = 500

// promises asks every member at once. Who does not answer is missing from the result.
func (x actor) promises(ctx context.Context, a decide.Action) []schema.PromiseReply {
	var mu sync.Mutex
	var wg sync.WaitGroup
	replies := []schema.PromiseReply{}
	for _, name := range a.Members {
		wg.Go(func() {
			r, err := x.s.d.Gossip.AskPromise(ctx, name, schema.PromiseRequest{From: x.s.o.Name, Epoch: a.Epoch, Lease: a.Lease, Mark: a.Mark(name), Report: a.Kind == decide.AskReports})
			if err != nil {
				r = schema.PromiseReply{Member: name, Why: "no answer: " + err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			replies = append(replies, r)
		})
	}
	wg.Wait()
	return replies
}

// postgres carries out a long action on the data directory or the postmaster.
func (x actor) postgres(ctx context.Context, a decide.Action, out *decide.Outcome) error {
	srv := x.s.d.Server
	switch a.Kind {
	case decide.Initdb:
		return x.initdb(ctx, out)
	case decide.Adopt:
		return x.adopt(ctx, out)
	case decide.Restore:
		return x.restore(ctx, out)
	case decide.Clone:
		return x.clone(ctx, a)
	case decide.Rewind:
		return x.rewind(ctx, a)
	case decide.StartPrimary:
		settings := postgres.Settings{Role: schema.RolePrimary, Config: x.config, SynchronousStandbyNames: a.Sync.Setting(), Closed: a.Closed}
		return x.start(ctx, launch.StartRequest{Role: schema.RolePrimary, Epoch: a.Epoch, Deadline: a.Deadline, Synchronous: x.config.Synchronous()}, settings)
	case decide.SetSync:
		return x.setSync(ctx, a)
	case decide.Reconfigure:
		s, err := x.settings(decide.Standing{Role: a.Role, From: a.From, Sync: a.Sync})
		if err != nil {
			return err
		}
		return x.reconfigure(ctx, s)
	case decide.StartStandby:
		up, err := x.upstream(a.From)
		if err != nil {
			return err
		}
		return x.start(ctx, launch.StartRequest{Role: schema.RoleStandby}, postgres.Settings{Role: schema.RoleStandby, Config: x.config, Upstream: up})
	case decide.Follow:
		return x.follow(ctx, a)
	case decide.CheckHistory:
		follows, err := x.checkHistory(ctx, a)
		out.Follows = follows
		return err
	case decide.Promote:
		return x.promote(ctx, a)
	case decide.Checkpoint:
		return srv.Checkpoint(ctx)
	case decide.StopFast:
		if err := x.s.d.Launcher.Stop(ctx, launch.StopRequest{Mode: launch.StopFast}); err != nil {
			return err
		}
		return x.await(ctx, func(st launch.Status) (bool, error) { return gone(st), nil })
	}
	return unknownKind(a)
}

func (x actor) arm(ctx context.Context, a decide.Action) error {
	return x.s.d.Launcher.Arm(ctx, launch.Lease{Epoch: a.Epoch, Deadline: a.Deadline, Synchronous: x.config.Synchronous()})
}

// setSync puts a set into effect. It has succeeded only once every commit surely goes by it.
func (x actor) setSync(ctx context.Context, a decide.Action) error {
	err := x.reconfigure(ctx, postgres.Settings{Role: schema.RolePrimary, Config: x.config, SynchronousStandbyNames: a.Sync.Setting()})
	if err != nil || a.Sync.Need == 0 {
		return err
	}
	return x.s.d.Server.AwaitSynchronous(ctx)
}

// promote may be called again while the promotion is under way or done: it changes nothing that a standby needs and a primary must not have.
func (x actor) promote(ctx context.Context, a decide.Action) error {
	srv := x.s.d.Server
	// The set must be in force before the first commit; a standby's does nothing until then.
	waits := true
	if a.Sync.Need > 0 {
		var err error
		if waits, err = srv.Synchronous(ctx); err != nil {
			return err
		}
	}
	if a.Sync.Need > 0 || x.config.Synchronous() {
		if err := errors.Join(srv.SetSynchronousStandbys(a.Sync.Setting()), x.s.d.Launcher.Reload(ctx)); err != nil {
			return err
		}
	}
	if !waits {
		if err := srv.AwaitSynchronous(ctx); err != nil {
			return err
		}
	}
	if err := x.arm(ctx, a); err != nil {
		return fmt.Errorf("the launcher must know the deadline before a promotion: %w", err)
	}
	if err := srv.ReserveTimeline(a.Timeline); err != nil {
		return err
	}
	return srv.Promote(ctx)
}

func (x actor) initdb(ctx context.Context, out *decide.Outcome) error {
	if err := x.s.d.Server.Initdb(ctx, x.config); err != nil {
		return err
	}
	found, err := x.s.d.Server.Inspect(ctx)
	out.SystemID = found.SystemID()
	return err
}

// adopt takes the data directory over. What its own configuration says about the whole cluster goes to Consul first,
// while it still can be told from what howdah writes.
func (x actor) adopt(ctx context.Context, out *decide.Outcome) error {
	config := x.config
	if !x.state.Config.Exists {
		var err error
		if config, err = x.s.d.Server.Existing(ctx, config); err != nil {
			return err
		}
		put, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := x.s.d.Documents.PutConfig(put, config, 0); err != nil {
			return err
		}
	}
	if err := x.s.d.Server.Adopt(ctx, config); err != nil {
		return err
	}
	found, err := x.s.d.Server.Inspect(ctx)
	out.SystemID = found.SystemID()
	return err
}

func (x actor) restore(ctx context.Context, out *decide.Outcome) error {
	if err := x.s.d.Server.Restore(ctx); err != nil {
		return err
	}
	found, err := x.s.d.Server.Inspect(ctx)
	out.SystemID = found.SystemID()
	return err
}

func (x actor) clone(ctx context.Context, a decide.Action) error {
	from, err := x.upstream(a.From)
	if err != nil {
		return err
	}
	holder, err := x.upstream(a.Holder)
	if err != nil {
		return err
	}
	id := x.state.Initialize.Value.SystemID
	if id == "" && from.Remote { // the first copy: the cluster takes it from there
		found, err := x.s.d.Server.Identify(ctx, *from)
		if err != nil {
			return err
		}
		id = found.SystemID
	}
	r := postgres.CloneRequest{
		From: *from, SystemID: id,
		Settings: postgres.Settings{Role: schema.RoleStandby, Config: x.config, Upstream: holder},
	}
	if a.RemoveFirst {
		r.RemoveFirst = &postgres.RemoveFirst{
			Confirm: func(ctx context.Context) error { return x.stillServes(ctx, a) },
			Removed: func() { wake(x.s.loop.wakeInspect) },
		}
	}
	err = x.s.d.Server.Clone(ctx, r)
	if a.Keeps != "" && errors.Is(err, postgres.ErrDiskFull) {
		return fmt.Errorf("%w; the old directory is not removed first: %s", err, a.Keeps)
	}
	return err
}

func (x actor) rewind(ctx context.Context, a decide.Action) error {
	up, err := x.upstream(a.From)
	if err != nil {
		return err
	}
	return x.s.d.Server.Rewind(ctx, postgres.RewindRequest{
		From: *up, SystemID: x.state.Initialize.Value.SystemID,
		Settings: postgres.Settings{Role: schema.RoleStandby, Config: x.config, Upstream: up},
	})
}

// start configures Postgres, starts it and waits until it accepts connections or is gone again.
func (x actor) start(ctx context.Context, r launch.StartRequest, s postgres.Settings) error {
	if _, err := x.s.d.Server.Configure(ctx, s); err != nil {
		return err
	}
	if err := x.s.d.Launcher.Start(ctx, r); err != nil {
		return err
	}
	for {
		probe, cancel := context.WithTimeout(ctx, time.Second)
		_, err := x.s.d.Server.Probe(probe)
		cancel()
		if err == nil {
			x.remember(x.s.d.Server.Started(s))
			return nil
		}
		st, serr := x.s.d.Launcher.Status(ctx)
		if serr == nil && gone(st) {
			return x.notStarted(st, s)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres does not accept connections yet: %w", errors.Join(ctx.Err(), err))
		case <-time.After(fastProbe):
		}
	}
}

// notStarted says why a start failed, and has the next one leave out what is new since the last that worked. One that was
// stopped meanwhile says nothing about its configuration.
func (x actor) notStarted(st launch.Status, s postgres.Settings) error {
	err := fmt.Errorf("postgres did not start: %s; its last words: %s", st.ExitDetail, lastWords(st.LastLog))
	if st.Process != launch.ProcessCrashed {
		return err
	}
	blamed, berr := x.s.d.Server.NotStarted(s, st.ExitDetail, st.LastLog)
	x.remember(berr)
	if len(blamed) > 0 {
		return fmt.Errorf("%w; the next start leaves out what is new in the configuration: %s", err, strings.Join(blamed, ", "))
	}
	return err
}

// remember logs that something could not be remembered: it costs a fallback and no more.
func (x actor) remember(err error) {
	if err != nil {
		x.s.log.Warn("which configuration works could not be remembered", zap.Error(err))
	}
}

// settings are the settings of a running Postgres that stands so.
func (x actor) settings(st decide.Standing) (postgres.Settings, error) {
	s := postgres.Settings{Role: st.Role, Config: x.config, SynchronousStandbyNames: st.Sync.Setting()}
	var err error
	if st.Role == schema.RoleStandby {
		s.Upstream, err = x.upstream(st.From)
	}
	return s, err
}

func (x actor) follow(ctx context.Context, a decide.Action) error {
	up, err := x.upstream(a.From)
	if err != nil {
		return err
	}
	return x.reconfigure(ctx, postgres.Settings{Role: schema.RoleStandby, Config: x.config, Upstream: up})
}

// reconfigure writes the configuration and has a running Postgres read it again if it has changed.
func (x actor) reconfigure(ctx context.Context, s postgres.Settings) error {
	return x.s.d.Server.Apply(ctx, s, x.s.d.Launcher.Reload)
}

// checkHistory compares what the local WAL holds with the history of the server at a.From.
func (x actor) checkHistory(ctx context.Context, a decide.Action) (bool, error) {
	up, err := x.upstream(a.From)
	if err != nil {
		return false, err
	}
	id, err := x.s.d.Server.Identify(ctx, *up)
	if err != nil {
		return false, err
	}
	if own := x.data.SystemID(); id.SystemID != own {
		return false, fmt.Errorf("the server at %s has the system identifier %s, ours is %s: check its address", a.From.Address, id.SystemID, own)
	}
	history, err := x.s.d.Server.UpstreamHistory(ctx, *up)
	if err != nil {
		return false, err
	}
	timeline, end := x.data.Timeline, schema.LSN(0)
	if x.running && x.sql.Answers() {
		// What was received and not replayed may be the beginning of a record that its sender never finished.
		// Without a receiver, SQL knows the timeline of the last restartpoint only.
		timeline, end = max(x.timeline, x.sql.Timeline), x.sql.ReplayLSN
	} else if end, err = x.s.d.Server.LocalEnd(ctx, x.data); err != nil {
		return false, err
	}
	ok, _ := postgres.CanFollow(timeline, end, history)
	return ok, nil
}

// await waits for the launcher's status to be as wanted.
func (x actor) await(ctx context.Context, wanted func(launch.Status) (bool, error)) error {
	var seq uint64
	for {
		st, err := x.s.d.Launcher.WaitStatus(ctx, seq)
		if err != nil {
			return err
		}
		if ok, err := wanted(st); ok || err != nil {
			return err
		}
		seq = st.Seq
	}
}

func gone(st launch.Status) bool {
	return st.Process == launch.ProcessStopped || st.Process == launch.ProcessCrashed || st.Process == launch.ProcessFenced
}

func lastWords(lines []string) string {
	if len(lines) == 0 {
		return "none"
	}
	return lines[len(lines)-1]
}

func unknownKind(a decide.Action) error { return fmt.Errorf("no part of the sidecar does %q", a.Kind) }

// upstream splits the address of a member, or of the remote primary; nil if there is none to follow yet.
func (x actor) upstream(u decide.Upstream) (*postgres.Upstream, error) {
	if u.Address == "" {
		return nil, nil
	}
	host, text, err := net.SplitHostPort(u.Address)
	if err != nil {
		return nil, fmt.Errorf("member %s publishes the address %q: want host:port: %w", u.Member, u.Address, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("member %s publishes the address %q: its port is not a number", u.Member, u.Address)
	}
	up := &postgres.Upstream{Member: u.Member, Host: host, Port: int(port)}
	if u.Member == decide.RemotePrimary {
		up.Remote, up.Slot, up.SSLMode = true, x.config.Follow.Slot, x.config.Follow.SSLMode
	}
	return up, nil
}

func joinHostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
