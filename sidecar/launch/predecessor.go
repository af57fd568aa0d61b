package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// held is a process by its pidfd, which names this one process however numbers are reused.
type held struct {
	pid, fd int
}

// stopPredecessor stops whatever Postgres runs on the data directory without a launcher: nobody holds its
// deadline. That is the postmaster of postmaster.pid, and backends that outlived one. A process counts only if,
// seen while its pidfd is held, its executable is a postgres and its working directory is
// the data directory (a postmaster and its backends never leave it); so the number in postmaster.pid, and the
// start time beside it, need not be believed.
func (s *Server) stopPredecessor(ctx context.Context) error {
	var p procs
	bound := time.Now().Add(2 * StopKillAfter)
	sig, grace := unix.SIGQUIT, FenceGrace
	for {
		found, err := s.strays(&p)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		s.log.Warn("Postgres runs on the data directory without a launcher, so nobody holds its deadline: stopping it at once",
			zap.Int("processes", len(found)), zap.Int("pid", found[0].pid), zap.String("signal", unix.SignalName(sig)))
		for _, h := range found {
			_ = unix.PidfdSendSignal(h.fd, sig, nil, 0)
		}
		waitDead(found, grace)
		for _, h := range found {
			_ = unix.Close(h.fd)
		}
		sig, grace = unix.SIGKILL, time.Second
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(bound) {
			return fmt.Errorf("%d processes of an earlier Postgres on %s do not die; a disk may hang", len(found), s.o.DataDir)
		}
	}
}

// strays returns the processes of this data directory's Postgres and their descendants, postmaster first.
func (s *Server) strays(p *procs) ([]held, error) {
	var found []held
	hold := func(pid int, check func(pid int) bool) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return // gone
		}
		if !check(pid) {
			_ = unix.Close(fd)
			return
		}
		found = append(found, held{pid: pid, fd: fd})
	}
	var pids []int
	err := p.each(func(st procStat) bool {
		if !st.dead() && st.PID != os.Getpid() {
			pids = append(pids, st.PID)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for i := len(pids) - 1; i >= 0; i-- { // oldest first
		hold(pids[i], s.ofDataDir)
	}
	for _, h := range found {
		below, err := p.tree(h.pid, func(st procStat) bool { return s.ofDataDir(st.PID) })
		if err != nil {
			return found, err
		}
		for _, st := range below { // archive and restore commands
			hold(st.PID, func(pid int) bool {
				again, err := p.read(pid)
				return err == nil && again.Start == st.Start
			})
		}
	}
	return found, nil
}

func (s *Server) ofDataDir(pid int) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	exe, err := os.Readlink(proc + "exe")
	if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
		return false
	}
	cwd, err := os.Readlink(proc + "cwd")
	return err == nil && cwd == s.o.DataDir
}

func waitDead(all []held, bound time.Duration) {
	end := time.Now().Add(bound)
	for _, h := range all {
		for {
			left := time.Until(end)
			if left <= 0 {
				return
			}
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}
