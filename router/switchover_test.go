package router_test

import (
	"context"
	"fmt"
	"testing"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// Sessions of statement routing, with settings and prepared statements, that write and read all the time see no error of a planned switchover whose running
// statements come to their end, and nothing that was acknowledged is lost.
func TestSwitchoverWithStatementRouting(t *testing.T) {
	s := startSplit(t, func(o *router.Options) { o.FailoverWait = 2 * rt.Patience })
	s.primary.Exec("CREATE SCHEMA other; CREATE TABLE other.own (n int, i int); GRANT USAGE ON SCHEMA other TO alice; GRANT ALL ON other.own TO alice")
	s.two.CatchUp(s.primary)
	const sessions = 8
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type done struct {
		writes int
		err    error
	}
	results := make(chan done, sessions)
	for n := range sessions {
		conn := s.connect(t, route.Auto, "")
		if _, err := conn.Exec(t.Context(), "SET search_path = other, public"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Prepare(t.Context(), "mine", "SELECT count(*) FROM own WHERE n = $1"); err != nil {
			t.Fatal(err)
		}
		go func() {
			var d done
			for d.err == nil && ctx.Err() == nil {
				if _, d.err = conn.Exec(context.Background(), "INSERT INTO own VALUES ($1, $2)", n, d.writes); d.err != nil {
					break
				}
				d.writes++
				var got int
				if d.err = conn.QueryRow(context.Background(), "mine", n).Scan(&got); d.err == nil && got != d.writes {
					d.err = fmt.Errorf("session %d sees %d of its %d rows", n, got, d.writes)
				}
			}
			results <- d
		}()
	}
	written := func(on *postgrestest.Server) bool {
		return on.Query("SELECT count(DISTINCT n) FROM other.own WHERE i > 20") == fmt.Sprint(sessions)
	}
	until(t, "all to write", func() bool { return written(s.primary) })
	stopping := rt.Primary("one", s.primary.Addr(), 1)
	stopping.Stopping = true
	s.know.Hear(stopping)
	until(t, "all to be held", func() bool { return s.Status().Phase == schema.PhaseStopping && s.count("idle") == sessions })
	s.primary.Stop(postgrestest.Fast)
	s.two.Promote()
	before := s.two.Query("SELECT count(*) FROM other.own")
	stopping.State = schema.StateStopped
	s.know.Hear(stopping, rt.Primary("two", s.two.Addr(), 2))
	until(t, "all to write to the new primary", func() bool {
		return s.two.Query("SELECT count(DISTINCT n) FROM (SELECT n FROM other.own OFFSET "+before+") new") == fmt.Sprint(sessions)
	})
	stop()
	writes := 0
	for range sessions {
		d := <-results
		if d.err != nil {
			t.Error(d.err)
		}
		writes += d.writes
	}
	if n := s.two.Query("SELECT count(*) FROM other.own"); n != fmt.Sprint(writes) {
		t.Errorf("%s rows of %d that were acknowledged", n, writes)
	}
	if m := s.Status().MemberSessions; m["two"] != sessions || m["one"] != 0 {
		t.Errorf("sessions %v", m)
	}
}
