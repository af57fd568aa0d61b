package router_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	if os.Getenv(handoverProcess) != "" {
		os.Exit(runHandoverProcess())
	}
	if path := os.Getenv(foreignSocket); path != "" {
		os.Exit(listenAtForeignSocket(path))
	}
	postgrestest.Main(m)
}

// rig is a router under test and what it is told.
type rig struct {
	*router.Router
	know *rt.Knowledge
	stop func()
	// ahead is by how much the router's clock is ahead of the machine's.
	ahead *atomic.Int64
}

// start runs a router on free ports, with options that a test may change. It is stopped at the
// test's end, and must leave no goroutine behind.
func start(t *testing.T, change ...func(*router.Options)) *rig {
	t.Helper()
	log := zap.NewNop()
	if os.Getenv("HOWDAH_TEST_LOG") != "" {
		log = zaptest.NewLogger(t)
	}
	return startLogging(t, log, change...)
}

func startLogging(t *testing.T, log *zap.Logger, change ...func(*router.Options)) *rig {
	t.Helper()
	o := router.DefaultOptions()
	o.Cluster, o.Name = rt.Cluster, "router-1"
	o.Listen, o.ListenRW, o.ListenRO, o.APIListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.DrainTimeout = 0
	o.FarewellTimeout = 200 * time.Millisecond
	for _, c := range change {
		c(&o)
	}
	ahead := new(atomic.Int64)
	now := func() schema.Instant { return boottime.Now().Add(time.Duration(ahead.Load())) }
	know := rt.NewKnowledge(now)
	r, err := router.New(o, know, now, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	g := &rig{Router: r, know: know, ahead: ahead}
	g.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("router: %v", err)
		}
		done <- nil
	}
	t.Cleanup(g.stop)
	return g
}

func (g *rig) client(t *testing.T, of route.Route) *rt.Peer {
	t.Helper()
	return rt.Dial(t, g.Address(of).String())
}

// session opens a session through the listener to server and returns both ends, logged in.
func (g *rig) session(t *testing.T, of route.Route, server *rt.Server) (client, backend *rt.Peer) {
	t.Helper()
	client = g.client(t, of)
	client.Send(rt.Startup("user", "alice"))
	backend = server.Accept()
	backend.Welcome(rt.KeyData(4711, "sekr"))
	client.Welcomed()
	return client, backend
}

// until polls for a condition that nothing announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), rt.Patience)
	defer stop()
	postgrestest.Until(ctx, t, what, ok)
}

func (g *rig) count(state string) int {
	n := 0
	for _, s := range g.Status().Sessions {
		if state == "" || s.State == state {
			n += s.Count
		}
	}
	return n
}

