package conformance

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/consultest"
	"howdah/consul/schema"
)

func TestMain(m *testing.M) {
	// These tests wait for clocks more than they compute: the number of processors says nothing about them.
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	// The default client of package http keeps connections to servers that are gone by then.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// testTimeout bounds whatever a case waits for; sessions that expire take 20 s.
const testTimeout = 40 * time.Second

// lease is the lease in the records of these tests. Nobody counts it here.
const lease = schema.Duration(3 * time.Second)

// backend is one Consul, real or embedded.
type backend struct {
	name, address string
}

func backends(t *testing.T) []backend {
	return []backend{
		{"embedded", consultest.StartEmbedded(t)},
		{"consul", consultest.Start(t).Address},
	}
}

var clusters atomic.Uint64

// room is one case's own cluster on a backend.
type room struct {
	*testing.T
	backend
	ctx     context.Context
	cluster string
	client  *consul.Client
	raw     *api.Client
}

func newRoom(t *testing.T, b backend) *room {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	r := &room{T: t, backend: b, ctx: ctx, cluster: fmt.Sprintf("case-%d", clusters.Add(1))}
	r.client = r.newClient()
	var err error
	if r.raw, err = api.NewClient(&api.Config{Address: b.address}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *room) newClient() *consul.Client {
	r.Helper()
	c, err := consul.New(consul.Options{Address: r.address, Cluster: r.cluster, WatchWait: time.Second}, boottime.Now, zap.NewNop())
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func (r *room) session(name string) string {
	r.Helper()
	id, err := r.client.NewSession(r.ctx, 10*time.Second, name)
	r.must(err)
	return id
}

func (r *room) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *room) read() schema.LockView {
	r.Helper()
	v, err := r.client.ReadLeader(r.ctx)
	r.must(err)
	return v
}

// hold makes member the holder of a new lock.
func (r *room) hold(member string) schema.LockView {
	r.Helper()
	v, err := r.client.Acquire(r.ctx, r.read(), r.session(member), record(member, 1))
	r.must(err)
	return v
}

// key names a key of the case's cluster.
func (r *room) key(name string) string { return "howdah/" + r.cluster + "/" + name }

func (r *room) put(name, value string) {
	r.Helper()
	_, err := r.raw.KV().Put(&api.KVPair{Key: r.key(name), Value: []byte(value)}, (&api.WriteOptions{}).WithContext(r.ctx))
	r.must(err)
}

func record(member string, epoch schema.Epoch) schema.Leader {
	return schema.Leader{
		Member: member, Epoch: epoch, Phase: schema.PhaseServing, Lease: lease, Timeline: 1, FlushLSN: 0x3000060,
		Addresses: schema.Addresses{Postgres: "127.0.0.1:5432"}, Members: []string{"a", "b", "c"},
	}
}

// eventually asks until done says yes.
func (r *room) eventually(what string, done func() bool) {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			r.Fatalf("%s: did not come", what)
		}
	}
}

// cases run side by side, each in its own cluster. ordered ones run before them, with nobody else writing.
var cases = map[string]func(*room){
	"contended acquire has one winner":                contendedAcquire,
	"contended takeover has one winner":               contendedTakeOver,
	"renewal and takeover exclude each other":         renewalAgainstTakeOver,
	"stale takeover is refused":                       staleTakeOver,
	"old holder's renewal is refused":                 oldHolder,
	"renewal with the same value moves the index":     sameValue,
	"release is acquirable at once":                   release,
	"acquire needs the view it saw":                   acquireConditions,
	"epochs never decrease":                           epochs,
	"destroyed session frees the key":                 destroyedSession,
	"session expires unless renewed":                  sessionExpiry,
	"session rules":                                   sessionRules,
	"lock delay":                                      lockDelay,
	"transactions roll back whole":                    rolledBackWhole,
	"documents are changed by check-and-set":          documents,
	"the configuration is changed with its history":   configChanges,
	"documents that cannot be read are errors":        unreadable,
	"watch tells of changes, and of their absence":    watch,
	"watch goes on after a document is put right":     watchUnreadable,
	"clusters are listed":                             clusterNames,
	"service is registered and taken back":            services,
	"access check of an open consul":                  func(r *room) { r.must(r.client.CheckAccess(r.ctx, true)) },
	"enterprise options are refused by consul":        enterprise,
	"datacenter that does not exist is a clear error": datacenter,
}

func clusterNames(r *room) {
	r.hold("a")
	names, err := r.client.Clusters(r.ctx)
	r.must(err)
	if !slices.IsSorted(names) || !slices.Contains(names, r.cluster) {
		r.Errorf("the clusters are %v", names)
	}
}

var ordered = map[string]func(*room){
	"blocking on a key":           blockKey,
	"blocking on a missing key":   blockMissing,
	"blocking on a prefix":        blockPrefix,
	"blocking ends with its wait": blockTimeout,
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			for name, f := range ordered {
				t.Run(name, func(t *testing.T) { f(newRoom(t, b)) })
			}
			for name, f := range cases {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					f(newRoom(t, b))
				})
			}
		})
	}
}

func enterprise(r *room) {
	for option, o := range map[string]consul.Options{
		"ns": {Namespace: "team"}, "partition": {Partition: "team"},
	} {
		o.Address, o.Cluster = r.address, r.cluster
		c, err := consul.New(o, boottime.Now, zap.NewNop())
		r.must(err)
		_, err = c.ReadLeader(r.ctx)
		if err == nil || !strings.Contains(err.Error(), `"`+option+`"`) || !strings.Contains(err.Error(), "Enterprise") {
			r.Errorf("%s: want an error that names Consul Enterprise, got %v", option, err)
		}
	}
}

func datacenter(r *room) {
	c, err := consul.New(consul.Options{Address: r.address, Cluster: r.cluster, Datacenter: "mars"}, boottime.Now, zap.NewNop())
	r.must(err)
	_, err = c.ReadLeader(r.ctx)
	if err == nil || !strings.Contains(err.Error(), "No path to datacenter") {
		r.Errorf("want an error about the datacenter, got %v", err)
	}
	c, err = consul.New(consul.Options{Address: r.address, Cluster: r.cluster, Datacenter: "dc1"}, boottime.Now, zap.NewNop())
	r.must(err)
	_, err = c.ReadLeader(r.ctx)
	r.must(err)
}
