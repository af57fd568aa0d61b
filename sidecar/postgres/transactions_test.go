package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/sidecar/postgres/postgrestest"
)

// Of all sessions those count that would lose something by a stop.
func TestProbeCountsTransactions(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.server.Exec("ALTER ROLE " + RouterRole + " PASSWORD '" + postgrestest.Password + "'")
	count := func(what string, want int) {
		t.Helper()
		m.until(what, func() bool { return m.probe().Transactions == want })
	}
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	count("nothing", 0)
	client, router := m.server.Connect("postgres", "postgres"), m.server.Connect(RouterRole, "postgres")
	exec(client, "SELECT 1")
	exec(router, "BEGIN")
	own, err := m.connectLocal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close(context.WithoutCancel(t.Context()))
	exec(own, "BEGIN")
	count("idle sessions and howdah's own", 0)
	if got := m.probe().OldestTransaction; got != 0 {
		t.Errorf("the oldest of none has been for %s", got)
	}
	exec(client, "BEGIN")
	count("a transaction", 1)
	exec(client, "SELECT pg_sleep(0.02)")
	if got := m.probe().OldestTransaction; got.Milliseconds() < 20 {
		t.Errorf("the oldest has been for %s", got)
	}
	asleep := make(chan error, 1)
	ctx, wake := context.WithCancel(t.Context())
	defer wake()
	sleeper := m.server.Connect("postgres", "postgres")
	go func() {
		_, err := sleeper.Exec(ctx, "SELECT pg_sleep(600)")
		asleep <- err
	}()
	count("a statement by itself too", 2)
	if _, err := client.Exec(t.Context(), "SELECT 1/0"); err == nil {
		t.Fatal("no error")
	}
	count("not one that has failed", 1)
	wake()
	<-asleep
	count("and not one that was cancelled", 0)
}