func TestRelay(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c, s := g.session(t, route.Auto, server)
	c.Send(rt.Query("SELECT 1"))
	s.Expect(rt.Query("SELECT 1"))
	s.Send(rt.RowDescription("a"), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'))
	c.Expect(rt.RowDescription("a"), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'))
	// What a server says while nobody asked.
	s.Send(rt.Notification(1, "channel", "hello"), rt.ParameterStatus("a", "b"), rt.Notice("careful"))
	c.Expect(rt.Notification(1, "channel", "hello"), rt.ParameterStatus("a", "b"), rt.Notice("careful"))
	c.Send(rt.Terminate)
	s.Expect(rt.Terminate)
	s.Close()
	c.ExpectClose()
	until(t, "the session to be forgotten", func() bool { return g.count("") == 0 })
}

func TestEncryptionIsDeclined(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for _, order := range [][][]byte{{rt.SSLRequest, rt.GSSENCRequest}, {rt.GSSENCRequest, rt.SSLRequest}, {rt.SSLRequest}} {
		c := g.client(t, route.Auto)
		for _, ask := range order {
			c.Send(ask)
			c.Expect([]byte{'N'})
		}
		c.Send(rt.Startup("user", "alice"))
		server.Accept().Welcome(rt.KeyData(1, "abcd"))
		c.Welcomed()
	}
	c := g.client(t, route.Auto)
	c.Send(rt.SSLRequest)
	c.Expect([]byte{'N'})
	c.Send(rt.SSLRequest)
	c.ExpectError("08P01")
	c.ExpectClose()

	tls := g.client(t, route.Auto)
	tls.Send([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	tls.ExpectClose()
}

func TestBadFirstPackets(t *testing.T) {
	g := start(t, func(o *router.Options) { o.LoginTimeout = 300 * time.Millisecond })
	for name, c := range map[string]struct {
		bytes []byte
		code  string
	}{
		"length zero":          {[]byte{0, 0, 0, 0, 0, 3, 0, 0}, "08P01"},
		"length seven":         {[]byte{0, 0, 0, 7, 0, 3, 0, 0}, "08P01"},
		"length negative":      {[]byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "08P01"},
		"length four GiB":      {[]byte{0xff, 0xff, 0xff, 0x00, 0, 3, 0, 0}, "08P01"},
		"length 10001":         {[]byte{0, 0, 0x27, 0x11, 0, 3, 0, 0}, "08P01"},
		"no terminator":        {[]byte{0, 0, 0, 13, 0, 3, 0, 0, 'u', 's', 'e', 'r', 0}, "08P01"},
		"protocol 2":           {rt.StartupOf(2<<16, "user", "x"), "0A000"},
		"unknown request":      {rt.StartupOf(1234<<16 | 9999), "0A000"},
		"unknown route":        {rt.Startup("user", "alice", "howdah.route", "sideways"), "22023"},
		"half a packet, slow":  {rt.Startup("user", "alice")[:12], "08P01"},
		"nothing":              {nil, "08P01"},
		"cancel key too short": {append([]byte{0, 0, 0, 12, 4, 210, 22, 46}, 1, 2, 3, 4), "08P01"},
	} {
		t.Run(name, func(t *testing.T) {
			p := g.client(t, route.Auto)
			p.Send(c.bytes)
			p.ExpectError(c.code)
			p.ExpectClose()
		})
	}
}

func TestLoginTimeout(t *testing.T) {
	g := start(t, func(o *router.Options) { o.LoginTimeout = 200 * time.Millisecond })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.ExpectStartup()
	ask := rt.Message('R', rt.Int32(3))
	s.Send(ask)
	c.Expect(ask)
	e := c.ExpectError("57014")
	if e.Severity != "FATAL" {
		t.Errorf("severity %s", e.Severity)
	}
	s.ExpectClose()
	c.ExpectClose()

	// A session that is past it lives on.
	c, s = g.session(t, route.Auto, server)
	until(t, "the timeout to be over", func() bool { return g.count("idle") == 1 })
	time.AfterFunc(250*time.Millisecond, func() { s.Send(rt.Notice("still here")) })
	c.Expect(rt.Notice("still here"))
}

func TestNegotiationAndLongKeysPassThrough(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c := g.client(t, route.Auto)
	startup := rt.StartupOf(3<<16|9999, "user", "alice", "_pq_.test_protocol_negotiation", "1")
	c.Send(startup)
	s := server.Accept()
	s.Expect(startup)
	negotiate := rt.Message('v', rt.Int32(3<<16|2), rt.Int32(1), rt.Text("_pq_.test_protocol_negotiation"))
	long := rt.KeyData(77, "0123456789abcdef0123456789abcdef")
	s.Send(negotiate, rt.AuthOK, long, rt.Ready('I'))
	c.Expect(negotiate, rt.AuthOK)
	typ, body := c.Next()
	if typ != 'K' || len(body) != 4+32 || string(body[4:]) == "0123456789abcdef0123456789abcdef" {
		t.Fatalf("cancel key %q", body)
	}
	c.Expect(rt.Ready('I'))

	cancel := g.client(t, route.Auto)
	cancel.Send(rt.StartupOf(80877102)[:0], cancelRequest(body))
	delivered := server.Accept()
	delivered.Expect(cancelRequest(long[5:]))
	delivered.Close()
	cancel.ExpectClose()
}

func cancelRequest(key []byte) []byte {
	b := append(rt.Int32(uint32(8+len(key))), rt.Int32(80877102)...)
	return append(b, key...)
}

func TestCancelReachesItsOwnServer(t *testing.T) {
	g := start(t)
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("two", two.Address(), 1))
	open := func(of route.Route, server *rt.Server, key []byte) (string, *rt.Peer) {
		c := g.client(t, of)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.Welcome(key)
		return string(c.Welcomed()), c
	}
	// Both servers give the same key: only the router's own tells them apart.
	rw, rwClient := open(route.RW, one, rt.KeyData(9, "same"))
	ro, _ := open(route.RO, two, rt.KeyData(9, "same"))
	if rw == ro {
		t.Fatal("two sessions have one key")
	}
	for key, server := range map[string]*rt.Server{rw: one, ro: two} {
		c := g.client(t, route.Auto)
		c.Send(cancelRequest([]byte(key)))
		s := server.Accept()
		s.Expect(cancelRequest([]byte("\x00\x00\x00\x09same")))
		c.ExpectQuiet() // held open until the server has dealt with it
		s.Close()
		c.ExpectClose()
	}
	unknown := g.client(t, route.Auto)
	unknown.Send(cancelRequest([]byte("\x00\x00\x00\x09same")))
	unknown.ExpectClose()
	// A key dies with its session.
	rwClient.Send(rt.Terminate)
	rwClient.Close()
	until(t, "the session to end", func() bool { return g.count("") <= 2 && g.Status().MemberSessions["one"] <= 1 })
	one.ExpectNobody()
	two.ExpectNobody()
}

func TestTooManyClients(t *testing.T) {
	g := start(t, func(o *router.Options) { o.MaxClients = 2 })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	first, _ := g.session(t, route.Auto, server)
	g.session(t, route.Auto, server)
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	c.ExpectError("53300")
	c.ExpectClose()
	first.Close()
	until(t, "a place to be free", func() bool { return g.count("") == 1 })
	g.session(t, route.Auto, server)
}

func TestRouteChoosesTheServer(t *testing.T) {
	g := start(t)
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("two", two.Address(), 1))
	for _, c := range []struct {
		listener route.Route
		params   []string
		want     *rt.Server
	}{
		{route.Auto, nil, one},
		{route.RW, nil, one},
		{route.RO, nil, two},
		{route.Auto, []string{"howdah.route", "ro"}, two},
		{route.RO, []string{"howdah.route", "rw"}, one},
		{route.Auto, []string{"options", "-c howdah.route=standby"}, two},
		{route.Auto, []string{"options", "--default-transaction-read-only=yes"}, two},
		{route.RW, []string{"default_transaction_read_only", "on"}, one},
	} {
		client := g.client(t, c.listener)
		client.Send(rt.Startup(append([]string{"user", "alice"}, c.params...)...))
		c.want.Accept().Welcome(rt.KeyData(1, "abcd"))
		client.Welcomed()
	}
}

// Without read-only-fallback a session that only reads is none of the primary's, though there is no standby.
func TestReadOnlyWithoutFallback(t *testing.T) {
	g := start(t, func(o *router.Options) { o.ReadOnlyFallback, o.FailoverWait = false, 0 })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	until(t, "the primary to be known", func() bool { return g.Status().Primary == "one" })
	for of, parameters := range map[route.Route][]string{route.RO: nil, route.Auto: {"default_transaction_read_only", "on"}} {
		c := g.client(t, of)
		c.Send(rt.Startup(append([]string{"user", "alice"}, parameters...)...))
		if e := c.ExpectError("57P03"); !strings.Contains(e.Message+e.Detail, "no standby may serve") {
			t.Errorf("%s: %+v", of, e)
		}
		c.ExpectClose()
	}
	server.ExpectNobody()
	g.session(t, route.RW, server)
}

func TestProtocolViolations(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for name, bad := range map[string][]byte{
		"unknown type":      {'!', 0, 0, 0, 4},
		"password too late": rt.Message('p', rt.Text("secret")),
		"tiny length":       {'Q', 0, 0, 0, 3},
		"huge length":       {'Q', 0x7f, 0xff, 0xff, 0xff},
		"negative length":   {'Q', 0xff, 0xff, 0xff, 0xff},
		"long Sync":         {'S', 0, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			client, backend := g.session(t, route.Auto, server)
			client.Send(bad)
			client.ExpectError("08P01")
			client.ExpectClose()
			backend.ExpectClose()
		})
	}
}

func TestDrain(t *testing.T) {
	g := start(t, func(o *router.Options) { o.DrainTimeout = rt.Patience })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	idle, idleServer := g.session(t, route.Auto, server)
	busy, busyServer := g.session(t, route.Auto, server)
	busy.Send(rt.Query("BEGIN"))
	busyServer.Expect(rt.Query("BEGIN"))
	busyServer.Send(rt.Ready('T'))
	busy.Expect(rt.Ready('T'))
	stopped := make(chan struct{})
	go func() { defer close(stopped); g.stop() }()
	idle.ExpectError("57P01")
	idleServer.Expect(rt.Terminate)
	busy.Send(rt.Query("COMMIT"))
	busyServer.Expect(rt.Query("COMMIT"))
	busyServer.Send(rt.Complete("COMMIT"), rt.Ready('I'))
	busy.Expect(rt.Complete("COMMIT"), rt.Ready('I'))
	busy.ExpectError("57P01")
	idle.Close()
	busy.Close()
	<-stopped
}

func TestPortInUse(t *testing.T) {
	g := start(t)
	o := router.DefaultOptions()
	o.Cluster, o.Name, o.Listen = "c", "n", g.Address(route.Auto).String()
	if _, err := router.New(o, g.know, boottime.Now, zap.NewNop()); err == nil {
		t.Fatal("two routers on one port")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := router.DefaultOptions()
	o.Listen, o.APIListen, o.MaxClients, o.FailoverWait = "", "nonsense", 0, -time.Second
	err := o.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) != 6 {
		t.Fatalf("errors: %v", err)
	}
	o = router.DefaultOptions()
	o.Cluster, o.Name = "c", "n"
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("a router", func(t *testing.T) {
		g := start(t)
		server := rt.Listen(t, "")
		g.know.Hear(rt.Primary("one", server.Address(), 1))
		g.session(t, route.Auto, server)
		waiting := g.client(t, route.RO)
		waiting.Send(rt.Startup("user", "alice")[:3])
		g.stop()
	})
	goleak.VerifyNone(t, before)
}
