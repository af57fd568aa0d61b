package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/consultest"
	"howdah/consul/schema"
	"howdah/sidecar/local/localtest"
)

const (
	// patience bounds every wait: other tests run beside these.
	patience = 90 * time.Second
	// endsWithin bounds a process that must refuse to run.
	endsWithin = 30 * time.Second
)

// rig is a cluster whose members are started one by one.
type rig struct {
	*testing.T
	*Cluster
	binary string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	bin, err := FindBinDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.Binary == "" {
		o.Binary = localtest.Binary(t)
	}
	o.Dir, o.BinDir, o.Cluster, o.Log = localtest.Dir(t), bin, "bad-input", zap.NewNop()
	if o.Consul == "" {
		o.Consul = consultest.StartEmbedded(t)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t, c, o.Binary}
}

func (r *rig) await(t *testing.T, what string, ok func(Look) bool) Look {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not so after %s", patience))
	defer cancel()
	l, err := r.Await(ctx, what, ok)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// says waits until the member's status gives a reason with all of the words.
func (r *rig) says(t *testing.T, m *Member, words ...string) {
	t.Helper()
	look := r.await(t, m.Name+" saying "+strings.Join(words, ", "), func(l Look) bool {
		a := l.Of(m)
		return a.Err == nil && mentions(a.Status.Self.Reason, words)
	})
	t.Logf("%s: %s", look.Of(m).Status.Self.State, look.Of(m).Status.Self.Reason)
}

func mentions(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func (r *rig) streams(t *testing.T, m *Member) {
	t.Helper()
	r.await(t, m.Name+" streaming", func(l Look) bool { return l.Of(m).Status.Self.State == schema.StateStreaming })
}

// serves checks that the primary goes on as it was.
func (r *rig) serves(t *testing.T, m *Member) {
	t.Helper()
	if p := r.Look(t.Context()).Primary(); p != m {
		t.Errorf("%s is no longer the primary:\n%s", m.Name, r.Look(t.Context()))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refuses runs howdah with args and checks that it ends by itself with exit code 1 or 2, and an error with all of the words.
func (r *rig) refuses(t *testing.T, args []string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), endsWithin)
	defer cancel()
	cmd := r.command(unix.SIGKILL, args...)
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Env, bounded.Dir, bounded.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
	out, err := bounded.CombinedOutput()
	last := lastLine(string(out))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 2 {
		t.Errorf("want an exit code of 1 or 2, got %v; output:\n%s", err, out)
	}
	if !mentions(last, words) {
		t.Errorf("want an error with %q, got %q", words, last)
	}
	t.Log(last)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// with changes options of a member's sidecar: a flag that is given again goes before.
func (m *Member) with(flags ...string) {
	m.sidecar.make = func() *exec.Cmd { return m.c.command(unix.SIGTERM, append(m.sidecarArgs(), flags...)...) }
}

func (r *rig) stop(t *testing.T, m *Member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, m.Stop(ctx))
}

func write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(text), 0o600))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(b)
}

// TestBadInput makes the mistakes that people make, on one cluster with a primary that must not notice.
func TestBadInput(t *testing.T) {
	r := newRig(t, Options{Members: []string{"pg1", "pg2", "pg3", "pg4", "pg5"}})
	primary := r.Member("pg1")
	must(t, primary.Start())
	r.await(t, "the first member serving", func(l Look) bool { return l.Primary() == primary })
	// In the order of the file: pg2 becomes a standby by the first, and is broken by the second.
	t.Run("wrong password", func(t *testing.T) { r.wrongPassword(t, r.Member("pg2")); r.serves(t, primary) })
	t.Run("wrong major version", func(t *testing.T) { r.wrongMajor(t, r.Member("pg2")); r.serves(t, primary) })
	t.Run("full disk", func(t *testing.T) { r.fullDisk(t, r.Member("pg3")); r.serves(t, primary) })
	t.Run("foreign directory", func(t *testing.T) { r.foreignDirectory(t, r.Member("pg4")); r.serves(t, primary) })
	t.Run("port of postgres in use", func(t *testing.T) { r.postgresPort(t, r.Member("pg5")); r.serves(t, primary) })
	t.Run("other ports in use", func(t *testing.T) { r.otherPorts(t, primary); r.serves(t, primary) })
	t.Run("two of one name", func(t *testing.T) { r.twins(t, primary); r.serves(t, primary) })
	t.Run("unknown cluster", func(t *testing.T) {
		r.refuses(t, []string{"status", "--cluster", "no-such", "--consul-addr", r.Consul()}, "no-such", "bad-input")
	})
}

func (r *rig) wrongPassword(t *testing.T, m *Member) {
	other := r.path("other-secrets")
	must(t, r.user.own(other))
	for _, name := range []string{"superuser", "replication", "rewind", "router", "gossip.key", "api.token"} {
		text := read(t, r.SecretFile(name))
		if name == "replication" {
			text = "wrong\n"
		}
		file := filepath.Join(other, name)
		write(t, file, text)
		must(t, os.Chown(file, int(r.user.UID), int(r.user.GID)))
	}
	m.with("--secrets-dir", other)
	must(t, m.Start())
	r.says(t, m, "password", "howdah_replication")
	if entries, err := os.ReadDir(m.DataDir); err == nil && len(entries) > 0 {
		t.Errorf("the data directory holds %v", entries)
	}
	r.stop(t, m)
	m.with()
	must(t, m.Start())
	r.streams(t, m)
}

