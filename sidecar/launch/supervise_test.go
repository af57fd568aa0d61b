package launch

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestCrashLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.primary(1, time.Minute)
	c := r.connect()
	go func() { // a backend that is busy does not notice that its postmaster is gone
		_, _ = c.Exec(context.Background(), "do $$ begin loop perform 1; end loop; end $$")
	}()
	s, err := r.Status(r.ctx())
	r.must(err)
	crashed := boottime.Now()
	r.must(unix.Kill(s.PID, unix.SIGKILL))
	s = r.wait(ProcessCrashed)
	t.Logf("crash known and leftovers gone after %s: %s", boottime.Now().Sub(crashed), s.ExitDetail)
	if left := r.postgres(); len(left) > 0 || s.Armed || !strings.Contains(s.ExitDetail, "SIGKILL") || s.Epoch != 1 {
		t.Fatalf("after a crash processes %v live; status %+v", left, s)
	}
	r.primary(1, time.Minute)
	if s, err := r.Status(r.ctx()); err != nil || len(s.LastLog) == 0 || !s.Armed || s.PostgresMajor < 13 {
		t.Errorf("status %+v, %v; want the log's last lines and the version", s, err)
	}
}

func TestStopModes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(r.Stop(r.ctx(), StopRequest{Mode: StopFast})) // nothing runs: done already
	if err := r.Stop(r.ctx(), StopRequest{Mode: "gently"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown mode: %v", err)
	}
	for _, mode := range []StopMode{StopFast, StopImmediate} {
		r.primary(1, time.Minute)
		c := r.connect()
		r.must(r.Stop(r.ctx(), StopRequest{Mode: mode}))
		if s := r.wait(ProcessStopped, ProcessCrashed, ProcessFenced); s.Process != ProcessStopped || len(r.postgres()) > 0 {
			t.Errorf("%s: %+v", mode, s)
		}
		_ = c.Close(r.ctx())
	}
	r.primary(1, time.Minute)
	c := r.connect()
	r.must(r.Stop(r.ctx(), StopRequest{Mode: StopSmart}))
	if s := r.wait(ProcessStopping); s.PID == 0 {
		t.Errorf("smart with a session open: %+v", s)
	}
	r.must(r.Arm(r.ctx(), Lease{Epoch: 1, Deadline: boottime.Now().Add(MaxAhead / 2)})) // a long stop needs a lease too
	if err := r.Reload(r.ctx()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("reload of what is stopping: %v", err)
	}
	r.must(r.Stop(r.ctx(), StopRequest{Mode: StopFast}))
	r.wait(ProcessStopped)
	_ = c.Close(r.ctx())
	if err := r.Reload(r.ctx()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("reload without Postgres: %v", err)
	}
}

// An immediate stop with a backend that cannot hear: SIGKILL comes after StopKillAfter; a fast stop can be made harder.
func TestStopEscalates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.primary(1, time.Minute)
	c := r.connect()
	defer c.Close(context.Background())
	r.must(unix.Kill(backend(c), unix.SIGSTOP))
	r.must(r.Stop(r.ctx(), StopRequest{Mode: StopFast}))
	r.wait(ProcessStopping)
	asked := time.Now()
	r.must(r.Stop(r.ctx(), StopRequest{Mode: StopImmediate}))
	r.wait(ProcessStopped)
	if took := time.Since(asked); took > StopKillAfter+2*observed || len(r.postgres()) > 0 {
		t.Errorf("gone after %s, left %v", took, r.postgres())
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	soon := func() schema.Instant { return boottime.Now().Add(time.Minute) }
	signal := filepath.Join(r.options.DataDir, "standby.signal")
	refused := func(want error, q StartRequest) {
		t.Helper()
		if err := r.Start(r.ctx(), q); !errors.Is(err, want) {
			t.Errorf("Start(%+v): %v; want %v", q, err, want)
		}
	}
	refused(ErrWrongRole, StartRequest{Role: schema.RoleStandby, Epoch: 3})
	refused(ErrInvalid, StartRequest{Role: "leader", Epoch: 3, Deadline: soon()})
	refused(ErrDeadlinePast, StartRequest{Role: schema.RolePrimary, Epoch: 3})
	refused(ErrInvalid, StartRequest{Role: schema.RolePrimary, Epoch: 3, Deadline: schema.Forever})
	refused(ErrInvalid, StartRequest{Role: schema.RolePrimary, Epoch: 3, Deadline: soon(), Options: map[string]string{"data_directory": "/"}})
	refused(ErrInvalid, StartRequest{Role: schema.RolePrimary, Epoch: 3, Deadline: soon(), Options: map[string]string{"a b": "c"}})
	r.must(os.WriteFile(signal, nil, 0o600))
	refused(ErrWrongRole, StartRequest{Role: schema.RolePrimary, Epoch: 3, Deadline: soon()})

	r.must(r.Start(r.ctx(), StartRequest{Role: schema.RoleStandby, Epoch: 3, Options: map[string]string{"hot_standby": "on", "log_line_prefix": "a b 'c' "}}))
	refused(ErrAlreadyRunning, StartRequest{Role: schema.RoleStandby, Epoch: 3})
	c := r.connect()
	defer c.Close(context.Background())
	if s, err := r.Status(r.ctx()); err != nil || s.Armed || s.Epoch != 3 {
		t.Errorf("a standby is not armed: %+v, %v", s, err)
	}
	other := NewClient(r.options.Socket) // in another time namespace
	defer other.Close()
	other.now = func() schema.Instant { return boottime.Now().Add(time.Hour) }
	if _, err := other.Status(r.ctx()); !errors.Is(err, ErrClock) {
		t.Errorf("status by another clock: %v", err)
	}
	if err := other.Arm(r.ctx(), Lease{Epoch: 4, Deadline: soon()}); !errors.Is(err, ErrClock) {
		t.Errorf("arming by another clock: %v", err)
	}
	// A promotion: armed first, from then on fenced like every primary.
	deadline := boottime.Now().Add(800 * time.Millisecond)
	r.must(r.Arm(r.ctx(), Lease{Epoch: 4, Deadline: deadline}))
	var promoted bool
	r.must(c.QueryRow(r.ctx(), "select pg_promote(true, 10)").Scan(&promoted))
	if s, err := r.Status(r.ctx()); err != nil || !s.Armed || s.Epoch != 4 || !promoted {
		t.Errorf("promoted %v: %+v, %v", promoted, s, err)
	}
	r.fenced(deadline)
}

