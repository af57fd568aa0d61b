package postgres

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"howdah/sidecar/postgres/postgrestest"
)

func TestProbeErrors(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	m.probe()
	short := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := m.Probe(ctx)
		return err
	}
	known := func(err error) bool {
		return errors.Is(err, ErrNotListening) || errors.Is(err, ErrNotReady) || errors.Is(err, ErrPassword)
	}

	// Frozen: unknown, and nothing else; alive again at the first question after.
	m.server.Freeze()
	began := time.Now()
	if err := short(200 * time.Millisecond); err == nil || known(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("frozen: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a probe of 200 ms took %s", took)
	}
	m.server.Thaw()
	m.probe()

	// A restart between two probes breaks the kept connection; the next probe finds the new server.
	m.server.Restart()
	m.probe()

	// Shutting down in the smart way: a session is open, new ones are refused.
	m.server.Connect("postgres", "postgres")
	m.Close()
	m.server.Signal(syscall.SIGTERM)
	m.until("57P03", func() bool { return errors.Is(short(5*time.Second), ErrNotReady) })
	m.server.Kill()
	if err := short(5 * time.Second); !errors.Is(err, ErrNotListening) {
		t.Errorf("killed: %v", err)
	}
	m.start()
	m.Close()
	m.knows(func(s *Secrets) { s.Superuser = "wrong" })
	if err := short(5 * time.Second); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: %v", err)
	}
	m.server.Stop(postgrestest.Fast)
	if err := short(5 * time.Second); !errors.Is(err, ErrNotListening) {
		t.Errorf("stopped: %v", err)
	}
	m.o.SocketDir += "/missing"
	if err := short(5 * time.Second); err == nil || known(err) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket directory: %v", err)
	}
}

// TestProbeCounts checks what only a cluster in trouble shows: commits that wait for a standby, paused replay.
func TestProbeSyncWait(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	c := m.configure(Settings{Role: "primary", SynchronousStandbyNames: "nobody"})
	if c != ChangeReload {
		t.Fatal(c)
	}
	m.reload()
	m.until("synchronous", func() bool { return m.server.Query("SHOW synchronous_standby_names") == "nobody" })
	conn := m.server.Connect("postgres", "postgres")
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "CREATE TABLE waits (n int)")
		done <- err
	}()
	m.until("a commit that waits", func() bool { return m.probe().WaitingSyncCommits == 1 })
	// howdah's own work does not wait.
	m.knows(func(s *Secrets) { s.Router = "changed" })
	if err := m.EnsureRoles(t.Context()); err != nil {
		t.Error(err)
	}
	m.server.Stop(postgrestest.Immediate)
	if err := <-done; err == nil {
		t.Error("the commit was acknowledged")
	}
}

func BenchmarkProbe(b *testing.B) {
	m := newPrimary(b, "one")
	m.probe()
	for b.Loop() {
		if _, err := m.Probe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
