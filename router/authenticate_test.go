package router_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"howdah/router"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
)

const salt = "0123456789abcdef"

// credentials are those of a password under salt.
func credentials(t testing.TB, user, password string) scram.Credentials {
	t.Helper()
	c, err := scram.FromPassword(user, password, salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// knows has the router look roles up in a table of passwords and count how often it asks.
// A password may be given as its verifier.
func knows(t testing.TB, passwords map[string]string, asked *atomic.Int32) func(*router.Options) {
	return func(o *router.Options) {
		o.AuthType = router.AuthSCRAM
		o.OwnPassword = func() (string, error) { return "", errors.New("nobody is to connect") }
		o.AskRoles(func(_ context.Context, _ own.Server, name string) (role.Role, error) {
			if asked != nil {
				asked.Add(1)
			}
			if password, ok := passwords[name]; ok {
				if v, err := scram.ParseVerifier(password); err == nil && v.Kind != scram.KindNone {
					return role.Role{Verifier: v}, nil
				}
				return role.Role{Verifier: credentials(t, name, password).Verifier()}, nil
			}
			return role.Role{Why: "the role does not exist"}, nil
		})
	}
}

// mocking is what a server has for a user that cannot log in: a salt, and a verifier that nothing fits.
func mocking(user, salt string) scram.Verifier {
	return scram.MockLike([]byte("server"), user, salt, 4096)
}

// offers plays a server's part of SCRAM up to its challenge; the rest is answers'.
func offers(s *rt.Peer, v scram.Verifier) *scram.Server {
	s.ExpectStartup()
	return offersOnly(s, v)
}

func offersOnly(s *rt.Peer, v scram.Verifier) *scram.Server {
	return offersOver(s, scram.Channel{}, v)
}

func offersOver(s speaker, channel scram.Channel, v scram.Verifier) *scram.Server {
	m := scram.NewServer(channel, "server-nonce")
	s.Send(rt.Message('R', rt.Int32(scram.CodeSASL), scram.Offer(m.Mechanisms())))
	typ, body := s.Next()
	first, err := scram.ParseInitial(body)
	if typ != 'p' || err != nil {
		s.Fail("received %q %q (%v), want a SASL response", typ, body, err)
	}
	if bad := m.First(first.Mechanism, first.Data); bad != nil {
		s.Fail("client-first-message: %v", bad)
	}
	s.Send(rt.Message('R', rt.Int32(scram.CodeSASLContinue), m.Challenge(v)))
	return m
}

// checks plays the rest: it fails unless the proof holds.
func checks(s speaker, m *scram.Server, user string, v scram.Verifier) {
	typ, body := s.Next()
	if typ != 'p' {
		s.Fail("received %q, want a SASL response", typ)
	}
	if bad := m.Final(body); bad != nil {
		s.Fail("client-final-message: %v", bad)
	}
	_, signature, ok := m.Check(user, v)
	if !ok {
		s.Fail("the router's proof for %s does not hold", user)
	}
	s.Send(rt.Message('R', rt.Int32(scram.CodeSASLFinal), signature))
}

// speaker is a client's side of a connection, with or without TLS.
type speaker interface {
	Send(...[]byte)
	Next() (byte, []byte)
	Fail(string, ...any)
}

// proves plays a client's part up to its proof; acceptance is accepted's.
func proves(c speaker, channel scram.Channel, user, password string) *scram.Client {
	m := scram.NewClient(channel, "client-nonce")
	for {
		typ, body := c.Next()
		if typ != 'R' {
			c.Fail("received %q %q, want an authentication request", typ, body)
		}
		reply, err := m.Request(body)
		if err != nil {
			c.Fail("%v", err)
		}
		if len(reply) > 0 {
			c.Send(reply)
		}
		if !m.Challenged() {
			continue
		}
		creds, err := scram.FromPassword(user, password, m.Asked().Salt, m.Asked().Iterations)
		if err == nil {
			reply, err = m.Answer(creds)
		}
		if err != nil {
			c.Fail("%v", err)
		}
		c.Send(reply)
		return m
	}
}

// accepted reads up to AuthenticationOk.
func accepted(c speaker, m *scram.Client) {
	for !m.Done() {
		typ, body := c.Next()
		if typ != 'R' {
			c.Fail("received %q %q, want an authentication request", typ, body)
		}
		if _, err := m.Request(body); err != nil {
			c.Fail("%v", err)
		}
	}
}

var welcome = [][]byte{rt.ParameterStatus("server_version", "15.0"), rt.Ready('I')}

func TestSCRAM(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	alice := credentials(t, "alice", "secret").Verifier()
	c := g.client(t, route.Auto)
	c.Send(rt.StartupOf(3<<16|2, "user", "alice"))
	s := server.Accept()
	s.ExpectStartup()
	// What comes before the authentication goes to the client before it.
	negotiate := rt.Message('v', rt.Int32(3<<16), rt.Int32(0))
	s.Send(negotiate)
	m := offersOnly(s, alice)
	c.Expect(negotiate)
	p := proves(c, scram.Channel{}, "alice", "secret")
	c.Send(rt.Query("SELECT 1")) // who does not wait for the answer
	checks(s, m, "alice", alice)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	c.Expect(welcome...)
	s.Expect(rt.Query("SELECT 1"))
	s.Send(rt.Complete("SELECT 1"), rt.Ready('I'))
	c.Expect(rt.Complete("SELECT 1"), rt.Ready('I'))
	c.Send(rt.Terminate)
	s.Expect(rt.Terminate)
	s.Close()
	c.ExpectClose()
}

// Whatever is wrong, a client is told the same, after the same messages, and no proof reaches a server.
func TestSCRAMRefuses(t *testing.T) {
	var asked atomic.Int32
	g := start(t, knows(t, map[string]string{"alice": "secret"}, &asked))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	var began time.Time
	for _, k := range []struct {
		user     string
		verifier scram.Verifier
		again    bool
	}{
		{"alice", credentials(t, "alice", "secret").Verifier(), false}, {"alice", credentials(t, "alice", "secret").Verifier(), true},
		{"nobody", mocking("nobody", "another salt"), false}, {"nobody", mocking("nobody", "another salt"), true},
	} {
		before, last := asked.Load(), began
		began = time.Now()
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", k.user))
		s := server.Accept()
		offers(s, k.verifier)
		m := proves(c, scram.Channel{}, k.user, "wrong")
		if got := m.Asked().Salt; got != k.verifier.Salt {
			t.Errorf("%s is shown the salt %q, and by the server %q", k.user, got, k.verifier.Salt)
		}
		e := c.ExpectError("28P01")
		if want := fmt.Sprintf(`password authentication failed for user "%s"`, k.user); e.Message != want || e.Severity != "FATAL" || e.Detail+e.Hint != "" {
			t.Errorf("%+v, want %s", e, want)
		}
		c.ExpectClose()
		s.ExpectClose()
		// Once to begin with, unless that is known from the time before, and once for the proof that fails: the same for those that exist and those that do not.
		switch n := asked.Load() - before; {
		case !k.again && n != 2, k.again && n != 1 && time.Since(last) < role.KeptFor:
			t.Errorf("%s was looked up %d times, again is %v", k.user, n, k.again)
		}
	}
}

// A server that trusts the router does not make the router trust its clients, and nothing tells who exists.
func TestSCRAMBeforeTrust(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	salts := map[string]string{}
	for _, k := range []struct{ user, password string }{{"alice", "secret"}, {"alice", "wrong"}, {"nobody", "x"}, {"nobody", "y"}, {"somebody", "x"}} {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", k.user))
		s := server.Accept()
		s.ExpectStartup()
		s.Send(rt.AuthOK, welcome[0], welcome[1])
		m := proves(c, scram.Channel{}, k.user, k.password)
		got, n := m.Asked().Salt, m.Asked().Iterations
		if before, ok := salts[k.user]; n != 4096 || len(got) != 16 || ok && got != before {
			t.Errorf("%s is shown the salt %q, count %d, and before %q", k.user, got, n, before)
		}
		salts[k.user] = got
		if k.password != "secret" {
			c.ExpectError("28P01")
			s.ExpectClose()
			continue
		}
		accepted(c, m)
		c.Expect(welcome...)
	}
	if salts["nobody"] == salts["somebody"] {
		t.Error("all that do not exist have one salt")
	}
}

func TestSCRAMOtherMethods(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	begin := func() (*rt.Peer, *rt.Peer) {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.ExpectStartup()
		return c, s
	}
	for name, request := range map[string][]byte{
		"a password in clear": rt.Message('R', rt.Int32(scram.CodePassword)),
		"GSSAPI":              rt.Message('R', rt.Int32(7)),
		"OAUTHBEARER":         rt.Message('R', rt.Int32(scram.CodeSASL), scram.Offer([]string{"OAUTHBEARER"})),
	} {
		c, s := begin()
		s.Send(request)
		if e := c.ExpectError("28000"); !strings.Contains(e.Message, name) || !strings.Contains(e.Hint, "pass-through") {
			t.Errorf("%s: %+v", name, e)
		}
		s.ExpectClose()
	}
	// What a server says of itself goes on as it is.
	c, s := begin()
	no := rt.Fatal("28000", `no pg_hba.conf entry for host "127.0.0.1"`)
	s.Send(no)
	c.Expect(no)
	c, s = begin()
	v := credentials(t, "alice", "secret").Verifier()
	m := offersOnly(s, v)
	p := proves(c, scram.Channel{}, "alice", "secret")
	checks(s, m, "alice", v)
	out := rt.Fatal("28000", `role "alice" is not permitted to log in`)
	s.Send(rt.AuthOK, out)
	accepted(c, p)
	c.Expect(out)
}

// A standby that has not replayed a new password yet is passed over, as is a server that goes away in the middle; the client proves itself once.
func TestSCRAMTriesOn(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil))
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("two", two.Address(), 1))
	alice := credentials(t, "alice", "secret").Verifier()
	old, err := scram.FromPassword("alice", "secret", "an old salt", 4096)
	if err != nil {
		t.Fatal(err)
	}
	c := g.client(t, route.RO)
	c.Send(rt.Startup("user", "alice"))
	s := two.Accept()
	offers(s, old.Verifier())
	s.ExpectClose()
	s = one.Accept()
	offers(s, alice)
	p := proves(c, scram.Channel{}, "alice", "secret")
	s.Next()
	s.Send(rt.Fatal("57P01", "terminating connection due to administrator command"))
	s.Close()
	s = one.Accept()
	m := offers(s, alice)
	checks(s, m, "alice", alice)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	c.Expect(welcome...)
}