func (r *rig) wrongMajor(t *testing.T, m *Member) {
	r.stop(t, m)
	version := filepath.Join(m.DataDir, "PG_VERSION")
	was := read(t, version)
	write(t, version, "12\n")
	control := read(t, filepath.Join(m.DataDir, "global", "pg_control"))
	must(t, m.Start())
	r.says(t, m, "12", strings.TrimSpace(was))
	r.stop(t, m)
	if read(t, version) != "12\n" || read(t, filepath.Join(m.DataDir, "global", "pg_control")) != control {
		t.Error("the data directory was changed")
	}
	write(t, version, was)
	must(t, m.Start())
	r.streams(t, m)
}

// fullDisk gives the member a file system that cannot hold the cluster. It takes root to make one.
func (r *rig) fullDisk(t *testing.T, m *Member) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount a small file system: nothing is tried")
		return
	}
	dir := filepath.Dir(m.DataDir)
	must(t, unix.Mount("howdah-test", dir, "tmpfs", 0, fmt.Sprintf("size=16m,mode=0700,uid=%d,gid=%d", r.user.UID, r.user.GID)))
	t.Cleanup(func() {
		if err := errors.Join(m.Kill(), unix.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	})
	must(t, r.user.own(m.runDir()))
	must(t, m.Start())
	r.says(t, m, "No space left on device")
}

func (r *rig) foreignDirectory(t *testing.T, m *Member) {
	precious := filepath.Join(m.DataDir, "precious.txt")
	must(t, r.user.own(m.DataDir))
	write(t, precious, "all I have")
	must(t, m.Start())
	r.says(t, m, m.DataDir)
	r.stop(t, m)
	entries, err := os.ReadDir(m.DataDir)
	if err != nil || len(entries) != 1 || read(t, precious) != "all I have" {
		t.Errorf("the directory holds %v (%v)", entries, err)
	}
}

func (r *rig) postgresPort(t *testing.T, m *Member) {
	l, err := net.Listen("tcp", m.Addresses.Postgres)
	must(t, err)
	defer l.Close()
	_, port, _ := net.SplitHostPort(m.Addresses.Postgres)
	must(t, m.Start())
	r.says(t, m, "already in use", port)
	must(t, l.Close())
	r.streams(t, m)
	r.stop(t, m)
}

// otherPorts starts a sidecar and a router whose ports are those of a member that runs.
func (r *rig) otherPorts(t *testing.T, taken *Member) {
	m := r.Member("pg4")
	args := func(flag, address string) []string { return append(m.sidecarArgs(), flag, address) }
	r.refuses(t, args("--api-listen", taken.Addresses.API), "api-listen", taken.Addresses.API)
	r.refuses(t, args("--gossip-listen", taken.Addresses.Gossip), "gossip", taken.Addresses.Gossip)
	router := r.router.process.make().Args[1:]
	r.refuses(t, append(router, "--listen", taken.Addresses.API), "listen", taken.Addresses.API)
}

// twins starts a second sidecar under the name of one that runs: with its data directory, and with another.
func (r *rig) twins(t *testing.T, m *Member) {
	free, err := FreeAddresses(3)
	must(t, err)
	twin := append(m.sidecarArgs(), "--postgres-listen", free[0], "--api-listen", free[1], "--gossip-listen", free[2])
	r.refuses(t, twin, "another sidecar", m.DataDir)
	must(t, r.user.own(r.path("twin")))
	r.refuses(t, append(twin, "--data-dir", r.path("twin", "data")), "another sidecar named "+m.Name, m.Addresses.API)
}

// TestConsulUnreachable: a new member waits for Consul, says so, and makes no data directory on its own.
func TestConsulUnreachable(t *testing.T) {
	t.Parallel()
	free, err := FreeAddresses(1)
	must(t, err)
	r := newRig(t, Options{Members: []string{"pg1"}, Consul: "http://" + free[0]})
	m := r.Member("pg1")
	must(t, m.Start())
	r.says(t, m, "consul", free[0])
	if _, err := os.Stat(m.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory: want none, got %v", err)
	}
	r.refuses(t, []string{"status", "--cluster", "bad-input", "--consul-addr", r.Consul()}, free[0])
}

// TestTokenRefused: a Consul that denies what no token allows.
func TestTokenRefused(t *testing.T) {
	t.Parallel()
	consul := consultest.Start(t, consultest.WithACL())
	r := newRig(t, Options{Members: []string{"pg1"}, Consul: consul.Address})
	m := r.Member("pg1")
	r.refuses(t, m.sidecarArgs(), "token")
	if _, err := os.Stat(m.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory: want none, got %v", err)
	}
	token := r.path("token")
	write(t, token, consul.Token+"\n")
	must(t, os.Chown(token, int(r.user.UID), int(r.user.GID)))
	m.with("--consul-token-file", token)
	must(t, m.Start())
	r.await(t, "the member serving with a token", func(l Look) bool { return l.Primary() == m })
}
