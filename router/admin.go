package router

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/console"
	"howdah/router/route"
	"howdah/router/scram"
	"howdah/router/split"
	"howdah/router/topology"
	"howdah/router/wire"
)

// consoles are the sessions of administrators. They are no clients: none counts against MaxClients, and no primary is needed.
type consoles struct {
	open   atomic.Int64
	secret [32]byte
}

// maxConsoles bounds them, so that strangers at the password prompt cannot take all memory.
const maxConsoles = 100

func (s *consoles) init() error {
	_, err := rand.Read(s.secret[:])
	return err
}

// consoleOn reports whether there is a console at all.
func (o Options) consoleOn() bool { return len(o.AdminUsers)+len(o.StatsUsers) > 0 }

// validateConsole returns an error if nobody could log in. It is not part of Validate: the password comes later than the other options.
func (o Options) validateConsole() error {
	if o.consoleOn() && o.ConsolePassword == nil {
		return errors.New("admin-password-file: is required with admin-users and stats-users; name a file with the console's password, and restart the router")
	}
	return nil
}

// forConsole reports whether a startup packet asks for the console.
func (r *Router) forConsole(s wire.Startup) bool {
	return r.live().consoleOn() && s.Parameters["database"] == console.Database
}

func zapSessions(n int) zap.Field { return zap.Int("sessions", n) }

// serveConsole serves an administrator from the startup packet on. Who has not logged in counts as one that has not started.
func (r *Router) serveConsole(ctx context.Context, conn *link, s wire.Startup, started func(), log *zap.Logger) {
	log = log.With(zap.String("user", s.Parameters["user"]))
	if r.consoles.open.Add(1) > maxConsoles {
		r.consoles.open.Add(-1)
		r.turnAway(conn, wire.Fatal(wire.CodeTooManyConnections, "too many consoles are open"), log)
		return
	}
	defer r.consoles.open.Add(-1)
	stop := context.AfterFunc(ctx, func() { conn.socket.SetDeadline(past) })
	defer stop()
	err := r.loginConsole(conn, s)
	started()
	if err == nil {
		admin := slices.Contains(r.live().AdminUsers, s.Parameters["user"])
		log.Info("console opened", zap.Bool("admin", admin))
		err = console.Session{
			Conn: conn, Admin: admin, Router: r,
			Log: func(statement string) { log.Info("console command", zap.String("statement", statement)) },
		}.Run(ctx)
	}
	if ctx.Err() != nil {
		err = shuttingDown()
	}
	if err != nil {
		r.turnAway(conn, err, log)
	}
}

// loginConsole finds out who is there. In clear a console is for this machine alone: SCRAM hides the password, and nothing what follows.
func (r *Router) loginConsole(conn *link, s wire.Startup) error {
	if from, is := conn.from().(*net.TCPAddr); conn.tls == nil && is && !from.IP.IsLoopback() {
		return wire.Fatal(wire.CodeInvalidAuthorization, "the console takes no connection from another machine without TLS").
			WithHint("Connect with sslmode=require or higher, or from the router's own machine.")
	}
	user := s.Parameters["user"]
	l := console.Login{
		User: user, Allowed: user != "" && (slices.Contains(r.live().AdminUsers, user) || slices.Contains(r.live().StatsUsers, user)),
		Secret: r.consoles.secret[:], Channel: scram.Channel{EndPoint: conn.endPoint},
	}
	var err error
	if l.Password, err = r.o.ConsolePassword(); err != nil {
		r.log.Error("nobody can log in to the console", zap.Error(err))
		l.Allowed = false
	}
	if _, err := rand.Read(l.Nonce[:]); err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(r.live().LoginTimeout))
	if err := l.Authenticate(conn); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Reload implements console.Router.
func (r *Router) Reload() ([]console.Change, error) {
	if r.o.ReadAgain == nil {
		return nil, errors.New("the router was started without options that can be read again")
	}
	return r.o.ReadAgain()
}

// maxDatabases bounds the databases told apart in totals: clients choose the names.
const maxDatabases = 1000

// addDone keeps what a session did that has ended. The registry's lock is held, so the client's was taken before: a session's machine comes
// to the registry with the client's lock held.
func (g *registry) addDone(t console.Totals) {
	if _, known := g.done[t.Database]; !known && len(g.done) >= maxDatabases {
		t.Database = "(others)"
	}
	g.done[t.Database] = sum(g.done[t.Database], t)
}

