package consul

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"howdah/consul/boottime"
	"howdah/consul/embedded"
	"howdah/consul/schema"
)

func newTestClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Cluster == "" {
		o.Cluster = "test"
	}
	c, err := New(o, boottime.Now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve puts wrap round an embedded server.
func serve(t *testing.T, wrap func(next http.Handler) http.Handler) string {
	t.Helper()
	s := embedded.New(zap.NewNop())
	h := httptest.NewServer(wrap(s.Handler()))
	t.Cleanup(func() {
		s.Close()
		h.Close()
	})
	return h.URL
}

func leader(member string, epoch schema.Epoch) schema.Leader {
	return schema.Leader{Member: member, Epoch: epoch, Phase: schema.PhaseServing, Lease: schema.Duration(3 * time.Second)}
}

func held(t *testing.T, c *Client) schema.LockView {
	t.Helper()
	id, err := c.NewSession(t.Context(), 10*time.Second, "a")
	if err != nil {
		t.Fatal(err)
	}
	at, err := c.Acquire(t.Context(), schema.LockView{Known: true}, id, leader("a", 1))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A transaction that was carried out and whose answer got lost is neither a success nor a refusal.
func TestAnswerLost(t *testing.T) {
	var lose atomic.Bool
	c := newTestClient(t, Options{Address: serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !lose.Load() {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(httptest.NewRecorder(), r)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		})
	})})
	at := held(t, c)
	lose.Store(true)
	_, err := c.Renew(t.Context(), at, at.Leader)
	if err == nil || errors.Is(err, ErrRefused) || !OutcomeUnknown(err) {
		t.Fatalf("want an outcome that is not known, got %v", err)
	}
	lose.Store(false)
	if _, err := c.Renew(t.Context(), at, at.Leader); !errors.Is(err, ErrRefused) {
		t.Fatalf("it was carried out: want a refusal of the old view, got %v", err)
	}
	now, err := c.ReadLeader(t.Context())
	if err != nil || now.Index <= at.Index || !now.HeldBy(at.Session) {
		t.Fatalf("read %+v, %v", now, err)
	}
}

// Every call ends with its context, and a call without a deadline has one all the same.
func TestContext(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	c := newTestClient(t, Options{Address: serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-block:
			case <-r.Context().Done():
			}
		})
	})})
	at := schema.LockView{Known: true, Exists: true, Index: 5, Session: "s", Leader: leader("a", 1)}
	own := leader("a", 1)
	own.Session = "s"
	one := func(_ any, err error) error { return err }
	for name, call := range map[string]func(ctx context.Context) error{
		"new session":     func(ctx context.Context) error { return one(c.NewSession(ctx, 10*time.Second, "x")) },
		"renew session":   func(ctx context.Context) error { return c.RenewSession(ctx, "s") },
		"destroy session": func(ctx context.Context) error { return c.DestroySession(ctx, "s") },
		"read leader":     func(ctx context.Context) error { return one(c.ReadLeader(ctx)) },
		"read state":      func(ctx context.Context) error { return one(c.ReadState(ctx)) },
		"acquire":         func(ctx context.Context) error { return one(c.Acquire(ctx, schema.LockView{Known: true}, "s", own)) },
		"renew":           func(ctx context.Context) error { return one(c.Renew(ctx, at, own)) },
		"take over":       func(ctx context.Context) error { return one(c.TakeOver(ctx, at, "t", leader("b", 2))) },
		"release":         func(ctx context.Context) error { return one(c.Release(ctx, at, own)) },
		"put":             func(ctx context.Context) error { return c.PutMember(ctx, schema.Member{Name: "a"}, 0) },
		"delete":          func(ctx context.Context) error { return c.DeleteMember(ctx, "a", 1) },
		"register":        func(ctx context.Context) error { return c.Register(ctx, Service{ID: "x", Name: "x"}) },
		"deregister":      func(ctx context.Context) error { return c.Deregister(ctx, "x") },
		"check access":    func(ctx context.Context) error { return c.CheckAccess(ctx, true) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := call(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !OutcomeUnknown(err) {
			t.Errorf("%s: want a timeout with an unknown outcome, got %v", name, err)
		}
	}
	ctx, cancel := bounded(context.Background())
	defer cancel()
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > callTimeout {
		t.Error("a call without a deadline goes without")
	}
}

func TestStatusCodes(t *testing.T) {
	for code, want := range map[int]struct{ unknown, denied bool }{
		400: {}, 403: {denied: true}, 405: {}, 413: {},
		404: {unknown: true}, 429: {unknown: true}, 500: {unknown: true}, 502: {unknown: true}, 503: {unknown: true},
		302: {unknown: true}, 409: {unknown: true}, // without an Errors array it is not Consul's
	} {
		c := newTestClient(t, Options{Address: serve(t, func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(code)
				_, _ = w.Write([]byte("{}"))
			})
		})})
		at := schema.LockView{Known: true, Exists: true, Index: 5, Session: "s", Leader: leader("a", 1)}
		own := leader("a", 1)
		own.Session = "s"
		_, err := c.Renew(t.Context(), at, own)
		if err == nil || errors.Is(err, ErrRefused) || OutcomeUnknown(err) != want.unknown || errors.Is(err, ErrDenied) != want.denied {
			t.Errorf("%d: want %+v, got %v (unknown %v)", code, want, err, OutcomeUnknown(err))
		}
		// A 404 that is not Consul's is not an empty cluster.
		if v, err := c.ReadLeader(t.Context()); err == nil || v.Known {
			t.Errorf("%d: read the leader as %+v, %v", code, v, err)
		}
		if s, err := c.ReadState(t.Context()); err == nil || s.Leader.Known {
			t.Errorf("%d: read the state as %+v, %v", code, s, err)
		}
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for want, o := range map[string]Options{
		`cluster: ""`:            {},
		`cluster: "a/b"`:         {Cluster: "a/b"},
		`cluster: "A"`:           {Cluster: "A"},
		"both set":               {Cluster: "a", Token: "x", TokenFile: file("t", "x")},
		"is empty":               {Cluster: "a", TokenFile: file("empty", "\n")},
		"no such file":           {Cluster: "a", TokenFile: filepath.Join(dir, "none")},
		"write https://":         {Cluster: "a", Address: "http://x:1", CAFile: file("ca", "")},
		`"ftp" is not allowed`:   {Cluster: "a", Address: "ftp://x:1"},
		"TLS to consul":          {Cluster: "a", Address: "https://x:1", CAFile: filepath.Join(dir, "none")},
		"client cert and client": {Cluster: "a", Address: "https://x:1", CertFile: filepath.Join(dir, "none")},
	} {
		if _, err := New(o, boottime.Now, zap.NewNop()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: want an error with %q, got %v", o, want, err)
		}
	}
}

