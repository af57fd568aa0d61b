package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
	"howdah/sidecar/local/localtest"
)

// life is a cluster that lives through one thing after the other.
type life struct {
	*testing.T
	b *bench
}

// lifeTimeout bounds the whole life.
const lifeTimeout = 8 * time.Minute

// TestClusterLife is one cluster with a real Consul, a writer that enters every acknowledged row, and one fault after
// the other. The cluster must be whole before each.
func TestClusterLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), lifeTimeout)
	defer cancel()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := local.FindBinDir(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began := boottime.Now()
	b, err := open(ctx, settings{
		Howdah: localtest.Binary(t), Consul: filepath.Join(root, "bin", "consul"), BinDir: bin, Dir: localtest.Dir(t),
		Members: 3, Config: schema.DefaultClusterConfig(), Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("three members and a router are up, with the build, after %s", boottime.Now().Sub(began).Round(time.Millisecond))

	l := life{t, b}
	l.step(ctx, "clients log in by SCRAM", l.scram)
	l.step(ctx, "reads go to a standby", l.reads)
	l.step(ctx, "a killed postmaster", l.fault("postmaster", func(t *testing.T, r result) {
		l.lostNothing(t, r)
		within(t, r, 15*time.Second)
	}))
	l.step(ctx, "a planned switchover", l.fault("switchover", func(t *testing.T, r result) {
		failedOver(t, r)
		l.lostNothing(t, r)
		within(t, r, 10*time.Second)
	}))
	l.step(ctx, "a killed member", l.fault("member", func(t *testing.T, r result) {
		failedOver(t, r)
		within(t, r, 20*time.Second)
	}))
	l.step(ctx, "a frozen member", l.fault("freeze", func(t *testing.T, r result) {
		failedOver(t, r)
		within(t, r, 20*time.Second)
	}))
	l.step(ctx, "a sidecar that is restarted", l.fault("sidecar-restart", l.noticedNothing))
	l.step(ctx, "consul is away for 20 s", l.fault("consul-outage", func(t *testing.T, r result) {
		l.noticedNothing(t, r)
		if r.Promises == 0 {
			t.Error("no lease was extended by promises")
		}
	}))
	l.step(ctx, "all members are stopped and started", func(ctx context.Context, t *testing.T) {
		l.again(ctx, t, func() error {
			stop, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return l.b.cluster.Stop(stop)
		})
	})
	l.step(ctx, "all members lose their power", func(ctx context.Context, t *testing.T) { l.again(ctx, t, l.b.cluster.Kill) })
}

// step is a part of the life; when one fails the rest means nothing.
func (l life) step(ctx context.Context, name string, f func(context.Context, *testing.T)) {
	if l.Failed() {
		l.Errorf("%s: not tried after a failure", name)
		return
	}
	l.Run(name, func(t *testing.T) {
		began := boottime.Now()
		f(ctx, t)
		t.Logf("took %s", boottime.Now().Sub(began).Round(time.Millisecond))
		if t.Failed() {
			t.Logf("the members:\n%s", l.b.cluster.Look(ctx))
		}
	})
}

// fault injects one, and checks what holds for each before check.
func (l life) fault(name string, check func(*testing.T, result)) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		some, err := chosen(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.b.once(ctx, some[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("longest gap %s, %s; %d of %d acknowledged rows missing; the old primary acknowledged %d rows directly, %d of them after the promotion; errors %v",
			r.Gap, r.Split, r.Missing, r.Acked, r.DirectBefore+r.Zombies, r.Zombies, r.Errors)
		if r.Zombies > 0 {
			t.Errorf("the old primary accepted %d writes after the promotion of the new one", r.Zombies)
		}
		if r.DirectBefore == 0 {
			t.Error("the direct writers wrote nothing before the fault: they prove nothing")
		}
		check(t, r)
		if t.Failed() {
			for _, e := range r.Events {
				t.Logf("%8.3f s %s %s epoch %d: %s", (time.Duration(e.At - r.Events[0].At)).Seconds(), e.By, e.Kind, e.Epoch, e.Detail)
			}
		}
	}
}

func failedOver(t *testing.T, r result) {
	t.Helper()
	if !r.Failover {
		t.Error("no other member was promoted")
	}
}

// within bounds the gap loosely: other tests run beside this one. The benchmark measures it.
func within(t *testing.T, r result, bound time.Duration) {
	t.Helper()
	if r.Gap > bound {
		t.Errorf("no commit was acknowledged for %s", r.Gap)
	}
}

func (l life) lostNothing(t *testing.T, r result) {
	t.Helper()
	if r.Missing > 0 {
		t.Errorf("%d acknowledged rows are missing", r.Missing)
	}
}

func (l life) noticedNothing(t *testing.T, r result) {
	t.Helper()
	l.lostNothing(t, r)
	within(t, r, 2*time.Second)
	if r.Failover {
		t.Errorf("%s was promoted in epoch %d", r.Split.Primary, r.Split.Epoch)
	}
}

func (l life) scram(ctx context.Context, t *testing.T) {
	wrong := l.b.router
	wrong.password = "wrong"
	_, err := wrong.connect(ctx)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("a wrong password: want 28P01, got %v", err)
	}
	conn, err := l.b.router.connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(conn)
	var verifiers, all int
	err = conn.QueryRow(ctx, "select count(*) filter (where rolpassword like 'SCRAM-SHA-256$%'), count(*) from pg_authid where rolcanlogin").Scan(&verifiers, &all)
	if err != nil || verifiers != all || all < 4 {
		t.Errorf("of %d roles %d have a SCRAM verifier (%v)", all, verifiers, err)
	}
}

// reads asks, by the read-only port and by the startup parameter, where a session lands and what it may do there.
func (l life) reads(ctx context.Context, t *testing.T) {
	readOnly := target{address: l.b.cluster.Router().ReadOnly, password: l.b.router.password}
	for name, connect := range map[string]func() (*pgx.Conn, error){
		"port": func() (*pgx.Conn, error) { return readOnly.connect(ctx) },
		"parameter": func() (*pgx.Conn, error) {
			c, err := l.b.router.config()
			if err != nil {
				return nil, err
			}
			c.RuntimeParams["options"] = "-c howdah.route=ro"
			return pgx.ConnectConfig(ctx, c)
		},
	} {
		conn, err := connect()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer hangUp(conn)
		var standby bool
		if err := conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby); err != nil || !standby {
			t.Errorf("%s: the session is on a standby: %t (%v)", name, standby, err)
		}
		_, err = conn.Exec(ctx, "insert into "+ledgerTable+" (id) values (-1)")
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "25006" {
			t.Errorf("%s: a write: want 25006, got %v", name, err)
		}
	}
}

// again ends everything by end while the writer writes, and starts it again: the writer's last row is there, and
// the epoch is no older.
func (l life) again(ctx context.Context, t *testing.T, end func() error) {
	c := l.b.cluster
	if err := l.b.flowing(ctx); err != nil {
		t.Fatal(err)
	}
	before := c.Look(ctx).Epoch()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	l.b.quiet()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	look, err := l.b.healthy(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if look.Epoch() < before {
		t.Errorf("epoch %d after epoch %d", look.Epoch(), before)
	}
	acked, lost, err := l.b.reconcile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d acknowledged rows missing", lost, acked)
	if lost > 0 {
		t.Errorf("%d acknowledged rows are missing", lost)
	}
	if text := strings.Join(c.Troubles(), "\n"); text != "" {
		t.Errorf("processes ended unasked:\n%s", text)
	}
	l.b.write(ctx)
	if err := l.b.flowing(ctx); err != nil {
		t.Error(err)
	}
}
