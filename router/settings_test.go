package router_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// user makes a role of which nothing has been asked yet, does what sql says of it (%s is its name), and returns its name.
func (s *splitCluster) user(sql ...string) string {
	s.marks++
	name := fmt.Sprintf("user%d", s.marks)
	s.primary.CreateRole(name)
	s.primary.Exec("GRANT ALL ON t TO " + name)
	for _, one := range sql {
		s.primary.Exec(strings.ReplaceAll(one, "%s", name))
	}
	s.two.CatchUp(s.primary)
	return name
}

// as opens a session of a user, and returns what it was warned of.
func (s *splitCluster) as(of route.Route, user, more string) (*pgx.Conn, []string) {
	s.t.Helper()
	c, err := pgx.ParseConfig(s.dsn(of, user, more))
	if err != nil {
		s.t.Fatal(err)
	}
	var warned []string
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		warned = append(warned, n.Severity+" "+n.Code+" "+n.Message+" | "+n.Detail)
	}
	conn, err := pgx.ConnectConfig(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn, warned
}

// where says where a session's reads and writes go, by the servers' own logs. A session that may read from the standby is given the time to.
func (s *splitCluster) where(conn *pgx.Conn, auto bool) (reads, writes string) {
	s.t.Helper()
	if auto {
		s.caughtUp(conn)
	}
	for range 10 {
		m := s.mark()
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "SELECT s FROM t WHERE n = 1 "+m); err != nil {
			s.t.Fatal(err)
		}
		if on := s.ran(m); !strings.Contains(reads, on) {
			reads += on
		}
	}
	m := s.mark()
	err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "UPDATE t SET s = 'x' WHERE n = 1 "+m)
	if writes = s.ran(m); err != nil {
		writes += " " + code(err)
	}
	return reads, writes
}

// shown is the row of SHOW CLIENTS of a user's only session.
func (s *splitCluster) shown(admin *pgx.Conn, user string) map[string]any {
	s.t.Helper()
	for _, r := range rows(s.t, admin, "SHOW CLIENTS") {
		if r["user"] == user {
			return r
		}
	}
	s.t.Fatalf("%s has no session", user)
	return nil
}

// routesShow waits until the console counts, by route, so many sessions, those that have it by what is set, those that read by consistency session, and those that have a standby.
func (s *splitCluster) routesShow(admin *pgx.Conn, want map[string]string) {
	s.t.Helper()
	until(s.t, fmt.Sprint("SHOW ROUTES to show ", want), func() bool {
		got := map[string]string{}
		for _, r := range rows(s.t, admin, "SHOW ROUTES") {
			got[r["route"].(string)] = fmt.Sprintf("%v %v %v %v", r["sessions"], r["set"], r["session"], r["reading"])
		}
		return maps.Equal(got, want)
	})
}

const autoShown, rwShown, roShown = "auto two one", "rw one one", "ro two two 25006"

