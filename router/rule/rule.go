// Package rule says who may connect to a router, by lines in the form of pg_hba.conf, and how many at one time (limit.go): the first that matches decides.
package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// Method is what becomes of a connection.
type Method string

// The methods.
const (
	// SCRAM: the router authenticates the client. MD5: and takes md5 from a role whose password is of that kind. Password: by its password in clear.
	SCRAM    Method = "scram-sha-256"
	MD5      Method = "md5"
	Password Method = "password"
	// PassThrough: the server authenticates the client. Reject: nobody does.
	PassThrough Method = "pass-through"
	Reject      Method = "reject"
	// Cert: the client's certificate is all the proof there is. Trust: there is none.
	Cert  Method = "cert"
	Trust Method = "trust"
	// Peer: the user of the operating system at the other end of a Unix-domain socket is.
	Peer Method = "peer"
)

var methods = []Method{SCRAM, MD5, Password, Cert, Peer, Trust, PassThrough, Reject}

// ByPassword reports whether the router has the client prove that it knows its role's password.
func (m Method) ByPassword() bool { return m == SCRAM || m == MD5 || m == Password }

// Rule is one line: type, database, user, address, method, options.
type Rule struct {
	kind             string // local, host, hostssl or hostnossl
	databases, users []word
	address          netip.Prefix // not valid: all
	Method           Method
	Certificate      Certificate
}

// Certificate is what a rule wants of a client's certificate beside a signature that holds.
type Certificate struct {
	// Wanted: there must be one. Named: and it must be the user's.
	Wanted, Named bool
	// DN: its name is the whole distinguished name, not the common name. Map is the ident map by which that, or with the method peer the name of
	// the user of the operating system, is a user's name; empty: it is one itself.
	DN  bool
	Map string
}

// word is a name, or without quotes perhaps a keyword.
type word struct {
	text   string
	quoted bool
}

func (w word) is(keyword string) bool { return !w.quoted && w.text == keyword }

// Client is who wants to connect.
type Client struct {
	Address        netip.Addr
	TLS            bool
	Local          bool // by a Unix-domain socket
	User, Database string
	// Replication: a physical replication connection, which belongs to no database.
	Replication bool
}

// Find returns the first rule that matches; false if none does.
func Find(rules []Rule, c Client) (Rule, bool) {
	for i := range rules {
		if rules[i].matches(c) {
			return rules[i], true
		}
	}
	return Rule{}, false
}

// matches follows check_hba in PostgreSQL's src/backend/libpq/hba.c.
func (r *Rule) matches(c Client) bool {
	switch {
	case (r.kind == "local") != c.Local:
		return false
	case r.kind == "hostssl" && !c.TLS, r.kind == "hostnossl" && c.TLS:
		return false
	case r.address.IsValid() && !r.address.Contains(c.Address.Unmap().WithZone("")):
		return false
	}
	user := slices.ContainsFunc(r.users, func(w word) bool { return w.is("all") || w.text == c.User })
	return user && slices.ContainsFunc(r.databases, func(w word) bool {
		switch {
		case c.Replication:
			return w.is("replication")
		case w.is("all"), w.is("sameuser") && c.Database == c.User:
			return true
		case w.is("sameuser"), w.is("replication"):
			return false
		}
		return w.text == c.Database
	})
}

