package cmd

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/detector"
	"howdah/router"
)

const routerLong = `Listens where clients expect PostgreSQL and sends what they ask to the primary, or to a standby if it is known to be a read. It
learns from gossip and from Consul who is the primary, whichever is first, and never talks to one of an older epoch. The port
chooses: at --listen each statement goes where it belongs (--statement-routing), --listen-rw is the primary's, --listen-ro a
standby's. A client that asks for auto, rw or ro by the parameter howdah.route at startup gets that at every port.`

const routerExample = `howdah router --cluster shop --name router1 --listen 0.0.0.0:6432 --listen-ro 0.0.0.0:6433 \
  --gossip-key-file /etc/howdah/secrets/gossip.key --router-password-file /etc/howdah/secrets/router
howdah router --config /etc/howdah/router.yaml`

// goodbyeTimeout is how long a process may take to leave the gossip.
const goodbyeTimeout = 2 * time.Second

// Router runs a router.
type Router struct {
	// Options are the router's own.
	router.Options
	Consul ConsulOptions
	Gossip GossipOptions
	Log    LogOptions
	// RouterPassword is the password of the role howdah_router, RouterPasswordFile a file with it. Neither: the router asks servers
	// nothing itself.
	RouterPassword     options.Secret
	RouterPasswordFile string
	// AdminPassword is the password of the console, AdminPasswordFile a file with it.
	AdminPassword     options.Secret
	AdminPasswordFile string

	stdio Stdio
	set   *options.Set
	load  func(fresh Command) error
}

// NewRouter returns a Router with its defaults.
func NewRouter(stdio Stdio) *Router {
	return &Router{Options: router.DefaultOptions(), Gossip: GossipOptions{Listen: "0.0.0.0:7947"}, Log: defaultLog(), stdio: stdio}
}

