package router_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
	"howdah/sidecar/postgres/postgrestest"
)

// limited is a router with limits in front of one server.
type limited struct {
	*rig
	server  *rt.Server
	options router.Options // as it was made
}

func startLimited(t *testing.T, limits []string, change ...func(*router.Options)) *limited {
	t.Helper()
	l := &limited{server: rt.Listen(t, "")}
	l.rig = start(t, append(change, func(o *router.Options) {
		o.Limits = limits
		l.options = *o
	})...)
	l.know.Hear(rt.Primary("one", l.server.Address(), 1))
	return l
}

// in logs a client in whom the server trusts.
func (l *limited) in(t *testing.T, startup ...string) (client, server *rt.Peer) {
	t.Helper()
	client = l.client(t, route.Auto)
	client.Send(rt.Startup(startup...))
	server = l.server.Accept()
	server.Welcome(rt.KeyData(1, "abcd"))
	client.Welcomed()
	return client, server
}

// out tries to, and returns what the client is told in place of the server's word. The server is left in order.
func (l *limited) out(t *testing.T, startup ...string) wire.Error {
	t.Helper()
	client := l.client(t, route.Auto)
	client.Send(rt.Startup(startup...))
	server := l.server.Accept()
	server.Welcome(rt.KeyData(1, "abcd"))
	e := client.ExpectError("53300")
	server.Expect(rt.Terminate)
	client.ExpectClose()
	return e
}

// has waits for the router to count these clients and nobody else.
func (l *limited) has(t *testing.T, want map[string]int) {
	t.Helper()
	until(t, fmt.Sprint(want), func() bool {
		got := l.Counted()
		maps.DeleteFunc(got, func(what string, n int) bool { return n == 0 })
		return reflect.DeepEqual(got, want)
	})
}

func (l *limited) metric(t *testing.T, limit string) string {
	t.Helper()
	_, body := l.get(t, "/metrics")
	_, n, _ := strings.Cut(body, `howdah_router_limited_total{limit="`+limit+`"} `)
	n, _, _ = strings.Cut(n, "\n")
	return n
}

func TestLimitOfAUser(t *testing.T) {
	l := startLimited(t, []string{"user alice,bob 1", "user all 2"})
	alice, server := l.in(t, "user", "alice", "database", "a")
	l.in(t, "user", "bob")
	carol, _ := l.in(t, "user", "carol")
	l.in(t, "user", "carol")
	e := l.out(t, "user", "alice", "database", "b")
	if e.Message != `too many connections for role "alice"` || e.Detail != "This router admits 1 clients of this user." || !strings.Contains(e.Hint, "limits") {
		t.Errorf("told %+v", e)
	}
	l.out(t, "user", "carol")
	if n := l.metric(t, "user"); n != "2" {
		t.Errorf("refused: %s", n)
	}
	// The server's connection and the client's: whichever goes, the place is free.
	server.Close()
	alice.ExpectError("57P01")
	alice.Close()
	l.has(t, map[string]int{"user bob": 1, "user carol": 2, "database bob": 1, "database carol": 2, "address 127.0.0.1": 3})
	l.in(t, "user", "alice")
	carol.Close()
	l.has(t, map[string]int{"user alice": 1, "user bob": 1, "user carol": 1, "database alice": 1, "database bob": 1, "database carol": 1, "address 127.0.0.1": 3})
	l.in(t, "user", "carol")
}

// PostgreSQL cuts long names off, so the router must not take them for others.
func TestLimitOfALongName(t *testing.T) {
	name := strings.Repeat("x", 63)
	l := startLimited(t, []string{"user " + name + " 1", "database " + name + " 1"})
	l.in(t, "user", name, "database", "d")
	l.out(t, "user", name+"yyy", "database", "d")
	l.in(t, "user", "bob", "database", name)
	if e := l.out(t, "user", "bob", "database", name+"z"); e.Message != fmt.Sprintf(`too many connections for database "%s"`, name) {
		t.Errorf("told %+v", e)
	}
}

