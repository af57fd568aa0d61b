// Package role knows how roles log in, and what is set for their sessions. It asks the servers (howdah.authentication, which the sidecars make; pg_db_role_setting) and
// keeps each answer for a moment.
package role

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/scram"
)

// Role is how one role may log in.
type Role struct {
	// Verifier is what the client's proof is held against. Its kind is scram.KindNone where nobody can log in with a password.
	Verifier scram.Verifier
	// Why says why there is none, for the log; a client is never told.
	Why string
}

// ErrNoFunction is a server without the function howdah.authentication: its sidecar is too old, or has not made it yet.
var ErrNoFunction = errors.New("the function howdah.authentication is not there")

// ErrRefused is a server that does not let the router log in.
var ErrRefused = errors.New("the router's own role cannot log in; router-password-file must hold the password that the sidecars gave it")

// Ask asks one server about a role. A role that does not exist is no error.
type Ask func(ctx context.Context, on own.Server, name string) (Role, error)

// Roles is a Book of roles, by name.
type Roles = Book[string, Role]

// NewRoles returns a Book of roles.
func NewRoles(ask Ask, servers func() []own.Server, now func() schema.Instant, timeout time.Duration) *Roles {
	return NewBook("how a role logs in", func(ctx context.Context, on own.Server, name string) (Role, error) {
		if !utf8.ValidString(name) {
			return Role{Why: "the name is not UTF-8"}, nil
		}
		return ask(ctx, on, name)
	}, servers, now, timeout)
}

// User is a user in a database.
type User struct{ Name, Database string }

// Settings is a Book of what roles and databases set.
type Settings = Book[User, own.Login]

// NewSettings returns a Book of what roles and databases set, which gives each server so much time.
func NewSettings(c *own.Connections, each time.Duration, servers func() []own.Server, now func() schema.Instant, timeout time.Duration) *Settings {
	return NewBook("what is set for a session", func(ctx context.Context, on own.Server, u User) (own.Login, error) {
		ctx, stop := context.WithTimeout(ctx, each)
		defer stop()
		return c.LoginSettings(ctx, on, u.Name, u.Database)
	}, servers, now, timeout)
}

// AskBy asks over the router's own connections. Each server has a part of the time, so that another can be asked.
func AskBy(c *own.Connections, each time.Duration) Ask {
	return func(ctx context.Context, on own.Server, name string) (Role, error) {
		ctx, stop := context.WithTimeout(ctx, each)
		defer stop()
		var r Role
		err := c.Do(ctx, on, own.Lookups, func(ctx context.Context, conn *pgx.Conn) error {
			var err error
			r, err = ask(ctx, conn, name)
			return err
		})
		var said *pgconn.PgError
		if errors.As(err, &said) && strings.HasPrefix(said.Code, "28") {
			err = fmt.Errorf("%w (%s)", ErrRefused, said.Message)
		}
		return r, err
	}
}

func ask(ctx context.Context, conn *pgx.Conn, name string) (Role, error) {
	var text string
	var expired bool
	err := conn.QueryRow(ctx, "SELECT coalesce(verifier, ''), expired FROM howdah.authentication($1)", name).Scan(&text, &expired)
	var said *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Role{Why: "the role does not exist"}, nil
	case errors.As(err, &said) && (said.Code == "3F000" || said.Code == "42883" || said.Code == "42501"):
		return Role{}, fmt.Errorf("%w (%s)", ErrNoFunction, said.Message)
	case err != nil:
		return Role{}, err
	case expired:
		return Role{Why: "its password has expired"}, nil
	case text == "":
		return Role{Why: "it has no password"}, nil
	}
	v, err := scram.ParseVerifier(text)
	switch {
	case err != nil:
		return Role{Why: "its password is neither SCRAM-SHA-256 nor md5"}, nil
	case v.Kind != scram.KindSCRAM:
		return Role{Verifier: v, Why: "its password is md5"}, nil
	}
	return Role{Verifier: v}, nil
}
