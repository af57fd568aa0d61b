package router_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"howdah/consul/boottime"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// handoverProcess is the variable that makes the test binary a router: its value is "LISTEN SERVER", or "LISTEN PRIMARY STANDBY" for one that routes statements.
const handoverProcess = "HOWDAH_TEST_HANDOVER"

// runHandoverProcess is a router in a process of its own. It says where it listens, and drains at SIGTERM.
func runHandoverProcess() int {
	listen, server, _ := strings.Cut(os.Getenv(handoverProcess), " ")
	debug.SetGCPercent(router.GCPercent)
	o := router.DefaultOptions()
	o.Cluster, o.Name, o.Listen, o.ReusePort, o.DrainTimeout = rt.Cluster, fmt.Sprint("router-", os.Getpid()), listen, true, rt.Patience
	know := rt.NewKnowledge(boottime.Now)
	know.Hear(rt.Primary("one", server, 1))
	if server, standby, splits := strings.Cut(server, " "); splits {
		routeStatements(&o)
		know.Hear(rt.Primary("one", server, 1), rt.Standby("two", standby, 1))
	}
	var warned atomic.Bool
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel), zap.Hooks(func(e zapcore.Entry) error {
		if e.Level >= zap.WarnLevel {
			warned.Store(true)
			fmt.Fprintln(os.Stderr, "router process:", e.Message)
		}
		return nil
	}))
	r, err := router.New(o, know, boottime.Now, log)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	collect := make(chan os.Signal, 1)
	signal.Notify(collect, syscall.SIGUSR1)
	go func() {
		for range collect {
			// Twice: the first leaves what has a finalizer, and halves a stack that is too large only once.
			debug.FreeOSMemory()
			debug.FreeOSMemory()
			fmt.Println("collected")
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println(r.Address(route.Auto))
	if err := r.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if warned.Load() {
		return 1 // a handover that could not be done in order, most likely
	}
	return 0
}

// child is such a process.
type child struct {
	*exec.Cmd
	address string
	out     *bufio.Reader
	ended   chan error
}

// collect has the garbage collected, as Go does by itself every two minutes.
func (c *child) collect(t *testing.T) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if line, err := c.out.ReadString('\n'); line != "collected\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func startChild(t *testing.T, listen, server string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	c.Env = append(os.Environ(), handoverProcess+"="+listen+" "+server)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	line, err := c.out.ReadString('\n')
	go func() { c.ended <- c.Wait() }()
	t.Cleanup(func() {
		c.Process.Kill()
		<-c.ended
	})
	if err != nil {
		t.Fatalf("router process: %v", err)
	}
	c.address = strings.TrimSpace(line)
	return c
}

// drain sends SIGTERM; the process must end in order.
func (c *child) drain(t *testing.T) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-c.ended
	c.ended <- err
	if err != nil {
		t.Errorf("router process: %v", err)
	}
}

// echo is a server that answers each query with one row, for as many sessions as come.
func echo(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if _, err := wire.ReadStartup(conn); err != nil {
					return
				}
				conn.Write(slices.Concat(rt.AuthOK, rt.Ready('I')))
				for {
					var head [wire.HeaderSize]byte
					if _, err := io.ReadFull(conn, head[:]); err != nil || head[0] == 'X' {
						return
					}
					io.CopyN(io.Discard, conn, int64(wire.ParseHeader(head[:]).Size()-len(head)))
					conn.Write(slices.Concat(rt.Complete("SELECT 1"), rt.Ready('I')))
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// visit is one short session: it connects, asks and says goodbye.
func visit(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: rt.Patience}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rt.Patience))
	if _, err := conn.Write(rt.Startup("user", "alice")); err != nil {
		return err
	}
	for i, want := range [][]byte{slices.Concat(rt.AuthOK, rt.Ready('I')), slices.Concat(rt.Complete("SELECT 1"), rt.Ready('I'))} {
		got := make([]byte, len(want))
		if n, err := io.ReadFull(conn, got); err != nil {
			return fmt.Errorf("answer %q: %w", got[:n], err)
		}
		if string(got) != string(want) {
			rest := make([]byte, 400)
			n, _ := conn.Read(rest)
			return fmt.Errorf("answer %q%q", got, rest[:n])
		}
		if _, err := conn.Write([][]byte{rt.Query("ask"), rt.Terminate}[i]); err != nil {
			return err
		}
	}
	return nil
}

// Routers take over from one another on one port, as real processes, and clients that connect all the time notice nothing. A session that
// is in a transaction when the drain begins ends it where it began.
func TestHandover(t *testing.T) {
	server := echo(t)
	now := startChild(t, "127.0.0.1:0", server)
	address := now.address
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var visits atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := visit(t.Context(), address); err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("visit %d: %v", visits.Load(), err)
					}
					return
				}
				visits.Add(1)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		before := visits.Load()
		until(t, "more visits", func() bool { return visits.Load() >= before+n || t.Failed() })
	}
	for range 4 {
		more(50)
		next := startChild(t, address, server)
		more(50)
		now.drain(t)
		now = next
	}
	more(50)
	stop()
	wg.Wait()
	t.Logf("%d visits in 4 handovers", visits.Load())
	now.drain(t)
	if err := visit(t.Context(), address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the last router: %v", err)
	}
}

// Of two routers on a port each has clients; the first drains: what is in a transaction may end it, what is idle ends with 57P01, and nobody
// comes to it any more.
func TestDrainOnASharedPort(t *testing.T) {
	server := rt.Listen(t, "")
	g := start(t, func(o *router.Options) { o.ReusePort, o.DrainTimeout = true, rt.Patience })
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	busy, busyServer := g.session(t, route.Auto, server)
	idle, _ := g.session(t, route.Auto, server)
	busy.Send(rt.Query("BEGIN"))
	busyServer.Expect(rt.Query("BEGIN"))
	busyServer.Send(rt.Complete("BEGIN"), rt.Ready('T'))
	busy.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
	ended := make(chan struct{})
	go func() { g.stop(); close(ended) }()
	idle.ExpectError("57P01")
	if _, err := net.Dial("tcp", g.Address(route.Auto).String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection after the drain has begun: %v", err)
	}
	busy.Send(rt.Query("COMMIT"))
	busyServer.Expect(rt.Query("COMMIT"))
	busyServer.Send(rt.Complete("COMMIT"), rt.Ready('I'))
	busy.Expect(rt.Complete("COMMIT"), rt.Ready('I'))
	busy.ExpectError("57P01")
	<-ended
}

// Without the option a port is one router's.
func TestPortIsNotShared(t *testing.T) {
	g := start(t)
	o := router.DefaultOptions()
	o.Cluster, o.Name, o.Listen = rt.Cluster, "router-2", g.Address(route.Auto).String()
	if _, err := router.New(o, rt.NewKnowledge(boottime.Now), boottime.Now, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "choose a free port") {
		t.Errorf("%v", err)
	}
}
