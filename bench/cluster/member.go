package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// The ports are the defaults of howdah.
const (
	postgresPort = "5432"
	gossipPort   = "7946"
	apiPort      = "8008"
	routerPort   = "6432"
	readOnlyPort = "6433"
	routerGossip = "7947"
	routerAPI    = "8009"
)

// Member is one member on its host: Consul's agent, the launcher with Postgres, the sidecar, and a disk with the data.
type Member struct {
	Name string
	Host *Host

	c                      *Cluster
	disk                   *disk
	runDir, dataDir        string
	agent, launch, sidecar *unit
	told                   journal
}

// journal is how far the events of a process were read.
type journal struct {
	mu   sync.Mutex
	read uint64 // Seq of the newest that was read
}

func (c *Cluster) newMember(ctx context.Context, h *Host) (*Member, error) {
	m := &Member{Name: h.Name, Host: h, c: c, runDir: c.path("run", h.Name), dataDir: c.path("disk", h.Name, "data")}
	if err := c.owned(m.runDir); err != nil {
		return nil, err
	}
	var err error
	if m.disk, err = newDisk(ctx, c.path("disk", h.Name+".img"), c.path("disk", h.Name), c.user); err != nil {
		return nil, err
	}
	if m.agent, err = c.agent(h, false); err != nil {
		return nil, err
	}
	m.launch = c.kept(h, "launch", &c.user, syscall.SIGKILL, c.path("howdah"), "launch", "--socket", m.socket(), "--data-dir", m.dataDir,
		"--bin-dir", c.o.BinDir, "--postgres-socket-dir", m.runDir)
	return m, nil
}

func (c *Cluster) sidecarUnit(m *Member) *unit {
	args := []string{c.path("howdah"), "sidecar", "--cluster", Name, "--name", m.Name, "--data-dir", m.dataDir, "--launch-socket", m.socket(),
		"--postgres-listen", m.Postgres(), "--postgres-socket-dir", m.runDir, "--secrets-dir", c.path("secrets"),
		"--gossip-listen", m.Host.Address + ":" + gossipPort, "--api-listen", m.Host.Address + ":" + apiPort,
		"--gossip-join", c.seeds(m), "--consul-addr", "http://127.0.0.1:" + consulPort, "--bootstrap-config", c.path("bootstrap.yaml")}
	return c.kept(m.Host, "sidecar", &c.user, syscall.SIGKILL, append(args, c.o.MemberFlags...)...)
}

// seeds are the gossip addresses of all members but one.
func (c *Cluster) seeds(but *Member) string {
	var seeds []string
	for _, m := range c.Members {
		if m != but {
			seeds = append(seeds, m.Host.Address+":"+gossipPort)
		}
	}
	return strings.Join(seeds, ",")
}

func (m *Member) socket() string { return filepath.Join(m.runDir, "launch.sock") }

// Postgres is the address of its Postgres, host:port.
func (m *Member) Postgres() string { return m.Host.Address + ":" + postgresPort }

// Start starts all of the host that does not run.
func (m *Member) Start() error {
	return errors.Join(m.agent.start(), m.launch.start(), m.sidecar.start())
}

// Kill ends every process of the host at one moment and starts none again, as a machine that loses its power. The disk
// keeps what was written to it, synced or not.
func (m *Member) Kill(ctx context.Context) error {
	for _, u := range []*unit{m.agent, m.launch, m.sidecar} {
		u.release()
	}
	killed := killAll(ctx, m.Host.group)
	// No keeper may start anything while the control group is replaced.
	if err := errors.Join(killed, m.agent.kill(), m.launch.kill(), m.sidecar.kill()); err != nil {
		return err
	}
	return m.Host.kill(ctx)
}

// Freeze stops every process of the host at one moment, as a paused virtual machine; connections stay open.
func (m *Member) Freeze(ctx context.Context) error { return m.Host.setFrozen(ctx, true) }

// Thaw lets the host go on.
func (m *Member) Thaw(ctx context.Context) error { return m.Host.setFrozen(ctx, false) }

// StallDisk stops every write to the member's disk, ResumeDisk lets them go on.
func (m *Member) StallDisk(ctx context.Context) error { return m.disk.stall(ctx) }

// ResumeDisk is told of at StallDisk.
func (m *Member) ResumeDisk(ctx context.Context) error { return m.disk.resume(ctx) }

// KillSidecar kills the sidecar; it is started again as systemd would, unless it is to stay dead until StartSidecar.
func (m *Member) KillSidecar(stayDead bool) error {
	if stayDead {
		return m.sidecar.kill()
	}
	return m.sidecar.signal(syscall.SIGKILL)
}

// StartSidecar starts the sidecar if it does not run.
func (m *Member) StartSidecar() error { return m.sidecar.start() }

// KillLauncher kills the launcher, and with it Postgres; it is started again as systemd would.
func (m *Member) KillLauncher() error { return m.launch.signal(syscall.SIGKILL) }

// StopSidecar stops the sidecar alone where it is (SIGSTOP), or lets it go on (SIGCONT).
func (m *Member) StopSidecar(stop bool) error { return m.sidecar.signal(stopOrGoOn(stop)) }

// StopLauncher is as StopSidecar, of the launcher alone: its Postgres runs on.
func (m *Member) StopLauncher(stop bool) error { return m.launch.signal(stopOrGoOn(stop)) }

