package router_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/sidecar/postgres/postgrestest"
)

// third starts another standby, of which the router does not know yet.
func (s *splitCluster) third() *postgrestest.Server {
	s.t.Helper()
	three := s.primary.NewStandby(postgrestest.WithName("three"), postgrestest.WithParameter("log_statement", "all"))
	three.CatchUp(s.primary)
	return three
}

// pause returns once a standby replays nothing any more.
func pause(t *testing.T, standby *postgrestest.Server) {
	t.Helper()
	standby.Exec("SELECT pg_wal_replay_pause()")
	until(t, "the replay to pause", func() bool { return standby.Query("SELECT pg_get_wal_replay_pause_state()") == "paused" })
}

// A session leaves a standby that does not replay for one that does, and goes back in time by neither that nor the reads on the primary in between.
func TestSessionLeavesALaggingStandby(t *testing.T) {
	s := startSplit(t, withConsole)
	three := s.third()
	s.know.Hear(rt.Standby("three", three.Addr(), 1))
	s.primary.Exec("CREATE TABLE own (n int); CREATE TABLE shared AS SELECT 0 AS n; GRANT ALL ON own, shared TO alice")
	root, conn, direct := s.console(t, "root"), s.connect(t, route.Auto, ""), s.connect(t, route.RW, "")
	ctx, over := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer over()
	others.Go(func() {
		for ctx.Err() == nil {
			direct.Exec(ctx, "UPDATE shared SET n = n + 1")
		}
	})
	written, shared := 0, 0
	read := func() {
		t.Helper()
		var own, seen int
		if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM own), (SELECT n FROM shared)", pgx.QueryExecModeExec).Scan(&own, &seen); err != nil {
			t.Fatal(err)
		}
		if own != written || seen < shared {
			t.Fatalf("%d rows of its own, not %d; %d of others, after %d", own, written, seen, shared)
		}
		shared = seen
	}
	client := func() map[string]any { return of(rows(t, root, "SHOW CLIENTS"), "route", "auto")[0] }
	until(t, "the session to read from a standby", func() bool { read(); return client()["reads_from"] != nil })
	byName := map[any]*postgrestest.Server{"two": s.two, "three": three}
	for range 2 {
		from := client()["reads_from"]
		pause(t, byName[from])
		until(t, fmt.Sprintf("the session to leave %s", from), func() bool {
			if _, err := conn.Exec(t.Context(), "INSERT INTO own VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			written++
			for range 5 {
				read()
			}
			return client()["reads_from"] != from
		})
		before := number(t, s.metric(`howdah_router_reads_total{by="standby"}`))
		until(t, "reads on the other standby", func() bool { read(); return number(t, s.metric(`howdah_router_reads_total{by="standby"}`)) > before+3 })
		byName[from].Exec("SELECT pg_wal_replay_resume()")
	}
}

// Sessions spread over a standby that comes later, no more of them change than must, and then they stay.
func TestSessionsSpreadAgain(t *testing.T) {
	s := startSplit(t, withConsole, func(o *router.Options) { o.BalanceEvery(100 * time.Millisecond) })
	root := s.console(t, "root")
	const sessions = 6
	var conns []*pgx.Conn
	for range sessions {
		conn := s.connect(t, route.Auto, "")
		s.caughtUp(conn)
		conns = append(conns, conn)
	}
	all := func() {
		var work sync.WaitGroup
		for _, conn := range conns {
			work.Go(func() {
				if err := s.exec(conn, pgx.QueryExecModeExec, "SELECT 1"); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	}
	spread := func() (string, map[any]bool) {
		on, connections := map[any]int{}, map[any]bool{}
		for _, r := range of(rows(t, root, "SHOW SERVERS"), "role", "standby") {
			on[r["member"]]++
			connections[r["local_port"]] = true
		}
		return fmt.Sprint(on), connections
	}
	_, before := spread()
	three := s.third()
	s.know.Hear(rt.Standby("three", three.Addr(), 1))
	even := fmt.Sprint(map[any]int{"two": sessions / 2, "three": sessions / 2})
	until(t, "the sessions to spread", func() bool { all(); on, _ := spread(); return on == even })
	_, after := spread()
	changed := 0
	for c := range after {
		if !before[c] {
			changed++
		}
	}
	if changed != sessions/2 {
		t.Errorf("%d sessions have changed", changed)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		all()
	}
	if _, now := spread(); fmt.Sprint(now) != fmt.Sprint(after) {
		t.Errorf("the sessions did not stay: %v, then %v", after, now)
	}
}

// What a client sends before it is told that it may is a part of no mark before it is answered: so the session begins to look for a standby only then.
func TestNothingIsLearntBeforeTheAnswer(t *testing.T) {
	m := startMovable(t)
	m.know.Hear(rt.Standby("two", m.two.Address(), 1))
	until(t, "the standby to be known", func() bool { return len(m.Status().Standbys) == 1 })
	alice := credentials(t, "alice", "secret").Verifier()
	client := m.rig.client(t, route.Auto)
	client.Send(rt.Startup("user", "alice", "howdah.consistency", "eventual"))
	server := m.one.Accept()
	s := offers(server, alice)
	p := proves(client, scram.Channel{}, "alice", "secret")
	checks(server, s, "alice", alice)
	server.Send(rt.AuthOK, rt.KeyData(4712, "sekr"))
	accepted(client, p)
	client.Next() // the cancel key
	client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	server.Expect(rt.Query("INSERT INTO t VALUES (1)"))
	server.Send(rt.Ready('I'))
	client.Expect(rt.Ready('I'))
	client.Send(rt.Sync)
	server.Expect(rt.Sync)
	m.two.ExpectNobody()
	server.Send(rt.Complete("INSERT 0 1"), rt.Ready('I'), rt.Ready('I'))
	client.Expect(rt.Complete("INSERT 0 1"), rt.Ready('I'), rt.Ready('I'))
}
