package router_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// A cancel request for what no server has been sent anything of is carried out by the router: the client is told 57014, and the request goes nowhere.

// recallable is a session whose next request is held until let is called.
type recallable struct {
	*reading
	let  func()
	root *pgx.Conn
}

// isHeld waits until the session's request is held.
func (h *recallable) isHeld() {
	h.t.Helper()
	until(h.t, "the session to be held", func() bool { return rows(h.t, h.root, "SHOW CLIENTS")[0]["held"] == int64(1) })
}

// paused is a session of a paused router, of statement routing or not.
func paused(t *testing.T, of route.Route) *recallable {
	t.Helper()
	h := &recallable{}
	if of == route.Auto {
		h.reading = startReading(t, func(o *router.Options) { o.DrainTimeout = rt.Patience })
		h.connected(aRead)
	} else {
		m := &movable{t: t, one: rt.Listen(t, "")}
		m.rig = start(t, withConsole, func(o *router.Options) { o.DrainTimeout = rt.Patience })
		m.know.Hear(rt.Primary("one", m.one.Address(), 1))
		m.client = m.rig.client(t, of)
		m.client.Send(rt.Startup("user", "alice"))
		m.server = m.one.Accept()
		m.server.Welcome(rt.KeyData(4711, "sekr"))
		m.key = string(m.client.Welcomed())
		h.reading = &reading{movable: m}
	}
	h.root = h.console(t, "root")
	h.Pause(t.Context())
	h.let = func() { h.Resume() }
	return h
}

// stoppingSoon is a session whose primary is about to stop.
func stoppingSoon(t *testing.T, of route.Route) *recallable {
	t.Helper()
	h := paused(t, of)
	status := rt.Primary("one", h.one.Address(), 1)
	status.Stopping = true
	h.know.Hear(status)
	until(t, "the stop to be known", func() bool { return h.Status().Phase == schema.PhaseStopping })
	h.Resume()
	h.let = func() {
		status.Stopping = false
		h.know.Hear(status)
	}
	return h
}

var heldBy = map[string]func(*testing.T, route.Route) *recallable{"PAUSE": paused, "a planned stop": stoppingSoon}

func TestCancelOfWhatIsHeld(t *testing.T) {
	batch := [][]byte{rt.Parse("s", aRead), rt.Bind("", "s"), rt.Describe(""), rt.Execute("")}
	for name, sent := range map[string][][]byte{
		"a query":      {rt.Query(aWrite)},
		"a read":       {rt.Query(aRead)},
		"a long query": {rt.Query(strings.Repeat(" ", 100<<10) + aWrite)},
		"a batch":      append(batch[:4:4], rt.Sync),
		"a call":       {rt.Message('F', rt.Int32(1))},
	} {
		for by, hold := range heldBy {
			for _, of := range []route.Route{route.Auto, route.RW} {
				t.Run(name+", "+by+", "+string(of), func(t *testing.T) {
					h := hold(t, of)
					h.client.Send(sent...)
					h.isHeld()
					h.remembered()
					h.isCancelled('I')
					// It is for one request, and the session goes on.
					h.client.Send(rt.Query(aWrite))
					h.isHeld()
					h.server.ExpectQuiet()
					h.let()
					answer(h.client, h.server, aWrite)
					h.one.ExpectNobody()
				})
			}
		}
	}
}

// What is left of a batch that was cancelled goes nowhere either, and is not held.
func TestCancelOfABatchThatIsHeldWithoutItsSync(t *testing.T) {
	for by, hold := range heldBy {
		for _, of := range []route.Route{route.Auto, route.RW} {
			t.Run(by+", "+string(of), func(t *testing.T) {
				h := hold(t, of)
				h.client.Send(rt.Parse("s", aRead), rt.Flush)
				h.isHeld()
				h.remembered()
				h.client.ExpectError("57014")
				// What the server says unasked comes in between.
				h.server.Send(rt.Notice("careful"))
				h.client.Expect(rt.Notice("careful"))
				h.client.Send(rt.Bind("", "s"), rt.Execute(""), rt.Query(aWrite), rt.Sync)
				h.client.Expect(rt.Ready('I'))
				h.server.ExpectQuiet()
				h.let()
				// Nobody has made the statement, so nobody makes it anew.
				bound := [][]byte{rt.Bind("", "s"), rt.Execute(""), rt.Sync}
				h.client.Send(bound...)
				h.server.Expect(bound...)
				refused := [][]byte{rt.Error("26000", "no such statement"), rt.Ready('I')}
				h.server.Send(refused...)
				h.client.Expect(refused...)
			})
		}
	}
}

// What was sent behind it is another request.
func TestCancelOfWhatIsHeldWithSomethingBehindIt(t *testing.T) {
	for _, of := range []route.Route{route.Auto, route.RW} {
		t.Run(string(of), func(t *testing.T) {
			h := paused(t, of)
			h.client.Send(rt.Query("INSERT INTO t VALUES (2)"), rt.Query(aWrite))
			h.isHeld()
			h.remembered()
			h.isCancelled('I')
			h.isHeld()
			h.client.ExpectQuiet()
			h.let()
			answer(h.client, h.server, aWrite)
			h.client.Send(rt.Terminate)
			h.server.Expect(rt.Terminate)
		})
	}
}

