package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds every start and stop of a server.
const startTimeout = 60 * time.Second

type options struct {
	name        string
	parameters  map[string]string
	hba         []string
	ownSystemID bool
	dataDir     string
	socketDir   string
	port        int
}

// Option changes how a server is set up.
type Option func(*options)

// WithParameter sets a PostgreSQL parameter, as -c name=value.
func WithParameter(name, value string) Option {
	return func(o *options) { o.parameters[name] = value }
}

// WithHBA puts lines at the top of pg_hba.conf, so that they win over "host all all all scram-sha-256".
func WithHBA(lines ...string) Option { return func(o *options) { o.hba = append(o.hba, lines...) } }

// WithName sets the server's name: its cluster_name, and a standby's application_name.
func WithName(name string) Option { return func(o *options) { o.name = name } }

// WithOwnSystemID runs initdb for this server alone: it belongs to another cluster than all others.
func WithOwnSystemID() Option { return func(o *options) { o.ownSystemID = true } }

// WithDataDir runs a server on a data directory that exists, just as it is configured: postgrestest
// neither copies into it nor removes it. The port and socket directory must be what its
// configuration says.
func WithDataDir(dataDir, socketDir string, port int) Option {
	return func(o *options) { o.dataDir, o.socketDir, o.port = dataDir, socketDir, port }
}

// Server is one PostgreSQL server. Methods that take no testing.TB report to the test that started it.
type Server struct {
	// Name is "pg<port>" unless WithName gave another.
	Name      string
	Host      string // 127.0.0.1
	Port      int
	DataDir   string
	SocketDir string

	t      testing.TB
	o      options
	binDir string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when the postmaster of cmd has been waited for
	log    logBuffer
}

// Start makes a primary and returns once it accepts connections.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := newServer(t, opts)
	switch {
	case s.o.dataDir != "":
	case s.o.ownSystemID:
		if err := initdb(s.DataDir); err != nil {
			t.Fatal(err)
		}
	default:
		copyTemplate(t, s.DataDir)
	}
	if s.o.dataDir == "" {
		s.writeHBA()
	}
	s.Start()
	return s
}

func newServer(t testing.TB, opts []Option) *Server {
	t.Helper()
	o := options{parameters: map[string]string{}}
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{Name: o.name, Host: "127.0.0.1", Port: o.port, DataDir: o.dataDir, SocketDir: o.socketDir, t: t, o: o, binDir: BinDir(t)}
	if s.DataDir == "" {
		dir := TempDir(t)
		s.DataDir, s.SocketDir, s.Port = filepath.Join(dir, "data"), dir, FreePort(t)
	}
	if s.Name == "" {
		s.Name = "pg" + strconv.Itoa(s.Port)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of PostgreSQL %s:\n%s", s.Name, s.log.tail(60))
		}
		s.stop(syscall.SIGQUIT)
	})
	return s
}

// FreePort returns a loopback port that was free a moment ago. It lies below those that the kernel gives to outgoing connections
// (net.ipv4.ip_local_port_range begins at 32768), so that it is still free at a restart.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest, highest = 15000, 31000
	var err error
	for range 100 {
		port := lowest + rand.IntN(highest-lowest)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal(err)
	return 0
}

func (s *Server) writeHBA() {
	s.t.Helper()
	lines := append(append([]string{}, s.o.hba...),
		"local all all scram-sha-256", "local replication all scram-sha-256",
		"host all all all scram-sha-256", "host replication all all scram-sha-256")
	// Written in place so that the file keeps its owner.
	if err := os.WriteFile(filepath.Join(s.DataDir, "pg_hba.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) args() []string {
	args := []string{"-D", s.DataDir}
	set := func(k, v string) { args = append(args, "-c", k+"="+v) }
	if s.o.dataDir == "" {
		set("port", strconv.Itoa(s.Port))
		set("listen_addresses", s.Host)
		set("unix_socket_directories", s.SocketDir)
		set("cluster_name", s.Name)
		set("shared_buffers", "16MB")
		set("max_wal_senders", "20")
		set("max_replication_slots", "20")
		set("password_encryption", "scram-sha-256")
	}
	set("fsync", "off")
	for k, v := range s.o.parameters {
		set(k, v)
	}
	return args
}

// Start starts a stopped server and returns once it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	s.StartNoWait()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	Until(ctx, s.t, "PostgreSQL "+s.Name+" to accept connections", func() bool {
		if !s.Running() {
			s.t.Fatalf("PostgreSQL %s ended while starting:\n%s", s.Name, s.log.tail(30))
		}
		return s.log.contains("system is ready to accept ") && s.accepts(ctx)
	})
}

