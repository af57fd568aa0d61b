package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// consulPort is where every agent's HTTP API is.
const consulPort = "8500"

// Server is one Consul server.
type Server struct {
	Host *Host
	c    *Cluster
	unit *unit
}

// Start starts the server if it does not run.
func (s *Server) Start() error { return s.unit.start() }

// Kill ends the server by SIGKILL; Start brings it back with its data.
func (s *Server) Kill() error { return s.unit.kill() }

// agent makes Consul's agent of a host, a server or one beside a sidecar or router.
func (c *Cluster) agent(h *Host, server bool) (*unit, error) {
	var join []string
	for i := range servers {
		join = append(join, fmt.Sprintf("%s%d", subnet, 11+i))
	}
	dir := c.path("consul", h.Name)
	if err := c.owned(dir); err != nil {
		return nil, err
	}
	config := map[string]any{
		"node_name": h.Name, "datacenter": "dc1", "data_dir": filepath.Join(dir, "data"), "server": server,
		"bind_addr": h.Address, "client_addr": "127.0.0.1 " + h.Address, "retry_join": join, "retry_interval": "1s",
		"ports":                map[string]int{"serf_wan": -1, "grpc": -1, "grpc_tls": -1, "https": -1, "dns": -1},
		"disable_update_check": true, "log_level": "info", "leave_on_terminate": false, "connect": map[string]any{"enabled": false},
	}
	if server {
		config["bootstrap_expect"] = servers
		// The shortest timers, as production servers have them.
		config["performance"] = map[string]any{"raft_multiplier": 1, "leave_drain_time": "0s"}
	}
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "agent.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return nil, err
	}
	binary, err := c.consulBinary()
	if err != nil {
		return nil, err
	}
	return c.kept(h, "consul", &c.user, syscall.SIGKILL, binary, "agent", "-config-file", file), nil
}

// consulBinary is a copy that the unprivileged user can get at.
func (c *Cluster) consulBinary() (string, error) {
	to := c.path("consul-binary")
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	if err := copyFile(c.o.Consul, to); err != nil {
		return "", fmt.Errorf("consul: %w; run make tools", err)
	}
	return to, nil
}

// Leader is the server that leads by the word of a majority; nil if none is known now.
func (c *Cluster) Leader(ctx context.Context) *Server {
	votes := map[string]int{}
	for _, s := range c.Servers {
		var address string
		if err := s.get(ctx, "/v1/status/leader", &address); err == nil {
			if host, _, err := net.SplitHostPort(address); err == nil {
				votes[host]++
			}
		}
	}
	for _, s := range c.Servers {
		if votes[s.Host.Address] > len(c.Servers)/2 {
			return s
		}
	}
	return nil
}

// LeaderRecord reads the cluster's leader key from whichever server answers; an error if none does, or there is no key.
func (c *Cluster) LeaderRecord(ctx context.Context) (schema.Leader, error) {
	var errs []error
	for _, s := range c.Servers {
		var l schema.Leader
		err := s.get(ctx, "/v1/kv/howdah/"+Name+"/leader?raw", &l)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return schema.Leader{}, errors.Join(errs...)
}

func (c *Cluster) awaitLeader(ctx context.Context) error {
	const bound = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("consul has no leader after %s", bound))
	defer cancel()
	return local.Poll(ctx, 50*time.Millisecond, func() bool { return c.Leader(ctx) != nil })
}

func (s *Server) get(ctx context.Context, path string, into any) error {
	return get(ctx, s.Host, consulPort, path, into)
}

// askTimeout bounds one question; a frozen process does not answer.
const askTimeout = time.Second

// get asks an HTTP API of a host from the host itself, so that no cut is in the way.
func get(ctx context.Context, h *Host, port, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(h.Address, port)+path, nil)
	if err != nil {
		return err
	}
	return do(h, req, into)
}

func do(h *Host, req *http.Request, into any) error {
	client := http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return errors.New(req.URL.String() + " answered " + resp.Status + ": " + string(trimmed(b)))
	}
	return json.Unmarshal(b, into)
}

func trimmed(b []byte) []byte { return bytes.TrimSpace(b) }
