package router_test

import (
	"testing"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/wire"
)

const beginReadOnly = "BEGIN READ ONLY ISOLATION LEVEL READ COMMITTED"

// startBlock is startReading with a block that the standby has.
func startBlock(t *testing.T, change ...func(*router.Options)) *reading {
	t.Helper()
	g := startReading(t, change...)
	g.connected(aRead)
	g.inBlock(beginReadOnly, "BEGIN", 'T')
	return g
}

// inBlock has the standby carry out a statement that leaves that transaction status behind.
func (g *reading) inBlock(sql, tag string, status byte) {
	g.t.Helper()
	g.client.Send(rt.Query(sql))
	g.standby.Expect(rt.Query(sql))
	g.standby.Send(rt.Complete(tag), rt.Ready(status))
	g.client.Expect(rt.Complete(tag), rt.Ready(status))
	g.rests()
}

// What waits for transactions waits for one on a standby as well, and what holds sessions lets it go on to its end.
func TestABlockOnAStandbyIsUnderWay(t *testing.T) {
	for name, hold := range map[string]func(*reading) (release func()){
		"drain": func(g *reading) func() {
			idle, idleServer := g.login()
			stopped := make(chan struct{})
			go func() { defer close(stopped); g.stop() }()
			idle.ExpectError("57P01")
			idle.Close()
			idleServer.Expect(rt.Terminate)
			return func() {
				g.client.ExpectError("57P01")
				g.client.Close()
				g.server.Expect(rt.Terminate)
				g.standby.ExpectClose()
				<-stopped
			}
		},
		"PAUSE": func(g *reading) func() {
			root, other := g.console(g.t, "root"), g.console(g.t, "root")
			paused := make(chan error, 1)
			go func() {
				_, err := root.Exec(g.t.Context(), "PAUSE")
				paused <- err
			}()
			until(g.t, "the pause", func() bool { return rows(g.t, other, "SHOW STATE")[1]["value"] == "yes" })
			return func() {
				if err := <-paused; err != nil {
					g.t.Fatalf("PAUSE: %v", err)
				}
				g.client.Send(rt.Query(aRead))
				g.standby.ExpectQuiet()
				if _, err := root.Exec(g.t.Context(), "RESUME"); err != nil {
					g.t.Fatal(err)
				}
				answer(g.client, g.standby, aRead)
			}
		},
		"planned stop": func(g *reading) func() {
			primary := rt.Primary("one", g.one.Address(), 1)
			primary.Stopping = true
			g.know.Hear(primary)
			until(g.t, "the stop to be known", func() bool { return g.Status().Phase == schema.PhaseStopping })
			return func() {
				g.client.Send(rt.Query(aRead))
				g.standby.ExpectQuiet()
				primary.Stopping = false
				g.know.Hear(primary)
				answer(g.client, g.standby, aRead)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := startBlock(t, func(o *router.Options) { o.DrainTimeout = rt.Patience })
			release := hold(g)
			g.client.ExpectQuiet() // nothing has ended it
			g.inBlock(aRead, "SELECT 0", 'T')
			g.client.ExpectQuiet()
			g.inBlock("COMMIT", "COMMIT", 'I')
			release()
		})
	}
}

// PAUSE does not count a session as at rest that has a block on a standby, or a read there, also while it has no primary.
func TestPauseWaitsForAStandby(t *testing.T) {
	block := func(g *reading) (finish func()) {
		g.inBlock(beginReadOnly, "BEGIN", 'T')
		return func() { g.inBlock("COMMIT", "COMMIT", 'I') }
	}
	read := func(g *reading) (finish func()) {
		g.client.Send(rt.Query(aRead))
		g.standby.Expect(rt.Query(aRead))
		return func() {
			g.standby.Send(rt.Complete("SELECT 0"), rt.Ready('I'))
			g.client.Expect(rt.Complete("SELECT 0"), rt.Ready('I'))
		}
	}
	for name, work := range map[string]func(*reading) (finish func()){
		"block": block,
		"read":  read,
		"read without a primary": func(g *reading) func() {
			finish := read(g)
			g.know.Hear(rt.Standby("one", g.one.Address(), 2))
			g.server.ExpectClose()
			return finish
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := startReading(t)
			g.connected(aRead)
			finish := work(g)
			root := g.console(t, "root")
			if _, err := root.Exec(t.Context(), "PAUSE"); sqlstate(err) != "55006" {
				t.Errorf("at work: %v", err)
			}
			finish()
			until(t, "it to be at rest", func() bool {
				_, err := root.Exec(t.Context(), "PAUSE")
				return err == nil
			})
		})
	}
}

