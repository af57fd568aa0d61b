package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// The launcher under test is this test binary, run again as the unprivileged user.
const helperEnv = "LAUNCH_TEST_OPTIONS"

// fixture is what all tests share: made once by TestMain.
type fixture struct {
	base   string // world-traversable, removed at the end
	binary string // the test binary, where the unprivileged user may run it
	bin    string // PostgreSQL's programs
	data   string // a fresh data directory, to be copied
	cred   *syscall.Credential
}

var shared fixture

func TestMain(m *testing.M) {
	if raw := os.Getenv(helperEnv); raw != "" {
		os.Exit(helper(raw))
	}
	code, err := func() (int, error) {
		defer func() { _ = os.RemoveAll(shared.base) }()
		if err := shared.prepare(); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare the tests:", err)
	}
	os.Exit(code)
}

func helper(raw string) int {
	if IsInit() {
		status, err := Init()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return status
	}
	os.Unsetenv(helperEnv)
	var o struct {
		Options
		FakeIoctl bool
	}
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	var err error
	if o.Log, err = zap.NewDevelopment(); err != nil {
		return 2
	}
	s, err := NewServer(o.Options)
	if err == nil {
		if o.FakeIoctl {
			s.watchdog.setTimeout = func(_ *os.File, seconds int) (int, error) { return seconds, nil }
		}
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher failed:", err)
		return 1
	}
	return 0
}