// Parse reads a line. The error says what is allowed.
func Parse(line string) (Rule, error) {
	fields, err := split(line)
	if err == nil && len(fields) > 3 && len(fields[0]) == 1 && fields[0][0].text == "local" {
		fields = slices.Insert(fields, 3, []word{{text: "all"}}) // such a line has no address
	}
	switch {
	case err != nil:
		return Rule{}, err
	case len(fields) < 5:
		return Rule{}, fmt.Errorf("has %d fields; want type, database, user, address (not with local), method and perhaps options, as in pg_hba.conf", len(fields))
	}
	for _, i := range []int{0, 3, 4} {
		if len(fields[i]) != 1 {
			return Rule{}, errors.New("has a list where one word belongs; lists are for databases and users")
		}
	}
	r := Rule{kind: fields[0][0].text, databases: fields[1], users: fields[2], Method: Method(fields[4][0].text)}
	if !slices.Contains([]string{"local", "host", "hostssl", "hostnossl"}, r.kind) {
		return Rule{}, fmt.Errorf("begins with %q; choose local, host, hostssl or hostnossl", r.kind)
	}
	for _, w := range append(slices.Clone(r.databases), r.users...) {
		if !w.quoted && (w.text == "samerole" || w.text == "samegroup" || strings.IndexAny(w.text, "+@/") == 0) {
			return Rule{}, fmt.Errorf("has %q, which the router cannot know; choose all, sameuser, replication or names", w.text)
		}
	}
	if r.address, err = parseAddress(fields[3][0].text); err != nil {
		return Rule{}, err
	}
	if !slices.Contains(methods, r.Method) {
		return Rule{}, fmt.Errorf("has the method %q; choose one of %q", r.Method, methods)
	}
	switch {
	case r.Method == Cert && r.kind != "hostssl":
		return Rule{}, errors.New("has the method cert, for which it must begin with hostssl")
	case r.Method == Password && r.kind != "hostssl" && r.kind != "local":
		return Rule{}, errors.New("has the method password, for which it must begin with hostssl or local")
	case r.Method == Peer && r.kind != "local":
		return Rule{}, errors.New("has the method peer, for which it must begin with local")
	}
	for _, w := range slices.Concat(fields[5:]...) {
		if err := r.set(w.text); err != nil {
			return Rule{}, err
		}
	}
	if r.Method == Cert {
		r.Certificate.Wanted, r.Certificate.Named = true, true
	}
	return r, nil
}

// set takes an option, as parse_hba_auth_opt in PostgreSQL's src/backend/libpq/hba.c does.
func (r *Rule) set(option string) error {
	name, value, found := strings.Cut(option, "=")
	c := &r.Certificate
	switch {
	case !found || !slices.Contains([]string{"clientcert", "clientname", "map"}, name):
		return fmt.Errorf("has the option %q; choose clientcert=verify-ca, clientcert=verify-full, clientname=CN, clientname=DN or map=NAME", option)
	case name == "map" && r.Method != Cert && r.Method != Peer:
		return errors.New("has the option map, which is for the methods cert and peer only")
	case name == "map":
		c.Map = value
	case r.kind != "hostssl":
		return fmt.Errorf("has the option %s, for which it must begin with hostssl", name)
	case name == "clientname":
		if value != "CN" && value != "DN" {
			return fmt.Errorf("has clientname=%s; choose CN or DN", value)
		}
		c.DN = value == "DN"
	case value == "verify-full":
		c.Wanted, c.Named = true, true
	case value == "verify-ca" && r.Method == Cert:
		return errors.New("has clientcert=verify-ca with the method cert, which is verify-full always; leave the option out")
	case value == "verify-ca":
		c.Wanted, c.Named = true, false
	default:
		return fmt.Errorf("has clientcert=%s; choose verify-ca or verify-full", value)
	}
	return nil
}

func parseAddress(text string) (netip.Prefix, error) {
	if text == "all" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("has the address %q; want all, an address, or a network as 10.0.0.0/8 or fd00::/8", text)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has the address %q, with bits beyond its length; did you mean %s?", text, p.Masked())
	}
	return p, nil
}

// split reads fields: blanks end one, commas join the words of a list, double quotes protect both, # begins a comment.
func split(line string) ([][]word, error) {
	if !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r\x00") {
		return nil, errors.New("must be one line of valid UTF-8")
	}
	var fields [][]word
	var w word
	begun, comma, open := false, false, false
	var b strings.Builder
	end := func() {
		if w.text = b.String(); w.text != "" || w.quoted {
			last := len(fields) - 1
			fields[last] = append(fields[last], w)
		}
		w, begun = word{}, false
		b.Reset()
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		if !open && c == '#' {
			break
		}
		if !open && (c == ' ' || c == '\t' || c == ',') {
			if begun {
				end()
			}
			comma = comma || c == ','
			continue
		}
		if !begun {
			if !comma || len(fields) == 0 {
				fields = append(fields, nil)
			}
			begun, comma = true, false
		}
		if c == '"' {
			open, w.quoted = !open, true
			continue
		}
		b.WriteByte(c)
	}
	if open {
		return nil, errors.New("has a double quote without its pair")
	}
	if begun {
		end()
	}
	return fields, nil
}