// A standby that ends a transaction for the time that it takes ends the session, as a single server would, and not only there: the primary does not go on
// with it. A standby that ends for another reason is no end of the session.
func TestTimeoutsOfABlockOnAStandby(t *testing.T) {
	idle := rt.Fatal("25P03", "terminating connection due to idle-in-transaction timeout")
	long := rt.Fatal("25P04", "terminating connection due to transaction timeout")
	for name, c := range map[string]struct {
		sent   string
		before [][]byte // of its answer
		last   []byte
		code   string
	}{
		"a read":                        {sent: aRead, last: idle, code: "25P03"},
		"COMMIT":                        {sent: "COMMIT", last: idle, code: "25P03"},
		"what the primary goes on with": {sent: aWrite, last: idle, code: "25P03"},
		"a long one":                    {sent: aRead, before: [][]byte{rt.Notice("slow")}, last: long, code: "25P04"},
		"a long one, with rows told":    {sent: aRead, before: [][]byte{rt.RowDescription("n"), rt.Row("1")}, last: long, code: "25P04"},
		"an error of that code":         {sent: aRead, before: [][]byte{rt.Error("25P03", "raised")}, last: rt.Ready('E')},
		"another reason":                {sent: aRead, last: rt.Fatal("57P01", "terminating connection due to administrator command")},
	} {
		t.Run(name, func(t *testing.T) {
			g := startBlock(t)
			g.standby.Send(append(c.before, c.last)...)
			if name != "an error of that code" {
				g.standby.CloseWrite()
			}
			g.client.Send(rt.Query(c.sent))
			if c.code == "" {
				g.server.Expect(rt.Query(beginReadOnly))
				g.server.Send(rt.Complete("BEGIN"), rt.Ready('T'))
				if name == "an error of that code" {
					g.standby.Expect(rt.Query(c.sent), rt.Query("ROLLBACK"))
					g.standby.Send(rt.Complete("ROLLBACK"), rt.Ready('I'))
				}
				answer(g.client, g.server, c.sent)
				return
			}
			if len(c.before) > 1 {
				g.client.Expect(c.before...)
			}
			want, _ := wire.ParseError(c.last[5:])
			if e := g.client.ExpectError(c.code); e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
			g.client.ExpectClose()
			until(t, "the session to be forgotten", func() bool { return g.count("") == 0 })
			if n := g.figure(t, `howdah_router_errors_total{by="server",sqlstate="`+c.code+`"}`); n != "1" {
				t.Errorf("%q errors counted", n)
			}
		})
	}
}

// --statement-routing is a switch for the running router: what has begun reads from the primary too while it is off, but for a block that goes on to its end, and
// from a standby again when it is back.
func TestStatementRoutingIsSwitched(t *testing.T) {
	g := startBlock(t)
	turn := func(on bool) {
		t.Helper()
		o := router.DefaultOptions()
		withConsole(&o)
		o.DialTimeout, o.Consistency, o.StatementRouting = rt.Patience, route.Eventual, on
		if err := g.Apply(o); err != nil {
			t.Fatal(err)
		}
	}
	routes := func(want int) {
		t.Helper()
		if got := rows(t, g.console(t, "root"), "SHOW ROUTES"); len(got) != want {
			t.Errorf("%v", got)
		}
	}
	routes(3)
	turn(false)
	routes(2)
	g.inBlock(aRead, "SELECT 0", 'T')
	g.inBlock("COMMIT", "COMMIT", 'I')
	ask(g.client, g.server, aRead)
	g.standby.Expect(rt.Terminate)
	ask(g.client, g.server, beginReadOnly)
	later, laterServer := g.login()
	ask(later, laterServer, aRead)
	turn(true)
	g.connected(aRead)
	ask(g.client, g.server, aWrite)
	ask(g.client, g.standby, aRead)
	ask(later, laterServer, aRead) // it began as a session of the primary's
	g.two.ExpectNobody()
}

// A REPEATABLE READ block that is one batch is the standby's as a whole. The primary does it as a whole where the client has been told nothing; behind the
// first row it cannot: the primary's snapshot is another one.
func TestARepeatableReadBlockInOneBatch(t *testing.T) {
	var batch []byte
	for _, sql := range []string{"BEGIN TRANSACTION READ ONLY ISOLATION LEVEL REPEATABLE READ", aRead, "SELECT 2", "COMMIT"} {
		batch = append(append(append(batch, rt.Parse("", sql)...), rt.Bind("", "")...), rt.Execute("")...)
	}
	batch = append(batch, rt.Sync...)
	ran := func(tag string) []byte {
		return append(append(append([]byte{}, rt.ParseComplete...), rt.BindComplete...), rt.Complete(tag)...)
	}
	begun := ran("BEGIN")
	row := append(append(append([]byte{}, rt.ParseComplete...), rt.BindComplete...), rt.Row("1")...)
	all := [][]byte{begun, row, rt.Complete("SELECT 1"), ran("SELECT 1"), ran("COMMIT"), rt.Ready('I')}
	start := func(t *testing.T) *reading {
		g := startReading(t)
		g.connected(aRead)
		g.client.Send(batch)
		g.standby.Expect(batch)
		return g
	}
	byPrimary := func(g *reading) {
		g.server.Expect(batch)
		g.server.Send(all...)
		g.client.Expect(all...)
	}
	t.Run("on the standby", func(t *testing.T) {
		g := start(t)
		g.standby.Send(all...)
		g.client.Expect(all...)
		g.inBlock(aRead, "SELECT 1", 'I')
		g.one.ExpectNobody()
	})
	t.Run("lost before a row", func(t *testing.T) {
		g := start(t)
		g.standby.Send(begun)
		g.standby.Close()
		byPrimary(g)
	})
	t.Run("a conflict before a row", func(t *testing.T) {
		g := start(t)
		g.standby.Send(begun, rt.Error("40001", "conflict with recovery"), rt.Ready('E'))
		g.standby.Expect(rt.Query("ROLLBACK"))
		g.standby.Send(rt.Complete("ROLLBACK"), rt.Ready('I'))
		byPrimary(g)
	})
	t.Run("lost behind a row", func(t *testing.T) {
		g := start(t)
		g.standby.Send(begun, row)
		g.client.Expect(begun, row)
		g.standby.Close()
		g.client.ExpectError("57P01")
		g.client.ExpectClose()
	})
	t.Run("a conflict behind a row", func(t *testing.T) {
		g := start(t)
		failed := [][]byte{begun, row, rt.Error("40001", "conflict with recovery"), rt.Ready('E')}
		g.standby.Send(failed...)
		g.client.Expect(failed...)
		g.inBlock("ROLLBACK", "ROLLBACK", 'I')
		g.server.ExpectQuiet()
	})
}
