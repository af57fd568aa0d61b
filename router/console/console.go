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
	Epoch                                   uint64        // of a primary
	Held                                    bool          // by PAUSE
}

// linked reports whether the session has a server.
func (c Client) linked() bool { return c.Member != "" && c.State != StateWaiting }

// The states that the console itself tells apart; a session that has neither is at work or idle.
const (
	StateWaiting = "waiting"
	StateLogin   = "login"
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
