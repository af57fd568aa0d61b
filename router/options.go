package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"howdah/router/console"
	"howdah/router/route"
	"howdah/router/rule"
)

// Options are the settings of one router. DefaultOptions has a value for each that can have one.
type Options struct {
	// Cluster is the cluster served: gossip of another one is not believed. Required.
	Cluster string
	// Name is this router's own name, in events and inside the cancel keys it hands out. Required.
	Name string

	// Listen, ListenRW and ListenRO are host:port; an empty one is not opened, at least one must be.
	// A client of Listen gets the route it asks for, or that is set for it, or auto; the other two have a route of their own
	// that a startup parameter may still override.
	Listen, ListenRW, ListenRO string
	// APIListen is the host:port of /health, /metrics, /status and /events; empty for none.
	APIListen string
	// UnixSocketDir is the directory in which each listener has a Unix-domain socket as well, .s.PGSQL.PORT; empty for none. With @ in front it is a name in
	// the abstract namespace. UnixSocketMode are the permissions of the sockets, in octal digits.
	UnixSocketDir, UnixSocketMode string
	// ReusePort lets another router of the same user listen at the same addresses (SO_REUSEPORT), to take over while this one drains.
	ReusePort bool

	// TLSMode says whether clients may or must use TLS, with the PEM certificate and key of the two files, which are read again when they
	// change. TLSMinVersion is TLSv1.2 or TLSv1.3.
	TLSMode                 TLSMode
	TLSCertFile, TLSKeyFile string
	TLSMinVersion           string
	// TLSClientCAFile holds the PEM certificates of the authorities that clients' certificates must be from, read again when it changes. Empty: clients are
	// not asked for one.
	TLSClientCAFile string

	// ServerTLSMode says whether connections to servers use TLS, and ServerTLSCAFile holds the PEM certificates of the authorities that theirs must be from,
	// read again when it changes. The name that verify-full wants is the host of the member's address.
	ServerTLSMode   ServerTLSMode
	ServerTLSCAFile string
	// ServerTLSCertFile and ServerTLSKeyFile are the certificate that is shown to servers that ask for one (cert or clientcert in pg_hba.conf); both or none.
	ServerTLSCertFile, ServerTLSKeyFile string

	// FailoverWait is how long a new session waits for a server before it is refused with 57P03, and for how long a primary that is about to stop is
	// given no new transactions.
	FailoverWait time.Duration
	// LoginTimeout bounds the startup packet, and after it the authentication. PostgreSQL's
	// authentication_timeout has the same default.
	LoginTimeout time.Duration
	// DialTimeout bounds one attempt to connect to a server and to hear its first answer.
	DialTimeout time.Duration
	// CancelTimeout bounds the delivery of a cancel request.
	CancelTimeout time.Duration
	// DrainTimeout is how long sessions inside a transaction may go on once the router shuts down.
	DrainTimeout time.Duration
	// FarewellTimeout bounds the writing of a last error to a client that may not read.
	FarewellTimeout time.Duration

	// OwnPassword gives the password of the role howdah_router, with which the router itself asks servers what no client session may
	// be used to ask (package own). It is called for every attempt to connect. Nil: what needs that is off.
	OwnPassword func() (string, error)

	// Forward passes a cancel request on to another router, whose CancelForwarded is called there, and returns whether the key is a session's of its. Nil: such requests are dropped.
	Forward func(ctx context.Context, router string, key []byte) (found bool, err error)

	// Consistency is what reads must see whose session does not say; ReadWait how long one waits for a standby that has it.
	Consistency route.Consistency
	// StatementRouting has sessions of route auto read from standbys, statement by statement; without it they stay on the primary. Where it is taken
	// away while the router runs, so do sessions that have begun, until it is back; a block on a standby ends there.
	StatementRouting bool
	ReadWait         time.Duration
	// AuthType says who authenticates clients.
	AuthType     AuthType
	asking       func(*asks)   // of tests: puts something else in the place of what asks servers
	balanceEvery time.Duration // of tests; zero is the constant
	// Rules say who may connect and who authenticates them, in the form of pg_hba.conf: the first that matches decides, and without a match nobody may. None at
	// all: everybody may, as AuthType says. parsed is what they mean.
	Rules  []string
	parsed []rule.Rule
	// IdentMap says which users a certificate, or a user of the operating system (peer), is good for, where a rule has map=NAME, in the form of pg_ident.conf. mappings is what it means.
	IdentMap []string
	mappings []rule.Mapping

	// Limits say how many clients of a user, a database or an address are admitted at one time: lines of kind, whom it is for, how many. The first of a kind that is
	// for the client counts. limits is what they mean.
	Limits []string
	limits []rule.Limit

	// AdminUsers may use the console (package console), StatsUsers may only look. ConsolePassword gives the password of both; it is called
	// for each login.
	AdminUsers, StatsUsers []string
	ConsolePassword        func() (string, error)
	// Settings gives SHOW CONFIG its rows, ReadAgain does what RELOAD asks for. Nil: there is nothing to show, nothing to read.
	Settings  func() []console.Setting
	ReadAgain func() ([]console.Change, error)
	// Version is what SHOW VERSION shows.
	Version string

	// MaxClients is the number of sessions admitted; the next client is refused with 53300.
	MaxClients int
	// ReadOnlyFallback lets the primary serve ro sessions where no standby may.
	ReadOnlyFallback bool

	// TCPUserTimeout is how long sent bytes may wait before the kernel gives the peer up
	// (TCP_USER_TIMEOUT), on both sides; 0 leaves it to the kernel, about 15 minutes. It must be
	// longer than a client may pause in the middle of a result: since Linux 5.11 a peer that is
	// alive but does not read counts as one that is gone. KeepAliveIdle, KeepAliveInterval and
	// KeepAliveCount find peers that vanish while nothing is sent: after about
	// KeepAliveIdle + KeepAliveCount*KeepAliveInterval.
	TCPUserTimeout    time.Duration
	KeepAliveIdle     time.Duration
	KeepAliveInterval time.Duration
	KeepAliveCount    int
}