func (f *fixture) prepare() error {
	f.bin = os.Getenv("HOWDAH_POSTGRES_BIN_DIR")
	if f.bin == "" {
		found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
		if err != nil || len(found) == 0 {
			return errors.New("no PostgreSQL found: install it (apt-get install postgresql) or set HOWDAH_POSTGRES_BIN_DIR")
		}
		slices.SortFunc(found, func(a, b string) int {
			major := func(p string) int {
				n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
				return n
			}
			return major(a) - major(b)
		})
		f.bin = filepath.Dir(found[len(found)-1])
	}
	var err error
	if f.base, err = os.MkdirTemp("", "launch-test-"); err != nil {
		return err
	}
	if err := os.Chmod(f.base, 0o755); err != nil {
		return err
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		f.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := os.Chown(f.base, uid, gid); err != nil {
		return err
	}
	f.binary, f.data = filepath.Join(f.base, "launch.test"), filepath.Join(f.base, "template")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.binary, self, 0o755); err != nil {
		return err
	}
	out, err := f.command(filepath.Join(f.bin, "initdb"), "-D", f.data, "-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	// As every directory has it that a sidecar has had started.
	if err := os.WriteFile(filepath.Join(f.data, "howdah.conf"), nil, 0o644); err != nil {
		return err
	}
	conf, err := os.OpenFile(filepath.Join(f.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer conf.Close()
	// fsync off makes acknowledgements as quick as they can be, which is the hard case for a fence.
	_, err = conf.WriteString("\nlisten_addresses=''\nfsync=off\nshared_buffers=8MB\n")
	return err
}

func (f *fixture) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: f.cred}
	return c
}

// rig is one launcher with its own folder, data directory and socket.
type rig struct {
	*Client
	t       *testing.T
	dir     string
	options Options
	// fakeIoctl: the watchdog device is a file, which knows no timeout.
	fakeIoctl bool
	cmd       *exec.Cmd
	log       *logBuffer
	exited    chan struct{}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig makes the folder, with a copy of the fresh data directory, and starts the launcher.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := idleRig(t)
	r.launch()
	return r
}

func idleRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp(shared.base, "rig-")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", shared.data, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if shared.cred != nil {
		if err := os.Chown(dir, int(shared.cred.Uid), int(shared.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, dir: dir, log: &logBuffer{}, options: Options{
		Socket: filepath.Join(dir, "run", "launch.sock"), DataDir: filepath.Join(dir, "data"), BinDir: shared.bin, PostgresSocketDir: dir,
	}}
	r.Client = NewClient(r.options.Socket)
	t.Cleanup(func() {
		r.Client.Close()
		if t.Failed() {
			t.Logf("the launcher's log:\n%s", r.log)
		}
	})
	return r
}

// launch runs the launcher until its socket answers.
func (r *rig) launch() {
	r.t.Helper()
	r.launchWith(func(*exec.Cmd) {})
}

func (r *rig) launchWith(change func(*exec.Cmd)) {
	r.t.Helper()
	cmd := r.helperCommand()
	change(cmd)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	r.cmd, r.exited = cmd, exited
	r.t.Cleanup(func() { // a launcher that is still there, thawed so that it can end Postgres
		for _, s := range r.tree() {
			_ = unix.Kill(s.PID, unix.SIGCONT)
		}
		_ = cmd.Process.Signal(unix.SIGCONT)
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	r.eventually("the launcher answers", func() bool {
		select {
		case <-exited:
			r.t.Fatalf("the launcher ended: %s", r.log)
		default:
		}
		_, err := r.Status(r.ctx())
		return err == nil
	})
}

func (r *rig) helperCommand() *exec.Cmd {
	raw, err := json.Marshal(map[string]any{"Socket": r.options.Socket, "DataDir": r.options.DataDir, "BinDir": r.options.BinDir,
		"PostgresSocketDir": r.options.PostgresSocketDir, "StopTimeout": r.options.StopTimeout, "Farewell": r.options.Farewell,
		"Watchdog": r.options.Watchdog, "WatchdogDevice": r.options.WatchdogDevice, "FakeIoctl": r.fakeIoctl})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := shared.command(shared.binary)
	// Real-time priority for the fence, as the service file's LimitRTPRIO grants it.
	header, caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	r.must(unix.Capget(&header, &caps[0]))
	if caps[0].Permitted&(1<<unix.CAP_SYS_NICE) != 0 {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_NICE}
	}
	cmd.Env = append(os.Environ(), helperEnv+"="+string(raw), "HOWDAH_SECRET=not for children",
		"PATH=/usr/bin:/bin") // not PostgreSQL's folder: its programs must find one another without
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.WaitDelay = time.Second
	return cmd
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, for 15 s at most.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	eventually(r.t, what, ok)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen in time: %s", what)
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// wait follows Status by long polls until Process is one of states.
func (r *rig) wait(states ...ProcessState) Status {
	r.t.Helper()
	s, err := r.Status(r.ctx())
	for ; err == nil && !slices.Contains(states, s.Process); s, err = r.WaitStatus(r.ctx(), s.Seq) {
	}
	if err != nil {
		r.t.Fatalf("waiting for %v, had %s: %v", states, s.Process, err)
	}
	return s
}

// primary starts a primary and waits until it accepts writes. It returns its deadline.
func (r *rig) primary(epoch schema.Epoch, lease time.Duration) schema.Instant {
	r.t.Helper()
	deadline := boottime.Now().Add(lease)
	r.must(r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: epoch, Deadline: deadline}))
	c := r.connect()
	defer c.Close(context.Background())
	if _, err := c.Exec(r.ctx(), "create table if not exists t (n bigserial primary key, w text)"); err != nil {
		r.t.Fatal(err)
	}
	return deadline
}

func (r *rig) config() *pgx.ConnConfig {
	c, err := pgx.ParseConfig(fmt.Sprintf("host=%s user=postgres dbname=postgres sslmode=disable connect_timeout=5", r.dir))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// connect waits until Postgres accepts a connection.
func (r *rig) connect() *pgx.Conn {
	r.t.Helper()
	var c *pgx.Conn
	r.eventually("Postgres accepts connections", func() bool {
		var err error
		c, err = pgx.ConnectConfig(r.ctx(), r.config())
		return err == nil
	})
	return c
}

// tree is everything that descends from the launcher.
func (r *rig) tree() []procStat {
	var p procs
	found, err := p.tree(r.cmd.Process.Pid, func(procStat) bool { return false })
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// postgres is every living process that works in the data directory, wherever it descends from.
func (r *rig) postgres() []int {
	var pids []int
	var p procs
	s := &Server{o: r.options}
	err := p.each(func(st procStat) bool {
		if !st.dead() && s.ofDataDir(st.PID) {
			pids = append(pids, st.PID)
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return pids
}

// backend returns the PID of the backend that serves c.
func backend(c *pgx.Conn) int { return int(c.PgConn().PID()) }

func discard(c io.Closer) { _ = c.Close() }
