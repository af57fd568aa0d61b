package router_test

import (
	"strings"
	"testing"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
)

func TestRules(t *testing.T) {
	g := start(t, knows(t, map[string]string{"alice": "secret"}, nil), func(o *router.Options) {
		o.Rules = []string{
			"host all bob 127.0.0.0/8 reject", "host app alice 127.0.0.1 scram-sha-256", "host all alice all pass-through", "hostssl all all all scram-sha-256",
			"host replication walker all pass-through",
		}
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for _, k := range []struct {
		startup []string
		want    string
	}{
		{[]string{"user", "bob"}, `a rule of this router rejects host "127.0.0.1", user "bob", database "bob", no encryption`},
		{[]string{"user", "carol", "database", "app"}, `no rule of this router for host "127.0.0.1", user "carol", database "app", no encryption`},
		{[]string{"user", "bob", "replication", "true"}, `no rule of this router for host "127.0.0.1", user "bob", replication, no encryption`},
	} {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup(k.startup...))
		if e := c.ExpectError("28000"); e.Message != k.want {
			t.Errorf("%v: told %s, want %s", k.startup, e.Message, k.want)
		}
		c.ExpectClose()
		server.ExpectNobody()
	}
	// However it is spelt, replication is under no rule for databases.
	for _, value := range []string{"true", "TRUE", "t", "tRu", "yes", "Y", "on", "On", "1"} {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup("user", "alice", "database", "app", "replication", value))
		c.ExpectError("28000")
	}
	for _, startup := range [][]string{{"user", "alice"}, {"user", "walker", "replication", "on"}, {"user", "alice", "replication", "database"}, {"user", "alice", "replication", "off"}} {
		c := g.client(t, route.Auto)
		c.Send(rt.Startup(startup...))
		server.Accept().Welcome(rt.KeyData(1, "abcd"))
		c.Welcomed()
	}
	// The first that matches is the router's to authenticate, though the server would trust it.
	v := credentials(t, "alice", "secret").Verifier()
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice", "database", "app"))
	s := server.Accept()
	m := offers(s, v)
	p := proves(c, scram.Channel{}, "alice", "secret")
	checks(s, m, "alice", v)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	c.Expect(welcome...)
}

func TestRulesChangeWhileTheRouterRuns(t *testing.T) {
	var before router.Options
	g := start(t, func(o *router.Options) {
		o.Rules = []string{"host all alice all pass-through"}
		before = *o
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	g.session(t, route.Auto, server)
	for _, k := range []struct {
		rules []string
		bad   string
	}{
		{[]string{"host all all all"}, "line 1"}, {[]string{"host all all all peer"}, "peer"}, {[]string{"host all all all scram-sha-256"}, "router-password-file"},
		{[]string{"host all alice all reject"}, ""},
	} {
		o := before
		o.Rules = k.rules
		if err := g.Apply(o); (err == nil) != (k.bad == "") || err != nil && !strings.Contains(err.Error(), k.bad) {
			t.Errorf("%v: %v", k.rules, err)
		}
		if k.bad != "" {
			g.session(t, route.Auto, server)
		}
	}
	c := g.client(t, route.Auto)
	c.Send(rt.Startup("user", "alice"))
	c.ExpectError("28000")
	o := before
	o.Rules = nil
	if err := g.Apply(o); err != nil {
		t.Fatal(err)
	}
	g.session(t, route.Auto, server)
}

// PostgreSQL cuts names off behind 63 bytes: a rule for such a name holds for what is longer, too.
func TestRulesOfLongNames(t *testing.T) {
	name := strings.Repeat("x", 63)
	g := start(t, func(o *router.Options) {
		o.Rules = []string{"host all " + name + " all reject", "host " + name + " all all reject", "host all all all pass-through"}
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for _, p := range [][]string{{"user", name}, {"user", "a", "database", name}, {"user", name + "y"}, {"user", "a", "database", name + "y"}} {
		c := g.client(t, route.RW)
		c.Send(rt.Startup(p...))
		c.ExpectError("28000")
		server.ExpectNobody()
	}
}
