package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"howdah/sidecar/local"
)

// Host is one machine: a network namespace with one address, and a control group for its processes.
type Host struct {
	Name, Address string

	namespace string
	netns     *os.File
	group     string
	groupFile *os.File
	// starts is served by one thread that stays in the namespace and lives as long as the host does: a child's parent
	// death signal comes when the thread ends that forked it.
	starts chan func()
	// clock is nil where the host has the machine's.
	clock *wallClock

	mu     sync.Mutex
	frozen bool

	// entering is held while a thread enters the namespace, and by close: an HTTP client dials in goroutines that nobody waits for.
	entering sync.RWMutex
	closed   bool
}

// errClosed is a connection from a host that is no more.
var errClosed = errors.New("the host is closed")

// errFrozen is a start on a frozen host: nothing starts there, and whoever forks into its control group hangs.
var errFrozen = errors.New("the host is frozen")

// open enters the namespace, which is there already, and makes the control group.
func (h *Host) open() error {
	var err error
	if h.netns, err = os.Open(filepath.Join("/run/netns", h.namespace)); err != nil {
		return err
	}
	if err := os.MkdirAll(h.group, 0o755); err != nil {
		return fmt.Errorf("the control group of %s: %w", h.Name, err)
	}
	if h.groupFile, err = os.Open(h.group); err != nil {
		return err
	}
	starts := make(chan func())
	h.starts = starts
	entered := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(h.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			entered <- fmt.Errorf("network namespace %s: %w", h.namespace, err)
			return
		}
		entered <- nil
		for f := range starts {
			f()
		}
	}()
	return <-entered
}

// close lets go of the namespace. No process of the host may be wanted any more.
func (h *Host) close() {
	if h.starts != nil {
		close(h.starts)
		h.starts = nil
	}
	h.entering.Lock()
	defer h.entering.Unlock()
	h.closed = true
	for _, f := range []*os.File{h.netns, h.groupFile} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// start starts cmd on the host, as user u, or as ourselves if u is nil.
func (h *Host) start(cmd *exec.Cmd, u *local.User, orphan syscall.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.frozen {
		return errFrozen
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphan, UseCgroupFD: true, CgroupFD: int(h.groupFile.Fd())}
	if u != nil && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	result := make(chan error, 1)
	h.starts <- func() { result <- cmd.Start() }
	return <-result
}

// Dial connects from the host, as net.Dialer.DialContext does; address must be an IP address and port. The socket
// belongs to the host for good.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer own.Close()
		if err := h.enter(); err != nil {
			answers <- answer{err: err}
			return
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		// A thread that cannot go back stays locked and ends with this goroutine.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		answers <- answer{conn, err}
	}()
	a := <-answers
	return a.conn, a.err
}

// enter has the calling thread enter the host's network namespace.
func (h *Host) enter() error {
	h.entering.RLock()
	defer h.entering.RUnlock()
	if h.closed {
		return errClosed
	}
	return unix.Setns(int(h.netns.Fd()), unix.CLONE_NEWNET)
}

// setFrozen stops every process of the host at once, or lets them go on.
func (h *Host) setFrozen(ctx context.Context, frozen bool) error {
	value, want := "0", "frozen 0"
	if frozen {
		value, want = "1", "frozen 1"
	}
	h.mu.Lock()
	err := os.WriteFile(filepath.Join(h.group, "cgroup.freeze"), []byte(value), 0)
	h.frozen = frozen && err == nil
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("freezing %s: %w", h.Name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, fmt.Errorf("the control group of %s does not say %q", h.Name, want))
	defer cancel()
	return local.Poll(ctx, time.Millisecond, func() bool {
		b, err := os.ReadFile(filepath.Join(h.group, "cgroup.events"))
		return err == nil && strings.Contains(string(b), want)
	})
}

// killAll kills every process of the host at one moment, frozen or not, and waits until none is left. A process that waits for a
// stopped disk cannot die before the disk goes on.
func killAll(ctx context.Context, group string) error {
	err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing all of %s: %w", group, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, fmt.Errorf("processes of %s do not end", group))
	defer cancel()
	return local.Poll(ctx, 2*time.Millisecond, func() bool {
		b, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
		return err != nil || strings.Contains(string(b), "populated 0")
	})
}

// kill kills every process of the host, as killAll does, and gives it a new control group: in one that was killed once, kernels
// kill a process that is cloned into it from outside, too (seen on 6.18).
func (h *Host) kill(ctx context.Context) error {
	if err := killAll(ctx, h.group); err != nil {
		return err
	}
	if err := errors.Join(os.Remove(h.group), os.Mkdir(h.group, 0o755)); err != nil {
		return fmt.Errorf("a new control group for %s: %w", h.Name, err)
	}
	fresh, err := os.Open(h.group)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.groupFile
	h.groupFile, h.frozen = fresh, false
	return old.Close()
}

// run runs a tool of the machine and returns an error with what it said.
func run(ctx context.Context, stdin string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// toolTimeout bounds one call of ip, nft, mount and the like.
const toolTimeout = 30 * time.Second
