package router_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/router"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
)

// Whoever looks whether the port is open is no error: load balancers do it every few seconds.
func TestProbesAreNotLogged(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	option, _ := withTLS(t, t.TempDir(), router.TLSAllow)
	g := startLogging(t, zap.New(core), option)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	until(t, "the primary to be known", func() bool { return g.Status().Primary == "one" })
	logs.TakeAll()
	noticed := func() int {
		return logs.FilterMessage("connection closed before a startup packet").Len() + logs.FilterMessage("connection lost before a startup packet was complete").Len()
	}
	for name, probe := range map[string]func(*rt.Peer){
		"connect and close":      func(*rt.Peer) {},
		"connect and reset":      func(p *rt.Peer) { p.SetLinger(0) },
		"half a startup packet":  func(p *rt.Peer) { p.Send(rt.Startup("user", "alice")[:9]) },
		"three bytes":            func(p *rt.Peer) { p.Send([]byte{0, 0, 0}) },
		"TLS asked for":          func(p *rt.Peer) { p.Send(rt.SSLRequest); p.Expect([]byte{'S'}) },
		"GSS asked for":          func(p *rt.Peer) { p.Send(rt.GSSENCRequest); p.Expect([]byte{'N'}) },
		"a handshake begun":      func(p *rt.Peer) { p.Send(rt.SSLRequest); p.Expect([]byte{'S'}); p.Send([]byte{0x16, 3, 1, 2, 0}) },
		"a handshake without":    func(p *rt.Peer) { p.Send([]byte{0x16, 3, 1, 2, 0}) },
		"asked for and reset":    func(p *rt.Peer) { p.Send(rt.SSLRequest); p.Expect([]byte{'S'}); p.SetLinger(0) },
		"nothing but half-close": func(p *rt.Peer) { p.CloseWrite(); p.ExpectClose() },
	} {
		for _, of := range []route.Route{route.Auto, route.RW, route.RO} {
			before := noticed()
			p := g.client(t, of)
			probe(p)
			p.Close()
			until(t, name+" to be noticed", func() bool { return noticed() > before })
		}
	}
	for _, e := range logs.All() {
		if e.Level > zapcore.DebugLevel {
			t.Errorf("logged: %s %s %v", e.Level, e.Message, e.ContextMap())
		}
	}
	server.ExpectNobody()
	if _, metrics := g.get(t, "/metrics"); strings.Contains(metrics, "\nhowdah_router_errors_total{") {
		t.Error("probes count as errors")
	}
}

