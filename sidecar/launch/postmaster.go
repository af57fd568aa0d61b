package launch

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// settingName is what PostgreSQL takes as a parameter's name, valid_custom_variable_name in guc.c.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$`)

// arguments are postgres's, in a fixed order.
func (s *Server) arguments(options map[string]string) ([]string, error) {
	args := []string{filepath.Join(s.o.BinDir, "postgres"), "-D", s.o.DataDir} // find_my_exec goes by argv[0]
	if s.o.PostgresSocketDir != "" {
		args = append(args, "-c", "unix_socket_directories="+s.o.PostgresSocketDir)
	}
	for _, k := range slices.Sorted(maps.Keys(options)) {
		ruled := k == "data_directory" || k == "unix_socket_directories" && s.o.PostgresSocketDir != ""
		if ruled || !settingName.MatchString(k) || strings.ContainsRune(options[k], 0) {
			return nil, fmt.Errorf("%w: option %q: want the name of a PostgreSQL setting; data_directory and unix_socket_directories are set by howdah launch", ErrInvalid, k)
		}
		args = append(args, "-c", k+"="+options[k])
	}
	return args, nil
}

func (s *Server) readSignals() (signals, error) {
	exists := func(name string) (bool, error) {
		_, err := os.Lstat(filepath.Join(s.o.DataDir, name))
		if os.IsNotExist(err) {
			return false, nil
		}
		return err == nil, err
	}
	if ok, err := exists("PG_VERSION"); err != nil || !ok {
		return signals{}, fmt.Errorf("%w: %s is not a data directory that can be read (no PG_VERSION: %v)", ErrInvalid, s.o.DataDir, err)
	}
	standby, err := exists("standby.signal")
	if err != nil {
		return signals{}, fmt.Errorf("whether this is a standby is unknown: %w", err)
	}
	recovery, err := exists("recovery.signal")
	if err != nil {
		return signals{}, fmt.Errorf("whether this is a standby is unknown: %w", err)
	}
	return signals{standby: standby, recovery: recovery}, nil
}

// start forks a postmaster. The deadline is in force before the fork, so that there is no moment without.
func (s *Server) start(r StartRequest) error {
	args, err := s.arguments(r.Options)
	if err != nil {
		return err
	}
	dir, err := s.readSignals()
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("no pipe for the log of Postgres: %w", err)
	}
	defer in.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		out.Close()
		return fmt.Errorf("no standard input for Postgres: %w", err)
	}
	defer null.Close()
	if r.Role == schema.RolePrimary {
		if err := s.watchdog.guard(r.Deadline.Sub(s.o.Now())); err != nil {
			out.Close()
			return err
		}
	}
	if err := s.begin(r, dir); err != nil {
		out.Close()
		s.unwatch()
		return err
	}
	pm, err := s.children.start(filepath.Join(s.o.BinDir, "postgres"), args, &syscall.ProcAttr{
		Dir: "/", Env: environment(nil),
		Files: []uintptr{null.Fd(), in.Fd(), in.Fd()},
		// Setsid keeps a terminal's signals away, as pg_ctl does. SIGQUIT rather than SIGKILL when the launcher
		// dies. A postmaster that quits takes all backends along, in 3 to 33 ms as measured. One that is killed leaves
		// them to find out, which only those do that wait for their client (WL_EXIT_ON_PM_DEATH): idle ones were gone
		// within 80 ms, those with a full socket wrote on for up to 0.8 s, a loop in PL/pgSQL for more than 4 s. A
		// frozen postmaster is woken by the tripwire, which also kills the backends without it.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGQUIT},
	}, false)
	if err != nil {
		out.Close()
		s.ended(err.Error())
		return err
	}
	s.forked(pm)
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		s.lines.copy(out)
	}()
	go s.await(pm, out, logged)
	s.log.Info("postgres started", zap.Int("pid", pm.pid), zap.String("role", string(r.Role)), zap.Uint64("epoch", uint64(r.Epoch)))
	return nil
}

func (s *Server) begin(r StartRequest, dir signals) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	long := slices.ContainsFunc(s.jobs, func(j *job) bool { return j.Running && j.long })
	before, now := s.m, s.o.Now()
	if err := s.m.start(r, dir, long, now); err != nil {
		return err
	}
	if err := s.guard.schedule(now); err != nil {
		s.m = before
		return errors.Join(err, s.guard.schedule(now))
	}
	s.setFarewell(now, r.Synchronous)
	s.postmaster, s.startedAt, s.exitDetail = nil, now, ""
	s.bump()
	return nil
}

