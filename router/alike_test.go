package router_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// text reads one value with a mark, and says where that ran.
func (s *splitCluster) text(conn *pgx.Conn, sql string) (value, on string) {
	s.t.Helper()
	m := s.mark()
	if err := conn.QueryRow(context.Background(), sql+" "+m, pgx.QueryExecModeExec).Scan(&value); err != nil {
		s.t.Fatal(err)
	}
	return value, s.ran(m)
}

// A session reads from no standby whose login has other settings of roles and databases than its own; one that begins later does.
func TestSettingsOfRolesAreThoseOfTheBeginning(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SCHEMA other; CREATE TABLE other.t (n int, s text); INSERT INTO other.t VALUES (1, 'other'); GRANT USAGE ON SCHEMA other TO alice; GRANT SELECT ON other.t TO alice")
	warm := s.connect(t, route.Auto, "") // so that the functions are known, and others connect to the standby late
	s.caughtUp(warm)
	want := "x"
	for _, c := range []struct{ sql, want string }{
		{"ALTER ROLE alice SET search_path = other", "other"},
		{"ALTER ROLE alice RESET search_path", "x"},
		{"ALTER DATABASE postgres SET search_path = other", "other"},
		{"ALTER ROLE alice IN DATABASE postgres SET search_path = public", "x"},
	} {
		conn := s.connect(t, route.Auto, "")
		s.primary.Exec(c.sql)
		s.two.CatchUp(s.primary)
		for range 10 {
			if got, on := s.text(conn, "SELECT s FROM t WHERE n = 1"); got != want || on != "one" {
				t.Fatalf("%s: a session from before it reads %q on %s, want %q", c.sql, got, on, want)
			}
			<-time.After(10 * time.Millisecond)
		}
		want = c.want
		later := s.connect(t, route.Auto, "")
		until(t, "a later session to read from the standby", func() bool {
			got, on := s.text(later, "SELECT s FROM t WHERE n = 1")
			if got != want {
				t.Fatalf("%s: a session from after it reads %q on %s, want %q", c.sql, got, on, want)
			}
			return on == "two"
		})
	}
}

// What a standby reports is made as it is on the primary, whatever its own configuration and its reload say.
func TestParametersAreThePrimarys(t *testing.T) {
	s := startSplit(t)
	s.two.Exec("ALTER SYSTEM SET timezone = 'Asia/Tokyo'")
	s.two.Exec("ALTER SYSTEM SET datestyle = 'SQL, DMY'")
	s.two.Exec("SELECT pg_reload_conf()")
	until(t, "the standby's configuration", func() bool { return s.two.Query("SHOW timezone") == "Asia/Tokyo" })
	conn := s.connect(t, route.Auto, "")
	const sql = "SELECT '2020-02-01 12:00:00+00'::timestamptz::text"
	check := func(want string) {
		t.Helper()
		until(t, "a read on the standby", func() bool {
			got, on := s.text(conn, sql)
			if got != want {
				t.Fatalf("%q on %s, want %q", got, on, want)
			}
			return on == "two"
		})
	}
	check(s.primary.Query(sql))
	for _, c := range []struct{ sql, want string }{
		{"SET TimeZone = 'America/New_York'", "2020-02-01 07:00:00-05"}, {"SET DateStyle = 'German'", "01.02.2020 07:00:00 EST"},
		{"RESET DateStyle", "2020-02-01 07:00:00-05"}, {"RESET ALL", s.primary.Query(sql)}, {"SET TimeZone = 'UTC'", "2020-02-01 12:00:00+00"}, {"DISCARD ALL", s.primary.Query(sql)},
	} {
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, c.sql); err != nil {
			t.Fatal(err)
		}
		check(c.want)
	}
}

// Where what roles and databases set cannot be read a session is served by the primary, and does not end.
func TestSettingsOfRolesThatCannotBeRead(t *testing.T) {
	s := startSplit(t)
	before := s.connect(t, route.Auto, "")
	s.caughtUp(before)
	conn := s.connect(t, route.Auto, "") // which has no standby yet
	reads := func(what string, conn *pgx.Conn, want string) {
		t.Helper()
		for range 10 {
			if got, on := s.text(conn, "SELECT s FROM t WHERE n = 1"); got != "x" || on != want {
				t.Fatalf("%s reads %q on %s, want %s", what, got, on, want)
			}
		}
	}
	s.primary.Exec("REVOKE SELECT ON pg_catalog.pg_db_role_setting FROM PUBLIC")
	s.two.CatchUp(s.primary)
	until(t, "the standby to be asked", func() bool {
		reads("a session whose standby does not say", conn, "one")
		return s.two.LogContains("permission denied for table pg_db_role_setting")
	})
	reads("a session whose standby did not say", conn, "one")
	reads("a session whose primary does not say", s.connect(t, route.Auto, ""), "one")
	reads("a session that has its standby", before, "two")
	s.primary.Exec("GRANT SELECT ON pg_catalog.pg_db_role_setting TO PUBLIC")
	s.two.CatchUp(s.primary)
	later := s.connect(t, route.Auto, "")
	until(t, "a later session to read from the standby", func() bool {
		_, on := s.text(later, "SELECT s FROM t WHERE n = 1")
		return on == "two"
	})
}

// A session that goes on with another login on a primary has the settings of that one, and its standby too.
func TestSettingsOfRolesAfterAMove(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SCHEMA other; CREATE TABLE other.t (n int, s text); INSERT INTO other.t VALUES (1, 'other'); GRANT USAGE ON SCHEMA other TO alice; GRANT SELECT ON other.t TO alice")
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	s.primary.Exec("ALTER ROLE alice SET search_path = other")
	s.two.CatchUp(s.primary)
	s.know.Hear(rt.Primary("one", s.primary.Addr(), 2), rt.Standby("two", s.two.Addr(), 2))
	until(t, "the session to lose its server", func() bool {
		return s.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'") == "0"
	})
	until(t, "a read on the standby", func() bool {
		got, on := s.text(conn, "SELECT s FROM t WHERE n = 1")
		if got != "other" {
			t.Fatalf("%q on %s", got, on)
		}
		return on == "two"
	})
}
