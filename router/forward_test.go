package router_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// fleet are routers that pass cancel requests on to one another, and what they passed on.
type fleet struct {
	mu      sync.Mutex
	routers map[string]*rig
	passed  []string // "from > to"
}

// newFleet starts routers of these names, all of which know each other and a server.
func newFleet(t *testing.T, server *rt.Server, names ...string) *fleet {
	t.Helper()
	f := &fleet{routers: map[string]*rig{}}
	for _, name := range names {
		g := start(t, func(o *router.Options) { o.Name, o.Forward = name, f.from(name) })
		g.know.Hear(rt.Primary("one", server.Address(), 1))
		f.mu.Lock()
		f.routers[name] = g
		f.mu.Unlock()
	}
	for _, name := range names {
		for _, other := range names {
			if other != name {
				f.knows(t, name, other)
			}
		}
	}
	return f
}

// knows tells a router of another, and waits until it has taken that in.
func (f *fleet) knows(t *testing.T, name, other string) {
	t.Helper()
	g := f.routers[name]
	g.know.HearRouter(other)
	until(t, name+" to know "+other, func() bool { return slices.Contains(g.Routers(), other) })
}

func (f *fleet) from(name string) func(context.Context, string, []byte) (bool, error) {
	return func(ctx context.Context, to string, key []byte) (bool, error) {
		f.mu.Lock()
		f.passed = append(f.passed, name+" > "+to)
		g := f.routers[to]
		f.mu.Unlock()
		if g == nil {
			<-ctx.Done()
			return false, ctx.Err()
		}
		return g.CancelForwarded(ctx, key), nil
	}
}

// took returns what was passed on since the last call.
func (f *fleet) took() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := strings.Join(f.passed, ", ")
	f.passed = nil
	return p
}

func (f *fleet) key(t *testing.T, name string, server *rt.Server) []byte {
	t.Helper()
	c := f.routers[name].client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	server.Accept().Welcome(rt.KeyData(4711, "sekr"))
	return []byte(c.Welcomed())
}

// namesakes are two names with one mark.
func namesakes(t *testing.T) (a, b string) {
	t.Helper()
	seen := map[uint16]string{}
	for i := range 1 << 16 {
		name := fmt.Sprint("twin-", i)
		if a := seen[wire.Instance(name)]; a != "" {
			return a, name
		}
		seen[wire.Instance(name)] = name
	}
	t.Fatal("no two names have one mark")
	return "", ""
}

func TestCancelAtAnotherRouter(t *testing.T) {
	server := rt.Listen(t, "")
	twin, other := namesakes(t)
	f := newFleet(t, server, "router-1", twin, other)
	genuine := cancelRequest([]byte("\x00\x00\x12\x67sekr"))
	for _, c := range []struct{ has, asked, passed string }{
		{has: "router-1", asked: twin, passed: twin + " > router-1"},
		{has: twin, asked: other, passed: other + " > " + twin}, // its own mark, not its own session
		{has: twin, asked: "router-1", passed: "router-1 > " + twin + " and " + other},
		{has: twin, asked: twin},
	} {
		key := f.key(t, c.has, server)
		cancel := f.routers[c.asked].client(t, route.Auto)
		cancel.Send(cancelRequest(key))
		s := server.Accept()
		s.Expect(genuine)
		cancel.ExpectQuiet() // held open until the server has dealt with it
		s.Close()
		cancel.ExpectClose()
		if got := f.took(); got != c.passed && (!strings.Contains(c.passed, " and ") || !both(got, "router-1 > "+twin, "router-1 > "+other)) {
			t.Errorf("%s's session, cancelled at %s: passed on %s; want %s", c.has, c.asked, got, c.passed)
		}
		// A key that somebody made up: right in all but the last byte.
		key[len(key)-1] ^= 1
		cancel = f.routers[c.asked].client(t, route.Auto)
		cancel.Send(cancelRequest(key))
		cancel.ExpectClose()
		server.ExpectNobody()
		f.took()
	}
	for name, want := range map[string]string{"router-1": `{to="router"} 1`, twin: `{to="server"} 3`} {
		if _, body := f.routers[name].get(t, "/metrics"); !strings.Contains(body, "howdah_router_cancels_total"+want+"\n") {
			t.Errorf("%s does not count %s", name, want)
		}
	}
}

func both(got, a, b string) bool { return got == a+", "+b || got == b+", "+a }