func TestLimitOfADatabase(t *testing.T) {
	l := startLimited(t, []string{"database app,alice 1"})
	l.in(t, "user", "alice") // of the database alice
	l.in(t, "user", "alice", "database", "app")
	if e := l.out(t, "user", "bob", "database", "app"); e.Message != `too many connections for database "app"` {
		t.Errorf("told %+v", e)
	}
	l.out(t, "user", "bob", "database", "app", "replication", "database")
	l.out(t, "user", "alice", "replication", "off")
	l.in(t, "user", "alice", "database", "app", "replication", "true") // of none
	l.in(t, "user", "bob", "database", "other")
	l.has(t, map[string]int{"user alice": 3, "user bob": 1, "database alice": 1, "database app": 1, "database other": 1, "address 127.0.0.1": 4})
	if n := l.metric(t, "database"); n != "3" {
		t.Errorf("refused: %s", n)
	}
}

// Who has not logged in takes nobody's place, and one who is refused tells nothing of how many there are.
func TestLimitsCountWhoHasLoggedIn(t *testing.T) {
	l := startLimited(t, []string{"user all 1"})
	stranger := l.client(t, route.Auto)
	stranger.Send(rt.Startup("user", "alice"))
	s := l.server.Accept()
	s.ExpectStartup()
	ask := rt.Message('R', rt.Int32(3)) // AuthenticationCleartextPassword
	s.Send(ask)
	stranger.Expect(ask)
	l.in(t, "user", "alice")
	// The server's word counts, as the server knows whether the password is right.
	s.Send(rt.Fatal("28P01", "no"))
	stranger.ExpectError("28P01")
	stranger.Close()
	l.has(t, map[string]int{"user alice": 1, "database alice": 1, "address 127.0.0.1": 1})
	l.out(t, "user", "alice")
}

func TestLimitsWithSCRAM(t *testing.T) {
	l := startLimited(t, []string{"user alice 1", "database app 1"}, knows(t, map[string]string{"alice": "secret", "bob": "secret"}, nil))
	try := func(user, password, database string) (c *rt.Peer, p *scram.Client, s *rt.Peer, m *scram.Server) {
		c = l.client(t, route.Auto)
		c.Send(rt.Startup("user", user, "database", database))
		s = l.server.Accept()
		m = offers(s, credentials(t, user, "secret").Verifier())
		return c, proves(c, scram.Channel{}, user, password), s, m
	}
	c, p, s, m := try("alice", "secret", "app")
	checks(s, m, "alice", credentials(t, "alice", "secret").Verifier())
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	c.Expect(welcome...)
	for _, k := range []struct{ user, password, database, code, message string }{
		{"alice", "wrong", "app", "28P01", `password authentication failed for user "alice"`},
		{"alice", "secret", "other", "53300", `too many connections for role "alice"`},
		{"bob", "secret", "app", "53300", `too many connections for database "app"`},
	} {
		c, _, s, _ := try(k.user, k.password, k.database)
		if e := c.ExpectError(k.code); e.Message != k.message {
			t.Errorf("%+v: told %s", k, e.Message)
		}
		c.ExpectClose()
		s.ExpectClose() // no proof has come
	}
	l.has(t, map[string]int{"user alice": 1, "database app": 1, "address 127.0.0.1": 1})
	// One that the server refuses although the proof holds gives its place back.
	d, _, s, m := try("bob", "secret", "other")
	typ, body := s.Next()
	if bad := m.Final(body); typ != 'p' || bad != nil {
		t.Fatalf("%q: %v", typ, bad)
	}
	l.has(t, map[string]int{"user alice": 1, "user bob": 1, "database app": 1, "database other": 1, "address 127.0.0.1": 2})
	s.Send(rt.Fatal("28000", "role is not permitted to log in"))
	d.ExpectError("28000")
	d.Close()
	l.has(t, map[string]int{"user alice": 1, "database app": 1, "address 127.0.0.1": 1})
}

// Whatever a password is checked by, the limit comes after it.
func TestLimitsWithMD5(t *testing.T) {
	l := startLimited(t, []string{"user older 1"}, knows(t, map[string]string{"older": md5Of("older", "secret")}, nil))
	try := func(password string) (client, server *rt.Peer) {
		client = l.client(t, route.Auto)
		client.Send(rt.Startup("user", "older"))
		server = l.server.Accept()
		server.ExpectStartup()
		server.Send(askMD5("salt"))
		client.Send(answerMD5("older", password, challengedMD5(client)))
		return client, server
	}
	c, s := try("secret")
	s.Expect(answerMD5("older", "secret", "salt"))
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	c.Expect(rt.AuthOK, welcome[0], welcome[1])
	for password, code := range map[string]string{"wrong": "28P01", "secret": "53300"} {
		c, s := try(password)
		c.ExpectError(code)
		s.ExpectClose()
	}
	l.has(t, map[string]int{"user older": 1, "database older": 1, "address 127.0.0.1": 1})
}

