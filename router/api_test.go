package router_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
)

func (g *rig) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: rt.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + g.APIAddress().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (g *rig) events(t *testing.T) []schema.Event {
	t.Helper()
	_, body := g.get(t, "/events")
	var es []schema.Event
	if err := json.Unmarshal([]byte(body), &es); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return es
}

func TestAPI(t *testing.T) {
	g := start(t, func(o *router.Options) { o.ReadOnlyFallback = false })
	health := func(query string, code int, word string) {
		t.Helper()
		if got, body := g.get(t, "/health"+query); got != code || !strings.Contains(body, word) {
			t.Errorf("/health%s: %d %s", query, got, body)
		}
	}
	health("", 503, "no primary has been heard of")
	health("?route=ro", 503, "no standby may serve")
	health("?route=up", 400, "Available values")
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 4), rt.Standby("two", two.Address(), 4))
	until(t, "the topology to be known", func() bool { return g.Status().Epoch == 4 })
	health("", 200, "true")
	health("?route=ro", 200, "true")
	client, server := g.session(t, route.RW, one)
	client.Send(rt.Query("x"))
	server.Expect(rt.Query("x"))
	server.Send(rt.Error("42601", "no"), rt.Ready('I'))
	client.Expect(rt.Error("42601", "no"), rt.Ready('I'))
	_, body := g.get(t, "/status")
	var s router.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if s.Primary != "one" || s.Address != one.Address() || s.Epoch != 4 || len(s.Standbys) != 1 || !s.Standbys[0].Serves || s.MemberSessions["one"] != 1 || s.KnownFor < 0 {
		t.Errorf("status %s", body)
	}
	_, body = g.get(t, "/metrics")
	for _, want := range []string{
		`howdah_router_sessions{route="rw",state="idle"} 1`, `howdah_router_sessions_total{route="rw"} 1`,
		`howdah_router_errors_total{by="server",sqlstate="42601"} 1`, `howdah_router_epoch 4`,
		`howdah_router_member_sessions{member="one"} 1`, `howdah_router_primary_known 1`, `howdah_router_bytes_total{from="client"} 7`,
		`howdah_router_standby_lag_bytes{member="two"} 0`, `howdah_router_samples_total{result="ok",role="standby"} 0`, `howdah_router_own_connections 0`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if es := g.events(t); len(es) != 1 || es[0].Kind != schema.EventRerouted || es[0].By != "router-1" || es[0].Epoch != 4 {
		t.Errorf("events %+v", es)
	}
	// Knowledge that has grown old is no health, but sessions go on.
	g.know.Freeze()
	g.know.Hear(schema.Status{Name: "nobody"})
	until(t, "the knowledge to be too old", func() bool { return g.Status().Primary == "" })
	health("", 503, "longer than its lease")
	client.Send(rt.Query("y"))
	server.Expect(rt.Query("y"))
}
