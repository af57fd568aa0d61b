package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/bench/cluster"
	"howdah/consul/boottime"
	"howdah/consul/schema"
)

const (
	campaignTable = "campaign"
	campaignBeat  = 25 * time.Millisecond
	readBeat      = 100 * time.Millisecond
	probeBeat     = 100 * time.Millisecond
	// A client gives up an attempt after this: a cable that is cut answers nothing.
	clientPatience = 6 * time.Second
	probePatience  = 2 * time.Second
	// readsInSession is after how many readings a reader begins a new session.
	readsInSession = 50
	// ownEvery is after how many rows a writer reads its own last one, ownReads times.
	ownEvery = 6
	ownReads = 2
)

// seat is where a client sits and what it connects to.
type seat struct {
	host     *cluster.Host
	address  string
	password string
	patience time.Duration
	// settings are parameters of the session from its start.
	settings map[string]string
}

// client is a connection that remembers whether the server has warned that a commit did not wait for its standbys.
type client struct {
	*pgx.Conn
	warned *atomic.Bool
}

func (s seat) connect(ctx context.Context) (client, error) {
	c, err := target{address: s.address, password: s.password}.config()
	if err != nil {
		return client{}, err
	}
	warned := &atomic.Bool{}
	c.DialFunc = s.host.Dial
	maps.Copy(c.RuntimeParams, s.settings)
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if waives(n.Message) {
			warned.Store(true)
		}
	}
	c.ConnectTimeout = s.patience
	conn, err := pgx.ConnectConfig(ctx, c)
	return client{conn, warned}, err
}

// crowd is all clients of a campaign, and what they have seen.
type crowd struct {
	ids, sessions atomic.Int64
	writers       int
	servers       map[string]*cluster.Member // by address

	mu       sync.Mutex
	commits  []commit  // through the routers
	direct   []commit  // past them
	waived   []commit  // answered as done, with the warning that the wait for a standby was cancelled: not acknowledged
	readings []reading // of all routes
	own      [2]int    // reads of own writes: by primaries, by standbys
	unseen   []string  // own writes that their session did not see
	errors   map[string]int
	acks     [][]schema.Instant // by writer

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// startCrowd begins with a writer and a reader of each kind for each router, and two probes for each member. Writers are on the route auto,
// so what they read of their own comes from a standby where one has it.
func startCrowd(ctx context.Context, c *cluster.Cluster, password string) *crowd {
	ctx, cancel := context.WithCancel(ctx)
	w := &crowd{writers: len(c.Routers), servers: map[string]*cluster.Member{}, errors: map[string]int{}, acks: make([][]schema.Instant, len(c.Routers)), cancel: cancel}
	for _, m := range c.Members {
		w.servers[m.Host.Address] = m
	}
	for i, r := range c.Routers {
		auto := seat{host: c.Client, address: r.Listen(), password: password, patience: clientPatience}
		rw, ro, strict := auto, auto, auto
		rw.settings = map[string]string{"howdah.route": "rw"}
		strict.settings = map[string]string{"howdah.consistency": "strict"}
		ro.address = r.ReadOnly()
		w.done.Go(func() { w.write(ctx, auto, i) })
		w.done.Go(func() { w.read(ctx, rw, "rw") })
		w.done.Go(func() { w.read(ctx, strict, "strict") })
		w.done.Go(func() { w.read(ctx, ro, "ro") })
	}
	for _, m := range c.Members {
		at := seat{host: m.Host, address: m.Postgres(), password: password, patience: probePatience}
		w.done.Go(func() { w.probe(ctx, at, false) })
		w.done.Go(func() { w.probe(ctx, at, true) })
	}
	return w
}

func (w *crowd) stop() {
	w.cancel()
	w.done.Wait()
}

// errWaived is what became of a commit whose wait for a standby was cancelled: PostgreSQL answers as if it were done
// (SyncRepWaitForLSN, src/backend/replication/syncrep.c), and it counts as not acknowledged.
var errWaived = errors.New("the wait for a standby was cancelled")

// waives reports a warning of PostgreSQL that a commit did not wait for its standbys: "canceling wait for
// synchronous replication due to user request", or "canceling the wait for synchronous replication and terminating connection".
func waives(message string) bool {
	return strings.HasPrefix(message, "canceling wait for synchronous replication") || strings.HasPrefix(message, "canceling the wait for synchronous replication")
}

// unshifted takes from the time at which a server executed a statement, by its wall clock, the shift that this clock had: the
// one that puts it nearest to when the statement was sent and answered. Shifts differ by far more than a statement takes.
func unshifted(executed, sent, answered schema.Instant, shifts []time.Duration) (schema.Instant, time.Duration) {
	outside := func(shift time.Duration) time.Duration {
		at := executed - schema.Instant(shift)
		return max(sent.Sub(at), at.Sub(answered), 0)
	}
	best := slices.MinFunc(shifts, func(a, b time.Duration) int { return cmp.Compare(outside(a), outside(b)) })
	return executed - schema.Instant(best), best
}

// insert writes one row; writer is -1 for a probe. The row says by whose clock it was executed, and where.
func (w *crowd) insert(ctx context.Context, conn client, table string, writer int) (commit, error) {
	c := commit{ID: w.ids.Add(1), Writer: writer, Sent: boottime.Now()}
	var micros, lsn int64
	var address string
	err := conn.QueryRow(ctx, fmt.Sprintf(`insert into %s (id, writer) values (%d, %d) returning (extract(epoch from clock_timestamp()) * 1000000)::bigint,
		(pg_current_wal_insert_lsn() - '0/0')::bigint, host(inet_server_addr())`, table, c.ID, writer)).Scan(&micros, &lsn, &address)
	c.At = boottime.Now()
	// The server's clock is this machine's: only the distance of its two clocks has to be known.
	c.Executed = c.At - schema.Instant(time.Now().UnixNano()-micros*1000)
	c.LSN = uint64(lsn)
	if m := w.servers[address]; m != nil {
		c.Server = m.Name
		c.Executed, c.Shift = unshifted(c.Executed, c.Sent, c.At, m.WallShifts())
	}
	if err == nil && conn.warned.Swap(false) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waived = append(w.waived, c)
		return c, errWaived
	}
	return c, err
}

