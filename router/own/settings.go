package own

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// loginSettings is the query for what roles and databases set for a session of this user in this database (ALTER ROLE ... SET): a number that changes with any
// of it. xmin is in it so that what was changed and changed back is not taken for the same; a physical standby has the same.
func loginSettings(user, database string) string {
	return `SELECT pg_catalog.hashtextextended(coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.xmin, s.setconfig), ' ' ORDER BY s.setdatabase, s.setrole), '') COLLATE "C", 0)::pg_catalog.text
FROM pg_catalog.pg_db_role_setting s
WHERE s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) ` + user + `)])
AND s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) ` + database + `)])`
}

// LoginSettingsQuery asks a session's own connection for what LoginSettings returns.
var LoginSettingsQuery = loginSettings("session_user", "pg_catalog.current_database()")

var loginSettingsOf = loginSettings("$1::pg_catalog.name", "$2::pg_catalog.name")

// LoginSettings returns a text that stands for what roles and databases set on s for a session of user in database.
func (c *Connections) LoginSettings(ctx context.Context, s Server, user, database string) (string, error) {
	var text string
	err := c.Do(ctx, s, Lookups, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, loginSettingsOf, user, database).Scan(&text)
	})
	if err != nil {
		return "", fmt.Errorf("what roles and databases set: %w", err)
	}
	return text, nil
}
