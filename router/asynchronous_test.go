package router_test

import (
	"testing"
	"time"

	"howdah/router"
	rt "howdah/router/routertest"
)

// What servers say unasked: the primary's reaches the client, at once or once a standby has answered; the standby's does not, for it is not the client's server.
func TestMessagesNobodyAskedFor(t *testing.T) {
	s := startScripted(t)
	unasked := [][]byte{rt.Notification(1, "channel", "hello"), rt.ParameterStatus("TimeZone", "Asia/Tokyo"), rt.Notice("careful")}
	s.server.Send(unasked...)
	s.client.Expect(unasked...)

	s.standby.Send(rt.ParameterStatus("in_hot_standby", "off"), rt.ParameterStatus("TimeZone", "UTC"), rt.Notification(1, "channel", "of the standby"))
	s.client.Send(rt.Query("SELECT 1"))
	s.getsTimeZone()
	s.reads("SELECT 1")

	// In the middle of a standby's row the primary's messages wait, and the standby's own are left out.
	row, rest := rt.Row("a long value"), [][]byte{rt.Complete("SELECT 1"), rt.Ready('I')}
	s.client.Send(rt.Query("SELECT 2"))
	s.standby.Expect(rt.Query("SELECT 2"))
	s.standby.Send(rt.RowDescription("n"), row[:12])
	s.client.Expect(rt.RowDescription("n"), row[:12])
	s.server.Send(unasked...)
	s.client.ExpectQuiet()
	s.standby.Send(row[12:], rt.ParameterStatus("in_hot_standby", "on"))
	s.standby.Send(rest...)
	s.client.Expect(row[12:])
	s.client.Expect(rest...)
	s.client.Expect(unasked...)
	ask(s.client, s.server, "INSERT INTO t VALUES (1)")

	// A standby that says goodbye while nobody asks is not heard: the primary serves, and then another connection does.
	s.standby.Send(rt.Fatal("57P01", "terminating connection due to administrator command"))
	s.standby.Close()
	ask(s.client, s.server, "SELECT 3")
	s.client.Send(rt.Query("SELECT 4"))
	s.standby = s.arrive(s.three)
	s.getsTimeZone()
	s.reads("SELECT 4")
}

// getsTimeZone has the standby be given the time zone that the primary has reported.
func (s *scripted) getsTimeZone() {
	s.t.Helper()
	s.standby.Expect(rt.Query("SELECT pg_catalog.set_config(E'TimeZone', E'Asia/Tokyo', false)"))
	s.standby.Send(rt.RowDescription("set_config"), rt.Row("Asia/Tokyo"), rt.Complete("SELECT 1"), rt.ParameterStatus("TimeZone", "Asia/Tokyo"), rt.Ready('I'))
}

// The router says its own only between messages, whoever the client is getting one from.
func TestMidMessageOfAStandby(t *testing.T) {
	for name, c := range map[string]struct {
		sent int
		told bool
	}{"between rows": {len(rt.Row("a long value")), true}, "in a row": {12, false}, "in a header": {3, true}} {
		t.Run(name, func(t *testing.T) {
			s := startScripted(t, func(o *router.Options) { o.CancelTimeout = 100 * time.Millisecond }) // nobody takes the one for what the standby does
			s.client.Send(rt.Query("SELECT 1"))
			s.standby.Expect(rt.Query("SELECT 1"))
			begun := [][]byte{rt.RowDescription("n"), rt.Row("1")}
			s.standby.Send(begun...)
			s.client.Expect(begun...)
			s.standby.Send(rt.Row("a long value")[:c.sent])
			if !c.told || c.sent > 4 {
				s.client.Expect(rt.Row("a long value")[:c.sent])
			}
			done := make(chan struct{})
			go func() { defer close(done); s.stop() }()
			if c.told {
				s.client.ExpectError("57P01")
			}
			s.client.ExpectClose()
			s.standby.ExpectClose()
			<-done
		})
	}
}

// A standby that takes no login now is passed over, and asked again later.
func TestStandbyThatIsNotReady(t *testing.T) {
	s := startScripted(t)
	for _, why := range []string{"57P03", "53300"} {
		s.standby.Close()
		ask(s.client, s.server, "SELECT 1") // the first to notice
		s.client.Send(rt.Query("SELECT 2"))
		s.standby = s.three.Accept()
		s.standby.ExpectStartup()
		s.standby.Send(rt.Fatal(why, "not now"))
		s.standby.Close()
		answer(s.client, s.server, "SELECT 2")
		ask(s.client, s.server, "SELECT 3") // it is left alone for a while
		s.three.ExpectNobody()
		until(t, "the standby to be asked again", func() bool {
			s.client.Send(rt.Query("SELECT 4"))
			select {
			case conn := <-s.three.Arrivals():
				s.standby = rt.Play(t, conn)
				s.welcome(s.standby)
				s.reads("SELECT 4")
				return true
			case <-time.After(50 * time.Millisecond):
				answer(s.client, s.server, "SELECT 4")
				return false
			}
		})
	}
}
