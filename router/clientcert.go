package router

import (
	"crypto/tls"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"howdah/router/rule"
	"howdah/router/scram"
	"howdah/router/wire"
)

// clientCAFile is the option with the authorities of clients' certificates.
const clientCAFile = "tls-client-ca-file"

// underCertificate holds the client's certificate, which the handshake has verified, against what its rule wants. The order and what the client is told are
// PostgreSQL's: ClientAuthentication and CheckCertAuth, src/backend/libpq/auth.c.
func (c *client) underCertificate(r rule.Rule, mappings []rule.Mapping) error {
	c.vouched = r.Method == rule.Cert || r.Method == rule.Trust
	if !r.Certificate.Wanted {
		return nil
	}
	if c.conn.subject == nil {
		return wire.Fatal(wire.CodeInvalidAuthorization, "connection requires a valid client certificate")
	}
	user := c.user
	if r.Certificate.Named {
		c.otherName = otherName(*c.conn.subject, r.Certificate, mappings, user)
	}
	switch {
	case r.Method.ByPassword(): // a client that does not know the password learns nothing of the certificate
		return nil
	case c.otherName != "" && r.Method == rule.Trust:
		return because{wire.Fatal(wire.CodeInvalidAuthorization, "\"trust\" authentication failed for user \"%s\"", user), c.otherName}
	case c.otherName != "":
		return because{wire.Fatal(wire.CodeInvalidAuthorization, "certificate authentication failed for user \"%s\"", user), c.otherName}
	}
	return nil
}

// otherName says why a certificate is not user's; nothing if it is.
func otherName(s rule.Subject, want rule.Certificate, mappings []rule.Mapping, user string) string {
	name := s.CN
	if want.DN {
		name = s.DN
	}
	switch {
	case name == "":
		return "the client certificate contains no user name"
	case len(user) > rule.MaxName: // PostgreSQL cuts it off, so it would not be the name that was certified
		return "the user name is longer than that of any role"
	case want.Map == "" && name != user:
		return fmt.Sprintf("the client certificate is for %q", name)
	case want.Map != "" && !rule.Allows(mappings, want.Map, name, user):
		return fmt.Sprintf("no line of ident-map lets %q be this user by the map %q", name, want.Map)
	}
	return ""
}

// rightName refuses a client whose password was right, or is for the server to check, and whose certificate is another's.
func (c *client) rightName() error {
	if c.otherName == "" {
		return nil
	}
	return because{refused(c.user), c.otherName}
}

// noKey is the end of a client that the router vouches for, at a server that asks for more: the router knows nothing that only the user knows.
func (c *client) noKey(server *link, s *scram.Client, message []byte) error {
	method := scram.Mechanism
	var other *scram.ErrMethod
	if _, err := s.Request(message[wire.HeaderSize:]); errors.As(err, &other) {
		method = other.Method
	} else if s.Asked().MD5 {
		method = "an md5 password"
	}
	detail := "The router has shown it its own certificate, which a line of the server's pg_hba.conf before the one that matched could take."
	switch {
	case c.r.serverPair == nil:
		detail = "The router has no certificate of its own to show it (server-tls-cert-file)."
	case server.tls == nil:
		detail = "The connection to it is without TLS (server-tls-mode), so the router could not show its own certificate."
	case !server.showed:
		detail = "It has not asked for the router's own certificate; it does so with ssl_ca_file."
	}
	reason := "has shown this router a certificate"
	switch c.method {
	case rule.Trust:
		reason = "is trusted by a rule of this router"
	case rule.Peer:
		reason = "is known to this router by its user of the operating system"
	}
	return final{wire.Fatal(wire.CodeInvalidAuthorization, "%s asks for %s, and user \"%s\" %s", c.backend.member, method, c.user, reason).
		WithDetail("%s", detail).
		WithHint("Let the router in as this user by its certificate: \"hostssl all all ROUTER cert map=router\" in the server's pg_hba.conf, \"router NAME USER\" in its pg_ident.conf.")}
}

// relayable refuses to relay the session of a client whom nobody has asked for a proof: the server took the router's certificate for one.
func (c *client) relayable(server *link, message []byte) error {
	if !server.showed || !isOK(message) {
		return nil
	}
	return final{wire.Fatal(wire.CodeInvalidAuthorization, "%s lets in whom this router names, and nobody has authenticated user \"%s\"", c.backend.member, c.user).
		WithDetail("The router has shown it its own certificate (server-tls-cert-file), and passes the login of this client through.").
		WithHint("Have the router authenticate the client: auth-type scram, or a rule with the method scram-sha-256 or cert.")}
}

// maxLogged bounds what the log holds of a name that a stranger chose.
const maxLogged = 200

// why is what only the log is told of an error.
func why(err error) []zap.Field {
	var hidden because
	if errors.As(err, &hidden) {
		return []zap.Field{zap.String("detail", hidden.reason)}
	}
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) && len(bad.UnverifiedCertificates) > 0 {
		c := bad.UnverifiedCertificates[0]
		short := func(name string, v any) zap.Field { return zap.String(name, fmt.Sprintf("%.*s", maxLogged, v)) }
		return []zap.Field{short("subject", c.Subject), short("issuer", c.Issuer), short("serial", c.SerialNumber.Text(16))}
	}
	return nil
}
