package router

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
	"howdah/router/wire"
)

// What roles and databases set for the router itself (ALTER ROLE ... SET "howdah.route", "howdah.consistency") is read from pg_db_role_setting twice. Once before a server is
// chosen, if neither the client nor the listener chose the route: an answer of any server that may be a second old. And where statements are to be routed, once
// while the session logs in at the primary (askSettings): what is found then decides, but for the server that has been chosen. So a session is strict, or rw, if that was
// set when it logged in, and one of which nothing is known reads from no standby (loginsettings.go); one that should be ro may be auto for a second after that was set, or
// where nobody answers in time.

// asksSettings reports whether the router can ask what roles and databases set: not without its own role.
func (r *Router) asksSettings() bool { return r.asks.settings != nil }

func (r *Router) settingsWait() time.Duration { return min(settingsWait, r.live().DialTimeout/2) }

// followed is what a session follows of howdah.route and howdah.consistency.
type followed struct {
	route route.Route
	// consistency is what its reads must see where SET does not say.
	consistency                route.Consistency
	routeFrom, consistencyFrom route.Source
}

// wish takes in what the client asks for in its startup packet, having come by the listener of.
func (c *client) wish(startup wire.Startup, of route.Route) error {
	f := &c.follows
	f.consistency = c.r.live().Consistency
	var err error
	if f.route, f.routeFrom, err = route.Of(startup.Parameters, of); err != nil {
		return unallowed("FATAL", err)
	}
	asked, is, err := route.ConsistencyOf(startup.Parameters)
	if err != nil {
		return unallowed("FATAL", err)
	}
	if is {
		f.consistency, f.consistencyFrom = asked, route.FromClient
	}
	return nil
}

// unallowed is what a client is told of a value that is none.
func unallowed(severity string, err error) *wire.Error {
	e := wire.Fatal(wire.CodeInvalidParameterValue, "%s", err)
	e.Severity = severity
	var bad interface{ Hint() string }
	if errors.As(err, &bad) {
		e = e.WithHint("%s", bad.Hint())
	}
	return e
}

// follow has the session follow f from now on. Only the goroutine that connects the session does so, which may read it without the lock.
func (c *client) follow(f followed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows = f
}

// takeRoute has the session follow the route that is set for it, if neither client nor listener chose one.
func (c *client) takeRoute(search context.Context) {
	f := c.follows
	if f.routeFrom.Chosen() || !c.r.asksSettings() || physical(c.replication) {
		return // PostgreSQL applies no settings to a physical replication connection
	}
	var bad []error
	if login, known := c.settings(search); known {
		f.route, f.routeFrom, bad = route.Set(login.Rows)
	} else {
		f.route, f.routeFrom = route.Auto, route.FromNowhere
	}
	c.warnings = c.warnings.ofRoute(bad)
	c.follow(f)
}

// settings returns what is set for the session, as of a second ago or later. Where nobody answers in time it is what was answered last.
func (c *client) settings(search context.Context) (login own.Login, known bool) {
	ctx, stop := context.WithTimeout(search, c.r.settingsWait())
	defer stop()
	user := role.User{Name: c.user, Database: c.database}
	login, err := c.r.settings.Find(ctx, user, c.r.now().Add(-role.KeptFor))
	if err == nil {
		return login, true
	}
	login, known = c.r.settings.Last(user)
	c.log().Debug("no server says in time what the role and the database set", zap.Bool("known from before", known), zap.Error(err))
	return login, known
}

// take has a session that logs in at the primary begin with what is set for it. If that is the route ro it stays where it is.
func (c *client) take(login own.Login) {
	c.began = login.Mark
	f := c.follows
	if !f.routeFrom.Chosen() {
		of, from, bad := route.Set(login.Rows)
		c.warnings = c.warnings.ofRoute(bad)
		if of != route.RO {
			f.route, f.routeFrom = of, from
		}
		if of == route.RW {
			c.began = "" // it is one that reads from no standby, also if its statements were routed before
		}
	}
	if !f.consistencyFrom.Chosen() {
		of, from, bad := route.SetConsistency(login.Rows)
		c.warnings = c.warnings.ofConsistency(bad)
		if from == route.FromDefault {
			of = c.r.live().Consistency
		}
		f.consistency, f.consistencyFrom = of, from
	}
	c.follow(f)
}

// countUnknown counts a session that begins without what is set for it.
func (c *client) countUnknown() {
	if c.follows.routeFrom == route.FromNowhere {
		c.r.metrics.unknown.WithLabelValues("route").Inc()
		c.log().Debug("it is not known what route is set for the session; it is auto")
	}
	if c.auto != nil && c.began == "" && c.r.asksSettings() {
		c.r.metrics.unknown.WithLabelValues("reads").Inc()
		c.log().Debug("it is not known what is set for the session; it reads from no standby")
	}
}

// warnings are about values that are set for a session and are none; nil if there are none of those.
type warnings struct {
	route       []error
	consistency error
}

func (w *warnings) ofRoute(bad []error) *warnings {
	if w == nil && bad == nil {
		return nil
	}
	var now warnings
	if w != nil {
		now = *w
	}
	now.route = bad
	return &now
}

func (w *warnings) ofConsistency(bad error) *warnings {
	if w == nil && bad == nil {
		return nil
	}
	var now warnings
	if w != nil {
		now = *w
	}
	now.consistency = bad
	return &now
}

// notices returns them as the client is told, where PostgreSQL tells its own: within the login, once that has succeeded.
func (c *client) notices() []byte {
	all := c.warnings
	if all == nil {
		return nil
	}
	c.warnings = nil
	var b []byte
	for _, err := range append(all.route, all.consistency) {
		if err == nil {
			continue
		}
		w := unallowed("WARNING", err).WithDetail("It is set for this role or database, and not followed.")
		if errors.As(err, new(*route.ErrConsistency)) {
			w = w.WithDetail("It is set for this role or database. Reads are strict instead.")
		}
		c.log().Warn("a value that is set for a role or a database is none", zap.String("user", c.user), zap.String("database", c.database), zap.Error(err))
		b = w.AppendNotice(b)
	}
	return b
}
