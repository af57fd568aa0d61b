package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/consultest"
	"howdah/consul/schema"
	"howdah/sidecar/api"
)

const apiToken = "the-token"

// cluster is a script of three members behind real APIs: what a switchover does is a function.
type cluster struct {
	mu         sync.Mutex
	primary    string
	epoch      schema.Epoch
	phase      schema.Phase
	events     []schema.Event
	refusal    error
	switchover func(c *cluster, to string)
	addresses  map[string]string
	asked      []string
	// ordered are the orders in their order, fails those that come to nothing, by member.
	ordered []string
	fails   map[string]string
	orders  map[string]*schema.OrderStatus
	pending map[string][]string
	config  schema.ClusterConfig
	plan    schema.ReinitPlan
	reports map[string]schema.ReloadReport
	reason  string
	// obeyed is called when an order of a member is carried out.
	obeyed func(c *cluster, name string)
}

// source is one member of it.
type source struct {
	name string
	c    *cluster
}

func newCluster(t *testing.T, names ...string) *cluster {
	c := &cluster{primary: names[0], epoch: 3, phase: schema.PhaseServing, addresses: map[string]string{},
		orders: map[string]*schema.OrderStatus{}, pending: map[string][]string{}}
	c.switchover = func(c *cluster, to string) { c.primary, c.epoch = to, c.epoch+1 }
	for _, name := range names {
		server := httptest.NewServer(api.New(source{name, c}, api.Options{Token: apiToken}, zap.NewNop()))
		t.Cleanup(server.Close)
		c.addresses[name] = server.Listener.Addr().String()
	}
	return c
}

func (c *cluster) self(name string) schema.Status {
	s := schema.Status{Name: name, Cluster: "main", Instance: name + "1", Seq: 1, Role: schema.RoleStandby, State: schema.StateStreaming,
		Timeline: 1, Epoch: c.epoch, LSN: 0x3000000, ReplayLSN: 0x3000000, Addresses: schema.Addresses{API: c.addresses[name]}, PendingRestart: c.pending[name], Reason: c.reason}
	if name == c.primary {
		s.Role, s.State, s.ReplayLSN, s.LeaseLeft = schema.RolePrimary, schema.StateRunning, 0, schema.Duration(2*time.Second)
	}
	return s
}

func (s source) Status() schema.ClusterStatus {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	st := schema.ClusterStatus{Cluster: "main", Member: s.name, Self: s.c.self(s.name), ConsulAge: schema.Duration(time.Second), Config: s.c.config,
		Leader: &schema.Leader{Member: s.c.primary, Epoch: s.c.epoch, Phase: s.c.phase}}
	if o := s.c.orders[s.name]; o != nil {
		// Every look at it takes it further.
		now := *o
		st.Order = &now
		if !o.Ended && o.Step == "start" {
			*o = schema.OrderStatus{ID: o.ID, Kind: o.Kind, Ended: true, Error: s.c.fails[s.name]}
			if s.c.obeyed != nil {
				s.c.obeyed(s.c, s.name)
			}
		}
		o.Step = "start"
	}
	for name := range s.c.addresses {
		st.Members = append(st.Members, schema.MemberView{Status: s.c.self(name), Liveness: schema.LivenessAlive, HeardAgo: schema.Duration(time.Second)})
	}
	return st
}

func (s source) Healthy() bool { return true }

func (s source) Parameters(context.Context) ([]schema.Parameter, error) {
	return []schema.Parameter{{Name: "work_mem", Type: "integer", Unit: "kB", Context: "user", Min: "64", Max: "2147483647"}}, nil
}

func (s source) Events(uint64, int) []schema.Event {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.events
}

func (s source) Why() schema.Account {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return schema.Account{Cluster: "main", Member: s.name, State: s.c.self(s.name).State, Holds: s.name == s.c.primary, Epoch: s.c.epoch,
		Candidates: []schema.Candidate{{Member: s.name, LSN: 0x3000000, Timeline: 1}}, Events: s.c.events}
}

func (s source) Switchover(_ context.Context, to string) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.asked = append(s.c.asked, s.name)
	if s.c.refusal == nil {
		s.c.switchover(s.c, to)
	}
	return s.c.refusal
}

