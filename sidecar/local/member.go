package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// Member is one member: its launcher, which runs its Postgres, and its sidecar.
type Member struct {
	Name      string
	Addresses schema.Addresses
	// DataDir is the data directory; LaunchLog and SidecarLog are the logs (Postgres's own is in LaunchLog).
	DataDir, LaunchLog, SidecarLog string

	c               *Cluster
	launch, sidecar *process

	mu     sync.Mutex
	frozen []task
}

func (c *Cluster) newMember(name string, l layout) *Member {
	m := &Member{
		Name: name, Addresses: l.Members[name], DataDir: c.path(name, "data"),
		LaunchLog: c.path("log", name+"-launch.log"), SidecarLog: c.path("log", name+"-sidecar.log"), c: c,
	}
	// When we die the launcher stops Postgres in order, and ends by itself.
	m.launch = &process{name: name + "'s launcher", log: m.LaunchLog, logger: c.o.Log, make: func() *exec.Cmd {
		return c.command(syscall.SIGTERM, "launch", "--socket", m.socket(), "--data-dir", m.DataDir,
			"--bin-dir", c.o.BinDir, "--postgres-socket-dir", m.runDir())
	}}
	m.sidecar = &process{name: name + "'s sidecar", log: m.SidecarLog, logger: c.o.Log, make: func() *exec.Cmd {
		return c.command(syscall.SIGTERM, m.sidecarArgs()...)
	}}
	return m
}

func (m *Member) runDir() string { return m.c.path(m.Name, "run") }
func (m *Member) socket() string { return filepath.Join(m.runDir(), "launch.sock") }

func (m *Member) sidecarArgs() []string {
	c := m.c
	args := append([]string{"sidecar", "--name", m.Name, "--data-dir", m.DataDir, "--launch-socket", m.socket(),
		"--postgres-listen", m.Addresses.Postgres, "--postgres-socket-dir", m.runDir(), "--secrets-dir", c.path("secrets"),
		"--gossip-listen", m.Addresses.Gossip, "--api-listen", m.Addresses.API}, c.consulFlags()...)
	if seeds := c.seeds(m.Name); seeds != "" {
		args = append(args, "--gossip-join", seeds)
	}
	if c.o.Bootstrap != nil {
		args = append(args, "--bootstrap-config", m.bootstrapFile())
	}
	return append(args, c.o.MemberFlags...)
}

func (m *Member) bootstrapFile() string { return m.c.path(m.Name + "-bootstrap.yaml") }

// Start starts the launcher and the sidecar, those of them that do not run.
func (m *Member) Start() error {
	if b := m.c.o.Bootstrap; b != nil {
		text, err := json.MarshalIndent(b, "", "  ") // JSON is YAML
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.bootstrapFile(), text, 0o644); err != nil {
			return err
		}
	}
	if m.launch.pid() == 0 {
		if err := m.launch.start(); err != nil {
			return err
		}
	}
	if m.sidecar.pid() == 0 {
		return m.sidecar.start()
	}
	return nil
}

// StartSidecar starts the sidecar alone, after KillSidecar.
func (m *Member) StartSidecar() error { return m.sidecar.start() }

// Stop ends the sidecar and then the launcher with its Postgres, in order. What has not ended when ctx ends is killed.
func (m *Member) Stop(ctx context.Context) error {
	if err := m.Thaw(); err != nil {
		return err
	}
	serr := m.stopSidecar(ctx)
	// Descent is gone once the launcher is: what it must take along is noted before.
	below, err := m.tasks()
	err = errors.Join(serr, err, m.launch.stop(ctx))
	if killed := killAll(below); killed > 0 {
		err = errors.Join(err, fmt.Errorf("%s left %d processes behind, which were killed", m.launch.name, killed))
	}
	return err
}

func (m *Member) stopSidecar(ctx context.Context) error { return m.sidecar.stop(ctx) }

