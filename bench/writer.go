package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

const (
	// writeEvery is the beat of the writers.
	writeEvery = 10 * time.Millisecond
	// A writer connects again at once; if that fails too, after firstRetry, doubled up to longestRetry.
	firstRetry   = 5 * time.Millisecond
	longestRetry = 50 * time.Millisecond
	// connectTimeout is longer than the router holds a session that waits for a primary (failover-wait, 30 s).
	connectTimeout = 40 * time.Second
)

// target is a place to connect to as the superuser.
type target struct{ address, password string }

func (t target) config() (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig("sslmode=disable user=postgres dbname=postgres")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(t.address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Password = host, uint16(n), t.password
	c.ConnectTimeout = connectTimeout
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return c, nil
}

func (t target) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := t.config()
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, c)
}

// writer inserts a row with an id of its own on every beat and enters what was acknowledged. It waits for an answer as
// long as the server lets it: no timeout of its own shortens a gap.
type writer struct {
	to     target
	table  string
	ids    *atomic.Int64
	ledger ledger
	// fresh makes a new connection for each row, within attemptTimeout.
	fresh bool

	mu     sync.Mutex
	errors map[string]int
}

// attemptTimeout bounds one attempt of a writer that connects afresh for each.
const attemptTimeout = time.Second

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	beat := time.NewTicker(writeEvery)
	defer beat.Stop()
	var conn *pgx.Conn
	defer func() { hangUp(conn) }()
	retry := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		err := w.write(ctx, &conn)
		if err == nil {
			retry = 0
			continue
		}
		w.failed(ctx, err)
		if retry > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(retry):
			}
		}
		retry = min(max(firstRetry, 2*retry), longestRetry)
	}
}

// write inserts one row; conn is made if it is nil, and nil again after an error.
func (w *writer) write(ctx context.Context, conn **pgx.Conn) error {
	if w.fresh {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
	}
	if *conn == nil {
		c, err := w.to.connect(ctx)
		if err != nil {
			return err
		}
		*conn = c
	}
	id := w.ids.Add(1)
	_, err := (*conn).Exec(ctx, fmt.Sprintf("insert into %s (id) values (%d)", w.table, id))
	at := boottime.Now()
	if err == nil {
		w.ledger.add(id, at)
	}
	if err != nil || w.fresh {
		hangUp(*conn)
		*conn = nil
	}
	return err
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	// The server may be frozen: a goodbye that waits is not wanted.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// failed counts an error by its kind.
func (w *writer) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.errors == nil {
		w.errors = map[string]int{}
	}
	w.errors[kindOf(err)]++
}

// kindOf is the SQLSTATE of an error, or the end of its text, which says what the system said.
func kindOf(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "SQLSTATE "); i >= 0 {
		return strings.TrimSuffix(text[i:], ")")
	}
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}

func (w *writer) errorCounts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for k, n := range w.errors {
		counts[k] = n
	}
	return counts
}

// present returns the ids of a table that are greater than above.
func present(ctx context.Context, t target, table string, above int64) (map[int64]bool, error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	rows, err := conn.Query(ctx, fmt.Sprintf("select id from %s where id > %d", table, above))
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	found := map[int64]bool{}
	for _, id := range ids {
		found[id] = true
	}
	return found, err
}

// direct writes to one server past the router, as a client does that a router never told of the failover: on a connection
// that it holds, whose next row may wait in the socket of a frozen server, and on new ones.
type direct struct {
	holding, fresh *writer
	cancel         context.CancelFunc
	done           sync.WaitGroup
}

func startDirect(ctx context.Context, t target, ids *atomic.Int64) *direct {
	ctx, cancel := context.WithCancel(ctx)
	d := &direct{
		holding: &writer{to: t, table: directTable, ids: ids}, fresh: &writer{to: t, table: directTable, ids: ids, fresh: true}, cancel: cancel,
	}
	d.done.Go(func() { d.holding.run(ctx) })
	d.done.Go(func() { d.fresh.run(ctx) })
	return d
}

// stop ends the writers and returns what the server acknowledged.
func (d *direct) stop() []ack {
	d.cancel()
	d.done.Wait()
	return append(d.holding.ledger.all(), d.fresh.ledger.all()...)
}

// zombies counts the writes that the server acknowledged after the next primary's promotion, directly.
func zombies(acks []ack, promoted schema.Instant) int { return after(acks, promoted) }
