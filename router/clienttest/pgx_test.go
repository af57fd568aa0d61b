package clienttest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/sidecar/postgres/postgrestest"
)

// pgxClient is a session of pgx and what its steps share.
type pgxClient struct {
	*steps
	*pgx.Conn
	notices []string
}

func (s *steps) pgx(more string) (*pgxClient, error) {
	c := &pgxClient{steps: s}
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=postgres sslmode=require channel_binding=%s connect_timeout=20 %s",
		s.host, s.port, s.role, postgrestest.Password, s.binding(), more))
	if err != nil {
		return nil, err
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { c.notices = append(c.notices, n.Severity+" "+n.Message) }
	c.Conn, err = pgx.ConnectConfig(s.ctx, config)
	return c, err
}

func (c *pgxClient) exec(sql string, args ...any) error {
	_, err := c.Exec(c.ctx, sql, args...)
	return err
}

func (c *pgxClient) one(sql string, args ...any) (v any, err error) {
	err = c.QueryRow(c.ctx, sql, args...).Scan(&v)
	return v, err
}

// apart is a step in a session of its own, as what it does keeps the session on the primary.
func (c *pgxClient) apart(name string, f func(*pgxClient) (any, error)) {
	c.do(name, func() (any, error) {
		other, err := c.pgx("")
		if err != nil {
			return nil, err
		}
		defer other.Close(c.ctx)
		return f(other)
	})
}

func (c *pgxClient) count() any {
	v, err := c.one("SELECT count(*) FROM t")
	if err != nil {
		return err
	}
	return v
}

func pgxSteps(s *steps) error {
	c, err := s.pgx("")
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	_, within := c.PgConn().Conn().(*tls.Conn)
	s.do("within TLS", func() (any, error) { return within, nil })
	s.do("parameters", func() (any, error) {
		var all []string
		for _, p := range []string{"server_encoding", "client_encoding", "standard_conforming_strings", "integer_datetimes", "in_hot_standby"} {
			all = append(all, c.PgConn().ParameterStatus(p))
		}
		return all, nil
	})
	c.statements()
	c.transactions()
	c.errors()
	c.copies()
	c.batches()
	c.sessions()
	c.big()
	c.cancels()
	s.do("wrong password", func() (any, error) { _, err := s.pgx("password=wrong"); return nil, err })
	return nil
}

func (c *pgxClient) statements() {
	c.do("values", func() (any, error) {
		rows, err := c.Query(c.ctx, "SELECT $1::int8, $2::text, $3::bytea, $4::float8, $5::int[], $6::text, true, '2024-02-29'::date", int64(1)<<40, "zażółć ☃", []byte{0, 255}, 1.5, []int{1, 2, 3}, nil)
		if err != nil {
			return nil, err
		}
		return pgx.CollectOneRow(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
	})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		c.do("prepared, "+mode.String(), func() (any, error) {
			sum := 0
			for i := range 50 {
				var n int
				if err := c.QueryRow(c.ctx, "SELECT $1::int * 2", mode, i).Scan(&n); err != nil {
					return nil, err
				}
				sum += n
			}
			return sum, nil
		})
	}
	c.do("prepared by name", func() (any, error) {
		if _, err := c.Prepare(c.ctx, "mine", "SELECT $1::text || 'x'"); err != nil {
			return nil, err
		}
		v, err := c.one("mine", "y")
		return v, errors.Join(err, c.Deallocate(c.ctx, "mine"))
	})
	c.do("unknown prepared", func() (any, error) { return nil, c.exec("EXECUTE nobody") })
	c.apart("cached plan", func(c *pgxClient) (any, error) {
		if err := c.exec("CREATE TEMP TABLE plan (a int)"); err != nil {
			return nil, err
		}
		read := func() error { return c.exec("SELECT * FROM plan WHERE $1", true) }
		if err := errors.Join(read(), read(), c.exec("ALTER TABLE plan ADD b int")); err != nil {
			return nil, err
		}
		return sqlstate(read()) + " " + sqlstate(read()), nil
	})
}

