package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// Options say what a Server supervises.
type Options struct {
	// Socket is the path of the unix socket. Its folder is made (0700) if it is missing.
	Socket string
	// DataDir is PostgreSQL's data directory; it may not exist yet, its parent must: the lock file
	// <DataDir>.launch.lock lies there.
	DataDir string
	// BinDir holds postgres, initdb and the others.
	BinDir string
	// PostgresSocketDir becomes unix_socket_directories; empty leaves PostgreSQL's own.
	PostgresSocketDir string
	// Watchdog says whether WatchdogDevice, empty for DefaultWatchdogDevice, guards a primary; empty means WatchdogOff.
	Watchdog       WatchdogMode
	WatchdogDevice string
	// StopTimeout bounds the fast stop when the launcher is told to end; 0 means StopTimeout's default.
	StopTimeout time.Duration
	// Farewell is how long before the deadline of an armed Postgres a fast stop is begun; 0 means never.
	Farewell time.Duration
	// PostgresLog gets the postmaster's output; nil means standard error.
	PostgresLog io.Writer
	// Now is CLOCK_BOOTTIME; nil means boottime.Now.
	Now func() schema.Instant
	// Log gets what the launcher has to say; nil means nothing.
	Log *zap.Logger
}

// Server is the launcher. One for each process: it is the process's child subreaper and only waiter.
type Server struct {
	o        Options
	log      *zap.Logger
	major    int
	children *children
	guard    *guard
	watchdog *watchdog
	lines    *lines

	// striking is held by the fence from its decision to its last signal, and to declare that nothing of Postgres
	// is left: so no signal meant for one postmaster ever reaches the next one. Taken before mu.
	striking sync.Mutex
	// mu is never held over anything that can block: the fence takes it.
	mu sync.Mutex
	m  machine
	// seq starts at the clock, so that it is higher than any of an earlier launcher since boot.
	seq        uint64
	changed    chan struct{} // closed and made anew with every seq
	farewell   *time.Timer   // nil while none is set
	postmaster *child        // nil before the fork and after the end
	startedAt  schema.Instant
	exitDetail string
	jobs       []*job // newest last
	nextJob    int
}

// NewServer checks o. Errors say which option is wrong and what to do. Nothing is started or locked yet.
func NewServer(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = boottime.Now
	}
	if o.PostgresLog == nil {
		o.PostgresLog = os.Stderr
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = StopTimeout
	}
	if o.WatchdogDevice == "" {
		o.WatchdogDevice = DefaultWatchdogDevice
	}
	switch o.Watchdog {
	case "":
		o.Watchdog = WatchdogOff
	case WatchdogOff, WatchdogAutomatic, WatchdogRequired:
	default:
		return nil, fmt.Errorf("watchdog: %q; want off, automatic or required", o.Watchdog)
	}
	if os.Geteuid() == 0 {
		return nil, errors.New("howdah launch runs Postgres, which refuses root: run it as the owner of the data directory, for example postgres")
	}
	for _, p := range []struct{ name, path string }{{"socket", o.Socket}, {"data-dir", o.DataDir}, {"bin-dir", o.BinDir}} {
		if !filepath.IsAbs(p.path) {
			return nil, fmt.Errorf("%s: %q is not an absolute path", p.name, p.path)
		}
	}
	if o.PostgresSocketDir != "" && !filepath.IsAbs(o.PostgresSocketDir) {
		return nil, fmt.Errorf("postgres-socket-dir: %q is not an absolute path", o.PostgresSocketDir)
	}
	// sockaddr_un.sun_path holds 108 bytes with the final zero, unix(7).
	if len(o.Socket) > 107 {
		return nil, fmt.Errorf("socket: %q has %d bytes; a unix socket's path has 107 at most", o.Socket, len(o.Socket))
	}
	if err := unix.Access(filepath.Join(o.BinDir, "postgres"), unix.X_OK); err != nil {
		return nil, fmt.Errorf("bin-dir: %s holds no postgres that can be executed: %w", o.BinDir, err)
	}
	dir, err := resolve(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("data-dir: %w", err)
	}
	o.DataDir = dir
	return &Server{
		o: o, log: o.Log, children: newChildren(), lines: &lines{through: o.PostgresLog},
		watchdog: newWatchdog(o),
		m:        machine{process: ProcessStopped}, seq: uint64(o.Now()), changed: make(chan struct{}),
	}, nil
}

