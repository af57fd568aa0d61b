package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// closeTimeout bounds the goodbye to a server that may no longer answer.
const closeTimeout = time.Second

// session is one connection to the local server that is kept between uses, as the superuser over the unix socket.
type session struct {
	p    *Postgres
	turn chan struct{} // holds one token: whoever has it uses conn
	conn *pgx.Conn
}

func newSession(p *Postgres) *session {
	s := &session{p: p, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// do runs f on the kept connection. Where that turns out to be broken, f runs once more on a new one,
// so f must be safe to repeat: a server that was restarted is found at once and not at the next call.
func (s *session) do(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.conn != nil {
		err := f(s.conn)
		if err == nil || !connectionLost(s.conn, err) {
			return localError(err)
		}
		s.drop()
		if ctx.Err() != nil {
			return localError(err)
		}
	}
	conn, err := s.p.connectLocal(ctx)
	if err != nil {
		return err
	}
	s.conn = conn
	if err = f(conn); err != nil && connectionLost(conn, err) {
		s.drop()
	}
	return localError(err)
}

func (s *session) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = s.conn.Close(ctx)
	s.conn = nil
}

func (s *session) close() {
	<-s.turn
	if s.conn != nil {
		s.drop()
	}
	s.turn <- struct{}{}
}

// connectionLost reports whether a connection is of no more use after err.
func connectionLost(c *pgx.Conn, err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Severity == "FATAL" || pgErr.SeverityUnlocalized == "FATAL" || c.IsClosed()
	}
	return c.IsClosed() || c.PgConn().IsBusy()
}

// onOwn runs f on a connection of its own, for what may take long.
func (p *Postgres) onOwn(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := p.connectLocal(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	return localError(f(conn))
}

// connectLocal connects as the superuser. What an administrator set for the cluster must not get in
// the way: no timeout that ends our statements, no log of them (roles' verifiers are among them), no wait for a
// synchronous standby.
func (p *Postgres) connectLocal(ctx context.Context) (*pgx.Conn, error) {
	return p.connectDatabase(ctx, "postgres")
}

func (p *Postgres) connectDatabase(ctx context.Context, name string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", quoteConninfo(p.o.SocketDir), p.o.Port, SuperuserRole, quoteConninfo(name)))
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams = map[string]string{
		"application_name":              "howdah",
		"search_path":                   "pg_catalog",
		"statement_timeout":             "0",
		"lock_timeout":                  "10s",
		"default_transaction_read_only": "off",
		"synchronous_commit":            "local",
		"log_statement":                 "none",
		"log_duration":                  "off",
		"log_min_duration_statement":    "-1",
		"log_min_error_statement":       "panic",
		"password_encryption":           "scram-sha-256",
	}
	var conn *pgx.Conn
	err = p.withPassword(SuperuserRole, func(password string) error {
		cfg.Password = password
		conn, err = pgx.ConnectConfig(ctx, cfg)
		return err
	})
	if err != nil {
		return nil, p.connectError(err)
	}
	return conn, nil
}

// connectError finds out what a failed connection to the local server means.
func (p *Postgres) connectError(err error) error {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return passwordError(pgErr, SuperuserRole, "superuser", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("socket in %s, port %d: %w", p.o.SocketDir, p.o.Port, ErrNotListening)
	case errors.Is(err, syscall.ENOENT):
		// The socket is not there. If its directory is not there either something else is wrong, and
		// whether a server runs is unknown.
		if _, dirErr := os.Stat(p.o.SocketDir); dirErr != nil {
			return fmt.Errorf("socket directory: %w", dirErr)
		}
		return fmt.Errorf("socket in %s, port %d: %w", p.o.SocketDir, p.o.Port, ErrNotListening)
	}
	return fmt.Errorf("connect to the local server: %w", err)
}

// passwordError turns the server's refusals into errors that name the role and the secret's file.
func passwordError(pgErr *pgconn.PgError, role, secret string, err error) error {
	switch pgErr.Code {
	case "57P03": // ERRCODE_CANNOT_CONNECT_NOW
		return fmt.Errorf("%w: %s", ErrNotReady, pgErr.Message)
	case "28P01": // ERRCODE_INVALID_PASSWORD
		return fmt.Errorf("%w of role %s: check the file %q in the secrets directory (%s); %s", ErrPassword, role, secret, pgErr.Message, passwordRemedy)
	case "28000": // ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION: no such role, no login, or no line in pg_hba.conf
		return fmt.Errorf("%w or the role %s: %s", ErrPassword, role, pgErr.Message)
	}
	return err
}

// localError adds ErrNotReady to the errors of a server that is going down.
func localError(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && strings.HasPrefix(pgErr.Code, "57P0") {
		return fmt.Errorf("%w: %s", ErrNotReady, pgErr.Message)
	}
	return err
}

// remoteError finds out what a failed connection to another server means.
func remoteError(u Upstream, role, secret string, err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return fmt.Errorf("%s: %w", u, passwordError(pgErr, role, secret, err))
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%s: %w: %w", u, ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", u, err)
}