// A batch of which the server has a part is not held, and the cancel request goes there, also while the router is paused.
func TestCancelOfHalfABatchDuringAPause(t *testing.T) {
	for _, of := range []route.Route{route.Auto, route.RW} {
		t.Run(string(of), func(t *testing.T) {
			h := paused(t, of)
			h.Resume()
			h.client.Send(rt.Parse("s", aWrite), rt.Flush)
			h.server.Expect(rt.Parse("s", aWrite), rt.Flush)
			paused, stop := t.Context(), make(chan struct{})
			go func() {
				h.Pause(paused)
				close(stop)
			}()
			until(t, "the pause", func() bool { code, _ := h.get(t, "/health"); return code == 503 })
			h.cancel()
			delivered(h.one, primaryCancel).Close()
			h.server.Send(rt.Error("57014", "canceled"))
			h.client.ExpectError("57014")
			h.client.Send(rt.Sync)
			h.server.Expect(rt.Sync)
			h.server.Send(rt.Ready('I'))
			h.client.Expect(rt.Ready('I'))
			<-stop
		})
	}
}

// A session that waits for another primary, or logs in there, is told at once, and looks on with its next statement.
func TestCancelWhileASessionMoves(t *testing.T) {
	start := func(t *testing.T) *reading {
		m := startMovable(t, func(o *router.Options) {
			o.DialTimeout, o.CancelTimeout, o.DrainTimeout = rt.Patience, rt.Patience, rt.Patience
		})
		ask(m.client, m.server, aWrite)
		return &reading{movable: m}
	}
	lose := func(g *reading) {
		g.know.Hear(rt.Standby("one", g.one.Address(), 2))
		g.server.ExpectClose()
	}
	goesOn := func(g *reading) {
		g.know.Hear(rt.Standby("one", g.one.Address(), 2), rt.Primary("two", g.two.Address(), 3))
		g.client.Send(rt.Query(aWrite))
		next := g.arrive(g.two)
		answer(g.client, next, aWrite)
		g.two.ExpectNobody()
	}
	waits := func(g *reading) {
		until(g.t, "the session to wait", func() bool { return g.count("waiting") == 1 })
	}
	t.Run("no primary", func(t *testing.T) {
		g := start(t)
		lose(g)
		g.client.Send(rt.Query(aWrite))
		waits(g)
		g.remembered()
		g.isCancelled('I')
		until(t, "the session to wait no more", func() bool { return g.count("waiting") == 0 })
		if _, body := g.get(t, "/metrics"); !strings.Contains(body, `howdah_router_cancels_total{to="held"} 1`+"\n") || !strings.Contains(body, `{by="router",sqlstate="57014"} 1`+"\n") {
			t.Errorf("counted:\n%s", body)
		}
		goesOn(g)
	})
	t.Run("a batch without Sync", func(t *testing.T) {
		g := start(t)
		lose(g)
		g.client.Send(rt.Parse("", aWrite), rt.Flush)
		waits(g)
		g.remembered()
		g.client.ExpectError("57014")
		g.client.Send(rt.Bind("", ""), rt.Execute(""), rt.Sync)
		g.client.Expect(rt.Ready('I'))
		goesOn(g)
	})
	t.Run("something behind it", func(t *testing.T) {
		g := start(t)
		lose(g)
		g.client.Send(rt.Query(aRead), rt.Query(aWrite))
		waits(g)
		g.remembered()
		g.isCancelled('I')
		g.know.Hear(rt.Standby("one", g.one.Address(), 2), rt.Primary("two", g.two.Address(), 3))
		next := g.arrive(g.two)
		answer(g.client, next, aWrite)
	})
	t.Run("the login", func(t *testing.T) {
		g := start(t)
		g.takeOver()
		g.client.Send(rt.Query(aWrite))
		next := g.two.Accept()
		next.ExpectStartup()
		g.remembered()
		g.isCancelled('I')
		next.ExpectClose()
		g.client.Send(rt.Query(aWrite))
		answer(g.client, g.arrive(g.two), aWrite)
	})
	// PAUSE finds it at rest, and holds it before it looks on.
	t.Run("a pause behind it", func(t *testing.T) {
		g := start(t)
		lose(g)
		g.client.Send(rt.Query(aWrite))
		waits(g)
		g.remembered()
		g.isCancelled('I')
		if busy, waited := g.Pause(t.Context()); busy != 0 || waited > rt.Patience/2 {
			t.Errorf("%d sessions at work after %s", busy, waited)
		}
		h := &recallable{reading: g, root: g.console(t, "root")}
		h.client.Send(rt.Query(aWrite))
		h.isHeld()
		g.know.Hear(rt.Standby("one", g.one.Address(), 2), rt.Primary("two", g.two.Address(), 3))
		g.two.ExpectNobody()
		g.remembered()
		g.isCancelled('I')
		g.Resume()
		goesOn(g)
	})
}

// Whoever goes away while it is told, or has been told that its session ends, harms nobody.
func TestCancelOfWhatIsHeldByWhoGoes(t *testing.T) {
	h := paused(t, route.Auto)
	h.client.Send(rt.Query(aWrite))
	h.isHeld()
	h.remembered()
	h.client.Close()
	until(t, "the session to end", func() bool { return h.count("") == 0 })
	begun := time.Now()
	if busy, _ := h.Pause(t.Context()); busy != 0 || time.Since(begun) > rt.Patience/2 {
		t.Errorf("%d sessions at work", busy)
	}
}
