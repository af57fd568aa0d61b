package router

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"howdah/router/rule"
	"howdah/router/wire"
)

// parseRules reads o.Rules. The error tells of every line that is none.
func (o Options) parseRules() ([]rule.Rule, error) {
	var rules []rule.Rule
	var errs []error
	for i, line := range o.Rules {
		r, err := rule.Parse(line)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("rules: line %d, %q: %w", i+1, line, err))
		case r.Method == rule.SCRAM && o.OwnPassword == nil:
			errs = append(errs, fmt.Errorf("rules: line %d, %q: %s needs the password of the role howdah_router; give router-password-file", i+1, line, r.Method))
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(errs...)
}

// underRules finds out whether the client may connect, and who authenticates it. Who may not is told so before anything else, whether its user
// exists or not.
func (c *client) underRules() *wire.Error {
	o := c.r.live()
	c.auth = o.AuthType
	if len(o.parsed) == 0 {
		return nil
	}
	p := c.startup.Parameters
	who := rule.Client{TLS: c.conn.tls != nil, User: p["user"], Database: p["database"], Replication: physical(p["replication"])}
	if who.Database == "" {
		who.Database = who.User
	}
	host := c.conn.RemoteAddr().String()
	if a, is := c.conn.RemoteAddr().(*net.TCPAddr); is {
		who.Address = a.AddrPort().Addr().Unmap()
		host = who.Address.String()
	}
	method, found := rule.Find(o.parsed, who)
	encryption, database := "no encryption", fmt.Sprintf("database \"%s\"", who.Database)
	if who.TLS {
		encryption = "SSL encryption"
	}
	if who.Replication {
		database = "replication"
	}
	switch {
	case !found:
		return wire.Fatal(wire.CodeInvalidAuthorization, "no rule of this router for host \"%s\", user \"%s\", %s, %s", host, who.User, database, encryption)
	case method == rule.Reject:
		return wire.Fatal(wire.CodeInvalidAuthorization, "a rule of this router rejects host \"%s\", user \"%s\", %s, %s", host, who.User, database, encryption)
	case method == rule.PassThrough:
		c.auth = AuthPassThrough
	default:
		c.auth = AuthSCRAM
	}
	return nil
}

// physical reports whether a startup parameter asks for replication of the whole cluster. It takes for true what parse_bool does (PostgreSQL's
// src/backend/utils/adt/bool.c): a connection that PostgreSQL takes for one must not slip under a rule for databases.
func physical(replication string) bool {
	v := strings.ToLower(replication)
	return v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v)) || v == "on" || v == "1"
}