// attempt calls f with a connection on every beat; after an error it connects again.
func (w *crowd) attempt(ctx context.Context, s seat, beat time.Duration, what string, f func(context.Context, client) error) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var conn client
	defer func() { hangUp(conn.Conn) }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := func() error {
			limited, cancel := context.WithTimeout(ctx, s.patience)
			defer cancel()
			if conn.Conn == nil {
				fresh, err := s.connect(limited)
				if err != nil {
					return err
				}
				conn = fresh
			}
			return f(limited, conn)
		}()
		if err == nil {
			continue
		}
		if conn.Conn != nil {
			hangUp(conn.Conn)
			conn = client{}
		}
		if ctx.Err() == nil && what != "" {
			w.mu.Lock()
			w.errors[what+": "+kindOf(err)]++
			w.mu.Unlock()
		}
	}
}

// write appends rows, and now and then reads the newest one of its own in the same session: ownReads times, since the first of them has
// the router find out which standby has the row.
func (w *crowd) write(ctx context.Context, s seat, writer int) {
	var of *pgx.Conn
	var last commit
	rows, reads := 0, 0
	w.attempt(ctx, s, campaignBeat, "write", func(ctx context.Context, conn client) error {
		if of == conn.Conn && reads > 0 {
			reads--
			return w.readOwn(ctx, conn, writer, last)
		}
		c, err := w.insert(ctx, conn, campaignTable, writer)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.commits = append(w.commits, c)
		w.acks[writer] = append(w.acks[writer], c.At)
		w.mu.Unlock()
		if rows++; rows%ownEvery == 0 {
			of, last, reads = conn.Conn, c, ownReads
		}
		return nil
	})
}

