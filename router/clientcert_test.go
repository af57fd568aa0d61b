package router_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
)

// certifying is a router that knows an authority of clients, in front of one server.
type certifying struct {
	*rig
	authority *rt.Authority
	caFile    string
	server    *rt.Server
	logs      *observer.ObservedLogs
	options   router.Options // as it was made
}

func startCertifying(t *testing.T, rules []string, change ...func(*router.Options)) *certifying {
	t.Helper()
	c := &certifying{authority: rt.NewAuthority(t, t.TempDir(), "ours"), server: rt.Listen(t, "")}
	c.caFile = c.authority.File("ca.crt")
	option, _ := withTLS(t, t.TempDir(), router.TLSAllow)
	core, logs := observer.New(zapcore.DebugLevel)
	c.logs = logs
	all := append([]func(*router.Options){option, func(o *router.Options) {
		o.TLSClientCAFile, o.Rules, o.FailoverWait = c.caFile, rules, time.Second
	}}, append(change, func(o *router.Options) { c.options = *o })...)
	c.rig = startLogging(t, zap.New(core), all...)
	c.know.Hear(rt.Primary("one", c.server.Address(), 1))
	return c
}

// named is what a client shows that is called so.
func (c *certifying) named(name string) *tls.Config {
	return c.authority.Pair("client", pkix.Name{CommonName: name})
}

// anonymous is a client without a certificate.
func anonymous() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// told reads the one error that a client is told.
func (s secured) told() wire.Error {
	s.t.Helper()
	b, err := io.ReadAll(s)
	if err != nil || len(b) < wire.HeaderSize || b[0] != 'E' {
		s.t.Fatalf("received %q (%v), want an error", b, err)
	}
	e, err := wire.ParseError(b[wire.HeaderSize:])
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// turnedAway waits for a line of the log about a client that was not let in, and returns all that there are since it was asked last.
func (c *certifying) turnedAway(t *testing.T) []observer.LoggedEntry {
	t.Helper()
	until(t, "it to be logged", func() bool { return c.logs.FilterMessage("client turned away").Len() > 0 })
	all := c.logs.TakeAll()
	return slices.DeleteFunc(all, func(e observer.LoggedEntry) bool { return e.Level < zapcore.InfoLevel })
}

func TestClientCertificate(t *testing.T) {
	c := startCertifying(t, []string{"hostssl all all all cert"})
	in := c.begin(t, c.named("alice"))
	in.send(rt.Startup("user", "alice"))
	c.server.Accept().Welcome(rt.KeyData(4711, "sekr"))
	in.welcomed()
	c.logs.TakeAll()
	for _, k := range []struct {
		shown        *tls.Config
		user         string
		want, detail string
	}{
		{anonymous(), "alice", "connection requires a valid client certificate", ""},
		{c.named("bob"), "alice", `certificate authentication failed for user "alice"`, `the client certificate is for "bob"`},
		{c.named("Alice"), "alice", `certificate authentication failed for user "alice"`, `is for "Alice"`},
		{c.named(""), "alice", `certificate authentication failed for user "alice"`, "contains no user name"},
		{c.named(strings.Repeat("a", 64)), strings.Repeat("a", 64), `certificate authentication failed for user "` + strings.Repeat("a", 64), "longer than that of any role"},
		{c.authority.Pair("client", pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "bob"}, {Type: []int{2, 5, 4, 3}, Value: "alice"}}}), "alice",
			`certificate authentication failed for user "alice"`, `is for "bob"`}, // the first name counts
	} {
		s := c.begin(t, k.shown)
		s.send(rt.Startup("user", k.user))
		if e := s.told(); e.Code != "28000" || !strings.HasPrefix(e.Message, k.want) || e.Detail != "" {
			t.Errorf("%s: told %+v, want %s", k.user, e, k.want)
		}
		logged := c.turnedAway(t)
		if text := fmt.Sprint(logged[0].ContextMap()); len(logged) != 1 || logged[0].Level != zapcore.InfoLevel || !strings.Contains(text, k.detail) {
			t.Errorf("%s: logged %v, want %s", k.user, logged, k.detail)
		}
		c.server.ExpectNobody()
	}
	// In clear there is no rule for anybody.
	p := c.client(t, route.Auto)
	p.Send(rt.Startup("user", "alice"))
	p.ExpectError("28000")
	c.server.ExpectNobody()
}

