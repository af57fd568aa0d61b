package clienttest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

	"howdah/sidecar/postgres/postgrestest"
)

// pqClient is one session of lib/pq, by way of database/sql, and what its steps share.
type pqClient struct {
	*steps
	*sql.Conn
	db *sql.DB
}

func (s *steps) pqDSN(more string) string {
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=postgres sslmode=require connect_timeout=20 %s", s.host, s.port, s.role, postgrestest.Password, more)
}

func (s *steps) pq(more string) (*pqClient, error) {
	db, err := sql.Open("postgres", s.pqDSN(more))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(s.ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &pqClient{s, conn, db}, nil
}

func (c *pqClient) close() { _ = errors.Join(c.Conn.Close(), c.db.Close()) }

func (c *pqClient) exec(text string, args ...any) error {
	_, err := c.ExecContext(c.ctx, text, args...)
	return err
}

func (c *pqClient) one(text string, args ...any) (v string, err error) {
	err = c.QueryRowContext(c.ctx, text, args...).Scan(&v)
	return v, err
}

// apart is a step in a session of its own, as what it does keeps the session on the primary.
func (c *pqClient) apart(name string, f func(*pqClient) (any, error)) {
	c.do(name, func() (any, error) {
		other, err := c.pq("")
		if err != nil {
			return nil, err
		}
		defer other.close()
		return f(other)
	})
}

func (c *pqClient) count() string {
	v, err := c.one("SELECT count(*) FROM t")
	if err != nil {
		return sqlstate(err)
	}
	return v
}

func pqSteps(s *steps) error {
	c, err := s.pq("")
	if err != nil {
		return err
	}
	defer c.close()
	c.statements()
	c.transactions()
	c.copies()
	c.sessions()
	c.cancels()
	s.do("wrong password", func() (any, error) { _, err := s.pq("password=wrong"); return nil, err })
	return nil
}

func (c *pqClient) statements() {
	c.do("values", func() (any, error) {
		var a int64
		var b, d string
		var raw []byte
		var array []int64
		var null sql.NullString
		var yes bool
		var date time.Time
		err := c.QueryRowContext(c.ctx, "SELECT $1::int8, $2::text, $3::bytea, $4::numeric, $5::int[], $6::text, true, '2024-02-29'::date",
			int64(1)<<40, "zażółć ☃", []byte{0, 255}, "1.50", pq.Array([]int64{1, 2, 3}), nil).Scan(&a, &b, &raw, &d, pq.Array(&array), &null, &yes, &date)
		return []any{a, b, raw, d, array, null.Valid, yes, date.Format(time.DateOnly)}, err
	})
	c.do("prepared", func() (any, error) {
		stmt, err := c.PrepareContext(c.ctx, "SELECT $1::int * 2")
		if err != nil {
			return nil, err
		}
		sum := 0
		for i := range 50 {
			var n int
			if err := stmt.QueryRowContext(c.ctx, i).Scan(&n); err != nil {
				return nil, err
			}
			sum += n
		}
		n, err := c.one("SELECT count(*) FROM pg_prepared_statements")
		return []any{sum, n}, errors.Join(err, stmt.Close())
	})
	c.do("unknown prepared", func() (any, error) { return nil, c.exec("EXECUTE nobody") })
	c.apart("cached plan", func(c *pqClient) (any, error) {
		if err := c.exec("CREATE TEMP TABLE plan (a int)"); err != nil {
			return nil, err
		}
		stmt, err := c.PrepareContext(c.ctx, "SELECT * FROM plan")
		if err != nil {
			return nil, err
		}
		defer stmt.Close()
		_, first := stmt.ExecContext(c.ctx)
		altered := c.exec("ALTER TABLE plan ADD b int")
		_, second := stmt.ExecContext(c.ctx)
		return []string{sqlstate(first), sqlstate(altered), sqlstate(second)}, nil
	})
	c.do("unique", func() (any, error) { return nil, c.exec("INSERT INTO t VALUES (1, 'again')") })
	c.do("no table", func() (any, error) { return nil, c.exec("SELECT * FROM nowhere") })
	c.do("syntax", func() (any, error) { return nil, c.exec("SELECT 1 FROMM t") })
	c.apart("raised", func(c *pqClient) (any, error) {
		var e *pq.Error
		if err := c.exec("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$"); !errors.As(err, &e) {
			return nil, err
		}
		return []string{string(e.Code), e.Message, e.Detail, e.Hint}, nil
	})
	c.do("several statements", func() (any, error) {
		rows, err := c.QueryContext(c.ctx, "SELECT 1; SELECT 2")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var seen []int
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				var n int
				if err := rows.Scan(&n); err != nil {
					return nil, err
				}
				seen = append(seen, n)
			}
		}
		return seen, rows.Err()
	})
}

