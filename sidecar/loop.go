package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
	"howdah/sidecar/launch"
	"howdah/sidecar/postgres"
)

// tick bounds how late the loop notices that time has passed.
const tick = 50 * time.Millisecond

// loop owns the state of a sidecar. Its fields below mail belong to the goroutine of run alone.
type loop struct {
	s      *Sidecar
	log    *zap.Logger
	keeper *keeper
	ctx    context.Context // ends with Run
	acting sync.WaitGroup
	pace   probePace

	mail                   chan func()
	wakeProbe, wakeInspect chan struct{}
	wakeUpkeep, wakeFiles  chan struct{}

	// saved is the record on disk, saving the one that was last given to the keeper.
	saved, saving decide.Record

	obs    decide.Observation
	memory decide.Memory
	plan   decide.Plan
	// launched and found are the raw forms of obs.Process and obs.Data.
	launched launch.Status
	found    postgres.DataDir
	replicas []postgres.Replica
	pending  []string // settings that wait for a restart

	passwords passwords

	reignCtx  context.Context // ends with the reign
	endReign  context.CancelFunc
	published schema.Status
	toldAt    schema.Instant
	toldOrder decide.Ordered
	said      string
}

// post has the loop run f. It reports false if the loop has ended.
func (l *loop) post(f func()) bool {
	select {
	case l.mail <- f:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// run is the loop. It ends with ctx. It never waits for the disk.
func (l *loop) run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-l.mail:
			f()
			l.drain()
		case <-l.s.d.Gossip.Changes():
		case <-t.C:
		}
		l.turn()
	}
}

// drain runs what else has been posted, so that one turn sees all of it.
func (l *loop) drain() {
	for {
		select {
		case f := <-l.mail:
			f()
		default:
			return
		}
	}
}

// turn is one decision and what follows from it.
func (l *loop) turn() {
	l.obs.Now = l.s.d.Now()
	l.obs.Peers = slices.DeleteFunc(l.s.d.Gossip.Peers(), func(p schema.Peer) bool { return p.Kind != "member" })
	plan, memory := decide.DecideSaved(l.obs, l.memory, l.saved)
	l.obs.Done = nil
	l.plan, l.memory = plan, memory
	l.forgetOrder()
	l.remember()
	l.keepReignContext()
	for _, e := range plan.Events {
		l.s.note(e)
	}
	for _, a := range plan.Actions {
		l.begin(a)
	}
	l.setPace()
	l.publish()
	l.s.turned.Store(int64(l.obs.Now))
}

// remember has the record written if it has changed; decide.DecideSaved keeps back what rests on it until then.
func (l *loop) remember() {
	l.keeper.every.Store(int64(l.obs.Config.HangBound() / 3))
	if r := l.memory.Record; !r.Equal(l.saved) && !r.Equal(l.saving) {
		l.saving = r
		l.keeper.keep(r)
	}
}

// keepRecord runs the keeper.
func (l *loop) keepRecord(ctx context.Context) error {
	return l.keeper.run(ctx, l.s.d.Now,
		func(at schema.Instant) { l.post(func() { l.obs.DiskAt = at }) },
		func(r decide.Record) { l.post(func() { l.saved = r }) })
}

// keepReignContext cancels what was begun under a reign that is over.
func (l *loop) keepReignContext() {
	switch {
	case l.memory.Reign.Active && l.reignCtx == nil:
		l.reignCtx, l.endReign = context.WithCancel(l.ctx)
	case !l.memory.Reign.Active && l.reignCtx != nil:
		l.endReign()
		l.reignCtx, l.endReign = nil, nil
	}
}

