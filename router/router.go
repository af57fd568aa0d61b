// Package router is the wire-protocol router: it listens where clients expect PostgreSQL and
// relays each session to the primary or to a standby of the newest epoch.
//
// The package is a shell. What it decides is decided in packages that do no I/O: wire (the
// framer), route (which servers a session may have), session (the state machine of one session)
// and topology (who is the primary). DESIGN.md beside this file says how a query travels.
package router

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/fresh"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
	"howdah/router/wire"
)

// Knowledge is what the router is told about the cluster. Its methods are called from one
// goroutine and must not block.
type Knowledge interface {
	// Peers returns what gossip knows of every process, as a snapshot.
	Peers() []schema.Peer
	// State returns the newest answer of Consul; false before the first one.
	State() (schema.ClusterState, bool)
	// Changes receives after either of them has changed; sends may be coalesced.
	Changes() <-chan struct{}
}

// Router is one router. Make it with New, then call Run once.
type Router struct {
	o         Options
	knowledge Knowledge
	now       func() schema.Instant
	log       *zap.Logger
	instance  uint16

	listeners map[route.Route]net.Listener
	sockets   map[route.Route]*unixListener
	tls       *tls.Config // nil: TLS is declined
	api       net.Listener
	// authorities are those of servers' certificates; nil where none is verified.
	authorities *authorities
	serverPair  *certificate // what servers are shown that ask for one; nil: nothing

	picture  picture
	sessions *registry
	own      *own.Connections
	reads    *fresh.Reads
	events   eventLog
	metrics  *metrics
	gate     gate
	stops    stops
	// changed is what live returns; applying is held by who changes it.
	changed  atomic.Pointer[Options]
	applying sync.Mutex
	pair     *certificate // of tls
	// clientAuthorities are those of clients' certificates.
	clientAuthorities *authorities
	consoles          consoles
	// finish ends Run as the end of its context does.
	finish chan struct{}
	asks   asks
	roles  *role.Roles
	// settings are what roles and databases set; answers what asks.settings has answered.
	settings *role.Settings
	answers  settingsKept
	// secret is what the salts of users that do not exist are made of.
	secret [32]byte
	// passing: it was logged that logins are passed through for want of a function.
	passing  sync.Once
	catalogs catalogs
	refused  refusals
	forwards forwards

	// work counts the goroutines that serve a connection, unstarted the connections that have not
	// said yet what they want.
	work      sync.WaitGroup
	unstarted atomic.Int64
	draining  atomic.Bool
}

// maxUnstarted is how many connections may be in their startup packet at one time, beyond the
// clients admitted: a bound on what strangers can hold open.
const maxUnstarted = 1000

// GCPercent is the garbage collector's target (GOGC) for a process that is a router and nothing else. Its garbage is that of logins; collected earlier than
// usual, it leaves fewer holes between what sessions keep.
const GCPercent = 50

// ownTimeout bounds each question that the router itself asks a server.
const ownTimeout = 5 * time.Second

// New checks o and opens the listeners, so that a port in use is an error here and not later. A
// Router that was made must be run: Run closes what New opened.
func New(o Options, k Knowledge, now func() schema.Instant, log *zap.Logger) (*Router, error) {
	if err := errors.Join(o.Validate(), o.validateConsole()); err != nil {
		return nil, fmt.Errorf("router options: %w", err)
	}
	if k == nil || now == nil || log == nil {
		return nil, errors.New("router: knowledge, clock and logger must be given")
	}
	r := &Router{
		o: o, knowledge: k, now: now, log: log, instance: wire.Instance(o.Name),
		listeners: map[route.Route]net.Listener{},
		sockets:   map[route.Route]*unixListener{},
		sessions:  newRegistry(),
		finish:    make(chan struct{}, 1),
	}
	o.parsed, o.mappings, _ = o.parseRules() // Validate has read them
	o.limits, _ = o.parseLimits()
	r.changed.Store(&o)
	if err := r.consoles.init(); err != nil {
		return nil, err
	}
	r.own = own.New(own.Options{
		Password: o.OwnPassword, Router: o.Name, Dial: r.dialOwn, DialTimeout: o.DialTimeout, Timeout: ownTimeout, Now: now, Log: log.Named("own"),
	})
	r.asks = r.asksOwn()
	if o.asking != nil {
		o.asking(&r.asks)
	}
	servers := func() []own.Server { return askable(r.picture.now.Load()) }
	r.roles = role.NewRoles(r.asks.roles, servers, now, ownTimeout)
	r.settings = role.NewSettings(r.own, ownTimeout/2, servers, now, ownTimeout)
	if _, err := rand.Read(r.secret[:]); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r.picture.init()
	r.metrics = newMetrics(r)
	r.reads = fresh.New(fresh.Options{Sampler: r.sampler(), Wait: o.ReadWait, Observe: r.metrics.decided, Now: now, Log: log.Named("fresh")})
	var err error
	if r.tls, err = r.listenTLS(); err != nil {
		return nil, err
	}
	if err := r.prepareServerTLS(); err != nil {
		return nil, err
	}
	if err := r.listen(); err != nil {
		r.closeListeners()
		return nil, err
	}
	return r, nil
}