// Declare implements Command. The bounds of the router's own options are the router's to check.
func (c *Router) Declare(s *options.Set) {
	if c.set == nil {
		c.set = s
	}
	const anyTime, anyNumber = time.Duration(1<<63 - 1), 1<<31 - 1
	s.Group("Router")
	declareCluster(s, &c.Cluster)
	declareName(s, &c.Name, "this router's name, unique among members and routers")
	s.String(&c.Listen, "listen", "where clients connect that choose their route themselves (howdah.route), or leave it to the router", address)
	s.String(&c.ListenRW, "listen-rw", "where clients connect that want the primary", address)
	s.String(&c.ListenRO, "listen-ro", "where clients connect that only read", address)
	s.String(&c.APIListen, "api-listen", "where /health, /metrics and /status are", address)
	s.String(&c.UnixSocketDir, "unix-socket-dir", "a directory in which each of these listeners has a Unix-domain socket too, .s.PGSQL.PORT; with @ in front, a name in the abstract namespace", options.Placeholder("DIR"))
	s.String(&c.UnixSocketMode, "unix-socket-mode", "the permissions of these sockets, in octal digits")
	s.Bool(&c.ReusePort, "so-reuseport", "another router may listen at the same addresses, to take over while this one drains (SO_REUSEPORT)")
	s.Duration(&c.FailoverWait, "failover-wait", "how long a new session waits for a server, and a running one before a transaction on a primary that is about to stop", 0, anyTime)
	s.Int(&c.MaxClients, "max-clients", "how many sessions are admitted", 0, anyNumber)
	s.String((*string)(&c.Consistency), "consistency", "what reads must see whose session does not say (howdah.consistency): eventual, session or strict")
	s.Bool(&c.StatementRouting, "statement-routing", "sessions of route auto read from standbys, statement by statement")
	s.Duration(&c.ReadWait, "read-wait", "how long a read waits for a standby that has what it must see, before the primary serves it", 0, anyTime)
	s.Bool(&c.ReadOnlyFallback, "read-only-fallback", "the primary serves reads where no standby may")
	s.Group("The router's own connections")
	s.String(&c.RouterPasswordFile, "router-password-file", "a file with the password of the role howdah_router (router of the members' --secrets-dir); read at each connect", options.Placeholder("FILE"))
	s.Secret(&c.RouterPassword, "router-password", "the password itself")
	s.String((*string)(&c.AuthType), "auth-type", "who authenticates clients: scram (this router, which then logs in as they), pass-through (the server), or auto (scram where the router has a password of its own)")
	s.Check(func() []options.Problem {
		if c.RouterPassword == "" || c.RouterPasswordFile == "" {
			return nil
		}
		return []options.Problem{s.Problem("router-password-file", "the password is given by "+options.EnvironmentName("router-password")+" too; give one of them")}
	})
	c.declareConsole(s)
	s.Strings(&c.Rules, "rules", "who may connect: lines as in pg_hba.conf (type database user address method options), with the methods scram-sha-256, md5, password, cert, peer, trust, pass-through and reject; best as a list in the file")
	s.Strings(&c.IdentMap, "ident-map", "which users a client certificate, or a user of the operating system with the method peer, is good for where a rule has map=NAME: lines as in pg_ident.conf (map name user); best as a list in the file")
	s.Strings(&c.Limits, "limits", "how many clients at one time: lines of user, database or address, then names or networks or all, then the number that each of them may have; best as a list in the file")
	s.Group("TLS for clients")
	s.String((*string)(&c.TLSMode), "tls-mode", "whether clients may or must use TLS: disable, allow or require")
	s.String(&c.TLSCertFile, "tls-cert-file", "a PEM certificate with its chain; read again when it changes", options.Placeholder("FILE"))
	s.String(&c.TLSKeyFile, "tls-key-file", "the PEM key that goes with it", options.Placeholder("FILE"))
	s.String(&c.TLSClientCAFile, "tls-client-ca-file", "PEM certificates of the authorities for client certificates (method cert, clientcert=verify-ca or verify-full in rules); read again when it changes", options.Placeholder("FILE"))
	s.String(&c.TLSMinVersion, "tls-min-version", "the oldest TLS version that is accepted: TLSv1.2 or TLSv1.3")
	s.Group("TLS to servers")
	s.String((*string)(&c.ServerTLSMode), "server-tls-mode", "as libpq's sslmode: disable, prefer, require, verify-ca or verify-full")
	s.String(&c.ServerTLSCAFile, "server-tls-ca-file", "PEM certificates of the authorities for verify-ca and verify-full; read again when it changes", options.Placeholder("FILE"))
	s.String(&c.ServerTLSCertFile, "server-tls-cert-file", "a PEM certificate for servers that ask for one (cert or clientcert in pg_hba.conf); read again when it changes", options.Placeholder("FILE"))
	s.String(&c.ServerTLSKeyFile, "server-tls-key-file", "the PEM key that goes with it", options.Placeholder("FILE"))
	s.Group("Time limits")
	s.Duration(&c.LoginTimeout, "login-timeout", "for a client's startup, and for its authentication", 0, anyTime)
	s.Duration(&c.DialTimeout, "dial-timeout", "for one attempt to connect to a server", 0, anyTime)
	s.Duration(&c.CancelTimeout, "cancel-timeout", "for the delivery of a cancel request", 0, anyTime)
	s.Duration(&c.DrainTimeout, "drain-timeout", "for sessions in a transaction once the router ends", 0, anyTime)
	s.Duration(&c.FarewellTimeout, "farewell-timeout", "for the last error to a client that may not read", 0, anyTime)
	s.Duration(&c.TCPUserTimeout, "tcp-user-timeout", "for bytes sent and not acknowledged (TCP_USER_TIMEOUT)", 0, anyTime)
	s.Duration(&c.KeepAliveIdle, "keepalive-idle", "of silence before the first keepalive probe", 0, anyTime)
	s.Duration(&c.KeepAliveInterval, "keepalive-interval", "between keepalive probes", 0, anyTime)
	s.Int(&c.KeepAliveCount, "keepalive-count", "how many probes may stay unanswered", 0, anyNumber)
	c.Consul.declare(s)
	c.Gossip.declare(s, "a file with the members' gossip keys (gossip.key of their --secrets-dir)", options.Required)
	c.Log.declare(s)
	s.Check(func() []options.Problem { return s.Adopt(c.Options.Validate()) })
}

