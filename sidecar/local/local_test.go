package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// shell is a process that runs a script.
func shell(t *testing.T, script string) *process {
	t.Helper()
	p := &process{name: "the script", log: filepath.Join(t.TempDir(), "script.log"), logger: zap.NewNop(), make: func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		return cmd
	}}
	t.Cleanup(func() {
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Poll(ctx, 5*time.Millisecond, ok); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

func TestProcessIsStartedAgain(t *testing.T) {
	t.Parallel()
	p := shell(t, "echo some words; exec sleep 60")
	must(t, p.start())
	first := p.pid()
	eventually(t, "its words", func() bool { return p.lastWords() == "some words" })
	if err := p.start(); err == nil {
		t.Error("it was started twice")
	}
	must(t, p.signal(unix.SIGKILL))
	eventually(t, "another process", func() bool { return p.pid() != 0 && p.pid() != first })
	if got := p.trouble(); !strings.Contains(got, "the script ended (signal: killed): some words") {
		t.Errorf("trouble: %q", got)
	}
	second := p.pid()
	must(t, p.kill())
	if _, alive := readTask(second); alive || p.pid() != 0 {
		t.Errorf("process %d lives on", second)
	}
	if err := p.signal(unix.SIGTERM); err == nil {
		t.Error("a signal to a process that does not run is no error")
	}
	must(t, p.start())
	if p.trouble() != "" {
		t.Errorf("trouble of an earlier start: %q", p.trouble())
	}
}

func TestProcessThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := shell(t, "echo no; exit 3")
	must(t, p.start())
	eventually(t, "its end", func() bool { return p.trouble() != "" })
	if got := p.trouble(); !strings.Contains(got, "exit status 3") {
		t.Errorf("trouble: %q", got)
	}
	// Also in the pause before the next attempt it can be ended.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	must(t, p.stop(ctx))
}

func TestProcessThatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	p := shell(t, "trap '' TERM; echo ready; while :; do sleep 1; done")
	must(t, p.start())
	eventually(t, "the trap", func() bool { return p.lastWords() == "ready" })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.stop(ctx); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("stop: %v", err)
	}
	if p.pid() != 0 {
		t.Error("it lives on")
	}
}

// A tree with a process in a session of its own is stopped, let go and killed as a whole.
func TestTree(t *testing.T) {
	t.Parallel()
	p := shell(t, "setsid sleep 61 & sleep 62 & wait")
	must(t, p.start())
	var all []task
	eventually(t, "three processes", func() bool {
		found, err := tree(p.pid())
		must(t, err)
		all = found
		return len(found) == 3
	})
	if all[0].PID != p.pid() {
		t.Errorf("the first is %d and not the root %d", all[0].PID, p.pid())
	}
	stopped, err := stopAll(p.pid())
	must(t, err)
	for _, s := range stopped {
		if now, ok := readTask(s.PID); !ok || !now.stopped() {
			t.Errorf("%d (%s) is not stopped", s.PID, s.Comm)
		}
		must(t, signalTask(s, unix.SIGCONT))
	}
	p.release()
	if n := killAll(all); n != 3 {
		t.Errorf("%d were alive", n)
	}
	if n := killAll(all); n != 0 {
		t.Errorf("%d were alive after that", n)
	}
	// A pid that another process has by now is not touched.
	self, ok := readTask(os.Getpid())
	if !ok {
		t.Fatal("this process is not in the process table")
	}
	self.Start++
	must(t, signalTask(self, unix.SIGKILL))
}

func TestUserReaches(t *testing.T) {
	t.Parallel()
	u := User{Name: "somebody", UID: 54321, GID: 54321, credential: &syscall.Credential{}}
	open, err := os.MkdirTemp("/tmp", "howdah-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(open)) })
	must(t, os.Chmod(open, 0o755))
	if err := u.Reaches(filepath.Join(open, "not", "there", "yet")); err != nil {
		t.Error(err)
	}
	must(t, os.Chmod(open, 0o700))
	if err := u.Reaches(filepath.Join(open, "below")); err == nil || !strings.Contains(err.Error(), open) {
		t.Errorf("a closed folder: %v", err)
	}
}

func TestLayoutIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	must(t, os.MkdirAll(dir, 0o755))
	at := func(cluster string, members ...string) (layout, error) {
		return (&Cluster{o: Options{Dir: dir, Cluster: cluster, Members: members}}).layout()
	}
	first, err := at("one", "a", "b")
	must(t, err)
	again, err := at("one", "a", "b", "c")
	must(t, err)
	if first.Members["a"] != again.Members["a"] || first.Router != again.Router {
		t.Errorf("addresses were %+v and are %+v", first, again)
	}
	if _, err := at("one", "a", "b"); err == nil {
		t.Error("a member was left out")
	}
	if _, err := at("two", "a", "b", "c"); err == nil {
		t.Error("another cluster was taken for the same")
	}
	name, members, err := Saved(dir)
	if err != nil || name != "one" || strings.Join(members, " ") != "a b c" {
		t.Errorf("%s %v %v", name, members, err)
	}
	if name, _, err := Saved(filepath.Join(dir, "nothing")); name != "" || err != nil {
		t.Errorf("nothing: %q %v", name, err)
	}
}

// Another process may take an address the moment after it was found, so there are several attempts; no address may come twice in any.
func TestFreeAddresses(t *testing.T) {
	t.Parallel()
	free := func() bool {
		found, err := FreeAddresses(20)
		must(t, err)
		all, seen := true, map[string]bool{}
		for _, a := range found {
			if seen[a] {
				t.Errorf("%s comes twice", a)
			}
			seen[a] = true
			all = all && Free(a) == nil
		}
		return all
	}
	for range 10 {
		if free() {
			return
		}
	}
	t.Error("in each of ten attempts an address was not free")
}

func TestPollEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := Poll(ctx, time.Hour, func() bool { return false }); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestLookJudges(t *testing.T) {
	t.Parallel()
	a, b := &Member{Name: "a"}, &Member{Name: "b"}
	l := healthyLook(a, b)
	if l.Primary() != a || !l.Healthy() || l.Epoch() != 3 {
		t.Errorf("primary %v, healthy %t, epoch %d", l.Primary(), l.Healthy(), l.Epoch())
	}
	for name, change := range map[string]func(Look){
		"no lock":         func(l Look) { l[0].Status.HoldsLock = false },
		"no answer":       func(l Look) { l[1].Err = errors.New("no answer") },
		"other upstream":  func(l Look) { l[1].Status.Self.Upstream = "c" },
		"older timeline":  func(l Look) { l[1].Status.Self.Timeline = 1 },
		"older epoch":     func(l Look) { l[1].Status.Self.Epoch = 2 },
		"standby running": func(l Look) { l[1].Status.Self.State = "running" },
	} {
		l := healthyLook(a, b)
		change(l)
		if l.Healthy() {
			t.Errorf("%s is taken for healthy", name)
		}
	}
}

func healthyLook(primary, standby *Member) Look {
	l := Look{{Member: primary}, {Member: standby}}
	l[0].Status.HoldsLock = true
	l[0].Status.Self = schema.Status{Name: primary.Name, Role: schema.RolePrimary, State: schema.StateRunning, Epoch: 3, Timeline: 2}
	l[1].Status.Self = schema.Status{Name: standby.Name, Role: schema.RoleStandby, State: schema.StateStreaming, Epoch: 3, Timeline: 2, Upstream: primary.Name}
	return l
}
