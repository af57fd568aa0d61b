package router_test

import (
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
)

// movable is a router with statement routing and SCRAM in front of a primary, "one", with one session of it. "two" takes over.
type movable struct {
	*rig
	t              *testing.T
	one, two       *rt.Server
	client, server *rt.Peer
	key            string // that the client got last
}

var clientTold = [][]byte{rt.ParameterStatus("server_version", "15.4"), rt.ParameterStatus("TimeZone", "UTC"), rt.ParameterStatus("standard_conforming_strings", "on"), rt.ParameterStatus("client_encoding", "UTF8")}

func startMovable(t *testing.T, change ...func(*router.Options)) *movable {
	t.Helper()
	m := &movable{t: t, one: rt.Listen(t, ""), two: rt.Listen(t, "")}
	m.rig = start(t, append([]func(*router.Options){knows(t, map[string]string{"alice": "secret"}, nil), withConsole, func(o *router.Options) {
		o.StatementRouting = true
	}}, change...)...)
	m.know.Hear(rt.Primary("one", m.one.Address(), 1))
	m.client, m.server = m.login()
	return m
}

func (m *movable) login() (client, server *rt.Peer) {
	m.t.Helper()
	alice := credentials(m.t, "alice", "secret").Verifier()
	client = m.rig.client(m.t, route.Auto)
	client.Send(rt.Startup("user", "alice"))
	server = m.one.Accept()
	s := offers(server, alice)
	p := proves(client, scram.Channel{}, "alice", "secret")
	checks(server, s, "alice", alice)
	server.Send(rt.AuthOK)
	server.Send(clientTold...)
	server.Send(rt.KeyData(4711, "sekr"), rt.Ready('I'))
	accepted(client, p)
	client.Expect(clientTold...)
	_, key := client.Next()
	m.key = string(key)
	client.Expect(rt.Ready('I'))
	return client, server
}

// takeOver has "two" become the primary, and waits until no session is with "one": a session may still send to its server in the moment between the
// picture's change and the sweep that follows it.
func (m *movable) takeOver() {
	m.t.Helper()
	m.hearOfTwo()
	until(m.t, "the sessions to leave the old primary", func() bool { s := m.Status(); return s.Epoch == 2 && s.MemberSessions["one"] == 0 })
}

func (m *movable) hearOfTwo() {
	m.know.Hear(rt.Standby("one", m.one.Address(), 1), rt.Primary("two", m.two.Address(), 2))
}

// arrive plays the login of the router at a new primary in the client's stead.
func (m *movable) arrive(at *rt.Server, parameters ...[]byte) *rt.Peer {
	m.t.Helper()
	s := at.Accept()
	if len(parameters) == 0 {
		parameters = clientTold
	}
	m.welcome(s, parameters...)
	return s
}

// welcome is arrive at a connection that is there.
func (m *movable) welcome(s *rt.Peer, parameters ...[]byte) {
	m.t.Helper()
	alice := credentials(m.t, "alice", "secret").Verifier()
	checks(s, offers(s, alice), "alice", alice)
	s.Send(rt.AuthOK)
	s.Send(parameters...)
	s.Send(rt.KeyData(99, "abcd"), rt.Ready('I'))
}

// ask has a peer of the client's send a Query and the server's answer it.
func ask(client, server *rt.Peer, sql string) {
	client.Send(rt.Query(sql))
	answer(client, server, sql)
}

func answer(client, server *rt.Peer, sql string) {
	server.Expect(rt.Query(sql))
	server.Send(rt.Complete("OK"), rt.Ready('I'))
	client.Expect(rt.Complete("OK"), rt.Ready('I'))
}

