package router

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"howdah/router/rule"
	"howdah/router/wire"
)

// parseRules reads o.Rules and o.IdentMap. The error tells of every line that is none.
func (o Options) parseRules() ([]rule.Rule, []rule.Mapping, error) {
	var rules []rule.Rule
	var mappings []rule.Mapping
	var errs []error
	for i, line := range o.IdentMap {
		m, err := rule.ParseMapping(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("ident-map: line %d, %q: %w", i+1, line, err))
		}
		mappings = append(mappings, m)
	}
	for i, line := range o.Rules {
		r, err := rule.Parse(line)
		named := func(m rule.Mapping) bool { return m.Map == r.Certificate.Map }
		switch {
		case err != nil:
		case r.Method.ByPassword() && o.OwnPassword == nil:
			err = fmt.Errorf("%s needs the password of the role howdah_router; give router-password-file", r.Method)
		case r.Certificate.Wanted && o.TLSClientCAFile == "":
			err = errors.New("client certificates can only be checked if their authorities are known; give " + clientCAFile)
		case r.Certificate.Map != "" && !slices.ContainsFunc(mappings, named):
			err = fmt.Errorf("no line of ident-map is of the map %q; add one, or leave map out", r.Certificate.Map)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rules: line %d, %q: %w", i+1, line, err))
		}
		rules = append(rules, r)
	}
	return rules, mappings, errors.Join(errs...)
}

// underRules finds out whether the client may connect, and who authenticates it. Who may not is told so before anything else, whether its user
// exists or not.
func (c *client) underRules() error {
	o := c.r.live()
	c.auth = o.AuthType
	if len(o.parsed) == 0 {
		return nil
	}
	who := rule.Client{TLS: c.conn.tls != nil, User: cut(c.user), Database: cut(c.database), Replication: physical(c.replication)}
	who.Local, who.Address = c.conn.local(), c.conn.address()
	host := localName
	if !who.Local {
		host = who.Address.String()
	}
	matched, found := rule.Find(o.parsed, who)
	encryption, database := "no encryption", fmt.Sprintf("database \"%s\"", who.Database)
	if who.TLS {
		encryption = "SSL encryption"
	}
	if who.Replication {
		database = "replication"
	}
	c.method = matched.Method
	switch {
	case !found:
		return wire.Fatal(wire.CodeInvalidAuthorization, "no rule of this router for host \"%s\", user \"%s\", %s, %s", host, who.User, database, encryption)
	case matched.Method == rule.Reject:
		return wire.Fatal(wire.CodeInvalidAuthorization, "a rule of this router rejects host \"%s\", user \"%s\", %s, %s", host, who.User, database, encryption)
	case matched.Method == rule.PassThrough:
		c.auth = AuthPassThrough
	default:
		c.auth = AuthSCRAM
	}
	if matched.Method == rule.Peer {
		return c.underPeer(matched, o.mappings)
	}
	return c.underCertificate(matched, o.mappings)
}

// physical reports whether a startup parameter asks for replication of the whole cluster. It takes for true what parse_bool does (PostgreSQL's
// src/backend/utils/adt/bool.c): a connection that PostgreSQL takes for one must not slip under a rule for databases.
func physical(replication string) bool {
	v := strings.ToLower(replication)
	return v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v)) || v == "on" || v == "1"
}
