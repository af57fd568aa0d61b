package router

import (
	"bytes"
	"net"
	"time"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/wire"
)

// AskRoles has a test answer for the servers, of which none has a role for the router.
func (o *Options) AskRoles(ask role.Ask) { o.asking = func(a *asks) { *a = asks{roles: ask} } }

// AskSettings has a test stand between the router and the servers that it asks what roles and databases set.
func (o *Options) AskSettings(between func(ask settingsAsk) settingsAsk) {
	o.asking = func(a *asks) { a.settings = between(a.settings) }
}

// SettingsAsk is a question after settings.
type SettingsAsk = settingsAsk

// SettingsFor is how long an answer serves other sessions.
const SettingsFor = settingsFor

// SettingsKept are answers to such questions.
type SettingsKept struct{ kept settingsKept }

// Keep takes in an answer.
func (k *SettingsKept) Keep(member, user, text string, asked schema.Instant) {
	k.kept.keep(settingsOf{own.Server{Member: member}, user, "db"}, own.Login{Mark: text}, asked)
}

// Since returns an answer.
func (k *SettingsKept) Since(member, user string, then schema.Instant) string {
	return k.kept.since(settingsOf{own.Server{Member: member}, user, "db"}, then).Mark
}

// Routers are the others that a cancel request may be passed on to.
func (r *Router) Routers() []string {
	if known := r.forwards.routers.Load(); known != nil {
		return *known
	}
	return nil
}

// ClientLetters reads the messages of a login as they come from a client, up to the first that is not taken.
func ClientLetters(conn net.Conn) [][]byte { return readLetters(conn, checkClient) }

// ServerLetters is ClientLetters of a server.
func ServerLetters(conn net.Conn) [][]byte { return readLetters(conn, checkServer) }

func readLetters(conn net.Conn, check func(wire.Header) *wire.Error) [][]byte {
	in := newChunk()
	defer in.free()
	l := &letters{conn: conn, in: in, check: check}
	var all [][]byte
	for {
		m, err := l.peek()
		if err != nil {
			return all
		}
		all = append(all, bytes.Clone(m))
		l.take(m)
	}
}

// Counted is everything that limits may speak of, and connections that have not said what they want: a count for each.
func (r *Router) Counted() map[string]int {
	g := r.sessions
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[string]int{}
	for name, n := range g.counts.users {
		all["user "+name] = n
	}
	for name, n := range g.counts.databases {
		all["database "+name] = n
	}
	for a, n := range g.counts.addresses {
		all["address "+a.String()], all["starting "+a.String()] = n.clients, n.starting
	}
	return all
}

// BalanceEvery has sessions look so often whether another standby has less to do.
func (o *Options) BalanceEvery(every time.Duration) { o.balanceEvery = every }
