package router_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// What the router under test and the PostgreSQL that it is compared with both have as their rules.
var (
	certRules = []string{
		"hostssl all dora all cert map=names clientname=DN",
		"hostssl all mapped,jane,caf all cert map=people",
		"hostssl all ca all scram-sha-256 clientcert=verify-ca",
		"hostssl all full all scram-sha-256 clientcert=verify-full",
		"hostssl all fulldn all scram-sha-256 clientcert=verify-full clientname=DN",
		"hostssl all all all cert",
	}
	certMap = []string{
		`people /^(.*)@example\.com$ \1`, "people Jane.D jane", `people "/^caf, (.).*$" "ca\1"`,
		`names "/^CN=dora\\, a\\\+b \\C3\\84,O=Big,DC=(org)$" dora`,
	}
)

// readable writes a file that PostgreSQL may read.
func readable(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(postgrestest.TempDir(t), "file")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// certified is a router that takes client certificates before a primary and a standby that take its own; and a PostgreSQL with the router's rules.
type certified struct {
	*splitCluster
	direct          *postgrestest.Server
	ours, other     *rt.Authority
	logs            *observer.ObservedLogs
	clientAuthority string
	options         []func(*router.Options)
}

func startCertified(t *testing.T) *certified {
	t.Helper()
	c := &certified{ours: rt.NewAuthority(t, t.TempDir(), "clients"), other: rt.NewAuthority(t, t.TempDir(), "others")}
	routers := rt.NewAuthority(t, t.TempDir(), "routers")
	c.clientAuthority = c.ours.File("ca.crt")
	certFile, keyFile := routers.Issue("router", pkix.Name{CommonName: "howdah-router"})
	users := []string{"alice", "mapped", "jane", "caf", "dora", "ca", "full", "fulldn"}
	var let strings.Builder
	for _, u := range users {
		fmt.Fprintf(&let, "router howdah-router %s\n", u)
	}
	tlsOptions, _ := withServerTLS(t)
	c.direct = postgrestest.Start(t, append(tlsOptions, postgrestest.WithName("direct"), postgrestest.WithParameter("ssl_ca_file", readable(t, string(c.ours.PEM))),
		postgrestest.WithParameter("ident_file", readable(t, strings.Join(certMap, "\n")+"\n")), postgrestest.WithHBA(append(certRules[:len(certRules):len(certRules)], "hostnossl all all all reject")...))...)
	tlsOptions, _ = withServerTLS(t)
	tlsOptions = append(tlsOptions, postgrestest.WithParameter("log_statement", "all"), postgrestest.WithParameter("ssl_ca_file", readable(t, string(routers.PEM))),
		postgrestest.WithParameter("ident_file", readable(t, let.String())), postgrestest.WithHBA("hostssl asks all all scram-sha-256", "hostssl all howdah_router all scram-sha-256", "hostssl all all all cert map=router"))
	primary := postgrestest.Start(t, append(tlsOptions, postgrestest.WithName("one"))...)
	ensureRoles(t, primary)
	for _, u := range users {
		primary.CreateRole(u)
		c.direct.CreateRole(u)
	}
	primary.Exec("CREATE DATABASE asks")
	primary.Exec("CREATE TABLE t (n int PRIMARY KEY, s text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g; GRANT ALL ON t TO alice")
	standby := primary.NewStandby(append(tlsOptions, postgrestest.WithName("two"))...)
	standby.CatchUp(primary)
	core, logs := observer.New(zapcore.InfoLevel)
	c.logs = logs
	option, _ := withTLS(t, t.TempDir(), router.TLSRequire)
	c.splitCluster = &splitCluster{cluster: &cluster{primary: primary, two: standby}, t: t}
	c.options = append(c.options, option, func(o *router.Options) {
		o.StatementRouting, o.OwnPassword = true, func() (string, error) { return routerSecret, nil }
		o.Rules, o.IdentMap, o.TLSClientCAFile = certRules, certMap, c.clientAuthority
		o.ServerTLSMode, o.ServerTLSCertFile, o.ServerTLSKeyFile = router.ServerTLSRequire, certFile, keyFile
		o.DialTimeout = rt.Patience
	})
	c.rig = startLogging(t, zap.New(core), c.options...)
	c.know.Hear(rt.Primary("one", primary.Addr(), 1), rt.Standby("two", standby.Addr(), 1))
	return c
}

// how is a connection string for a client with the certificate of the files; none if they are empty.
func (c *certified) how(address, user, db, certFile, keyFile string) string {
	if certFile == "" {
		certFile, keyFile = filepath.Join(c.t.TempDir(), "none"), filepath.Join(c.t.TempDir(), "none")
	}
	return connString(address, user, db, "sslmode=require&sslcert="+url.QueryEscape(certFile)+"&sslkey="+url.QueryEscape(keyFile))
}

func TestClientCertificatesWithPostgres(t *testing.T) {
	c := startCertified(t)
	t.Run("as if direct", func(t *testing.T) { testCertificatesAsIfDirect(t, c) })
	t.Run("statements on standbys", func(t *testing.T) { testCertificateReads(t, c) })
	t.Run("without the router's own role", func(t *testing.T) { testCertificateReadsNothing(t, c) })
	t.Run("a server that asks", func(t *testing.T) { testServerAsks(t, c) })
	t.Run("another authority", func(t *testing.T) { testOtherAuthority(t, c) })
	for _, e := range c.logs.All() {
		if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, postgrestest.Password) || strings.Contains(line, "PRIVATE") || strings.Contains(line, "BEGIN CERT") {
			t.Errorf("the log holds %s", line)
		}
	}
}

