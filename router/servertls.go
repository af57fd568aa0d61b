package router

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/wire"
)

// ServerTLSMode says whether connections to servers use TLS, and what their certificates must show; in libpq's words for sslmode.
type ServerTLSMode string

// The modes.
const (
	ServerTLSDisable    ServerTLSMode = "disable"
	ServerTLSPrefer     ServerTLSMode = "prefer"
	ServerTLSRequire    ServerTLSMode = "require"
	ServerTLSVerifyCA   ServerTLSMode = "verify-ca"
	ServerTLSVerifyFull ServerTLSMode = "verify-full"
)

// verifies reports whether certificates are held against server-tls-ca-file.
func (m ServerTLSMode) verifies() bool { return m == ServerTLSVerifyCA || m == ServerTLSVerifyFull }

// validateServerTLS returns the mistakes of the options about TLS to servers.
func (o Options) validateServerTLS() []error {
	switch {
	case !slices.Contains([]ServerTLSMode{ServerTLSDisable, ServerTLSPrefer, ServerTLSRequire, ServerTLSVerifyCA, ServerTLSVerifyFull}, o.ServerTLSMode):
		return []error{fmt.Errorf("server-tls-mode: %q is not allowed; choose disable, prefer, require, verify-ca or verify-full", o.ServerTLSMode)}
	case o.ServerTLSMode.verifies() && o.ServerTLSCAFile == "":
		return []error{fmt.Errorf("server-tls-mode: %s needs server-tls-ca-file", o.ServerTLSMode)}
	case !o.ServerTLSMode.verifies() && o.ServerTLSCAFile != "":
		return []error{fmt.Errorf("server-tls-ca-file: nothing is verified with server-tls-mode %s; choose verify-ca or verify-full, or leave the file out", o.ServerTLSMode)}
	case (o.ServerTLSCertFile == "") != (o.ServerTLSKeyFile == ""):
		return []error{errors.New("server-tls-cert-file: needs server-tls-key-file, and that needs this")}
	case o.ServerTLSCertFile != "" && o.ServerTLSMode == ServerTLSDisable:
		return []error{errors.New("server-tls-cert-file: is not shown to anybody with server-tls-mode disable; choose another mode, or leave it out")}
	}
	return nil
}

// relaysBetweenTLS reports whether SASL is relayed between two TLS connections. A client that can bind the channel then either binds it to the
// router's certificate, or says that it was not offered to; a server refuses both.
func (o Options) relaysBetweenTLS() bool {
	return (o.AuthType == AuthPassThrough || o.OwnPassword == nil) && o.TLSMode != TLSDisable && o.ServerTLSMode != ServerTLSDisable
}

// authorities are the certificates of a CA file, read again when it has changed.
type authorities struct {
	option string // the file's
	now    func() schema.Instant
	log    *zap.Logger

	mu    sync.Mutex
	file  string // empty for none
	pool  *x509.CertPool
	seen  time.Time
	asked schema.Instant
}

// get returns the authorities; nil without a file. While a new file has none, those before stay in force.
func (a *authorities) get() (*x509.CertPool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.file == "" || a.pool != nil && now.Sub(a.asked) < certificateEvery {
		return a.pool, nil
	}
	a.asked = now
	changed := modified(a.file)
	if a.pool != nil && changed.Equal(a.seen) {
		return a.pool, nil
	}
	a.seen = changed
	pool, err := readAuthorities(a.option, a.file)
	switch {
	case err == nil:
		if a.pool != nil {
			a.log.Info("authorities read again", zap.String("file", a.file))
		}
		a.pool = pool
	case a.pool == nil:
		return nil, err
	default:
		a.log.Error("the new authorities cannot be used, those before stay in force", zap.Error(err))
	}
	return a.pool, nil
}

// use goes over to a file that was read as pool when it had been modified at seen; to none if it is empty.
func (a *authorities) use(file string, pool *x509.CertPool, seen time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.file, a.pool, a.seen = file, pool, seen
}

