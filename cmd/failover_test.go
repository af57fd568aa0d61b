package cmd

import (
	"context"
	"strings"
	"testing"
	"time"

	"howdah/consul/consultest"
	"howdah/consul/schema"
)

func TestFailover(t *testing.T) {
	for name, c := range map[string]struct {
		set     func(*Failover)
		input   string
		primary string // who serves still
		obeyed  bool   // the member carries it out
		says    string
		asked   bool // a request was written
		fails   bool
	}{
		"forced by name":           {set: func(f *Failover) { f.Force = true }, input: "main\n", obeyed: true, asked: true, says: "done: b is the primary in epoch 4"},
		"forced by a script":       {set: func(f *Failover) { f.Force, f.Confirm = true, "main" }, obeyed: true, asked: true, says: "b lacks 4096 bytes of that, and whatever came after"},
		"what it may cost":         {set: func(f *Failover) { f.Force, f.Confirm = true, "main" }, obeyed: true, asked: true, says: "commits that were acknowledged are lost"},
		"who is not heard of":      {set: func(f *Failover) { f.Force, f.Confirm = true, "main" }, obeyed: true, asked: true, says: "not heard of: gone; what only they have is lost"},
		"not by another name":      {set: func(f *Failover) { f.Force = true }, input: "mian\n", says: `"mian" is not the cluster's name`, fails: true},
		"not by a yes":             {set: func(f *Failover) { f.Force, f.Yes = true, true }, says: "is not the cluster's name", fails: true},
		"plain":                    {obeyed: true, asked: true, says: "done: b is the primary in epoch 4"},
		"nothing comes of it":      {asked: true, says: "nothing has come of it within 1s; the wish is withdrawn; b says: may not stand: lag", fails: true},
		"a primary serves":         {primary: "a", set: func(f *Failover) { f.Force, f.Confirm = true, "main" }, says: "a is the primary and its lease is in force: howdah switchover --to b", fails: true},
		"to nobody":                {set: func(f *Failover) { f.To = "x" }, says: `no member "x"`, fails: true},
		"to one that is not there": {set: func(f *Failover) { f.To = "gone" }, says: "gone does not answer here", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			members := newCluster(t, "a", "b", "c")
			members.primary, members.reason = c.primary, "may not stand: lag"
			members.addresses["gone"] = "127.0.0.1:1"
			address := consultest.StartEmbedded(t)
			client := register(t, members, address)
			ctx := testContext(t)
			session, err := client.NewSession(ctx, 10*time.Second, "a")
			if err != nil {
				t.Fatal(err)
			}
			record := schema.Leader{Member: "a", Epoch: 3, Phase: schema.PhaseServing, Timeline: 1, FlushLSN: 0x3001000, Session: session,
				Lease: schema.Duration(time.Second), Sync: schema.SyncSet{Need: 1, Standbys: []string{"c"}}}
			if _, err := client.Acquire(ctx, schema.LockView{Known: true}, session, record); err != nil {
				t.Fatal(err)
			}
			var wish schema.Request
			watching, stop := context.WithCancel(ctx)
			ended := make(chan struct{})
			go func() { // the member's part
				defer close(ended)
				client.WatchState(watching, func(s schema.ClusterState, err error) {
					if err != nil || !s.Request.Exists || wish.ID != "" {
						return
					}
					if wish = s.Request.Value; c.obeyed {
						next := record
						next.Member, next.Epoch = wish.To, 4
						if _, err := client.TakeOver(watching, s.Leader, session, next); err != nil {
							t.Error(err)
						}
					}
				})
			}()
			stdio, out, _ := testStdio()
			stdio.In = strings.NewReader(c.input)
			f := NewFailover(stdio)
			f.Cluster, f.Consul.Addr, f.To, f.Timeout = "main", address, "b", time.Second
			if c.obeyed {
				f.Timeout = 20 * time.Second
			}
			if c.set != nil {
				c.set(f)
			}
			err = f.Run(ctx)
			stop()
			<-ended
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if (err != nil) != c.fails || !strings.Contains(text, c.says) {
				t.Errorf("want %q, got\n%s", c.says, text)
			}
			if c.asked && (wish.Kind != schema.RequestFailover || wish.From != "a" || wish.To != "b" || wish.Epoch != 3 || wish.LSN != 0x3001000 || wish.Force != f.Force || wish.By != whoami()) || !c.asked && wish.ID != "" {
				t.Errorf("asked for %+v", wish)
			}
		})
	}
}
