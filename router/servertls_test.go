package router_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	"howdah/sidecar/postgres/postgrestest"
)

// acceptsTLS plays a server's part of going over to TLS with the certificate of the two files.
func acceptsTLS(t *testing.T, s *rt.Peer, certFile, keyFile string) secured {
	t.Helper()
	s.Expect(rt.SSLRequest)
	s.Send([]byte{'S'})
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(rt.Patience))
	conn := tls.Server(s.Conn, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return secured{conn, t}
}

func TestServerTLS(t *testing.T) {
	certFile, keyFile, certificate := rt.Certificate(t, t.TempDir(), "server")
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil), func(o *router.Options) {
		o.ServerTLSMode, o.ServerTLSCAFile = router.ServerTLSVerifyFull, certFile
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	v := credentials(t, "alice", "secret").Verifier()
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	s := acceptsTLS(t, server.Accept(), certFile, keyFile)
	if _, err := wire.ReadStartup(s); err != nil {
		t.Fatal(err)
	}
	// The channel is bound to the certificate that the router was shown.
	sum := sha256.Sum256(certificate.Raw)
	m := offersOver(s, scram.Channel{EndPoint: sum[:]}, v)
	p := proves(c, scram.Channel{}, "alice", "secret")
	checks(s, m, "alice", v)
	s.send(rt.AuthOK, rt.KeyData(7, "sekr"), rt.Ready('I'))
	accepted(c, p)
	_, key := c.Next()
	c.Expect(rt.Ready('I'))
	for _, size := range []int{1, 5000, 100 << 10} {
		text := strings.Repeat("x", size)
		c.Send(rt.Query(text))
		s.expect(rt.Query(text))
		sent := make(chan bool)
		go func() {
			defer close(sent)
			s.send(rt.Row(text), rt.Ready('I'))
		}()
		c.Expect(rt.Row(text), rt.Ready('I'))
		<-sent
	}
	// So does a cancel request, and the statement of a client that vanishes.
	cancel := g.client(t, route.Auto)
	cancel.Send(cancelRequest(key))
	k := acceptsTLS(t, server.Accept(), certFile, keyFile)
	k.expect(cancelRequest([]byte("\x00\x00\x00\x07sekr")))
	k.Close()
	cancel.ExpectClose()
	c.Send(rt.Query("SELECT pg_sleep(60)"))
	s.expect(rt.Query("SELECT pg_sleep(60)"))
	c.Close()
	k = acceptsTLS(t, server.Accept(), certFile, keyFile)
	k.expect(cancelRequest([]byte("\x00\x00\x00\x07sekr")))
	k.Close()
	if b, err := io.ReadAll(s); len(b) > 0 {
		t.Errorf("after that: %q, %v", b, err)
	}
}

