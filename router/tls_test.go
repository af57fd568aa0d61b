package router_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// withTLS gives a router a certificate of its own, whose files are in dir.
func withTLS(t *testing.T, dir string, mode router.TLSMode) (func(*router.Options), *x509.CertPool) {
	certFile, keyFile, c := rt.Certificate(t, dir, "first")
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return func(o *router.Options) { o.TLSMode, o.TLSCertFile, o.TLSKeyFile = mode, certFile, keyFile }, pool
}

// secured is a client's connection within TLS.
type secured struct {
	*tls.Conn
	t *testing.T
}

// secure goes over to TLS on a connection that the router has agreed to.
func secure(t *testing.T, p *rt.Peer, config *tls.Config) (secured, error) {
	p.SetDeadline(time.Now().Add(rt.Patience))
	conn := tls.Client(p.Conn, config)
	return secured{conn, t}, conn.HandshakeContext(t.Context())
}

func (s secured) send(messages ...[]byte) {
	s.t.Helper()
	if _, err := s.Write(bytes.Join(messages, nil)); err != nil {
		s.t.Fatal(err)
	}
}

func (s secured) expect(messages ...[]byte) {
	s.t.Helper()
	for _, want := range messages {
		got := make([]byte, len(want))
		if n, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
			s.t.Fatalf("received %.80q (%v), want %.80q", got[:n], err, want)
		}
	}
}

// welcomed plays the client's part of Peer.Welcome and returns the cancel key.
func (s secured) welcomed() []byte {
	s.t.Helper()
	s.expect(rt.AuthOK, rt.ParameterStatus("server_version", "15.0"))
	key := make([]byte, len(rt.KeyData(1, "abcd")))
	if _, err := io.ReadFull(s, key); err != nil || key[0] != 'K' {
		s.t.Fatalf("received %q (%v), want a cancel key", key, err)
	}
	s.expect(rt.Ready('I'))
	return key[wire.HeaderSize:]
}

func (s secured) expectError(code string) {
	s.t.Helper()
	b, _ := io.ReadAll(s) // up to the close that follows
	if len(b) < wire.HeaderSize || b[0] != 'E' || !strings.Contains(string(b), "C"+code) {
		s.t.Fatalf("received %q, want an error %s", b, code)
	}
}

