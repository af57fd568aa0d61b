package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/sidecar/local"
	"howdah/sidecar/local/localtest"
)

func TestClaim(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	first, err := claim(dir, false)
	if err != nil || first.resumed {
		t.Fatalf("a new directory: %v, resumed %t", err, first != nil && first.resumed)
	}
	if _, err := claim(dir, false); err == nil || !strings.Contains(err.Error(), "another demo runs") {
		t.Errorf("a second demo: %v", err)
	}
	first.note.Lock = "127.0.0.1:1"
	if err := first.save(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first.release()
	second, err := claim(dir, false)
	if err != nil || !second.resumed || second.note.Lock != "127.0.0.1:1" {
		t.Fatalf("the same directory again: %v, %+v", err, second)
	}
	second.release()
	fresh, err := claim(dir, true)
	if err != nil || fresh.resumed {
		t.Fatalf("fresh: %v, %+v", err, fresh)
	}
	defer fresh.release()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("fresh left %v (%v)", entries, err)
	}
}

func TestClaimTouchesNothingForeign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("all I have"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, fresh := range []bool{false, true} {
		if _, err := claim(dir, fresh); err == nil || !strings.Contains(err.Error(), "choose another --dir") {
			t.Errorf("fresh %t: %v", fresh, err)
		}
	}
	// A marker that is no demo's, and one that leads elsewhere.
	marker := filepath.Join(dir, markerFile)
	if err := os.WriteFile(marker, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir, true); err == nil {
		t.Error("a marker that cannot be read is taken for a demo's")
	}
	if err := errors.Join(os.Remove(marker), os.Symlink(precious, marker)); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir, true); err == nil {
		t.Error("a symbolic link is taken for a marker")
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "all I have" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	var plain bytes.Buffer
	s := newScreen(&plain)
	s.set("a table")
	s.say("one %d", 1)
	if got := plain.String(); got != "one 1\n" {
		t.Errorf("without a terminal: %q", got)
	}
	var drawn bytes.Buffer
	s = newScreen(&drawn)
	s.size = func() (int, int, error) { return 8, 4, nil }
	s.set("äöüäöüäöü\n2\n3\n4\n5")
	s.say("said")
	s.set("")
	want := "äöüäöüä\n2\n3\n" + "\x1b[3F\x1b[J" + "said\n" + "äöüäöüä\n2\n3\n" + "\x1b[3F\x1b[J"
	if got := drawn.String(); got != want {
		t.Errorf("on a terminal:\nwant %q\ngot  %q", want, got)
	}
}

func TestPassfileAndURL(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pgpass")
	lines, err := passLines(passLine{"127.0.0.1:6432", "*", "postgres", `a:b\c`}, passLine{"[::1]:6433", "howdah", "admin", "d"})
	if want := "127.0.0.1:6432:*:postgres:a\\:b\\\\c\n\\:\\:1:6433:howdah:admin:d\n"; err != nil || lines != want {
		t.Errorf("want %q, got %q (%v)", want, lines, err)
	}
	for _, text := range []string{"first", lines} { // the second over the first
		if err := writePassfile(name, text); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != lines {
		t.Errorf("it holds %q (%v)", b, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := connURL("postgres", "127.0.0.1:6432", "postgres", "/a b/pg&pass"); got != "postgresql://postgres@127.0.0.1:6432/postgres?passfile=/a%20b/pg%26pass" {
		t.Error(got)
	}
	for in, want := range map[string]string{"/a/b": "/a/b", "/a b": "'/a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := quoted(in); got != want {
			t.Errorf("%q: want %s, got %s", in, want, got)
		}
	}
}

// output collects what a demo prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// shown is a demo that runs.
type shown struct {
	out  *output
	cmd  *exec.Cmd
	done chan struct{}
}

func startDemo(t *testing.T, binary string, args ...string) *shown {
	t.Helper()
	d := &shown{out: &output{}, cmd: exec.Command(binary, append([]string{"demo"}, args...)...), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // its exit code is looked at
	}()
	t.Cleanup(func() { d.end(t, unix.SIGTERM) })
	return d
}

func (d *shown) await(t *testing.T, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("not so after two minutes"))
	defer cancel()
	err := local.Poll(ctx, 20*time.Millisecond, func() bool {
		select {
		case <-d.done:
			cancel()
			return strings.Contains(d.out.String(), words)
		default:
		}
		return strings.Contains(d.out.String(), words)
	})
	if err != nil {
		t.Fatalf("waiting for %q: %v\n%s", words, err, d.out)
	}
}

// end sends a signal and waits for the end.
func (d *shown) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-d.done:
	case <-time.After(2 * demoStopTimeout):
		t.Errorf("the demo does not end:\n%s", d.out)
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// TestDemo starts a demo, writes through its router, ends it, and starts it again with the same data.
func TestDemo(t *testing.T) {
	t.Parallel()
	binary, base := localtest.Binary(t), localtest.Dir(t)
	dir := filepath.Join(base, "demo")
	free, err := local.FreeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--dir", dir, "--router-listen", free[0], "--router-ro-listen", free[1]}

	d := startDemo(t, binary, args...)
	d.await(t, "Ctrl-C ends everything")
	passfile := filepath.Join(dir, "pgpass")
	rw, ro := connURL("postgres", free[0], "postgres", passfile), connURL("postgres", free[1], "postgres", passfile)
	if !strings.Contains(d.out.String(), rw) || !strings.Contains(d.out.String(), ro) {
		t.Errorf("the addresses are not shown:\n%s", d.out)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "secrets", "superuser"))
	if err != nil || strings.Contains(d.out.String(), strings.TrimSpace(string(secret))) {
		t.Errorf("a secret is shown (%v)", err)
	}
	psql(t, rw, "create table kept as select 42 as n")
	if got := psql(t, ro, "select pg_is_in_recovery()"); got != "t" {
		t.Errorf("the read-only port leads to a primary: %q", got)
	}
	if got := psql(t, connURL(consoleUser, free[0], "howdah", passfile), "SHOW VERSION"); !strings.Contains(got, "howdah") {
		t.Errorf("the console says %q", got)
	}
	d.knownToAShell(t)
	routerMayAsk(t, dir)
	second := startDemo(t, binary, args...)
	second.refused(t, "another demo runs")
	elsewhere := startDemo(t, binary, "--dir", filepath.Join(base, "elsewhere"), "--router-listen", free[0], "--router-ro-listen", free[1])
	elsewhere.refused(t, free[0])
	// A new password, with the former one beneath it: the psql lines go on.
	if err := os.WriteFile(filepath.Join(dir, "secrets", "superuser"), []byte("new\n"+string(secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	renewed := func() bool {
		b, err := os.ReadFile(passfile)
		return err == nil && strings.Contains(string(b), ":postgres:new\n")
	}
	if err := local.Poll(ctx, 50*time.Millisecond, renewed); err != nil {
		t.Errorf("the password file does not follow a new password: %v", err)
	}
	d.end(t, unix.SIGINT)
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, d.out)
	}
	if !strings.Contains(d.out.String(), "nothing runs any more. The data are in "+dir) {
		t.Errorf("the end says:\n%s", d.out)
	}
	if left := localtest.Left(dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}

	d = startDemo(t, binary, args...)
	d.await(t, "Ctrl-C ends everything")
	if got := psql(t, rw, "select n from kept"); got != "42" {
		t.Errorf("the data of the first run: %q", got)
	}
	// A demo that is killed takes everything along: the kernel tells the children.
	d.end(t, unix.SIGKILL)
	if err := local.Poll(ctx, 50*time.Millisecond, func() bool { return len(localtest.Left(dir)) == 0 }); err != nil {
		t.Errorf("processes are left: %v", localtest.Left(dir))
	}
}

// knownToAShell has a shell do what the demo says, and howdah's commands find the cluster.
func (d *shown) knownToAShell(t *testing.T) {
	t.Helper()
	_, export, _ := strings.Cut(d.out.String(), "\n  export ")
	export, _, _ = strings.Cut(export, "\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/bin/sh", "-c", "export "+export+" && howdah status && howdah reload").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cluster demo ") || !strings.Contains(string(out), "pg1: reloaded") {
		t.Errorf("export %s: %v\n%s", export, err, out)
	}
}

