package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"howdah/sidecar/local"
)

// agent is a real Consul: one server with a data directory, on loopback, that keeps its ports and data when it is stopped
// and started again.
type agent struct {
	address string // http://host:port
	bin     string
	dir     string
	cmd     *exec.Cmd
	ended   chan struct{}
}

// consulStart is how long the agent may take until it leads.
const consulStart = 30 * time.Second

// newAgent writes the configuration; extra goes over it.
func newAgent(bin, dir string, extra map[string]any) (*agent, error) {
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("consul: %w; run make tools", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	free, err := local.FreeAddresses(4)
	if err != nil {
		return nil, err
	}
	ports := map[string]int{"serf_wan": -1, "grpc": -1, "grpc_tls": -1, "https": -1}
	for i, name := range []string{"http", "dns", "server", "serf_lan"} {
		var port int
		if _, err := fmt.Sscanf(free[i], "127.0.0.1:%d", &port); err != nil {
			return nil, err
		}
		ports[name] = port
	}
	config := map[string]any{
		"node_name": "bench", "datacenter": "dc1", "data_dir": filepath.Join(dir, "data"),
		"server": true, "bootstrap_expect": 1, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "ports": ports,
		// The shortest timers, as production servers have them (raft_multiplier 1).
		"performance":          map[string]any{"raft_multiplier": 1, "leave_drain_time": "0s"},
		"disable_update_check": true, "log_level": "warn", "leave_on_terminate": false,
		"connect": map[string]any{"enabled": false},
	}
	for k, v := range extra {
		config[k] = v
	}
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	return &agent{address: "http://" + free[0], bin: bin, dir: dir}, os.WriteFile(filepath.Join(dir, "agent.json"), b, 0o600)
}

// start starts the agent; it leads only later, see ready.
func (a *agent) start() error {
	out, err := os.OpenFile(filepath.Join(a.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(a.bin, "agent", "-config-file", filepath.Join(a.dir, "agent.json"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}()
	a.cmd, a.ended = cmd, ended
	return nil
}

// stop kills the agent, as a crash would. Stopping one that does not run does nothing.
func (a *agent) stop() error {
	if a.cmd == nil {
		return nil
	}
	err := a.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-a.ended
	a.cmd = nil
	return err
}

// ready waits until the agent takes writes.
func (a *agent) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, consulStart, fmt.Errorf("consul does not lead after %s; its log is %s", consulStart, filepath.Join(a.dir, "agent.log")))
	defer cancel()
	return local.Poll(ctx, 50*time.Millisecond, func() bool {
		return a.says(ctx, http.MethodPut, "/v1/kv/bench", "true") && a.says(ctx, http.MethodGet, "/v1/catalog/node/bench", `"Address"`)
	})
}

func (a *agent) says(ctx context.Context, method, path, want string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.address+path, strings.NewReader("ready"))
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(b), want)
}
