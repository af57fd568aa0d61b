package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// AuthenticationSchema is howdah's own schema in the database postgres. It belongs to the superuser, and nobody else may put anything into it.
const AuthenticationSchema = "howdah"

// authenticationBody is what the function does: howdah.authentication(name) tells RouterRole, and nobody else, how a role may log in. An expired password
// is not told at all, so that nobody can forget to ask (CVE-2025-2291 was such a case); the comparison is that of get_role_password in PostgreSQL's
// src/backend/libpq/crypt.c.
const authenticationBody = `
	SELECT CASE WHEN a.rolvaliduntil < now() THEN NULL ELSE a.rolpassword END,
		coalesce(a.rolvaliduntil < now(), false), a.rolcanlogin, a.rolconnlimit
	FROM pg_catalog.pg_authid AS a WHERE a.rolname = wanted
`

// authenticationFunction runs as its owner, so it must look nothing up by a path that its caller chooses.
const authenticationFunction = `CREATE FUNCTION howdah.authentication(wanted name)
	RETURNS TABLE (verifier text, expired boolean, can_login boolean, connection_limit integer)
	LANGUAGE sql STABLE STRICT SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp AS $howdah$` + authenticationBody + `$howdah$`

// authenticationState is one row: the owner of the schema if that is no superuser, "" otherwise; whether schema and function are as they are made here.
const authenticationState = `
	WITH router AS (SELECT oid FROM pg_authid WHERE rolname = $1), me AS (SELECT oid FROM pg_authid WHERE rolname = current_user)
	SELECT coalesce((SELECT o.rolname::text FROM pg_namespace n JOIN pg_authid o ON o.oid = n.nspowner WHERE n.nspname = 'howdah' AND NOT o.rolsuper), ''),
	EXISTS (
		SELECT FROM pg_namespace n JOIN pg_proc p ON p.pronamespace = n.oid, router, me
		WHERE n.nspname = 'howdah' AND p.proname = 'authentication' AND p.proowner = me.oid AND n.nspowner = me.oid
		AND p.prosrc = $2 AND p.prosecdef AND p.proisstrict AND p.provolatile = 's' AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp']
		AND pg_get_function_arguments(p.oid) = 'wanted name'
		AND pg_get_function_result(p.oid) = 'TABLE(verifier text, expired boolean, can_login boolean, connection_limit integer)'
		AND (SELECT count(*) FROM pg_proc q WHERE q.pronamespace = n.oid AND q.proname = p.proname) = 1
		AND has_function_privilege(router.oid, p.oid, 'EXECUTE') AND has_schema_privilege(router.oid, n.oid, 'USAGE')
		AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee NOT IN (me.oid, router.oid) OR a.grantee = router.oid AND a.is_grantable)
		AND NOT EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.grantee <> me.oid AND (a.grantee <> router.oid OR a.privilege_type <> 'USAGE'))
	)`

// ensureAuthentication makes the function by which routers learn how a role may log in. It is made anew as a whole where anything about it, its owner or
// its rights is different.
func ensureAuthentication(ctx context.Context, c *pgx.Conn) error {
	var stranger string
	var right bool
	if err := c.QueryRow(ctx, authenticationState, RouterRole, authenticationBody).Scan(&stranger, &right); err != nil || right {
		return err
	}
	if stranger != "" {
		return fmt.Errorf("schema %s in database postgres belongs to %s, who could put anything in its place: rename it, or ALTER SCHEMA %s OWNER TO %s",
			AuthenticationSchema, stranger, AuthenticationSchema, SuperuserRole)
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"CREATE SCHEMA IF NOT EXISTS howdah",
			"ALTER SCHEMA howdah OWNER TO CURRENT_USER",
			// Every right that anybody has been given, by whomever, goes with what it was given on.
			`DO $do$ DECLARE r record; BEGIN
				FOR r IN SELECT p.oid::regprocedure AS f FROM pg_proc p WHERE p.pronamespace = 'howdah'::regnamespace AND p.proname = 'authentication' LOOP
					EXECUTE 'DROP ROUTINE ' || r.f;
				END LOOP;
				FOR r IN SELECT DISTINCT a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'howdah' AND a.grantee NOT IN (0, n.nspowner) LOOP
					EXECUTE format('REVOKE ALL ON SCHEMA howdah FROM %s CASCADE', r.grantee::regrole);
				END LOOP;
			END $do$`,
			"REVOKE ALL ON SCHEMA howdah FROM PUBLIC",
			authenticationFunction,
			"REVOKE ALL ON FUNCTION howdah.authentication(name) FROM PUBLIC",
			"GRANT USAGE ON SCHEMA howdah TO " + RouterRole,
			"GRANT EXECUTE ON FUNCTION howdah.authentication(name) TO " + RouterRole,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
