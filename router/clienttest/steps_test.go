package clienttest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

// steps are those of a client that is Go code.
type steps struct {
	login
	ctx   context.Context
	lines []string
}

// inProcess runs f as a client, bounded as a program is.
func inProcess(f func(*steps) error) func(*testing.T, login) []string {
	return func(t *testing.T, l login) []string {
		ctx, stop := context.WithTimeout(t.Context(), runTime)
		defer stop()
		s := &steps{login: l, ctx: ctx}
		if err := f(s); err != nil {
			s.lines = append(s.lines, fmt.Sprint("failed: ", err))
		}
		return s.lines
	}
}

func (s *steps) do(name string, f func() (any, error)) {
	result, err := f()
	switch code := sqlstate(err); {
	case err == nil:
		s.lines = append(s.lines, fmt.Sprintf("%s: %v", name, result))
	case len(code) == 5:
		s.lines = append(s.lines, fmt.Sprintf("%s: error %s", name, code))
	default:
		s.lines = append(s.lines, fmt.Sprintf("%s: failed %s", name, code))
	}
}

// sqlstate returns that of err; ok for none, and the error's text if it has none.
func sqlstate(err error) string {
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &ofPgx):
		return ofPgx.Code
	case errors.As(err, &ofPq):
		return string(ofPq.Code)
	}
	return err.Error()
}

func digest(b []byte) string { return fmt.Sprintf("%d bytes %x", len(b), sha256.Sum256(b))[:40] }