// resolve follows symbolic links, so that two paths to one directory get one lock; the last element may be missing.
func resolve(dir string) (string, error) {
	full, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		parent, perr := filepath.EvalSymlinks(filepath.Dir(dir))
		if perr != nil {
			return "", fmt.Errorf("the parent of %s must exist and belong to the user who runs Postgres: %w", dir, perr)
		}
		return filepath.Join(parent, filepath.Base(dir)), nil
	}
	return full, err
}

// Run serves until ctx ends; then it ends the jobs, stops Postgres (fast, after StopTimeout immediate)
// and returns nil. Any error before that: another launcher has the data directory or the socket, the folder is
// not safe, the binaries do not run. If something of Postgres lives on after SIGKILL it returns an error.
func (s *Server) Run(ctx context.Context) error {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc belongs to another pid namespace or is not mounted (it says %q, want %d, error %v); mount it, without it Postgres cannot be stopped safely", self, os.Getpid(), err)
	}
	if IsInit() {
		return errors.New("the launcher is PID 1 here, which the kernel's timers cannot kill: a frozen launcher would not be fenced; run it by an init (howdah launch is its own)")
	}
	lock, err := lockDataDir(s.o.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	listener, err := listen(s.o.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("orphaned backends cannot be adopted (PR_SET_CHILD_SUBREAPER): %w", err)
	}
	stopChildren := s.children.run()
	defer stopChildren()
	if s.guard, err = s.newGuard(); err != nil {
		return err
	}
	s.guard.start()
	defer s.guard.stop()
	// Before anything is served: nobody holds the deadline of a Postgres that an earlier launcher left.
	if err := s.stopPredecessor(ctx); err != nil {
		return err
	}
	s.watchdog.calm()
	if s.major, err = s.readMajor(ctx); err != nil {
		return err
	}
	return s.serve(ctx, listener)
}

func (s *Server) serve(ctx context.Context, listener *net.UnixListener) error {
	calls, endCalls := context.WithCancel(context.Background())
	defer endCalls()
	server := s.httpServer(calls)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	s.log.Info("launcher listens", zap.String("socket", s.o.Socket), zap.String("data_dir", s.o.DataDir), zap.Int("postgres_major", s.major))
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
	}
	// Status and Arm go on being served: a shutdown checkpoint may take several leases.
	err := s.end()
	endCalls()
	bound, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if serr := server.Shutdown(bound); serr != nil {
		_ = server.Close()
	}
	if failed != nil && !errors.Is(failed, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("the socket %s failed: %w", s.o.Socket, failed), err)
	}
	return err
}

// end stops everything that runs here.
func (s *Server) end() error {
	s.mu.Lock()
	s.m.ending = true
	jobs := slices.Clone(s.jobs)
	s.bump()
	s.mu.Unlock()
	for _, j := range jobs {
		s.cancel(j)
	}
	for _, step := range []struct {
		mode  StopMode
		bound time.Duration
	}{{StopFast, s.o.StopTimeout}, {StopImmediate, 2 * StopKillAfter}} {
		if err := s.stop(step.mode); err != nil {
			return err
		}
		if s.waitGone(step.bound) {
			return nil
		}
		s.log.Warn("Postgres has not stopped in time", zap.String("mode", string(step.mode)), zap.Duration("bound", step.bound))
	}
	return errors.New("processes of Postgres live on after SIGKILL; a disk may hang")
}

// waitGone waits up to bound until neither Postgres nor a job is left.
func (s *Server) waitGone(bound time.Duration) bool {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	for {
		s.mu.Lock()
		left := s.m.alive() || slices.ContainsFunc(s.jobs, func(j *job) bool { return j.Running })
		changed := s.changed
		s.mu.Unlock()
		if !left {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// bump tells the waiters of Status that something changed. s.mu is held.
func (s *Server) bump() {
	s.seq++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bump()
}

func (s *Server) epoch() schema.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.epoch
}

func (s *Server) status() (Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Seq: s.seq, Process: s.m.process, Armed: s.m.armed, Epoch: s.m.epoch, Deadline: s.m.deadline,
		StartedAt: s.startedAt, ExitDetail: s.exitDetail, LastLog: s.lines.snapshot(),
		DataDir: s.o.DataDir, PostgresMajor: s.major, Ending: s.m.ending,
	}
	if s.postmaster != nil && !s.m.exited {
		st.PID = s.postmaster.pid
	}
	for _, j := range slices.Backward(s.jobs) {
		if j.long {
			v := j.view(statusTail)
			st.Job = &v
			break
		}
	}
	st.Now = s.o.Now()
	return st, s.changed
}
