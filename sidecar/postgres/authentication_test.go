package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

// looksUp returns what RouterRole is told, as one line; "" for a role that does not exist.
func looksUp(t *testing.T, s *postgrestest.Server, password, role string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(s.DSN(RouterRole, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = password
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var line string
	err = c.QueryRow(t.Context(), "SELECT coalesce(string_agg(concat_ws(' ', coalesce(left(verifier, 14), 'none'), expired, can_login, connection_limit), ','), '') FROM howdah.authentication($1)", role).Scan(&line)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestAuthenticationFunction(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.config.HBA = []string{"host all all all scram-sha-256", "host replication all all scram-sha-256"}
	m.configure(Settings{Role: schema.RolePrimary})
	m.reload()
	m.server.CreateRole("alice")
	m.server.Exec("ALTER ROLE alice CONNECTION LIMIT 7")
	m.server.CreateRole("late", "VALID UNTIL '2001-01-01'")
	m.server.CreateRole("later", "VALID UNTIL 'infinity'")
	m.server.Exec("CREATE ROLE grouped PASSWORD NULL")
	m.server.Exec("SET password_encryption = md5; CREATE ROLE older LOGIN PASSWORD 'x'")
	all := func(when string, on *postgrestest.Server) {
		t.Helper()
		for role, want := range map[string]string{
			"alice": "SCRAM-SHA-256$ f t 7", "late": "none t t -1", "later": "SCRAM-SHA-256$ f t -1", "grouped": "none f f -1", "nobody": "", "": "",
			"x'; DROP ROLE alice --": "", "Alice": "",
		} {
			if got := looksUp(t, on, m.keys.present().Router, role); got != want {
				t.Errorf("%s: %s is told as %q, want %q", when, role, got, want)
			}
		}
		if got := looksUp(t, on, m.keys.present().Router, "older"); !strings.HasPrefix(got, "md5") || !strings.HasSuffix(got, " f t -1") {
			t.Errorf("%s: md5 is told as %q", when, got)
		}
	}
	all("at first", m.server)
	standby := m.server.NewStandby(postgrestest.WithName("two"))
	standby.CatchUp(m.server)
	all("on a standby", standby)

	const written = "SELECT p.xmin || ' ' || n.xmin FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'howdah'"
	before := m.server.Query(written)
	if err := m.EnsureRoles(t.Context()); err != nil || m.server.Query(written) != before {
		t.Errorf("what was right was written again (%v)", err)
	}
	// Nobody else may call it, and nobody may put anything beside it.
	for _, sql := range []string{"SELECT * FROM howdah.authentication('alice')", "CREATE FUNCTION howdah.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"} {
		if _, err := m.server.Connect("alice", "postgres").Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s by alice: %v", sql, err)
		}
	}
	// A path that the caller sets leads nowhere.
	m.server.Exec("CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC; CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''2000-01-01''::timestamptz'; ALTER ROLE howdah_router SET search_path = trap, pg_catalog")
	all("with another path", m.server)

	for _, damage := range []string{
		"DROP SCHEMA howdah CASCADE",
		"DROP FUNCTION howdah.authentication(name)",
		"ALTER FUNCTION howdah.authentication(name) OWNER TO alice",
		"ALTER FUNCTION howdah.authentication(name) SECURITY INVOKER",
		"ALTER FUNCTION howdah.authentication(name) RESET ALL",
		"ALTER FUNCTION howdah.authentication(name) SET search_path = public",
		"GRANT EXECUTE ON FUNCTION howdah.authentication(name) TO PUBLIC",
		"GRANT EXECUTE ON FUNCTION howdah.authentication(name) TO alice WITH GRANT OPTION",
		"REVOKE EXECUTE ON FUNCTION howdah.authentication(name) FROM howdah_router",
		"REVOKE USAGE ON SCHEMA howdah FROM howdah_router",
		"GRANT CREATE ON SCHEMA howdah TO alice WITH GRANT OPTION",
		"GRANT CREATE ON SCHEMA howdah TO howdah_router",
		"GRANT USAGE ON SCHEMA howdah TO PUBLIC",
		"CREATE FUNCTION howdah.authentication(text) RETURNS TABLE (verifier text, expired boolean, can_login boolean, connection_limit integer) LANGUAGE sql AS $$ SELECT 'x', false, true, -1 $$",
		"CREATE OR REPLACE FUNCTION howdah.authentication(wanted name) RETURNS TABLE (verifier text, expired boolean, can_login boolean, connection_limit integer) LANGUAGE sql AS $$ SELECT 'x', false, true, -1 $$",
		"DROP FUNCTION howdah.authentication(name); CREATE FUNCTION howdah.authentication(wanted name) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
		"DROP OWNED BY howdah_router; DROP ROLE howdah_router",
	} {
		m.server.Exec(damage)
		if err := m.EnsureRoles(t.Context()); err != nil {
			t.Fatalf("after %s: %v", damage, err)
		}
		all("after "+damage, m.server)
		const open = `SELECT (SELECT nspacl::text FROM pg_namespace WHERE nspname = 'howdah') || (SELECT string_agg(proowner::regrole || proacl::text, ' ') FROM pg_proc WHERE pronamespace = 'howdah'::regnamespace)`
		if got := m.server.Query(open); got != "{postgres=UC/postgres,howdah_router=U/postgres}postgres{postgres=X/postgres,howdah_router=X/postgres}" {
			t.Errorf("after %s: rights %s", damage, got)
		}
	}
	m.server.Exec("ALTER SCHEMA howdah OWNER TO alice")
	if err := m.EnsureRoles(t.Context()); err == nil || !strings.Contains(err.Error(), "belongs to alice") {
		t.Errorf("a schema of alice's: %v", err)
	}
}
