package own_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) { postgrestest.Main(m) }

// patience is for a busy machine.
const patience = time.Minute

// connections makes Connections that are closed at the test's end and must leave no goroutine behind.
func connections(t *testing.T, change ...func(*own.Options)) *own.Connections {
	t.Helper()
	before := goleak.IgnoreCurrent()
	o := own.Options{
		Password: func() (string, error) { return postgrestest.Password, nil },
		Router:   "router-1", DialTimeout: patience, Timeout: patience, Now: boottime.Now, Log: zap.NewNop(),
	}
	for _, f := range change {
		f(&o)
	}
	c := own.New(o)
	t.Cleanup(func() {
		c.Close()
		goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"), goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx"), goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
	})
	return c
}

func primary(s *postgrestest.Server, epoch schema.Epoch) own.Server {
	return own.Server{Member: "one", Address: s.Addr(), Epoch: epoch}
}

// text asks one question.
func text(c *own.Connections, s own.Server, use own.Use, sql string) (string, error) {
	var answer string
	err := c.Do(context.Background(), s, use, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sql).Scan(&answer)
	})
	return answer, err
}

func mustText(t *testing.T, c *own.Connections, s own.Server, use own.Use, sql string) string {
	t.Helper()
	answer, err := text(c, s, use, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	postgrestest.Until(ctx, t, what, ok)
}

const pid, mine = "SELECT pg_backend_pid()::text", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'howdah_router'"

func TestWithPostgres(t *testing.T) {
	one := postgrestest.Start(t, postgrestest.WithName("one"))
	one.CreateRole(own.Role)
	two := one.NewStandby(postgrestest.WithName("two"))
	two.CatchUp(one)
	for name, f := range map[string]func(t *testing.T, one, two *postgrestest.Server){
		"one connection for each use": testUses, "withdrawn": testWithdrawn, "nothing is written": testReadOnly,
		"password": testPassword, "closed": testClosed, "hung": testHung, "timeout": testTimeout, "restart": testRestart,
	} {
		t.Run(name, func(t *testing.T) { f(t, one, two) })
	}
}

func testUses(t *testing.T, one, two *postgrestest.Server) {
	c := connections(t)
	p, s := primary(one, 1), own.Server{Member: "two", Address: two.Addr()}
	if _, err := text(c, p, own.Samples, pid); !errors.Is(err, own.ErrWithdrawn) || !strings.Contains(err.Error(), "one") {
		t.Errorf("a server that is in no picture: %v", err)
	}
	if err := c.OnPrimary(context.Background(), own.Lookups, nil); !errors.Is(err, own.ErrNoPrimary) {
		t.Errorf("no primary: %v", err)
	}
	c.Set([]own.Server{p, s})
	if got := c.Stats(); got != (own.Stats{}) {
		t.Errorf("before anybody asked: %+v", got)
	}
	if got := mustText(t, c, s, own.Samples, "SELECT pg_is_in_recovery() || ' ' || current_setting('application_name')"); got != "true howdah router router-1" {
		t.Errorf("the standby: %q", got)
	}
	first := mustText(t, c, p, own.Samples, pid)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := text(c, p, own.Samples, pid); err != nil || got != first {
				t.Errorf("another connection: %q, not %q (%v)", got, first, err)
			}
		})
	}
	wg.Wait()
	if got := mustText(t, c, p, own.Lookups, pid); got == first {
		t.Error("two uses share a connection")
	}
	if got := one.Query(mine); got != "2" {
		t.Errorf("%s connections to the primary", got)
	}
	if got := c.Stats(); got != (own.Stats{Opened: 3, Open: 3}) {
		t.Errorf("%+v", got)
	}
	if got, ok := c.Primary(); !ok || got != p {
		t.Errorf("primary %+v %v", got, ok)
	}
	// A picture that says the same cuts nothing off.
	c.Set([]own.Server{s, p})
	if got := mustText(t, c, p, own.Samples, pid); got != first {
		t.Error("a connection was given up for nothing")
	}
}

