package fresh_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/router/fresh"
	"howdah/router/own"
	"howdah/router/route"
	"howdah/sidecar/postgres/postgrestest"
)

// hammer is many sessions that write and read at once, each as a session of the router would: writes to the primary, reads to whom
// Choose names. Meanwhile one standby pauses its replay and goes on, and is killed and started again.
type hammer struct {
	reads    *fresh.Reads
	primary  *postgrestest.Server
	standbys []*postgrestest.Server
	// acknowledged is the highest value of the shared row that anybody was told.
	acknowledged      atomic.Int64
	byStandby, byOwn  atomic.Int64
	stale, reconnects atomic.Int64
}

// hammerSession is one session with its connections.
type hammerSession struct {
	h       *hammer
	id      int
	rng     *rand.Rand
	written int64
	mark    fresh.Mark
	primary *pgx.Conn
	conns   []*pgx.Conn
	since   []schema.Instant
}

const hammerSessions, hammerRounds = 12, 40

func TestHammer(t *testing.T) {
	h := &hammer{primary: postgrestest.Start(t, postgrestest.WithName("one"))}
	h.primary.CreateRole(own.Role)
	h.primary.Exec("GRANT pg_read_all_stats TO " + own.Role)
	h.primary.Exec(fmt.Sprintf("CREATE TABLE mine AS SELECT id, 0::bigint AS n FROM generate_series(0, %d) AS id; CREATE TABLE shared AS SELECT 0::bigint AS n", hammerSessions))
	servers := []own.Server{{Member: "one", Address: h.primary.Addr(), Epoch: 1}}
	for _, name := range []string{"two", "three"} {
		s := h.primary.NewStandby(postgrestest.WithName(name))
		s.CatchUp(h.primary)
		h.standbys = append(h.standbys, s)
		servers = append(servers, own.Server{Member: name, Address: s.Addr()})
	}
	conns := own.New(own.Options{
		Password: func() (string, error) { return postgrestest.Password, nil }, Router: "r",
		DialTimeout: patience, Timeout: patience, Now: boottime.Now, Log: zap.NewNop(),
	})
	defer conns.Close()
	h.reads = fresh.New(fresh.Options{Sampler: conns, Wait: 100 * time.Millisecond, Now: boottime.Now, Log: zap.NewNop()})
	defer h.reads.Close()
	conns.Set(servers)
	h.reads.Set(servers)

	// Without a mark a paused standby shows what is old: the test can tell.
	unruly := h.standbys[0]
	unruly.Exec("SELECT pg_wal_replay_pause()")
	h.primary.Exec("UPDATE mine SET n = 1 WHERE id = " + fmt.Sprint(hammerSessions))
	if got := unruly.Query("SELECT n FROM mine WHERE id = " + fmt.Sprint(hammerSessions)); got != "0" {
		t.Fatalf("a standby whose replay is paused shows %s", got)
	}
	unruly.Exec("SELECT pg_wal_replay_resume()")

	ctx, over := context.WithCancel(context.Background())
	var trouble, sessions sync.WaitGroup
	trouble.Go(func() { h.disturb(ctx, unruly) })
	for id := range hammerSessions {
		sessions.Go(func() {
			s := &hammerSession{h: h, id: id, rng: rand.New(rand.NewPCG(1, uint64(id))), conns: make([]*pgx.Conn, 2), since: make([]schema.Instant, 2)}
			if err := s.run(ctx); err != nil {
				t.Errorf("session %d: %v", id, err)
			}
		})
	}
	sessions.Wait()
	over()
	trouble.Wait()
	t.Logf("%d reads by standbys, %d by the primary, %d connections lost; %+v", h.byStandby.Load(), h.byOwn.Load(), h.reconnects.Load(), h.reads.Stats())
	if n := h.stale.Load(); n != 0 {
		t.Errorf("%d stale reads", n)
	}
	if h.byStandby.Load() < hammerSessions*hammerRounds/2 {
		t.Errorf("standbys served %d reads only", h.byStandby.Load())
	}
}