// A request is passed on once, whatever is in its key, and what comes from another router goes no further.
func TestCancelDoesNotGoRound(t *testing.T) {
	server := rt.Listen(t, "")
	twin, other := namesakes(t)
	f := newFleet(t, server, twin, other)
	forged := make([]byte, 8)
	forged[0], forged[1] = byte(wire.Instance(twin)>>8), byte(wire.Instance(twin))
	for name, to := range map[string]string{twin: other, other: twin} {
		c := f.routers[name].client(t, route.Auto)
		c.Send(cancelRequest(forged))
		c.ExpectClose()
		if got, want := f.took(), name+" > "+to; got != want {
			t.Errorf("passed on %s, want %s", got, want)
		}
	}
	if f.routers[twin].CancelForwarded(t.Context(), forged) || f.routers[twin].CancelForwarded(t.Context(), nil) {
		t.Error("a key that nobody made is a session's")
	}
	if got := f.took(); got != "" {
		t.Errorf("passed on again: %s", got)
	}
	server.ExpectNobody()
}

func TestCancelForARouterThatDoesNotAnswer(t *testing.T) {
	server := rt.Listen(t, "")
	f := newFleet(t, server, "router-1")
	mark := wire.Instance("router-9")
	key := []byte{byte(mark >> 8), byte(mark), 1, 2, 3, 4, 5, 6}
	ask := func() {
		t.Helper()
		c := f.routers["router-1"].client(t, route.Auto)
		c.Send(cancelRequest(key))
		c.ExpectClose()
	}
	ask()
	if got := f.took(); got != "" {
		t.Errorf("passed on to somebody unknown: %s", got)
	}
	f.knows(t, "router-1", "router-9")
	ask() // it does not hang: the fleet says nothing until it is told to stop waiting
	if got := f.took(); got != "router-1 > router-9" {
		t.Errorf("passed on %s", got)
	}
	for _, l := range []schema.Liveness{schema.LivenessDead, schema.LivenessLeft} {
		f.routers["router-1"].know.Liveness("router-9", l)
		until(t, "router-9 to be passed over", func() bool { return len(f.routers["router-1"].Routers()) == 0 })
		ask()
		if got := f.took(); got != "" {
			t.Errorf("passed on to one that is %s: %s", l, got)
		}
	}
	if _, body := f.routers["router-1"].get(t, "/metrics"); !strings.Contains(body, `howdah_router_cancels_total{to="nobody"} 4`+"\n") {
		t.Error("the requests for nobody are not counted")
	}
}

// While one router of a port drains, cancel requests for its sessions arrive at the other.
func TestCancelDuringAHandover(t *testing.T) {
	server := rt.Listen(t, "")
	f := &fleet{routers: map[string]*rig{}}
	open := func(name, listen string) *rig {
		g := start(t, func(o *router.Options) {
			o.Name, o.Forward, o.ReusePort, o.DrainTimeout, o.Listen = name, f.from(name), true, rt.Patience, listen
		})
		g.know.Hear(rt.Primary("one", server.Address(), 1))
		f.routers[name] = g
		return g
	}
	first := open("router-1", "127.0.0.1:0")
	busy := first.client(t, route.Auto)
	busy.Send(rt.Startup("user", "alice"))
	busyServer := server.Accept()
	busyServer.Welcome(rt.KeyData(4711, "sekr"))
	key := []byte(busy.Welcomed())
	busy.Send(rt.Query("SELECT"))
	busyServer.Expect(rt.Query("SELECT"))
	address := first.Address(route.Auto).String()
	open("router-2", address)
	f.knows(t, "router-2", "router-1")
	ended := make(chan struct{})
	go func() { first.stop(); close(ended) }()
	// All connections reach the second router once the first one's listener is closed, which its other port shows.
	until(t, "the listeners of the first router to be closed", func() bool {
		c, err := net.Dial("tcp", first.Address(route.RW).String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	cancel := rt.Dial(t, address)
	cancel.Send(cancelRequest(key))
	s := server.Accept()
	s.Expect(cancelRequest([]byte("\x00\x00\x12\x67sekr")))
	s.Close()
	cancel.ExpectClose()
	busyServer.Send(rt.Error("57014", "canceled"), rt.Ready('I'))
	busy.ExpectError("57014")
	busy.Expect(rt.Ready('I'))
	busy.ExpectError("57P01")
	<-ended
	if got := f.took(); got != "router-2 > router-1" {
		t.Errorf("passed on %s", got)
	}
}
