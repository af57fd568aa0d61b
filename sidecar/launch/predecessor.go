package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
			return s.bury(&p)
		}
		if err := s.refuseForeign(found[0].pid); err != nil {
			release(found)
			return err
		}
		s.log.Warn("Postgres runs on the data directory without a launcher, so nobody holds its deadline: stopping it at once",
			zap.Int("processes", len(found)), zap.Int("pid", found[0].pid), zap.String("signal", unix.SignalName(sig)))
		for _, h := range found {
			_ = unix.PidfdSendSignal(h.fd, sig, nil, 0)
		}
		waitDead(found, grace)
		release(found)
		sig, grace = unix.SIGKILL, time.Second
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(bound) {
			return fmt.Errorf("%d processes of an earlier Postgres on %s do not die; a disk may hang", len(found), s.o.DataDir)
		}
	}
}

// refuseForeign spares a Postgres that no launcher has started: the data directory has no howdah.conf, which a sidecar
// writes before every start. It may be Patroni's, stolon's or a single server, and --data-dir a mistake.
func (s *Server) refuseForeign(pid int) error {
	_, err := os.Lstat(filepath.Join(s.o.DataDir, "howdah.conf"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("a PostgreSQL that howdah did not start runs on the data directory (pid %d) and is left alone; to hand it over to howdah, "+
			"stop whatever keeps it (Patroni, stolon-keeper, the system's service), see that it has stopped (pg_ctl stop -m fast -D %s), and start this again", pid, s.o.DataDir)
	}
	return err
}

func release(all []held) {
	for _, h := range all {
		_ = unix.Close(h.fd)
	}
}

// bury removes the lock files, PostgreSQL's own (postmaster.pid and those beside its sockets), of a postmaster
// that is a zombie. PostgreSQL takes every number that still exists for a living postmaster and would
// refuse to start until somebody reaps it, which is not up to us and on some machines takes
// minutes. What is dead in every other way PostgreSQL judges itself.
func (s *Server) bury(p *procs) error {
	files := []string{filepath.Join(s.o.DataDir, "postmaster.pid")}
	if s.o.PostgresSocketDir != "" {
		locks, err := filepath.Glob(filepath.Join(s.o.PostgresSocketDir, ".s.PGSQL.*.lock"))
		if err != nil {
			return fmt.Errorf("postgres-socket-dir: %w", err)
		}
		files = append(files, locks...)
	}
	for _, path := range files {
		pid := lockHolder(path)
		if st, err := p.read(pid); pid == 0 || err != nil || !st.dead() || st.Comm != "postgres" {
			continue
		}
		s.log.Warn("this lock file's postmaster is dead but was not reaped by its parent: removing the file", zap.Int("pid", pid), zap.String("file", path))
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the lock file of a dead postmaster cannot be removed: %w", err)
		}
	}
	return nil
}

// lockHolder returns the PID in a lock file of PostgreSQL; zero if there is none to be had, and then
// PostgreSQL itself will say what is wrong with the file.
func lockHolder(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return max(pid, -pid) // a standalone backend writes its PID negated, CreateLockFile in miscinit.c
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
