package router_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/router/route"
)

// blockConn sends texts as simple queries and says where each ran.
type blockConn struct {
	*splitCluster
	t    *testing.T
	conn *pgx.Conn
}

func (s *splitCluster) block(t *testing.T) blockConn {
	b := blockConn{s, t, s.connect(t, route.Auto, "")}
	s.caughtUp(b.conn)
	return b
}

// on demands that the text ran there alone, and ends with that SQLSTATE; "" is a success.
func (b blockConn) on(server, sql, state string) {
	b.t.Helper()
	m := b.mark()
	_, err := b.conn.Exec(context.Background(), sql+" "+m, pgx.QueryExecModeSimpleProtocol)
	if state == "" && err != nil || state != "" && code(err) != state {
		b.t.Errorf("%s: %v, want SQLSTATE %q", sql, err, state)
	}
	if on := b.ran(m); on != server {
		b.t.Errorf("%s ran on %s, want %s", sql, on, server)
	}
}

func TestReadOnlyBlock(t *testing.T) {
	s := startSplit(t)
	s.primary.Exec("CREATE SEQUENCE q; GRANT ALL ON q TO alice")
	s.two.CatchUp(s.primary)
	t.Run("on the standby", func(t *testing.T) {
		b := s.block(t)
		b.on("two", "BEGIN READ ONLY", "")
		b.on("two", "SELECT s FROM t WHERE n = 1", "")
		if status := b.conn.PgConn().TxStatus(); status != 'T' {
			t.Errorf("status %c", status)
		}
		b.on("two", "COMMIT", "")
		b.on("two", "SELECT 1", "")
	})
	t.Run("taken over by the primary", func(t *testing.T) {
		b := s.block(t)
		b.on("two", "BEGIN READ ONLY", "")
		b.on("two", "SELECT 1", "")
		b.on("one", "SELECT pg_advisory_xact_lock(1)", "")
		b.on("one", "SELECT 1", "")
		b.on("one", "INSERT INTO t VALUES (2000)", "25006")
		b.on("one", "COMMIT", "") // answered with ROLLBACK
		if n := s.two.Query("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"); n != "0" {
			t.Errorf("%s blocks are left on the standby", n)
		}
		s.caughtUp(b.conn)
		b.on("two", "BEGIN READ ONLY", "")
		b.on("two", "ROLLBACK", "")
	})
	t.Run("an error is the primary's", func(t *testing.T) {
		b := s.block(t)
		b.on("two", "BEGIN READ ONLY", "")
		m := b.mark()
		if _, err := b.conn.Exec(context.Background(), "SELECT 1/0 "+m, pgx.QueryExecModeSimpleProtocol); code(err) != "22012" {
			t.Error(err)
		}
		if status := b.conn.PgConn().TxStatus(); status != 'E' {
			t.Errorf("status %c", status)
		}
		b.on("one", "SELECT 1", "25P02")
		b.on("one", "ROLLBACK", "")
		s.caughtUp(b.conn)
	})
	t.Run("an error behind the first row", func(t *testing.T) {
		b := s.block(t)
		b.on("two", "BEGIN READ ONLY", "")
		b.on("two", "SELECT 1 / (50000 - g) FROM generate_series(1, 60000) g", "22012")
		b.on("one", "SAVEPOINT a", "25P02") // goes to a primary whose block has failed too
		b.on("one", "ROLLBACK", "")
		s.caughtUp(b.conn)
		b.on("two", "BEGIN READ ONLY", "")
		b.on("two", "SELECT 1 / (50000 - g) FROM generate_series(1, 60000) g", "22012")
		b.on("two", "ROLLBACK", "")
	})
	t.Run("REPEATABLE READ by default", func(t *testing.T) {
		b := s.block(t)
		b.on("one", "SET default_transaction_isolation = 'repeatable read'", "")
		s.caughtUp(b.conn)
		b.on("one", "BEGIN READ ONLY", "")
		b.on("one", "SELECT 1", "")
		b.on("one", "COMMIT", "")
		s.caughtUp(b.conn)
		b.on("two", "BEGIN READ ONLY ISOLATION LEVEL READ COMMITTED", "")
		b.on("two", "COMMIT", "")
	})
	t.Run("one batch", func(t *testing.T) {
		b := s.block(t)
		m := b.mark()
		batch := &pgconn.Batch{}
		batch.ExecParams("BEGIN READ ONLY", nil, nil, nil, nil)
		batch.ExecParams("SELECT s FROM t WHERE n = $1 "+m, [][]byte{[]byte("3")}, nil, nil, nil)
		batch.ExecParams("COMMIT", nil, nil, nil, nil)
		rs, err := b.conn.PgConn().ExecBatch(context.Background(), batch).ReadAll()
		if err != nil || len(rs) != 3 || len(rs[1].Rows) != 1 || string(rs[1].Rows[0][0]) != "x" {
			t.Errorf("%v, %v", rs, err)
		}
		if on := s.ran(m); on != "two" {
			t.Errorf("ran on %s", on)
		}
		// What fails in the middle of it is done by the primary, from BEGIN on, and leaves nothing on the standby.
		batch = &pgconn.Batch{}
		batch.ExecParams("BEGIN READ ONLY", nil, nil, nil, nil)
		batch.ExecParams("SELECT 1/0", nil, nil, nil, nil)
		if _, err := b.conn.PgConn().ExecBatch(context.Background(), batch).ReadAll(); code(err) != "22012" {
			t.Error(err)
		}
		if status := b.conn.PgConn().TxStatus(); status != 'E' {
			t.Errorf("status %c", status)
		}
		b.on("one", "ROLLBACK", "")
		s.caughtUp(b.conn)
	})
	t.Run("as drivers do it", func(t *testing.T) {
		b := s.block(t)
		for range 3 {
			m := s.mark()
			tx, err := b.conn.BeginTx(context.Background(), pgx.TxOptions{AccessMode: pgx.ReadOnly})
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := tx.QueryRow(context.Background(), "SELECT s FROM t WHERE n = $1 "+m, pgx.QueryExecModeExec, 4).Scan(&got); err != nil || got != "x" {
				t.Errorf("%q, %v", got, err)
			}
			if err := tx.Commit(context.Background()); err != nil {
				t.Error(err)
			}
			if on := s.ran(m); on != "two" {
				t.Errorf("ran on %s", on)
			}
		}
	})
}

// The standby goes away in the middle of a block: the primary goes on with it, and the client sees nothing.
func TestReadOnlyBlockOutlivesItsStandby(t *testing.T) {
	s := startSplit(t)
	b, idle := s.block(t), s.block(t)
	b.on("two", "BEGIN READ ONLY", "")
	b.on("two", "SELECT 1", "")
	idle.on("two", "BEGIN READ ONLY", "")
	until(t, "two sessions to count as being in a transaction", func() bool { return s.count("transaction") == 2 })
	s.two.Kill()
	b.on("one", "SELECT s FROM t WHERE n = 1", "")
	b.on("one", "COMMIT", "")
	idle.on("one", "COMMIT", "")
}
