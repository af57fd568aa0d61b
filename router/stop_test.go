package router_test

import (
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// stopping is a router in front of a primary whose planned stop has begun, with an idle session and one in a transaction.
type stopping struct {
	*rig
	server             *rt.Server
	primary            schema.Status
	idle, idleServer   *rt.Peer
	inside, insideConn *rt.Peer
}

func startStopping(t *testing.T, change ...func(*router.Options)) *stopping {
	t.Helper()
	s := &stopping{rig: start(t, append([]func(*router.Options){withConsole}, change...)...), server: rt.Listen(t, "")}
	s.primary = rt.Primary("one", s.server.Address(), 1)
	s.know.Hear(s.primary)
	s.idle, s.idleServer = s.session(t, route.RW, s.server)
	s.inside, s.insideConn = s.session(t, route.RO, s.server) // on the primary, for there is no standby
	s.inside.Send(rt.Query("BEGIN"))
	s.insideConn.Expect(rt.Query("BEGIN"))
	s.insideConn.Send(rt.Complete("BEGIN"), rt.Ready('T'))
	s.inside.Expect(rt.Complete("BEGIN"), rt.Ready('T'))
	s.primary.Stopping = true
	s.know.Hear(s.primary)
	until(t, "the stop to be known", func() bool { return s.Status().Phase == schema.PhaseStopping })
	return s
}

// held has the idle session send a statement, and returns once that is held.
func (s *stopping) held(t *testing.T) {
	t.Helper()
	root := s.console(t, "root")
	s.idle.Send(rt.Query("INSERT INTO t VALUES (1)"))
	until(t, "the session to be held", func() bool { return rows(t, root, "SHOW CLIENTS")[0]["held"] == int64(1) })
	s.idleServer.ExpectQuiet()
}

// While its primary is about to stop a session begins no transaction; those under way go on, and a goodbye passes.
func TestPlannedStopHoldsTransactions(t *testing.T) {
	s := startStopping(t)
	s.held(t)
	s.inside.Send(rt.Query("COMMIT"))
	s.insideConn.Expect(rt.Query("COMMIT"))
	s.insideConn.Send(rt.Complete("COMMIT"), rt.Ready('I'))
	s.inside.Expect(rt.Complete("COMMIT"), rt.Ready('I'))
	s.inside.Send(rt.Terminate)
	s.insideConn.Expect(rt.Terminate)
	// The stop is called off.
	s.primary.Stopping = false
	s.know.Hear(s.primary)
	s.idleServer.Expect(rt.Query("INSERT INTO t VALUES (1)"))
	s.idleServer.Send(rt.Complete("INSERT 0 1"), rt.Ready('I'))
	s.idle.Expect(rt.Complete("INSERT 0 1"), rt.Ready('I'))
}

// What was held has not been sent when the session ends, and the client is told so: 57P01, not 08007.
func TestHeldIsNotSent(t *testing.T) {
	for name, end := range map[string]func(*stopping){
		"server says why": func(s *stopping) {
			s.idleServer.Send(rt.Fatal("57P01", "terminating connection due to administrator command"))
			s.idleServer.CloseWrite()
		},
		"server goes away": func(s *stopping) { s.idleServer.CloseWrite() },
		"next epoch": func(s *stopping) {
			s.know.Hear(rt.Standby("one", s.server.Address(), 1), rt.Primary("two", "127.0.0.1:1", 2))
		},
		"stopped": func(s *stopping) {
			s.primary.State = schema.StateStopped
			s.know.Hear(s.primary)
		},
		"killed": func(s *stopping) { s.Kill(1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := startStopping(t)
			s.held(t)
			end(s)
			s.idle.ExpectError("57P01")
			s.idle.ExpectClose()
			s.idleServer.ExpectClose() // without having been sent a byte
		})
	}
}

// A stop that takes longer than sessions wait for a primary does not hold them for longer.
func TestPlannedStopHoldsForABoundedTime(t *testing.T) {
	s := startStopping(t, func(o *router.Options) { o.FailoverWait = 300 * time.Millisecond })
	for range 2 { // the second is not held anew
		s.idle.Send(rt.Query("SELECT 1"))
		s.idleServer.Expect(rt.Query("SELECT 1"))
		s.idleServer.Send(rt.Complete("SELECT 1"), rt.Ready('I'))
		s.idle.Expect(rt.Complete("SELECT 1"), rt.Ready('I'))
	}
}

// PAUSE finds a session that a stop holds at rest, and holds it further.
func TestPauseDuringAPlannedStop(t *testing.T) {
	s := startStopping(t, func(o *router.Options) { o.DrainTimeout = rt.Patience })
	s.held(t)
	root := s.console(t, "root")
	s.inside.Send(rt.Terminate)
	s.insideConn.Expect(rt.Terminate)
	s.insideConn.Close()
	if _, err := root.Exec(t.Context(), "PAUSE"); err != nil {
		t.Fatal(err)
	}
	s.primary.Stopping = false
	s.know.Hear(s.primary)
	until(t, "the stop to be called off", func() bool { return s.Status().Phase == schema.PhaseServing })
	s.idleServer.ExpectQuiet()
	if _, err := root.Exec(t.Context(), "RESUME"); err != nil {
		t.Fatal(err)
	}
	s.idleServer.Expect(rt.Query("INSERT INTO t VALUES (1)"))
}