func (c *pgxClient) transactions() {
	insert := func(id int) error { return c.exec("INSERT INTO t VALUES ($1, 'x')", id) }
	c.do("commit", func() (any, error) {
		err := pgx.BeginFunc(c.ctx, c.Conn, func(pgx.Tx) error { return errors.Join(insert(11), insert(12), insert(13)) })
		return c.count(), err
	})
	c.do("rollback", func() (any, error) {
		tx, err := c.Begin(c.ctx)
		if err != nil {
			return nil, err
		}
		return []any{sqlstate(insert(21)), tx.Rollback(c.ctx), c.count()}, nil
	})
	c.do("error in the middle", func() (any, error) {
		tx, err := c.Begin(c.ctx)
		if err != nil {
			return nil, err
		}
		seen := []any{sqlstate(insert(31)), sqlstate(c.exec("SELECT 1 / (id - id) FROM t")), sqlstate(c.exec("SELECT 1")), string(c.PgConn().TxStatus())}
		return append(seen, tx.Commit(c.ctx), c.count()), nil
	})
	c.do("savepoint", func() (any, error) {
		var middle string
		err := pgx.BeginFunc(c.ctx, c.Conn, func(tx pgx.Tx) error {
			if err := insert(41); err != nil {
				return err
			}
			middle = sqlstate(pgx.BeginFunc(c.ctx, tx, func(pgx.Tx) error { return insert(41) }))
			return nil
		})
		return []any{middle, c.count()}, err
	})
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		c.do("two that write, "+string(level), func() (any, error) {
			other, err := c.pgx("")
			if err != nil {
				return nil, err
			}
			defer other.Close(c.ctx)
			tx, err := c.BeginTx(c.ctx, pgx.TxOptions{IsoLevel: level})
			if err != nil {
				return nil, err
			}
			defer tx.Rollback(context.Background())
			read := sqlstate(c.exec("SELECT * FROM t"))
			wrote := sqlstate(other.exec("UPDATE t SET s = 'other' WHERE id = 2"))
			return []any{read, wrote, sqlstate(c.exec("UPDATE t SET s = 'mine' WHERE id = 2"))}, nil
		})
	}
	c.do("read only", func() (any, error) {
		return nil, pgx.BeginTxFunc(c.ctx, c.Conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(pgx.Tx) error { return insert(51) })
	})
	c.do("locked", func() (any, error) {
		other, err := c.pgx("")
		if err != nil {
			return nil, err
		}
		defer other.Close(c.ctx)
		tx, err := c.Begin(c.ctx)
		if err != nil {
			return nil, err
		}
		defer tx.Rollback(context.Background())
		if err := c.exec("SELECT 1 FROM t WHERE id = 1 FOR UPDATE"); err != nil {
			return nil, err
		}
		return sqlstate(other.exec("SELECT 1 FROM t WHERE id = 1 FOR UPDATE NOWAIT")), nil
	})
}

func (c *pgxClient) errors() {
	c.do("unique", func() (any, error) { return nil, c.exec("INSERT INTO t VALUES (1, 'again')") })
	c.do("no table", func() (any, error) { return nil, c.exec("SELECT * FROM nowhere") })
	c.apart("raised", func(c *pgxClient) (any, error) {
		var e *pgconn.PgError
		if err := c.exec("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$"); !errors.As(err, &e) {
			return nil, err
		}
		return []string{e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.Where, e.Routine}, nil
	})
	c.do("syntax", func() (any, error) {
		var e *pgconn.PgError
		if err := c.exec("SELECT 1 FROMM t"); !errors.As(err, &e) {
			return nil, err
		}
		return fmt.Sprint(e.Code, " at ", e.Position), nil
	})
	c.apart("notice", func(c *pgxClient) (any, error) {
		err := c.exec("DO $$ BEGIN RAISE NOTICE 'look here'; END $$")
		return c.notices, err
	})
	c.do("several statements", func() (any, error) {
		results, err := c.PgConn().Exec(c.ctx, "SELECT 1; INSERT INTO t VALUES (61, 'undone'); SELECT 1 / (id - id) FROM t; SELECT 2").ReadAll()
		return []any{len(results), sqlstate(err), c.count()}, nil
	})
}

