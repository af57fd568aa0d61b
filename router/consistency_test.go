package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/router/route"
)

// SET howdah.consistency fails as that of any enum where its value is none, alone, in a transaction and by name.
func TestConsistencyIsAnEnum(t *testing.T) {
	s := startSplit(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		conn := s.connect(t, route.Auto, "")
		refused := func() {
			t.Helper()
			err := s.exec(conn, mode, "SET howdah.consistency = 'lax'")
			if e, ok := err.(*pgconn.PgError); !ok || e.Code != "22023" || e.Message != `invalid value for parameter "howdah.consistency": "lax"` || e.Hint != "Available values: eventual, session, strict." {
				t.Errorf("%v: %+v", mode, err)
			}
		}
		do := func(sql, want string) {
			t.Helper()
			if err := s.exec(conn, mode, sql); code(err) != want && !(want == "" && err == nil) {
				t.Errorf("%v: %s: %v", mode, sql, err)
			}
		}
		refused()
		refused()
		do("SELECT 1", "")
		do("BEGIN", "")
		refused()
		do("SELECT 1", "25P02")
		do("ROLLBACK", "")
		s.caughtUp(conn)
		do("SET howdah.consistency = 'strict'", "")
	}
}