// forked notes the postmaster, and gives it what it missed while it was being forked.
func (s *Server) forked(pm *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.postmaster = pm
	s.guard.take(pm)
	_ = s.guard.alarm.set(1) // so that the fence's thread ties it; the other timers were set before the fork
	switch {
	case s.m.fencing:
		_ = s.children.signal(pm, unix.SIGKILL)
	case s.m.asked != "":
		_ = s.children.signal(pm, stopSignal(s.m.asked))
	}
	s.bump()
}

// await sees a postmaster to its end, and what it leaves behind to theirs.
func (s *Server) await(pm *child, out *os.File, logged <-chan struct{}) {
	<-pm.done
	s.mu.Lock()
	s.m.reaped()
	patience := s.m.patience(pm.status.ExitStatus() == 0)
	s.bump()
	s.mu.Unlock()
	left := striker{children: s.children}
	left.finish(patience)
	select {
	case <-logged: // every writer is dead, so the last line is there
	case <-time.After(200 * time.Millisecond): // the writer behind us is stuck; the state must not wait for it
	}
	detail := describe(pm.status)
	if last := s.lines.fatal(); last != "" && pm.status.ExitStatus() > 0 {
		detail += ": " + last
	}
	s.ended(detail)
	<-logged
	out.Close()
}

// ended notes that nothing of Postgres is left.
func (s *Server) ended(detail string) {
	s.striking.Lock()
	s.mu.Lock()
	s.m.gone()
	s.postmaster, s.exitDetail = nil, detail
	s.guard.take(nil) // before the timers, one of which the fence sets while it has the postmaster
	err := s.guard.schedule(s.o.Now())
	process := s.m.process
	s.bump()
	s.mu.Unlock()
	s.striking.Unlock()
	s.watchdog.disarm()
	s.log.Info("postgres ended", zap.String("process", string(process)), zap.String("detail", detail), zap.Error(err))
}

func stopSignal(mode StopMode) unix.Signal {
	switch mode {
	case StopSmart:
		return unix.SIGTERM
	case StopFast:
		return unix.SIGINT
	}
	return unix.SIGQUIT
}

func (s *Server) stop(mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	act, err := s.m.stop(mode, s.o.Now())
	if err != nil || !act {
		return err
	}
	s.bump()
	if mode == StopImmediate {
		return s.guard.alarm.set(s.m.wake(s.o.Now())) // the fence's thread sends it to every process
	}
	if s.postmaster != nil {
		_ = s.children.signal(s.postmaster, stopSignal(mode))
	}
	return nil
}

func (s *Server) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.process != ProcessRunning || s.postmaster == nil {
		return fmt.Errorf("%w (%s)", ErrNotRunning, s.m.process)
	}
	if err := s.children.signal(s.postmaster, unix.SIGHUP); err != nil {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return nil
}

func (s *Server) arm(r armRequest) error {
	if err := checkClock(r.ClientNow, s.o.Now()); err != nil {
		return err
	}
	err := s.watchdog.guard(r.Deadline.Sub(s.o.Now())) // not under mu: a device may be slow
	if err == nil {
		err = s.extend(r)
	}
	if err != nil {
		s.unwatch()
		return err
	}
	s.watchdog.ping(r.Deadline.Sub(s.o.Now()))
	return nil
}

// unwatch disarms the watchdog after a refusal, unless a primary runs that was armed before.
func (s *Server) unwatch() {
	s.mu.Lock()
	armed := s.m.armed
	s.mu.Unlock()
	if !armed {
		s.watchdog.disarm()
	}
}

func (s *Server) extend(r armRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	armed, epoch, now := s.m.armed, s.m.epoch, s.o.Now()
	if err := s.m.arm(r.Epoch, r.Deadline, now); err != nil {
		return err
	}
	if armed != s.m.armed || epoch != s.m.epoch {
		s.bump()
	}
	s.setFarewell(now, r.Synchronous)
	return s.guard.schedule(now) // after an error earlier timers are still set, so the fence errs on the early side
}

// checkClock refuses an Instant that cannot have been read from our clock a moment ago.
func checkClock(client, now schema.Instant) error {
	if client > now || client < now.Add(-maxClockAge) {
		return fmt.Errorf("%w: the caller's CLOCK_BOOTTIME was %d, the launcher's is %d; run both on one machine and in one time namespace", ErrClock, client, now)
	}
	return nil
}

// environment is the launcher's own, without howdah's options (some name secrets), and more on top.
func environment(more map[string]string) []string {
	var env []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		if _, replaced := more[k]; !replaced && !strings.HasPrefix(k, "HOWDAH_") {
			env = append(env, kv)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(more)) {
		env = append(env, k+"="+more[k])
	}
	return env
}
