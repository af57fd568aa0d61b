// Package own keeps the router's own connections to the servers: those by which it asks, as the role howdah_router, what no client
// session may be used to ask, such as how far a server has come or what the catalog says.
//
// There is at most one connection for each server and use, opened when somebody first needs it. The servers are those of the newest
// picture: what is no longer in it is cut off at once, so that nothing goes to a server of an older epoch (I6). Nothing is ever written by
// these connections: their transactions are read only.
package own

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Role is the role that the sidecars make for routers, and Database the one database that it may enter
// (sidecar/postgres: RouterRole, ownHBA).
const (
	Role     = "howdah_router"
	Database = "postgres"
)

// Use is what a connection is for. Each has a connection of its own to each server, so that none waits for another's statement.
type Use string

// The uses.
const (
	Samples Use = "samples" // LSNs, many times a second
	Lookups Use = "lookups" // what the catalog says: roles, functions
)

// Server is one server in one reign.
type Server struct {
	Member  string
	Address string // host:port
	// Epoch is that of a primary; zero for a standby, which may outlive several.
	Epoch schema.Epoch
}

// Primary reports whether s is the primary of its epoch.
func (s Server) Primary() bool { return s.Epoch != 0 }

// The reasons why there is no connection.
var (
	// ErrOff: no password is configured.
	ErrOff = errors.New("the router has no password for the role " + Role + "; give it one (router-password-file)")
	// ErrWithdrawn: the server is not in the newest picture, or no longer.
	ErrWithdrawn = errors.New("the server does not serve any more, as far as the router knows")
	// ErrNoPrimary: no primary is known.
	ErrNoPrimary = errors.New("no primary is known")
	// ErrClosed: the router ends.
	ErrClosed = errors.New("the router is shutting down")
)

// Options say how to connect.
type Options struct {
	// Password is asked for at every attempt to connect, so that a file may change. Nil: no connections at all.
	Password func() (string, error)
	// Router is the router's name; pg_stat_activity.application_name shows "howdah router <name>".
	Router string
	// Dial connects to a server, with TLS or without, and also returns the socket below. Nil: without.
	Dial func(ctx context.Context, address string) (net.Conn, *net.TCPConn, error)
	// DialTimeout bounds one attempt to connect, login included. Timeout bounds one use of a connection, waiting for it
	// included; statement_timeout is as long.
	DialTimeout, Timeout time.Duration
	// Now is the clock.
	Now func() schema.Instant
	Log *zap.Logger
}

// Connections are the router's own. Make them with New, end them with Close. All methods may be called from any goroutine.
type Connections struct {
	o              Options
	opened, failed atomic.Uint64

	mu      sync.Mutex
	servers map[Server]*server
	primary Server // its Epoch is zero while there is none
	closed  bool
	users   sync.WaitGroup
}

// server is one server of the picture.
type server struct {
	gone     context.Context // ends when the server leaves the picture
	withdraw context.CancelFunc
	lines    map[Use]*line
}

// New returns Connections to no servers yet.
func New(o Options) *Connections {
	return &Connections{o: o, servers: map[Server]*server{}}
}

// Enabled reports whether there is a password to connect with.
func (c *Connections) Enabled() bool { return c.o.Password != nil }

// Set tells which servers there are. Connections to others are cut off, and who uses one gets ErrWithdrawn.
func (c *Connections) Set(servers []Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.Enabled() {
		return
	}
	c.primary = Server{}
	keep := make(map[Server]bool, len(servers))
	for _, s := range servers {
		keep[s] = true
		if s.Primary() {
			c.primary = s
		}
		if c.servers[s] == nil {
			gone, withdraw := context.WithCancel(context.Background())
			c.servers[s] = &server{gone: gone, withdraw: withdraw, lines: map[Use]*line{}}
		}
	}
	for s, known := range c.servers {
		if !keep[s] {
			known.withdraw()
			delete(c.servers, s)
		}
	}
}