// Whoever answers for the server, nothing of a client is said to it before it has shown who it is.
func TestServerTLSRefuses(t *testing.T) {
	certFile, keyFile, _ := rt.Certificate(t, t.TempDir(), "server")
	otherFile, otherKey, _ := rt.Certificate(t, t.TempDir(), "another")
	named, namedKey := rt.CertificateFor(t, t.TempDir(), "elsewhere", "elsewhere.example")
	for name, k := range map[string]struct {
		mode           router.ServerTLSMode
		ca, cert, key  string
		answer         string
		wants, refuses bool
	}{
		"declined":                         {mode: router.ServerTLSRequire, answer: "N", refuses: true},
		"declined, preferred":              {mode: router.ServerTLSPrefer, answer: "N"},
		"an error in clear":                {mode: router.ServerTLSPrefer, answer: "E\x00\x00\x00\x08boo\x00", refuses: true},
		"more than an answer":              {mode: router.ServerTLSRequire, answer: "SR\x00\x00\x00\x08\x00\x00\x00\x00", refuses: true},
		"require takes any":                {mode: router.ServerTLSRequire, cert: otherFile, key: otherKey, wants: true},
		"prefer takes any":                 {mode: router.ServerTLSPrefer, cert: otherFile, key: otherKey, wants: true},
		"verify-ca, another authority":     {mode: router.ServerTLSVerifyCA, ca: certFile, cert: otherFile, key: otherKey, wants: true, refuses: true},
		"verify-ca, another name":          {mode: router.ServerTLSVerifyCA, ca: named, cert: named, key: namedKey, wants: true},
		"verify-full, another name":        {mode: router.ServerTLSVerifyFull, ca: named, cert: named, key: namedKey, wants: true, refuses: true},
		"verify-full, another authority":   {mode: router.ServerTLSVerifyFull, ca: certFile, cert: otherFile, key: otherKey, wants: true, refuses: true},
		"verify-full, all as it should be": {mode: router.ServerTLSVerifyFull, ca: certFile, cert: certFile, key: keyFile, wants: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(o *router.Options) {
				o.ServerTLSMode, o.ServerTLSCAFile, o.FailoverWait = k.mode, k.ca, 0
			})
			server := rt.Listen(t, "")
			g.know.Hear(rt.Primary("one", server.Address(), 1))
			until(t, "the router to know the primary", func() bool { return g.Status().Primary == "one" })
			c := g.client(t, route.Auto)
			c.Send(rt.Startup("user", "alice"))
			p := server.Accept()
			p.Expect(rt.SSLRequest)
			if !k.wants {
				p.Send([]byte(k.answer))
				if k.refuses {
					for { // a handshake may have begun; a startup packet must not follow
						b := make([]byte, 4096)
						n, err := p.Read(b)
						if strings.Contains(string(b[:n]), "alice") {
							t.Fatal("the startup packet was sent in clear")
						}
						if err != nil {
							break
						}
					}
					c.ExpectError("57P03")
					return
				}
				p.Welcome(rt.KeyData(1, "abcd"))
				c.Welcomed()
				return
			}
			p.Send([]byte{'S'})
			pair, err := tls.LoadX509KeyPair(k.cert, k.key)
			if err != nil {
				t.Fatal(err)
			}
			p.SetDeadline(time.Now().Add(rt.Patience))
			conn := tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{pair}})
			_, err = wire.ReadStartup(conn)
			if (err != nil) != k.refuses {
				t.Errorf("startup packet: %v", err)
			}
			if k.refuses {
				c.ExpectError("57P03")
			}
		})
	}
}