// modified is when a file was modified; the zero time if nobody can say.
func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// readAuthorities reads the file of an option; none is no authority.
func readAuthorities(option, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; give a file that the router can read, with the certificates of the authorities in PEM", option, err)
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: certificate %d: %w", option, file, n+1, err)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: there is no PEM certificate in %s; put those of the authorities there, each from BEGIN to END CERTIFICATE", option, file)
	}
	return pool, nil
}

// prepareServerTLS reads the files for TLS to servers, so that a mistake shows at the start.
func (r *Router) prepareServerTLS() error {
	if r.o.ServerTLSMode.verifies() {
		r.authorities = &authorities{option: "server-tls-ca-file", file: r.o.ServerTLSCAFile, now: r.now, log: r.log}
		if _, err := r.authorities.get(); err != nil {
			return fmt.Errorf("router: %w", err)
		}
	}
	if r.o.ServerTLSCertFile != "" {
		r.serverPair = &certificate{certFile: r.o.ServerTLSCertFile, keyFile: r.o.ServerTLSKeyFile, prefix: "server-", now: r.now, log: r.log}
		if _, err := r.serverPair.get(nil); err != nil {
			return fmt.Errorf("router: %w", err)
		}
	}
	return nil
}

// errNoTLS is a server that declines TLS where it is required.
var errNoTLS = errors.New("the server does not support TLS, and server-tls-mode requires it")

// dialServer connects to a server, and goes over to TLS where server-tls-mode says so. ctx bounds all of it.
func (r *Router) dialServer(ctx context.Context, address string) (*link, error) {
	d := net.Dialer{Timeout: r.live().DialTimeout, KeepAliveConfig: r.keepAlive(), Control: func(_, _ string, raw syscall.RawConn) error {
		return r.setUserTimeout(raw)
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l := newLink(conn.(*net.TCPConn)) // a dialler of "tcp" makes no other
	if r.o.ServerTLSMode == ServerTLSDisable {
		return l, nil
	}
	stop := context.AfterFunc(ctx, func() { l.socket.SetDeadline(past) })
	defer stop()
	if err := r.askForTLS(ctx, l, address); err != nil {
		l.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return l, nil
}

// askForTLS sends an SSLRequest and does what the answer says. Not a byte more than the answer is read in clear, so nothing that somebody put behind it can be
// taken for a part of the session (CVE-2021-23222).
func (r *Router) askForTLS(ctx context.Context, l *link, address string) error {
	if _, err := l.Write(wire.SSLRequest()); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(l, answer[:]); err != nil {
		return fmt.Errorf("no answer to the request for TLS: %w", err)
	}
	switch {
	case answer[0] == 'N' && r.o.ServerTLSMode == ServerTLSPrefer:
		return nil
	case answer[0] == 'N':
		return errNoTLS
	case answer[0] != 'S':
		// An error in clear may come from anybody, so nobody is told what it says (CVE-2024-10977).
		return fmt.Errorf("the server answers the request for TLS with %q", rune(answer[0]))
	}
	config, err := r.serverTLS(l, address)
	if err != nil {
		return err
	}
	conn := tls.Client(l.Conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake with the server: %w", err)
	}
	l.secure(conn)
	if shown := conn.ConnectionState().PeerCertificates; len(shown) > 0 {
		l.endPoint = endPoint(shown[0])
	}
	return nil
}

// serverTLS is the configuration of a handshake by l with the server at address.
func (r *Router) serverTLS(l *link, address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{alpn}, InsecureSkipVerify: r.o.ServerTLSMode != ServerTLSVerifyFull}
	if r.serverPair != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			l.showed = true
			return r.serverPair.get(nil)
		}
	}
	if !r.o.ServerTLSMode.verifies() {
		return c, nil
	}
	roots, err := r.authorities.get()
	if err != nil {
		return nil, err
	}
	c.RootCAs = roots
	if r.o.ServerTLSMode == ServerTLSVerifyCA {
		// The chain alone: a certificate for another host will do.
		c.VerifyConnection = func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		}
	}
	return c, nil
}

// dialOwn is how the router's own connections are made.
func (r *Router) dialOwn(ctx context.Context, address string) (net.Conn, *net.TCPConn, error) {
	l, err := r.dialServer(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	return l.Conn, l.socket.(*net.TCPConn), nil // a dialler of "tcp" makes no other
}