// Primary returns the primary; false while none is known.
func (c *Connections) Primary() (Server, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary, c.primary.Primary()
}

// OnPrimary is Do on the primary of the moment. The error is ErrNoPrimary if there is none.
func (c *Connections) OnPrimary(ctx context.Context, use Use, f func(context.Context, *pgx.Conn) error) error {
	s, ok := c.Primary()
	switch {
	case !c.Enabled():
		return ErrOff
	case !ok:
		return ErrNoPrimary
	}
	return c.Do(ctx, s, use, f)
}

// Do runs f on the connection to s for this use, once nobody else has it, within ctx and Options.Timeout. Where a kept connection
// turns out to be broken f runs once more on a new one, so f must be safe to repeat. After a failure to connect, further calls fail at once with
// the same error until a pause is over, so that nobody storms a server. The error is ErrOff, ErrWithdrawn or ErrClosed, or is f's, the
// context's or the connection's, with the member's name.
func (c *Connections) Do(ctx context.Context, s Server, use Use, f func(context.Context, *pgx.Conn) error) error {
	if !c.Enabled() {
		return ErrOff
	}
	l, err := c.line(s, use)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Member, err)
	}
	defer c.users.Done()
	bounded, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	defer context.AfterFunc(l.gone, cancel)()
	err = l.do(bounded, f)
	switch {
	case err == nil:
		return nil
	case l.gone.Err() != nil:
		return fmt.Errorf("%s: %w", s.Member, ErrWithdrawn)
	}
	return fmt.Errorf("%s: %w", s.Member, err)
}

// line returns the line of a server for a use. The caller is counted among the users.
func (c *Connections) line(s Server, use Use) (*line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	known := c.servers[s]
	if known == nil {
		return nil, ErrWithdrawn
	}
	if known.lines[use] == nil {
		known.lines[use] = newLine(c, s, use, known.gone)
	}
	c.users.Add(1)
	return known.lines[use], nil
}

// Stats are figures about the connections.
type Stats struct {
	// Opened and Failed count the attempts to connect that succeeded and that did not.
	Opened, Failed uint64
	// Open is how many there are.
	Open int
}

// Stats returns the figures of the moment.
func (c *Connections) Stats() Stats {
	s := Stats{Opened: c.opened.Load(), Failed: c.failed.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range c.servers {
		for _, l := range known.lines {
			if l.open.Load() {
				s.Open++
			}
		}
	}
	return s
}

// Close ends all connections and returns once nobody uses one. What is idle takes its leave of its server first.
func (c *Connections) Close() {
	c.mu.Lock()
	c.closed = true
	var lines []*line
	var withdraw []context.CancelFunc
	for s, known := range c.servers {
		for _, l := range known.lines {
			lines = append(lines, l)
		}
		withdraw = append(withdraw, known.withdraw)
		delete(c.servers, s)
	}
	c.primary = Server{}
	c.mu.Unlock()
	for _, l := range lines {
		l.leave()
	}
	for _, f := range withdraw {
		f()
	}
	c.users.Wait()
}

// config says how to connect to address.
func (c *Connections) config(address string) (*pgx.ConnConfig, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	// All that the environment could set (PGHOST, PGSSLMODE and kin) is given here or set below.
	cfg, err := pgx.ParseConfig("host=127.0.0.1 port=5432 user=" + Role + " dbname=" + Database + " sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Fallbacks = host, uint16(port), nil
	if cfg.Password, err = c.o.Password(); err != nil {
		return nil, err
	}
	cfg.RuntimeParams = map[string]string{
		"application_name":              "howdah router " + c.o.Router,
		"search_path":                   "pg_catalog",
		"default_transaction_read_only": "on",
		"statement_timeout":             strconv.FormatInt(c.o.Timeout.Milliseconds(), 10),
	}
	return cfg, nil
}
