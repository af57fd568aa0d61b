package cmd

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/sidecar/local"
	"howdah/sidecar/postgres"
)

// The sidecar makes the role that the router logs in as.
func TestRouterRole(t *testing.T) {
	if own.Role != postgres.RouterRole {
		t.Errorf("the router is %s and the sidecar makes %s", own.Role, postgres.RouterRole)
	}
}

// Limits come by every source alike, and the mistake in one is told with where it was made.
func TestRouterLimits(t *testing.T) {
	load := func(flag, environ, file string) ([]string, error) {
		c := NewRouter(Stdio{})
		from := options.Sources{Flags: map[string]string{"cluster": "main", "name": "r", "gossip-key-file": "/k"}}
		if flag != "" {
			from.Flags["limits"] = flag
		}
		if environ != "" {
			from.Environ = []string{"HOWDAH_LIMITS=" + environ}
		}
		if file != "" {
			from.Flags["config"] = "/etc/howdah.yaml"
			from.ReadFile = func(string) ([]byte, error) { return []byte(file), nil }
		}
		err := options.New("howdah router", c).Load(from)
		return c.Limits, err
	}
	for _, k := range [][3]string{{"user alice 5,address all 9"}, {"", "user alice 5, address all 9"}, {"", "", "limits:\n  - user alice 5\n  - address all 9\n"}} {
		if got, err := load(k[0], k[1], k[2]); err != nil || !slices.Equal(got, []string{"user alice 5", "address all 9"}) {
			t.Errorf("%q: %q, %v", k, got, err)
		}
	}
	for want, k := range map[string][3]string{
		"flag --limits": {"user alice 0"}, "environment HOWDAH_LIMITS": {"", "user alice 0"}, "/etc/howdah.yaml: limits": {"", "", "limits: [user alice 0]\n"},
	} {
		if _, err := load(k[0], k[1], k[2]); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `line 1, "user alice 0": has the number "0"; choose from 1 to 1000000, or unlimited`) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRouterPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "router")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	load := func(environ ...string) (*Router, error) {
		c := NewRouter(Stdio{})
		args := map[string]string{"cluster": "main", "name": "r", "gossip-key-file": "/k"}
		err := options.New("howdah router", c).Load(options.Sources{Flags: args, Environ: environ})
		return c, err
	}
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := c.ownPassword(); f != nil || err != nil {
		t.Errorf("without a password: %v, %v", f != nil, err)
	}
	if c, err = load("HOWDAH_ROUTER_PASSWORD=given"); err != nil {
		t.Fatal(err)
	}
	if f, err := c.ownPassword(); err != nil || must(t, f) != "given" {
		t.Errorf("from the environment: %v", err)
	}
	if c, err = load("HOWDAH_ROUTER_PASSWORD_FILE=" + file); err != nil {
		t.Fatal(err)
	}
	f, err := c.ownPassword()
	if err != nil || must(t, f) != "first" {
		t.Fatalf("from a file: %v", err)
	}
	write("second\nfirst\n")
	if got := must(t, f); got != "second" {
		t.Errorf("after a change: %q", got)
	}
	if _, err := load("HOWDAH_ROUTER_PASSWORD=given", "HOWDAH_ROUTER_PASSWORD_FILE="+file); err == nil || !strings.Contains(err.Error(), "give one of them") || strings.Contains(err.Error(), "given\"") {
		t.Errorf("both: %v", err)
	}
	c.RouterPasswordFile = file + ".missing"
	if _, err := c.ownPassword(); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func must(t *testing.T, f func() (string, error)) string {
	t.Helper()
	text, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// routerMayAsk checks that the members of the demo in dir let a router in, and tell it how far they are: one primary, and standbys that receive
// its timeline.
func routerMayAsk(t *testing.T, dir string) {
	t.Helper()
	var layout struct{ Members map[string]schema.Addresses }
	b, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err == nil {
		err = json.Unmarshal(b, &layout)
	}
	if err != nil || len(layout.Members) != 3 {
		t.Fatalf("the layout of the demo: %v, %v", layout, err)
	}
	c := &Router{RouterPasswordFile: filepath.Join(dir, "secrets", "router")}
	password, err := c.ownPassword()
	if err != nil {
		t.Fatal(err)
	}
	conns := own.New(own.Options{Password: password, Router: "test", DialTimeout: time.Minute, Timeout: time.Minute, Now: boottime.Now, Log: zap.NewNop()})
	defer conns.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = local.Poll(ctx, 50*time.Millisecond, func() bool {
		primaries, standbys := map[schema.Timeline]int{}, map[schema.Timeline]int{}
		for name, a := range layout.Members {
			p, s := own.Server{Member: name, Address: a.Postgres, Epoch: 1}, own.Server{Member: name, Address: a.Postgres}
			conns.Set([]own.Server{p, s})
			if timeline, lsn, err := conns.PrimaryLSN(ctx, p); err == nil && lsn > 0 {
				primaries[timeline]++
			} else if timeline, lsn, err := conns.ReplayLSN(ctx, s); err == nil && lsn > 0 {
				standbys[timeline]++
			}
		}
		for timeline, n := range primaries {
			if timeline == 0 || n != 1 || standbys[timeline] != 2 {
				return false
			}
		}
		return len(primaries) == 1
	})
	if err != nil {
		t.Errorf("a router does not learn how far the members are: %v", err)
	}
}