// A client of a Unix-domain socket has no address, and a user as everybody has.
func TestLimitsOfUnixSockets(t *testing.T) {
	l := startLimited(t, []string{"address all 1", "user alice 2"}, atSocket(socketDir(t)), func(o *router.Options) {
		o.Rules = []string{"local all all trust", "host all all all pass-through"}
	})
	l.in(t, "user", "alice")
	local := func() *rt.Peer {
		c := rt.Dial(t, l.SocketPath(route.Auto))
		c.Send(rt.Startup("user", "alice"))
		return c
	}
	c := local()
	l.server.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
	l.has(t, map[string]int{"user alice": 2, "database alice": 2, "address 127.0.0.1": 1})
	local().ExpectError("53300") // a rule trusts it, so no server need be asked
	l.server.ExpectNobody()
	c.Close()
	l.has(t, map[string]int{"user alice": 1, "database alice": 1, "address 127.0.0.1": 1})
}

func TestLimitsWithCertificates(t *testing.T) {
	c := startCertifying(t, []string{"hostssl all all all cert"}, func(o *router.Options) { o.Limits = []string{"user alice 1"} })
	in := c.begin(t, c.named("alice"))
	in.send(rt.Startup("user", "alice"))
	c.server.Accept().Welcome(rt.KeyData(4711, "sekr"))
	in.welcomed()
	s := c.begin(t, c.named("alice"))
	s.send(rt.Startup("user", "alice"))
	if e := s.told(); e.Code != "53300" || e.Message != `too many connections for role "alice"` {
		t.Errorf("told %+v", e)
	}
	c.server.ExpectNobody()
	l := &limited{rig: c.rig}
	l.has(t, map[string]int{"user alice": 1, "database alice": 1, "address 127.0.0.1": 1})
}

func TestLimitOfAnAddress(t *testing.T) {
	l := startLimited(t, []string{"address 127.0.0.0/8 2"}, withConsole, func(o *router.Options) { o.MaxClients = 3 })
	first := l.client(t, route.Auto)
	first.Send(rt.Startup("user", "alice"))
	l.server.Accept().Welcome(rt.KeyData(1, "abcd"))
	key := first.Welcomed()
	// Unauthenticated clients count.
	asked := l.client(t, route.Auto)
	asked.Send(rt.Startup("user", "carol"))
	pending := l.server.Accept()
	pending.ExpectStartup()
	c := l.client(t, route.Auto)
	c.Send(rt.Startup("user", "dora"))
	if e := c.ExpectError("53300"); e.Message != `too many connections from address "127.0.0.1"` || e.Detail != "This router admits 2 clients of this address." {
		t.Errorf("told %+v", e)
	}
	c.ExpectClose()
	l.server.ExpectNobody()
	if n := l.metric(t, "address"); n != "1" {
		t.Errorf("refused: %s", n)
	}
	// Cancel requests and the console do not.
	cancel := l.client(t, route.Auto)
	cancel.Send(cancelRequest([]byte(key)))
	at := l.server.Accept()
	at.Expect(cancelRequest([]byte("\x00\x00\x00\x01abcd")))
	at.Close()
	cancel.ExpectClose()
	console, err := l.consoleOf(t, "root", consolePassword)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]map[string]any{
		{"kind": "address", "name": "127.0.0.1", "clients": int64(2), "max_clients": int64(2)},
		{"kind": "database", "name": "alice", "clients": int64(1), "max_clients": nil},
		{"kind": "user", "name": "alice", "clients": int64(1), "max_clients": nil},
	})
	if got := fmt.Sprint(rows(t, console, "SHOW LIMITS")); got != want {
		t.Errorf("SHOW LIMITS: %s, want %s", got, want)
	}
	// A place is free when a session is killed, and when a login fails.
	if _, err := console.Exec(t.Context(), "KILL 1"); err != nil {
		t.Fatal(err)
	}
	first.ExpectError("57P01")
	first.Close()
	l.has(t, map[string]int{"address 127.0.0.1": 1})
	pending.Send(rt.Fatal("28P01", "no"))
	asked.ExpectError("28P01")
	asked.Close()
	l.has(t, map[string]int{})
	// So it is when a client leaves that waits for a server.
	l.know.Liveness("one", "dead")
	l.know.Freeze()
	until(t, "no primary to be known", func() bool { return l.Status().Primary == "" })
	c = l.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	l.has(t, map[string]int{"address 127.0.0.1": 1})
	c.Close()
	l.has(t, map[string]int{})
}