func sum(a, b console.Totals) console.Totals {
	b.Sessions += a.Sessions
	b.Queries += a.Queries
	b.Transactions += a.Transactions
	b.FromClients += a.FromClients
	b.FromServers += a.FromServers
	b.US += a.US
	return b
}

// totals is what the session did so far; false before it has logged in, so that only databases that exist are named.
func (c *client) totals() (console.Totals, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.machine == nil || !c.machine.Authenticated() {
		return console.Totals{}, false
	}
	t := console.Totals{
		Database: c.database, Sessions: 1, FromClients: c.account.fromClient.Load(), FromServers: c.account.fromServer.Load(),
		US: uint64(time.Duration(c.account.waited.Load()).Microseconds()),
	}
	t.Queries, t.Transactions = c.machine.Counts()
	if a := c.auto; a != nil {
		t.Queries += a.queries
		t.Transactions += a.transactions
	}
	return t, true
}

// databaseTotals adds what ended sessions did and what the others have done so far.
func (g *registry) databaseTotals() []console.Totals {
	g.mu.Lock()
	all := maps.Clone(g.done)
	clients := slices.Collect(maps.Keys(g.clients))
	g.mu.Unlock()
	for _, c := range clients {
		if t, ok := c.totals(); ok {
			all[t.Database] = sum(all[t.Database], t)
		}
	}
	return slices.Collect(maps.Values(all))
}

// database is what PostgreSQL takes for one: the user's name where none is given.
func database(s wire.Startup) string { return cmp.Or(s.Parameters["database"], s.Parameters["user"]) }