// TestFarewell has the demo's last word be true where the end was not in order.
func TestFarewell(t *testing.T) {
	t.Parallel()
	if got, want := farewell(nil, "/d", "bin/howdah demo"), "nothing runs any more. The data are in /d; `bin/howdah demo` goes on"; !strings.HasPrefix(got, want) {
		t.Error(got)
	}
	if got := farewell(errors.New("pg1 cannot be killed"), "/d", "howdah demo"); strings.Contains(got, "nothing runs") || !strings.Contains(got, "see below") {
		t.Error(got)
	}
}

// refused checks that the demo ended by itself, with a message that has words.
func (d *shown) refused(t *testing.T, words string) {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		t.Errorf("it goes on:\n%s", d.out)
		return
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(d.out.String(), words) {
		t.Errorf("want exit code 1 and %q, got %d and:\n%s", words, code, d.out)
	}
}

func psql(t *testing.T, url, sql string) string {
	t.Helper()
	bin, err := local.FindBinDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "psql"), "-X", "-A", "-t", "-q", "-d", url, "-c", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Not parallel: a child that another test is just starting holds a copy of the listening socket until its exec.
func TestServeLockKeepsItsAddress(t *testing.T) {
	p, err := claim(filepath.Join(t.TempDir(), "demo"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	var first string
	for i := range 2 {
		address, closeLock, err := serveLock(p)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.Get(address + "/v1/status/leader"); err != nil {
			t.Error(err)
		} else {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		closeLock()
		if i == 0 {
			first = address
		} else if address != first {
			t.Errorf("it was %s and is %s", first, address)
		}
	}
}

func TestDemoMembers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &Demo{Members: 3}
	name, members, err := c.members(dir)
	if err != nil || name != "demo" || fmt.Sprint(members) != "[pg1 pg2 pg3]" {
		t.Errorf("%s %v %v", name, members, err)
	}
	c.Consul = "http://consul"
	if name, _, err := c.members(dir); err != nil || len(name) != len("demo-abcdef") || !clusterName.MatchString(name) {
		t.Errorf("%s %v", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.json"), []byte(`{"cluster":"demo","members":{"pg1":{},"pg2":{},"pg3":{}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if name, _, err := c.members(dir); err != nil || name != "demo" {
		t.Errorf("%s %v", name, err)
	}
	c.Members = 2
	if _, _, err := c.members(dir); err == nil || !strings.Contains(err.Error(), "--fresh") {
		t.Errorf("two of three: %v", err)
	}
	c.Members = 4
	if _, members, err := c.members(dir); err != nil || fmt.Sprint(members) != "[pg1 pg2 pg3 pg4]" {
		t.Errorf("%v %v", members, err)
	}
}
