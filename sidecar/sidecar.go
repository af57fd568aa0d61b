package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// Options say which member this is.
type Options struct {
	Cluster   string
	Name      string
	DataDir   string
	Addresses schema.Addresses
	Tags      schema.Tags
	// Bootstrap is written to Consul as the cluster configuration where there is none yet.
	Bootstrap schema.ClusterConfig
	// Init is what becomes of a cluster that is not initialised: schema.InitNew (also if empty), schema.InitExisting or
	// schema.InitRestore.
	Init string
	// RemoveFirst lets the data directory go before the clone that replaces it is made, where two have no room.
	RemoveFirst bool
	Version     string
	// Instance is made anew at each start; empty has New make one.
	Instance string
	Log      *zap.Logger
}

// Sidecar is one member's sidecar. Make it by New, then Run it.
type Sidecar struct {
	o    Options
	d    Deps
	log  *zap.Logger
	loop *loop

	instance string
	events   *journal
	snapshot atomic.Pointer[schema.ClusterStatus]
	// candidates are how this member judges them all.
	candidates atomic.Pointer[[]schema.Candidate]
	running    atomic.Bool  // Run has set the loop up
	turned     atomic.Int64 // schema.Instant of the last turn of the loop
}

// New checks o and takes the member's record. It starts nothing.
func New(o Options, d Deps) (*Sidecar, error) {
	if o.Name == "" || o.Cluster == "" {
		return nil, errors.New("a member needs a name and a cluster")
	}
	if err := o.Bootstrap.Validate(); err != nil {
		return nil, fmt.Errorf("bootstrap configuration: %w", err)
	}
	for key, a := range map[string]string{"postgres address": o.Addresses.Postgres, "API address": o.Addresses.API} {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("%s %q: want host:port", key, a)
		}
	}
	record, rec, err := openRecord(o.DataDir, o.Cluster, o.Name)
	if err != nil {
		return nil, err
	}
	s := &Sidecar{o: o, d: d, instance: cmp.Or(o.Instance, newID())}
	s.log = o.Log.With(zap.String("component", "sidecar"), zap.String("member", o.Name))
	s.events = openJournal(o.DataDir+".events.jsonl", s.log)
	s.loop = &loop{
		s: s, log: s.log, keeper: newKeeper(record), saved: rec, saving: rec, memory: decide.Memory{Record: rec},
		mail: make(chan func(), 64), wakeProbe: make(chan struct{}, 1), wakeInspect: make(chan struct{}, 1), wakeUpkeep: make(chan struct{}, 1),
		wakeFiles: make(chan struct{}, 1),
	}
	s.loop.obs = decide.Observation{
		Name: o.Name, Addresses: o.Addresses, Tags: o.Tags, Config: o.Bootstrap, Init: o.Init, RemoveFirst: o.RemoveFirst, Session: rec.Session,
		Data:    decide.Data{State: decide.DataUnknown, Detail: "not looked at yet"},
		Process: decide.Process{State: decide.ProcessUnknown, Detail: "not asked yet"},
		SQL:     decide.SQL{State: decide.SQLUnknown},
	}
	return s, nil
}

// Run keeps the member until ctx ends, or until it finds that it must not run at all. Postgres runs
// on: a sidecar that is started again in time finds it, its session and its lease.
func (s *Sidecar) Run(ctx context.Context) error {
	l := s.loop
	defer l.keeper.file.close()
	if err := s.settle(ctx); errors.Is(err, context.Canceled) {
		return nil
	} else if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	l.ctx = ctx
	s.running.Store(true)
	s.d.Gossip.HandlePromises(l.promise)
	g.Go(func() error { return l.run(ctx) })
	g.Go(func() error { return l.keepRecord(ctx) })
	g.Go(func() error { l.watchConsul(ctx); return nil })
	g.Go(func() error { l.watchLauncher(ctx); return nil })
	g.Go(func() error { l.watchData(ctx); return nil })
	g.Go(func() error { l.watchSQL(ctx); return nil })
	g.Go(func() error { l.watchFiles(ctx); return nil })
	g.Go(func() error { l.keepUp(ctx); return nil })
	go s.events.write(ctx) // not waited for: its disk may hang
	err := g.Wait()
	l.acting.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// SetTags changes the member's tags: decisions and the status heed them at once, the document in Consul soon after.
func (s *Sidecar) SetTags(tags schema.Tags) error {
	if !s.running.Load() || !s.loop.post(func() { s.loop.obs.Tags = tags; wake(s.loop.wakeUpkeep) }) {
		return errNotRunning
	}
	return nil
}

// settle waits for the launcher, ends what an earlier sidecar had begun on the data directory, and tidies up
// after it, before anything looks there.
func (s *Sidecar) settle(ctx context.Context) error {
	said := ""
	for {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		st, err := s.d.Launcher.Status(ask)
		if err == nil && st.Job != nil && st.Job.Running {
			s.log.Info("ending the job of an earlier sidecar", zap.String("tool", st.Job.Tool))
			err = s.d.Launcher.CancelJob(ask, st.Job.ID)
			if err == nil {
				err = fmt.Errorf("%s, begun by an earlier sidecar, still runs", st.Job.Tool)
			}
		}
		cancel()
		if err == nil {
			break
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			s.log.Warn("waiting for howdah launch; is it running, and is --launch-socket its --socket?", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	tidy, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.d.Server.FinishSwap(tidy); err != nil {
		return fmt.Errorf("data directory %s: %w", s.o.DataDir, err)
	}
	return nil
}
