package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/postgres"
)

// heedingServer notes whom HeedPasswords was to ask.
type heedingServer struct {
	Server
	asked   []string
	settled bool
	err     error
	roles   int
}

func (s *heedingServer) HeedPasswords(_ context.Context, from *postgres.Upstream) (bool, error) {
	who := "own catalogue"
	if from != nil {
		who = from.Member
	}
	s.asked = append(s.asked, who)
	return s.settled, s.err
}

func (s *heedingServer) EnsureRoles(context.Context) error { s.roles++; return s.err }

// passwordRig is an upkeep and the mail of a loop that nobody runs.
func passwordRig(t *testing.T) (*upkeep, *heedingServer, *loop) {
	server := &heedingServer{}
	s := &Sidecar{o: Options{Name: "pg2"}, d: Deps{Server: server}}
	s.loop = &loop{s: s, ctx: t.Context(), mail: make(chan func(), 8)}
	return &upkeep{s: s, log: s.log, lastError: map[string]string{}}, server, s.loop
}

// A standby looks often while the password in force is not the present one, and seldom otherwise; it asks its upstream only if it does not stream.
func TestHeed(t *testing.T) {
	u, server, l := passwordRig(t)
	at := schema.Instant(time.Hour)
	up := &postgres.Upstream{Member: "pg1"}
	refused := fmt.Errorf("the file \"superuser\": %w", postgres.ErrPassword)
	for i, c := range []struct {
		after      time.Duration
		generation uint64
		streaming  bool
		from       *postgres.Upstream
		settled    bool
		err        error
		asks       string // empty: nobody
		says       string
	}{
		{0, 0, true, up, true, nil, "own catalogue", ""},
		{9 * time.Second, 0, true, up, true, nil, "", ""},
		{0, 0, false, up, true, nil, "", ""}, // a failover has other work
		{time.Second, 0, false, up, true, nil, "pg1", ""},
		{time.Second, 1, true, up, false, nil, "own catalogue", ""}, // new passwords
		{500 * time.Millisecond, 1, true, up, false, nil, "", ""},
		{500 * time.Millisecond, 1, true, up, false, nil, "own catalogue", ""},
		{time.Second, 1, false, nil, false, nil, "", ""}, // nobody is known
		{time.Second, 1, false, up, false, refused, "pg1", "the file"},
		{time.Millisecond, 1, false, up, false, nil, "", "the file"},
		{time.Second, 1, false, up, false, errors.New("cannot be reached"), "pg1", ""},
		{time.Second, 1, true, up, false, refused, "own catalogue", "the file"},
		{time.Second, 1, true, up, true, nil, "own catalogue", ""},
	} {
		at = at.Add(c.after)
		server.asked, server.settled, server.err = nil, c.settled, c.err
		_ = u.heed(t.Context(), duties{now: at, passwords: c.generation, streaming: c.streaming, from: c.from})
		l.drain()
		if got := strings.Join(server.asked, " "); got != c.asks {
			t.Errorf("%d: asked %q, want %q", i, got, c.asks)
		}
		if got := l.passwords.trouble(); c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%d: says %q, want %q", i, got, c.says)
		}
	}
}

// New passwords do not wait for the next round of roles.
func TestRolesAfterNewPasswords(t *testing.T) {
	u, server, l := passwordRig(t)
	d := duties{now: schema.Instant(time.Hour), epoch: 1}
	see := func(want int) {
		t.Helper()
		_ = u.roles(t.Context(), d)
		l.drain()
		if server.roles != want {
			t.Errorf("seen to %d times, want %d", server.roles, want)
		}
	}
	see(1)
	see(1)
	d.passwords++
	server.err = fmt.Errorf("ensure roles: %w", postgres.ErrPassword)
	see(2)
	if !strings.Contains(l.passwords.trouble(), "ensure roles") {
		t.Errorf("says %q", l.passwords.trouble())
	}
	server.err = nil
	see(3)
	see(3)
	if l.passwords.trouble() != "" {
		t.Errorf("says %q", l.passwords.trouble())
	}
}

func TestTroubleFitsAPacket(t *testing.T) {
	p := passwords{files: "files", force: strings.Repeat("ö", maxTrouble)}
	if got := p.trouble(); len(got) > maxTrouble+3 || !strings.HasSuffix(got, "ö...") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	p.login = "login"
	if got := p.trouble(); got != "login" {
		t.Error(got)
	}
}
