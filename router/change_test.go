package router_test

import (
	"strings"
	"testing"
	"time"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

func TestEpochChange(t *testing.T) {
	for name, c := range map[string]struct {
		sent []byte
		code string
	}{
		"idle":                  {nil, "57P01"},
		"autocommit write":      {rt.Query("INSERT INTO t VALUES (1)"), "08007"},
		"SHOW":                  {rt.Query("SHOW work_mem"), "57P01"},
		"extended without Sync": {append(rt.Parse("", "INSERT"), rt.Flush...), "57P01"},
		"extended with Sync":    {append(append(append(rt.Parse("", "INSERT"), rt.Bind("", "")...), rt.Execute("")...), rt.Sync...), "08007"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			old, next := rt.Listen(t, ""), rt.Listen(t, "")
			g.know.Hear(rt.Primary("one", old.Address(), 1), rt.Standby("two", next.Address(), 1))
			client, server := g.session(t, route.Auto, old)
			if c.sent != nil {
				client.Send(c.sent)
				server.Expect(c.sent)
			}
			g.know.Hear(rt.Standby("one", old.Address(), 1), rt.Primary("two", next.Address(), 2))
			e := client.ExpectError(c.code)
			if e.Severity != "FATAL" || e.Hint == "" || !strings.Contains(e.Message, "one is no longer the primary: two has taken epoch 2") {
				t.Errorf("error %+v", e)
			}
			client.ExpectClose()
			server.ExpectClose()
			if n := g.figure(t, "howdah_router_reroutes_total"); n != "1" {
				t.Errorf("%s sessions rerouted", n)
			}
			g.session(t, route.Auto, next)
			old.ExpectNobody()
		})
	}
}

func TestEpochChangeInATransaction(t *testing.T) {
	g := start(t)
	old := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", old.Address(), 1))
	begin := func() (client, server *rt.Peer) {
		client, server = g.session(t, route.Auto, old)
		client.Send(rt.Query("BEGIN"))
		server.Expect(rt.Query("BEGIN"))
		server.Send(rt.Complete("BEGIN"), rt.Ready('T'))
		client.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
		return client, server
	}
	plain, _ := begin()
	writing, writingServer := begin()
	committing, committingServer := begin()
	insert, commit := rt.Query("INSERT INTO t VALUES (1)"), rt.Query("commit")
	writing.Send(insert)
	writingServer.Expect(insert)
	committing.Send(commit)
	committingServer.Expect(commit)
	// Only the epoch is known; who has it is not.
	g.know.Hear(rt.Standby("two", "127.0.0.1:1", 2))
	if e := plain.ExpectError("57P01"); !strings.Contains(e.Message, "epoch 1 of one has ended: epoch 2 has begun") {
		t.Errorf("error %+v", e)
	}
	writing.ExpectError("57P01")
	committing.ExpectError("08007")
}

func TestFenceEndsSessions(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	primary := rt.Primary("one", server.Address(), 3)
	g.know.Hear(primary)
	client, backend := g.session(t, route.Auto, server)
	primary.State = "fenced"
	g.know.Hear(primary)
	if e := client.ExpectError("57P01"); !strings.Contains(e.Message, "the server changed: PostgreSQL of one is fenced") {
		t.Errorf("error %+v", e)
	}
	backend.ExpectClose()
}

func TestMidMessageIsNotInjectedInto(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	client, backend := g.session(t, route.Auto, server)
	client.Send(rt.Query("SELECT"))
	backend.Expect(rt.Query("SELECT"))
	half := rt.Row("a long value")[:12]
	backend.Send(half)
	client.Expect(half)
	g.know.Hear(rt.Standby("one", server.Address(), 2))
	client.ExpectClose()
}

func TestWaitingSessionGetsTheNewPrimary(t *testing.T) {
	g := start(t)
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	until(t, "the session to wait", func() bool { return g.count("waiting") == 1 })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	server.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
}

func TestStoppingPrimaryHoldsNewSessions(t *testing.T) {
	g := start(t)
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	primary := rt.Primary("one", one.Address(), 1)
	g.know.Hear(primary)
	running, server := g.session(t, route.Auto, one)
	running.Send(rt.Query("BEGIN"))
	server.Expect(rt.Query("BEGIN"))
	server.Send(rt.Complete("BEGIN"), rt.Ready('T'))
	running.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
	primary.Stopping = true
	g.know.Hear(primary)
	until(t, "the stop to be known", func() bool { return g.Status().Primary == "" })
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "bob"))
	until(t, "the session to wait", func() bool { return g.count("waiting") == 1 })
	// A transaction goes on while the server does.
	running.Send(rt.Query("COMMIT"))
	server.Expect(rt.Query("COMMIT"))
	server.Send(rt.Complete("COMMIT"), rt.Ready('I'), rt.Fatal("57P01", "terminating connection due to administrator command"))
	server.Close()
	running.Expect(rt.Complete("COMMIT"), rt.Ready('I'))
	running.ExpectError("57P01")
	g.know.Hear(rt.Primary("two", two.Address(), 2))
	two.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
	one.ExpectNobody()
}