// The route that is set for a role or a database is followed on the port of Listen, with PostgreSQL's own precedence, and nowhere else.
func TestRoutesThatAreSet(t *testing.T) {
	s := startSplit(t, withConsole)
	s.primary.Exec(`CREATE DATABASE other`)
	admin := s.console(t, "root")
	set := func(of string) string { return `ALTER ROLE %s ` + of }
	for name, c := range map[string]struct {
		listener  route.Route
		more      string
		set, undo []string
		want      string
		from      route.Source
	}{
		"nothing":                {route.Auto, "", nil, nil, autoShown, route.FromDefault},
		"a role that reads":      {route.Auto, "", []string{set(`SET "howdah.route" = 'ro'`)}, nil, roShown, route.FromRole},
		"a role that writes":     {route.Auto, "", []string{set(`SET howdah.route = 'primary'`)}, nil, rwShown, route.FromRole},
		"a database":             {route.Auto, "", []string{`ALTER DATABASE postgres SET howdah.route = 'ro'`}, []string{`ALTER DATABASE postgres RESET howdah.route`}, roShown, route.FromDatabase},
		"another database":       {route.Auto, "", []string{`ALTER DATABASE other SET howdah.route = 'ro'`, set(`IN DATABASE other SET howdah.route = 'ro'`)}, nil, autoShown, route.FromDefault},
		"all":                    {route.Auto, "", []string{`ALTER ROLE ALL SET howdah.route = 'rw'`}, []string{`ALTER ROLE ALL RESET howdah.route`}, rwShown, route.FromAll},
		"a role in its database": {route.Auto, "", []string{set(`SET howdah.route = 'ro'`), set(`IN DATABASE postgres SET howdah.route = 'auto'`)}, nil, autoShown, route.FromRoleInDatabase},
		"a role before its database": {
			route.Auto, "", []string{`ALTER DATABASE postgres SET howdah.route = 'ro'`, set(`SET howdah.route = 'rw'`)}, []string{`ALTER DATABASE postgres RESET howdah.route`},
			rwShown, route.FromRole,
		},
		"the port of rw":       {route.RW, "", []string{set(`SET howdah.route = 'ro'`)}, nil, rwShown, route.FromListener},
		"the port of ro":       {route.RO, "", []string{set(`SET howdah.route = 'rw'`)}, nil, roShown, route.FromListener},
		"the client":           {route.Auto, "&howdah.route=rw", []string{set(`SET howdah.route = 'ro'`)}, nil, rwShown, route.FromClient},
		"the client's options": {route.Auto, "&options=-c%20howdah.route%3Dauto", []string{set(`SET howdah.route = 'ro'`)}, nil, autoShown, route.FromClient},
		"read only":            {route.Auto, "", []string{set(`SET default_transaction_read_only = on`)}, nil, "auto two one 25006", route.FromDefault},
		"read only at startup": {route.Auto, "&default_transaction_read_only=on", []string{set(`SET howdah.route = 'rw'`)}, nil, roShown, route.FromClient},
	} {
		user := s.user(c.set...)
		conn, warned := s.as(c.listener, user, c.more)
		reads, writes := s.where(conn, strings.HasPrefix(c.want, "auto"))
		row := s.shown(admin, user)
		if got := fmt.Sprint(row["route"], " ", reads, " ", writes); got != c.want || row["route_from"] != c.from.String() || len(warned) > 0 {
			t.Errorf("%s: %s from %s, want %s from %s; %q", name, got, row["route_from"], c.want, c.from, warned)
		}
		if got, want := row["consistency"], map[bool]string{true: "session"}[strings.HasPrefix(c.want, "auto")]; got != want {
			t.Errorf("%s: consistency %q, want %q", name, got, want)
		}
		conn.Close(context.Background())
		for _, sql := range c.undo {
			s.primary.Exec(sql)
		}
	}
	s.routesShow(admin, map[string]string{"rw": "0 0 0 0", "ro": "0 0 0 0", "auto": "0 0 0 0"})
}

// A change counts for sessions that begin a second later; those that have begun keep theirs.
func TestRoutesThatAreSetAnew(t *testing.T) {
	s := startSplit(t, withConsole)
	admin := s.console(t, "root")
	before := s.connect(t, route.Auto, "")
	s.caughtUp(before)
	s.primary.Exec(`ALTER ROLE alice SET howdah.route = 'ro'`)
	changed := time.Now()
	until(t, "sessions to be ro", func() bool {
		begun := time.Now()
		conn := s.connect(t, route.Auto, "")
		defer conn.Close(context.Background())
		is := one[bool](t, conn, "SELECT pg_is_in_recovery()")
		if !is && begun.Sub(changed) > time.Second {
			t.Errorf("a session that began %s after the change is not", begun.Sub(changed))
		}
		return is
	})
	later := s.connect(t, route.Auto, "")
	if _, writes := s.where(before, true); writes != "one" {
		t.Errorf("a session from before writes on %s", writes)
	}
	if reads, writes := s.where(later, false); reads != "two" || writes != "two 25006" {
		t.Errorf("a later one reads on %s, writes on %s", reads, writes)
	}
	s.routesShow(admin, map[string]string{"rw": "0 0 0 0", "ro": "1 1 0 0", "auto": "1 0 1 1"})
	// An answer from before says auto still; the primary says rw, which a session that begins there follows at once.
	bob := s.user()
	s.as(route.Auto, bob, "")
	s.primary.Exec("ALTER ROLE " + bob + " SET howdah.route = 'rw'")
	conn, _ := s.as(route.Auto, bob, "")
	if reads, writes := s.where(conn, false); reads != "one" || writes != "one" {
		t.Errorf("reads on %s, writes on %s", reads, writes)
	}
}