// A new epoch, also of the same server, ends what belongs to the old one at once, in the middle of a statement too.
func testWithdrawn(t *testing.T, one, _ *postgrestest.Server) {
	c := connections(t)
	old := primary(one, 1)
	c.Set([]own.Server{old})
	mustText(t, c, old, own.Lookups, pid)
	slept := make(chan error, 1)
	go func() {
		_, err := text(c, old, own.Samples, "SELECT pg_sleep(3600)::text")
		slept <- err
	}()
	until(t, "the statement has begun", func() bool {
		return one.Query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'howdah_router' AND state = 'active'") == "1"
	})
	c.Set([]own.Server{primary(one, 2)})
	select {
	case err := <-slept:
		if !errors.Is(err, own.ErrWithdrawn) {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("a statement goes on at a server of an old epoch")
	}
	if _, err := text(c, old, own.Lookups, pid); !errors.Is(err, own.ErrWithdrawn) {
		t.Errorf("%v", err)
	}
	if got := c.Stats().Open; got != 0 {
		t.Errorf("%d are open", got)
	}
	mustText(t, c, primary(one, 2), own.Lookups, pid)
	one.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'howdah_router' AND query LIKE '%pg_sleep%'")
}

func testReadOnly(t *testing.T, one, _ *postgrestest.Server) {
	c := connections(t)
	c.Set([]own.Server{primary(one, 1)})
	var said *pgconn.PgError
	if _, err := text(c, primary(one, 1), own.Lookups, "CREATE TABLE t ()"); !errors.As(err, &said) || said.Code != "25006" {
		t.Errorf("%v", err)
	}
}

// A refused login is not tried again before a pause is over, and then with the password of that time.
func testPassword(t *testing.T, one, _ *postgrestest.Server) {
	var now atomic.Int64
	var asked atomic.Int64
	password := atomic.Value{}
	password.Store("wrong-secret")
	core, logs := observer.New(zapcore.DebugLevel)
	c := connections(t, func(o *own.Options) {
		o.Now = func() schema.Instant { return schema.Instant(now.Load()) }
		o.Password = func() (string, error) { asked.Add(1); return password.Load().(string), nil }
		o.Log = zap.New(core)
	})
	p := primary(one, 1)
	c.Set([]own.Server{p})
	for range 50 {
		var said *pgconn.PgError
		if _, err := text(c, p, own.Samples, pid); !errors.As(err, &said) || said.Code != "28P01" || strings.Contains(err.Error(), "wrong-secret") {
			t.Fatalf("%v", err)
		}
	}
	if asked.Load() != 1 || c.Stats() != (own.Stats{Failed: 1}) {
		t.Errorf("%d attempts, %+v", asked.Load(), c.Stats())
	}
	now.Add(int64(time.Second))
	if _, err := text(c, p, own.Samples, pid); err == nil || asked.Load() != 2 {
		t.Errorf("after the pause: %v, %d attempts", err, asked.Load())
	}
	password.Store(postgrestest.Password)
	now.Add(int64(time.Second))
	mustText(t, c, p, own.Samples, pid)
	if logs.FilterMessageSnippet("cannot be opened").Len() != 1 || logs.FilterMessageSnippet("is there again").Len() != 1 {
		t.Errorf("logged %v", logs.All())
	}
	for _, entry := range logs.All() {
		for _, value := range entry.ContextMap() {
			if s, ok := value.(string); ok && (strings.Contains(s, "wrong-secret") || strings.Contains(s, postgrestest.Password)) {
				t.Errorf("the log shows the password: %v", entry)
			}
		}
	}
}

func testClosed(t *testing.T, one, _ *postgrestest.Server) {
	c := connections(t)
	p := primary(one, 1)
	c.Set([]own.Server{p})
	mustText(t, c, p, own.Samples, pid)
	c.Close()
	if _, err := text(c, p, own.Samples, pid); !errors.Is(err, own.ErrClosed) {
		t.Errorf("%v", err)
	}
	c.Set([]own.Server{p})
	if _, ok := c.Primary(); ok || c.Stats().Open != 0 {
		t.Error("there is life after Close")
	}
	until(t, "the server sees the end", func() bool { return one.Query(mine) == "0" })
}

// A caller waits no longer than its context, whatever the server does.
func testHung(t *testing.T, one, _ *postgrestest.Server) {
	c := connections(t)
	p := primary(one, 1)
	c.Set([]own.Server{p})
	mustText(t, c, p, own.Samples, pid)
	one.Freeze()
	defer one.Thaw()
	for range 2 { // on the kept connection, then on a new one
		ctx, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := c.Do(ctx, p, own.Samples, func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, pid).Scan(new(string))
		})
		stop()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
}

// Without a bound of its own a caller gets Options.Timeout, in the server too.
func testTimeout(t *testing.T, one, _ *postgrestest.Server) {
	c := connections(t, func(o *own.Options) { o.Timeout = 2 * time.Second })
	c.Set([]own.Server{primary(one, 1)})
	if got := mustText(t, c, primary(one, 1), own.Lookups, "SHOW statement_timeout"); got != "2s" {
		t.Errorf("statement_timeout is %s", got)
	}
	if _, err := text(c, primary(one, 1), own.Lookups, "SELECT pg_sleep(3600)::text"); err == nil {
		t.Error("it slept for an hour")
	}
	until(t, "the statement ends at the server too", func() bool {
		return one.Query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'howdah_router' AND state = 'active'") == "0"
	})
}

func testRestart(t *testing.T, _, two *postgrestest.Server) {
	c := connections(t)
	s := own.Server{Member: "two", Address: two.Addr()}
	c.Set([]own.Server{s})
	mustText(t, c, s, own.Samples, pid)
	two.Restart()
	mustText(t, c, s, own.Samples, pid)
	if got := c.Stats(); got != (own.Stats{Opened: 2, Open: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestOff(t *testing.T) {
	c := connections(t, func(o *own.Options) { o.Password = nil })
	s := own.Server{Member: "one", Address: "127.0.0.1:1", Epoch: 1}
	c.Set([]own.Server{s})
	if _, err := text(c, s, own.Samples, pid); !errors.Is(err, own.ErrOff) || c.Enabled() {
		t.Errorf("%v", err)
	}
	if err := c.OnPrimary(context.Background(), own.Lookups, nil); !errors.Is(err, own.ErrOff) {
		t.Errorf("%v", err)
	}
}

// Where nothing listens, or the address is none, the error says so, and what the environment says of other servers does not matter.
func TestBadAddresses(t *testing.T) {
	t.Setenv("PGHOST", "example.invalid")
	t.Setenv("PGSSLMODE", "verify-full")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	c := connections(t)
	for address, want := range map[string]string{nobody: "connection refused", "nonsense": "missing port", "127.0.0.1:x": "invalid syntax"} {
		s := own.Server{Member: "one", Address: address}
		c.Set([]own.Server{s})
		if _, err := text(c, s, own.Samples, pid); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