func (c *pgxClient) copies() {
	c.do("copy in", func() (any, error) {
		return c.CopyFrom(c.ctx, pgx.Identifier{"copied"}, []string{"id", "s"}, pgx.CopyFromSlice(20000, func(i int) ([]any, error) {
			return []any{i, fmt.Sprint("row ", i)}, nil
		}))
	})
	for _, how := range []string{"text", "binary"} {
		c.do("copy out "+how, func() (any, error) {
			var out bytes.Buffer
			_, err := c.PgConn().CopyTo(c.ctx, &out, "COPY (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO STDOUT (FORMAT "+how+")")
			return digest(out.Bytes()), err
		})
	}
	c.do("copy bad", func() (any, error) {
		_, err := c.PgConn().CopyFrom(c.ctx, strings.NewReader(strings.Repeat("no number\n", 100000)), "COPY copied (id) FROM STDIN")
		return nil, err
	})
	c.do("copy given up", func() (any, error) {
		_, err := c.CopyFrom(c.ctx, pgx.Identifier{"copied"}, []string{"id"}, pgx.CopyFromFunc(func() ([]any, error) { return nil, errors.New("enough") }))
		return sqlstate(err), nil
	})
	c.do("copy out of what breaks", func() (any, error) {
		var out bytes.Buffer
		_, err := c.PgConn().CopyTo(c.ctx, &out, "COPY (SELECT 1 / (5000 - i) FROM generate_series(1, 20000) i) TO STDOUT")
		return nil, err
	})
	c.do("copied", func() (any, error) { return c.one("SELECT count(*) FROM copied") })
}

func (c *pgxClient) batches() {
	c.do("batch", func() (any, error) {
		b, sum := &pgx.Batch{}, 0
		for i := range 200 {
			b.Queue("SELECT $1::int", i).QueryRow(func(r pgx.Row) error {
				var n int
				err := r.Scan(&n)
				sum += n
				return err
			})
		}
		err := c.SendBatch(c.ctx, b).Close()
		return sum, err
	})
	c.do("batch of writes", func() (any, error) {
		b := &pgx.Batch{}
		for i := range 200 {
			b.Queue("INSERT INTO t VALUES ($1, 'batch')", 100+i)
		}
		err := c.SendBatch(c.ctx, b).Close()
		return c.count(), err
	})
	c.do("batch with an error", func() (any, error) {
		b := &pgx.Batch{}
		for _, id := range []int{400, 401, 400, 402} {
			b.Queue("INSERT INTO t VALUES ($1, 'batch')", id)
		}
		return []any{sqlstate(c.SendBatch(c.ctx, b).Close()), c.count()}, nil
	})
	c.do("pipeline", func() (any, error) {
		p := c.PgConn().StartPipeline(c.ctx)
		for i, sql := range []string{"SELECT 1", "SELECT 1 / (id - id) FROM t", "SELECT 2", "SELECT 3", "SELECT 4"} {
			p.SendQueryParams(sql, nil, nil, nil, nil)
			if i == 2 || i == 4 {
				if err := p.Sync(); err != nil {
					return nil, err
				}
			} else if i == 0 {
				p.SendFlushRequest()
			}
		}
		if err := p.Flush(); err != nil {
			return nil, err
		}
		var seen []string
		for syncs := 0; syncs < 2; {
			r, err := p.GetResults()
			switch r := r.(type) {
			case *pgconn.ResultReader:
				result := r.Read()
				if result.Err == nil {
					seen = append(seen, string(result.Rows[0][0]))
				} else {
					seen = append(seen, sqlstate(result.Err))
				}
			case *pgconn.PipelineSync:
				syncs++
				seen = append(seen, "sync")
			default:
				if err == nil || len(sqlstate(err)) != 5 {
					return nil, fmt.Errorf("%T, %w", r, err)
				}
				seen = append(seen, sqlstate(err))
			}
		}
		return seen, p.Close()
	})
}

