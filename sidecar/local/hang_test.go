package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/embedded"
	"howdah/consul/schema"
)

// slowMachine bounds a handover on a machine that is busy with other tests; what it takes is logged.
const slowMachine = 45 * time.Second

// mountDisk gives a member a file system of its own, which can be frozen: whoever writes to it then waits in the kernel, where not
// even SIGKILL reaches it.
func (r *rig) mountDisk(m *Member) (freeze, thaw func()) {
	r.Helper()
	image, mount := r.path(m.Name+".disk"), r.path(m.Name)
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	f, err := os.Create(image)
	must(r.T, err)
	must(r.T, errors.Join(f.Truncate(1<<30), f.Close()))
	must(r.T, run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", image))
	if err := run("mount", "-o", "loop", image, mount); err != nil {
		r.Fatalf("a loop device, which this test needs root for: %v", err)
	}
	frozen := false
	freeze = func() { frozen = true; must(r.T, run("fsfreeze", "-f", mount)) }
	thaw = func() {
		if frozen {
			frozen = false
			must(r.T, run("fsfreeze", "-u", mount))
		}
	}
	r.Cleanup(func() {
		thaw()
		must(r.T, r.Kill())
		must(r.T, run("umount", mount))
	})
	for _, dir := range []string{mount, m.runDir()} {
		must(r.T, r.User().own(dir))
	}
	return freeze, thaw
}

// threeMembers starts pg1, which becomes the primary, and then the others and the router.
func (r *rig) threeMembers(ctx context.Context) {
	r.Helper()
	first := r.Member("pg1")
	must(r.T, first.Start())
	r.awaits(ctx, "the first primary", func(l Look) bool { return l.Primary() == first })
	must(r.T, r.Start(ctx))
	r.awaits(ctx, "a whole cluster", Look.Healthy)
}

func (r *rig) awaits(ctx context.Context, what string, ok func(Look) bool) Look {
	r.Helper()
	l, err := r.Await(ctx, what, ok)
	must(r.T, err)
	return l
}

// rows is a writer that enters each row that was acknowledged.
type rows struct {
	url   string
	mu    sync.Mutex
	acked []int
	last  atomic.Int64 // the newest acknowledged
	done  sync.WaitGroup
}

func (r *rig) writer(ctx context.Context) *rows {
	r.Helper()
	password, err := r.Secret("superuser")
	must(r.T, err)
	w := &rows{url: fmt.Sprintf("postgresql://postgres:%s@%s/postgres?sslmode=disable&connect_timeout=2", password, r.Router().Listen)}
	c := r.client(ctx, w)
	_, err = c.Exec(ctx, "create table rows (id int primary key)")
	must(r.T, err)
	must(r.T, c.Close(ctx))
	w.done.Go(func() {
		for id := 1; ctx.Err() == nil; {
			c, err := pgx.Connect(ctx, w.url)
			for ; err == nil; id++ {
				one, cancel := context.WithTimeout(ctx, 3*time.Second)
				_, err = c.Exec(one, "insert into rows values ($1)", id)
				cancel()
				if err == nil {
					w.mu.Lock()
					w.acked = append(w.acked, id)
					w.mu.Unlock()
					w.last.Store(int64(id))
				}
			}
			id++ // whether the last one was written is unknown
			if c != nil {
				_ = c.Close(ctx)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return w
}

func (r *rig) client(ctx context.Context, w *rows) (c *pgx.Conn) {
	r.Helper()
	err := Poll(ctx, 50*time.Millisecond, func() bool {
		var err error
		c, err = pgx.Connect(ctx, w.url)
		return err == nil
	})
	must(r.T, err)
	return c
}

// goesOn waits until a row that was begun after now is acknowledged, and returns how long that took.
func (r *rig) goesOn(ctx context.Context, w *rows) time.Duration {
	r.Helper()
	began, before := time.Now(), w.last.Load()+2 // one may be on its way
	if err := Poll(ctx, 10*time.Millisecond, func() bool { return w.last.Load() > before }); err != nil {
		r.Fatalf("no write is acknowledged: %v\n%s", err, r.Look(context.Background()))
	}
	return time.Since(began)
}

// missing returns the acknowledged rows that the primary does not have.
func (r *rig) missing(ctx context.Context, w *rows) (lost []int, all int) {
	r.Helper()
	c := r.client(ctx, w)
	defer func() { _ = c.Close(ctx) }()
	found, err := c.Query(ctx, "select id from rows order by id")
	must(r.T, err)
	have, err := pgx.CollectRows(found, pgx.RowTo[int])
	must(r.T, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.acked {
		if _, ok := slices.BinarySearch(have, id); !ok {
			lost = append(lost, id)
		}
	}
	return lost, len(w.acked)
}

// A primary whose disk stops, and one whose Postgres hangs, are replaced; no acknowledged row is lost, and the old primary comes back.
func TestHungPrimaryIsReplaced(t *testing.T) {
	config := schema.DefaultClusterConfig()
	config.SynchronousMode = schema.SyncStrict
	r := newRig(t, Options{Members: []string{"pg1", "pg2", "pg3"}, Bootstrap: &config})
	freeze, thaw := r.mountDisk(r.Member("pg1"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r.threeMembers(ctx)
	writing, stop := context.WithCancel(ctx)
	w := r.writer(writing)
	defer w.done.Wait()
	defer stop()
	r.goesOn(ctx, w)

	hang := func(what string, begin, end func()) {
		// Before the record is of this reign's own standbys nobody may be promoted: the primary counts among those that
		// have each commit.
		old := r.awaits(ctx, "a synchronous set", func(l Look) bool {
			p := l.Primary()
			return p != nil && l.Of(p).Status.Leader != nil && !slices.Contains(l.Of(p).Status.Leader.Sync.Standbys, p.Name)
		}).Primary()
		began := time.Now()
		begin()
		ended := false
		defer func() {
			if !ended {
				end()
			}
		}()
		bound, cancel := context.WithTimeout(ctx, slowMachine)
		defer cancel()
		r.awaits(bound, "another primary after "+what, func(l Look) bool { p := l.Primary(); return p != nil && p != old })
		r.goesOn(bound, w)
		t.Logf("%s: writes go on after %s", what, time.Since(began).Round(10*time.Millisecond))
		// The loop of the old one turns all the while, and it knows that it is none any more.
		if resp, err := http.Get("http://" + old.Addresses.API + "/liveness"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: the sidecar of %s is stuck: %v %v", what, old.Name, resp, err)
		}
		if s, err := old.Status(ctx); err != nil || s.HoldsLock || s.Self.Role == schema.RolePrimary {
			t.Errorf("%s: %s says %+v, %v", what, old.Name, s.Self, err)
		}
		events, err := old.Events(ctx)
		if err != nil || !slices.ContainsFunc(events, func(e schema.Event) bool { return e.Kind == schema.EventHung }) {
			t.Errorf("%s: no event says that it hangs: %v", what, err)
		}
		ended = true
		end()
		r.awaits(ctx, "a whole cluster after "+what, Look.Healthy)
	}
	hang("a disk that stops", freeze, thaw)
	var stopped []task
	hang("a postgres that hangs", func() {
		pid, err := r.Look(ctx).Primary().Postmaster()
		must(t, err)
		stopped, err = stopAll(pid)
		must(t, err)
	}, func() {
		for _, p := range stopped {
			_ = signalTask(p, unix.SIGCONT)
		}
	})
	stop()
	w.done.Wait()
	if lost, all := r.missing(ctx, w); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged rows are missing: %v", len(lost), all, lost[:min(len(lost), 20)])
	} else {
		t.Logf("all %d acknowledged rows are there", all)
	}
}

// gate is a Consul that can be away.
type gate struct {
	handler http.Handler
	away    atomic.Bool
}

// ServeHTTP hangs up while Consul is away.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.away.Load() {
		panic(http.ErrAbortHandler)
	}
	g.handler.ServeHTTP(w, r)
}

// A primary without Consul serves while all members promise; with one missing it stops in time, and says because of whom.
func TestMissingPromiseIsNamed(t *testing.T) {
	lock := embedded.New(zap.NewNop())
	consul := &gate{handler: lock.Handler()}
	server := httptest.NewServer(consul)
	t.Cleanup(func() { // after the members are gone
		lock.Close()
		server.Close()
	})
	r := newRig(t, Options{Members: []string{"pg1", "pg2", "pg3"}, Consul: server.URL})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r.threeMembers(ctx)
	primary := r.Look(ctx).Primary()
	lookAt := func(what string, ok func(schema.ClusterStatus) bool) {
		t.Helper()
		r.awaits(ctx, what, func(l Look) bool { a := l.Of(primary); return a.Err == nil && ok(a.Status) })
	}
	given := func(s schema.ClusterStatus, member string) bool {
		return slices.ContainsFunc(s.Promises, func(p schema.PromiseView) bool { return p.Member == member && p.Given && p.GivenAgo >= 0 })
	}
	consul.away.Store(true)
	server.CloseClientConnections()
	lookAt("both promises", func(s schema.ClusterStatus) bool {
		return s.HoldsLock && given(s, "pg2") && given(s, "pg3") && strings.Contains(s.Self.Reason, "serves by the promises of pg2, pg3")
	})
	must(t, r.Member("pg3").Kill())
	lookAt("the member that does not answer", func(s schema.ClusterStatus) bool {
		return given(s, "pg2") && slices.ContainsFunc(s.Promises, func(p schema.PromiseView) bool {
			return p.Member == "pg3" && !p.Given && strings.Contains(p.Why, "no answer") && p.GivenAgo > 0
		})
	})
	lookAt("the end of its lease", func(s schema.ClusterStatus) bool { return !s.HoldsLock && len(s.Promises) == 2 })
	out, err := exec.CommandContext(ctx, r.Binary(), "status", "--api", primary.Addresses.API).CombinedOutput()
	for _, want := range []string{"pg1 cannot renew its lease in consul", "pg2: promised", "pg3: asked", "no answer"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("howdah status does not say %q: %v\n%s", want, err, out)
		}
	}
	events, err := primary.Events(ctx)
	must(t, err)
	for _, want := range []schema.EventKind{schema.EventPromise, schema.EventUnpromised} {
		n := 0
		for _, e := range events {
			if e.Kind == want {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d events %q, want one for each change", n, want)
		}
	}
	must(t, r.Member("pg3").Start())
	lookAt("its return by promises alone", func(s schema.ClusterStatus) bool {
		return s.HoldsLock && s.Self.State == schema.StateRunning && given(s, "pg3")
	})
	consul.away.Store(false)
	lookAt("consul's return", func(s schema.ClusterStatus) bool { return s.HoldsLock && len(s.Promises) == 0 && s.Self.Reason == "" })
	r.awaits(ctx, "a whole cluster", Look.Healthy)
}
