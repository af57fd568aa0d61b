package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/sidecar/postgres/postgrestest"
)

// socketDir is a directory with a short path, as sockets need.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "howdah")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func atSocket(dir string) func(*router.Options) {
	return func(o *router.Options) { o.UnixSocketDir = dir }
}

// Sessions by a Unix-domain socket are as those by TCP: they are relayed, cancelled, noticed when they vanish and told of the end; each listener has its own.
func TestUnixSocket(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	dir := socketDir(t)
	g := startLogging(t, zap.New(core), atSocket(dir))
	one, two := rt.Listen(t, ""), rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", one.Address(), 1), rt.Standby("two", two.Address(), 1))
	for of, server := range map[route.Route]*rt.Server{route.Auto: one, route.RW: one, route.RO: two} {
		path := g.SocketPath(of)
		if _, port, _ := net.SplitHostPort(g.Address(of).String()); path != dir+"/.s.PGSQL."+port {
			t.Errorf("the socket of %s is %s", of, path)
		}
		if i, err := os.Lstat(path); err != nil || i.Mode() != fs.ModeSocket|0o777 {
			t.Errorf("%s: %v, %v", path, i.Mode(), err)
		}
		c := rt.Dial(t, path)
		c.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.Welcome(rt.KeyData(4711, "sekr"))
		key := c.Welcomed()
		ask(c, s, "SELECT 1")
		cancel := rt.Dial(t, path)
		cancel.Send(cancelRequest([]byte(key)))
		delivered := server.Accept()
		delivered.Expect(cancelRequest([]byte("\x00\x00\x12\x67sekr")))
		delivered.Close()
		cancel.ExpectClose()
		c.Send(rt.Query("SELECT 2"))
		s.Expect(rt.Query("SELECT 2"))
		c.Close()
		canceled := server.Accept() // the client vanished in the middle of a query
		canceled.Expect(cancelRequest([]byte("\x00\x00\x12\x67sekr")))
		canceled.Close()
		s.ExpectClose()
	}
	if logs.FilterField(zap.Stringer("client", net.Addr(nil))).Len() > 0 || !strings.Contains(fmt.Sprint(logs.FilterMessage("session begins").All()[0].ContextMap()), "[local]") {
		t.Errorf("logged %v", logs.FilterMessage("session begins").All())
	}
	c := rt.Dial(t, g.SocketPath(route.RW))
	c.Send(rt.Startup("user", "alice"))
	one.Accept().Welcome(rt.KeyData(4711, "sekr"))
	c.Welcomed()
	g.stop()
	c.ExpectError("57P01")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// There is no TLS on a Unix-domain socket, and none is missed.
func TestUnixSocketWithoutTLS(t *testing.T) {
	option, _ := withTLS(t, t.TempDir(), router.TLSRequire)
	g := start(t, option, atSocket(socketDir(t)))
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	c := rt.Dial(t, g.SocketPath(route.Auto))
	for _, ask := range [][]byte{rt.SSLRequest, rt.GSSENCRequest} {
		c.Send(ask)
		c.Expect([]byte{'N'})
	}
	c.Send(rt.Startup("user", "alice"))
	server.Accept().Welcome(rt.KeyData(4711, "sekr"))
	c.Welcomed()
	direct := rt.Dial(t, g.SocketPath(route.Auto))
	direct.Send([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0}) // the beginning of a handshake
	direct.ExpectClose()
	server.ExpectNobody()
}

func TestUnixSocketFile(t *testing.T) {
	port := postgrestest.FreePort(t)
	listen := func(dir string, change ...func(*router.Options)) (*router.Router, error) {
		o := router.DefaultOptions()
		o.Cluster, o.Name, o.Listen, o.UnixSocketDir, o.ReusePort = rt.Cluster, "router-1", fmt.Sprint("127.0.0.1:", port), dir, true
		for _, c := range change {
			c(&o)
		}
		return router.New(o, rt.NewKnowledge(boottime.Now), boottime.Now, zap.NewNop())
	}
	end := func(r *router.Router) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}
	alone := func(o *router.Options) { o.ReusePort = false }
	path := func(dir string) string { return fmt.Sprintf("%s/.s.PGSQL.%d", dir, port) }
	exists := func(dir string) bool {
		_, err := os.Lstat(path(dir))
		return err == nil
	}
	t.Run("permissions", func(t *testing.T) {
		dir := socketDir(t)
		r, err := listen(dir, func(o *router.Options) { o.UnixSocketMode = "0700" })
		if err != nil {
			t.Fatal(err)
		}
		if i, err := os.Lstat(path(dir)); err != nil || i.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", i, err)
		}
		end(r)
	})
	t.Run("permissions from the first moment on", func(t *testing.T) {
		defer syscall.Umask(syscall.Umask(0))
		dir := socketDir(t)
		watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(watch)
		if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE|unix.IN_ATTRIB); err != nil {
			t.Fatal(err)
		}
		// It is looked at as soon as it is there, wherever it is by then.
		seen := make(chan fs.FileMode, 1)
		go func() {
			unix.Read(watch, make([]byte, 4096))
			i, err := os.Lstat(fmt.Sprintf("%s/.howdah.%d", dir, os.Getpid()))
			if err != nil {
				i, err = os.Lstat(path(dir))
			}
			if err != nil {
				seen <- 0
				return
			}
			seen <- i.Mode().Perm()
		}()
		r, err := listen(dir, func(o *router.Options) { o.UnixSocketMode = "0700" })
		if err != nil {
			t.Fatal(err)
		}
		if mode := <-seen; mode != 0o700 && mode != 0 {
			t.Errorf("permissions %v", mode)
		}
		end(r)
	})
	t.Run("left behind", func(t *testing.T) {
		dir := socketDir(t)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path(dir)})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		r, err := listen(dir, alone)
		if err != nil {
			t.Fatal(err)
		}
		rt.Dial(t, path(dir))
		end(r)
		if exists(dir) {
			t.Error("not removed")
		}
	})
	t.Run("another's", func(t *testing.T) {
		dir := socketDir(t)
		l, err := net.Listen("unix", path(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := listen(dir, alone); err == nil || !strings.Contains(err.Error(), "another process listens at "+path(dir)) {
			t.Errorf("%v", err)
		}
		if !exists(dir) {
			t.Error("removed")
		}
	})
	t.Run("another program's, where ports are shared", func(t *testing.T) {
		dir := socketDir(t)
		foreigner(t, path(dir))
		if _, err := listen(dir); err == nil || !strings.Contains(err.Error(), "another process listens at "+path(dir)) {
			t.Errorf("%v", err)
		}
		rt.Dial(t, path(dir))
	})
	t.Run("one port for two", func(t *testing.T) {
		dir := socketDir(t)
		if _, err := listen(dir, func(o *router.Options) { o.ListenRO = fmt.Sprint("127.0.0.2:", port) }); err == nil || !strings.Contains(err.Error(), "would have one socket") {
			t.Errorf("%v", err)
		}
		if exists(dir) {
			t.Error("not removed")
		}
	})
	t.Run("PostgreSQL's", func(t *testing.T) {
		dir := socketDir(t)
		if err := os.WriteFile(path(dir)+".lock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(dir); err == nil || !strings.Contains(err.Error(), "PostgreSQL server's") {
			t.Errorf("%v", err)
		}
	})
	t.Run("in the way", func(t *testing.T) {
		dir := socketDir(t)
		if err := os.WriteFile(path(dir), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(dir); err == nil || !strings.Contains(err.Error(), "is in the way") {
			t.Errorf("%v", err)
		}
		if b, err := os.ReadFile(path(dir)); err != nil || string(b) != "mine" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if _, err := listen(filepath.Join(socketDir(t), "none")); err == nil || !strings.Contains(err.Error(), "must be able to write in the directory") {
			t.Errorf("%v", err)
		}
	})
	t.Run("taken over", func(t *testing.T) {
		dir := socketDir(t)
		older, err := listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		newer, err := listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		end(older)
		if !exists(dir) {
			t.Error("the older router removed the newer one's socket")
		}
		rt.Dial(t, path(dir))
		end(newer)
		if exists(dir) {
			t.Error("not removed")
		}
	})
	t.Run("abstract", func(t *testing.T) {
		dir := fmt.Sprint("@howdah-test-", os.Getpid())
		r, err := listen(dir, alone)
		if err != nil {
			t.Fatal(err)
		}
		rt.Dial(t, path(dir))
		if _, err := listen(dir, alone, func(o *router.Options) { o.Listen = "127.0.0.1:0" }); err != nil {
			t.Errorf("at another port: %v", err)
		}
		end(r)
	})
	for _, k := range []struct {
		change func(*router.Options)
		want   string
	}{
		{atSocket("relative"), "absolute path"},
		{atSocket("/" + strings.Repeat("x", 100)), "too long"},
		{func(o *router.Options) { o.UnixSocketDir, o.ReusePort = "@x", true }, "abstract"},
		{func(o *router.Options) { o.UnixSocketDir, o.UnixSocketMode, o.ReusePort = "@x", "0700", false }, "no permissions"},
		{func(o *router.Options) { o.UnixSocketMode = "rwx" }, "octal"},
		{func(o *router.Options) { o.UnixSocketMode = "1777" }, "octal"},
	} {
		if _, err := listen("", k.change); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%v, want %q", err, k.want)
		}
	}
}

// foreignSocket is the variable that makes the test binary a program that listens at the Unix-domain socket that it names, until its input ends.
const foreignSocket = "HOWDAH_TEST_FOREIGN_SOCKET"

func listenAtForeignSocket(path string) int {
	l, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// foreigner has another program listen at path until the test's end.
func foreigner(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "foreign")
	if err := os.Link(self, program); err != nil {
		b, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program)
	cmd.Env, cmd.Stderr = append(os.Environ(), foreignSocket+"="+path), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// Rules of the type local are for Unix-domain sockets, and no others are; peer takes the word of the kernel.
func TestRulesOfUnixSockets(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	g := startLogging(t, zap.New(core), knows(t, map[string]string{"alice": "secret"}, nil), atSocket(socketDir(t)), func(o *router.Options) {
		o.Rules = []string{
			"local all bob reject", "local all alice scram-sha-256", "local all " + me.Username + " peer", "local mapped all peer map=staff", "local all other peer", "host all carol all pass-through",
		}
		o.IdentMap = []string{"staff " + me.Username + " dora"}
	})
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for _, k := range []struct{ user, database, code, want string }{
		{"bob", "x", "28000", `a rule of this router rejects host "[local]", user "bob", database "x", no encryption`},
		{"carol", "x", "28000", `no rule of this router for host "[local]", user "carol", database "x", no encryption`},
		{"other", "x", "28000", `Peer authentication failed for user "other"`},
		{"erin", "mapped", "28000", `Peer authentication failed for user "erin"`},
		{me.Username, "x", "", ""}, {"dora", "mapped", "", ""},
	} {
		c := rt.Dial(t, g.SocketPath(route.Auto))
		c.Send(rt.Startup("user", k.user, "database", k.database))
		if k.code == "" {
			server.Accept().Welcome(rt.KeyData(4711, "sekr"))
			c.Welcomed()
		} else if e := c.ExpectError(k.code); e.Message != k.want {
			t.Errorf("%s: told %s, want %s", k.user, e.Message, k.want)
		}
	}
	if text := fmt.Sprint(logs.FilterMessage("client turned away").All()); !strings.Contains(text, "the user of the operating system is") || !strings.Contains(text, "no line of ident-map lets") {
		t.Errorf("logged %s", text)
	}
	v := credentials(t, "alice", "secret").Verifier()
	c := rt.Dial(t, g.SocketPath(route.Auto))
	c.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	m := offers(s, v)
	p := proves(c, scram.Channel{}, "alice", "secret")
	checks(s, m, "alice", v)
	s.Send(rt.AuthOK, welcome[0], welcome[1])
	accepted(c, p)
	tcp := g.client(t, route.Auto)
	tcp.Send(rt.Startup("user", "alice"))
	tcp.ExpectError("28000")
	server.ExpectNobody()
}

// psql by a Unix-domain socket, with a password of either kind and by peer, reaches primary and standby.
func testUnixSocketWithPostgres(t *testing.T, a *authenticating) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	o := a.options
	o.Rules = []string{"local mapped all reject", "local all trusted peer map=m", "local all all md5"}
	o.IdentMap = []string{"m " + me.Username + " trusted"}
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "older", "trusted"} {
		for of, at := range map[route.Route]string{route.RW: "one", route.RO: "two", route.Auto: "one"} {
			dir, name := filepath.Split(a.SocketPath(of))
			how := fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=prefer", dir, strings.TrimPrefix(name, ".s.PGSQL."), user)
			out, err := psql(t, how, postgrestest.Password, "SELECT current_user, current_setting('cluster_name')")
			if err != nil || out != user+"|"+at {
				t.Errorf("%s at %s: %v: %s", user, of, err, out)
			}
			if out, err := psql(t, how, "wrong password", "SELECT 1"); (err == nil) != (user == "trusted") {
				t.Errorf("%s at %s with a wrong password: %v: %s", user, of, err, out)
			}
		}
	}
	o.Rules, o.IdentMap = nil, nil
	if err := a.Apply(o); err != nil {
		t.Fatal(err)
	}
}
