package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

const (
	ledgerTable = "bench_ledger"
	directTable = "bench_direct"
	// healthyTimeout bounds the way back to a cluster in which all standbys stream: a clone takes a while.
	healthyTimeout = 2 * time.Minute
	// failoverTimeout bounds the wait for a promotion.
	failoverTimeout = 60 * time.Second
	// watchOld is how long the old primary is watched for writes, unless it is a standby sooner.
	watchOld = 40 * time.Second
	// steady is for how long commits must have gone on without a gap before a measurement begins, and after it is over.
	steady    = time.Second
	steadyGap = 250 * time.Millisecond
)

// settings are what a bench is made of.
type settings struct {
	// Howdah and Consul are the built binaries, BinDir holds PostgreSQL's programs.
	Howdah, Consul, BinDir string
	// Dir is an empty directory for all of it.
	Dir     string
	Members int
	Config  schema.ClusterConfig
	Log     *zap.Logger
}

// bench is a cluster with a real Consul and a writer.
type bench struct {
	set     settings
	consul  *agent
	cluster *local.Cluster
	router  target
	writer  *writer
	ids     atomic.Int64
	settled int                // how many of the writer's acknowledgements have been held against the table
	stop    context.CancelFunc // of the writer
	stopped chan struct{}
}

// open starts Consul and the cluster, waits until all standbys stream, and starts the writer.
func open(ctx context.Context, set settings) (*bench, error) {
	b := &bench{set: set}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) open(ctx context.Context) error {
	var err error
	if b.consul, err = newAgent(b.set.Consul, filepath.Join(b.set.Dir, "consul"), nil); err != nil {
		return err
	}
	if err := b.consul.start(); err != nil {
		return err
	}
	if err := b.consul.ready(ctx); err != nil {
		return err
	}
	var names []string
	for i := range b.set.Members {
		names = append(names, fmt.Sprintf("pg%d", i+1))
	}
	b.cluster, err = local.New(local.Options{
		Binary: b.set.Howdah, Dir: filepath.Join(b.set.Dir, "cluster"), BinDir: b.set.BinDir, Cluster: "bench", Members: names,
		Consul: b.consul.address, Bootstrap: &b.set.Config, Log: b.set.Log,
	})
	if err != nil {
		return err
	}
	if err := b.cluster.Start(ctx); err != nil {
		return err
	}
	if _, err := b.healthy(ctx); err != nil {
		return err
	}
	password, err := b.cluster.Secret("superuser")
	if err != nil {
		return err
	}
	b.router = target{address: b.cluster.Router().Listen, password: password}
	if err := b.tables(ctx); err != nil {
		return err
	}
	b.write(ctx)
	return nil
}

func (b *bench) tables(ctx context.Context) error {
	conn, err := b.router.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for _, table := range []string{ledgerTable, directTable} {
		if _, err := conn.Exec(ctx, "create table "+table+" (id bigint primary key, at timestamptz not null default clock_timestamp())"); err != nil {
			return err
		}
	}
	return nil
}

// write starts the writer through the router.
func (b *bench) write(ctx context.Context) {
	ctx, b.stop = context.WithCancel(ctx)
	b.settled = 0
	b.writer = &writer{to: b.router, table: ledgerTable, ids: &b.ids}
	b.stopped = make(chan struct{})
	go func() {
		defer close(b.stopped)
		b.writer.run(ctx)
	}()
}

// quiet stops the writer and waits for it.
func (b *bench) quiet() {
	if b.stop != nil {
		b.stop()
		<-b.stopped
	}
}

// close ends everything. The data are of no use: all is killed.
func (b *bench) close() error {
	b.quiet()
	var errs []error
	if b.cluster != nil {
		errs = append(errs, b.cluster.Kill())
	}
	if b.consul != nil {
		errs = append(errs, b.consul.stop())
	}
	return errors.Join(errs...)
}

// healthy waits until one member serves and all others stream from it.
func (b *bench) healthy(ctx context.Context) (local.Look, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, healthyTimeout, fmt.Errorf("not so after %s", healthyTimeout))
	defer cancel()
	return b.cluster.Await(ctx, "a primary and all standbys streaming", local.Look.Healthy)
}

// flowing waits until the writer's commits have gone on for a while without a gap worth the name.
func (b *bench) flowing(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("commits do not go on after %s", failoverTimeout))
	defer cancel()
	began := boottime.Now()
	err := local.Poll(ctx, writeEvery, func() bool {
		now := boottime.Now()
		return now.Sub(steadySince(b.writer.ledger.tail(began), began, now, steadyGap)) >= steady
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.cluster.Look(context.WithoutCancel(ctx)))
	}
	return nil
}

