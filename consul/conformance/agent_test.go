package conformance

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/consultest"
	"howdah/consul/schema"
)

// resolve asks the agent's DNS for the addresses and the ports of a name.
func (r *room) resolve(server, name string) (addresses []string, port uint16) {
	r.Helper()
	c := &dns.Client{Timeout: time.Second}
	for _, typ := range []uint16{dns.TypeA, dns.TypeSRV} {
		m := new(dns.Msg)
		m.SetQuestion(name, typ)
		in, _, err := c.ExchangeContext(r.ctx, m, server)
		if err != nil {
			r.Logf("%s: %v", name, err)
			return nil, 0
		}
		for _, rr := range in.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addresses = append(addresses, rr.A.String())
			case *dns.SRV:
				port = rr.Port
			}
		}
	}
	return addresses, port
}

// TestService sees a member's roles in Consul's DNS, as its API tells the agent.
func TestService(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := newRoom(t, backend{"consul", agent.Address})
	var unhealthy atomic.Bool
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if unhealthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer member.Close()
	as := func(role schema.Role) {
		s, err := r.client.MemberService("a", role, "127.0.0.7:5433", member.URL)
		r.must(err)
		s.Passing = role == schema.RolePrimary
		r.must(r.client.Register(r.ctx, s))
	}
	resolves := func(tag string, want bool) {
		t.Helper()
		name := tag + "." + r.cluster + ".service.consul."
		r.eventually(name, func() bool {
			addresses, port := r.resolve(agent.DNS, name)
			return want == (len(addresses) == 1 && addresses[0] == "127.0.0.7" && port == 5433)
		})
	}
	as(schema.RoleStandby)
	resolves("standby", true)
	resolves("replica", true)
	resolves("primary", false)
	as(schema.RolePrimary)
	resolves("primary", true)
	resolves("master", true)
	resolves("standby", false)
	unhealthy.Store(true)
	resolves("primary", false)
	unhealthy.Store(false)
	resolves("primary", true)
	r.must(r.client.Deregister(r.ctx, r.cluster+"-a"))
	resolves("primary", false)
}

// TestRestart: Consul goes away and comes back with its data; the watch tells of both, the lock stays held.
func TestRestart(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	r := newRoom(t, backend{"consul", agent.Address})
	w := r.watching()
	at := r.hold("a")
	r.eventually("the lock in the watch", func() bool { s, _ := w.newest(); return s.Leader.Index == at.Index })
	agent.Stop()
	r.eventually("an error in the watch", func() bool { return w.failed() != nil })
	_, err := r.client.Renew(r.ctx, at, at.Leader)
	if err == nil || errors.Is(err, consul.ErrRefused) || consul.OutcomeUnknown(err) {
		r.Errorf("renewing without consul: want an error of a connection that was not made, got %v", err)
	}
	if err := r.client.CheckAccess(r.ctx, true); err == nil || !strings.Contains(err.Error(), agent.Address) {
		r.Errorf("start-up without consul: want an error that names %s, got %v", agent.Address, err)
	}
	back := boottime.Now()
	agent.Restart()
	r.eventually("answers in the watch", func() bool { s, ok := w.newest(); return ok && s.AskedAt > back && s.Leader.Held() })
	r.must(r.client.RenewSession(r.ctx, at.Session))
	next, err := r.client.Renew(r.ctx, at, at.Leader)
	r.must(err)
	r.stands(next)
	r.eventually("the renewal in the watch", func() bool { s, _ := w.newest(); return s.Leader.Index == next.Index })
}