// A session at rest goes on with the next primary, by whatever way it loses its own; its first server gets no byte any more.
func TestSessionMoves(t *testing.T) {
	for name, lose := range map[string]func(*movable){
		"next epoch": (*movable).takeOver,
		"server went away": func(m *movable) {
			m.server.CloseWrite()
			m.takeOver()
		},
		"server says why": func(m *movable) {
			m.server.Send(rt.Notification(1, "x", ""), rt.Fatal("57P01", "terminating connection due to administrator command"))
			m.server.CloseWrite()
			m.client.Expect(rt.Notification(1, "x", ""))
			m.takeOver()
		},
		"crash": func(m *movable) {
			warning := rt.Fatal("57P02", "terminating connection because of crash of another server process")
			warning[0] = 'N'
			m.server.Send(warning)
			m.server.CloseWrite()
			m.takeOver()
		},
		"fence": func(m *movable) {
			fenced := rt.Primary("one", m.one.Address(), 1)
			fenced.State = schema.StateFenced
			m.know.Hear(fenced)
			m.server.ExpectClose()
			m.takeOver()
		},
		"planned stop": func(m *movable) {
			stops := rt.Primary("one", m.one.Address(), 1)
			stops.Stopping = true
			m.know.Hear(stops)
			until(m.t, "the stop to be known", func() bool { return m.Status().Phase == schema.PhaseStopping })
			m.server.Send(rt.Fatal("57P01", "terminating connection due to administrator command"))
			m.server.CloseWrite()
			m.takeOver()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMovable(t)
			ask(m.client, m.server, "SET search_path = other")
			ask(m.client, m.server, "INSERT INTO t VALUES (1)")
			lose(m)
			m.server.ExpectClose()
			m.client.Send(rt.Query("INSERT INTO t VALUES (2)"))
			next := m.arrive(m.two)
			next.Expect(rt.Query("SET search_path = other"))
			next.Send(rt.Complete("SET"), rt.Ready('I'))
			answer(m.client, next, "INSERT INTO t VALUES (2)")
			ask(m.client, next, "INSERT INTO t VALUES (3)")
			m.one.ExpectNobody()
			if s := m.Status().MemberSessions; s["one"] != 0 || s["two"] != 1 {
				t.Errorf("sessions %v", s)
			}
			if _, body := m.get(t, "/metrics"); !strings.Contains(body, "howdah_router_moved_total 1\n") {
				t.Error("the metrics do not tell of it")
			}
			m.client.Send(rt.Terminate)
			next.Expect(rt.Terminate)
		})
	}
}

