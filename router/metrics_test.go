package router_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

// What Prometheus's own linter says of the metrics, and that each is described in the documentation.
func TestMetricsAreWellNamed(t *testing.T) {
	g := start(t)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	// An attempt that is refused is a retry.
	c := g.client(t, route.RW)
	c.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.ExpectStartup()
	s.Send(rt.Fatal("57P03", "the database system is starting up"))
	s.Close()
	server.Accept().Welcome(rt.KeyData(1, "abcd"))
	c.Welcomed()
	_, body := g.get(t, "/metrics")
	for _, want := range []string{`howdah_router_retries_total{route="rw"} 1`, `howdah_router_wait_seconds_count{route="rw"} 1`, "howdah_router_paused 0"} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "howdah_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (howdah_\S+)`).FindAllStringSubmatch(body, -1) {
		if !strings.Contains(string(design), "`"+m[1]+"`") {
			t.Errorf("DESIGN.md does not speak of %s", m[1])
		}
	}
}

// A router whose clients are told 57P03 says so to health checks too.
func TestHealthIsWhatClientsSee(t *testing.T) {
	g := start(t, func(o *router.Options) { o.FailoverWait = 50 * time.Millisecond })
	server := rt.Listen(t, "")
	ask := func(up bool) (health int, served bool) {
		t.Helper()
		health, _ = g.get(t, "/health")
		c := g.client(t, route.RW)
		c.Send(rt.Startup("user", "alice"))
		if up {
			server.Accept().Welcome(rt.KeyData(1, "abcd"))
		}
		if !up {
			c.ExpectError("57P03")
			return health, false
		}
		typ, _ := c.Next()
		return health, typ != 'E'
	}
	if h, served := ask(false); h != 503 || served {
		t.Errorf("nothing known: %d, %v", h, served)
	}
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	until(t, "the primary to be known", func() bool { return g.Status().Primary != "" })
	if h, served := ask(true); h != 200 || !served {
		t.Errorf("a primary: %d, %v", h, served)
	}
	g.know.Freeze()
	until(t, "the knowledge to be too old", func() bool { return g.Status().Primary == "" })
	if h, served := ask(false); h != 503 || served {
		t.Errorf("stale knowledge: %d, %v", h, served)
	}
}

// A standby's lag is what it says itself against what the primary does, in bytes and by when the primary was there.
func TestLagOfAStandbyIsShown(t *testing.T) {
	begun := time.Now()
	g := start(t)
	primary, standby := rt.Primary("one", "127.0.0.1:1", 1), rt.Standby("two", "127.0.0.1:1", 1)
	g.know.Hear(primary, standby)
	lag := func() (bytes, seconds string) {
		return g.figure(t, `howdah_router_standby_lag_bytes{member="two"}`), g.figure(t, `howdah_router_standby_lag_seconds{member="two"}`)
	}
	until(t, "the standby to be known", func() bool { b, s := lag(); return b == "0" && s == "0" })
	primary.LSN += 4096
	g.know.Hear(primary)
	until(t, "the lag to be known", func() bool { b, _ := lag(); return b == "4096" })
	until(t, "the lag to grow", func() bool { _, s := lag(); return number(t, s) >= .1 })
	if _, s := lag(); number(t, s) > time.Since(begun).Seconds() {
		t.Errorf("%s s behind after %s", s, time.Since(begun))
	}
	standby.ReplayLSN = primary.LSN
	g.know.Hear(standby)
	until(t, "the lag to be over", func() bool { b, s := lag(); return b == "0" && s == "0" })
}

// Errors that a standby tells are counted as those of the primary are.
func TestErrorsOfAStandbyAreCounted(t *testing.T) {
	g := startReading(t)
	g.connected(aRead)
	for code, behind := range map[string][][]byte{"57014": nil, "22012": {rt.RowDescription("n"), rt.Row("1")}} {
		g.client.Send(rt.Query(aRead))
		g.standby.Expect(rt.Query(aRead))
		g.standby.Send(append(behind, rt.Error(code, "no"), rt.Ready('I'))...)
		g.client.Expect(append(behind, rt.Error(code, "no"), rt.Ready('I'))...)
		ask(g.client, g.standby, aRead)
		if n := g.figure(t, `howdah_router_errors_total{by="server",sqlstate="`+code+`"}`); n != "1" {
			t.Errorf("%s: %q counted", code, n)
		}
	}
}