func stopOrGoOn(stop bool) syscall.Signal {
	if stop {
		return syscall.SIGSTOP
	}
	return syscall.SIGCONT
}

// KillAgent kills Consul's agent of the host; it is started again as systemd would.
func (m *Member) KillAgent() error { return m.agent.signal(syscall.SIGKILL) }

// KillPostmaster kills the postmaster alone (SIGKILL).
func (m *Member) KillPostmaster() error {
	b, err := os.ReadFile(filepath.Join(m.dataDir, "postmaster.pid"))
	if err != nil {
		return fmt.Errorf("no postmaster of %s runs: %w", m.Name, err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(trimmed(line)))
	if err != nil {
		return fmt.Errorf("postmaster.pid of %s: %w", m.Name, err)
	}
	// The file may be an old one; only a process of this host is ours to kill.
	members, err := os.ReadFile(filepath.Join(m.Host.group, "cgroup.procs"))
	if err != nil || !strings.Contains("\n"+string(members), fmt.Sprintf("\n%d\n", pid)) {
		return fmt.Errorf("no postmaster of %s runs: process %d is not on its host (%v)", m.Name, pid, err)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// Events returns what the sidecar has recorded since the last call, oldest first.
func (m *Member) Events(ctx context.Context) ([]schema.Event, error) {
	m.told.mu.Lock()
	defer m.told.mu.Unlock()
	var events []schema.Event
	if err := get(ctx, m.Host, apiPort, "/events?after="+strconv.FormatUint(m.told.read, 10), &events); err != nil {
		return nil, err
	}
	if len(events) > 0 {
		m.told.read = events[len(events)-1].Seq // over restarts of the sidecar too
	}
	return events, nil
}

// Switchover asks the member's API to hand over to another, or to whomever howdah chooses if to is empty.
func (m *Member) Switchover(ctx context.Context, to string) error {
	token, err := os.ReadFile(m.c.path("secrets", "api.token"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.Host.Address+":"+apiPort+"/switchover",
		strings.NewReader(fmt.Sprintf(`{"to":%q}`, to)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+string(trimmed(token)))
	var reply any
	return do(m.Host, req, &reply)
}

// Router is one router on its host, with Consul's agent.
type Router struct {
	Name string
	Host *Host

	agent, router *unit
}

func (c *Cluster) newRouter(h *Host) (*Router, error) {
	r := &Router{Name: h.Name, Host: h}
	var err error
	if r.agent, err = c.agent(h, false); err != nil {
		return nil, err
	}
	args := []string{c.path("howdah"), "router", "--cluster", Name, "--name", r.Name, "--listen", r.Listen(), "--listen-ro", r.ReadOnly(),
		"--api-listen", h.Address + ":" + routerAPI, "--gossip-listen", h.Address + ":" + routerGossip, "--gossip-join", c.seeds(nil),
		"--gossip-key-file", c.path("secrets", "gossip.key"), "--router-password-file", c.path("secrets", "router"), "--consul-addr", "http://127.0.0.1:" + consulPort}
	r.router = c.kept(h, "router", &c.user, syscall.SIGKILL, append(args, c.o.RouterFlags...)...)
	return r, nil
}

// Listen is where clients connect that read and write, ReadOnly where those do that only read. Both host:port.
func (r *Router) Listen() string { return r.Host.Address + ":" + routerPort }

// ReadOnly is told of at Listen.
func (r *Router) ReadOnly() string { return r.Host.Address + ":" + readOnlyPort }

// Start starts all of the host that does not run.
func (r *Router) Start() error { return errors.Join(r.agent.start(), r.router.start()) }

// Kill kills the router's process; it is started again as systemd would.
func (r *Router) Kill() error { return r.router.signal(syscall.SIGKILL) }

// Events returns what the router has recorded since it was started, oldest first.
func (r *Router) Events(ctx context.Context) ([]schema.Event, error) {
	var events []schema.Event
	err := get(ctx, r.Host, routerAPI, "/events", &events)
	return events, err
}

// Look asks all members for their status, each from its own host, so that no cut is in the way.
func (c *Cluster) Look(ctx context.Context) local.Look {
	look := make(local.Look, len(c.Members))
	var wg sync.WaitGroup
	for i, m := range c.Members {
		wg.Go(func() {
			look[i] = local.Answer{Member: &local.Member{Name: m.Name}}
			look[i].Err = get(ctx, m.Host, apiPort, "/status", &look[i].Status)
		})
	}
	wg.Wait()
	return look
}

// Primary is the member that says that it serves with the lock, in the newest epoch; nil if none does.
func (c *Cluster) Primary(look local.Look) *Member {
	p := look.Primary()
	for _, m := range c.Members {
		if p != nil && m.Name == p.Name {
			return m
		}
	}
	return nil
}

// Await asks all members again and again until ok holds or ctx ends; the error then says how the members are.
func (c *Cluster) Await(ctx context.Context, what string, ok func(local.Look) bool) (local.Look, error) {
	var last local.Look
	err := local.Poll(ctx, 100*time.Millisecond, func() bool {
		look := c.Look(ctx)
		if ctx.Err() == nil {
			last = look
		}
		return ctx.Err() == nil && ok(look)
	})
	if err != nil {
		return last, fmt.Errorf("waiting for %s: %w\n%s", what, err, last)
	}
	return last, nil
}
