package sidecar

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
	"howdah/sidecar/launch"
	"howdah/sidecar/postgres"
)

// watchConsul posts every answer of the watch, and every failure.
func (l *loop) watchConsul(ctx context.Context) {
	l.s.d.Documents.WatchState(ctx, func(st schema.ClusterState, err error) {
		l.post(func() { l.seeState(st, err) })
	})
}

// seeState takes in what the watch said.
func (l *loop) seeState(st schema.ClusterState, err error) {
	if err != nil {
		l.obs.SeeConsul(schema.Never, err.Error())
		return
	}
	l.obs.SeeConsul(st.AnsweredAt, "")
	l.obs.SeeState(st)
	if init := st.Initialize.Value; (l.obs.Init == schema.InitExisting || l.obs.Init == schema.InitRestore) && init.SystemID != "" {
		l.log.Info("--init "+l.obs.Init+" says nothing any more: the cluster is initialised", zap.String("mode", init.Mode), zap.String("by", init.By),
			zap.String("system_id", init.SystemID))
		l.obs.Init = ""
	}
	if c := st.Config; c.Exists {
		if err := c.Value.Validate(); err != nil {
			l.log.Error("the cluster configuration in consul is not valid, the last valid one stays in force", zap.Error(err))
			return
		}
		if len(l.obs.Config.Changes(c.Value)) > 0 {
			wake(l.wakeFiles)
		}
		l.obs.Config = c.Value
	}
}