func (c *pgxClient) sessions() {
	c.do("session", func() (any, error) {
		if err := errors.Join(c.exec("SET work_mem = '5MB'"), c.exec("SELECT pg_advisory_lock(42)")); err != nil {
			return nil, err
		}
		held, err := c.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
		size, err2 := c.one("SHOW work_mem")
		return []any{held, size}, errors.Join(err, err2, c.exec("SELECT pg_advisory_unlock(42)"))
	})
	c.apart("temporary", func(c *pgxClient) (any, error) {
		if err := c.exec("CREATE TEMP TABLE mine AS SELECT 7 AS n"); err != nil {
			return nil, err
		}
		return c.one("SELECT n FROM mine")
	})
	c.do("cursor", func() (any, error) {
		if err := c.exec("BEGIN"); err != nil {
			return nil, err
		}
		defer c.exec("ROLLBACK")
		if err := c.exec("DECLARE slow CURSOR FOR SELECT i FROM generate_series(1, 10000) i"); err != nil {
			return nil, err
		}
		var fetched int64
		for {
			tag, err := c.Exec(c.ctx, "FETCH 700 FROM slow")
			if err != nil || tag.RowsAffected() == 0 {
				return fetched, err
			}
			fetched += tag.RowsAffected()
		}
	})
	c.do("notify", func() (any, error) {
		other, err := c.pgx("")
		if err != nil {
			return nil, err
		}
		defer other.Close(c.ctx)
		if err := c.exec("LISTEN " + c.role); err != nil {
			return nil, err
		}
		if err := errors.Join(other.exec("NOTIFY "+c.role+", 'one'"), other.exec("SELECT pg_notify($1, repeat('x', 7000))", c.role)); err != nil {
			return nil, err
		}
		var got []any
		for range 2 {
			ctx, stop := context.WithTimeout(c.ctx, 20*time.Second)
			n, err := c.WaitForNotification(ctx)
			stop()
			if err != nil {
				return got, err
			}
			got = append(got, len(n.Payload), n.PID == other.PgConn().PID())
		}
		return got, c.exec("UNLISTEN *")
	})
	c.do("process", func() (any, error) {
		pid, err := c.one("SELECT pg_backend_pid()")
		return pid == int32(c.PgConn().PID()), err
	})
	c.do("target session attributes", func() (any, error) {
		var seen []string
		for _, want := range []string{"read-write", "read-only", "primary", "standby", "prefer-standby"} {
			other, err := c.pgx("target_session_attrs=" + want)
			if err != nil {
				seen = append(seen, "not "+want)
				continue
			}
			seen = append(seen, want)
			other.Close(c.ctx)
		}
		return seen, nil
	})
}

func (c *pgxClient) big() {
	c.do("big rows", func() (any, error) {
		rows, err := c.Query(c.ctx, "SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
		if err != nil {
			return nil, err
		}
		var i, sum int
		var text string
		_, err = pgx.ForEachRow(rows, []any{&i, &text}, func() error { sum += i + len(text); return nil })
		return sum, err
	})
	c.do("big value", func() (any, error) {
		v, err := c.one("SELECT repeat('y', 16 << 20)")
		text, _ := v.(string)
		return len(text), err
	})
	c.do("big parameter", func() (any, error) { return c.one("SELECT md5($1::bytea)", make([]byte, 8<<20)) })
	c.do("result left in the middle", func() (any, error) {
		rows, err := c.Query(c.ctx, "SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
		if err != nil {
			return nil, err
		}
		rows.Next()
		rows.Close()
		return c.one("SELECT 1")
	})
}

func (c *pgxClient) cancels() {
	c.do("timed out", func() (any, error) {
		if err := c.exec("SET statement_timeout = 50"); err != nil {
			return nil, err
		}
		return sqlstate(c.exec("SELECT pg_sleep(60)")), c.exec("RESET statement_timeout")
	})
	c.do("cancel", func() (any, error) {
		ended := make(chan error, 1)
		go func() { ended <- c.exec("SELECT pg_sleep(600)") }()
		err := errors.Join(c.asleep(c.ctx), c.PgConn().CancelRequest(c.ctx))
		return sqlstate(<-ended) + " " + sqlstate(c.exec("SELECT 1")), err
	})
}