// begin asks for TLS and goes over to it.
func (g *rig) begin(t *testing.T, config *tls.Config) secured {
	t.Helper()
	p := g.client(t, route.Auto)
	p.Send(rt.SSLRequest)
	p.Expect([]byte{'S'})
	s, err := secure(t, p, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTLS(t *testing.T) {
	option, pool := withTLS(t, t.TempDir(), router.TLSAllow)
	g := start(t, option)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	config := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	relays := func(t *testing.T, c secured) {
		t.Helper()
		c.send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.Welcome(rt.KeyData(4711, "sekr"))
		c.welcomed()
		// Shorter, as long as and longer than what waits for a message, and longer than a record.
		for _, size := range []int{1, 2034, 2035, 2036, 2048, 20 << 10, 200 << 10} {
			text := strings.Repeat("x", size)
			c.send(rt.Query(text))
			s.Expect(rt.Query(text))
			answered := make(chan bool)
			go func() {
				defer close(answered)
				s.Send(rt.Row(text), rt.Ready('I'))
			}()
			c.expect(rt.Row(text), rt.Ready('I'))
			<-answered
		}
		s.Send(rt.Notice("unasked"))
		c.expect(rt.Notice("unasked"))
		c.send(rt.Terminate)
		s.Expect(rt.Terminate)
		s.Close()
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("after Terminate: %q, %v", b, err)
		}
	}
	t.Run("asked for", func(t *testing.T) { relays(t, g.begin(t, config)) })
	t.Run("asked for after GSS", func(t *testing.T) {
		p := g.client(t, route.Auto)
		p.Send(rt.GSSENCRequest)
		p.Expect([]byte{'N'})
		p.Send(rt.SSLRequest)
		p.Expect([]byte{'S'})
		c, err := secure(t, p, config)
		if err != nil {
			t.Fatal(err)
		}
		relays(t, c)
	})
	t.Run("direct", func(t *testing.T) {
		c, err := secure(t, g.client(t, route.Auto), &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"postgresql"}})
		if err != nil {
			t.Fatal(err)
		}
		relays(t, c)
	})
	t.Run("direct, no ALPN", func(t *testing.T) {
		c, err := secure(t, g.client(t, route.Auto), config)
		if err == nil { // TLS 1.3: only now does the client learn of a refusal
			if _, err := c.Write(rt.Startup("user", "alice")); err == nil {
				if b, err := io.ReadAll(c); len(b) > 0 {
					t.Errorf("received %q (%v)", b, err)
				}
			}
		}
		server.ExpectNobody()
	})
	t.Run("direct, other ALPN", func(t *testing.T) {
		if _, err := secure(t, g.client(t, route.Auto), &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}}); err == nil {
			t.Error("agreed on")
		}
	})
	t.Run("encryption asked for within", func(t *testing.T) {
		for _, ask := range [][]byte{rt.SSLRequest, rt.GSSENCRequest} {
			c := g.begin(t, config)
			c.send(ask)
			c.expectError("08P01")
		}
	})
	t.Run("bytes before the answer", func(t *testing.T) {
		p := g.client(t, route.Auto)
		p.Send(rt.SSLRequest, rt.Startup("user", "mallory"))
		p.ExpectError("08P01")
		p.ExpectClose()
		server.ExpectNobody()
	})
	t.Run("in clear", func(t *testing.T) {
		c, s := g.session(t, route.Auto, server)
		c.Send(rt.Query("SELECT"), rt.Terminate)
		s.Expect(rt.Query("SELECT"), rt.Terminate)
	})
	t.Run("cancel within TLS", func(t *testing.T) {
		c := g.begin(t, config)
		c.send(rt.Startup("user", "alice"))
		server.Accept().Welcome(rt.KeyData(4711, "sekr"))
		key := c.welcomed()
		other := g.begin(t, config)
		other.send(cancelRequest(key))
		if got := server.Accept().ExpectStartup(); got.Kind != wire.KindCancel {
			t.Errorf("the server got %s", got.Kind)
		}
	})
	t.Run("a handshake that does not come", func(t *testing.T) {
		g := start(t, option, func(o *router.Options) { o.LoginTimeout = 300 * time.Millisecond })
		p := g.client(t, route.Auto)
		p.Send(rt.SSLRequest)
		p.Expect([]byte{'S'})
		p.ExpectClose()
	})
	t.Run("an epoch ends the session", func(t *testing.T) {
		c := g.begin(t, config)
		c.send(rt.Startup("user", "alice"))
		server.Accept().Welcome(rt.KeyData(4711, "sekr"))
		c.welcomed()
		g.know.Hear(rt.Standby("one", server.Address(), 2))
		c.expectError("57P01")
	})
}

// records tells how long the longest TLS record is that was received, in bytes of the wire without the header.
type records struct {
	net.Conn
	header, body int // what is missing of the record in hand
	length       int
	longest      int
}

func (r *records) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	for _, c := range b[:n] {
		if r.body > 0 {
			r.body--
			continue
		}
		r.length = r.length<<8&0xffff | int(c)
		if r.header++; r.header == 5 { // type, version, length
			r.header, r.body, r.longest = 0, r.length, max(r.longest, r.length)
		}
	}
	return n, err
}

// libpq that does not block takes one record of at most 8 KiB at a time and does not look for more: pg_basebackup would wait for ever.
func TestTLSRecordsAreShort(t *testing.T) {
	option, pool := withTLS(t, t.TempDir(), router.TLSAllow)
	g := start(t, option)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	p := g.client(t, route.Auto)
	p.Send(rt.SSLRequest)
	p.Expect([]byte{'S'})
	p.SetDeadline(time.Now().Add(rt.Patience))
	meter := &records{Conn: p.Conn}
	c := secured{tls.Client(meter, &tls.Config{RootCAs: pool, ServerName: "localhost"}), t}
	c.send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.Welcome(rt.KeyData(4711, "sekr"))
	c.welcomed()
	text := strings.Repeat("x", 2<<20) // crypto/tls begins with short ones
	c.send(rt.Query("a"))
	s.Expect(rt.Query("a"))
	go s.Send(rt.Row(text), rt.Ready('I'))
	c.expect(rt.Row(text), rt.Ready('I'))
	const overhead = 1 + 16 // TLS 1.3: the type of what is inside, and the tag
	if meter.longest > 8192+overhead || meter.longest < 4096 {
		t.Errorf("the longest record has %d bytes", meter.longest)
	}
}

