package launch

import (
	"errors"
	"fmt"
	"net/http"
)

// What a request was refused for. Ask with errors.Is on both sides of the socket; whatever
// was refused changed nothing.
var (
	// ErrInvalid: the request itself is wrong; the message says what is allowed.
	ErrInvalid = errors.New("invalid request")
	// ErrOlderEpoch: a newer epoch was armed here before (I3).
	ErrOlderEpoch = errors.New("older epoch")
	// ErrDeadlinePast: the deadline asked for, or the one in force, has passed. A deadline that was
	// reached is never moved: a newer primary may exist.
	ErrDeadlinePast = errors.New("deadline has passed")
	// ErrClock: the caller's CLOCK_BOOTTIME is not the launcher's (a time namespace, another machine).
	ErrClock = errors.New("clocks differ")
	// ErrNotRunning: there is no postmaster.
	ErrNotRunning = errors.New("postgres is not running")
	// ErrAlreadyRunning: there is a postmaster, or something of the last one still lives.
	ErrAlreadyRunning = errors.New("postgres is already running")
	// ErrWrongRole: standby.signal says otherwise than the role asked for.
	ErrWrongRole = errors.New("data directory is not of this role")
	// ErrBusy: another job runs; try again when it has ended.
	ErrBusy = errors.New("another job is running")
	// ErrNoJob: no job of this ID is known.
	ErrNoJob = errors.New("no such job")
	// ErrEnding: the launcher was told to end and starts nothing any more.
	ErrEnding = errors.New("launcher is ending")
	// ErrWatchdog: a watchdog is required and cannot be had, so nothing may run as a primary here.
	ErrWatchdog = errors.New("no watchdog")
	// ErrUnreachable (Client only): nobody answers on the socket; nothing was sent.
	ErrUnreachable = errors.New("launcher is unreachable")
)

// refusals are the errors that travel over the socket, by their code.
var refusals = []struct {
	code   string
	status int
	err    error
}{
	{"invalid", http.StatusBadRequest, ErrInvalid},
	{"older_epoch", http.StatusConflict, ErrOlderEpoch},
	{"deadline_past", http.StatusConflict, ErrDeadlinePast},
	{"clock", http.StatusConflict, ErrClock},
	{"not_running", http.StatusConflict, ErrNotRunning},
	{"already_running", http.StatusConflict, ErrAlreadyRunning},
	{"wrong_role", http.StatusConflict, ErrWrongRole},
	{"busy", http.StatusConflict, ErrBusy},
	{"no_job", http.StatusNotFound, ErrNoJob},
	{"watchdog", http.StatusServiceUnavailable, ErrWatchdog},
	{"ending", http.StatusServiceUnavailable, ErrEnding},
}

// wireError is the body of every answer that is not 200.
type wireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// refusal is a wireError as the client's caller sees it: the server's words, and the
// sentinel for errors.Is.
type refusal struct {
	message string
	is      error
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.is }

func (w wireError) err() error {
	for _, r := range refusals {
		if r.code == w.Code {
			return &refusal{message: "launcher: " + w.Message, is: r.err}
		}
	}
	return fmt.Errorf("launcher: %s", w.Message)
}