// A certificate that does not hold ends the handshake, with the alert that says why.
func TestClientCertificateAlerts(t *testing.T) {
	c := startCertifying(t, []string{"hostssl all all all pass-through"}) // whether one is wanted or not
	until(t, "the router to know the primary", func() bool { return c.Status().Primary == "one" })
	c.logs.TakeAll()
	other := rt.NewAuthority(t, t.TempDir(), "another")
	for want, k := range map[string]struct {
		shown  *tls.Config
		logged string
	}{
		"unknown certificate authority": {other.Pair("client", pkix.Name{CommonName: "alice"}), "unknown authority"},
		"expired certificate":           {c.authority.Pair("client", pkix.Name{CommonName: "alice"}, rt.Expired), "expired"},
		"bad certificate": {c.authority.Pair("client", pkix.Name{CommonName: "alice"}, func(x *x509.Certificate) {
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "usage"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			k.shown.MaxVersion = version
			p := c.client(t, route.Auto)
			p.Send(rt.SSLRequest)
			p.Expect([]byte{'S'})
			s, err := secure(t, p, k.shown)
			if err == nil { // TLS 1.3: the client learns of it with its first read
				s.Write(append(rt.Startup("user", "alice"), make([]byte, 64<<10)...))
				_, err = io.ReadAll(s)
				// What it sent is not answered with a reset, which could destroy the alert before it is read.
				if _, err := p.Conn.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("%s: then %v", want, err)
				}
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
			logged := c.turnedAway(t)
			if text := fmt.Sprint(logged[0].ContextMap()); len(logged) != 1 || !strings.Contains(text, k.logged) || !strings.Contains(text, "CN=alice") {
				t.Errorf("%s: logged %v", want, logged)
			}
			c.server.ExpectNobody()
		}
	}
}

func TestClientCertificateMapped(t *testing.T) {
	c := startCertifying(t, []string{
		"hostssl all dora all cert map=dn clientname=DN", "hostssl all all all cert map=staff",
	}, func(o *router.Options) {
		o.IdentMap = []string{`staff /^(.*)@example\.com$ \1`, "staff Bob.B bob", `dn "/^CN=dora,O=Big\\, Inc\.$" dora`}
	})
	for _, k := range []struct {
		subject pkix.Name
		user    string
		welcome bool
	}{
		{pkix.Name{CommonName: "alice@example.com"}, "alice", true},
		{pkix.Name{CommonName: "alice@example.com"}, "bob", false},
		{pkix.Name{CommonName: "Bob.B"}, "bob", true},
		{pkix.Name{CommonName: "bob"}, "bob", false},
		{pkix.Name{CommonName: "dora", Organization: []string{"Big, Inc."}}, "dora", true},
		{pkix.Name{CommonName: "dora", Organization: []string{"Big"}}, "dora", false},
	} {
		s := c.begin(t, c.authority.Pair("client", k.subject))
		s.send(rt.Startup("user", k.user))
		if k.welcome {
			c.server.Accept().Welcome(rt.KeyData(4711, "sekr"))
			s.welcomed()
		} else if e := s.told(); e.Code != "28000" {
			t.Errorf("%s as %s: %+v", k.subject, k.user, e)
		}
	}
}

// What the server asks beyond a certificate the router cannot answer, and says so at once.
func TestClientCertificateIsNoPassword(t *testing.T) {
	certFile, keyFile, _ := rt.Certificate(t, t.TempDir(), "howdah-router")
	own := func(o *router.Options) {
		o.ServerTLSMode, o.ServerTLSCertFile, o.ServerTLSKeyFile = router.ServerTLSPrefer, certFile, keyFile
	}
	for name, k := range map[string]struct {
		change       func(*router.Options)
		tls, asks    bool
		request      []byte
		want, detail string
	}{
		"SCRAM":          {func(*router.Options) {}, false, false, rt.Message('R', rt.Int32(10), rt.Text("SCRAM-SHA-256", "")), "one asks for SCRAM-SHA-256, and", "no certificate of its own"},
		"a password":     {func(*router.Options) {}, false, false, rt.Message('R', rt.Int32(3)), "one asks for a password in clear", "no certificate of its own"},
		"md5":            {func(*router.Options) {}, false, false, rt.Message('R', rt.Int32(5), []byte("salt")), "one asks for an md5 password", "no certificate of its own"},
		"without TLS":    {own, false, false, rt.Message('R', rt.Int32(5), []byte("salt")), "one asks for an md5 password", "without TLS"},
		"not asked for":  {own, true, false, rt.Message('R', rt.Int32(5), []byte("salt")), "one asks for an md5 password", "has not asked"},
		"shown, in vain": {own, true, true, rt.Message('R', rt.Int32(5), []byte("salt")), "one asks for an md5 password", "has shown it"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCertifying(t, []string{"hostssl all all all cert"}, k.change)
			s := c.begin(t, c.named("alice"))
			s.send(rt.Startup("user", "alice"))
			c.answers(t, k.change != nil && c.options.ServerTLSCertFile != "", k.tls, k.asks, k.request)
			if e := s.told(); e.Code != "28000" || !strings.HasPrefix(e.Message, k.want) || !strings.Contains(e.Detail, k.detail) || !strings.Contains(e.Hint, "cert map=router") {
				t.Errorf("told %+v, want %s, %s", e, k.want, k.detail)
			}
			c.server.ExpectNobody()
		})
	}
}

// answers plays a server up to its first authentication request: asked for TLS, which it has or declines, and for the router's certificate within it.
func (c *certifying) answers(t *testing.T, asked, secured, wants bool, request []byte) io.ReadWriter {
	t.Helper()
	p := c.server.Accept()
	var conn io.ReadWriter = p
	if asked {
		p.Expect(rt.SSLRequest)
		if !secured {
			p.Send([]byte{'N'})
		} else {
			p.Send([]byte{'S'})
			certFile, keyFile, _ := rt.Certificate(t, t.TempDir(), "server")
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			config := &tls.Config{Certificates: []tls.Certificate{pair}}
			if wants {
				config.ClientAuth = tls.RequireAnyClientCert
			}
			p.SetDeadline(time.Now().Add(rt.Patience))
			conn = tls.Server(p.Conn, config)
		}
	}
	if _, err := wire.ReadStartup(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A server that takes the router's certificate for a proof is not shown on to a client whom nobody has asked for one.
func TestServerTrustsTheRouterNotItsClients(t *testing.T) {
	certFile, keyFile, _ := rt.Certificate(t, t.TempDir(), "howdah-router")
	for name, k := range map[string]struct {
		wants, negotiates bool
		request           []byte
		refused           bool
	}{
		"shown, and that was enough":                    {true, false, rt.AuthOK, true},
		"the same behind another message":               {true, true, rt.AuthOK, true},
		"shown, and a password asked for":               {true, false, rt.Message('R', rt.Int32(3)), false},
		"not shown: the server lets in whom it lets in": {false, false, rt.AuthOK, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCertifying(t, nil, func(o *router.Options) {
				o.AuthType = router.AuthPassThrough
				o.ServerTLSMode, o.ServerTLSCertFile, o.ServerTLSKeyFile = router.ServerTLSRequire, certFile, keyFile
			})
			p := c.client(t, route.Auto)
			p.Send(rt.Startup("user", "alice"))
			request := k.request
			if k.negotiates {
				request = append(rt.Message('v', rt.Int32(3<<16), rt.Int32(0)), request...)
			}
			s := c.answers(t, true, true, k.wants, request)
			if k.negotiates {
				p.Expect(rt.Message('v', rt.Int32(3<<16), rt.Int32(0)))
			}
			if k.refused {
				if e := p.ExpectError("28000"); !strings.Contains(e.Message, `nobody has authenticated user "alice"`) {
					t.Errorf("told %+v", e)
				}
				if b, _ := io.ReadAll(s); len(b) > 0 {
					t.Errorf("the server got %q", b)
				}
				return
			}
			p.Expect(k.request)
		})
	}
}

// Beside a password the certificate is looked at before (verify-ca), or after it (verify-full), and what the client is told does not depend on which was wrong.
func TestClientCertificateBesidePassword(t *testing.T) {
	c := startCertifying(t, []string{"hostssl all bob all scram-sha-256 clientcert=verify-ca", "hostssl all trusted all trust clientcert=verify-full", "hostssl all all all md5 clientcert=verify-full"},
		knows(t, map[string]string{"alice": "secret", "bob": "secret", "older": md5Of("older", "secret")}, nil))
	for name, k := range map[string]struct {
		shown    *tls.Config
		user     string
		password string
		want     string
	}{
		"all right":                 {c.named("alice"), "alice", "secret", ""},
		"another's certificate":     {c.named("bob"), "alice", "secret", "28P01"},
		"another's, wrong password": {c.named("bob"), "alice", "wrong", "28P01"},
		"wrong password":            {c.named("alice"), "alice", "wrong", "28P01"},
		"none":                      {anonymous(), "alice", "secret", "28000"},
		"any will do":               {c.named("carol"), "bob", "secret", ""},
		"any, but a right password": {c.named("bob"), "bob", "wrong", "28P01"},
		"none where any would do":   {anonymous(), "bob", "secret", "28000"},
		"another's, and md5":        {c.named("carol"), "older", "md5", "28P01"},
		"another's, and trusted":    {c.named("carol"), "trusted", "", "28000"},
		"all right, and trusted":    {c.named("trusted"), "trusted", "", ""},
		"all right, and md5":        {c.named("older"), "older", "md5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.begin(t, k.shown)
			s.send(rt.Startup("user", k.user))
			if k.want == "28000" {
				if e := s.told(); e.Code != k.want || k.user == "trusted" && e.Message != `"trust" authentication failed for user "trusted"` {
					t.Errorf("told %+v", e)
				}
				c.server.ExpectNobody()
				return
			}
			at := c.server.Accept()
			if k.user == "trusted" {
				at.Welcome(rt.KeyData(4711, "sekr"))
				s.welcomed()
				return
			}
			if k.password == "md5" {
				at.ExpectStartup()
				at.Send(askMD5("salt"))
				s.send(answerMD5("older", "secret", challengedMD5(s)))
				if k.want == "" {
					at.Expect(answerMD5("older", "secret", "salt"))
				} else if e := s.told(); e.Code != k.want || e.Message != `password authentication failed for user "older"` {
					t.Errorf("told %+v", e)
				}
				return
			}
			v := credentials(t, k.user, "secret").Verifier()
			m := offers(at, v)
			sum := sha256.Sum256(s.ConnectionState().PeerCertificates[0].Raw)
			p := proves(s, scram.Channel{EndPoint: sum[:]}, k.user, k.password)
			if k.want != "" {
				if e := s.told(); e.Code != k.want || !strings.HasPrefix(e.Message, "password authentication failed") {
					t.Errorf("told %+v", e)
				}
				return
			}
			checks(at, m, k.user, v)
			at.Send(rt.AuthOK, welcome[0], welcome[1])
			accepted(s, p)
		})
	}
}

// A session that began with a certificate goes on with the next primary, where the router is let in as its user again; where it is asked for more, it ends.
func TestCertifiedSessionsMove(t *testing.T) {
	for name, asks := range map[string][]byte{"let in": nil, "asked for a password": rt.Message('R', rt.Int32(scram.CodeSASL), scram.Offer([]string{scram.Mechanism}))} {
		t.Run(name, func(t *testing.T) {
			c := startCertifying(t, []string{"hostssl all all all cert"}, knows(t, nil, nil)) // without a role of its own the router routes no statements
			two := rt.Listen(t, "")
			s := c.begin(t, c.named("alice"))
			s.send(rt.Startup("user", "alice"))
			first := c.server.Accept()
			first.Welcome(rt.KeyData(4711, "sekr"))
			s.welcomed()
			c.know.Hear(rt.Primary("two", two.Address(), 2))
			first.ExpectClose()
			s.send(rt.Query("INSERT INTO t VALUES (1)"))
			next := two.Accept()
			if got := next.ExpectStartup().Parameters["user"]; got != "alice" {
				t.Errorf("began anew as %s", got)
			}
			if asks != nil {
				next.Send(asks)
				next.ExpectClose()
				if e := s.told(); e.Code != "57P01" || !strings.Contains(e.Message, "SCRAM") && !strings.Contains(e.Message, "nothing to log in with") {
					t.Errorf("told %+v", e)
				}
				return
			}
			next.Send(rt.AuthOK, rt.KeyData(99, "abcd"), rt.Ready('I'))
			next.Expect(rt.Query("INSERT INTO t VALUES (1)"))
			next.Send(rt.Complete("INSERT 0 1"), rt.Ready('I'))
			s.expect(rt.Complete("INSERT 0 1"), rt.Ready('I'))
		})
	}
}

// The authorities are read again by themselves and at RELOAD, and no session ends by it.
func TestClientAuthoritiesChange(t *testing.T) {
	c := startCertifying(t, []string{"hostssl all all all cert"})
	other := rt.NewAuthority(t, t.TempDir(), "another")
	second := other.Pair("client", pkix.Name{CommonName: "alice"})
	enters := func(shown *tls.Config) bool {
		t.Helper()
		shown.MaxVersion = tls.VersionTLS12 // the client learns of a refusal in the handshake
		p := c.client(t, route.Auto)
		p.Send(rt.SSLRequest)
		p.Expect([]byte{'S'})
		s, err := secure(t, p, shown)
		if err != nil {
			return false
		}
		s.send(rt.Startup("user", "alice"))
		c.server.Accept().Welcome(rt.KeyData(4711, "sekr"))
		s.welcomed()
		return true
	}
	old := c.begin(t, c.named("alice"))
	old.send(rt.Startup("user", "alice"))
	server := c.server.Accept()
	server.Welcome(rt.KeyData(4711, "sekr"))
	old.welcomed()
	if enters(second) {
		t.Error("another authority's is let in")
	}
	if err := os.WriteFile(c.caFile, append(append([]byte{}, c.authority.PEM...), other.PEM...), 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, "the second authority", func() bool { return enters(second) })
	if !enters(c.named("alice")) {
		t.Error("the first is not let in any more")
	}
	// A file that is none changes nothing, and RELOAD says so.
	if err := os.WriteFile(c.caFile, []byte("half a fi"), 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, "the router to have looked at it", func() bool {
		if !enters(second) {
			t.Fatal("not let in")
		}
		return c.logs.FilterMessageSnippet("those before stay in force").Len() > 0
	})
	if err := c.Apply(c.options); err == nil || !strings.Contains(err.Error(), "tls-client-ca-file: there is no PEM certificate in "+c.caFile) {
		t.Errorf("RELOAD: %v", err)
	}
	o := c.options
	if o.TLSClientCAFile = c.caFile + ".gone"; c.Apply(o) == nil {
		t.Error("a file that is not there is taken")
	}
	if o.TLSClientCAFile = ""; c.Apply(o) == nil {
		t.Error("a rule with cert is left without authorities")
	}
	// At once with RELOAD: now only the second is known.
	o.TLSClientCAFile = other.File("ca.crt")
	if err := c.Apply(o); err != nil {
		t.Fatal(err)
	}
	if enters(c.named("alice")) || !enters(second) {
		t.Error("the first is let in, or the second is not")
	}
	// Without authorities nobody is asked for a certificate.
	o.TLSClientCAFile, o.Rules = "", []string{"hostssl all all all pass-through"}
	if err := c.Apply(o); err != nil {
		t.Fatal(err)
	}
	asked := false
	silent := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return new(tls.Certificate), nil
	}}
	if !enters(silent) || asked {
		t.Errorf("asked for a certificate: %v", asked)
	}
	old.send(rt.Query("SELECT"))
	server.Expect(rt.Query("SELECT"))
}

func TestClientCertificateOptions(t *testing.T) {
	for want, change := range map[string]func(*router.Options){
		"tls-mode: disable does not go with": func(o *router.Options) { o.TLSMode, o.TLSCertFile, o.TLSKeyFile = router.TLSDisable, "", "" },
		`rules: line 1, "hostssl all all all cert": client certificates can only be checked if`: func(o *router.Options) {
			o.Rules, o.TLSClientCAFile = []string{"hostssl all all all cert"}, ""
		},
		"give tls-client-ca-file": func(o *router.Options) {
			o.Rules, o.TLSClientCAFile = []string{"hostssl all all all pass-through clientcert=verify-ca"}, ""
		},
		`no line of ident-map is of the map "x"`: func(o *router.Options) {
			o.Rules, o.IdentMap = []string{"hostssl all all all cert map=x"}, []string{"y a b"}
		},
		`ident-map: line 2, "x"`: func(o *router.Options) { o.IdentMap = []string{"y a b", "x"} },
	} {
		o := router.DefaultOptions()
		o.Cluster, o.Name = "c", "n"
		o.TLSMode, o.TLSCertFile, o.TLSKeyFile, o.TLSClientCAFile = router.TLSAllow, "x", "y", "z"
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