func (c *pqClient) transactions() {
	begin := func(o *sql.TxOptions, f func(*sql.Tx) error) error {
		tx, err := c.BeginTx(c.ctx, o)
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
	insert := func(tx *sql.Tx, id int) error {
		_, err := tx.ExecContext(c.ctx, "INSERT INTO t VALUES ($1, 'x')", id)
		return err
	}
	c.do("commit", func() (any, error) {
		err := begin(nil, func(tx *sql.Tx) error { return errors.Join(insert(tx, 11), insert(tx, 12)) })
		return c.count(), err
	})
	c.do("rollback", func() (any, error) {
		thoughtBetter := errors.New("thought better of it")
		var wrote error
		err := begin(nil, func(tx *sql.Tx) error { wrote = insert(tx, 21); return thoughtBetter })
		return []any{sqlstate(wrote), errors.Is(err, thoughtBetter), c.count()}, nil
	})
	c.do("error in the middle", func() (any, error) {
		var seen []string
		err := begin(nil, func(tx *sql.Tx) error {
			_, divided := tx.ExecContext(c.ctx, "SELECT 1 / (id - id) FROM t")
			_, then := tx.ExecContext(c.ctx, "SELECT $1::int", 1)
			seen = append(seen, sqlstate(insert(tx, 31)), sqlstate(divided), sqlstate(then))
			return nil
		})
		return []any{seen, err != nil, c.count()}, nil
	})
	c.do("read only", func() (any, error) {
		return nil, begin(&sql.TxOptions{ReadOnly: true}, func(tx *sql.Tx) error { return insert(tx, 41) })
	})
	c.do("serializable", func() (any, error) {
		err := begin(&sql.TxOptions{Isolation: sql.LevelRepeatableRead}, func(tx *sql.Tx) error { return insert(tx, 42) })
		return c.count(), err
	})
}

func (c *pqClient) copies() {
	copyIn := func(rows ...any) error {
		tx, err := c.BeginTx(c.ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		stmt, err := tx.PrepareContext(c.ctx, "COPY copied (id, s) FROM STDIN")
		if err != nil {
			return err
		}
		for i, id := range rows {
			if _, err := stmt.ExecContext(c.ctx, id, fmt.Sprint("row ", i)); err != nil {
				return errors.Join(err, stmt.Close())
			}
		}
		if _, err := stmt.ExecContext(c.ctx); err != nil {
			return errors.Join(err, stmt.Close())
		}
		if err := stmt.Close(); err != nil {
			return err
		}
		return tx.Commit()
	}
	c.do("copy in", func() (any, error) {
		rows := make([]any, 20000)
		for i := range rows {
			rows[i] = i
		}
		if err := copyIn(rows...); err != nil {
			return nil, err
		}
		return c.one("SELECT count(*) FROM copied")
	})
	c.do("copy bad", func() (any, error) { return nil, copyIn("no number") })
}

func (c *pqClient) sessions() {
	c.do("session", func() (any, error) {
		if err := errors.Join(c.exec("SET work_mem = '5MB'"), c.exec("SELECT pg_advisory_lock(42)")); err != nil {
			return nil, err
		}
		held, err := c.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
		size, err2 := c.one("SHOW work_mem")
		return []any{held, size}, errors.Join(err, err2, c.exec("SELECT pg_advisory_unlock(42)"))
	})
	c.apart("temporary", func(c *pqClient) (any, error) {
		if err := c.exec("CREATE TEMP TABLE mine AS SELECT 7 AS n"); err != nil {
			return nil, err
		}
		return c.one("SELECT n FROM mine")
	})
	c.do("notify", func() (any, error) {
		// A Listener would try again for ever where LISTEN is refused.
		if err := errors.Join(c.exec("LISTEN "+c.role), c.exec("UNLISTEN *")); err != nil {
			return nil, err
		}
		listener := pq.NewListener(c.pqDSN(""), 100*time.Millisecond, time.Second, nil)
		defer listener.Close()
		if err := listener.Listen(c.role); err != nil {
			return nil, err
		}
		if err := errors.Join(c.exec("NOTIFY "+c.role+", 'one'"), c.exec("SELECT pg_notify($1, repeat('x', 7000))", c.role)); err != nil {
			return nil, err
		}
		var got []int
		for len(got) < 2 {
			select {
			case n := <-listener.Notify:
				if n != nil { // nil: it has connected again
					got = append(got, len(n.Extra))
				}
			case <-c.ctx.Done():
				return got, c.ctx.Err()
			}
		}
		return got, nil
	})
	c.do("big rows", func() (any, error) {
		rows, err := c.QueryContext(c.ctx, "SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		sum := 0
		for rows.Next() {
			var i int
			var text string
			if err := rows.Scan(&i, &text); err != nil {
				return nil, err
			}
			sum += i + len(text)
		}
		return sum, rows.Err()
	})
	c.do("big value", func() (any, error) { v, err := c.one("SELECT repeat('y', 16 << 20)"); return len(v), err })
	c.do("big parameter", func() (any, error) { return c.one("SELECT md5($1::bytea)", make([]byte, 8<<20)) })
}

func (c *pqClient) cancels() {
	c.do("timed out", func() (any, error) {
		if err := c.exec("SET statement_timeout = 50"); err != nil {
			return nil, err
		}
		return sqlstate(c.exec("SELECT pg_sleep(60)")), c.exec("RESET statement_timeout")
	})
	c.do("cancel", func() (any, error) {
		// A context that ends makes lib/pq send a cancel request; database/sql then gives the session up.
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := c.db.ExecContext(ctx, "SELECT pg_sleep(600)")
			ended <- err
		}()
		if err := c.asleep(c.ctx); err != nil {
			return nil, err
		}
		cancel()
		err := <-ended
		if errors.Is(err, context.Canceled) {
			return "cancelled " + sqlstate(c.exec("SELECT 1")), nil
		}
		return sqlstate(err) + " " + sqlstate(c.exec("SELECT 1")), nil
	})
}
