package router_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"howdah/router"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/sidecar/postgres/postgrestest"
)

func hexMD5(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// md5Of is what PostgreSQL stores of a password when password_encryption is md5, by its own documentation (pg_authid.rolpassword).
func md5Of(user, password string) string { return "md5" + hexMD5(password+user) }

// answerMD5 is what a client answers to an md5 challenge, by the protocol's documentation (AuthenticationMD5Password).
func answerMD5(user, password, salt string) []byte {
	return rt.Message('p', rt.Text("md5"+hexMD5(hexMD5(password+user)+salt)))
}

func askMD5(salt string) []byte { return rt.Message('R', rt.Int32(scram.CodeMD5), []byte(salt)) }

// challengedMD5 returns the salt of the challenge that the client gets.
func challengedMD5(c speaker) string {
	typ, body := c.Next()
	if typ != 'R' || len(body) != 8 || string(body[:4]) != string(rt.Int32(scram.CodeMD5)) {
		c.Fail("got %q %q, want an md5 challenge", typ, body)
	}
	return string(body[4:])
}

// An md5 password is checked by the router, with a salt of its own, and opens the servers.
func TestMD5EndsInTheRouter(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret", "older": md5Of("older", "secret")}, nil))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	begin := func(user string) (*rt.Peer, *rt.Peer) {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", user))
		s := server.Accept()
		s.ExpectStartup()
		return c, s
	}
	let := func(c, s *rt.Peer) {
		s.Send(rt.AuthOK, welcome[0], welcome[1])
		c.Expect(rt.AuthOK, welcome[0], welcome[1])
	}
	c, s := begin("older")
	s.Send(askMD5("salt"))
	salt := challengedMD5(c)
	c.Send(answerMD5("older", "secret", salt))
	s.Expect(answerMD5("older", "secret", "salt"))
	let(c, s)
	// A server that trusts the router does not make the router trust the client.
	c, s = begin("older")
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	other := challengedMD5(c)
	if other == salt {
		t.Error("two challenges with one salt")
	}
	c.Send(answerMD5("older", "secret", other))
	c.Expect(rt.AuthOK, welcome[0], welcome[1])
	for name, k := range map[string]struct {
		user    string
		answer  func(salt string) []byte
		code    string
		message string
	}{
		"wrong":            {"older", func(salt string) []byte { return answerMD5("older", "wrong", salt) }, "28P01", `password authentication failed for user "older"`},
		"replayed":         {"older", func(string) []byte { return answerMD5("older", "secret", salt) }, "28P01", ""},
		"what is stored":   {"older", func(string) []byte { return rt.Message('p', rt.Text(md5Of("older", "secret"))) }, "28P01", ""},
		"in clear":         {"older", func(string) []byte { return rt.Message('p', rt.Text("secret")) }, "28P01", ""},
		"nobody":           {"nobody", func(salt string) []byte { return answerMD5("nobody", "secret", salt) }, "28P01", `password authentication failed for user "nobody"`},
		"nobody's nothing": {"nobody", func(salt string) []byte { return rt.Message('p', rt.Text("md5"+hexMD5(salt))) }, "28P01", ""},
		"empty":            {"older", func(string) []byte { return rt.Message('p', []byte{0}) }, "28P01", "empty password returned by client"},
		"without an end":   {"older", func(string) []byte { return rt.Message('p', []byte("md5")) }, "08P01", "invalid password packet size"},
		"two ends":         {"older", func(salt string) []byte { return rt.Message('p', rt.Text("md5"), []byte{0}) }, "08P01", ""},
		"too long":         {"older", func(string) []byte { return rt.Message('p', make([]byte, 16<<10)) }, "08P01", "invalid message length 16388 in a password"},
		"another message":  {"older", func(string) []byte { return rt.Query("SELECT 1") }, "08P01", "expected password response, got message type 81"},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := begin(k.user)
			s.Send(askMD5("salt"))
			c.Send(k.answer(challengedMD5(c)))
			if e := c.ExpectError(k.code); k.message != "" && e.Message != k.message {
				t.Errorf("told %s, want %s", e.Message, k.message)
			}
			c.ExpectClose()
			s.ExpectClose()
		})
	}
	t.Run("SCRAM's role", func(t *testing.T) {
		// A server that asks for md5 of a role whose verifier is SCRAM's is not current, or no server of the cluster: the client's proof is not for it.
		c, s := begin("alice")
		s.Send(askMD5("salt"))
		s.ExpectClose()
		c.Close()
	})
}