func (s source) Order(_ context.Context, kind schema.OrderKind) (string, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.ordered = append(s.c.ordered, string(kind)+" "+s.name)
	s.c.orders[s.name] = &schema.OrderStatus{ID: "order" + s.name, Kind: kind, Step: "stop"}
	return s.c.orders[s.name].ID, s.c.refusal
}

func (s source) Reload(context.Context) schema.ReloadReport {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.ordered = append(s.c.ordered, "reload "+s.name)
	return s.c.reports[s.name]
}

func (s source) ReinitPlan(context.Context) (schema.ReinitPlan, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.c.plan, nil
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestStatusFindsAllMembersFromOne(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	stdio, out, _ := testStdio()
	status := NewStatus(stdio)
	status.API = []string{c.addresses["b"]}
	if err := status.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cluster main   epoch 3   primary a   consul answered a member 1s ago", "a        primary   running ", "b        standby   streaming", "c        standby   streaming"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "unreachable") {
		t.Error(out)
	}
}

// Not parallel: it changes how long a member may take.
func TestStatusShowsASilentMemberAsUnreachable(t *testing.T) {
	defer func(patience time.Duration) { askTimeout = patience }(askTimeout)
	askTimeout = 2 * time.Second
	c := newCluster(t, "a", "b")
	// This one takes connections and says nothing, as a frozen process does.
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	c.addresses["c"] = frozen.Addr().String()
	stdio, out, _ := testStdio()
	status := NewStatus(stdio)
	status.API, status.Output = []string{c.addresses["a"], c.addresses["b"]}, "json"
	began := time.Now()
	if err := status.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > askTimeout+3*time.Second {
		t.Errorf("it took %s", took)
	}
	var got struct {
		Members []struct {
			Name, State string
			Answered    bool
			NoAnswer    string `json:"no_answer"`
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Members) != 3 || got.Members[2].Answered || !strings.Contains(got.Members[2].NoAnswer, "no answer in time") || got.Members[2].State != "streaming" {
		t.Errorf("%s", out)
	}
}

func TestStatusThroughConsul(t *testing.T) {
	c := newCluster(t, "a", "b")
	address := consultest.StartEmbedded(t)
	client := register(t, c, address)
	for name, want := range map[string]string{
		"main": "primary a   consul answers",
		"mian": `cluster "mian" is not known to Consul at ` + address + `; it knows main`,
	} {
		stdio, out, _ := testStdio()
		status := NewStatus(stdio)
		status.Cluster, status.Consul.Addr = name, address
		err := status.Run(testContext(t))
		if err == nil {
			err = errors.New(out.String())
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got\n%v", name, want, err)
		}
	}
	if names, err := client.Clusters(testContext(t)); err != nil || strings.Join(names, " ") != "main" {
		t.Errorf("got %v, %v", names, err)
	}
}

// register puts the members of c into Consul.
func register(t *testing.T, c *cluster, address string) *consul.Client {
	t.Helper()
	client, err := consul.New(consul.Options{Address: address, Cluster: "main"}, boottime.Now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range c.addresses {
		m := schema.Member{Name: name, Instance: name + "1", Version: "test", Addresses: schema.Addresses{API: at, Postgres: "127.0.0.1:1"}}
		if err := client.PutMember(testContext(t), m, 0); err != nil {
			t.Fatal(err)
		}
	}
	return client
}

func TestStatusOfTwoClustersAtOnceIsAnError(t *testing.T) {
	c := newCluster(t, "a")
	stdio, _, _ := testStdio()
	status := NewStatus(stdio)
	status.API, status.Cluster = []string{c.addresses["a"]}, "other"
	if err := status.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "member a is of cluster main and not of other") {
		t.Errorf("got %v", err)
	}
}

func TestSwitchover(t *testing.T) {
	for name, c := range map[string]struct {
		to      string
		token   options.Secret
		prepare func(*cluster)
		says    string // in what is printed, or in the error
		fails   bool
	}{
		"to a member": {to: "b", token: apiToken, says: "done: b is the primary in epoch 4"},
		"to the best": {token: apiToken, prepare: func(c *cluster) { c.switchover = func(c *cluster, _ string) { c.primary, c.epoch = "c", 4 } }, says: "done: c is the primary in epoch 4"},
		"another took over": {to: "b", token: apiToken, prepare: func(c *cluster) { c.switchover = func(c *cluster, _ string) { c.primary, c.epoch = "c", 4 } },
			says: "c is the primary now, in epoch 4, and not b", fails: true},
		"refused at once": {to: "b", token: apiToken, prepare: func(c *cluster) { c.refusal = errors.New("b is 3 GB behind") }, says: "a refuses: b is 3 GB behind", fails: true},
		"given up later": {to: "b", token: apiToken, prepare: func(c *cluster) {
			c.events = []schema.Event{{Kind: schema.EventActionFail, At: 5, By: "a", Detail: "switchover to b given up: an older one"}}
			c.switchover = func(c *cluster, to string) {
				c.events = append(c.events, schema.Event{Kind: schema.EventActionFail, At: 9, By: "a", Detail: "switchover to b given up: no WAL"})
			}
		}, says: "a: switchover to b given up: no WAL", fails: true},
		"nothing happens":   {to: "b", token: apiToken, prepare: func(c *cluster) { c.switchover = func(*cluster, string) {} }, says: "no outcome within 1s; the wish stands", fails: true},
		"wrong token":       {to: "b", token: "other", says: "a refuses: the token is not this cluster's", fails: true},
		"to the primary":    {to: "a", token: apiToken, says: "a is the primary already", fails: true},
		"to nobody":         {to: "x", token: apiToken, says: `no member "x"; choose from b, c`, fails: true},
		"without a primary": {to: "b", token: apiToken, prepare: func(c *cluster) { c.primary, c.phase = "", schema.PhasePromoting }, says: "has no primary that could step down", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			members := newCluster(t, "a", "b", "c")
			if c.prepare != nil {
				c.prepare(members)
			}
			stdio, out, _ := testStdio()
			s := NewSwitchover(stdio)
			s.API, s.To, s.APIToken, s.Timeout = []string{members.addresses["c"]}, c.to, c.token, time.Second
			err := s.Run(testContext(t))
			text := out.String()
			if err != nil {
				text = err.Error()
			}
			if (err != nil) != c.fails || !strings.Contains(text, c.says) {
				t.Errorf("want %q, got %v and\n%s", c.says, err, out)
			}
			if len(members.asked) > 0 && members.asked[0] != "a" {
				t.Errorf("%s was asked first and not the primary", members.asked[0])
			}
		})
	}
}