// Who may set them, PostgreSQL says: a superuser, and whom one has let.
func TestWhoMaySetRoutes(t *testing.T) {
	s := startSplit(t)
	conn := s.connect(t, route.RW, "")
	const sql = `ALTER ROLE alice SET "howdah.route" = 'ro'`
	if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); code(err) != "42501" {
		t.Errorf("%v", err)
	}
	s.primary.Exec(`GRANT SET ON PARAMETER "howdah.route" TO alice`)
	if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
		t.Error(err)
	}
	s.two.CatchUp(s.primary)
	if !one[bool](t, s.connect(t, route.Auto, ""), "SELECT pg_is_in_recovery()") {
		t.Error("it is not followed")
	}
}

// A session that goes on with another login on a primary follows what is set by then.
func TestWhatIsSetAfterAMove(t *testing.T) {
	s := startSplit(t, withConsole)
	admin := s.console(t, "root")
	strict, writer := s.user(), s.user()
	one, _ := s.as(route.Auto, strict, "")
	two, _ := s.as(route.Auto, writer, "")
	s.caughtUp(one)
	s.caughtUp(two)
	s.primary.Exec("ALTER ROLE " + strict + " SET howdah.consistency = 'strict'")
	s.primary.Exec("ALTER ROLE " + writer + " SET howdah.route = 'rw'")
	s.two.CatchUp(s.primary)
	s.says(admin, strict, "session", "default")
	s.know.Hear(rt.Primary("one", s.primary.Addr(), 2), rt.Standby("two", s.two.Addr(), 2))
	until(t, "the sessions to lose their server", func() bool {
		return s.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'user%'") == "0"
	})
	s.where(one, true)
	s.says(admin, strict, "strict", "role")
	if reads, writes := s.where(two, false); reads != "one" || writes != "one" {
		t.Errorf("reads on %s, writes on %s", reads, writes)
	}
	if row := s.shown(admin, writer); row["route"] != "rw" || row["route_from"] != "role" || row["consistency"] != "" {
		t.Errorf("%v", row)
	}
}

// What is set for a role is what its reads see, unless the client says otherwise.
func TestConsistencyThatIsSet(t *testing.T) {
	s := startSplit(t, withConsole)
	admin := s.console(t, "root")
	strict, relaxed := s.user(`ALTER ROLE %s SET howdah.consistency = 'strict'`), s.user(`ALTER ROLE %s IN DATABASE postgres SET "howdah.consistency" = 'Eventual'`)
	open := func(user, more, consistency, from string) *pgx.Conn {
		t.Helper()
		conn, _ := s.as(route.Auto, user, more)
		s.caughtUp(conn)
		s.says(admin, user, consistency, from)
		return conn
	}
	set := open(strict, "", "strict", "role")
	old := open(relaxed, "", "eventual", "role in database")
	// The standby stands still; what is committed now only the primary has.
	s.two.Exec("SELECT pg_wal_replay_pause()")
	s.primary.Exec("UPDATE t SET s = 'new' WHERE n = 2")
	for range 20 {
		if got, on := s.text(set, "SELECT s FROM t WHERE n = 2"); got != "new" || on != "one" {
			t.Fatalf("strict: %q on %s", got, on)
		}
		if got, on := s.text(old, "SELECT s FROM t WHERE n = 2"); got != "x" || on != "two" {
			t.Fatalf("eventual: %q on %s", got, on)
		}
	}
	// SET counts before it, and RESET gives it back.
	do := func(sql, consistency, from string) {
		t.Helper()
		if err := s.exec(set, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
			t.Fatal(err)
		}
		if got, on := s.text(set, "SELECT s FROM t WHERE n = 2"); got != map[string]string{"strict": "new", "eventual": "x"}[consistency] {
			t.Errorf("%s: %q on %s", sql, got, on)
		}
		s.says(admin, strict, consistency, from)
	}
	do("SET howdah.consistency = 'eventual'", "eventual", "set")
	do("RESET howdah.consistency", "strict", "role")
	do("SET howdah.consistency = 'eventual'", "eventual", "set")
	do("RESET ALL", "strict", "role")
	s.two.Exec("SELECT pg_wal_replay_resume()")
	set.Close(context.Background())
	until(t, "its end", func() bool { return !strings.Contains(fmt.Sprint(rows(t, admin, "SHOW CLIENTS")), strict) })
	open(strict, "&howdah.consistency=session", "session", "client")
}

