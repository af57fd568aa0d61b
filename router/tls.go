package router

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/rule"
	"howdah/router/wire"
)

// TLSMode says which clients are let in.
type TLSMode string

// The modes, named after what libpq's sslmode calls them on its side.
const (
	// TLSDisable declines TLS.
	TLSDisable TLSMode = "disable"
	// TLSAllow offers TLS to those who ask for it.
	TLSAllow TLSMode = "allow"
	// TLSRequire refuses a session without it.
	TLSRequire TLSMode = "require"
)

// tlsVersions are the values of tls-min-version, as PostgreSQL spells them in ssl_min_protocol_version.
var tlsVersions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

// alpn is the protocol that PostgreSQL registered with IANA (PG_ALPN_PROTOCOL, src/include/libpq/pqcomm.h).
const alpn = "postgresql"

// certificate is the router's key pair, read again when its files have changed.
type certificate struct {
	certFile, keyFile string
	prefix            string // of the two options: "" or "server-"
	now               func() schema.Instant
	log               *zap.Logger

	mu    sync.Mutex
	pair  *tls.Certificate
	seen  [2]time.Time // the files' modification times at the last attempt
	asked schema.Instant
}

// certificateEvery is how often the files are looked at, at most: a new pair is in force after it.
const certificateEvery = time.Second

// get returns the pair for a handshake. While new files are not a pair, the one before stays in force.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.pair != nil && now.Sub(c.asked) < certificateEvery {
		return c.pair, nil
	}
	c.asked = now
	var seen [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		seen[i] = modified(name)
	}
	if c.pair != nil && seen == c.seen {
		return c.pair, nil
	}
	c.seen = seen
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		if c.pair != nil {
			c.log.Info("certificate read again", zap.String("file", c.certFile))
		}
		c.pair = &pair
	case c.pair == nil:
		return nil, fmt.Errorf("%[1]stls-cert-file %[2]s, %[1]stls-key-file %[3]s: %[4]w", c.prefix, c.certFile, c.keyFile, err)
	default:
		c.log.Error("the new certificate cannot be used, the one before stays in force", zap.String("file", c.certFile), zap.Error(err))
	}
	return c.pair, nil
}

// use goes over to the pair of other files.
func (c *certificate) use(certFile, keyFile string, pair *tls.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.certFile, c.keyFile, c.pair, c.seen = certFile, keyFile, pair, [2]time.Time{}
}

// listenTLS makes the configuration of the handshakes; nil where TLS is off.
func (r *Router) listenTLS() (*tls.Config, error) {
	if r.o.TLSMode == TLSDisable {
		return nil, nil
	}
	c := &certificate{certFile: r.o.TLSCertFile, keyFile: r.o.TLSKeyFile, now: r.now, log: r.log}
	if _, err := c.get(nil); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r.pair = c
	r.clientAuthorities = &authorities{option: clientCAFile, file: r.o.TLSClientCAFile, now: r.now, log: r.log}
	if _, err := r.clientAuthorities.get(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	// No session is resumed, as with PostgreSQL: channel binding is to the certificate that was shown.
	return &tls.Config{GetCertificate: c.get, MinVersion: tlsVersions[r.o.TLSMinVersion], NextProtos: []string{alpn}, SessionTicketsDisabled: true}, nil
}

// errHandshake is a handshake that failed. The client has been sent an alert where there was one to send; nothing that is
// not TLS may follow.
type errHandshake struct{ error }

func (e errHandshake) Unwrap() error { return e.error }

// handshake goes over to TLS. l's deadline bounds it. With direct set the client began without an SSLRequest: then it must have agreed on
// PostgreSQL's protocol by ALPN, so that no other server's client can be led here (ProcessSSLStartup, src/backend/tcop/backend_startup.c).
func (r *Router) handshake(ctx context.Context, l *link, direct bool) error {
	var shown *tls.Certificate
	config := r.tls.Clone()
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (c *tls.Certificate, err error) {
		c, err = r.tls.GetCertificate(hello)
		shown = c
		return c, err
	}
	// A certificate is asked for and not demanded, as by PostgreSQL with ssl_ca_file: whether there must be one the rules say, once the user is known.
	roots, err := r.clientAuthorities.get()
	if err != nil {
		return errHandshake{err}
	}
	if roots != nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, roots
	}
	conn := tls.Server(l.Conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return errHandshake{fmt.Errorf("TLS handshake: %w", err)}
	}
	if direct && conn.ConnectionState().NegotiatedProtocol != alpn {
		return errHandshake{errors.New("TLS handshake: begun directly and without ALPN protocol postgresql")}
	}
	if shown := conn.ConnectionState().PeerCertificates; len(shown) > 0 {
		subject, err := rule.ReadSubject(shown[0].RawSubject)
		if err != nil {
			return errHandshake{err}
		}
		l.subject = &subject
	}
	l.secure(conn)
	l.endPoint = endPoint(shown.Leaf)
	return nil
}

