package own

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
)

// whose are the rows of pg_db_role_setting that count for a session of this user in this database (ALTER ROLE ... SET, ALTER DATABASE ... SET).
func whose(user, database string) string {
	return `pg_catalog.pg_db_role_setting s
WHERE s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) ` + user + `)])
AND s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) ` + database + `)])`
}

// loginMark is the query for a text that changes with any of them. xmin is in it so that what was changed and changed back is not taken for the same; a physical
// standby has the same.
func loginMark(user, database string) string {
	return `SELECT pg_catalog.hashtextextended(coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.xmin, s.setconfig), ' ' ORDER BY s.setdatabase, s.setrole), '') COLLATE "C", 0)::pg_catalog.text
FROM ` + whose(user, database)
}

// LoginMarkQuery asks a session's own connection for Login.Mark.
var LoginMarkQuery = loginMark("session_user", "pg_catalog.current_database()")

// loginOf asks for a Login: a row for each row that counts, with the mark in each, or one with nothing else. It runs on connections of this package, whose search_path is pg_catalog.
var loginOf = `SELECT (` + loginMark("$1::pg_catalog.name", "$2::pg_catalog.name") + `), coalesce(of.setrole <> 0, false), coalesce(of.setdatabase <> 0, false), of.config FROM (SELECT) one LEFT JOIN (
SELECT s.setrole, s.setdatabase, ARRAY(SELECT c FROM unnest(s.setconfig) WITH ORDINALITY AS u(c, n) WHERE lower(c) LIKE 'howdah.%' ORDER BY n) AS config FROM ` +
	whose("$1::pg_catalog.name", "$2::pg_catalog.name") + `) of ON true`

// Login is what roles and databases set for a session that logs in.
type Login struct {
	// Mark stands for all of it, whatever it is; it is not empty.
	Mark string
	// Rows are those that count, of their settings the router's own: howdah.something.
	Rows []route.Row
}

// LoginSettings returns what roles and databases set on s for a session of user in database.
func (c *Connections) LoginSettings(ctx context.Context, s Server, user, database string) (Login, error) {
	var l Login
	err := c.Do(ctx, s, Lookups, func(ctx context.Context, conn *pgx.Conn) error {
		l = Login{}
		rows, err := conn.Query(ctx, loginOf, user, database)
		if err != nil {
			return err
		}
		var r route.Row
		_, err = pgx.ForEachRow(rows, []any{&l.Mark, &r.OfRole, &r.InDatabase, &r.Config}, func() error {
			l.Rows = append(l.Rows, r)
			r.Config = nil
			return nil
		})
		return err
	})
	if err != nil {
		return Login{}, fmt.Errorf("what roles and databases set: %w", err)
	}
	return l, nil
}
