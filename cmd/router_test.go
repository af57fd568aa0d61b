package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"howdah/cmd/options"
	"howdah/router/own"
	"howdah/sidecar/postgres"
)

// The sidecar makes the role that the router logs in as.
func TestRouterRole(t *testing.T) {
	if own.Role != postgres.RouterRole {
		t.Errorf("the router is %s and the sidecar makes %s", own.Role, postgres.RouterRole)
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
	write("second\n")
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