// An address can have twice its limit open, and some; the next connection is reset before it has cost anything.
func TestLimitOfStartingConnections(t *testing.T) {
	l := startLimited(t, []string{"address 127.0.0.1 2"})
	l.in(t, "user", "alice")
	var silent []*rt.Peer
	for n := 1; n < 2*2+16; n++ {
		silent = append(silent, l.client(t, route.Auto))
		l.has(t, map[string]int{"user alice": 1, "database alice": 1, "address 127.0.0.1": 1, "starting 127.0.0.1": n})
	}
	conn, err := net.Dial("tcp", l.Address(route.Auto).String())
	if err == nil {
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(rt.Patience))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	if n := l.metric(t, "address"); n != "1" {
		t.Errorf("refused: %s", n)
	}
	// Another address is not held up by it.
	other := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if conn, err = other.Dial("tcp", l.Address(route.Auto).String()); err != nil {
		t.Fatal(err)
	}
	peer := rt.Play(t, conn)
	peer.Send(rt.Startup("user", "bob"))
	l.server.Accept().Welcome(rt.KeyData(1, "abcd"))
	peer.Welcomed()
	silent[0].Close()
	silent[1].Close()
	l.has(t, map[string]int{"user alice": 1, "database alice": 1, "address 127.0.0.1": 1, "starting 127.0.0.1": 17, "user bob": 1, "database bob": 1, "address 127.0.0.2": 1})
	l.in(t, "user", "alice")
}

// Sessions that were there before a limit count for it, and none ends by it.
func TestLimitsChange(t *testing.T) {
	l := startLimited(t, nil)
	first, _ := l.in(t, "user", "alice")
	second, server := l.in(t, "user", "alice")
	for _, k := range []struct {
		limits []string
		bad    string
	}{
		{[]string{"user alice"}, `limits: line 1, "user alice": has 2 fields`},
		{[]string{"user all 5", "address all 5", "user alice 6"}, `line 3, "user alice 6": counts for nobody, as line 1 is for all of its kind`},
		{[]string{"user alice 1", "user all unlimited"}, ""},
	} {
		o := l.options
		o.Limits = k.limits
		if err := l.Apply(o); (err == nil) != (k.bad == "") || err != nil && !strings.Contains(err.Error(), k.bad) {
			t.Errorf("%v: %v", k.limits, err)
		}
	}
	l.out(t, "user", "alice")
	l.in(t, "user", "bob")
	first.Close()
	l.has(t, map[string]int{"user alice": 1, "database alice": 1, "user bob": 1, "database bob": 1, "address 127.0.0.1": 2})
	l.out(t, "user", "alice")
	second.Send(rt.Query("SELECT 1"))
	server.Expect(rt.Query("SELECT 1"))
	o := l.options
	o.Limits = []string{"user alice 2"}
	if err := l.Apply(o); err != nil {
		t.Fatal(err)
	}
	l.in(t, "user", "alice")
}

// Many clients at once: never more than the limit, never fewer, and nobody is counted in the end.
func TestLimitsAreExact(t *testing.T) {
	const clients, limit, rounds = 60, 7, 4
	l := startLimited(t, []string{fmt.Sprintf("user alice %d", limit), fmt.Sprintf("database app %d", 2*limit)})
	go func() {
		for conn := range l.server.Arrivals() {
			go func() {
				defer conn.Close()
				if _, err := wire.ReadStartup(conn); err != nil {
					return
				}
				conn.Write(append(append(append([]byte{}, rt.AuthOK...), rt.KeyData(1, "abcd")...), rt.Ready('I')...))
				conn.Read(make([]byte, 1)) // Terminate, or the end
			}()
		}
	}()
	for range rounds {
		var mu sync.Mutex
		var open []net.Conn
		users := map[string]int{}
		var work sync.WaitGroup
		for i := range clients {
			user := []string{"alice", "bob"}[i%2]
			work.Go(func() {
				conn, err := net.Dial("tcp", l.Address(route.Auto).String())
				if err != nil {
					t.Error(err)
					return
				}
				conn.SetDeadline(time.Now().Add(rt.Patience))
				conn.Write(rt.Startup("user", user, "database", "app"))
				var first [1]byte
				if _, err := io.ReadFull(conn, first[:]); err != nil {
					t.Error(err)
				}
				if first[0] != 'R' {
					conn.Close()
					return
				}
				mu.Lock()
				defer mu.Unlock()
				open = append(open, conn)
				users[user]++
			})
		}
		work.Wait()
		if users["alice"] > limit || len(open) != 2*limit {
			t.Errorf("admitted %v, want %d in all and at most %d of alice", users, 2*limit, limit)
		}
		l.has(t, map[string]int{"user alice": users["alice"], "user bob": users["bob"], "database app": len(open), "address 127.0.0.1": len(open)})
		for i, conn := range open {
			if i%2 == 0 {
				conn.Write(rt.Terminate)
			}
			conn.Close()
		}
		l.has(t, map[string]int{})
	}
}