// sampler is what learns how far servers are; nil without a password for it.
func (r *Router) sampler() fresh.Sampler {
	if !r.own.Enabled() {
		return nil
	}
	return r.own
}

// Address returns where the listener of a route listens, with the port that the kernel chose if
// the option said 0; nil if there is none. route.Auto is the listener of Options.Listen.
func (r *Router) Address(of route.Route) net.Addr {
	if l := r.listeners[of]; l != nil {
		return l.Addr()
	}
	return nil
}

// APIAddress returns where the HTTP API listens; nil if it does not.
func (r *Router) APIAddress() net.Addr {
	if r.api == nil {
		return nil
	}
	return r.api.Addr()
}

// Run serves until ctx ends, then drains: nobody new is admitted, idle sessions end with 57P01,
// the others have DrainTimeout. It returns nil after a drain, and an error if it could not serve.
func (r *Router) Run(ctx context.Context) error {
	// Sessions and what they need outlive ctx by the drain.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	failed := make(chan error, 1+len(r.listeners)+len(r.sockets))
	if !r.own.Enabled() {
		r.log.Info("no password for the role " + own.Role + " is given (router-password-file): what the router would ask servers itself is off")
	}
	if r.o.relaysBetweenTLS() {
		r.log.Warn("logins are passed through between two connections with TLS: libpq takes that for somebody in between and fails, unless channel_binding=disable; give router-password-file, or server-tls-mode disable")
	}
	r.learnOnce()
	var support, accepting sync.WaitGroup
	support.Go(func() { r.learn(serving) })
	closeAPI := r.serveAPI(&support, failed)
	r.logListeners()
	accept := func(l net.Listener, of route.Route) {
		accepting.Go(func() {
			if err := r.accept(serving, l, of); err != nil {
				failed <- fmt.Errorf("listener %s: %w", l.Addr(), err)
			}
		})
	}
	for of, l := range r.listeners {
		accept(l, of)
	}
	for of, l := range r.sockets {
		accept(l, of)
	}
	var err error
	select {
	case <-ctx.Done():
	case <-r.finish:
	case err = <-failed:
	}
	r.handOver()
	r.draining.Store(true)
	r.closeListeners()
	if r.o.ReusePort {
		closeAPI() // what is asked from now on is for the other router to answer
	}
	accepting.Wait()
	r.drain()
	stop()
	r.work.Wait()
	closeAPI()
	support.Wait()
	r.reads.Close()
	r.own.Close()
	r.roles.Wait()
	r.settings.Wait()
	r.log.Info("router has stopped")
	return err
}

// drainStep is how often a drain looks for sessions that have become idle.
const drainStep = 20 * time.Millisecond

// drain ends every session: the idle ones as soon as they are, the others when the time is over.
func (r *Router) drain() {
	bye := shuttingDown()
	begun := r.now()
	deadline := time.NewTimer(r.live().DrainTimeout)
	defer deadline.Stop()
	step := time.NewTicker(drainStep)
	defer step.Stop()
	r.log.Info("router drains its sessions", zap.Int("sessions", r.sessions.count()), zap.Duration("at_most", r.live().DrainTimeout))
	for {
		for _, c := range r.sessions.all() {
			if !r.spared(c) {
				c.endIfIdle(bye)
			}
		}
		if r.sessions.count() == 0 && !r.awaited(begun) {
			return
		}
		select {
		case <-step.C:
			continue
		case <-deadline.C:
		}
		for _, c := range r.sessions.all() {
			c.end(ending{err: bye, ofServer: true})
		}
		return
	}
}
