package cmd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/detector"
	"howdah/router"
)

// BenchmarkRoutersAgree measures how long it takes two routers to send sessions to a new primary, from when it says so in the gossip, and how far
// apart they are. The gossip is real, on the loopback, and Consul silent. Run it on a quiet machine:
//
//	go test ./cmd -run xxx -bench RoutersAgree -benchtime 100x
func BenchmarkRoutersAgree(b *testing.B) {
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	gossiping := func(name, kind string, join ...string) *detector.Detector {
		d, err := detector.Start(detector.Config{
			Name: name, Kind: kind, Cluster: "bench", Keys: [][]byte{make([]byte, 32)}, Bind: "127.0.0.1:0", Join: join,
		}, boottime.Now, zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			bye, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
			defer cancel()
			d.Shutdown(bye)
		})
		return d
	}
	members := []*detector.Detector{gossiping("pg1", detector.KindMember)}
	members = append(members, gossiping("pg2", detector.KindMember, members[0].Addr()))
	var routers []*router.Router
	for i := range 2 {
		name := fmt.Sprint("router", i)
		d := gossiping(name, detector.KindRouter, members[0].Addr())
		k := newKnowledge(d, "bench", zap.NewNop())
		wg.Go(func() { k.relay(ctx, d.Changes()) })
		o := router.DefaultOptions()
		o.Cluster, o.Name, o.Listen = "bench", name, "127.0.0.1:0"
		r, err := router.New(o, k, boottime.Now, zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				b.Error(err)
			}
		})
		routers = append(routers, r)
	}
	// change makes another member the primary of the next epoch and returns when each router knew.
	epoch := schema.Epoch(0)
	change := func() (took [2]time.Duration) {
		epoch++
		leader := members[epoch%2]
		name := []string{"pg1", "pg2"}[epoch%2]
		begun := time.Now()
		leader.Publish(schema.Status{
			Name: name, Cluster: "bench", Role: schema.RolePrimary, State: schema.StateRunning, Epoch: epoch, Timeline: schema.Timeline(epoch),
			LSN: 1000, Addresses: schema.Addresses{Postgres: "127.0.0.1:1"},
		})
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for took[0] == 0 || took[1] == 0 {
			<-tick.C
			since := time.Since(begun)
			for i, r := range routers {
				if s := r.Status(); took[i] == 0 && s.Epoch == epoch && s.Primary == name {
					took[i] = since
				}
			}
			if since > time.Minute {
				b.Fatalf("epoch %d: the routers know %+v and %+v", epoch, routers[0].Status(), routers[1].Status())
			}
		}
		return took
	}
	change() // the gossip has come together
	var both, apart []time.Duration
	for b.Loop() {
		t := change()
		both, apart = append(both, max(t[0], t[1])), append(apart, (t[0]-t[1]).Abs())
	}
	report := func(all []time.Duration, unit string) {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms/"+unit+"-median")
		b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms/"+unit+"-worst")
	}
	report(both, "both")
	report(apart, "apart")
}