// Prepared statements are made at the new server when they are first used there, which the client does not see.
func TestPreparedStatementsMove(t *testing.T) {
	m := startMovable(t)
	both := [][]byte{rt.Parse("s", "INSERT INTO t VALUES (1)"), rt.Parse("", "INSERT INTO t VALUES (2)"), rt.Sync}
	m.client.Send(both...)
	m.server.Expect(both...)
	m.server.Send(rt.ParseComplete, rt.ParseComplete, rt.Ready('I'))
	m.client.Expect(rt.ParseComplete, rt.ParseComplete, rt.Ready('I'))
	m.takeOver()
	use := func(name string) [][]byte { return [][]byte{rt.Bind("", name), rt.Execute(""), rt.Sync} }
	m.client.Send(use("s")...)
	next := m.arrive(m.two)
	closeS := rt.Message('C', []byte{'S'}, rt.Text("s"))
	next.Expect(closeS, both[0])
	next.Expect(use("s")...)
	next.Send(rt.CloseComplete, rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
	m.client.Expect(rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
	m.client.Send(use("")...)
	next.Expect(both[1])
	next.Expect(use("")...)
	next.Send(rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
	m.client.Expect(rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
	// Once it is there it is not made again; nor is it taken to be there after an error.
	m.client.Send(use("s")...)
	next.Expect(use("s")...)
	next.Send(rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
	m.client.Expect(rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))
}

// A statement that cannot be made anew is tried again at its next use.
func TestAPreparedStatementThatFails(t *testing.T) {
	m := startMovable(t)
	parse := rt.Parse("s", "INSERT INTO t VALUES (1)")
	m.client.Send(parse, rt.Sync)
	m.server.Expect(parse, rt.Sync)
	m.server.Send(rt.ParseComplete, rt.Ready('I'))
	m.client.Expect(rt.ParseComplete, rt.Ready('I'))
	m.takeOver()
	use := [][]byte{rt.Bind("", "s"), rt.Execute(""), rt.Sync}
	m.client.Send(use...)
	next := m.arrive(m.two)
	closeS := rt.Message('C', []byte{'S'}, rt.Text("s"))
	for range 2 {
		next.Expect(closeS, parse)
		next.Expect(use...)
		next.Send(rt.CloseComplete, rt.Error("42P01", "no such table"), rt.Ready('I'))
		m.client.ExpectError("42P01")
		m.client.Expect(rt.Ready('I'))
		m.client.Send(use...)
	}
}

// What the server has of a session and no text brings back binds it: it ends as ever.
func TestBoundSessionsEnd(t *testing.T) {
	for _, sql := range []string{
		"LISTEN x", "PREPARE p AS SELECT 1", "CREATE TEMP TABLE t (n int)", "SELECT pg_advisory_lock(1)", "DO 'x'", "SELECT set_config('a.b', 'c', false)",
		"SELECT mine()", "EXECUTE p", "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	} {
		t.Run(sql, func(t *testing.T) {
			m := startMovable(t)
			ask(m.client, m.server, sql)
			m.takeOver()
			m.client.ExpectError("57P01")
			m.client.ExpectClose()
			m.server.ExpectClose()
			m.two.ExpectNobody()
		})
	}
	t.Run("DISCARD ALL", func(t *testing.T) {
		m := startMovable(t)
		ask(m.client, m.server, "LISTEN x")
		ask(m.client, m.server, "DISCARD ALL")
		ask(m.client, m.server, "INSERT INTO t VALUES (1)")
		m.takeOver()
		m.client.Send(rt.Query("INSERT INTO t VALUES (2)"))
		answer(m.client, m.arrive(m.two), "INSERT INTO t VALUES (2)")
	})
}

// Nothing that the server may have begun is given to another one.
func TestSessionsAtWorkEnd(t *testing.T) {
	for name, c := range map[string]struct {
		sent []byte
		code string
	}{
		"COMMIT in flight": {rt.Query("COMMIT"), "08007"},
		"write":            {rt.Query("INSERT INTO t VALUES (1)"), "08007"},
		"without a Sync":   {rt.Parse("", "INSERT INTO t VALUES (1)"), "57P01"},
		"half a message":   {rt.Query("INSERT INTO t VALUES (1)")[:20], ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMovable(t)
			m.client.Send(c.sent)
			if c.code == "" {
				// The router waits for the rest and has sent nothing: that goes to the new primary.
				m.takeOver()
				m.server.ExpectClose()
				m.client.Send(rt.Query("INSERT INTO t VALUES (1)")[20:])
				answer(m.client, m.arrive(m.two), "INSERT INTO t VALUES (1)")
				return
			}
			m.server.Expect(c.sent)
			m.takeOver()
			m.client.ExpectError(c.code)
			m.client.ExpectClose()
			m.server.ExpectClose()
			m.two.ExpectNobody()
		})
	}
	t.Run("transaction", func(t *testing.T) {
		m := startMovable(t)
		m.client.Send(rt.Query("BEGIN"))
		m.server.Expect(rt.Query("BEGIN"))
		m.server.Send(rt.Complete("BEGIN"), rt.Ready('T'))
		m.client.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
		m.takeOver()
		m.client.ExpectError("57P01")
	})
}

// A message that comes in the very moment of the change goes to one server, and where it went to the first its outcome is not known.
func TestMessageInTheMomentOfTheChange(t *testing.T) {
	for range 20 {
		m := startMovable(t)
		first := make(chan byte, 1)
		go func() {
			m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
			typ, body := m.client.Next()
			if e, err := wire.ParseError(body); typ == 'E' && (err != nil || e.Code != "08007") {
				m.client.Fail("%+v", e)
			}
			first <- typ
		}()
		m.hearOfTwo()
		select {
		case conn := <-m.two.Arrivals():
			next := rt.Play(t, conn)
			m.welcome(next, clientTold...)
			next.Expect(rt.Query("INSERT INTO t VALUES (1)"))
			next.Send(rt.Complete("INSERT 0 1"), rt.Ready('I'))
			if typ := <-first; typ != 'C' {
				t.Errorf("received %q", typ)
			}
			m.server.ExpectClose() // without a byte
		case typ := <-first:
			if typ != 'E' {
				t.Errorf("received %q", typ)
			}
		}
		m.stop()
	}
}

// What the new server says differently is told, unless the client's next message was written by it.
func TestParametersOfTheNewServer(t *testing.T) {
	m := startMovable(t)
	m.takeOver()
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	next := m.arrive(m.two, rt.ParameterStatus("server_version", "15.5"), clientTold[1], clientTold[2], clientTold[3])
	m.client.Expect(rt.ParameterStatus("server_version", "15.5"))
	answer(m.client, next, "INSERT INTO t VALUES (1)")
	for _, p := range [][]byte{rt.ParameterStatus("server_version", "16.0"), rt.ParameterStatus("TimeZone", "CET"), rt.ParameterStatus("standard_conforming_strings", "off")} {
		m := startMovable(t)
		m.takeOver()
		m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
		next := m.arrive(m.two, p)
		m.client.ExpectError("57P01")
		next.ExpectClose()
	}
}

// A server that is not ready is asked again; one that refuses the login, or a setting, ends the session.
func TestLoginAtTheNewServer(t *testing.T) {
	m := startMovable(t)
	ask(m.client, m.server, "SET a.b = 1")
	m.takeOver()
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	s := m.two.Accept()
	s.ExpectStartup()
	s.Send(rt.Fatal("57P03", "the database system is starting up"))
	s.Close()
	m.two.Accept().Close()
	m.arrive(m.two, rt.ParameterStatus("in_hot_standby", "on")).ExpectClose()
	next := m.arrive(m.two)
	next.Expect(rt.Query("SET a.b = 1"))
	next.Send(rt.Complete("SET"), rt.Ready('I'))
	answer(m.client, next, "INSERT INTO t VALUES (1)")

	m = startMovable(t)
	m.takeOver()
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	s = m.two.Accept()
	s.ExpectStartup()
	s.Send(rt.Fatal("3D000", "no such database"))
	m.client.ExpectError("57P01")

	m = startMovable(t)
	ask(m.client, m.server, "SET a.b = 1")
	m.takeOver()
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	next = m.arrive(m.two)
	next.Expect(rt.Query("SET a.b = 1"))
	next.Send(rt.Error("42704", "no such parameter"), rt.Ready('I'))
	m.client.ExpectError("57P01")
	next.ExpectClose()
}

// A server that serves and has ended just this session does not get it again.
func TestTerminatedSessionsEnd(t *testing.T) {
	m := startMovable(t)
	m.server.Send(rt.Fatal("57P01", "terminating connection due to administrator command"))
	m.server.CloseWrite()
	m.server.ExpectClose()
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	m.arrive(m.one).ExpectClose()
	m.client.ExpectError("57P01")
}

// While a session has no server, or waits for one, it can end in every way.
func TestDetachedSessionsEnd(t *testing.T) {
	lost := func(t *testing.T, wait time.Duration, waits bool) *movable {
		m := startMovable(t, func(o *router.Options) { o.FailoverWait = wait })
		m.know.Hear(rt.Standby("one", m.one.Address(), 2)) // the epoch is known, its primary is not
		m.server.ExpectClose()
		if s := m.Status().MemberSessions; s["one"] != 0 || m.count("") != 1 {
			t.Errorf("sessions %v, %d", s, m.count(""))
		}
		if waits {
			m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
			until(t, "the session to wait", func() bool { return m.count("waiting") == 1 })
		} else if m.count("idle") != 1 {
			t.Errorf("%+v", m.Status().Sessions)
		}
		return m
	}
	for _, waits := range []bool{false, true} {
		lost(t, rt.Patience, waits).Kill(1)
		m := lost(t, rt.Patience, waits)
		m.Kill(1)
		m.client.ExpectError("57P01")
		m.client.ExpectClose()

		m = lost(t, rt.Patience, waits)
		m.client.Close()
		until(t, "the session to end", func() bool { return m.count("") == 0 })

		m = lost(t, rt.Patience, waits)
		m.stop()
		m.client.ExpectError("57P01")
	}
	m := lost(t, rt.Patience, false)
	m.client.Send(rt.Terminate)
	m.client.ExpectClose()
	m = lost(t, 200*time.Millisecond, true)
	m.client.ExpectError("57P01")
	m.client.ExpectClose()
	// The attempt to reach a primary that freezes is called off by the next epoch.
	m = lost(t, rt.Patience, true)
	frozen := rt.Listen(t, "")
	m.know.Hear(rt.Primary("three", frozen.Address(), 3))
	frozen.Accept().ExpectStartup()
	m.know.Hear(rt.Standby("three", frozen.Address(), 3), rt.Primary("two", m.two.Address(), 4))
	answer(m.client, m.arrive(m.two), "INSERT INTO t VALUES (1)")
}

// PAUSE counts a session without a server as one at rest, and holds it.
func TestPauseHoldsDetachedSessions(t *testing.T) {
	m := startMovable(t, func(o *router.Options) { o.DrainTimeout = rt.Patience })
	root := m.console(t, "root")
	m.takeOver()
	m.server.ExpectClose()
	if _, err := root.Exec(t.Context(), "PAUSE"); err != nil {
		t.Fatal(err)
	}
	m.client.Send(rt.Query("INSERT INTO t VALUES (1)"))
	until(t, "the session to be held", func() bool { return rows(t, root, "SHOW CLIENTS")[0]["held"] == int64(1) })
	m.two.ExpectNobody()
	if _, err := root.Exec(t.Context(), "RESUME"); err != nil {
		t.Fatal(err)
	}
	answer(m.client, m.arrive(m.two), "INSERT INTO t VALUES (1)")
}