// Validate returns every mistake at once.
func (c *Router) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *Router) Run(ctx context.Context) error {
	if c.set == nil {
		options.New("howdah router", c)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	log, level, err := c.Log.leveled(c.stdio.Err)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	keys, err := readGossipKeys(c.Gossip.KeyFile)
	if err != nil {
		return fmt.Errorf("gossip-key-file: %w", err)
	}
	if c.OwnPassword, err = c.ownPassword(); err != nil {
		return fmt.Errorf("router-password-file: %w", err)
	}
	if c.ConsolePassword, err = c.consolePassword(); err != nil {
		return fmt.Errorf("admin-password-file: %w", err)
	}
	client, err := c.Consul.client(c.Cluster, log)
	if err != nil {
		return err
	}
	gossip, err := detector.Start(detector.Config{
		Name: c.Name, Kind: detector.KindRouter, Cluster: c.Cluster, Keys: keys,
		Bind: c.Gossip.Listen, Advertise: c.Gossip.Advertise, Join: c.Gossip.Join,
	}, boottime.Now, log.Named("detector"))
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(router.GCPercent)
	}
	ctx, cancel := context.WithCancel(ctx)
	k := newKnowledge(gossip, c.Cluster, log.Named("knowledge"))
	var wg sync.WaitGroup
	wg.Go(func() { k.watch(ctx, client) })
	wg.Go(func() { k.relay(ctx, gossip.Changes()) })
	// The parts end in the reverse order, also where the router could not be made.
	defer func() {
		cancel()
		wg.Wait()
		leave(gossip, log)
	}()
	reload := &routerReload{load: c.load, fresh: func() *Router { return NewRouter(c.stdio) }, level: level, log: log, inForce: c.set.Values()}
	c.Settings, c.ReadAgain, c.Version = reload.settings, reload.again, buildVersion()
	c.Forward = gossip.Cancel
	r, err := router.New(c.Options, k, boottime.Now, log.Named("router"))
	if err != nil {
		return err
	}
	gossip.HandleCancels(r.CancelForwarded)
	reload.apply = r.Apply
	wg.Go(func() { reload.on(ctx, signals) })
	return r.Run(ctx)
}

// ownPassword returns what gives the password of the role howdah_router; nil if none is configured. A file is read each time, so that
// it may change, and now, so that a mistake shows at the start. Of a file with former passwords the first line is taken.
func (c *Router) ownPassword() (func() (string, error), error) {
	switch {
	case c.RouterPassword != "":
		return func() (string, error) { return c.RouterPassword.Reveal(), nil }, nil
	case c.RouterPasswordFile == "":
		return nil, nil
	}
	read := func() (string, error) {
		lines, err := readPasswordFile(c.RouterPasswordFile)
		if err != nil {
			return "", err
		}
		return lines[0].Reveal(), nil
	}
	_, err := read()
	return read, err
}

func leave(d *detector.Detector, log *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		log.Warn("could not leave the gossip in order", zap.Error(err))
	}
}

// gossip is what knowledge needs of the detector.
type gossip interface {
	Peers() []schema.Peer
	Join(addresses []string) error
}

// watcher is what knowledge needs of Consul.
type watcher interface {
	WatchState(ctx context.Context, each func(schema.ClusterState, error))
}

// knowledge gives a router what gossip and Consul say; it is the router.Knowledge.
type knowledge struct {
	gossip  gossip
	cluster string
	log     *zap.Logger
	changes chan struct{}

	mu    sync.Mutex
	state schema.ClusterState
	seen  bool
}

func newKnowledge(g gossip, cluster string, log *zap.Logger) *knowledge {
	return &knowledge{gossip: g, cluster: cluster, log: log, changes: make(chan struct{}, 1)}
}

// Peers implements router.Knowledge.
func (k *knowledge) Peers() []schema.Peer { return k.gossip.Peers() }

// State implements router.Knowledge.
func (k *knowledge) State() (schema.ClusterState, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.seen
}

// Changes implements router.Knowledge.
func (k *knowledge) Changes() <-chan struct{} { return k.changes }

func (k *knowledge) changed() {
	select {
	case k.changes <- struct{}{}:
	default: // one is waiting already
	}
}

// relay makes one stream of changes out of two.
func (k *knowledge) relay(ctx context.Context, changes <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			k.changed()
		}
	}
}

// watch keeps what Consul said last while it does not answer: how old that is the router sees by its AskedAt.
func (k *knowledge) watch(ctx context.Context, c watcher) {
	failing := false
	c.WatchState(ctx, func(s schema.ClusterState, err error) {
		if err != nil {
			if !failing {
				k.log.Warn("consul does not answer; going on with gossip", zap.Error(err))
			}
			failing = true
			return
		}
		if failing {
			k.log.Info("consul answers again")
			failing = false
		}
		k.mu.Lock()
		k.state, k.seen = s, true
		k.mu.Unlock()
		k.join(s)
		k.changed()
	})
}

// join makes the gossip find the members that Consul knows.
func (k *knowledge) join(s schema.ClusterState) {
	var addresses []string
	for _, m := range s.Members {
		if m.Exists && m.Value.Addresses.Gossip != "" {
			addresses = append(addresses, m.Value.Addresses.Gossip)
		}
	}
	if len(addresses) == 0 {
		return
	}
	if err := k.gossip.Join(addresses); err != nil {
		k.log.Warn("a member's gossip address in consul cannot be used", zap.Error(err))
	}
}

var (
	_ router.Knowledge = (*knowledge)(nil)
	_ watcher          = (*consul.Client)(nil)
)