// accepts reports whether the server sends anything but 57P03 to a startup packet. It needs no
// password and no driver: any answer to a connection that is not an error will do.
func (s *Server) accepts(ctx context.Context) bool {
	code, _, err := Tool{Name: "pg_isready", Args: []string{"-q", "-h", s.SocketDir, "-p", strconv.Itoa(s.Port)}}.Run(ctx)
	return err == nil && code == 0
}

// StartNoWait starts the postmaster and returns at once.
func (s *Server) StartNoWait() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.t.Fatalf("PostgreSQL %s runs already", s.Name)
	}
	s.log.reset()
	cmd := exec.Command(filepath.Join(s.binDir, "postgres"), s.args()...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	// A test binary that is killed must not leave a server: SIGQUIT, because backends would outlive SIGKILL for a while.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: Credential(s.t), Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start PostgreSQL %s: %v", s.Name, err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		s.mu.Lock()
		if s.cmd == cmd {
			s.cmd = nil
		}
		s.mu.Unlock()
		close(exited)
	}()
}

// Running reports whether the postmaster is there.
func (s *Server) Running() bool { return s.PID() != 0 }

// PID returns the postmaster's process ID; 0 if it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// StopMode is one of PostgreSQL's ways to shut down.
type StopMode syscall.Signal

// The modes: Smart waits for clients, Fast ends their sessions, Immediate skips the shutdown checkpoint.
const (
	Smart     = StopMode(syscall.SIGTERM)
	Fast      = StopMode(syscall.SIGINT)
	Immediate = StopMode(syscall.SIGQUIT)
)

// Stop shuts the server down and returns once it has ended.
func (s *Server) Stop(mode StopMode) {
	s.t.Helper()
	if !s.stop(syscall.Signal(mode)) {
		s.t.Fatalf("PostgreSQL %s did not stop within %s", s.Name, startTimeout)
	}
}

// Kill kills the postmaster by SIGKILL, as the kernel's OOM killer would, and returns once it and its
// backends are gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.Stop(StopMode(syscall.SIGKILL))
	// Backends notice by themselves; whoever is left would hold the shared memory.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	Until(ctx, s.t, "the backends of "+s.Name+" to end", func() bool { return len(s.backends()) == 0 })
	_ = os.Remove(filepath.Join(s.DataDir, "postmaster.pid"))
}

// backends returns the processes whose working directory is the data directory.
func (s *Server) backends() []int {
	entries, _ := filepath.Glob("/proc/[0-9]*/cwd")
	var pids []int
	for _, e := range entries {
		if dir, err := os.Readlink(e); err == nil && dir == s.DataDir {
			pid, _ := strconv.Atoi(strings.Split(e, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// Signal sends a signal to the postmaster: SIGSTOP freezes it, SIGCONT lets it go on.
func (s *Server) Signal(sig syscall.Signal) {
	s.t.Helper()
	if pid := s.PID(); pid == 0 || syscall.Kill(pid, sig) != nil {
		s.t.Fatalf("PostgreSQL %s does not run: no %s", s.Name, sig)
	}
}

// Freeze stops the postmaster and all its children by SIGSTOP until Thaw.
func (s *Server) Freeze() {
	for _, pid := range s.backends() {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Thaw ends a Freeze.
func (s *Server) Thaw() {
	for _, pid := range s.backends() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

func (s *Server) stop(sig syscall.Signal) bool {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd == nil {
		return true
	}
	s.Thaw()
	_ = cmd.Process.Signal(sig)
	select {
	case <-exited:
		return true
	case <-time.After(startTimeout):
		_ = cmd.Process.Kill()
		<-exited
		return false
	}
}

// Restart stops the server in the fast way and starts it again on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop(Fast)
	s.Start()
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// DSN returns a connection URL for a role and database, with Password as the password and no TLS.
func (s *Server) DSN(role, db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, Password), Host: s.Addr(), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// SocketDSN is DSN over the unix socket.
func (s *Server) SocketDSN(role, db string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s", s.SocketDir, s.Port, role, Password, db)
}

// errNotRunning is what helpers say about a server that is stopped.
var errNotRunning = errors.New("the server does not run")
