package postgrestest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Exec runs SQL as the superuser in the database postgres, over a connection of its own, and fails the
// test on an error. Several statements may be separated by semicolons.
func (s *Server) Exec(sql string) {
	s.t.Helper()
	if _, err := s.try("postgres", sql); err != nil {
		s.t.Fatalf("%s: %s: %v", s.Name, sql, err)
	}
}

// Query runs SQL as Exec does and returns the first column of the first row in text form; empty if NULL or no row.
func (s *Server) Query(sql string) string {
	s.t.Helper()
	v, err := s.try("postgres", sql)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.Name, sql, err)
	}
	return v
}

// Try is Query for a statement that may fail.
func (s *Server) Try(sql string) (string, error) { return s.try("postgres", sql) }

func (s *Server) try(db, sql string) (string, error) {
	if !s.Running() {
		return "", errNotRunning
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.SocketDSN("postgres", db))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	for _, r := range results {
		if len(r.Rows) > 0 && len(r.Rows[0]) > 0 {
			return string(r.Rows[0][0]), nil
		}
	}
	return "", nil
}

// Connect opens a pgx connection by TCP; it is closed at the test's end.
func (s *Server) Connect(role, db string) *pgx.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN(role, db))
	if err != nil {
		s.t.Fatalf("connect to %s as %s: %v", s.Name, role, err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Log returns what the server wrote to its log since it was started last.
func (s *Server) Log() string { return s.log.tail(0) }

// LogContains reports whether the log since the last start contains text.
func (s *Server) LogContains(text string) bool { return s.log.contains(text) }

// WaitLog returns once the log since the last start contains text; it fails the test after a minute.
func (s *Server) WaitLog(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	Until(ctx, s.t, "the log of "+s.Name+" to contain "+text, func() bool { return s.log.contains(text) })
}

// Until asks again every 10 ms until ok returns true, and fails the test when ctx ends first.
func Until(ctx context.Context, t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, ctx.Err())
		}
	}
}

// logBuffer is a server's stderr.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func (l *logBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf.Bytes(), []byte(s))
}

// tail returns the last lines; all if lines is 0.
func (l *logBuffer) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(l.buf.String(), "\n")
	if lines > 0 && len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--", from, to).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("copy %s to %s: %w: %s", from, to, err, out))
	}
}
