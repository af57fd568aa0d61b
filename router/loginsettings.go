package router

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
)

// asks are what the router asks servers by its own role, for the sessions of others.
type asks struct {
	roles role.Ask
	// settings returns what roles and databases set for a session of user in database; nil where the router has no role to ask by.
	settings settingsAsk
}

type settingsAsk func(ctx context.Context, s own.Server, user, database string) (own.Login, error)

// asksOwn are the asks of a router by its own connections.
func (r *Router) asksOwn() asks {
	a := asks{roles: role.AskBy(r.own, ownTimeout/2)}
	if r.own.Enabled() {
		a.settings = r.own.LoginSettings
	}
	return a
}

const (
	// settingsWait bounds how long a login waits for the settings once it is connected, and an attempt to begin a session for the route that is set for it.
	settingsWait = 500 * time.Millisecond
	// settingsFor is how long an answer that one session was given serves others that have none of their own: no longer than one of a session's own may have been
	// there while its client proves who it is.
	settingsFor = 5 * time.Second
)

// settingsOf is what a question after the settings is about.
type settingsOf struct {
	server         own.Server
	user, database string
}

// askSettings asks a primary for what roles and databases set for the session that is about to begin there. The answer has no mark if that cannot be learnt.
// Nil: it is of no use to the session. It goes on while the session connects, and ends by itself: a client that goes away does not break the connection off.
func (c *client) askSettings(ctx context.Context, b backend) <-chan own.Login {
	if c.r.asks.settings == nil || !c.r.live().StatementRouting && c.auto == nil || c.follows.route != route.Auto || !c.endsSCRAM() && !c.vouched || b.role != schema.RolePrimary || c.replication != "" {
		return nil
	}
	answer := make(chan own.Login, 1)
	ctx, of, asked := context.WithoutCancel(ctx), c.settingsAt(b), c.r.now()
	go func() {
		login, err := c.r.asks.settings(ctx, of.server, of.user, of.database)
		if err != nil {
			c.log().Debug("the settings of the role and the database are not known", zap.Error(err))
		} else {
			c.r.answers.keep(of, login, asked)
		}
		answer <- login
	}()
	return answer
}

func (c *client) settingsAt(b backend) settingsOf {
	return settingsOf{own.Server{Member: b.member, Address: b.address, Epoch: b.epoch}, c.user, c.database}
}

// beginWith waits for the settings that the session is about to begin with on b, and has it follow them. Where they do not come, an answer that another session of the same user and
// database was given there shortly before does as well: it is from before this login too, and what a standby has that is as far as this login shows whether anything has changed since. Without one
// the session reads from no standby: later nobody can tell what it began with.
func (c *client) beginWith(ctx context.Context, b backend, answer <-chan own.Login) {
	c.began, c.lent = "", false
	if answer == nil {
		return
	}
	over := time.NewTimer(c.r.settingsWait())
	defer over.Stop()
	var login own.Login
	select {
	case login = <-answer:
	case <-over.C:
	case <-ctx.Done():
	}
	if login.Mark != "" {
		c.take(login)
		return
	}
	if login = c.r.answers.since(c.settingsAt(b), c.r.now().Add(-settingsFor)); login.Mark != "" {
		c.lent = true
		c.take(login)
	}
	if c.began == "" {
		c.log().Debug("the session will not read from standbys, as its settings are not known")
	}
}

// settingsKept are the newest answers to questions after settings.
type settingsKept struct {
	mu sync.Mutex
	m  map[settingsOf]settingsAnswer
}

type settingsAnswer struct {
	login own.Login
	asked schema.Instant
}

// maxSettingsKept bounds them: who asks need not have proved who it is.
const maxSettingsKept = 1000

// keep takes in an answer to what was asked then.
func (k *settingsKept) keep(of settingsOf, login own.Login, asked schema.Instant) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was, known := k.m[of]
	if known && asked.Before(was.asked) {
		return
	}
	if !known && len(k.m) >= maxSettingsKept {
		for other, a := range k.m {
			if a.asked.Before(asked.Add(-settingsFor)) {
				delete(k.m, other)
			}
		}
		if len(k.m) >= maxSettingsKept {
			return
		}
	}
	if k.m == nil {
		k.m = map[settingsOf]settingsAnswer{}
	}
	k.m[of] = settingsAnswer{login, asked}
}

// since returns the newest answer if it was asked for no earlier than then, else one without a mark.
func (k *settingsKept) since(of settingsOf, then schema.Instant) own.Login {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, known := k.m[of]; known && !a.asked.Before(then) {
		return a.login
	}
	return own.Login{}
}