// A new password under the salt of the old one, which nothing in the exchange shows.
func TestSCRAMLooksAgain(t *testing.T) {
	passwords := map[string]string{"alice": "old"}
	g := start(t, knows(t, passwords, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	login := func(password string, ok bool) {
		t.Helper()
		v := credentials(t, "alice", password).Verifier()
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		m := offers(s, v)
		p := proves(c, scram.Channel{}, "alice", password)
		if !ok {
			c.ExpectError("28P01")
			return
		}
		checks(s, m, "alice", v)
		s.Send(rt.AuthOK, welcome[0], welcome[1])
		accepted(c, p)
		c.Expect(welcome...)
	}
	login("old", true)
	passwords["alice"] = "new"
	login("new", true)
	login("old", false)
}

func TestSCRAMWithoutTheFunction(t *testing.T) {
	for _, k := range []router.AuthType{router.AuthAuto, router.AuthSCRAM} {
		g := start(t, knows(t, nil, nil), func(o *router.Options) {
			o.AuthType = k
			o.AskRoles(func(context.Context, own.Server, string) (role.Role, error) {
				return role.Role{}, fmt.Errorf("%w: not yet", role.ErrNoFunction)
			})
		})
		server := rt.Listen(t, "")
		g.know.Hear(rt.Primary("one", server.Address(), 1))
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.ExpectStartup()
		offer := rt.Message('R', rt.Int32(scram.CodeSASL), scram.Offer([]string{scram.Mechanism}))
		s.Send(offer)
		if k == router.AuthAuto {
			c.Expect(offer)
			c.Send(rt.Message('p', []byte("anything")))
			s.Expect(rt.Message('p', []byte("anything")))
			continue
		}
		s.Next()
		s.Send(rt.Message('R', rt.Int32(scram.CodeSASLContinue), []byte("r=x")))
		s.ExpectClose()
		c.Close()
	}
}

func FuzzLettersOfClients(f *testing.F) { fuzzLetters(f, router.ClientLetters) }

func FuzzLettersOfServers(f *testing.F) { fuzzLetters(f, router.ServerLetters) }

// fuzzLetters has messages read that come in pieces, and holds them against the bytes that were sent.
func fuzzLetters(f *testing.F, read func(net.Conn) [][]byte) {
	f.Add(append(rt.Message('p', []byte("abc")), rt.Message('p')...), 3)
	f.Add(append(rt.Message('R', rt.Int32(0)), 'E', 0, 0, 0, 4), 1)
	f.Add(rt.Message('p', make([]byte, 1000)), 64)
	f.Add([]byte{'R', 0x7f, 0xff, 0xff, 0xff}, 5)
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		var got []byte
		for _, m := range read(&pieces{left: sent, size: max(piece%100, 1)}) {
			if h := wire.ParseHeader(m); h.Size() != len(m) {
				t.Fatalf("%q is no message", m)
			}
			got = append(got, m...)
		}
		if !bytes.HasPrefix(sent, got) {
			t.Fatalf("sent %q, read %q", sent, got)
		}
	})
}

