package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// firstPause is systemd's default RestartSec; the pause doubles up to longestPause, and begins anew once a process
	// has run for steadyAfter.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	steadyAfter  = 10 * time.Second
	// hugeLog is the size beyond which a log is begun anew.
	hugeLog = 64 << 20
)

// process is one child that is kept running until it is told not to.
type process struct {
	name   string // for people: "pg1's sidecar"
	log    string // path of its log
	make   func() *exec.Cmd
	logger *zap.Logger

	mu      sync.Mutex
	wanted  bool
	cmd     *exec.Cmd     // nil while none runs
	ended   chan struct{} // closed when the keeper has ended; nil before the first start
	quit    chan struct{} // closed to end the keeper's pause
	failure string
}

// start starts the process and keeps it. Only a failure of the first attempt to execute is an error.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		return fmt.Errorf("%s runs already", p.name)
	}
	if p.ended != nil {
		select {
		case <-p.ended:
		default:
			return fmt.Errorf("%s has not ended yet", p.name)
		}
	}
	cmd, err := p.spawn()
	if err != nil {
		return err
	}
	p.wanted, p.cmd, p.failure = true, cmd, ""
	p.ended, p.quit = make(chan struct{}), make(chan struct{})
	go p.keep(cmd, p.ended, p.quit)
	return nil
}

func (p *process) spawn() (*exec.Cmd, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(p.log); err == nil && info.Size() > hugeLog {
		flags |= os.O_TRUNC
	}
	out, err := os.OpenFile(p.log, flags, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", p.name, err)
	}
	return cmd, nil
}

// keep waits for the process and starts it again until it is no longer wanted.
func (p *process) keep(cmd *exec.Cmd, ended, quit chan struct{}) {
	defer close(ended)
	pause := firstPause
	for {
		began := time.Now()
		if cmd != nil {
			_ = cmd.Wait() // how it ended is in its ProcessState
		}
		if time.Since(began) > steadyAfter {
			pause = firstPause
		}
		if !p.lost(cmd) {
			return
		}
		select {
		case <-time.After(pause):
		case <-quit:
			return
		}
		pause = min(2*pause, longestPause)
		var err error
		if cmd, err = p.again(); err != nil {
			p.logger.Warn("a process cannot be started again", zap.String("process", p.name), zap.Error(err))
		}
	}
}

// lost records the end of cmd and reports whether the process is still wanted.
func (p *process) lost(cmd *exec.Cmd) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = nil
	if p.wanted && cmd != nil {
		p.failure = fmt.Sprintf("%s ended (%s): %s", p.name, cmd.ProcessState, p.lastWords())
		p.logger.Warn("a process has ended and is started again", zap.String("process", p.name), zap.Stringer("how", cmd.ProcessState))
	}
	return p.wanted
}

func (p *process) again() (*exec.Cmd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted {
		return nil, nil
	}
	cmd, err := p.spawn()
	p.cmd = cmd
	return cmd, err
}

// release makes the keeper let the process go: what ends from now on is not started again.
func (p *process) release() (cmd *exec.Cmd, ended chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		p.wanted = false
		close(p.quit)
	}
	return p.cmd, p.ended
}

// stop ends the process by SIGTERM and waits for it; once ctx ends it is killed, which is an error.
func (p *process) stop(ctx context.Context) error {
	cmd, ended := p.release()
	if ended == nil {
		return nil
	}
	if cmd != nil {
		if err := send(cmd, unix.SIGTERM); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	if err := p.kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s did not end in time and was killed; its log is %s", p.name, p.log)
}

// kill ends the process by SIGKILL, waits for it and does not start it again.
func (p *process) kill() error {
	cmd, ended := p.release()
	if ended == nil {
		return nil
	}
	if cmd != nil {
		if err := send(cmd, unix.SIGKILL); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	<-ended
	return nil
}

// signal sends sig to the process as it runs now.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s does not run", p.name)
	}
	return send(p.cmd, sig)
}

func send(cmd *exec.Cmd, sig unix.Signal) error {
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// pid is 0 while the process does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// trouble says how the process ended last without having been asked to; empty if it never did.
func (p *process) trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// lastWords returns the last line of the log.
func (p *process) lastWords() string {
	const enough = 4 << 10
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > enough {
		_, _ = f.Seek(-enough, 2) // reading from the start would do too
	}
	b := make([]byte, enough)
	n, _ := f.Read(b)
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	return lines[len(lines)-1]
}