// watchLauncher posts every change of the launcher's status, and notices when it no longer answers.
func (l *loop) watchLauncher(ctx context.Context) {
	var seq uint64
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		st, err := l.s.d.Launcher.WaitStatus(wait, seq)
		cancel()
		if err != nil && errors.Is(err, context.DeadlineExceeded) { // nothing new, or nobody there
			ask, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			st, err = l.s.d.Launcher.Status(ask)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		l.post(func() { l.seeLauncher(st, err) })
		if err == nil {
			seq = st.Seq
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// walGone is what a standby's log says when its upstream has removed WAL that it needs
// (src/backend/access/transam/xlogreader.c and walsender.c: "requested WAL segment %s has already been removed").
const (
	walGone = "has already been removed"
	walLost = "could not receive data from WAL stream"
)

// seeLauncher takes in what the launcher said. Silence is "unknown".
func (l *loop) seeLauncher(st launch.Status, err error) {
	now := l.s.d.Now()
	old := l.obs.Process
	if err != nil {
		if old.State != decide.ProcessUnknown {
			l.obs.Process.State, l.obs.Process.Since = decide.ProcessUnknown, now
		}
		l.obs.Process.Detail = err.Error()
		return
	}
	l.launched = st
	p := decide.Process{
		State: decide.ProcessState(st.Process), At: st.Now, Since: old.Since, Armed: st.Armed, Epoch: st.Epoch, Deadline: st.Deadline, Detail: st.ExitDetail,
		Ending: st.Ending,
	}
	if l.obs.SQL.InRecovery || !l.obs.SQL.Answers() {
		for _, line := range st.LastLog {
			p.WALMissing = p.WALMissing || strings.Contains(line, walLost) && strings.Contains(line, walGone)
		}
	}
	if p.State != old.State || p.Gone() && st.StartedAt != l.pace.startedAt {
		p.Since = now
		l.log.Info("postgres process", zap.String("state", string(p.State)), zap.Int("pid", st.PID), zap.String("detail", p.Detail))
		wake(l.wakeInspect)
		wake(l.wakeProbe)
	}
	l.pace.startedAt = st.StartedAt
	if p.State != decide.ProcessRunning && p.State != decide.ProcessStopping {
		l.obs.SQL = decide.SQL{State: decide.SQLUnknown}
		l.pending = nil // the next start reads everything
	}
	if p.State == decide.ProcessFenced && old.State != decide.ProcessFenced {
		l.s.note(schema.Event{Kind: schema.EventFenced, Epoch: st.Epoch, Detail: p.Detail})
	}
	l.obs.Process = p
}

// watchData inspects the data directory whenever something may have changed it, and every few seconds
// while no Postgres runs.
func (l *loop) watchData(ctx context.Context) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		began := l.s.d.Now()
		found, err := l.s.d.Server.Inspect(ask)
		cancel()
		l.post(func() { l.seeData(began, found, err) })
		select {
		case <-ctx.Done():
			return
		case <-l.wakeInspect:
		case <-t.C:
		}
	}
}

// seeData takes in an inspection. What cannot be read is unknown, never empty (I5).
func (l *loop) seeData(at schema.Instant, found postgres.DataDir, err error) {
	d := decide.Data{At: at, SystemID: found.SystemID(), StandbySignal: found.StandbySignal}
	var major *postgres.MajorError
	switch {
	case errors.As(err, &major):
		d.State, d.Detail = decide.DataForeign, err.Error()
	case err != nil:
		d.State, d.Detail = decide.DataUnknown, err.Error()
	case found.State == postgres.DirAbsent || found.State == postgres.DirEmpty:
		d.State = decide.DataEmpty
	case found.State == postgres.DirForeign:
		d.State, d.Detail = decide.DataForeign, l.s.o.DataDir+" holds something that is not a PostgreSQL data directory"
	case found.State == postgres.DirIncomplete:
		d.State, d.Removed = decide.DataIncomplete, found.Removed
	default:
		d.State = decide.DataValid
		d.Timeline = found.Timeline
		d.RedoLSN = found.Control.RedoLSN
		d.CanRewind, d.RewindWhy = postgres.CanRewind(found)
		if found.Control.CleanShutdown() {
			d.ShutdownLSN = found.Control.ShutdownEnd()
		}
	}
	l.found = found
	l.obs.Data = d
}

// probePace says how often to probe; it is written by the loop and read by watchSQL.
type probePace struct {
	every     atomic.Int64   // nanoseconds; zero: not at all
	timeout   atomic.Int64   // nanoseconds
	startedAt schema.Instant // of the postmaster last seen; the loop's alone
}

const fastProbe = 25 * time.Millisecond

// setPace has Postgres probed as often as the moment needs.
func (l *loop) setPace() {
	lease := l.obs.Config.Lease.D()
	every := schema.RenewInterval(lease)
	switch {
	case l.obs.Process.Gone():
		every = 0
	case l.plan.Hurry, !l.obs.SQL.Answers() && l.s.d.Now().Sub(l.obs.Process.Since) < 5*time.Second,
		l.memory.Reign.Active && l.memory.Reign.Phase != schema.PhaseFollowing && l.obs.SQL.InRecovery:
		every = fastProbe
	}
	l.pace.timeout.Store(int64(lease / 3))
	if old := l.pace.every.Swap(int64(every)); old != int64(every) {
		wake(l.wakeProbe)
	}
}

// watchSQL probes Postgres. A probe never blocks the loop.
func (l *loop) watchSQL(ctx context.Context) {
	for {
		every := time.Duration(l.pace.every.Load())
		idle := every == 0
		if idle {
			every = time.Minute
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wakeProbe:
			if time.Duration(l.pace.every.Load()) == 0 {
				continue
			}
		case <-time.After(every):
			if idle {
				continue
			}
		}
		began := l.s.d.Now()
		ask, cancel := context.WithTimeout(ctx, time.Duration(l.pace.timeout.Load()))
		p, err := l.s.d.Server.Probe(ask)
		cancel()
		l.post(func() { l.seeSQL(began, p, err) })
	}
}

// seeSQL takes in a probe.
func (l *loop) seeSQL(at schema.Instant, p postgres.Probe, err error) {
	if l.obs.Process.Gone() {
		return // it is about a Postgres that is no more
	}
	old := l.obs.SQL
	if err != nil {
		l.obs.SQL = decide.SQL{State: decide.SQLUnknown, At: at, Failing: old.Failing}
		switch {
		case postgres.Answered(err):
			l.obs.SQL.Failing = schema.Never
		case old.Failing == schema.Never:
			l.obs.SQL.Failing = at
		}
		switch {
		case errors.Is(err, postgres.ErrNotReady):
			l.obs.SQL.State = decide.SQLStarting
		case errors.Is(err, postgres.ErrNotListening):
			l.obs.SQL.State = decide.SQLRefused
		case errors.Is(err, postgres.ErrPassword):
			if l.passwords.login != err.Error() {
				l.log.Error("the superuser's password is refused", zap.Error(err))
			}
			l.passwords.login = err.Error()
		}
		return
	}
	l.passwords.login = ""
	s := decide.SQL{
		State: decide.SQLOK, At: at, InRecovery: p.InRecovery, SystemID: p.SystemID, Timeline: p.Timeline, LSN: p.LSN,
		ReplayLSN: p.ReplayLSN, Streaming: p.Streaming(), Version: p.ServerVersionNum, WALWaits: p.WALWaits, Transactions: p.Transactions, Oldest: p.OldestTransaction,
	}
	for _, r := range p.Replicas {
		s.Replicas = append(s.Replicas, decide.Replica{Name: r.Name, Flush: r.FlushLSN, Streaming: r.State == "streaming"})
	}
	if p.Receiver.Host != "" {
		s.From = joinHostPort(p.Receiver.Host, p.Receiver.Port)
	}
	l.obs.SQL = s
	l.replicas = p.Replicas
	l.pending = p.PendingRestart[:min(len(p.PendingRestart), schema.MaxPendingRestart)]
}