// What psql is told through the router is what PostgreSQL with the same rules tells it.
func testCertificatesAsIfDirect(t *testing.T, c *certified) {
	cn := func(name string) pkix.Name { return pkix.Name{CommonName: name} }
	dn := func(name string) pkix.Name {
		return pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{0, 9, 2342, 19200300, 100, 1, 25}, Value: "org"}}, OrganizationalUnit: []string{"x"}, CommonName: name}
	}
	type shown struct {
		by      *rt.Authority
		subject pkix.Name
		change  []func(*x509.Certificate)
	}
	const right, wrong = postgrestest.Password, "wrong password"
	for i, k := range []struct {
		user, password string
		shows          *shown
		want           string
	}{
		{"alice", "", &shown{c.ours, cn("alice"), nil}, "welcome"},
		{"alice", "", &shown{c.ours, cn("bob"), nil}, `certificate authentication failed for user "alice"`},
		{"alice", "", &shown{c.ours, cn("Alice"), nil}, `certificate authentication failed for user "alice"`},
		{"alice", "", &shown{c.ours, pkix.Name{Organization: []string{"alice"}}, nil}, `certificate authentication failed for user "alice"`},
		{"alice", right, nil, "connection requires a valid client certificate"},
		{"alice", "", &shown{c.other, cn("alice"), nil}, "unknown ca"},
		{"alice", "", &shown{c.ours, cn("alice"), []func(*x509.Certificate){rt.Expired}}, "certificate expired"},
		{"nobody", "", &shown{c.ours, cn("nobody"), nil}, ""}, // directly the role does not exist; the servers behind the router have no line for it either
		{"mapped", "", &shown{c.ours, cn("mapped@example.com"), nil}, "welcome"},
		{"mapped", "", &shown{c.ours, cn("mapped"), nil}, `certificate authentication failed for user "mapped"`},
		{"mapped", "", &shown{c.ours, cn("mapped@exampleXcom"), nil}, `certificate authentication failed for user "mapped"`},
		{"mapped", "", &shown{c.ours, cn("mapped@example.com\n"), nil}, `certificate authentication failed for user "mapped"`},
		{"jane", "", &shown{c.ours, cn("Jane.D"), nil}, "welcome"},
		{"jane", "", &shown{c.ours, cn("jane@example.com"), nil}, "welcome"},
		{"jane", "", &shown{c.ours, cn("jane"), nil}, `certificate authentication failed for user "jane"`},
		{"caf", "", &shown{c.ours, cn("caf, fine\nx"), nil}, "welcome"},
		{"dora", "", &shown{c.ours, dora("org"), nil}, "welcome"},
		{"dora", "", &shown{c.ours, dora("net"), nil}, `certificate authentication failed for user "dora"`},
		{"ca", right, &shown{c.ours, cn("anybody"), nil}, "welcome"},
		{"ca", wrong, &shown{c.ours, cn("ca"), nil}, `password authentication failed for user "ca"`},
		{"ca", right, nil, "connection requires a valid client certificate"},
		{"full", right, &shown{c.ours, cn("full"), nil}, "welcome"},
		{"full", right, &shown{c.ours, cn("ca"), nil}, `password authentication failed for user "full"`},
		{"full", wrong, &shown{c.ours, cn("ca"), nil}, `password authentication failed for user "full"`},
		{"full", wrong, &shown{c.ours, cn("full"), nil}, `password authentication failed for user "full"`},
		{"full", right, nil, "connection requires a valid client certificate"},
		{"fulldn", right, &shown{c.ours, cn("fulldn"), nil}, `password authentication failed for user "fulldn"`}, // the name is CN=fulldn
		{"full", right, &shown{c.ours, dn("full"), nil}, "welcome"},
	} {
		certFile, keyFile := "", ""
		if k.shows != nil {
			certFile, keyFile = k.shows.by.Issue(fmt.Sprint("c", i), k.shows.subject, k.shows.change...)
		}
		ask := func(address string) string {
			out, err := psql(t, c.how(address, k.user, "postgres", certFile, keyFile), k.password, "SELECT current_user")
			if err == nil && out == k.user {
				return "welcome"
			}
			_, out, _ = strings.Cut(out, "failed: ")
			return out
		}
		direct, through := ask(c.direct.Addr()), ask(c.Address(route.Auto).String())
		switch {
		case k.want == "":
			if through == "welcome" || direct == "welcome" {
				t.Errorf("%d: %s: welcome", i, k.user)
			}
		case direct != through || k.want == "welcome" && through != k.want || !strings.Contains(through, k.want):
			t.Errorf("%d: %s is told %q, and directly %q, want %s", i, k.user, through, direct, k.want)
		}
	}
}

