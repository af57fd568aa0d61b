package router_test

import (
	"fmt"
	"strings"
	"testing"

	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
	"howdah/sidecar/postgres/postgrestest"
)

// shown is what a session says of itself.
const shown = `SELECT session_user, current_database(), current_setting('work_mem'), current_setting('my.a', true), current_setting('howdah.route', true), current_setting('application_name'), current_setting('default_transaction_read_only')`

// startsAs opens a session with a startup packet and returns what the client is told: up to ReadyForQuery, without what differs by itself, and what the
// session says of itself; or the error.
func startsAs(t *testing.T, address string, packet []byte) (all []string, recovery string) {
	t.Helper()
	c := rt.Dial(t, address)
	defer c.Close()
	c.Send(packet)
	m := scram.NewClient(scram.Channel{}, "client-nonce")
	failed := func(body []byte) []string {
		e, err := wire.ParseError(body)
		if err != nil {
			t.Fatal(err)
		}
		return append(all, fmt.Sprintf("%s %s %s", e.Severity, e.Code, e.Message))
	}
	for {
		typ, body := c.Next()
		switch typ {
		case 'E':
			return failed(body), ""
		case 'v':
			all = append(all, fmt.Sprintf("v %q", body))
		case 'R':
			reply, err := m.Request(body)
			if err == nil && m.Challenged() && !m.Done() {
				creds, failed := scram.FromPassword("whoever", postgrestest.Password, m.Asked().Salt, m.Asked().Iterations)
				if failed != nil {
					t.Fatal(failed)
				}
				reply, err = m.Answer(creds)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(reply) > 0 {
				c.Send(reply)
			}
		}
		if typ == 'Z' {
			break
		}
	}
	for _, sql := range []string{shown, "SELECT pg_is_in_recovery()"} {
		c.Send(rt.Query(sql))
		for typ := byte(0); typ != 'Z'; {
			var body []byte
			switch typ, body = c.Next(); {
			case typ == 'E':
				all = failed(body)
			case typ == 'D' && sql == shown:
				all = append(all, fmt.Sprintf("%q", body))
			case typ == 'D':
				recovery = string(body[6:])
			}
		}
	}
	return all, recovery
}

// A startup packet means to the router what it means to PostgreSQL, and PostgreSQL gets it as it is: which server a session is on is which PostgreSQL shows
// that it has asked for.
func TestStartupPacketsAsPostgreSQLReadsThem(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE DATABASE other")
	long := strings.Repeat("n", 63)
	s.primary.CreateRole(long)
	s.two.CatchUp(s.primary)
	plain := start(t)
	plain.know.Hear(rt.Primary("one", s.primary.Addr(), 1), rt.Standby("two", s.two.Addr(), 1))
	until(t, "both servers to be known", func() bool { return plain.Status().Primary == "one" && len(plain.Status().Standbys) == 1 })
	alice := func(more ...string) []byte {
		return rt.Startup(append([]string{"user", "alice", "database", "postgres"}, more...)...)
	}
	for name, k := range map[string]struct {
		packet  []byte
		standby bool
	}{
		"plain":                              {packet: alice()},
		"user twice":                         {packet: alice("user", "bob")},
		"database twice":                     {packet: alice("database", "other")},
		"options twice":                      {packet: alice("options", "-c work_mem=7MB", "options", "-c my.a=b")},
		"a setting twice":                    {packet: alice("my.a", "1", "my.a", "2")},
		"a route twice":                      {packet: alice("howdah.route", "ro", "howdah.route", "rw")},
		"a route twice, the other last":      {packet: alice("howdah.route", "rw", "howdah.route", "ro"), standby: true},
		"a route twice in options":           {packet: alice("options", "-c howdah.route=rw -c howdah.route=ro"), standby: true},
		"a route before one in options":      {packet: alice("howdah.route", "rw", "options", "-c howdah.route=ro")},
		"options twice, a route in the last": {packet: alice("options", "-c howdah.route=ro", "options", "-c work_mem=7MB")},
		"in another case":                    {packet: alice("HOWDAH.Route", "ro"), standby: true},
		"escapes":                            {packet: alice("options", `-c my.a=b\ c\\d\-e  --work-mem=7MB`)},
		"an escaped route":                   {packet: alice("options", `-c my.a=x\ -c\ my.b=y -c howdah.r\oute=r\o`), standby: true},
		"a switch that takes an argument":    {packet: alice("options", "-S 7000 -c howdah.route=ro"), standby: true},
		"a switch that is not one":           {packet: alice("options", "stray -c howdah.route=ro")},
		"read only":                          {packet: alice("default_transaction_read_only", "tr"), standby: true},
		"read only, in options":              {packet: alice("options", "-c default-transaction-read-only=1"), standby: true},
		"not read only after all":            {packet: alice("default_transaction_read_only", "on", "default_transaction_read_only", "off")},
		"an unknown setting":                 {packet: alice("no_such_setting", "1")},
		"a value that is none":               {packet: alice("work_mem", "much")},
		"replication off":                    {packet: alice("replication", "off")},
		"replication of what":                {packet: alice("replication", "sideways")},
		"no user":                            {packet: rt.Startup("database", "postgres")},
		"nothing":                            {packet: rt.Startup()},
		"a user without a name":              {packet: rt.Startup("user", "", "database", "postgres")},
		"no database":                        {packet: rt.Startup("user", "alice")},
		"a database without a name":          {packet: rt.Startup("user", "alice", "database", "")},
		"a longer user":                      {packet: rt.Startup("user", long+"more", "database", "postgres")},
		"a longer database":                  {packet: alice("database", strings.Repeat("d", 80))},
		"_pq_":                               {packet: rt.StartupOf(3<<16|9999, "user", "alice", "database", "postgres", "_pq_.a", "1", "my.a", "2", "_pq_.b", "")},
		"a newer minor version":              {packet: rt.StartupOf(3<<16|7, "user", "alice", "database", "postgres")},
	} {
		t.Run(name, func(t *testing.T) {
			direct, _ := startsAs(t, s.primary.Addr(), k.packet)
			for way, through := range map[string]*rig{"passed through": plain, "SCRAM ended in the router": s.rig} {
				got, recovery := startsAs(t, through.Address(route.Auto).String(), k.packet)
				if a, b := strings.Join(direct, "; "), strings.Join(got, "; "); a != b {
					t.Errorf("%s: %s\ndirectly: %s", way, b, a)
				}
				if (recovery == "t") != k.standby {
					t.Errorf("%s: in recovery %q, want a standby: %v", way, recovery, k.standby)
				}
			}
		})
	}
}
