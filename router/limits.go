package router

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"howdah/router/console"
	"howdah/router/rule"
	"howdah/router/wire"
)

// parseLimits reads o.Limits. The error tells of every line that is none, or that no client would ever come under.
func (o Options) parseLimits() ([]rule.Limit, error) {
	var limits []rule.Limit
	var errs []error
	for i, line := range o.Limits {
		l, err := rule.ParseLimit(line)
		if before := slices.IndexFunc(limits, func(b rule.Limit) bool { return b.All && b.Kind == l.Kind }); err == nil && before >= 0 {
			err = fmt.Errorf("counts for nobody, as line %d is for all of its kind; put it before that one", before+1)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("limits: line %d, %q: %w", i+1, line, err))
		}
		limits = append(limits, l)
	}
	return limits, errors.Join(errs...)
}

// spareStarts is how many connections an address with a limit may have beyond twice that limit: for cancel requests and consoles, which do not count, and
// for clients that are told of the limit.
const spareStarts = 16

// counts says how many clients there are of whom limits may speak. It counts all, limited or not, as limits change. Of the registry's lock.
type counts struct {
	// users and databases are of clients that are known to be who they say, so that nobody else can use up a limit of theirs.
	users, databases map[string]int
	addresses        map[netip.Addr]atAddress
}

// atAddress is what an address has: clients, authenticated or not, and connections that have not said yet what they want.
type atAddress struct{ clients, starting int }

func newCounts() counts {
	return counts{users: map[string]int{}, databases: map[string]int{}, addresses: map[netip.Addr]atAddress{}}
}

// at changes what an address has.
func (n *counts) at(a netip.Addr, clients, starting int) {
	if !a.IsValid() {
		return
	}
	now := n.addresses[a]
	now.clients += clients
	now.starting += starting
	if n.addresses[a] = now; now == (atAddress{}) {
		delete(n.addresses, a)
	}
}

func addTo(m map[string]int, name string, d int) {
	if m[name] += d; m[name] == 0 {
		delete(m, name)
	}
}