// A postmaster that gives up at once says why.
func TestStartFailureIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: 1, Deadline: boottime.Now().Add(time.Minute),
		Options: map[string]string{"shared_buffers": "much"}}))
	if s := r.wait(ProcessCrashed); !strings.Contains(s.ExitDetail, "shared_buffers") {
		t.Errorf("exit detail %q does not name the setting", s.ExitDetail)
	}
}

func TestSecondLauncherRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct{ what, socket, data, want string }{
		{"same data directory", filepath.Join(r.dir, "other", "launch.sock"), r.options.DataDir, "another launcher runs on the data directory"},
		{"same socket", r.options.Socket, filepath.Join(r.dir, "data2"), "another process answers"},
	} {
		second := &rig{t: t, options: r.options, log: &logBuffer{}}
		second.options.Socket, second.options.DataDir = c.socket, c.data
		cmd := second.helperCommand()
		if err := cmd.Run(); err == nil || !strings.Contains(second.log.String(), c.want) {
			t.Errorf("%s: %v, %s", c.what, err, second.log)
		}
	}
	if _, err := r.Status(r.ctx()); err != nil {
		t.Errorf("the first launcher no longer answers: %v", err)
	}
	for path, want := range map[string]os.FileMode{r.options.Socket: 0o600, filepath.Dir(r.options.Socket): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestSocketFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fail := func(what, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", what, err, want)
		}
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	_, err := listen(filepath.Join(open, "s"))
	fail("a folder that others may write to", "could replace the socket", err)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = listen(file)
	fail("a file", "is not a socket", err)
	_, err = listen(filepath.Join(dir, "a", "b", "s"))
	fail("a folder too deep", "cannot be made", err)

	path := filepath.Join(dir, "s")
	first, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = listen(path)
	fail("a socket that answers", "another process answers", err)
	first.SetUnlinkOnClose(false) // as a launcher that was killed leaves it
	discard(first)
	second, err := listen(path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	defer discard(second)
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		discard(c)
	}
}

// asPID1 makes c the first process of a pid namespace.
func (r *rig) asPID1(c *exec.Cmd) {
	namespace := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if shared.cred == nil {
		namespace = append(namespace, "--map-current-user")
	} else {
		namespace = append(namespace, "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
	}
	c.Args = append(namespace, c.Path)
	c.Path = "/usr/bin/unshare"
	c.SysProcAttr.Credential, c.SysProcAttr.AmbientCaps = nil, nil
}

// below is the children of a process, zombies too, as seen from outside.
func (r *rig) below(parent int) (pids []int) {
	var p procs
	r.must(p.each(func(s procStat) bool {
		if s.PPID == parent {
			pids = append(pids, s.PID)
		}
		return true
	}))
	return pids
}

// As PID 1 of a container: orphans are reaped, SIGTERM stops Postgres and ends with 0.
func TestPID1(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	r.launchWith(r.asPID1)
	below := r.below
	first := below(r.cmd.Process.Pid)[0]
	launcher := below(first)[0]
	r.primary(1, time.Minute)
	if s, err := r.Status(r.ctx()); err != nil || s.PID > 100 {
		t.Errorf("not in a pid namespace of its own: %+v, %v", s, err)
	}
	c := r.connect()
	defer c.Close(context.Background())
	_, err := c.Exec(r.ctx(), `copy t (w) to program 'cat > /dev/null; setsid sleep 0.5 > /dev/null 2>&1 & exit 0'`)
	r.must(err)
	r.eventually("the orphan comes to the launcher", func() bool { return len(below(launcher)) == 2 })
	r.eventually("the orphan is reaped", func() bool { return len(below(launcher)) == 1 })
	r.must(unix.Kill(first, unix.SIGTERM))
	select {
	case <-r.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("SIGTERM did not end the launcher")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 || len(r.postgres()) > 0 {
		t.Errorf("exit %d, left %v", code, r.postgres())
	}
	if _, err := r.Status(r.ctx()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("status of an ended launcher: %v", err)
	}
}

// The table of another pid namespace would name the wrong processes: nothing may be killed by it.
func TestForeignProcRefused(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	c := r.helperCommand()
	if shared.cred == nil {
		c.Args = []string{"unshare", "--pid", "--fork", "--kill-child", "--map-current-user", c.Path}
	} else {
		c.Args = []string{"unshare", "--pid", "--fork", "--kill-child", "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", c.Path}
	}
	c.Path = "/usr/bin/unshare"
	c.SysProcAttr.Credential, c.SysProcAttr.AmbientCaps = nil, nil
	if err := c.Run(); err == nil || !strings.Contains(r.log.String(), "/proc belongs to another pid namespace") {
		t.Errorf("%v: %s", err, r.log)
	}
}
