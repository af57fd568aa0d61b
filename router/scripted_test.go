package router_test

import (
	"testing"

	"howdah/router"
	"howdah/router/route"
	"howdah/router/route/statement"
	rt "howdah/router/routertest"
)

// scripted is a router with statement routing in front of a primary, "one", and a standby, "three", that are played by hand, with a session that has read
// from the standby.
type scripted struct {
	*movable
	three   *rt.Server
	standby *rt.Peer
}

func startScripted(t *testing.T, change ...func(*router.Options)) *scripted {
	t.Helper()
	s := &scripted{three: rt.Listen(t, "")}
	s.movable = startMovable(t, append([]func(*router.Options){func(o *router.Options) {
		o.Consistency, o.DialTimeout = route.Eventual, rt.Patience // no samples
	}}, change...)...)
	s.know.Hear(rt.Standby("three", s.three.Address(), 1))
	until(t, "the standby to be known", func() bool { return len(s.Status().Standbys) == 1 })
	s.client.Send(rt.Query("SELECT 0"))
	s.standby = s.arrive(s.three)
	s.tellFunctions(s.standby)
	s.reads("SELECT 0")
	return s
}

// tellFunctions has a standby answer that the database has no functions.
func (s *scripted) tellFunctions(standby *rt.Peer) {
	s.t.Helper()
	standby.Expect(rt.Query(statement.FunctionsQuery))
	standby.Send(rt.RowDescription("a"), rt.Complete("SELECT 0"), rt.Ready('I'))
}

// reads has the standby answer a Query of the client's that was sent.
func (s *scripted) reads(sql string) {
	s.t.Helper()
	answer := [][]byte{rt.RowDescription("n"), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I')}
	s.standby.Expect(rt.Query(sql))
	s.standby.Send(answer...)
	s.client.Expect(answer...)
}
