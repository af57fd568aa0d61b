package router_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
)

// A read that replay gets in the way of (40001) is repeated on the primary, and the client sees nothing of it; in a session of the standby's, or once the
// first row has gone to the client, it is the client's to repeat.
func TestConflictWithRecovery(t *testing.T) {
	s := startSplit(t)
	s.two.Exec("ALTER SYSTEM SET max_standby_streaming_delay = 0")
	s.two.Exec("SELECT pg_reload_conf()")
	until(t, "the setting to be in force", func() bool { return s.two.Query("SHOW max_standby_streaming_delay") == "0" })
	const conflict = "canceling statement due to conflict with recovery"
	for _, c := range []struct {
		name string
		of   route.Route
		sql  string
		code string
	}{
		{"nothing told", route.Auto, "/* slow. */ SELECT count(*) FROM stretched, generate_series(1, 3000) a, generate_series(1, 1000) b", ""},
		{"rows told", route.Auto, "/* slow. */ SELECT repeat('x', 20000) FROM stretched, generate_series(1, 2) UNION ALL SELECT count(*)::text FROM stretched, generate_series(1, 3000) a, generate_series(1, 1000) b", "40001"},
		{"in a session of the standby", route.RO, "/* slow. */ SELECT count(*) FROM stretched, generate_series(1, 3000) a, generate_series(1, 1000) b", "40001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.primary.Exec("DROP TABLE IF EXISTS stretched; CREATE TABLE stretched (n int); INSERT INTO stretched VALUES (1); GRANT ALL ON stretched TO alice")
			s.two.CatchUp(s.primary)
			conn := s.connect(t, c.of, "")
			if c.of == route.Auto {
				s.caughtUp(conn)
			}
			before := strings.Count(s.two.Log(), conflict)
			told, done := make(chan struct{}), make(chan error, 1)
			go func() {
				rows, err := conn.Query(context.Background(), c.sql, pgx.QueryExecModeSimpleProtocol)
				n := 0
				for err == nil && rows.Next() {
					if n++; n == 1 {
						close(told)
					}
				}
				if err == nil {
					err = rows.Err()
				}
				if err == nil && n != 1 {
					err = fmt.Errorf("%d rows", n)
				}
				done <- err
			}()
			until(t, "it to run on the standby", func() bool {
				return s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '/* slow. */%' AND state = 'active'") == "1"
			})
			if c.name == "rows told" {
				<-told
			}
			s.primary.Exec("ALTER TABLE stretched ADD COLUMN s text")
			until(t, "the conflict", func() bool { return strings.Count(s.two.Log(), conflict) > before })
			if err := <-done; c.code == "" && err != nil || c.code != "" && code(err) != c.code {
				t.Errorf("%v; want SQLSTATE %q", err, c.code)
			}
		})
	}
}