// transcript is a log as it is written, for all to read.
type transcript struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Passwords, keys, and what clients say and are told stand in no log, whatever its level, nor in what the API shows; also not in errors.
func TestSecretsAreNotLogged(t *testing.T) {
	var out transcript
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zapcore.DebugLevel))
	const right = "right-password"
	alice := credentials(t, "alice", right).Verifier()
	m := &movable{t: t, one: rt.Listen(t, ""), two: rt.Listen(t, "")}
	m.rig = startLogging(t, log, knows(t, map[string]string{"alice": right}, nil), func(o *router.Options) { o.StatementRouting, o.Consistency = true, route.Eventual })
	m.know.Hear(rt.Primary("one", m.one.Address(), 1))
	login := func(password string) (client, server *rt.Peer, key string) {
		client = m.rig.client(t, route.Auto)
		client.Send(rt.Startup("user", "alice", "options", "-c my.key=option-secret"))
		server = m.one.Accept()
		s := offers(server, alice)
		p := proves(client, scram.Channel{}, "alice", password)
		if password != right {
			return client, server, ""
		}
		checks(server, s, "alice", alice)
		server.Send(rt.AuthOK, rt.KeyData(4711, "server-key-secret"), rt.Ready('I'))
		accepted(client, p)
		_, body := client.Next()
		client.Expect(rt.Ready('I'))
		return client, server, string(body)
	}
	wrong, _, _ := login("wrong-password")
	wrong.ExpectError("28P01")
	client, server, key := login(right)
	client.Send(rt.Query("INSERT INTO t VALUES ('literal-secret')"))
	server.Expect(rt.Query("INSERT INTO t VALUES ('literal-secret')"))
	server.Send(rt.Error("23505", "Key (a)=(message-secret) already exists."), rt.Ready('I'))
	client.ExpectError("23505")
	client.Expect(rt.Ready('I'))
	bind := rt.Message('B', rt.Text("", ""), rt.Int16(0), rt.Int16(1), rt.Int32(11), []byte("bind-secret"), rt.Int16(0))
	client.Send(bind, rt.Execute(""), rt.Sync)
	server.Expect(bind, rt.Execute(""), rt.Sync)
	server.Send(rt.Ready('I'))
	client.Expect(rt.Ready('I'))
	for _, k := range []string{key, key[:len(key)-1] + "!"} {
		cancel := m.rig.client(t, route.Auto)
		cancel.Send(cancelRequest([]byte(k)))
		if k == key {
			m.one.Accept().Close()
		}
		cancel.ExpectClose()
	}
	client.Send(rt.Message('p', rt.Text("late-secret")))
	client.ExpectError("08P01")
	bad := m.rig.client(t, route.Auto)
	bad.Send(append(rt.Startup("user", "alice", "password", "startup-secret")[:20], 'x'))
	bad.Close()
	client, server, _ = login(right)
	client.Send(rt.Query("SELECT 'fatal'"))
	server.Expect(rt.Query("SELECT 'fatal'"))
	server.Send(rt.Fatal("57P01", "fatal-secret"))
	server.Close()
	client.ExpectError("57P01")

	// A setting that another server does not take: on a standby, and at the next primary.
	set, refused := rt.Query("SET my.key = 'setting-secret'"), rt.Error("22023", "invalid value for parameter: setting-secret")
	client, server, _ = login(right)
	ask(client, server, "SET my.key = 'setting-secret'")
	three := rt.Listen(t, "")
	m.know.Hear(rt.Standby("three", three.Address(), 1))
	until(t, "the standby to be known", func() bool { return len(m.Status().Standbys) == 1 })
	client.Send(rt.Query("SELECT 1"))
	standby := three.Accept()
	checks(standby, offers(standby, alice), "alice", alice)
	standby.Send(rt.AuthOK, rt.KeyData(99, "standby-key-secret"), rt.Ready('I'))
	standby.Expect(set)
	standby.Send(refused, rt.Ready('I'))
	answer(client, server, "SELECT 1")
	mover, moving, _ := login(right)
	ask(mover, moving, "SET my.key = 'setting-secret'")
	m.takeOver()
	mover.Send(rt.Query("INSERT INTO t VALUES (1)"))
	next := m.two.Accept()
	checks(next, offers(next, alice), "alice", alice)
	next.Send(rt.AuthOK, rt.KeyData(99, "next-key-secret"), rt.Ready('I'))
	next.Expect(set)
	next.Send(refused, rt.Ready('I'))
	mover.ExpectError("57P01")

	passwordInClear(t, log)
	for _, path := range []string{"/status", "/metrics", "/events", "/health"} {
		_, body := m.get(t, path)
		out.Write([]byte(body))
	}
	m.stop()
	all := out.String()
	for _, secret := range []string{
		right, "wrong-password", "literal-secret", "message-secret", "bind-secret", "late-secret", "startup-secret", "fatal-secret", "option-secret", "setting-secret",
		"server-key-secret", "standby-key-secret", "next-key-secret", key[2:], "clear-secret", "server-nonce", "client-nonce", string(salt), "SCRAM-SHA-256$",
	} {
		b := []byte(secret)
		for _, form := range []string{secret, fmt.Sprintf("%q", secret), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), strings.Trim(fmt.Sprint(b), "[]")} {
			if i := strings.Index(all, form); i >= 0 {
				t.Errorf("the log holds %q: %s", form, all[max(0, i-200):min(len(all), i+100)])
			}
		}
	}
	if !strings.Contains(all, "client turned away") || !strings.Contains(all, "session begins") {
		t.Errorf("the log is not the whole one: %s", all)
	}
}

// passwordInClear has a password go through a router that passes logins on, to a server that refuses it, and to one that vanishes.
func passwordInClear(t *testing.T, log *zap.Logger) {
	t.Helper()
	g := startLogging(t, log)
	server := rt.Listen(t, "")
	g.know.Hear(rt.Primary("one", server.Address(), 1))
	for _, last := range [][]byte{rt.Fatal("28P01", "password authentication failed"), nil} {
		client := g.client(t, route.Auto)
		client.Send(rt.Startup("user", "alice"))
		s := server.Accept()
		s.ExpectStartup()
		s.Send(rt.Message('R', rt.Int32(3)))
		client.Expect(rt.Message('R', rt.Int32(3)))
		client.Send(rt.Message('p', rt.Text("clear-secret")))
		s.Expect(rt.Message('p', rt.Text("clear-secret")))
		s.Send(last)
		s.Close()
		client.Next()
		client.ExpectClose()
	}
}
