package cmd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/consultest"
	"howdah/consul/schema"
)

func TestRestart(t *testing.T) {
	for name, c := range map[string]struct {
		set     func(*Restart)
		prepare func(*cluster)
		ordered string // in order
		says    string // in what is printed, or in the error
		fails   bool
	}{
		"standbys first, then the primary": {ordered: "restart b, restart c, restart a", says: "done: b, c, a"},
		"one":                              {set: func(r *Restart) { r.Members = []string{"c"} }, ordered: "restart c", says: "c: back after"},
		"the primary in place":             {set: func(r *Restart) { r.Role = "primary" }, ordered: "restart a", says: "sessions on the primary a end"},
		"its alias":                        {set: func(r *Restart) { r.Role = "replica" }, ordered: "restart b, restart c", says: "done: b, c"},
		"by switchover, once": {set: func(r *Restart) { r.Role, r.Switchover = "primary", true },
			prepare: func(c *cluster) { c.switchover = func(c *cluster, _ string) { c.primary, c.epoch = "b", 4 } }, ordered: "restart a", says: "done: b is the primary in epoch 4"},
		"one that does not come back": {prepare: func(c *cluster) { c.fails = map[string]string{"b": "FATAL: no memory"} },
			ordered: "restart b", says: "b: the restart came to nothing: FATAL: no memory\nrestarted: none; not touched: c, a", fails: true},
		"refused":         {prepare: func(c *cluster) { c.refusal = errors.New("it is handing over") }, ordered: "restart b", says: "b refuses: it is handing over", fails: true},
		"nobody":          {set: func(r *Restart) { r.Members = []string{"x"} }, says: `no member "x"`, fails: true},
		"wrong token":     {set: func(r *Restart) { r.APIToken = "other" }, says: "b refuses: the token is not this cluster's", fails: true},
		"nothing pending": {set: func(r *Restart) { r.Pending = true }, says: "nothing to restart"},
		"what was lowered: the primary, then the standbys": {set: func(r *Restart) { r.Pending = true },
			prepare: func(c *cluster) {
				c.pending["a"] = []string{"max_connections"}
				c.obeyed = func(c *cluster, name string) {
					delete(c.pending, name)
					if name == "a" {
						c.pending["b"] = []string{"max_connections"}
					}
				}
			}, ordered: "restart a, restart b", says: "done: a, b"},
		"one that stays pending is not restarted for ever": {set: func(r *Restart) { r.Pending = true },
			prepare: func(c *cluster) { c.pending["b"] = []string{"port"} }, ordered: "restart b, restart b", says: "done: b, b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			members := newCluster(t, "a", "b", "c")
			if c.prepare != nil {
				c.prepare(members)
			}
			stdio, out, _ := testStdio()
			r := NewRestart(stdio)
			r.API, r.APIToken, r.Timeout = []string{members.addresses["c"]}, apiToken, 5*time.Second
			if c.set != nil {
				c.set(r)
			}
			err := r.Run(testContext(t))
			text := out.String()
			if err != nil {
				text = err.Error()
			}
			if (err != nil) != c.fails || !strings.Contains(text, c.says) {
				t.Errorf("want %q, got %v and\n%s", c.says, err, out)
			}
			if got := strings.Join(members.ordered, ", "); got != c.ordered {
				t.Errorf("ordered %q, want %q", got, c.ordered)
			}
		})
	}
}

func TestRestartStopsBetweenMembers(t *testing.T) {
	members := newCluster(t, "a", "b", "c")
	ctx, cancel := context.WithCancel(testContext(t))
	members.obeyed = func(*cluster, string) { cancel() }
	stdio, _, _ := testStdio()
	r := NewRestart(stdio)
	r.API, r.APIToken = []string{members.addresses["a"]}, apiToken
	if err := r.Run(ctx); err == nil || !slices.Equal(members.ordered, []string{"restart b"}) {
		t.Errorf("%v; ordered %v", err, members.ordered)
	}
}

func TestPause(t *testing.T) {
	c := newCluster(t, "a", "b")
	address := consultest.StartEmbedded(t)
	client := register(t, c, address)
	if err := client.PutConfig(testContext(t), schema.DefaultClusterConfig(), 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	go client.WatchState(ctx, func(s schema.ClusterState, err error) { // the members' part
		if err == nil {
			c.mu.Lock()
			c.config = s.Config.Value
			c.mu.Unlock()
		}
	})
	run := func(p *Pause, want string) {
		t.Helper()
		stdio, out, _ := testStdio()
		p.stdio, p.Cluster, p.Consul.Addr = stdio, "main", address
		if err := p.Run(ctx); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("want %q, got %v and %s", want, err, out)
		}
	}
	pause := NewPause(Stdio{})
	pause.Why = "a new disk"
	run(pause, "cluster main is paused: howdah resume ends it")
	run(NewPause(Stdio{}), "paused already by "+whoami()+": a new disk")
	stdio, out, _ := testStdio()
	status := NewStatus(stdio)
	status.API = []string{c.addresses["b"]} // which has not asked Consul
	if err := status.Run(ctx); err != nil || !strings.HasPrefix(out.String(), "PAUSED by "+whoami()+": a new disk") {
		t.Errorf("%v\n%s", err, out)
	}
	run(NewResume(Stdio{}), "cluster main is resumed")
	run(NewResume(Stdio{}), "cluster main is not paused")
	if st, err := client.ReadState(ctx); err != nil || st.Config.Value.PauseBy != "" || st.Config.Value.PauseReason != "" {
		t.Errorf("%+v, %v", st.Config.Value, err)
	}

	late := NewPause(Stdio{})
	cancel() // the members hear of nothing any more
	stdio, out, _ = testStdio()
	late.stdio, late.Cluster, late.Consul.Addr, late.Wait = stdio, "main", address, 300*time.Millisecond
	if err := late.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "not all have heard of it within 300ms: a, b") {
		t.Errorf("%v\n%s", err, out)
	}
}