// begin carries out a in its slot, and has the loop learn the outcome.
func (l *loop) begin(a decide.Action) {
	slot := a.Kind.Slot()
	l.obs.Busy[slot] = a.Kind
	ctx := l.ctx
	switch a.Kind {
	case decide.StartPrimary, decide.Promote, decide.Checkpoint:
		ctx = l.reignCtx
	}
	if quiet := a.Kind == decide.Renew || a.Kind == decide.Arm || a.Kind == decide.RenewSession || a.Kind == decide.ReadLeader; !quiet {
		l.log.Info(a.String(), zap.String("why", a.Why), zap.Uint64("epoch", uint64(l.memory.Record.Epoch)))
	}
	do := actor{s: l.s, config: l.obs.Config, state: l.obs.State, data: l.found, running: l.obs.Process.State == decide.ProcessRunning, sql: l.obs.SQL,
		timeline: l.memory.Timeline}
	l.acting.Go(func() {
		out := do.run(ctx, a)
		out.EndedAt = l.s.d.Now()
		if slot != decide.SlotPostgres && slot != decide.SlotFence {
			l.post(func() { l.learn(out) })
			return
		}
		// What follows rests on how Postgres is now, not on how it was before.
		ask, cancel := context.WithTimeout(l.ctx, 500*time.Millisecond)
		defer cancel()
		st, err := l.s.d.Launcher.Status(ask)
		l.post(func() {
			l.learn(out)
			l.seeLauncher(st, err)
		})
	})
}

// learn takes in an outcome.
func (l *loop) learn(out decide.Outcome) {
	l.obs.Finish(out)
	if out.Error != "" {
		l.log.Warn(out.Action.String()+" failed", zap.String("result", string(out.Result)), zap.String("error", out.Error))
	}
	if out.Action.Kind.Slot() == decide.SlotPostgres {
		wake(l.wakeInspect)
		wake(l.wakeFiles)
	}
}

// promise answers a primary that has lost Consul. It is called by the detector.
func (l *loop) promise(r schema.PromiseRequest) schema.PromiseReply {
	reply := make(chan schema.PromiseReply, 1)
	ok := l.post(func() {
		l.obs.Now = l.s.d.Now()
		var p schema.PromiseReply
		p, l.memory = decide.Promise(l.obs, l.memory, r)
		if !p.Given {
			l.log.Info("promise refused", zap.String("to", r.From), zap.String("why", p.Why))
		}
		reply <- p
	})
	if !ok {
		return schema.PromiseReply{Member: l.s.o.Name, Why: "the sidecar is ending"}
	}
	select {
	case p := <-reply:
		return p
	case <-l.ctx.Done():
		return schema.PromiseReply{Member: l.s.o.Name, Why: "the sidecar is ending"}
	}
}

// wake makes one pending wake-up of c.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Switchover asks for a planned switchover to member to, or to the best candidate if to is empty.
// The request is checked here so that whoever asks learns at once why it cannot be.
func (s *Sidecar) Switchover(ctx context.Context, to string) error {
	type answer struct {
		req schema.Request
		err error
	}
	c := make(chan answer, 1)
	if !s.running.Load() {
		return errors.New("the sidecar is still starting")
	}
	if !s.loop.post(func() {
		l := s.loop
		leader := l.obs.Lock.Leader
		switch {
		case leader.Phase == schema.PhaseFollowing:
			c <- answer{err: fmt.Errorf("this is a standby cluster of %s: it has no primary to switch over from", leader.Follows)}
		case !l.obs.Lock.Held() || leader.Phase != schema.PhaseServing:
			c <- answer{err: fmt.Errorf("there is no primary at the moment")}
		case leader.Member == to:
			c <- answer{err: fmt.Errorf("%s is the primary already", to)}
		case l.obs.State.Request.Exists:
			c <- answer{err: fmt.Errorf("another request is under way: %s to %s", l.obs.State.Request.Value.Kind, l.obs.State.Request.Value.To)}
		default:
			err := l.unready(to)
			c <- answer{req: schema.Request{ID: newID(), Kind: schema.RequestSwitchover, From: leader.Member, To: to, At: time.Now()}, err: err}
		}
	}) {
		return context.Canceled
	}
	select {
	case a := <-c:
		if a.err != nil {
			return a.err
		}
		return s.d.Documents.PutRequest(ctx, a.req, 0)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unready returns why member to may not be switched to, as far as this member can see.
func (l *loop) unready(to string) error {
	if to == "" || to == l.s.o.Name {
		return nil // the primary knows best, and checks again
	}
	if why := decide.Unready(&l.obs, l.memory, to); why != "" {
		return fmt.Errorf("%s", why)
	}
	return nil
}