func TestSwitchoverWithoutATokenIsWrittenIntoConsul(t *testing.T) {
	c := newCluster(t, "a", "b")
	address := consultest.StartEmbedded(t)
	client := register(t, c, address)
	ctx, cancel := context.WithCancel(testContext(t))
	// The primary's part: it sees the wish and carries it out.
	var wish schema.Request
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.WatchState(ctx, func(s schema.ClusterState, err error) {
			if err == nil && s.Request.Exists {
				c.mu.Lock()
				wish, c.primary, c.epoch = s.Request.Value, s.Request.Value.To, 4
				c.mu.Unlock()
				cancel()
			}
		})
	}()
	stdio, out, _ := testStdio()
	s := NewSwitchover(stdio)
	s.Cluster, s.Consul.Addr, s.To = "main", address, "b"
	if err := s.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	<-ended
	if wish.From != "a" || wish.To != "b" || wish.Kind != schema.RequestSwitchover || wish.ID == "" {
		t.Errorf("got %+v", wish)
	}
	if !strings.Contains(out.String(), "done: b is the primary in epoch 4") {
		t.Error(out)
	}
	if len(c.asked) > 0 {
		t.Error("a member was asked without a token")
	}
	// The wish is still there: a second one is refused.
	s.To = "a"
	if err := s.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "another request") {
		t.Errorf("got %v", err)
	}
}

func TestSwitchoverReadsItsTokenFile(t *testing.T) {
	c := newCluster(t, "a", "b")
	file := filepath.Join(t.TempDir(), "api.token")
	if err := os.WriteFile(file, []byte(apiToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdio, out, _ := testStdio()
	s := NewSwitchover(stdio)
	s.API, s.To, s.APITokenFile = []string{c.addresses["a"]}, "b", file
	if err := s.Run(testContext(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
