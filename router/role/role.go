// Package role knows how roles log in. It asks the servers (howdah.authentication, which the sidecars make) and keeps each answer for a moment.
package role

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/scram"
)

// KeptFor is how long an answer may be used again. It only saves questions: whoever finds that an answer does not fit asks anew (Options.Fresh).
const KeptFor = time.Second

// maxKept bounds how many answers are kept; strangers may ask for any name.
const maxKept = 1000

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

// Ask asks one server about a role.
type Ask func(ctx context.Context, on own.Server, name string) (Role, error)

// Book keeps answers. Make it with NewBook; its methods may be called from any goroutine.
type Book struct {
	ask     Ask
	servers func() []own.Server
	now     func() schema.Instant
	// timeout bounds one question to all servers.
	timeout time.Duration

	mu    sync.Mutex
	pages map[string]*page
	// asking counts the questions under way.
	asking sync.WaitGroup
}

// page is one question, and its answer once done is closed.
type page struct {
	begun schema.Instant
	done  chan struct{}
	role  Role
	err   error
}

// NewBook returns a Book that asks the servers that are returned at that moment, one after the other until one answers: the primary first.
func NewBook(ask Ask, servers func() []own.Server, now func() schema.Instant, timeout time.Duration) *Book {
	return &Book{ask: ask, servers: servers, now: now, timeout: timeout, pages: map[string]*page{}}
}

// Find returns how a role may log in, by an answer to a question that was asked at since or later. Those who ask for the same role at the same time share a
// question. A role that does not exist is no error.
func (b *Book) Find(ctx context.Context, name string, since schema.Instant) (Role, error) {
	p := b.page(name, since)
	select {
	case <-p.done:
		return p.role, p.err
	case <-ctx.Done():
		return Role{}, ctx.Err()
	}
}

func (b *Book) page(name string, since schema.Instant) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pages[name]; p != nil && !p.begun.Before(since) {
		return p
	}
	b.makeRoom()
	p := &page{begun: b.now(), done: make(chan struct{})}
	b.pages[name] = p
	b.asking.Go(func() {
		defer close(p.done)
		// Whoever asked first may go away; others wait for the same answer.
		ctx, stop := context.WithTimeout(context.Background(), b.timeout)
		defer stop()
		if p.role, p.err = b.find(ctx, name); p.err != nil {
			b.forget(name, p)
		}
	})
	return p
}

// makeRoom forgets what is too old to be used again, and if that is not enough everything.
func (b *Book) makeRoom() {
	if len(b.pages) < maxKept {
		return
	}
	old := b.now().Add(-KeptFor)
	for name, p := range b.pages {
		if p.begun.Before(old) {
			delete(b.pages, name)
		}
	}
	if len(b.pages) >= maxKept {
		clear(b.pages)
	}
}

func (b *Book) forget(name string, p *page) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pages[name] == p {
		delete(b.pages, name)
	}
}

func (b *Book) find(ctx context.Context, name string) (Role, error) {
	if !utf8.ValidString(name) {
		return Role{Why: "the name is not UTF-8"}, nil
	}
	err := own.ErrNoPrimary
	for _, s := range b.servers() {
		var r Role
		if r, err = b.ask(ctx, s, name); err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Role{}, fmt.Errorf("look up how a role logs in: %w", err)
}

// Wait returns once no question is under way.
func (b *Book) Wait() { b.asking.Wait() }

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