// says checks what the console says of the consistency of a user's session.
func (s *splitCluster) says(admin *pgx.Conn, user, consistency, from string) {
	s.t.Helper()
	if row := s.shown(admin, user); row["consistency"] != consistency || row["consistency_from"] != from {
		s.t.Errorf("%s: %v from %v, want %s from %s", user, row["consistency"], row["consistency_from"], consistency, from)
	}
}

// A value that is none is told as PostgreSQL tells such, by a WARNING at login. It is no route, and no consistency that is weaker than any.
func TestWhatIsSetAndIsNone(t *testing.T) {
	s := startSplit(t, withConsole)
	admin := s.console(t, "root")
	user := s.user(`ALTER ROLE %s SET howdah.route = 'rwo'`, `ALTER ROLE %s IN DATABASE postgres SET howdah.route = 'x'`, `ALTER ROLE %s SET howdah.consistency = 'strickt'`)
	conn, warned := s.as(route.Auto, user, "")
	want := []string{
		`WARNING 22023 invalid value for parameter "howdah.route": "x" | It is set for this role or database, and not followed.`,
		`WARNING 22023 invalid value for parameter "howdah.route": "rwo" | It is set for this role or database, and not followed.`,
		`WARNING 22023 invalid value for parameter "howdah.consistency": "strickt" | It is set for this role or database. Reads are strict instead.`,
	}
	if fmt.Sprint(warned) != fmt.Sprint(want) {
		t.Errorf("%q", warned)
	}
	if reads, writes := s.where(conn, true); reads != "two" || writes != "one" {
		t.Errorf("reads on %s, writes on %s", reads, writes)
	}
	s.says(admin, user, "strict", "role")
	if row := s.shown(admin, user); row["route"] != "auto" || row["route_from"] != "default" {
		t.Errorf("%v", row)
	}
	// Who chooses is not warned, nor is who does not come that way.
	for _, c := range []struct {
		of   route.Route
		more string
	}{{route.Auto, "&howdah.route=auto&howdah.consistency=session"}, {route.RW, ""}, {route.RO, ""}} {
		if _, warned := s.as(c.of, user, c.more); len(warned) > 0 {
			t.Errorf("%s %s: %q", c.of, c.more, warned)
		}
	}
	// psql shows it, and goes on.
	if out, err := s.tool(t, route.Auto, "psql", "-U", user, "-X", "-At", "-c", "SELECT 'fine'"); err != nil || !strings.Contains(out, "fine") || strings.Count(out, "WARNING:") != 3 || !strings.Contains(out, "HINT:  Available values: rw") {
		t.Errorf("%v: %s", err, out)
	}
}