// pieces is a connection on which bytes come a few at a time.
type pieces struct {
	net.Conn
	left []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[:min(p.size, len(p.left))])
	p.left = p.left[n:]
	return n, nil
}

// What a stranger may do wrong in the middle of a login. None of it reaches the server, which has no more than the beginning of an exchange.
func TestSCRAMBadClients(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil), func(o *router.Options) { o.LoginTimeout = 300 * time.Millisecond })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	initial := func(mechanism, data string) []byte {
		return rt.Message('p', rt.Text(mechanism), rt.Int32(uint32(len(data))), []byte(data))
	}
	for name, k := range map[string]struct {
		send []byte
		code string
	}{
		"another message":      {rt.Query("SELECT 1"), "08P01"},
		"a password":           {rt.Message('p', rt.Text("secret")), "08P01"},
		"a long message":       {rt.Message('p', make([]byte, 2000)), "08P01"},
		"a huge length":        {[]byte{'p', 0x7f, 0xff, 0xff, 0xff}, "08P01"},
		"a negative length":    {[]byte{'p', 0xff, 0xff, 0xff, 0xff}, "08P01"},
		"a tiny length":        {[]byte{'p', 0, 0, 0, 3}, "08P01"},
		"another mechanism":    {initial("SCRAM-SHA-1", "n,,n=,r=x"), "08P01"},
		"plus without TLS":     {initial(scram.MechanismPlus, "p=tls-server-end-point,,n=,r=x"), "08P01"},
		"authorization":        {initial(scram.Mechanism, "n,a=bob,n=,r=x"), "0A000"},
		"nothing":              {nil, "57014"},
		"half a message":       {initial(scram.Mechanism, "n,,n=,r=x")[:8], "57014"},
		"no proof":             {initial(scram.Mechanism, "n,,n=,r=x"), "57014"},
		"a proof of something": {append(initial(scram.Mechanism, "n,,n=,r=x"), rt.Message('p', []byte("c=biws,r=x,p=AAAA"))...), "08P01"},
	} {
		t.Run(name, func(t *testing.T) {
			c := g.client(t, route.Auto)
			c.Send(rt.Startup("user", "alice"))
			s := server.Accept()
			offers(s, credentials(t, "alice", "secret").Verifier())
			if len(k.send) > 0 {
				c.Send(k.send)
			}
			for typ, body := c.Next(); ; typ, body = c.Next() {
				if typ == 'R' {
					continue
				}
				if got, fatal := wire.PeekError(body); typ != 'E' || got != k.code || !fatal {
					t.Fatalf("received %q %q, want an error %s", typ, body, k.code)
				}
				break
			}
			c.ExpectClose()
			s.ExpectClose()
		})
	}
	t.Run("goes away", func(t *testing.T) {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		offers(s, credentials(t, "alice", "secret").Verifier())
		c.Next()
		c.Close()
		s.ExpectClose()
		until(t, "the session to be forgotten", func() bool { return g.count("") == 0 })
	})
	t.Run("the router ends", func(t *testing.T) {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice"))
		offers(server.Accept(), credentials(t, "alice", "secret").Verifier())
		c.Next()
		go g.stop()
		c.ExpectError("57P01")
	})
}