// disturb pauses the replay of s for a while, or kills it, again and again; in the end it runs and replays.
func (h *hammer) disturb(ctx context.Context, s *postgrestest.Server) {
	for i := 0; ctx.Err() == nil; i++ {
		if i%3 == 2 {
			s.Stop(postgrestest.Immediate)
			s.Start()
			continue
		}
		s.Exec("SELECT pg_wal_replay_pause()")
		before := h.byStandby.Load()
		for h.byStandby.Load() < before+20 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
		s.Exec("SELECT pg_wal_replay_resume()")
	}
}

func (s *hammerSession) run(ctx context.Context) error {
	var err error
	if s.primary, err = pgx.Connect(ctx, s.h.primary.DSN("postgres", "postgres")); err != nil {
		return err
	}
	defer s.primary.Close(context.Background())
	defer func() {
		for _, c := range s.conns {
			if c != nil {
				c.Close(context.Background())
			}
		}
	}()
	for range hammerRounds {
		if err := s.write(ctx); err != nil {
			return err
		}
		for range 1 + s.rng.IntN(3) {
			if err := s.read(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *hammerSession) write(ctx context.Context) error {
	if _, err := s.primary.Exec(ctx, "SET synchronous_commit = "+[]string{"on", "off"}[s.rng.IntN(2)]); err != nil {
		return err
	}
	defer func() { s.mark.Wrote(boottime.Now(), 1) }()
	if s.rng.IntN(2) == 0 {
		s.written++
		_, err := s.primary.Exec(ctx, "UPDATE mine SET n = $1 WHERE id = $2", s.written, s.id)
		return err
	}
	var n int64
	if err := s.primary.QueryRow(ctx, "UPDATE shared SET n = n + 1 RETURNING n").Scan(&n); err != nil {
		return err
	}
	for {
		known := s.h.acknowledged.Load()
		if known >= n || s.h.acknowledged.CompareAndSwap(known, n) {
			return nil
		}
	}
}

func (s *hammerSession) read(ctx context.Context) error {
	c := []route.Consistency{route.Session, route.Strict}[s.rng.IntN(2)]
	floor := s.h.acknowledged.Load()
	i := s.choose(ctx, c, 0, 1)
	if i >= 0 && s.conns[i] == nil {
		if s.connect(ctx, i) {
			i = s.choose(ctx, c, i)
		} else {
			i = -1
		}
	}
	conn := s.primary
	if i >= 0 {
		conn = s.conns[i]
	}
	var mine, shared int64
	err := conn.QueryRow(ctx, "SELECT (SELECT n FROM mine WHERE id = $1), (SELECT n FROM shared)", s.id).Scan(&mine, &shared)
	if err != nil && i >= 0 {
		// It was killed; the primary would serve next.
		s.h.reconnects.Add(1)
		conn.Close(context.Background())
		s.conns[i] = nil
		return nil
	}
	if err != nil {
		return err
	}
	if i >= 0 {
		s.h.byStandby.Add(1)
	} else {
		s.h.byOwn.Add(1)
	}
	if mine != s.written || c == route.Strict && shared < floor {
		s.h.stale.Add(1)
		return fmt.Errorf("stale by %s on %d: %d of its own, not %d; %d of all, not %d", c, i, mine, s.written, shared, floor)
	}
	return nil
}

// choose returns which of some standbys serves; -1 for the primary.
func (s *hammerSession) choose(ctx context.Context, c route.Consistency, of ...int) int {
	var rs []route.Reader
	for _, i := range of {
		since := s.since[i]
		if s.conns[i] == nil {
			since = schema.Never
		}
		rs = append(rs, route.Reader{Candidate: route.Candidate{Member: []string{"two", "three"}[i], Sessions: s.rng.IntN(2)}, Address: s.h.standbys[i].Addr(), Since: since})
	}
	if n := s.h.reads.Choose(ctx, &s.mark, c, rs, route.Bound{}); n >= 0 {
		return of[n]
	}
	return -1
}

func (s *hammerSession) connect(ctx context.Context, i int) bool {
	conn, err := pgx.Connect(ctx, s.h.standbys[i].DSN("postgres", "postgres"))
	if err != nil {
		return false
	}
	s.conns[i], s.since[i] = conn, boottime.Now()
	return true
}