// A session of which it is not known what is set for it is auto and reads from no standby, so it is not weaker than what is set. It waits for that no longer than it may.
func TestWhatIsSetIsNotKnown(t *testing.T) {
	s := startSplit(t, withConsole)
	admin := s.console(t, "root")
	s.caughtUp(s.connect(t, route.Auto, ""))
	check := func(what, more string) {
		t.Helper()
		user := s.user(`ALTER ROLE %s SET howdah.consistency = 'strict'`)
		begun := time.Now()
		conn, _ := s.as(route.Auto, user, more)
		t.Logf("%s: a login took %s", what, time.Since(begun))
		if reads, writes := s.where(conn, false); reads != "one" || writes != "one" {
			t.Errorf("%s: reads on %s, writes on %s", what, reads, writes)
		}
		if row := s.shown(admin, user); more == "" && (row["route"] != "auto" || row["route_from"] != "unknown") {
			t.Errorf("%s: %v", what, row)
		}
	}
	s.primary.Exec("REVOKE SELECT ON pg_catalog.pg_db_role_setting FROM PUBLIC")
	check("they do not say", "")
	check("they do not say", "&howdah.consistency=eventual")
	s.primary.Exec("GRANT SELECT ON pg_catalog.pg_db_role_setting TO PUBLIC")
	s.two.CatchUp(s.primary)
	// The question hangs: somebody has locked the table.
	lock := s.primary.Connect("postgres", "postgres")
	if _, err := lock.Exec(t.Context(), "BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	unlocked := make(chan error)
	time.AfterFunc(3*time.Second, func() { // PostgreSQL itself reads it at login
		_, err := lock.Exec(context.Background(), "ROLLBACK")
		unlocked <- err
	})
	defer func() {
		if err := <-unlocked; err != nil {
			t.Error(err)
		}
	}()
	conn, _ := s.as(route.Auto, "bob", "")
	if reads, _ := s.where(conn, false); reads != "one" {
		t.Errorf("reads on %s", reads)
	}
}

// Without a primary that answers a session goes where it is set to go, as a standby says or as was known before.
func TestWhatIsSetWithoutAPrimary(t *testing.T) {
	s := startSplit(t)
	known, unknown := s.user(`ALTER ROLE %s SET howdah.route = 'ro'`), s.user(`ALTER ROLE %s SET howdah.route = 'ro'`)
	reads := func(what, user string) {
		t.Helper()
		conn, _ := s.as(route.Auto, user, "&connect_timeout=60")
		if got := one[string](t, conn, "SHOW cluster_name"); got != "two" {
			t.Errorf("%s: on %s", what, got)
		}
	}
	reads("with a primary", known)
	<-time.After(1100 * time.Millisecond) // what is known must not be new
	s.primary.Freeze()
	defer s.primary.Thaw()
	reads("the primary does not answer", known)
	s.know.Hear(with(rt.Primary("one", s.primary.Addr(), 1), func(s *schema.Status) { s.State = schema.StateFenced }))
	reads("there is no primary", unknown)
}

// Where logins are passed through the route is followed all the same; without the router's own role nothing is looked up.
func TestWhatIsSetWithPassThrough(t *testing.T) {
	s := startSplit(t, func(o *router.Options) { o.AuthType = router.AuthPassThrough })
	user := s.user(`ALTER ROLE %s SET howdah.route = 'ro'`)
	conn, _ := s.as(route.Auto, user, "")
	if reads, writes := s.where(conn, false); reads != "two" || writes != "two 25006" {
		t.Errorf("reads on %s, writes on %s", reads, writes)
	}
	none := s.user(`ALTER ROLE %s SET howdah.route = 'none'`)
	if _, warned := s.as(route.Auto, none, ""); len(warned) != 1 {
		t.Errorf("%q", warned)
	}
	s.rig = start(t)
	s.know.Hear(rt.Primary("one", s.primary.Addr(), 1), rt.Standby("two", s.two.Addr(), 1))
	conn, _ = s.as(route.Auto, user, "")
	if reads, writes := s.where(conn, false); reads != "one" || writes != "one" {
		t.Errorf("without its own role: reads on %s, writes on %s", reads, writes)
	}
}
