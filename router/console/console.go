// Package console is the router's administration over PostgreSQL's own protocol, in the manner of pgbouncer's: SHOW, PAUSE, RESUME, RELOAD,
// KILL and SHUTDOWN for whoever connects to the database howdah.
//
// Parsing (command.go) and what is shown (table.go, show.go) are pure; serve.go and login.go read and write one connection. Whatever the
// commands do is done by the router, behind the interface Router. Names of columns are pgbouncer's where the thing is the same, so that what reads
// pgbouncer reads this as far as it goes. What is not measured has no column, rather than a zero that looks like a figure.
package console

import (
	"context"
	"time"

	"howdah/router/wire"
)

// Database is the name under which clients find the console.
const Database = "howdah"

// The SQLSTATEs of the console's errors; names follow PostgreSQL's src/backend/utils/errcodes.txt.
const (
	codeSyntaxError           = "42601"
	codeInsufficientPrivilege = "42501"
	codeUndefinedObject       = "42704"
	codeObjectInUse           = "55006"
	codeNotInState            = "55000"
	codeConfigFile            = "F0000"
	codeInvalidPassword       = "28P01"
)

// Router is what the console administers. Its methods may be called from several consoles at once.
type Router interface {
	// View is how things stand.
	View() View
	// Pause holds sessions and waits until all are at rest; busy is how many are not, when the waiting is over.
	Pause(ctx context.Context) (busy int, waited time.Duration)
	// Resume lets held sessions go on; false if none are held.
	Resume() bool
	// Reload reads the options again. An error leaves all as they were.
	Reload() ([]Change, error)
	// Kill ends a client's session; false if there is none with the id.
	Kill(id uint64) bool
	// Shutdown begins the drain that also SIGTERM begins.
	Shutdown()
}

// Change is an option whose value in the sources is another than the one in force.
type Change struct {
	Name, Old, New string
	// Restart says that New takes a restart; otherwise it is in force now.
	Restart bool
}

// View is how things stand at one moment.
type View struct {
	Version, Cluster, Router string
	Now                      time.Time // wall clock, for people
	Paused, Draining         bool
	MaxClients               int
	Clients                  []Client
	Limits                   []Limit
	// Totals are by database, those of ended sessions included.
	Totals   []Totals
	Routes   []Route
	Members  []Member
	Settings []Setting

	Epoch         uint64
	Leader, Phase string
	// Primary is the member that takes rw sessions, Address its host:port; empty with a Reason where there is none.
	Primary, Address, Reason string
}

// Client is one session.
type Client struct {
	ID                                      uint64
	User, Database, Route, State            string
	Addr, LocalAddr                         string // host:port
	Application, TLS                        string
	ConnectedAt                             time.Time
	Waiting                                 time.Duration // of one without a server: since when it waits
	Member, Role, ServerAddr, ServerOwnAddr string        // empty without a server
	// ServerState is State as far as this server is concerned.
	ServerState string
	Epoch       uint64 // of a primary
	Held        bool   // by PAUSE
	// Reader is the standby that its reads go to, beside the server; nil while there is none.
	Reader *Reader
	// RouteFrom is where its route is from. Consistency is what its reads must see, and ConsistencyFrom where that is from, of one whose statements are routed
	// one by one; else empty.
	RouteFrom, Consistency, ConsistencyFrom string
	// Pinned says why all of it goes to the primary, although its statements are routed one by one, and PinnedAt since when; empty if that is not so.
	Pinned   string
	PinnedAt time.Time
}

// Reader is a session's connection to a standby, beside the one to the primary.
type Reader struct {
	Member, State, Addr, OwnAddr string
	ConnectedAt                  time.Time
}

// linked reports whether the session has a server.
func (c Client) linked() bool { return c.Member != "" && c.State != StateWaiting }

// servers is how many server connections the session has.
func (c Client) servers() int {
	n := 0
	if c.linked() {
		n++
	}
	if c.Reader != nil {
		n++
	}
	return n
}

// The states of sessions; the console itself tells only the first two from the others.
const (
	StateWaiting     = "waiting"
	StateLogin       = "login"
	StateReplication = "replication"
	StateActive      = "active"
	StateTransaction = "transaction"
	StateIdle        = "idle"
)

// Totals are what one database's sessions have done.
type Totals struct {
	Database                                                      string
	Sessions, Queries, Transactions, FromClients, FromServers, US uint64 // US: microseconds of waiting for a server
}

// Route is one listener's or one kind of session's state.
type Route struct {
	Name, Listen, Member, Reason string
	Sessions, Waiting            int
	// Set is how many of the sessions have it from what is set for a role or a database.
	Set int
	// Eventual, Session and Strict are how many read so, statement by statement.
	Eventual, Session, Strict int
	// Of statement routing: how many of the sessions have a standby to read from, and where the next one would read.
	Reading int
	Reader  string
}

// Member is one member of the cluster as the router sees it.
type Member struct {
	Name, Role, Address, Reason string
	Serves                      bool
	Sessions                    int
	ReplayLSN                   string
	LagBytes                    uint64
	LagTime                     time.Duration
}

// Limit is how many clients a user, a database or an address has, and how many it may have; Max is 0 where that is any number.
type Limit struct {
	Kind, Name   string
	Clients, Max int
}

// Setting is one option of the router.
type Setting struct {
	Name, Value, Default string
	Changeable           bool
}

func failed(code, format string, args ...any) *wire.Error {
	e := wire.Fatal(code, format, args...)
	e.Severity = "ERROR"
	return e
}
