package fresh_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/router/fresh"
	"howdah/router/own"
	"howdah/router/route"
	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) { postgrestest.Main(m) }

// patience is for a busy machine: how long a read may wait that is to be served by a standby.
const patience = time.Minute

// TestWithPostgres goes through what happens to real servers: nothing replayed, a pause, a restart, another primary.
func TestWithPostgres(t *testing.T) {
	one := postgrestest.Start(t, postgrestest.WithName("one"))
	one.CreateRole(own.Role)
	one.Exec("GRANT pg_read_all_stats TO " + own.Role + "; CREATE TABLE t (n int)")
	two := one.NewStandby(postgrestest.WithName("two"))
	three := one.NewStandby(postgrestest.WithName("three"))
	two.CatchUp(one)
	three.CatchUp(one)
	conns := own.New(own.Options{
		Password: func() (string, error) { return postgrestest.Password, nil }, Router: "r",
		DialTimeout: patience, Timeout: patience, Now: boottime.Now, Log: zap.NewNop(),
	})
	defer conns.Close()
	p := own.Server{Member: "one", Address: one.Addr(), Epoch: 1}
	s2, s3 := own.Server{Member: "two", Address: two.Addr()}, own.Server{Member: "three", Address: three.Addr()}
	reads := func(wait time.Duration, servers ...own.Server) *fresh.Reads {
		r := fresh.New(fresh.Options{Sampler: conns, Wait: wait, Now: boottime.Now, Log: zap.NewNop()})
		t.Cleanup(r.Close)
		conns.Set(servers)
		r.Set(servers)
		return r
	}
	patient, hasty := reads(patience, p, s2, s3), reads(50*time.Millisecond, p, s2, s3)
	choose := func(r *fresh.Reads, m *fresh.Mark, c route.Consistency, servers ...own.Server) string {
		var rs []route.Reader
		for _, s := range servers {
			rs = append(rs, route.Reader{Candidate: route.Candidate{Member: s.Member}, Address: s.Address, Since: 1})
		}
		if i := r.Choose(context.Background(), m, c, rs, route.Bound{}); i >= 0 {
			return rs[i].Member
		}
		return ""
	}

	// With synchronous_commit off the commit is acknowledged before it is flushed; it has to be seen all the same.
	var m fresh.Mark
	for i := range 20 {
		one.Exec("SET synchronous_commit = off; INSERT INTO t VALUES (1)")
		m.Wrote(boottime.Now(), 1)
		for _, s := range []struct {
			own.Server
			postgres *postgrestest.Server
		}{{s2, two}, {s3, three}} {
			c := []route.Consistency{route.Session, route.Strict}[i%2]
			if got := choose(patient, &m, c, s.Server); got != s.Member {
				t.Fatalf("%s: %q serves and not %s", c, got, s.Member)
			}
			if n := s.postgres.Query("SELECT count(*) FROM t"); n != one.Query("SELECT count(*) FROM t") {
				t.Fatalf("%s read on %s sees %s rows", c, s.Member, n)
			}
		}
	}

	// Whoever does not replay is not chosen, whoever does is.
	two.Exec("SELECT pg_wal_replay_pause()")
	postgrestest.Until(t.Context(), t, "replay is paused", func() bool { return two.Query("SELECT pg_get_wal_replay_pause_state()") == "paused" })
	one.Exec("INSERT INTO t VALUES (2)")
	m.Wrote(boottime.Now(), 1)
	if got := choose(hasty, &m, route.Session, s2); got != "" {
		t.Errorf("%s serves and does not replay", got)
	}
	for range 10 {
		if got := choose(patient, &m, route.Strict, s2, s3); got != "three" {
			t.Errorf("%q serves", got)
		}
	}
	m.Wrote(boottime.Now(), 1)
	go func() { two.Exec("SELECT pg_wal_replay_resume()") }()
	if got := choose(patient, &m, route.Session, s2); got != "two" {
		t.Errorf("after it goes on: %q", got)
	}

	// Nobody needs to know any more: nobody is asked.
	n := patient.Stats()
	for range 1000 {
		if got := choose(patient, &m, route.Session, s2); got != "two" {
			t.Fatal("what is proved must stay proved")
		}
	}
	// What was under way when the last one was served is answered still: one question to each server.
	if now := patient.Stats(); now.Primary-n.Primary > 1 || now.Standby-n.Standby > 2 || now.PrimaryFailed != n.PrimaryFailed || now.StandbyFailed != n.StandbyFailed {
		t.Errorf("asked on: %+v, then %+v", n, now)
	}

	// Two is promoted; three follows it and one is gone. A write of the old reign is proved anew, on the new timeline.
	one.Stop(postgrestest.Fast)
	two.Promote()
	p2 := own.Server{Member: "two", Address: two.Addr(), Epoch: 2}
	conns.Set([]own.Server{p2, s3})
	patient.Set([]own.Server{p2, s3})
	hasty.Set([]own.Server{p2, s3})
	two.Exec("INSERT INTO t VALUES (3)")
	m.Wrote(boottime.Now(), 2)
	if got := choose(hasty, &m, route.Session, s3); got != "" {
		t.Errorf("%s serves and follows nobody", got)
	}
	three.Exec("ALTER SYSTEM SET primary_conninfo = '" + "host=" + two.Host + " port=" + strconv.Itoa(two.Port) + " user=postgres password=" + postgrestest.Password + "'")
	three.Exec("ALTER SYSTEM SET primary_slot_name = ''")
	three.Exec("SELECT pg_reload_conf()")
	var again fresh.Mark
	again.Wrote(boottime.Now(), 1)
	if got := choose(patient, &again, route.Session, s3); got != "three" {
		t.Errorf("%q serves", got)
	}
	if got := three.Query("SELECT count(*) FROM t WHERE n = 3"); got != "1" {
		t.Errorf("it lacks what was written: %s", got)
	}

	// A server of which we believe the wrong thing tells nothing.
	if _, _, err := conns.ReplayLSN(t.Context(), p2); err == nil {
		t.Error("a primary says how far it has replayed")
	}
	wrong := own.Server{Member: "three", Address: three.Addr(), Epoch: 3}
	conns.Set([]own.Server{wrong})
	if _, _, err := conns.PrimaryLSN(t.Context(), wrong); err == nil {
		t.Error("a standby says how far it has written")
	}
}

// Where the WAL ends at a page or a segment, the next record begins behind a header that no commit is in and that no standby replays.
func TestEndOfPageIsNoReasonToWait(t *testing.T) {
	one := postgrestest.Start(t, postgrestest.WithName("one"))
	one.CreateRole(own.Role)
	one.Exec("GRANT pg_read_all_stats TO " + own.Role)
	two := one.NewStandby(postgrestest.WithName("two"))
	two.CatchUp(one)
	conns := own.New(own.Options{
		Password: func() (string, error) { return postgrestest.Password, nil }, Router: "r",
		DialTimeout: patience, Timeout: patience, Now: boottime.Now, Log: zap.NewNop(),
	})
	defer conns.Close()
	p, standby := own.Server{Member: "one", Address: one.Addr(), Epoch: 1}, own.Server{Member: "two", Address: two.Addr()}
	conns.Set([]own.Server{p, standby})
	for range 3 {
		one.Exec("CHECKPOINT; SELECT pg_switch_wal()")
		two.CatchUp(one)
		_, at, err := conns.PrimaryLSN(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		_, replayed, err := conns.ReplayLSN(t.Context(), standby)
		if err != nil || replayed < at {
			t.Errorf("the standby has replayed up to %s of %s: %v", replayed, at, err)
		}
	}
}