// View implements console.Router.
func (r *Router) View() console.View {
	t := r.picture.now.Load()
	v := console.View{
		Version: r.o.Version, Cluster: r.o.Cluster, Router: r.o.Name, Now: time.Now(), Paused: r.gate.held() != nil, Draining: r.draining.Load(),
		MaxClients: r.live().MaxClients, Limits: r.sessions.limits(r.live().limits), Totals: r.sessions.databaseTotals(), Epoch: uint64(t.Epoch), Leader: t.Leader, Phase: string(t.Phase), Reason: t.Reason,
	}
	if t.Primary != nil {
		v.Primary, v.Address = t.Primary.Member, t.Primary.Address
	}
	if r.o.Settings != nil {
		v.Settings = r.o.Settings()
	}
	for _, c := range r.sessions.all() {
		v.Clients = append(v.Clients, c.view())
	}
	for _, of := range r.routes() {
		v.Routes = append(v.Routes, r.routeView(of, v))
	}
	on := r.sessions.byMember()
	if t.Primary != nil {
		v.Members = append(v.Members, console.Member{Name: v.Primary, Role: string(schema.RolePrimary), Address: v.Address, Serves: true, Sessions: on[v.Primary]})
	}
	for _, s := range t.Standbys {
		v.Members = append(v.Members, console.Member{
			Name: s.Member, Role: string(schema.RoleStandby), Address: s.Address, Serves: serves(t, s), Sessions: on[s.Member],
			ReplayLSN: s.ReplayLSN.String(), LagBytes: s.LagBytes, LagTime: s.LagTime,
		})
	}
	for name, why := range t.Unfit {
		v.Members = append(v.Members, console.Member{Name: name, Reason: why, Sessions: on[name]})
	}
	slices.SortStableFunc(v.Members, func(a, b console.Member) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// routes are those that lead to different places: without statement routing auto is rw.
func (r *Router) routes() []route.Route {
	if r.live().StatementRouting {
		return []route.Route{route.RW, route.RO, route.Auto}
	}
	return []route.Route{route.RW, route.RO}
}

// routeView says where a route leads. Reason is there if nowhere.
func (r *Router) routeView(of route.Route, v console.View) console.Route {
	view := console.Route{Name: string(of)}
	is := func(one route.Route) bool {
		return one == of || of == route.RW && one == route.Auto && !r.live().StatementRouting
	}
	for _, listener := range []route.Route{route.RW, route.RO, route.Auto} {
		if a := r.Address(listener); a != nil && is(listener) {
			view.Listen = strings.TrimPrefix(view.Listen+","+a.String(), ",")
		}
	}
	set := []string{route.FromRoleInDatabase.String(), route.FromRole.String(), route.FromDatabase.String(), route.FromAll.String()}
	reads := map[string]*int{string(route.Eventual): &view.Eventual, string(route.Session): &view.Session, string(route.Strict): &view.Strict}
	for _, c := range v.Clients {
		if !is(route.Route(c.Route)) {
			continue
		}
		view.Sessions++
		if slices.Contains(set, c.RouteFrom) {
			view.Set++
		}
		if n := reads[c.Consistency]; n != nil {
			*n++
		}
		if c.State == console.StateWaiting {
			view.Waiting++
		}
		if c.Reader != nil {
			view.Reading++
		}
	}
	ok, why := r.healthy(of)
	b, found := r.sessions.next(r.picture.now.Load())
	switch {
	case !ok:
		view.Reason = why
	case of == route.RO && found:
		view.Member = b.member
	default:
		view.Member = v.Primary
	}
	if ok && of == route.Auto && found {
		view.Reader = b.member
	}
	return view
}

// next is the standby that the next ro session would go to, or the next one read from.
func (g *registry) next(t *topology.Topology) (backend, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.standby(t, nil)
}

// view is the session as the console shows it.
func (c *client) view() console.Client {
	b := c.r.sessions.backendOf(c)
	v := console.Client{
		ID: c.account.id, User: c.user, Database: c.database,
		Addr: c.conn.from().String(), LocalAddr: c.conn.LocalAddr().String(), Application: c.application,
		ConnectedAt: c.account.since, Held: c.account.stuck.Load(),
	}
	if c.conn.tls != nil {
		cs := c.conn.tls.ConnectionState()
		v.TLS = tls.VersionName(cs.Version) + "/" + tls.CipherSuiteName(cs.CipherSuite)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.State, v.ServerState = c.stateNow(), c.serverState()
	v.Route, v.RouteFrom = string(c.follows.route), c.follows.routeFrom.String()
	if c.auto != nil {
		v.Reader = c.auto.readerView()
		v.Pinned, v.PinnedAt = c.auto.pinView()
		v.Consistency, v.ConsistencyFrom = c.auto.consistencyView()
	}
	switch {
	case v.State == console.StateWaiting && c.auto.moving():
		v.Waiting = c.r.now().Sub(c.auto.movingSince)
	case v.State == console.StateWaiting:
		v.Waiting = c.r.now().Sub(c.account.begun)
	case c.server != nil:
		v.Member, v.Role, v.Epoch, v.ServerAddr = b.member, string(b.role), uint64(b.epoch), b.address
		v.ServerOwnAddr = c.server.LocalAddr().String()
	}
	return v
}

// readerView is the session's connection to a standby as the console shows it; nil if there is none. The client's lock is held.
func (a *auto) readerView() *console.Reader {
	rd := a.reader
	if rd == nil {
		return nil
	}
	v := console.Reader{
		Member: rd.member, Addr: rd.address, OwnAddr: rd.conn.LocalAddr().String(), ConnectedAt: a.c.r.wallClock(rd.since), State: console.StateIdle,
	}
	switch {
	case a.at == rd:
		v.State = console.StateActive
	case a.block:
		v.State = console.StateTransaction
	}
	return &v
}

// pinView says why the session stays on the primary, and since when; nothing if it does not. The client's lock is held.
func (a *auto) pinView() (why string, since time.Time) {
	a.notePin()
	if a.pinned == split.Unpinned {
		return "", time.Time{}
	}
	return a.pinned.String(), a.c.r.wallClock(a.pinnedAt)
}

// consistencyView is what the session's reads must see, and where that is from; nothing if none goes to a standby. The client's lock is held.
func (a *auto) consistencyView() (consistency, from string) {
	if a.c.follows.route != route.Auto {
		return "", ""
	}
	c, of := a.consistencyFrom()
	return string(c), of.String()
}

// notePin takes in what the tracker says of it. The client's lock is held.
func (a *auto) notePin() {
	if p := a.tracker.Pinned(); p != a.pinned {
		a.pinned, a.pinnedAt = p, a.c.r.now()
		a.c.log().Debug("what keeps the session on the primary has changed", zap.Stringer("reason", p))
	}
}

// pins counts the sessions that stay on the primary, by why.
func (r *Router) pins() map[split.Pin]int {
	m := map[split.Pin]int{}
	for _, c := range r.sessions.all() {
		c.mu.Lock()
		if c.auto != nil {
			m[c.auto.tracker.Pinned()]++
		}
		c.mu.Unlock()
	}
	return m
}

// wallClock is when that was, for people.
func (r *Router) wallClock(at schema.Instant) time.Time { return time.Now().Add(-r.now().Sub(at)) }

func (g *registry) backendOf(c *client) backend {
	g.mu.Lock()
	defer g.mu.Unlock()
	return c.backend
}
