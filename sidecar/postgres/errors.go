package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a failed question means. Everything that is none of these is unknown, and unknown is
// neither dead nor stopped (I5).
var (
	// ErrNotListening: nobody listens at the address. The kernel said so at once.
	ErrNotListening = errors.New("no server listens there")
	// ErrNotReady: the server is there but takes no connections: it starts up, shuts down, or is in
	// crash recovery (SQLSTATE 57P03).
	ErrNotReady = errors.New("the server does not accept connections yet")
	// ErrPassword: the server refused the password or the role (SQLSTATE 28P01, 28000).
	ErrPassword = errors.New("the server refused the password")
	// ErrUnreachable: a server elsewhere could not be reached, or did not answer in time.
	ErrUnreachable = errors.New("cannot be reached")
	// ErrDiskFull: a tool ran out of space.
	ErrDiskFull = errors.New("no space left on the device")
	// ErrOtherCluster: the server's system identifier is not the expected one.
	ErrOtherCluster = errors.New("the server belongs to another cluster")
	// ErrNotOurs: a file or directory stands in the way that this package did not make. It is left alone (I7).
	ErrNotOurs = errors.New("not made by howdah, left alone")
)

// Answered reports an error that the server itself gave: however bad, it does not hang.
func Answered(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) || errors.Is(err, ErrNotReady) || errors.Is(err, ErrPassword)
}

// MajorError says that two major versions that must be equal are not.
type MajorError struct {
	What string // whose version Have is
	Have int
	Want int // of the binaries installed here
}

// Error implements error.
func (e *MajorError) Error() string {
	return fmt.Sprintf("%s is PostgreSQL %d, the binaries here are PostgreSQL %d; install PostgreSQL %d or use another server", e.What, e.Have, e.Want, e.Have)
}
