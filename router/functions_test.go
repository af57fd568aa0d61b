package router_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
)

// A function that somebody else makes volatile, whose session the router does not see, is the primary's once the list of functions is 30 s old: of a session that
// changes functions itself, too.
func TestFunctionsOfOthersGrowOld(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE FUNCTION turning(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n'")
	s.two.CatchUp(s.primary)
	calls := func(conn *pgx.Conn, want string) {
		t.Helper()
		s.caughtUp(conn)
		m := s.mark()
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "SELECT turning(1) "+m); err != nil {
			t.Fatal(err)
		}
		if on := s.ran(m); on != want {
			t.Errorf("ran on %s, want %s", on, want)
		}
	}
	reads, defines := s.connect(t, route.Auto, ""), s.connect(t, route.Auto, "")
	calls(reads, "two")
	if err := s.exec(defines, pgx.QueryExecModeSimpleProtocol, "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"); err != nil {
		t.Fatal(err)
	}
	calls(defines, "two")
	s.primary.Exec("ALTER FUNCTION turning VOLATILE")
	s.two.CatchUp(s.primary)
	calls(reads, "two")
	calls(defines, "two")
	s.ahead.Add(int64(30 * time.Second))
	calls(reads, "one")
	calls(defines, "one")
}