// Kill ends the whole member at one moment, as a machine that loses its power: nothing of it runs while the others
// are killed.
func (m *Member) Kill() error {
	m.launch.release()
	m.sidecar.release()
	all, err := m.stopped()
	if err != nil {
		return err
	}
	killAll(all)
	m.mu.Lock()
	m.frozen = nil
	m.mu.Unlock()
	return errors.Join(m.launch.kill(), m.sidecar.kill())
}

// killAll kills the processes and waits until they are gone. It returns how many were alive.
func killAll(all []task) (alive int) {
	for _, t := range all {
		if t.alive() {
			alive++
			_ = signalTask(t, unix.SIGKILL)
		}
	}
	// SIGKILL cannot be refused; a process in the middle of disk I/O takes a little.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = Poll(ctx, time.Millisecond, func() bool {
		for _, t := range all {
			if t.alive() {
				return false
			}
		}
		return true
	})
	return alive
}

// roots are the pids of the launcher and the sidecar, those that run.
func (m *Member) roots() []int {
	var pids []int
	for _, p := range []*process{m.launch, m.sidecar} {
		if pid := p.pid(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tasks are all processes of the member, the launcher and Postgres first.
func (m *Member) tasks() ([]task, error) {
	var all []task
	for _, root := range m.roots() {
		found, err := tree(root)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (m *Member) stopped() ([]task, error) {
	all, err := stopAll(m.roots()...)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", m.Name, err)
	}
	return all, nil
}

// Freeze stops every process of the member (SIGSTOP): connections stay open and nothing answers.
func (m *Member) Freeze() error {
	all, err := m.stopped()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = all
	return nil
}

// Thaw lets the processes go on that Freeze stopped, the launcher first, without a pause between them.
// It does nothing if none are.
func (m *Member) Thaw() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, t := range m.frozen {
		errs = append(errs, signalTask(t, unix.SIGCONT))
	}
	m.frozen = nil
	return errors.Join(errs...)
}

// Postmaster returns the pid of the postmaster, or an error that says that none runs.
func (m *Member) Postmaster() (int, error) {
	b, err := os.ReadFile(filepath.Join(m.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("no postmaster of %s runs: %w", m.Name, err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return 0, fmt.Errorf("postmaster.pid of %s: %w", m.Name, err)
	}
	if t, ok := readTask(pid); !ok || t.dead() || t.PPID != m.launch.pid() {
		return 0, fmt.Errorf("no postmaster of %s runs: process %d, which its postmaster.pid names, is not it", m.Name, pid)
	}
	return pid, nil
}

// KillPostmaster kills the postmaster alone (SIGKILL).
func (m *Member) KillPostmaster() error {
	pid, err := m.Postmaster()
	if err != nil {
		return err
	}
	t, ok := readTask(pid)
	if !ok {
		return fmt.Errorf("the postmaster of %s has just ended", m.Name)
	}
	return signalTask(t, unix.SIGKILL)
}

// KillSidecar kills the sidecar alone (SIGKILL); with restart it is started again, as systemd would.
func (m *Member) KillSidecar(restart bool) error {
	if restart {
		return m.sidecar.signal(unix.SIGKILL)
	}
	return m.sidecar.kill()
}

// SidecarPID returns the pid of the sidecar, LaunchPID that of the launcher; 0 while it does not run.
func (m *Member) SidecarPID() int { return m.sidecar.pid() }

// LaunchPID is told of at SidecarPID.
func (m *Member) LaunchPID() int { return m.launch.pid() }

// Status asks the sidecar's API. An error means no more than that there was no answer.
func (m *Member) Status(ctx context.Context) (schema.ClusterStatus, error) {
	var s schema.ClusterStatus
	err := m.c.asker.get(ctx, m.Addresses.API, "/status", &s)
	if err == nil && (s.Member != m.Name || s.Cluster != m.c.o.Cluster) {
		err = fmt.Errorf("member %q of cluster %q answers at %s", s.Member, s.Cluster, m.Addresses.API)
	}
	return s, err
}

// Events returns what the sidecar has recorded since it was started.
func (m *Member) Events(ctx context.Context) ([]schema.Event, error) {
	var e []schema.Event
	err := m.c.asker.get(ctx, m.Addresses.API, "/events", &e)
	return e, err
}