// readOwn reads the newest row of the writer, which must not be older than the one it wrote last.
func (w *crowd) readOwn(ctx context.Context, conn client, writer int, last commit) error {
	var newest int64
	var standby bool
	if err := conn.QueryRow(ctx, fmt.Sprintf("select coalesce(max(id), 0), %s from %s where writer = %d", onStandby, campaignTable, writer)).Scan(&newest, &standby); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own[place(standby)]++
	if newest < last.ID {
		w.unseen = append(w.unseen, fmt.Sprintf("writer %d wrote row %d on %s and then saw %d (on a standby: %t)", writer, last.ID, last.Server, newest, standby))
	}
	return nil
}

// read looks at the newest row of each writer.
func (w *crowd) read(ctx context.Context, s seat, route string) {
	var parts []string
	for i := range w.writers {
		parts = append(parts, fmt.Sprintf("coalesce((select max(id) from %s where writer = %d), 0)", campaignTable, i))
	}
	query := "select array[" + strings.Join(parts, ", ") + "]::text, " + onStandby
	var session, reads int
	var of *pgx.Conn
	w.attempt(ctx, s, readBeat, "read "+route, func(ctx context.Context, conn client) error {
		if conn.Conn != of {
			of, session, reads = conn.Conn, int(w.sessions.Add(1)), 0
		}
		if reads++; reads > readsInSession {
			return errEnough
		}
		r := reading{Session: session, Route: route, Began: boottime.Now()}
		var text string
		if err := conn.QueryRow(ctx, query).Scan(&text, &r.Standby); err != nil {
			return err
		}
		r.At = boottime.Now()
		for part := range strings.SplitSeq(strings.Trim(text, "{}"), ",") {
			id, err := strconv.ParseInt(part, 10, 64)
			if err != nil {
				return err
			}
			r.Seen = append(r.Seen, id)
		}
		w.mu.Lock()
		w.readings = append(w.readings, r)
		w.mu.Unlock()
		return nil
	})
}

// onStandby says in a query whether a standby carries it out. Routers have the primary answer what asks for that; they cannot know it of this view.
const (
	onStandby   = "(select standby from campaign_server)"
	makeStandby = "create or replace view campaign_server as select setting = 'on' as standby from pg_settings where name = 'in_hot_standby'"
)

// place is an index: 0 for primaries, 1 for standbys.
func place(standby bool) int {
	if standby {
		return 1
	}
	return 0
}

// errEnough ends a reader's session.
var errEnough = fmt.Errorf("enough reads in one session")

// probe writes to one Postgres past the routers, from its own host: no cut is in the way, so it stands for the worst client. fresh
// makes a new connection for each row, the other one is held.
func (w *crowd) probe(ctx context.Context, s seat, fresh bool) {
	beat := probeBeat
	if fresh {
		beat *= 3
	}
	w.attempt(ctx, s, beat, "", func(ctx context.Context, conn client) error {
		c, err := w.insert(ctx, conn, directTable, 0)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.direct = append(w.direct, c)
		w.mu.Unlock()
		if fresh {
			return errEnough
		}
		return nil
	})
}

// mark is how many commits there were at a moment, through the routers and past them.
type mark struct{ commits, direct int }

// since returns the commits since a mark, through the routers and past them, and the mark after them.
func (w *crowd) since(from mark) (commits, direct []commit, next mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.commits[from.commits:]), slices.Clone(w.direct[from.direct:]), mark{len(w.commits), len(w.direct)}
}

// lastAck is when a writer's newest row was acknowledged; Never if none was.
func (w *crowd) lastAck(writer int) schema.Instant {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.acks[writer]); n > 0 {
		return w.acks[writer][n-1]
	}
	return schema.Never
}

// acked returns the acknowledgements of one writer, or of all by time if writer is -1.
func (w *crowd) acked(writer int) []schema.Instant {
	w.mu.Lock()
	defer w.mu.Unlock()
	if writer >= 0 {
		return slices.Clone(w.acks[writer])
	}
	return slices.Sorted(slices.Values(slices.Concat(w.acks...)))
}