// TestAccess: an agent that denies by default, with tokens that may much, little and nothing.
func TestAccess(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.WithACL())
	r := newRoom(t, backend{"consul", agent.Address})
	admin, err := api.NewClient(&api.Config{Address: agent.Address, Token: agent.Token})
	r.must(err)
	token := func(name, rules string) string {
		p, _, err := admin.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
		r.must(err)
		tok, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
		r.must(err)
		return tok.SecretID
	}
	prefix := r.key("")
	with := func(token string) *consul.Client {
		c, err := consul.New(consul.Options{Address: agent.Address, Token: token, Cluster: r.cluster}, boottime.Now, zap.NewNop())
		r.must(err)
		return c
	}
	// What the advice of ErrDenied names is enough for a member.
	member := with(token("member", `key_prefix "`+prefix+`" { policy = "write" } session_prefix "" { policy = "write" } service "`+r.cluster+`" { policy = "write" }`))
	r.must(member.CheckAccess(r.ctx, true))
	r.client = member
	empty := r.state()
	if empty.Initialize.Exists {
		t.Errorf("an empty cluster reads as %+v", empty)
	}
	at := r.hold("a")
	r.must(member.PutMember(r.ctx, schema.Member{Name: "a"}, 0))
	s, err := member.MemberService("a", schema.RolePrimary, "127.0.0.1:5432", "http://127.0.0.1:1/")
	r.must(err)
	r.must(member.Register(r.ctx, s))

	router := with(token("router", `key_prefix "`+prefix+`" { policy = "read" }`))
	r.must(router.CheckAccess(r.ctx, false))
	_, err = router.ReadState(r.ctx)
	r.must(err)

	denied := func(what, rule string, err error) {
		t.Helper()
		if !errors.Is(err, consul.ErrDenied) || errors.Is(err, consul.ErrRefused) || consul.OutcomeUnknown(err) || !strings.Contains(err.Error(), rule) {
			t.Errorf("%s: want a denial that is certain and names %s, got %v", what, rule, err)
		}
	}
	key := `key_prefix "` + prefix + `"`
	denied("a router's right to write", key, router.CheckAccess(r.ctx, true))
	_, err = router.Renew(r.ctx, at, at.Leader)
	denied("a router's renewal", key, err)
	denied("a router's document", key, router.PutMember(r.ctx, schema.Member{Name: "b"}, 0))
	_, err = router.NewSession(r.ctx, 10*time.Second, "x")
	denied("a router's session", `session_prefix ""`, err)
	denied("a router's service", `service "`+r.cluster+`"`, router.Register(r.ctx, s))

	// Denied is not missing, though Consul answers a list of nothing to all of these.
	for name, c := range map[string]*consul.Client{
		"no token":         with(""),
		"an unknown one":   with("5d1f6d0e-3c0f-4b93-8a55-0f6e9dbb1f10"),
		"one of elsewhere": with(token("elsewhere", `key_prefix "howdah/elsewhere/" { policy = "write" }`)),
		"one key only":     with(token("one-key", `key "`+prefix+`leader" { policy = "read" }`)),
	} {
		_, err := c.ReadState(r.ctx)
		denied(name, key, err)
	}
	_, err = with("").ReadLeader(r.ctx)
	denied("the leader key without a token", key, err)
	r.stands(at)
}

// TestUnreachable: whatever else is at the address than a Consul gives an error that names it, in time.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct {
		address string
		unknown bool // whether a change may have taken place
	}{
		"nobody listens": {closed.URL, false},
		"nobody answers": {"http://" + silent.Addr().String(), true},
		"another server": {web.URL, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, backend{name, c.address})
			ctx, cancel := context.WithTimeout(r.ctx, 500*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if err := r.client.CheckAccess(ctx, true); err == nil || !strings.Contains(err.Error(), c.address) {
				t.Errorf("want an error that names %s, got %v", c.address, err)
			}
			if v, err := r.client.ReadLeader(ctx); err == nil || v.Known {
				t.Errorf("read %+v, %v", v, err)
			}
			if s, err := r.client.ReadState(ctx); err == nil || s.Leader.Known {
				t.Errorf("read %+v, %v", s, err)
			}
			at := schema.LockView{Known: true, Exists: true, Index: 5, Session: "s", Leader: record("a", 1)}
			v := record("a", 1)
			v.Session = "s"
			if _, err := r.client.Renew(ctx, at, v); errors.Is(err, consul.ErrRefused) || consul.OutcomeUnknown(err) != c.unknown {
				t.Errorf("renewal: unknown %v, got %v", c.unknown, err)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("took %s with a context of 500ms", took)
			}
		})
	}
}