// A client may choose the mechanism first and send its first message later.
func TestSCRAMWithoutInitialResponse(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	v := credentials(t, "alice", "secret").Verifier()
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	m := offers(s, v)
	_, body := c.Next()
	p := scram.NewClient(scram.Channel{}, "client-nonce")
	reply, err := p.Request(body)
	if err != nil {
		t.Fatal(err)
	}
	c.Send(rt.Message('p', rt.Text(scram.Mechanism), rt.Int32(0xffffffff)))
	c.Expect(rt.Message('R', rt.Int32(scram.CodeSASLContinue)))
	first := bytes.Index(reply, []byte("n,,"))
	c.Send(rt.Message('p', reply[first:]))
	_, body = c.Next()
	if _, err := p.Request(body); err != nil {
		t.Fatal(err)
	}
	if reply, err = p.Answer(credentials(t, "alice", "secret")); err != nil {
		t.Fatal(err)
	}
	c.Send(reply)
	checks(s, m, "alice", v)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	c.Expect(welcome...)
}

// Send, Next and Fail make secured a speaker.
func (s secured) Send(messages ...[]byte) { s.send(messages...) }

func (s secured) Next() (byte, []byte) {
	var head [wire.HeaderSize]byte
	if _, err := readFull(s, head[:]); err != nil {
		s.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := readFull(s, body); err != nil {
		s.t.Fatal(err)
	}
	return head[0], body
}

func (s secured) Fail(format string, args ...any) { s.t.Fatalf(format, args...) }

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Read(b[n:])
		n += m
	}
	return n, err
}