// By rules md5 is refused, or taken, where the role has it; a role with a verifier of SCRAM is asked for SCRAM by either.
func TestMethodsOfRules(t *testing.T) {
	stored := map[string]string{"alice": "secret", "older": md5Of("older", "secret")}
	for name, k := range map[string]struct {
		user, method string
		code         uint32
	}{
		"scram-sha-256, of SCRAM": {"alice", "scram-sha-256", scram.CodeSASL},
		"scram-sha-256, of md5":   {"older", "scram-sha-256", scram.CodeSASL},
		"md5, of SCRAM":           {"alice", "md5", scram.CodeSASL},
		"md5, of md5":             {"older", "md5", scram.CodeMD5},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, knows(t, stored, nil), func(o *router.Options) { o.Rules = []string{"host all all all " + k.method} })
			server := rt.Listen(t, "")
			g.know.Hear(rt.Primary("one", server.Address(), 1))
			c := g.client(t, route.Auto)
			c.Send(rt.Startup("user", k.user))
			s := server.Accept()
			s.ExpectStartup()
			s.Send(rt.AuthOK, welcome[0], welcome[1])
			if k.code == scram.CodeMD5 {
				c.Send(answerMD5("older", "secret", challengedMD5(c)))
				c.Expect(rt.AuthOK, welcome[0], welcome[1])
				return
			}
			p := proves(c, scram.Channel{}, k.user, "secret")
			if k.user == "alice" {
				accepted(c, p)
				return
			}
			c.ExpectError("28P01")
		})
	}
}