// result is what one repetition of a fault showed.
type result struct {
	Fault   string        `json:"fault"`
	Victim  string        `json:"victim"`
	Gap     time.Duration `json:"gap"`
	Split   split         `json:"split"`
	Acked   int           `json:"acked"`
	Missing int           `json:"missing"`
	// Zombies are the writes that the old primary acknowledged directly after the new one's promotion, DirectBefore
	// those that it acknowledged up to then, which shows that the direct writers could write at all.
	Zombies      int            `json:"zombies"`
	DirectBefore int            `json:"direct_before"`
	Failover     bool           `json:"failover"`
	Errors       map[string]int `json:"errors,omitempty"`
	Promises     int            `json:"promises"`
	Events       []schema.Event `json:"events"`
	// Rejoin is from the fault until all standbys streamed again.
	Rejoin time.Duration `json:"rejoin"`
}

// once carries out one repetition of f, in a cluster that is healthy before and after it.
func (b *bench) once(ctx context.Context, f fault) (result, error) {
	look, err := b.healthy(ctx)
	if err != nil {
		return result{}, err
	}
	old := look.Primary()
	direct := startDirect(ctx, target{address: old.Addresses.Postgres, password: b.router.password}, &b.ids)
	defer direct.stop()
	if err := b.flowing(ctx); err != nil {
		return result{}, err
	}
	errorsBefore := b.writer.errorCounts()
	x := &injection{bench: b, old: old, epoch: look.Epoch(), at: boottime.Now()}
	r := result{Fault: f.name, Victim: old.Name}
	if err := f.inject(ctx, x); err != nil {
		return r, fmt.Errorf("%s: %w", f.title, err)
	}
	// Events of whoever is about to be restarted are read before and after: a sidecar keeps them in memory.
	events := x.events
	if err := f.restore(ctx, x); err != nil {
		return r, fmt.Errorf("%s: %w", f.title, err)
	}
	if err := b.watch(ctx, x); err != nil {
		return r, err
	}
	if err := b.flowing(ctx); err != nil {
		return r, err
	}
	if _, err := b.healthy(ctx); err != nil {
		return r, err
	}
	end := boottime.Now()
	r.Rejoin = end.Sub(x.at)
	more, err := b.cluster.Events(ctx)
	if err != nil {
		return r, err
	}
	r.Events = since(merge(events, more), x.at)
	r.Split = splitOf(r.Events, x.at, x.epoch)
	r.Failover = r.Split.PromotedAt != schema.Never
	acks := direct.stop()
	r.Zombies = zombies(acks, r.Split.PromotedAt)
	r.DirectBefore = len(acks) - r.Zombies
	return b.settle(ctx, r, x, end, errorsBefore)
}

// settle reads the ledger: every row that was acknowledged since the last repetition must be there, also those from
// before the fault, of which the newest may not have reached a standby.
func (b *bench) settle(ctx context.Context, r result, x *injection, end schema.Instant, errorsBefore map[string]int) (result, error) {
	r.Gap = longestGap(b.writer.ledger.all(), x.at, end).length()
	var err error
	if r.Acked, r.Missing, err = b.reconcile(ctx); err != nil {
		return r, err
	}
	r.Errors = map[string]int{}
	for kind, n := range b.writer.errorCounts() {
		if n -= errorsBefore[kind]; n > 0 {
			r.Errors[kind] = n
		}
	}
	for _, e := range r.Events {
		if e.Kind == schema.EventPromise {
			r.Promises++
		}
	}
	return r, nil
}

// reconcile holds what was acknowledged since it was called last against the table.
func (b *bench) reconcile(ctx context.Context) (acked, lost int, err error) {
	all := b.writer.ledger.all() // before the table is read: a row that is acknowledged meanwhile counts the next time
	fresh := all[b.settled:]
	if len(fresh) == 0 {
		return 0, 0, nil
	}
	there, err := present(ctx, b.router, ledgerTable, fresh[0].ID-1)
	if err != nil {
		return 0, 0, err
	}
	b.settled = len(all)
	return len(fresh), len(missing(fresh, there)), nil
}

// watch waits, after a failover, until the old primary is a standby, or 40 s have passed since the fault.
func (b *bench) watch(ctx context.Context, x *injection) error {
	err := local.Poll(ctx, 50*time.Millisecond, func() bool {
		if boottime.Now().Sub(x.at) > watchOld {
			return true
		}
		look := b.cluster.Look(ctx)
		s := look.Of(x.old)
		if look.Epoch() == x.epoch {
			return x.stays
		}
		return s.Err == nil && s.Status.Self.State == schema.StateStreaming && s.Status.Self.Epoch > x.epoch
	})
	return err
}

// merge joins two readings of the same journals, and drops what is in both.
func merge(a, b []schema.Event) []schema.Event {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y schema.Event) int {
		return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.By, y.By), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Detail, y.Detail))
	})
	return slices.CompactFunc(all, func(x, y schema.Event) bool {
		return x.At == y.At && x.By == y.By && x.Kind == y.Kind && x.Detail == y.Detail
	})
}

// since drops what came before at.
func since(events []schema.Event, at schema.Instant) []schema.Event {
	return slices.DeleteFunc(events, func(e schema.Event) bool { return e.At < at })
}

// temporary makes the directory of a bench, which the unprivileged user can get into.
func temporary() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "howdah-bench-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}
