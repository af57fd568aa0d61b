package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children starts and reaps every child of this process.
//
// It starts them all from one thread that lives as long as the process, because the parent-death
// signal is sent when the *thread* that forked ends. It reaps them all in one loop of wait4(-1),
// orphans too that come here because the launcher is PID 1 or a child subreaper; so
// nobody else may wait, and os/exec is not used in this process.
type children struct {
	forks chan fork

	// mu is held over kill and wait4(WNOHANG), never over fork or anything that can block: the fence needs it.
	mu   sync.Mutex
	live map[int]*child
	// forking counts forks that have begun and are not yet in live; early holds what was
	// reaped meanwhile and may be theirs.
	forking int
	early   map[int]unix.WaitStatus
}

// child is one process that was started here.
type child struct {
	pid int
	// group: a process group of its own, killed whole with it.
	group bool
	// done is closed once it was reaped; then status holds.
	done   chan struct{}
	status unix.WaitStatus
}

type fork struct {
	path  string
	argv  []string
	attr  *syscall.ProcAttr
	group bool
	reply chan forked
}

type forked struct {
	child *child
	err   error
}

func newChildren() *children {
	return &children{forks: make(chan fork), live: map[int]*child{}, early: map[int]unix.WaitStatus{}}
}

// run starts both loops and returns the function that ends them, to be called when no child is left.
func (c *children) run() (stop func()) {
	quit := make(chan struct{})
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c.reap()
			select {
			case <-sigchld:
			case <-quit:
				return
			}
		}
	})
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, after the last child
		_ = realtime()         // so that it dies in time too; the fence says so where this is refused
		for {
			select {
			case f := <-c.forks:
				f.reply <- c.fork(f)
			case <-quit:
				return
			}
		}
	})
	return func() {
		signal.Stop(sigchld)
		close(quit)
		wg.Wait()
	}
}

// start forks and executes. group makes the child the leader of a process group that dies with it.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr, group bool) (*child, error) {
	reply := make(chan forked, 1)
	c.forks <- fork{path: path, argv: argv, attr: attr, group: group, reply: reply}
	r := <-reply
	return r.child, r.err
}

func (c *children) fork(f fork) forked {
	c.mu.Lock()
	c.forking++
	c.mu.Unlock()
	pid, err := syscall.ForkExec(f.path, f.argv, f.attr)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forking--
	defer func() {
		if c.forking == 0 {
			clear(c.early)
		}
	}()
	if err != nil {
		return forked{err: fmt.Errorf("%s cannot be executed: %w", f.path, err)}
	}
	ch := &child{pid: pid, group: f.group, done: make(chan struct{})}
	if status, ok := c.early[pid]; ok {
		ch.end(status)
	} else {
		c.live[pid] = ch
	}
	return forked{child: ch}
}

// end notes the status and kills what is left of the child's group. The group's number cannot have
// been given to others: the leader was reaped this very moment, and members keep it taken.
func (ch *child) end(status unix.WaitStatus) {
	if ch.group {
		_ = unix.Kill(-ch.pid, unix.SIGKILL)
	}
	ch.status = status
	close(ch.done)
}

func (c *children) reap() {
	for {
		c.mu.Lock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == nil && pid > 0 {
			if ch, ok := c.live[pid]; ok {
				delete(c.live, pid)
				ch.end(status)
			} else if c.forking > 0 {
				c.early[pid] = status
			}
		}
		c.mu.Unlock()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// signal sends sig to ch, to its whole group if it leads one. No effect once it was reaped, so
// the number never hits a stranger.
func (c *children) signal(ch *child, sig unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.live[ch.pid]; !ok {
		return unix.ESRCH
	}
	if ch.group {
		return unix.Kill(-ch.pid, sig)
	}
	return unix.Kill(ch.pid, sig)
}

// pidfd returns a pidfd of ch, which names it for good; ESRCH once it was reaped.
func (c *children) pidfd(ch *child) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.live[ch.pid]; !ok {
		return -1, unix.ESRCH
	}
	return unix.PidfdOpen(ch.pid, 0)
}

// ofJob reports whether s belongs to a job rather than to Postgres: by its process group, or because it is
// a fork on its way to exec.
func (c *children) ofJob(s procStat) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.live[s.PID]; ok {
		return ch.group
	}
	if ch, ok := c.live[s.PGRP]; ok && ch.group {
		return true
	}
	return c.forking > 0 && s.PPID == os.Getpid() && sameExecutable(s.PID)
}

func sameExecutable(pid int) bool {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && own == other
}

// describe puts a wait status in words.
func describe(w unix.WaitStatus) string {
	if w.Signaled() {
		return "killed by " + unix.SignalName(w.Signal())
	}
	return fmt.Sprintf("exit status %d", w.ExitStatus())
}

// exitCode is the shell's: 128 + n for signal n.
func exitCode(w unix.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}
