package local

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// TestSwitchoverDrains switches over while clients of the router are in transactions: one that comes to its end commits, on a primary that waits for it and
// nowhere else, and one that does not is waited for no longer than switchover_drain. An ordered restart waits as well.
func TestSwitchoverDrains(t *testing.T) {
	config := schema.DefaultClusterConfig()
	config.SwitchoverDrain = schema.Duration(time.Minute)
	config.Lease, config.SessionTTL = schema.Duration(10*time.Second), schema.Duration(20*time.Second) // a busy machine renews late
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}, Bootstrap: &config})
	must(t, r.Start(t.Context()))
	look := r.await(t, "a whole cluster", Look.Healthy)
	first := look.Primary()
	r.run(t, r.Router().Listen, "CREATE TABLE kept (n int)")

	// A transaction of 300 ms is under way when the switchover is asked for.
	conn, err := r.connect(t.Context(), r.Router().Listen)
	must(t, err)
	for _, sql := range []string{"BEGIN", "INSERT INTO kept VALUES (1)"} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	must(t, r.Switchover(t.Context(), first, ""))
	r.await(t, "the primary to wait for the transaction", func(l Look) bool {
		s := l.Of(first).Status.Self
		return s.Stopping && strings.Contains(s.Reason, "waiting for 1 transactions")
	})
	for _, sql := range []string{"SELECT pg_sleep(0.3)", "INSERT INTO kept VALUES (2)", "COMMIT"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	look = r.await(t, "the other member to serve", func(l Look) bool { return l.Healthy() && l.Primary() != first })
	second := look.Primary()
	conn.Close(t.Context())

	// A restart of the primary waits as well.
	conn, err = r.connect(t.Context(), r.Router().Listen)
	must(t, err)
	for _, sql := range []string{"BEGIN", "INSERT INTO kept VALUES (4)"} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	before, err := second.Postmaster()
	must(t, err)
	restarted := make(chan error, 1)
	go func() {
		out, err := r.howdah(t, append([]string{"restart", second.Name}, r.token()...)...)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		restarted <- err
	}()
	r.await(t, "the primary to wait for the transaction before its restart", func(l Look) bool {
		s := l.Of(second).Status.Self
		return s.Stopping && strings.Contains(s.Reason, "restarting as ordered: waiting for 1 transactions")
	})
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatalf("COMMIT before the restart: %v", err)
	}
	must(t, <-restarted)
	if after, err := second.Postmaster(); err != nil || after == before {
		t.Errorf("not restarted: %v", err)
	}
	conn.Close(t.Context())
	look = r.await(t, "a whole cluster after the restart", Look.Healthy)
	if look.Primary() != second {
		t.Fatalf("%s is the primary", look.Primary().Name)
	}

	// One that does not end.
	r.does(t, "config", "set", "switchover_drain=200ms")
	r.await(t, "the new bound", func(l Look) bool {
		return l.Of(second).Status.Config.SwitchoverDrain == schema.Duration(200*time.Millisecond)
	})
	conn, err = r.connect(t.Context(), r.Router().Listen)
	must(t, err)
	for _, sql := range []string{"BEGIN", "INSERT INTO kept VALUES (3)"} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	must(t, r.Switchover(t.Context(), second, ""))
	r.await(t, "the first member to serve again", func(l Look) bool { return l.Healthy() && l.Primary() == first })
	if _, err := conn.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("a transaction of an old primary was committed")
	}
	conn.Close(t.Context())
	direct, err := r.connect(t.Context(), first.Addresses.Postgres)
	must(t, err)
	defer direct.Close(t.Context())
	var kept string
	must(t, direct.QueryRow(t.Context(), "SELECT string_agg(n::text, ',' ORDER BY n) FROM kept").Scan(&kept))
	if kept != "1,2,4" {
		t.Errorf("kept: %s", kept)
	}
}