func TestTLSRequired(t *testing.T) {
	option, pool := withTLS(t, t.TempDir(), router.TLSRequire)
	g := start(t, option, func(o *router.Options) { o.TLSMinVersion = "TLSv1.3" })
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	p := g.client(t, route.Auto)
	p.Send(rt.Startup("user", "alice"))
	p.ExpectError("28000")
	p.ExpectClose()
	p = g.client(t, route.Auto)
	p.Send(rt.SSLRequest)
	p.Expect([]byte{'S'})
	if _, err := secure(t, p, &tls.Config{RootCAs: pool, ServerName: "localhost", MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is accepted, the least is 1.3")
	}
	c := g.begin(t, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	c.send(rt.Startup("user", "alice"))
	server.Accept().Welcome(rt.KeyData(4711, "sekr"))
	key := c.welcomed()
	p = g.client(t, route.Auto)
	p.Send(cancelRequest(key)) // libpq before 17 sends it in clear whatever the session uses
	if got := server.Accept().ExpectStartup(); got.Kind != wire.KindCancel {
		t.Errorf("the server got %s", got.Kind)
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	option, _ := withTLS(t, dir, router.TLSAllow)
	g := start(t, option)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	any := &tls.Config{InsecureSkipVerify: true}
	name := func() string {
		c := g.begin(t, any)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	old := g.begin(t, any)
	old.send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.Welcome(rt.KeyData(4711, "sekr"))
	old.welcomed()
	rt.Certificate(t, dir, "second")
	until(t, "the second certificate", func() bool { return name() == "second" })
	// One that is no certificate changes nothing.
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	looked := time.Now()
	until(t, "the router to have looked at it", func() bool {
		if got := name(); got != "second" {
			t.Fatalf("certificate of %q", got)
		}
		return time.Since(looked) > 1500*time.Millisecond
	})
	old.send(rt.Query("SELECT"))
	s.Expect(rt.Query("SELECT"))
}

func TestTLSOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*router.Options){
		"no such mode":            func(o *router.Options) { o.TLSMode = "prefer" },
		"no such version":         func(o *router.Options) { o.TLSMinVersion = "1.2" },
		"no files":                func(o *router.Options) { o.TLSMode = router.TLSRequire },
		"no key":                  func(o *router.Options) { o.TLSMode, o.TLSCertFile = router.TLSAllow, "x" },
		"files that nobody reads": func(o *router.Options) { o.TLSCertFile, o.TLSKeyFile = "x", "y" },
	} {
		o := router.DefaultOptions()
		o.Cluster, o.Name = "c", "n"
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), "tls-") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// PostgreSQL's own clients, with SCRAM within TLS.
func testTLS(t *testing.T, c *cluster) {
	dir := t.TempDir()
	option, _ := withTLS(t, dir, router.TLSRequire)
	g := start(t, option)
	behind := &cluster{rig: g, primary: c.primary, two: c.two, three: c.three}
	g.know.Hear(rt.Primary("one", c.primary.Addr(), 1), rt.Standby("two", c.two.Addr(), 1), rt.Standby("three", c.three.Addr(), 1))
	t.Setenv("PGSSLROOTCERT", filepath.Join(dir, "tls.crt"))
	for _, mode := range []string{"require", "verify-full"} {
		t.Setenv("PGSSLMODE", mode)
		out, err := behind.tool(t, route.Auto, "psql", "-X", "-At", "-c", "SELECT current_user, current_setting('cluster_name')", "-c", `\conninfo`)
		if err != nil || !strings.Contains(out, "alice|one") || !strings.Contains(out, "SSL connection (protocol: TLSv1.3") {
			t.Errorf("sslmode=%s: %v: %s", mode, err, out)
		}
	}
	t.Setenv("PGSSLMODE", "disable")
	if out, err := behind.tool(t, route.Auto, "psql", "-X", "-c", "SELECT 1"); err == nil || !strings.Contains(out, "without TLS") {
		t.Errorf("sslmode=disable: %v: %s", err, out)
	}
	conn, err := pgx.Connect(t.Context(), strings.Replace(behind.dsn(route.Auto, "alice", "&sslrootcert="+filepath.Join(dir, "tls.crt")), "sslmode=disable", "sslmode=verify-full", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	const rows = 200_000
	var sum int
	rs, err := conn.Query(t.Context(), "SELECT n, repeat('x', 200) FROM generate_series(1, $1) n", rows)
	if err != nil {
		t.Fatal(err)
	}
	for rs.Next() {
		sum++
	}
	if rs.Err() != nil || sum != rows {
		t.Errorf("%d rows, %v", sum, rs.Err())
	}
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE copied (a int, b text)"); err != nil {
		t.Fatal(err)
	}
	n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"copied"}, []string{"a", "b"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
		return []any{i, "some text to make it longer"}, nil
	}))
	if err != nil || n != rows {
		t.Errorf("copied %d rows, %v", n, err)
	}
}