func TestAWaitEnds(t *testing.T) {
	g := start(t, func(o *router.Options) { o.FailoverWait = 150 * time.Millisecond })
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	e := c.ExpectError("57P03")
	if e.Message == "" || e.Hint == "" {
		t.Errorf("error %+v", e)
	}
	c.ExpectClose()
}

func TestClientThatStopsWaitingIsNoticed(t *testing.T) {
	g := start(t)
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	until(t, "the session to wait", func() bool { return g.count("waiting") == 1 })
	c.Close()
	until(t, "the session to end", func() bool { return g.count("") == 0 })
}

func TestServerThatIsNotReadyIsTriedAgain(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.ExpectStartup()
	s.Send(rt.Fatal("57P03", "the database system is starting up"))
	s.Close()
	server.Accept().Close() // and one that says nothing
	server.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
	// An error about the client itself is the client's.
	c = g.client(t, route.Auto)
	c.Send(rt.Startup("user", "nobody"))
	s = server.Accept()
	s.ExpectStartup()
	s.Send(rt.Fatal("28000", "no such role"))
	s.Close()
	c.ExpectError("28000")
	c.ExpectClose()
}

func TestAttemptIsCalledOffByANewEpoch(t *testing.T) {
	g := start(t)
	frozen, next := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", frozen.Address(), 1))
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	frozen.Accept().ExpectStartup() // and never answers
	g.know.Hear(rt.Primary("two", next.Address(), 2))
	next.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
}

func TestReadOnlySessionsSpread(t *testing.T) {
	g := start(t)
	one, two, three := rt.Listen(t, ""), rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("two", two.Address(), 1), rt.Standby("three", three.Address(), 1))
	var last *rt.Peer
	for range 3 {
		c := g.client(t, route.RO)
		c.Send(rt.Startup("user", "alice"))
		three.Accept().Welcome(rt.KeyData(1, "abcd"))
		c.Welcomed()
		last, _ = g.session(t, route.RO, two)
	}
	if m := g.Status().MemberSessions; m["two"] != 3 || m["three"] != 3 || m["one"] != 0 {
		t.Fatalf("sessions %v", m)
	}
	// A standby that dies ends its sessions; the others stay.
	g.know.Liveness("two", "dead")
	last.ExpectError("57P01")
	until(t, "its sessions to end", func() bool { m := g.Status().MemberSessions; return m["two"] == 0 && m["three"] == 3 })
	// One that is too far behind gets nothing, and the primary serves.
	behind := rt.Standby("three", three.Address(), 1)
	primary := rt.Primary("one", one.Address(), 1)
	primary.LSN = 1 << 30
	g.know.Hear(primary, behind)
	until(t, "its sessions to end", func() bool { return g.Status().MemberSessions["three"] == 0 })
	g.session(t, route.RO, one)
}

func TestStandbySessionsOutliveAnEpoch(t *testing.T) {
	g := start(t)
	one, two, three := rt.Listen(t, ""), rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("three", three.Address(), 1))
	staying, server := g.session(t, route.RO, three)
	g.know.Hear(rt.Standby("two", two.Address(), 1))
	until(t, "the router to know both", func() bool { return len(g.Status().Standbys) == 2 })
	leaving, _ := g.session(t, route.RO, two)
	g.know.Hear(rt.Primary("two", two.Address(), 2), rt.Standby("three", three.Address(), 2))
	leaving.ExpectError("57P01")
	staying.Send(rt.Query("SELECT 1"))
	server.Expect(rt.Query("SELECT 1"))
}

func TestClientThatVanishesIsCancelled(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	// No client of PostgreSQL's shuts one direction down and reads on: the end of what it sends is its own.
	for name, leave := range map[string]func(*rt.Peer){"it closes": func(p *rt.Peer) { p.Close() }, "it sends no more": func(p *rt.Peer) { p.CloseWrite() }} {
		t.Run(name, func(t *testing.T) {
			client, backend := g.session(t, route.Auto, server)
			client.Send(rt.Query("SELECT pg_sleep(1000)"))
			backend.Expect(rt.Query("SELECT pg_sleep(1000)"))
			leave(client)
			cancel := server.Accept()
			cancel.Expect(cancelRequest([]byte("\x00\x00\x12\x67sekr")))
			cancel.Close()
			backend.ExpectClose()
			if name == "it sends no more" {
				client.ExpectClose()
			}

			// An idle one is said goodbye for.
			client, backend = g.session(t, route.Auto, server)
			leave(client)
			backend.Expect(rt.Terminate)
			backend.ExpectClose()
			server.ExpectNobody()
		})
	}

	// One that says goodbye wants its work done.
	client, backend := g.session(t, route.Auto, server)
	client.Send(rt.Query("INSERT"), rt.Terminate)
	client.Close()
	backend.Expect(rt.Query("INSERT"), rt.Terminate)
	backend.ExpectQuiet()
	server.ExpectNobody()
	backend.Close()
}

func TestServerThatVanishes(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	client, backend := g.session(t, route.Auto, server)
	backend.Close()
	client.ExpectError("57P01")
	client.ExpectClose()

	client, backend = g.session(t, route.Auto, server)
	client.Send(rt.Query("INSERT"))
	backend.Expect(rt.Query("INSERT"))
	backend.SetLinger(0)
	backend.Close()
	client.ExpectError("08007")
	client.ExpectClose()
}