// The files for TLS to servers are read again when they change: the next session is that of the new authority, with the new certificate, and the old authority
// is none any more.
func TestServerTLSFilesAreReadAgain(t *testing.T) {
	pair := func(name string) [2]string {
		cert, key, _ := rt.Certificate(t, t.TempDir(), name)
		return [2]string{cert, key}
	}
	old, next, shownFirst, shownNext := pair("old"), pair("next"), pair("first"), pair("second")
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "router.crt"), filepath.Join(dir, "router.key")
	put := func(from, to string) {
		text, err := os.ReadFile(from)
		if err != nil || os.WriteFile(to, text, 0o600) != nil {
			t.Fatal(from, err)
		}
	}
	put(old[0], ca)
	put(shownFirst[0], cert)
	put(shownFirst[1], key)
	g := start(t, func(o *router.Options) {
		o.ServerTLSMode, o.ServerTLSCAFile, o.ServerTLSCertFile, o.ServerTLSKeyFile, o.FailoverWait = router.ServerTLSVerifyFull, ca, cert, key, 0
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	until(t, "the router to know the primary", func() bool { return g.Status().Primary == "one" })
	// begins has a session begin at a server with that certificate, and returns the name on the router's; empty if the router wants none of the server.
	begins := func(with [2]string) string {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(with[0], with[1])
		if err != nil {
			t.Fatal(err)
		}
		c := g.client(t, route.Auto)
		defer c.Close()
		c.Send(rt.Startup("user", "alice"))
		p := server.Accept()
		defer p.Close()
		p.Expect(rt.SSLRequest)
		p.Send([]byte{'S'})
		p.SetDeadline(time.Now().Add(rt.Patience))
		conn := tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
		if _, err := wire.ReadStartup(conn); err != nil {
			c.ExpectError("57P03")
			return ""
		}
		secured{conn, t}.send(rt.Fatal("53300", "enough"))
		c.ExpectError("53300")
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := begins(old); got != "first" {
		t.Errorf("shown %q", got)
	}
	if got := begins(next); got != "" {
		t.Errorf("another authority's server: shown %q", got)
	}
	put(next[0], ca)
	put(shownNext[0], cert)
	put(shownNext[1], key)
	until(t, "the new files to be in force", func() bool { return begins(next) == "second" })
	if got := begins(old); got != "" {
		t.Errorf("the old authority's server: shown %q", got)
	}
}

func TestServerTLSOptions(t *testing.T) {
	for want, change := range map[string]func(*router.Options){
		"server-tls-mode: \"maybe\"":             func(o *router.Options) { o.ServerTLSMode = "maybe" },
		"verify-full needs server-tls-ca-file":   func(o *router.Options) { o.ServerTLSMode = router.ServerTLSVerifyFull },
		"nothing is verified":                    func(o *router.Options) { o.ServerTLSMode, o.ServerTLSCAFile = router.ServerTLSRequire, "x" },
		"needs server-tls-key-file":              func(o *router.Options) { o.ServerTLSMode, o.ServerTLSCertFile = router.ServerTLSRequire, "x" },
		"is not shown to anybody":                func(o *router.Options) { o.ServerTLSCertFile, o.ServerTLSKeyFile = "x", "y" },
		"auth-type: \"md5\" is not allowed":      func(o *router.Options) { o.AuthType = "md5" },
		"auth-type: scram needs the password of": func(o *router.Options) { o.AuthType = router.AuthSCRAM },
	} {
		o := router.DefaultOptions()
		o.Cluster, o.Name = "c", "n"
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A login that cannot succeed is not found out by clients alone.
func TestWarnsOfTLSOnBothSides(t *testing.T) {
	option, _ := withTLS(t, t.TempDir(), router.TLSAllow)
	for _, k := range []struct {
		change func(*router.Options)
		warns  bool
	}{
		{func(o *router.Options) { o.ServerTLSMode = router.ServerTLSRequire }, true},
		{func(o *router.Options) { o.AuthType, o.ServerTLSMode = router.AuthPassThrough, router.ServerTLSPrefer }, true},
		{func(*router.Options) {}, false},
		{func(o *router.Options) { knows(t, nil, nil)(o); o.ServerTLSMode = router.ServerTLSRequire }, false},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		g := startLogging(t, zap.New(core), option, k.change)
		g.stop()
		if got := logs.FilterMessageSnippet("two connections with TLS").Len() > 0; got != k.warns {
			t.Errorf("warned: %v, want %v", got, k.warns)
		}
	}
}

// withServerTLS are the options of a Postgres that takes TLS, and the file of its authority.
func withServerTLS(t *testing.T) ([]postgrestest.Option, string) {
	t.Helper()
	dir := postgrestest.TempDir(t)
	certFile, keyFile, _ := rt.Certificate(t, dir, "server")
	if who := postgrestest.Credential(t); who != nil {
		for _, f := range []string{certFile, keyFile} {
			if err := os.Chown(f, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []postgrestest.Option{
		postgrestest.WithParameter("ssl", "on"), postgrestest.WithParameter("ssl_cert_file", certFile), postgrestest.WithParameter("ssl_key_file", keyFile),
	}, certFile
}

// A server that asks for a certificate is shown one.
func TestServerTLSClientCertificate(t *testing.T) {
	options, ca := withServerTLS(t)
	certFile, keyFile, _ := rt.Certificate(t, t.TempDir(), "router")
	authority := filepath.Join(postgrestest.TempDir(t), "ca.crt")
	if text, err := os.ReadFile(certFile); err != nil || os.WriteFile(authority, text, 0o644) != nil {
		t.Fatal(err)
	}
	primary := postgrestest.Start(t, append(options, postgrestest.WithName("one"), postgrestest.WithParameter("ssl_ca_file", authority),
		postgrestest.WithHBA("hostssl all all all scram-sha-256 clientcert=verify-ca"))...)
	ensureRoles(t, primary)
	primary.CreateRole("alice")
	for name, k := range map[string]struct{ cert, key, want string }{
		"shown": {certFile, keyFile, "welcome"}, "none": {"", "", "FATAL 28000: connection requires a valid client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(o *router.Options) {
				o.AuthType, o.OwnPassword = router.AuthSCRAM, func() (string, error) { return routerSecret, nil }
				o.FailoverWait = time.Second
				o.ServerTLSMode, o.ServerTLSCAFile, o.ServerTLSCertFile, o.ServerTLSKeyFile = router.ServerTLSVerifyFull, ca, k.cert, k.key
			})
			g.know.Hear(rt.Primary("one", primary.Addr(), 1))
			if got, _ := said(t, g.Address(route.Auto).String(), "alice", postgrestest.Password, "postgres"); !strings.HasPrefix(got, k.want) {
				t.Errorf("told %s, want %s", got, k.want)
			}
		})
	}
}

// Both legs are TLS, the channel is bound on both, and each to its own certificate.
func TestServerTLSWithPostgres(t *testing.T) {
	options, ca := withServerTLS(t)
	primary := postgrestest.Start(t, append(options, postgrestest.WithName("one"), postgrestest.WithHBA("hostnossl all all all reject"))...)
	ensureRoles(t, primary)
	primary.CreateRole("alice")
	option, _ := withTLS(t, t.TempDir(), router.TLSAllow)
	for _, mode := range []router.ServerTLSMode{router.ServerTLSPrefer, router.ServerTLSRequire, router.ServerTLSVerifyCA, router.ServerTLSVerifyFull} {
		t.Run(string(mode), func(t *testing.T) {
			g := start(t, option, func(o *router.Options) {
				o.AuthType, o.OwnPassword = router.AuthSCRAM, func() (string, error) { return routerSecret, nil }
				if o.ServerTLSMode = mode; strings.HasPrefix(string(mode), "verify") {
					o.ServerTLSCAFile = ca
				}
			})
			c := &cluster{rig: g, primary: primary}
			g.know.Hear(rt.Primary("one", primary.Addr(), 1))
			for _, more := range []string{"sslmode=disable", "sslmode=require&channel_binding=require"} {
				out, err := psql(t, connString(c.Address(route.Auto).String(), "alice", "postgres", more), postgrestest.Password,
					"SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 5000)")
				if err != nil || out != "t\n5000000" {
					t.Errorf("%s: %v: %s", more, err, out)
				}
			}
			if got, _ := said(t, c.Address(route.Auto).String(), "alice", "wrong password", "postgres"); !strings.HasPrefix(got, "FATAL 28P01") {
				t.Errorf("wrong password: %s", got)
			}
			if got := primary.Query("SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'howdah_router'"); got != "t" {
				t.Errorf("the router's own connections: ssl %q", got)
			}
			conn := c.connect(t, route.Auto, "&application_name=sleeper")
			slept := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
				slept <- err
			}()
			until(t, "the statement to run", func() bool {
				return primary.Query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep'") == "1"
			})
			if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-slept; code(err) != "57014" {
				t.Errorf("cancelled: %v", err)
			}
			testCopy(t, c)
		})
	}
	t.Run("disable", func(t *testing.T) {
		g := start(t)
		g.know.Hear(rt.Primary("one", primary.Addr(), 1))
		got, _ := said(t, g.Address(route.Auto).String(), "alice", postgrestest.Password, "postgres")
		if want := fmt.Sprintf("FATAL 28000: pg_hba.conf rejects connection for host %q", "127.0.0.1"); !strings.HasPrefix(got, want) {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}