// dora is a name with all that is difficult in writing it.
func dora(domain string) pkix.Name {
	return pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: []int{0, 9, 2342, 19200300, 100, 1, 25}, Value: domain},
		{Type: []int{2, 5, 4, 10}, Value: "Big"},
		{Type: []int{2, 5, 4, 3}, Value: "dora, a+b Ä"},
	}}
}

// A router that cannot ask what is set for a session, nor how far a standby is, has it read from none.
func testCertificateReadsNothing(t *testing.T, c *certified) {
	g := start(t, append(c.options[:len(c.options):len(c.options)], func(o *router.Options) {
		o.OwnPassword, o.Rules, o.IdentMap = nil, []string{"hostssl all all all cert"}, nil
	})...)
	g.know.Hear(rt.Primary("one", c.primary.Addr(), 1), rt.Standby("two", c.two.Addr(), 1))
	certFile, keyFile := c.ours.Issue("reads", pkix.Name{CommonName: "alice"})
	conn, err := pgx.Connect(t.Context(), c.how(g.Address(route.Auto).String(), "alice", "postgres", certFile, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for range 10 {
		m := c.mark()
		if err := c.exec(conn, pgx.QueryExecModeSimpleProtocol, "SELECT s FROM t WHERE n = 1 "+m); err != nil || c.ran(m) != "one" {
			t.Errorf("%v, ran on %s", err, c.ran(m))
		}
	}
}

// A session that began with a certificate reads from standbys as any.
func testCertificateReads(t *testing.T, c *certified) {
	certFile, keyFile := c.ours.Issue("reads", pkix.Name{CommonName: "alice"})
	conn, err := pgx.Connect(t.Context(), c.how(c.Address(route.Auto).String(), "alice", "postgres", certFile, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for sql, want := range map[string]string{"SELECT count(*) FROM t ": "two", "UPDATE t SET s = 'y' WHERE n = 1 ": "one"} {
		c.caughtUp(conn)
		m := c.mark()
		if err := c.exec(conn, pgx.QueryExecModeSimpleProtocol, sql+m); err != nil {
			t.Fatal(err)
		}
		if on := c.ran(m); on != want {
			t.Errorf("%s ran on %s", sql, on)
		}
	}
	out, err := psql(t, c.how(c.Address(route.RO).String(), "alice", "postgres", certFile, keyFile), "", "SELECT current_user, current_setting('cluster_name')")
	if err != nil || out != "alice|two" {
		t.Errorf("route ro: %v: %s", err, out)
	}
}

// A server that asks for a password cannot be given one, and the client is told why.
func testServerAsks(t *testing.T, c *certified) {
	certFile, keyFile := c.ours.Issue("asks", pkix.Name{CommonName: "alice"})
	out, err := psql(t, c.how(c.Address(route.Auto).String(), "alice", "asks", certFile, keyFile), postgrestest.Password, "SELECT 1")
	if err == nil || !strings.Contains(out, `FATAL:  one asks for SCRAM-SHA-256, and user "alice" has shown this router a certificate`) || !strings.Contains(out, "HINT:  Let the router in") {
		t.Errorf("%v: %s", err, out)
	}
}

// The router's file of authorities is written anew: the new authority's clients come in, and no session ends.
func testOtherAuthority(t *testing.T, c *certified) {
	certFile, keyFile := c.ours.Issue("first", pkix.Name{CommonName: "alice"})
	old, err := pgx.Connect(t.Context(), c.how(c.Address(route.RW).String(), "alice", "postgres", certFile, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close(context.Background())
	if err := os.WriteFile(c.clientAuthority, c.other.PEM, 0o644); err != nil {
		t.Fatal(err)
	}
	otherCert, otherKey := c.other.Issue("second", pkix.Name{CommonName: "alice"})
	until(t, "the other authority to be known", func() bool {
		out, _ := psql(t, c.how(c.Address(route.RW).String(), "alice", "postgres", otherCert, otherKey), "", "SELECT current_user")
		return out == "alice"
	})
	if out, err := psql(t, c.how(c.Address(route.RW).String(), "alice", "postgres", certFile, keyFile), "", "SELECT 1"); err == nil || !strings.Contains(out, "unknown ca") {
		t.Errorf("the first authority's: %v: %s", err, out)
	}
	if got := one[string](t, old, "SELECT current_user"); got != "alice" {
		t.Errorf("the old session is %s's", got)
	}
}