func TestTokenIsSentAndKeptSecret(t *testing.T) {
	const secret = "5ecce7-5ecce7"
	var token, dc string
	address := serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, dc = r.Header.Get("X-Consul-Token"), r.URL.Query().Get("dc")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte("ACL not found"))
		})
	})
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Token: secret}, {TokenFile: path}} {
		o.Address, o.Datacenter = address, "mars"
		err := newTestClient(t, o).CheckAccess(t.Context(), true)
		if !errors.Is(err, ErrDenied) || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "ACL not found") {
			t.Errorf("got %v", err)
		}
		if token != secret || dc != "mars" {
			t.Errorf("sent the token %q and the datacenter %q", token, dc)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	s := embedded.New(zap.NewNop())
	defer s.Close()
	path := filepath.Join(t.TempDir(), "consul.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Second}
	go func() { _ = h.Serve(l) }() // ends with Close
	defer h.Close()
	if err := newTestClient(t, Options{Address: "unix://" + path}).CheckAccess(t.Context(), true); err != nil {
		t.Error(err)
	}
	err = newTestClient(t, Options{Address: "unix://" + path + "x"}).CheckAccess(t.Context(), true)
	if err == nil || OutcomeUnknown(err) || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("want an error that names the socket, got %v", err)
	}
}

// TestTLS: both sides show a certificate, and a client without one, or that trusts another authority, gets nowhere.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, ca := certificate(t, dir)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	s := embedded.New(zap.NewNop())
	defer s.Close()
	h := httptest.NewUnstartedServer(s.Handler())
	h.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	h.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	h.StartTLS()
	defer h.Close()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	good := Options{Address: h.URL, CAFile: certFile, CertFile: certFile, KeyFile: keyFile}
	if err := newTestClient(t, good).CheckAccess(t.Context(), true); err != nil {
		t.Error(err)
	}
	for what, o := range map[string]Options{
		"no authority":   {Address: h.URL, CertFile: certFile, KeyFile: keyFile},
		"no certificate": {Address: h.URL, CAFile: certFile},
	} {
		if err := newTestClient(t, o).CheckAccess(t.Context(), true); err == nil || !strings.Contains(err.Error(), h.URL) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if err := newTestClient(t, Options{Address: h.URL, CertFile: certFile, KeyFile: keyFile, InsecureSkipVerify: true}).CheckAccess(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// certificate makes one that is its own authority, for both sides, and writes it to cert.pem and key.pem.
func certificate(t *testing.T, dir string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for name, b := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pair, parsed
}
