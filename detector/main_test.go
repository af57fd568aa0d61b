package detector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"howdah/consul/schema"

	"net"

	"golang.org/x/sys/unix"
)

// childVar makes the test binary a process of the gossip: its value is a childConfig in JSON.
const childVar = "HOWDAH_TEST_GOSSIP_CHILD"

func TestMain(m *testing.M) {
	if conf := os.Getenv(childVar); conf != "" {
		if err := child(conf); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

type childConfig struct {
	Name string
	Join []string
	Key  []byte
}

// child publishes a status ten times a second until its standard input ends.
func child(conf string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	d, err := Start(Config{
		Name: c.Name, Kind: KindMember, Cluster: "test", Instance: fmt.Sprint(os.Getpid()),
		Bind: "127.0.0.1:0", Join: c.Join, Keys: [][]byte{c.Key},
	}, now, zap.NewNop())
	if err != nil {
		return err
	}
	d.HandlePromises(func(schema.PromiseRequest) schema.PromiseReply { return schema.PromiseReply{Given: true} })
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for seq := uint64(1); ; seq++ {
		d.Publish(schema.Status{Role: schema.RolePrimary, State: schema.StateRunning, Epoch: 3, Seq: seq})
		<-time.After(100 * time.Millisecond)
	}
}

func now() schema.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return schema.Instant(ts.Nano())
}

func key(b byte) []byte {
	k := make([]byte, KeyBytes)
	for i := range k {
		k[i] = b
	}
	return k
}

// quick is LAN with a push/pull and a rejoin that tests need not wait for.
func quick() Timing {
	t := LAN()
	t.PushPullInterval = 500 * time.Millisecond
	t.RejoinMin = 50 * time.Millisecond
	t.RejoinMax = 300 * time.Millisecond
	return t
}

func config(name string, join ...string) Config {
	return Config{
		Name: name, Kind: KindMember, Cluster: "test", Instance: "instance of " + name,
		Bind: "127.0.0.1:0", Join: join, Keys: [][]byte{key(1)}, Timing: quick(),
	}
}

// start runs a detector until the test ends.
func start(t *testing.T, c Config) *Detector {
	t.Helper()
	return startLogged(t, c, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)).With(zap.String("at", c.Name)))
}

func startLogged(t *testing.T, c Config, log *zap.Logger) *Detector {
	t.Helper()
	d, err := Start(c, now, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, d) })
	return d
}

func stop(t *testing.T, d *Detector) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		t.Errorf("shutdown of %s: %v", d.cfg.Name, err)
	}
}

// crash ends a detector without a goodbye, as SIGKILL would.
func crash(d *Detector) {
	d.shutdownOnce.Do(func() {
		d.mu.Lock()
		d.cancel()
		d.mu.Unlock()
		d.wg.Wait()
		d.ml.Shutdown()
		close(d.logDone)
		d.logWG.Wait()
	})
}

// until polls, with the changes of d as a hint, for as long as twenty seconds, of which a machine that does nothing else needs few.
func until(t *testing.T, d *Detector, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 20 s; %s sees %+v; problems %v", what, d.cfg.Name, d.Peers(), d.JoinProblems())
		case <-d.Changes():
		case <-tick.C:
		}
	}
}

// during checks that ok holds for the whole time.
func during(t *testing.T, d *Detector, span time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.After(span)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if !ok() {
			t.Fatalf("%s: not so; %s sees %+v", what, d.cfg.Name, d.Peers())
		}
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}

func find(d *Detector, name string) schema.Peer {
	for _, p := range d.Peers() {
		if p.Name == name {
			return p
		}
	}
	return schema.Peer{Liveness: schema.LivenessUnknown}
}

func sees(d *Detector, name string, l schema.Liveness) func() bool {
	return func() bool { return find(d, name).Liveness == l }
}

// wire is a network that can lose what one process sends.
type wire struct {
	memberlist.NodeAwareTransport
	// drop reports whether to lose a packet, or refuse a stream, to addr.
	drop *atomic.Pointer[func(addr string, stream bool) bool]
}

func faulty(c *Config) *atomic.Pointer[func(string, bool) bool] {
	var p atomic.Pointer[func(string, bool) bool]
	c.transport = func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport { return wire{t, &p} }
	return &p
}

func (w wire) lost(addr string, stream bool) bool {
	f := w.drop.Load()
	return f != nil && (*f)(addr, stream)
}

func (w wire) WriteTo(b []byte, addr string) (time.Time, error) {
	return w.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (w wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if w.lost(a.Addr, false) {
		return time.Now(), nil
	}
	return w.NodeAwareTransport.WriteToAddress(b, a)
}

func (w wire) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: addr}, d)
}

func (w wire) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if w.lost(a.Addr, true) {
		return nil, fmt.Errorf("dial %s: cut", a.Addr)
	}
	return w.NodeAwareTransport.DialAddressTimeout(a, d)
}

// cut loses everything to the given addresses.
func cut(addrs ...string) *func(string, bool) bool {
	f := func(addr string, _ bool) bool {
		for _, a := range addrs {
			if a == addr {
				return true
			}
		}
		return false
	}
	return &f
}
