// Package consultest starts Consul for tests: a real agent, or the embedded server.
package consultest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/embedded"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// StartEmbedded serves an embedded server until the test ends and returns its address (http://host:port).
func StartEmbedded(t testing.TB) string {
	t.Helper()
	s := embedded.New(zap.NewNop())
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Close()
		h.Close()
	})
	return h.URL
}

// Agent is a real Consul: one server with a data directory, on loopback. It keeps its ports and its
// data over Restart.
type Agent struct {
	// Address is that of the HTTP API (http://host:port), DNS that of the DNS server (host:port).
	Address, DNS string
	// Token has all rights, on an agent started WithACL; else it is empty.
	Token string

	t    testing.TB
	bin  string
	dir  string
	mu   sync.Mutex // of cmd
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been reaped
}

// Option changes an agent's configuration before it starts.
type Option func(*Agent, map[string]any)

// WithACL makes the agent deny whatever no token allows.
func WithACL() Option {
	return func(a *Agent, config map[string]any) {
		a.Token = "9a4bd0ef-3c0f-4b93-8a55-0f6e9dbb1f10"
		config["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": a.Token, "agent": a.Token},
		}
	}
}

// Start starts an agent and waits until it has elected itself. It ends with the test.
func Start(t testing.TB, options ...Option) *Agent {
	t.Helper()
	a := &Agent{t: t, bin: binary(t), dir: t.TempDir()}
	ports := freePorts(t, 4)
	a.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	a.DNS = fmt.Sprintf("127.0.0.1:%d", ports[1])
	config := map[string]any{
		"node_name": "test", "datacenter": "dc1", "data_dir": filepath.Join(a.dir, "data"),
		"server": true, "bootstrap_expect": 1, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"ports": map[string]int{
			"http": ports[0], "dns": ports[1], "server": ports[2], "serf_lan": ports[3], "serf_wan": -1,
			"grpc": -1, "grpc_tls": -1, "https": -1,
		},
		"performance":          map[string]any{"raft_multiplier": 1, "leave_drain_time": "0s"},
		"disable_update_check": true, "log_level": "warn", "leave_on_terminate": false,
		"connect":   map[string]any{"enabled": false},
		"telemetry": map[string]any{"disable_hostname": true},
	}
	for _, o := range options {
		o(a, config)
	}
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "agent.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	a.Restart()
	return a
}

// Restart starts the agent, after stopping it if it runs, with the data that it has, and waits until it leads.
func (a *Agent) Restart() {
	a.t.Helper()
	a.Stop()
	a.launch()
	a.awaitLeader()
}

func (a *Agent) launch() {
	a.t.Helper()
	out, err := os.OpenFile(filepath.Join(a.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(a.bin, "agent", "-config-file", filepath.Join(a.dir, "agent.json"))
	cmd.Stdout, cmd.Stderr = out, out
	// An agent must not outlive a test binary that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		a.t.Fatalf("start %s: %v", a.bin, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	a.mu.Lock()
	a.cmd, a.done = cmd, done
	a.mu.Unlock()
}

// Stop kills the agent as a crash would, and keeps its data. Stopping one that does not run does nothing.
func (a *Agent) Stop() {
	a.mu.Lock()
	cmd, done := a.cmd, a.done
	a.cmd = nil
	a.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Errorf("kill consul: %v", err)
	}
	select {
	case <-done:
	case <-time.After(stopTimeout):
		a.t.Errorf("consul (pid %d) does not end", cmd.Process.Pid)
	}
}

// awaitLeader waits until the agent takes writes: it leads, and has caught up with its own log.
func (a *Agent) awaitLeader() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if a.ready(ctx) {
			return
		}
		select {
		case <-tick.C:
		case <-a.ended():
			a.t.Fatalf("consul has ended:\n%s", a.Log())
		case <-ctx.Done():
			a.t.Fatalf("consul does not lead after %s:\n%s", startTimeout, a.Log())
		}
	}
}

func (a *Agent) ended() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done
}

// ready writes a key and sees that the node is registered, without which no session can be made.
func (a *Agent) ready(ctx context.Context) bool {
	for _, probe := range []struct{ method, path, want string }{
		{http.MethodPut, "/v1/kv/consultest", "true"},
		{http.MethodGet, "/v1/catalog/node/test", `"Address"`},
	} {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, probe.method, a.Address+probe.path, strings.NewReader("ready"))
		if err != nil {
			a.t.Fatal(err)
		}
		r.Header.Set("X-Consul-Token", a.Token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(b.String(), probe.want) {
			return false
		}
	}
	return true
}

// Log returns what the agent has written so far.
func (a *Agent) Log() string {
	b, err := os.ReadFile(filepath.Join(a.dir, "agent.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// binary finds consul; there is no test without it.
func binary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("HOWDAH_CONSUL_BIN"); bin != "" {
		return bin
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test's folder")
		}
	}
	bin := filepath.Join(dir, "bin", "consul")
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%s is missing: run `make tools`, or set HOWDAH_CONSUL_BIN", bin)
	}
	return bin
}

// Ports are chosen below the range that the kernel takes for outgoing connections
// (net.ipv4.ip_local_port_range begins at 32768), so that they are still free at a Restart.
const (
	lowestPort  = 12000
	highestPort = 30000
)

// freePorts finds ports that are free for TCP and UDP, both of which Consul's DNS and gossip use.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that no port comes twice
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer u.Close()
		ports = append(ports, port)
	}
	t.Fatalf("no %d free ports from %d to %d", n, lowestPort, highestPort)
	return nil
}