// DefaultOptions returns the options of a router for which nothing else is said; Cluster and Name
// are left empty.
func DefaultOptions() Options {
	return Options{
		Listen:            "127.0.0.1:6432",
		UnixSocketMode:    "0777",
		TLSMode:           TLSDisable,
		TLSMinVersion:     "TLSv1.2",
		AuthType:          AuthAuto,
		StatementRouting:  true,
		ServerTLSMode:     ServerTLSDisable,
		FailoverWait:      30 * time.Second,
		LoginTimeout:      60 * time.Second,
		DialTimeout:       2 * time.Second,
		CancelTimeout:     3 * time.Second,
		DrainTimeout:      30 * time.Second,
		FarewellTimeout:   time.Second,
		MaxClients:        1000,
		Consistency:       route.Session,
		ReadWait:          20 * time.Millisecond,
		ReadOnlyFallback:  true,
		TCPUserTimeout:    5 * time.Minute,
		KeepAliveIdle:     10 * time.Second,
		KeepAliveInterval: 3 * time.Second,
		KeepAliveCount:    3,
	}
}

// Validate returns every mistake in o at once, each with the option as it is spelt on the command
// line, its value and what is allowed.
func (o Options) Validate() error {
	var errs []error
	if o.Cluster == "" {
		errs = append(errs, errors.New("cluster: must not be empty; name the cluster to serve"))
	}
	if o.Name == "" {
		errs = append(errs, errors.New("name: must not be empty; each router needs a name of its own"))
	}
	if o.Listen == "" && o.ListenRW == "" && o.ListenRO == "" {
		errs = append(errs, errors.New("listen: no address at all; give listen, listen-rw or listen-ro as host:port"))
	}
	for _, l := range []struct{ key, addr string }{
		{"listen", o.Listen}, {"listen-rw", o.ListenRW}, {"listen-ro", o.ListenRO}, {"api-listen", o.APIListen},
	} {
		if err := checkAddress(l.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.key, err))
		}
	}
	errs = append(errs, o.validateUnixSocket()...)
	errs = append(errs, o.validateTLS()...)
	if _, err := route.ParseConsistency(string(o.Consistency)); err != nil {
		errs = append(errs, fmt.Errorf("consistency: %q is not allowed; choose eventual, session or strict", o.Consistency))
	}
	errs = append(errs, o.validateAuth()...)
	if _, err := o.parseLimits(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, o.validateServerTLS()...)
	bound := func(key string, v, low, high time.Duration) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s: %s is not allowed; choose from %s to %s", key, v, low, high))
		}
	}
	bound("failover-wait", o.FailoverWait, 0, time.Hour)
	bound("read-wait", o.ReadWait, time.Millisecond, 10*time.Second)
	bound("login-timeout", o.LoginTimeout, 100*time.Millisecond, 10*time.Minute)
	bound("dial-timeout", o.DialTimeout, 50*time.Millisecond, time.Minute)
	bound("cancel-timeout", o.CancelTimeout, 50*time.Millisecond, time.Minute)
	bound("drain-timeout", o.DrainTimeout, 0, 24*time.Hour)
	bound("farewell-timeout", o.FarewellTimeout, 10*time.Millisecond, time.Minute)
	bound("tcp-user-timeout", o.TCPUserTimeout, 0, 24*time.Hour)
	bound("keepalive-idle", o.KeepAliveIdle, time.Second, 2*time.Hour)
	bound("keepalive-interval", o.KeepAliveInterval, time.Second, 2*time.Hour)
	count := func(key string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s: %d is not allowed; choose from %d to %d", key, v, low, high))
		}
	}
	count("max-clients", o.MaxClients, 1, 1_000_000)
	count("keepalive-count", o.KeepAliveCount, 1, 100)
	return errors.Join(errs...)
}

// checkAddress returns an error if addr is neither empty nor host:port. Port 0 lets the kernel choose.
func checkAddress(addr string) error {
	if addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not allowed; want host:port: %w", addr, err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not allowed; the port must be a number from 0 to 65535", addr)
	}
	return nil
}

// listenAddresses returns the addresses to open, with the route that each stands for.
func (o Options) listenAddresses() map[route.Route]string {
	m := map[route.Route]string{}
	for r, a := range map[route.Route]string{route.Auto: o.Listen, route.RW: o.ListenRW, route.RO: o.ListenRO} {
		if a != "" {
			m[r] = a
		}
	}
	return m
}