func TestSCRAMPlus(t *testing.T) {
	option, pool := withTLS(t, t.TempDir(), router.TLSAllow)
	g := start(t, option, knows(t, map[string]string{"alice": "secret"}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	v := credentials(t, "alice", "secret").Verifier()
	config := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	for name, k := range map[string]struct {
		channel func(certificate []byte) scram.Channel
		code    string
	}{
		"bound":                  {func(c []byte) scram.Channel { sum := sha256.Sum256(c); return scram.Channel{EndPoint: sum[:]} }, ""},
		"unbound":                {func([]byte) scram.Channel { return scram.Channel{} }, ""},
		"to another certificate": {func([]byte) scram.Channel { return scram.Channel{EndPoint: []byte("another")} }, "28000"},
	} {
		t.Run(name, func(t *testing.T) {
			c := g.begin(t, config)
			c.send(rt.Startup("user", "alice"))
			s := server.Accept()
			m := offers(s, v)
			p := proves(c, k.channel(c.ConnectionState().PeerCertificates[0].Raw), "alice", "secret")
			if k.code != "" {
				c.expectError(k.code)
				s.ExpectClose()
				return
			}
			checks(s, m, "alice", v)
			s.Send(rt.AuthOK, welcome[0], welcome[1])
			accepted(c, p)
			c.expect(welcome...)
			c.send(rt.Query("SELECT 1"))
			s.Expect(rt.Query("SELECT 1"))
		})
	}
	t.Run("downgraded", func(t *testing.T) {
		c := g.begin(t, config)
		c.send(rt.Startup("user", "alice"))
		offers(server.Accept(), v)
		if _, body := c.Next(); !strings.Contains(string(body), scram.MechanismPlus) {
			t.Fatalf("offered %q", body)
		}
		data := "y,,n=,r=x"
		c.send(rt.Message('p', rt.Text(scram.Mechanism), rt.Int32(uint32(len(data))), []byte(data)))
		c.expectError("28000")
	})
}
