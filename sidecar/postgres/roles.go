package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// rewindFunctions are what pg_rewind calls on the server it copies from (its manual page, "Notes"), with their signatures.
var rewindFunctions = []string{
	"pg_catalog.pg_ls_dir(text, boolean, boolean)",
	"pg_catalog.pg_stat_file(text, boolean)",
	"pg_catalog.pg_read_binary_file(text)",
	"pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
}

// statsRole lets a router see which timeline a standby receives (pg_stat_wal_receiver): LSNs of two timelines must not be compared.
const statsRole = "pg_read_all_stats"

// EnsureRoles makes howdah's roles with their rights and passwords, and the function by which routers look roles up, on a primary; of
// the superuser it sees to the password only. What is right already is not written again. Passwords go to the server as SCRAM verifiers, never in clear.
func (p *Postgres) EnsureRoles(ctx context.Context) error {
	secrets := p.keys.present()
	var changed []string
	err := p.duties.do(ctx, func(c *pgx.Conn) (err error) {
		changed, err = ensurePasswords(ctx, c, secrets)
		return err
	})
	if err == nil {
		err = errors.Join(p.inForce(secrets, changed), p.duties.do(ctx, func(c *pgx.Conn) error { return ensureRights(ctx, c) }))
	}
	if err != nil {
		return fmt.Errorf("ensure roles: %w", err)
	}
	return nil
}

// ensurePasswords makes the roles and names those whose password it changed.
func ensurePasswords(ctx context.Context, c *pgx.Conn, secrets Secrets) (changed []string, err error) {
	for _, r := range []struct {
		name, password string
		ensure         func(ctx context.Context, c *pgx.Conn, name, password string) (bool, error)
	}{
		{SuperuserRole, secrets.Superuser, ensureSuperuser},
		{ReplicationRole, secrets.Replication, ensureReplication},
		{RewindRole, secrets.Rewind, ensureOther},
		{RouterRole, secrets.Router, ensureOther},
	} {
		is, err := r.ensure(ctx, c, r.name, r.password)
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", r.name, err)
		}
		if is {
			changed = append(changed, r.name)
		}
	}
	return changed, nil
}

// ensureRights gives the roles what they need besides a login.
func ensureRights(ctx context.Context, c *pgx.Conn) error {
	if err := ensureMembership(ctx, c, RouterRole, statsRole); err != nil {
		return fmt.Errorf("role %s: %w", RouterRole, err)
	}
	for _, f := range rewindFunctions {
		if err := ensureExecute(ctx, c, RewindRole, f); err != nil {
			return fmt.Errorf("role %s: %w", RewindRole, err)
		}
	}
	if err := ensureAuthentication(ctx, c); err != nil {
		return fmt.Errorf("function %s.authentication: %w", AuthenticationSchema, err)
	}
	return nil
}

// ensureSuperuser leaves everything but the password to the administrator.
func ensureSuperuser(ctx context.Context, c *pgx.Conn, name, password string) (changed bool, err error) {
	var stored string
	if err := c.QueryRow(ctx, "SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1", name).Scan(&stored); err != nil {
		return false, err
	}
	if verifierMatches(stored, password) {
		return false, nil
	}
	v, err := newVerifier(password)
	if err != nil {
		return false, err
	}
	_, err = c.Exec(ctx, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", name, v))
	return true, err
}

func ensureReplication(ctx context.Context, c *pgx.Conn, name, password string) (changed bool, err error) {
	return ensureRole(ctx, c, name, password, true)
}

func ensureOther(ctx context.Context, c *pgx.Conn, name, password string) (changed bool, err error) {
	return ensureRole(ctx, c, name, password, false)
}

func ensureRole(ctx context.Context, c *pgx.Conn, name, password string, replication bool) (changed bool, err error) {
	attributes := "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION"
	if replication {
		attributes = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS REPLICATION"
	}
	var stored string
	var right bool
	err = c.QueryRow(ctx, `SELECT coalesce(rolpassword, ''), rolcanlogin AND rolreplication = $2
		AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls)
		AND (rolvaliduntil IS NULL OR rolvaliduntil = 'infinity') FROM pg_authid WHERE rolname = $1`, name, replication).Scan(&stored, &right)
	missing := errors.Is(err, pgx.ErrNoRows)
	if err != nil && !missing {
		return false, err
	}
	v := stored
	if changed = !verifierMatches(stored, password); changed {
		if v, err = newVerifier(password); err != nil {
			return false, err
		}
	}
	if !missing && right && !changed {
		return false, nil
	}
	verb := "ALTER"
	if missing {
		verb = "CREATE"
	}
	// A verifier is base64 and punctuation: nothing in it needs to be escaped.
	_, err = c.Exec(ctx, fmt.Sprintf("%s ROLE %s %s PASSWORD '%s' VALID UNTIL 'infinity'", verb, name, attributes, v))
	return changed, err
}

func ensureExecute(ctx context.Context, c *pgx.Conn, role, function string) error {
	var has bool
	if err := c.QueryRow(ctx, "SELECT has_function_privilege($1, $2, 'EXECUTE')", role, function).Scan(&has); err != nil || has {
		return err
	}
	_, err := c.Exec(ctx, fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s TO %s", function, role))
	return err
}

func ensureMembership(ctx context.Context, c *pgx.Conn, role, group string) error {
	var has bool
	if err := c.QueryRow(ctx, "SELECT pg_has_role($1, $2, 'USAGE')", role, group).Scan(&has); err != nil || has {
		return err
	}
	_, err := c.Exec(ctx, fmt.Sprintf("GRANT %s TO %s", group, role))
	return err
}