// endPoint is the hash of a certificate that channel binding with tls-server-end-point has (RFC 5929, section 4.1): by the hash of the certificate's
// own signature, but never by a broken one. Nil where that is not defined.
func endPoint(c *x509.Certificate) []byte {
	switch c.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.DSAWithSHA256, x509.ECDSAWithSHA256:
		sum := sha256.Sum256(c.Raw)
		return sum[:]
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		sum := sha512.Sum384(c.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		sum := sha512.Sum512(c.Raw)
		return sum[:]
	}
	return nil
}

// answerSSL answers an SSLRequest, and shakes hands where TLS is offered.
func (r *Router) answerSSL(ctx context.Context, l *link) error {
	if r.tls == nil || l.local() {
		_, err := l.Write([]byte{'N'})
		return err
	}
	// What was sent in clear before the answer could have been put there by somebody in between (CVE-2021-23214).
	early, err := l.unread()
	if err != nil {
		return err
	}
	if early {
		return wire.Fatal(wire.CodeProtocolViolation, "received unencrypted data after SSL request").
			WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
	}
	if _, err := l.Write([]byte{'S'}); err != nil {
		return err
	}
	return r.handshake(ctx, l, false)
}

// encrypted refuses a session in clear where TLS is required.
func (r *Router) encrypted(l *link, s wire.Startup) error {
	if r.o.TLSMode != TLSRequire || l.tls != nil || l.local() || s.Kind != wire.KindStartup {
		return nil
	}
	return wire.Fatal(wire.CodeInvalidAuthorization, "this router takes no connection without TLS").
		WithHint("Connect with sslmode=require or higher.")
}

// validateTLS returns the mistakes of the TLS options.
func (o Options) validateTLS() []error {
	var errs []error
	switch o.TLSMode {
	case TLSDisable:
		if o.TLSCertFile != "" || o.TLSKeyFile != "" || o.TLSClientCAFile != "" {
			errs = append(errs, errors.New("tls-mode: disable does not go with tls-cert-file, tls-key-file and tls-client-ca-file; choose allow or require, or leave the files out"))
		}
	case TLSAllow, TLSRequire:
		if o.TLSCertFile == "" || o.TLSKeyFile == "" {
			errs = append(errs, fmt.Errorf("tls-mode: %s needs both tls-cert-file and tls-key-file", o.TLSMode))
		}
	default:
		errs = append(errs, fmt.Errorf("tls-mode: %q is not allowed; choose disable, allow or require", o.TLSMode))
	}
	if _, known := tlsVersions[o.TLSMinVersion]; !known {
		errs = append(errs, fmt.Errorf("tls-min-version: %q is not allowed; choose TLSv1.2 or TLSv1.3", o.TLSMinVersion))
	}
	return errs
}

// handshakeEnded reports a handshake that a peer or a network ended, as scanners and health checks do, rather than one
// that two sides could not agree on.
func handshakeEnded(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