// The router refuses in the words of PostgreSQL, and leaves the server in order.
func TestLimitsAreToldAsByPostgreSQL(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.WithName("one"))
	ensureRoles(t, server)
	server.CreateRole("alice")
	server.CreateRole("bob")
	server.Exec("CREATE DATABASE app")
	server.Exec("ALTER ROLE alice CONNECTION LIMIT 0")
	server.Exec("ALTER DATABASE app CONNECTION LIMIT 0")
	cases := []struct{ user, db, direct string }{{user: "alice", db: "postgres"}, {user: "bob", db: "app"}}
	for i, k := range cases {
		told, _ := said(t, server.Addr(), k.user, postgrestest.Password, k.db)
		cases[i].direct, _, _ = strings.Cut(told, " (")
	}
	server.Exec("ALTER ROLE alice CONNECTION LIMIT -1")
	server.Exec("ALTER DATABASE app CONNECTION LIMIT -1")
	for name, change := range map[string]func(*router.Options){
		"pass-through": func(*router.Options) {},
		"scram": func(o *router.Options) {
			o.AuthType = router.AuthSCRAM
			o.OwnPassword = func() (string, error) { return routerSecret, nil }
		},
	} {
		g := start(t, change, func(o *router.Options) { o.Limits = []string{"user alice 1", "database app 1"} })
		g.know.Hear(rt.Primary("one", server.Addr(), 1))
		address := g.Address(route.Auto).String()
		for _, k := range cases {
			conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", k.user, postgrestest.Password, address, k.db))
			if err != nil {
				t.Fatal(err)
			}
			told, shown := said(t, address, k.user, postgrestest.Password, k.db)
			if got, _, _ := strings.Cut(told, " ("); got != k.direct || !strings.Contains(got, "53300") {
				t.Errorf("%s, %+v: told %s", name, k, told)
			}
			if !strings.Contains(shown, "too many connections for") || !strings.Contains(shown, "HINT:") {
				t.Errorf("%s, %+v: psql shows %s", name, k, shown)
			}
			conn.Close(t.Context())
			until(t, "the place to be free", func() bool { return g.Counted()["user "+k.user] == 0 })
			if told, _ := said(t, address, k.user, postgrestest.Password, k.db); told != "welcome" {
				t.Errorf("%s, %+v: told %s", name, k, told)
			}
		}
	}
	for _, trouble := range []string{"reset by peer", "unexpected EOF", "Broken pipe", "connection to client lost"} {
		if server.LogContains(trouble) {
			t.Errorf("the server logs %s", trouble)
		}
	}
}

// Who has not logged in to the console counts for its address as one that has not begun: nobody takes up all consoles.
func TestConsolesThatAreNotLoggedIn(t *testing.T) {
	g := start(t, withConsole, func(o *router.Options) { o.Limits = []string{"address all 1"} })
	const most = 2*1 + 16
	for range most {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "stranger", "database", "howdah"))
		if typ, _ := c.Next(); typ != 'R' {
			t.Fatalf("told %q", typ)
		}
	}
	if conn, err := net.DialTimeout("tcp", g.Address(route.Auto).String(), rt.Patience); err == nil {
		rt.Play(t, conn).ExpectClose()
	} else if !errors.Is(err, syscall.ECONNRESET) { // so soon that Dial sees it
		t.Error(err)
	}
}