// A password that was set a moment ago is right at once, also where it is sent in clear.
func TestPasswordInClearIsLookedUpAgain(t *testing.T) {
	var has atomic.Bool
	alice := credentials(t, "alice", "secret").Verifier()
	g := start(t, func(o *router.Options) {
		o.AuthType, o.OwnPassword = router.AuthSCRAM, func() (string, error) { return "", errors.New("nobody is to connect") }
		o.AskRoles(func(context.Context, own.Server, string) (role.Role, error) {
			if has.Load() {
				return role.Role{Verifier: alice}, nil
			}
			return role.Role{Why: "it has no password"}, nil
		})
		o.UnixSocketDir, o.Rules = socketDir(t), []string{"local all all password"}
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	begin := func(v scram.Verifier) (*rt.Peer, *rt.Peer, *scram.Server) {
		c := rt.Dial(t, g.SocketPath(route.RW))
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		m := offers(s, v)
		c.Expect(rt.Message('R', rt.Int32(scram.CodePassword)))
		c.Send(rt.Message('p', rt.Text("secret")))
		return c, s, m
	}
	c, _, _ := begin(mocking("alice", "fedcba9876543210"))
	c.ExpectError("28P01")
	has.Store(true)
	c, s, m := begin(alice)
	checks(s, m, "alice", alice)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	c.Expect(rt.AuthOK, welcome[0], welcome[1])
}

// A role with an md5 password is served by primary and standbys, as any other.
func testMD5WithPostgres(t *testing.T, a *authenticating) {
	for of, want := range map[route.Route]string{route.Auto: "older2|one", route.RW: "older2|one", route.RO: "older2|two"} {
		for _, more := range []string{"sslmode=disable", "sslmode=require"} {
			out, err := psql(t, connString(a.Address(of).String(), "older2", "postgres", more), postgrestest.Password, "SELECT current_user, current_setting('cluster_name')")
			if err != nil || out != want {
				t.Errorf("%s: %v: %s, want %s", of, err, out, want)
			}
		}
	}
	through := a.Address(route.Auto).String()
	for _, next := range []string{"second", postgrestest.Password} {
		a.primary.Exec(fmt.Sprintf("SET password_encryption = md5; ALTER ROLE older2 PASSWORD '%s'", next))
		for password, want := range map[string]string{next: "welcome", "third": "FATAL 28P01"} {
			if got, _ := said(t, through, "older2", password, "postgres"); !strings.HasPrefix(got, want) {
				t.Errorf("%s after ALTER ROLE: %s, want %s", password, got, want)
			}
		}
	}
	a.primary.Exec(fmt.Sprintf("ALTER ROLE older2 PASSWORD '%s'", postgrestest.Password)) // SCRAM now
	if got, _ := said(t, through, "older2", postgrestest.Password, "postgres"); got != "welcome" {
		t.Errorf("after the change to SCRAM: %s", got)
	}
	a.two.CatchUp(a.primary)
}

// What a client sends in clear, under TLS, opens primary and standby by SCRAM or md5, whatever its role has.
func testClearWithPostgres(t *testing.T, a *authenticating) {
	o := a.options
	o.Rules = []string{"hostssl all all all password"}
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
	a.primary.CreateRole("pass", fmt.Sprintf("PASSWORD '%s'", "p\u00aa\u00a0ss"))
	a.two.CatchUp(a.primary)
	for _, k := range []struct{ user, password, want string }{
		{"alice", postgrestest.Password, "alice|"}, {"older", postgrestest.Password, "older|"}, {"pass", "p\u00aa\u00a0ss", "pass|"}, {"pass", "pa ss", "pass|"},
		{"alice", "wrong password", `password authentication failed for user "alice"`}, {"older", "wrong password", `password authentication failed for user "older"`},
		{"nobody", "x", `password authentication failed for user "nobody"`}, {"late", postgrestest.Password, `password authentication failed for user "late"`},
	} {
		for of, at := range map[route.Route]string{route.RW: "one", route.RO: "two"} {
			out, _ := psql(t, connString(a.Address(of).String(), k.user, "postgres", "sslmode=require"), k.password, "SELECT current_user, current_setting('cluster_name')")
			if want := k.want; !strings.Contains(out, want) || strings.HasSuffix(want, "|") && out != want+at {
				t.Errorf("%s with %q at %s: %s, want %s", k.user, k.password, of, out, want)
			}
		}
	}
	if out, err := psql(t, connString(a.Address(route.RW).String(), "alice", "postgres", "sslmode=disable"), postgrestest.Password, "SELECT 1"); err == nil || !strings.Contains(out, "no rule of this router") {
		t.Errorf("without TLS: %s", out)
	}
	o.Rules = nil
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
}

// Whom a rule trusts the router lets in where the servers let the router in; nobody else.
func testTrustWithPostgres(t *testing.T, a *authenticating) {
	o := a.options
	o.Rules = []string{"host all trusted,alice 127.0.0.1 trust", "host all all all reject"}
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
	for of, at := range map[route.Route]string{route.RW: "one", route.RO: "two"} {
		if out, err := psql(t, connString(a.Address(of).String(), "trusted", "postgres", "sslmode=disable"), "", "SELECT current_user, current_setting('cluster_name')"); err != nil || out != "trusted|"+at {
			t.Errorf("%s: %v: %s", of, err, out)
		}
	}
	for user, want := range map[string]string{
		"alice": `one asks for SCRAM-SHA-256, and user "alice" is trusted by a rule of this router`, "older": `a rule of this router rejects host "127.0.0.1", user "older"`,
	} {
		if out, err := psql(t, connString(a.Address(route.RW).String(), user, "postgres", "sslmode=disable"), postgrestest.Password, "SELECT 1"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s, want %s", user, out, want)
		}
	}
	o.Rules = nil
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
}
