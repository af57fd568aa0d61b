package router_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
)

// PostgreSQL reports a commit as done whose wait for a synchronous standby was cancelled; the router does not.
func testCancelledWait(t *testing.T, c *cluster) {
	c.primary.Exec("CREATE TABLE waits (n int)")
	c.primary.Exec("GRANT ALL ON waits TO alice")
	c.two.CatchUp(c.primary)
	reload := func(setting string) {
		t.Helper()
		c.primary.Exec(setting)
		c.primary.Exec("SELECT pg_reload_conf()")
	}
	reload("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	t.Cleanup(func() { reload("ALTER SYSTEM RESET synchronous_standby_names") })
	until(t, "the setting to be in force", func() bool { return c.primary.Query("SHOW synchronous_standby_names") == "nobody" })
	for i, sql := range []string{"INSERT INTO waits VALUES (0)", "INSERT INTO waits VALUES ($1)", "BEGIN; INSERT INTO waits VALUES (2); COMMIT; SELECT 1"} {
		conn := c.connect(t, route.RW, "&application_name=waits")
		until(t, "the new session to know the setting", func() bool { return one[string](t, conn, "SHOW synchronous_standby_names") == "nobody" })
		args := []any{pgx.QueryExecModeSimpleProtocol}
		if i == 1 {
			args = []any{1} // a prepared statement, which is committed at the Sync
		}
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(context.Background(), sql, args...)
			done <- err
		}()
		until(t, "the commit to wait", func() bool {
			return c.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event = 'SyncRep'") == "1"
		})
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; code(err) != "08007" {
			t.Errorf("%s: %v, want 08007", sql, err)
		}
		if n := one[int](t, conn, "SELECT count(*) FROM waits"); n != i+1 {
			t.Errorf("%s: the session goes on and sees %d rows, want %d", sql, n, i+1)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
		until(t, "the session to be gone", func() bool {
			return c.primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits'") == "0"
		})
	}
}
