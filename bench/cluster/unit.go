package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"howdah/sidecar/local"
)

// restartPause is how soon a process that ended unasked is started again, systemd's default RestartSec.
const restartPause = 100 * time.Millisecond

// unit is one process of a host that is kept running, as a unit of systemd is.
type unit struct {
	name string
	log  string
	host *Host
	// user runs it; nil for ourselves.
	user   *local.User
	orphan syscall.Signal
	args   []string

	mu     sync.Mutex
	wanted bool
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the keeper has ended; nil before the first start
	quit   chan struct{}
	starts int
	ends   []string
}

// start starts the process and keeps it; one that is wanted already is left alone.
func (u *unit) start() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.wanted {
		return nil
	}
	if u.ended != nil {
		<-u.ended // the keeper of before needs no lock once nothing is wanted
	}
	cmd, err := u.spawn()
	if err != nil && !errors.Is(err, errFrozen) { // once it is thawed the keeper starts it
		return err
	}
	u.wanted, u.cmd, u.ended, u.quit = true, cmd, make(chan struct{}), make(chan struct{})
	go u.keep(cmd, u.ended, u.quit)
	return nil
}

// spawn is called with the mutex held.
func (u *unit) spawn() (*exec.Cmd, error) {
	out, err := os.OpenFile(u.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(u.args[0], u.args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", append(environment(), u.host.clock.environment()...), out, out
	if err := u.host.start(cmd, u.user, u.orphan); err != nil {
		return nil, fmt.Errorf("%s: %w", u.name, err)
	}
	u.starts++
	return cmd, nil
}

func (u *unit) keep(cmd *exec.Cmd, ended, quit chan struct{}) {
	defer close(ended)
	for {
		if cmd != nil {
			_ = cmd.Wait() // how it ended is in its ProcessState
			select {
			case <-quit:
				return
			default:
				u.note(fmt.Sprintf("%s %s ended: %s", time.Now().UTC().Format("15:04:05.000"), u.name, cmd.ProcessState))
			}
		}
		for {
			select {
			case <-quit:
				return
			case <-time.After(restartPause):
			}
			again, err := u.again(quit)
			if err == nil {
				cmd = again
				break
			}
			if !errors.Is(err, errFrozen) {
				u.note(err.Error())
			}
		}
		if cmd == nil {
			return
		}
	}
}

// again starts the process once more; nil if it is not wanted any more.
func (u *unit) again(quit chan struct{}) (*exec.Cmd, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-quit:
		return nil, nil
	default:
	}
	cmd, err := u.spawn()
	if err == nil {
		u.cmd = cmd
	}
	return cmd, err
}

func (u *unit) note(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ends = append(u.ends, text)
}

// release makes the keeper let the process go.
func (u *unit) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.wanted {
		u.wanted = false
		close(u.quit)
	}
}

// signal sends sig; the process is started again if it ends by it.
func (u *unit) signal(sig syscall.Signal) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.wanted || u.cmd == nil {
		return nil
	}
	if err := u.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	return nil
}

// kill ends the process by SIGKILL and does not start it again. It waits for the end.
func (u *unit) kill() error {
	u.release()
	u.mu.Lock()
	cmd, ended := u.cmd, u.ended
	u.mu.Unlock()
	if ended == nil {
		return nil
	}
	if cmd == nil { // the host was frozen when it was wanted
		<-ended
		return nil
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	<-ended
	return nil
}

// generation counts the starts.
func (u *unit) generation() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.starts
}

// environment is ours without what would change options of howdah, Consul or PostgreSQL behind our back.
func environment() []string {
	var kept []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOWDAH_") && !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "CONSUL_") {
			kept = append(kept, e)
		}
	}
	return kept
}