// address is where a client comes from, as limits and rules see it; not valid for one that came by a Unix-domain socket.
func (l *link) address() netip.Addr {
	if a, is := l.from().(*net.TCPAddr); is {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// cut is a name as PostgreSQL takes it from a startup packet.
func cut(name string) string { return name[:min(len(name), rule.MaxName)] }

// belongings are the user and the database of a client as PostgreSQL has them: it cuts long names off, and physical replication belongs to no database.
func (c *client) belongings() (user, of string) {
	user, of = c.user, c.database
	if physical(c.replication) {
		of = ""
	}
	return cut(user), cut(of)
}

// arrive counts a connection that has not said what it wants; false if there are so many of its address, clients included, that one more could be of use to
// nobody. PostgreSQL takes twice max_connections before it knows more (canAcceptConnections, src/backend/postmaster/postmaster.c).
func (g *registry) arrive(a netip.Addr, limits []rule.Limit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.counts.addresses[a]
	if limit := rule.MaxOfAddress(limits, a); limit > 0 && n.clients+n.starting >= 2*limit+spareStarts {
		return false
	}
	g.counts.at(a, 0, 1)
	return true
}

// begun ends what arrive began: the connection has said what it wants.
func (g *registry) begun(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts.at(a, 0, -1)
}

// limitClients stands for max-clients beside the kinds of limits.
const limitClients rule.LimitKind = "clients"

// full is a limit without room for one more.
type full struct {
	kind rule.LimitKind
	name string // whose it is
	max  int
}

// error is what the client is told. The messages for users and databases are PostgreSQL's (src/backend/utils/init: miscinit.c, postinit.c).
func (f full) error() *wire.Error {
	const hint = "Close connections that are not needed; the router's option limits has the number."
	switch f.kind {
	case rule.LimitUser:
		return wire.Fatal(wire.CodeTooManyConnections, "too many connections for role \"%s\"", f.name).
			WithDetail("This router admits %d clients of this user.", f.max).WithHint(hint)
	case rule.LimitDatabase:
		return wire.Fatal(wire.CodeTooManyConnections, "too many connections for database \"%s\"", f.name).
			WithDetail("This router admits %d clients of this database.", f.max).WithHint(hint)
	case rule.LimitAddress:
		return wire.Fatal(wire.CodeTooManyConnections, "too many connections from address \"%s\"", f.name).
			WithDetail("This router admits %d clients of this address.", f.max).WithHint(hint)
	}
	return wire.Fatal(wire.CodeTooManyConnections, "sorry, too many clients already").WithDetail("This router admits %d clients.", f.max)
}

// admit adds c unless a limit that counts before the authentication has been reached: then it returns that.
func (g *registry) admit(c *client, o *Options) (full, bool) {
	a := c.conn.address()
	g.mu.Lock()
	defer g.mu.Unlock()
	if limit := rule.MaxOfAddress(o.limits, a); limit > 0 && g.counts.addresses[a].clients >= limit {
		return full{rule.LimitAddress, a.String(), limit}, false
	}
	if len(g.clients) >= o.MaxClients {
		return full{limitClients, "", o.MaxClients}, false
	}
	g.clients[c] = struct{}{}
	g.counts.at(a, 1, 0)
	g.lastID++
	c.account.id = g.lastID
	return full{}, true
}

// identify counts an admitted client for its user and its database, once, unless a limit of one of them has been reached: then it returns that.
func (g *registry) identify(c *client, limits []rule.Limit) (full, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.identified {
		return full{}, true
	}
	user, of := c.belongings()
	if limit := rule.MaxOf(limits, rule.LimitUser, user); limit > 0 && g.counts.users[user] >= limit {
		return full{rule.LimitUser, user, limit}, false
	}
	if limit := rule.MaxOf(limits, rule.LimitDatabase, of); of != "" && limit > 0 && g.counts.databases[of] >= limit {
		return full{rule.LimitDatabase, of, limit}, false
	}
	c.identified = true
	g.counts.identified(user, of, 1)
	return full{}, true
}

// identified changes how many clients a user and a database have; of is empty for no database.
func (n *counts) identified(user, of string, d int) {
	addTo(n.users, user, d)
	if of != "" {
		addTo(n.databases, of, d)
	}
}

// uncount takes c out of all counts. The lock is held.
func (g *registry) uncount(c *client) {
	g.counts.at(c.conn.address(), -1, 0)
	if c.identified {
		user, of := c.belongings()
		g.counts.identified(user, of, -1)
		c.identified = false
	}
}

// limits returns how many clients there are of each user, database and address, with the limits in force.
func (g *registry) limits(limits []rule.Limit) []console.Limit {
	g.mu.Lock()
	users, databases, addresses := maps.Clone(g.counts.users), maps.Clone(g.counts.databases), maps.Clone(g.counts.addresses)
	g.mu.Unlock()
	var all []console.Limit
	for kind, of := range map[rule.LimitKind]map[string]int{rule.LimitUser: users, rule.LimitDatabase: databases} {
		for name, n := range of {
			all = append(all, console.Limit{Kind: string(kind), Name: name, Clients: n, Max: rule.MaxOf(limits, kind, name)})
		}
	}
	for a, n := range addresses {
		if n.clients > 0 {
			all = append(all, console.Limit{Kind: string(rule.LimitAddress), Name: a.String(), Clients: n.clients, Max: rule.MaxOfAddress(limits, a)})
		}
	}
	return all
}

// admit lets the client in, or returns the limit that keeps it out as the error that it is told.
func (c *client) admit() *wire.Error {
	if f, ok := c.r.sessions.admit(c, c.r.live()); !ok {
		return c.full(f)
	}
	if !c.vouched {
		return nil
	}
	err := c.identify()
	if err != nil {
		c.r.sessions.dismiss(c)
	}
	return err
}

// identify is called once it is known that the client is who it says.
func (c *client) identify() *wire.Error {
	if f, ok := c.r.sessions.identify(c, c.r.live().limits); !ok {
		return c.full(f)
	}
	return nil
}

func (c *client) full(f full) *wire.Error {
	c.r.metrics.limited(f.kind)
	return f.error()
}

// welcomed is called when the server accepts the client, which has not been told yet. The client's lock is held.
func (c *client) welcomed() *wire.Error {
	c.loggedIn()
	err := c.identify()
	if err != nil {
		c.log().Info("client turned away", zap.String("sqlstate", err.Code), zap.String("reason", err.Message))
		c.endInOrder(err)
	}
	return err
}
