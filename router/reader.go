package router

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/route/statement"
	"howdah/router/scram"
	"howdah/router/wire"
)

// reader is the connection of an auto session to a standby.
type reader struct {
	backend
	conn  *link
	key   wire.Key
	since schema.Instant // when it was established
	// have are the statements that are prepared there, by name; version is that of the settings in force.
	// reset is which state of the session it began with.
	have           map[string]uint64
	version, reset uint64
	// isolation is its default_transaction_isolation as of the settings of version isolationOf; empty if it is not known.
	isolation   string
	isolationOf uint64
	rest        []byte // what was read and belongs to no answer
	// look is when a read from conn is broken off to look whether the client is still there; zero if it is not.
	look time.Time
	// cut: the session is cut off from it; left: what it did for the session then is being cancelled. Of the client's lock.
	cut, left bool
	// parameter, if it is not nil, is called for each ParameterStatus. Of a standby it is reports that it tells; aligned is the version of the session's own that they were compared with.
	parameter func(name, value []byte)
	reports   *reports
	aligned   uint64
}

// errNoLogin is a standby at which the router cannot log in as the client: it has nothing to do it with.
type errNoLogin struct{ error }

// openReader connects to a standby and logs in there as the client, with the startup packet that the primary got.
func (c *client) openReader(ctx context.Context, at backend) (*reader, error) {
	if c.began == "" && c.r.asks.settings != nil {
		return nil, errUnlike
	}
	r := &reports{}
	rd, err := c.logInAt(ctx, at, r.told)
	if err != nil {
		return nil, err
	}
	rd.reports = r
	stop := context.AfterFunc(ctx, func() { rd.conn.socket.Close() })
	err = c.begunAlike(rd)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		rd.close()
		return nil, err
	}
	return rd, nil
}

// logInAt connects to a server and logs in there as the client, with the startup packet that the session began with. parameter, if it is not nil, is
// called for each ParameterStatus, then and later.
func (c *client) logInAt(ctx context.Context, at backend, parameter func(name, value []byte)) (*reader, error) {
	ctx, stop := context.WithTimeout(ctx, c.r.live().DialTimeout)
	defer stop()
	conn, err := c.r.dialServer(ctx, at.address)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.socket.Close() })()
	rd := &reader{backend: at, conn: conn, have: map[string]uint64{}, parameter: parameter}
	conn.SetDeadline(time.Now().Add(c.r.live().DialTimeout))
	if err := rd.logIn(c.packet, c.credentials); err != nil {
		conn.Close()
		return nil, fmt.Errorf("login: %w", err)
	}
	rd.since = c.r.now()
	return rd, conn.SetDeadline(time.Time{})
}

func (rd *reader) logIn(startup []byte, with scram.Credentials) error {
	if _, err := rd.conn.Write(startup); err != nil {
		return err
	}
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	in := newChunk()
	defer in.free()
	l := &letters{conn: rd.conn, in: in, check: checkServer}
	s := scram.NewClient(scram.Channel{EndPoint: rd.conn.endPoint}, nonce)
	for {
		m, err := l.peek()
		if err != nil {
			return broken(err)
		}
		switch m[0] {
		case 'R':
			if err := rd.prove(s, m, with); err != nil {
				return err
			}
		case 'K':
			if rd.key, err = wire.ParseKey(m[wire.HeaderSize:]); err != nil {
				return err
			}
		case 'E':
			e, err := wire.ParseError(m[wire.HeaderSize:])
			if err != nil {
				return err
			}
			return &notYet{said: e}
		case 'S':
			rd.told(m)
		case 'Z':
			l.take(m)
			rd.rest = append(rd.rest, in.b[in.r:in.w]...)
			return nil
		}
		l.take(m)
	}
}

// prove answers an authentication request.
func (rd *reader) prove(s *scram.Client, m []byte, with scram.Credentials) error {
	if !isOK(m) && !with.Known() {
		return &errNoLogin{errors.New("the router has nothing to log in with: the client has authenticated itself at the primary, or by its certificate")}
	}
	reply, err := s.Request(m[wire.HeaderSize:])
	switch {
	case err != nil:
		return &errNoLogin{broken(err)}
	case s.Challenged():
		if reply, err = s.Answer(with); err != nil {
			return err
		}
	}
	if len(reply) > 0 {
		_, err = rd.conn.Write(reply)
	}
	return err
}

// told passes a ParameterStatus on.
func (rd *reader) told(m []byte) {
	name, rest, _ := bytes.Cut(m[wire.HeaderSize:], []byte{0})
	value, _, ok := bytes.Cut(rest, []byte{0})
	if ok && rd.parameter != nil {
		rd.parameter(name, value)
	}
}

func (rd *reader) close() {
	rd.conn.SetWriteDeadline(time.Now().Add(time.Second))
	rd.conn.Write(terminate) // it is closed next in any case
	rd.conn.Close()
}

// send gives the standby a batch. One that its socket may not hold is given up where it is not read: nobody reads meanwhile what the standby says, which may be what
// it waits for.
func (rd *reader) send(b []byte) error {
	if len(b) > chunkSize {
		rd.conn.SetWriteDeadline(time.Now().Add(execTimeout))
		defer rd.conn.SetWriteDeadline(time.Time{})
	}
	_, err := rd.conn.Write(b)
	return err
}

// execTimeout bounds what the router itself asks a session's standby.
const execTimeout = 5 * time.Second

// errSaid is an error that a server answered with, and goes on. It may quote what the client has said, so no log gets more of it than its code.
type errSaid struct {
	error
	code string
}

// errLastWord is an error with which a server has ended the connection. No log gets more of it than its code.
type errLastWord struct{ said *wire.Error }

func (e errLastWord) Error() string { return "the server has ended the connection: " + e.said.Code }

// exec runs a statement and gives each row to each.
func (rd *reader) exec(text []byte, each func(row []byte) error) error {
	rd.look = time.Time{}
	rd.conn.SetDeadline(time.Now().Add(execTimeout))
	m := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(text)+5))
	m = append(append(m, text...), 0)
	if _, err := rd.conn.Write(m); err != nil {
		return err
	}
	in := newChunk()
	defer in.free()
	in.w = copy(in.b[:], rd.rest)
	rd.rest = nil
	l := &letters{conn: rd.conn, in: in, check: checkServer}
	var failed error
	for {
		m, err := l.peek()
		if err != nil {
			return broken(err)
		}
		switch m[0] {
		case 'D':
			if each != nil && failed == nil {
				failed = each(m[wire.HeaderSize:])
			}
		case 'E':
			e, err := wire.ParseError(m[wire.HeaderSize:])
			if err != nil {
				return err
			}
			if _, fatal := wire.PeekError(m[wire.HeaderSize:]); fatal {
				e.Severity = "FATAL" // which may have been translated
				return errLastWord{&e}
			}
			failed = errSaid{errors.New(e.Error()), e.Code}
		case 'S':
			rd.told(m)
		case 'Z':
			l.take(m)
			rd.rest = append(rd.rest, in.b[in.r:in.w]...)
			return errors.Join(failed, rd.conn.SetDeadline(time.Time{}))
		}
		l.take(m)
	}
}

// unquoted is err as a log may have it.
func unquoted(err error) zap.Field {
	var said errSaid
	if errors.As(err, &said) {
		return zap.String("sqlstate", said.code)
	}
	return zap.Error(err)
}

// functions reads the functions of the database.
func (rd *reader) functions() ([]statement.Function, error) {
	var all []statement.Function
	err := rd.exec([]byte(statement.FunctionsQuery), func(row []byte) error {
		f, err := functionOf(row)
		all = append(all, f)
		return err
	})
	return all, err
}

// functionOf reads a row of statement.FunctionsQuery: three values that are not null.
func functionOf(row []byte) (statement.Function, error) {
	var values [3]string
	bad := errors.New("a row of the functions is not what was asked for")
	if len(row) < 2 || binary.BigEndian.Uint16(row) != 3 {
		return statement.Function{}, bad
	}
	row = row[2:]
	for i := range values {
		if len(row) < 4 {
			return statement.Function{}, bad
		}
		n := binary.BigEndian.Uint32(row)
		if uint64(n) > uint64(len(row)-4) {
			return statement.Function{}, bad
		}
		values[i] = string(row[4 : 4+n])
		row = row[4+n:]
	}
	if len(values[2]) != 1 || len(row) > 0 {
		return statement.Function{}, bad
	}
	return statement.Function{Schema: values[0], Name: values[1], Volatility: values[2][0]}, nil
}

// drain reads up to the end of an answer.
func (rd *reader) drain(in *chunk) error {
	rd.look = time.Time{}
	rd.conn.SetReadDeadline(time.Now().Add(execTimeout))
	left := 0
	for {
		for in.r < in.w {
			if left > 0 {
				n := min(left, in.w-in.r)
				in.r += n
				left -= n
				continue
			}
			if in.w-in.r < wire.HeaderSize {
				break
			}
			h := wire.ParseHeader(in.b[in.r:in.w])
			if h.CheckServer() != nil {
				return io.ErrUnexpectedEOF
			}
			if h.Type == 'Z' {
				if in.w-in.r < h.Size() {
					break
				}
				in.r += h.Size()
				rd.rest = append(rd.rest, in.b[in.r:in.w]...)
				return rd.conn.SetReadDeadline(time.Time{})
			}
			left = h.Size()
		}
		if err := in.more(rd.conn); err != nil {
			return err
		}
	}
}

// more reads what comes next behind what is held. A chunk that is full is an error.
func (c *chunk) more(from net.Conn) error {
	if c.r > 0 {
		c.w = copy(c.b[:], c.b[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.b) {
		return errors.New("a message is longer than it may be")
	}
	n, err := from.Read(c.b[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// functionsFor is how long the functions of a database are believed to be what they were.
const functionsFor = 30 * time.Second

// catalogs are the functions of the databases, shared by all sessions.
type catalogs struct {
	mu sync.Mutex
	m  map[string]*catalog
}

type catalog struct {
	harmless, keeping *statement.Functions
	parting           *statement.Functions
	at                schema.Instant
	loading           bool
}

// known returns what is known of a database, however old; nil if nothing is.
func (c *catalogs) known(database string) *catalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[database]
}

// of returns what is known of a database, read anew if it is old or changed says so. One session reads, the others go on with what is known.
func (c *catalogs) of(now schema.Instant, database string, changed bool, read func() ([]statement.Function, error)) (*catalog, error) {
	c.mu.Lock()
	known := c.m[database]
	if known != nil && !changed && (known.loading || now.Sub(known.at) < functionsFor) {
		c.mu.Unlock()
		return known, nil
	}
	if known != nil {
		known.loading = true
	}
	c.mu.Unlock()
	all, err := read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if known != nil {
		known.loading = false
	}
	if err != nil {
		return nil, err
	}
	fresh := &catalog{harmless: statement.NewFunctions(all), keeping: statement.NewKeeping(all), parting: statement.NewParting(all), at: now}
	if c.m == nil {
		c.m = map[string]*catalog{}
	}
	c.m[database] = fresh
	return fresh, nil
}

// refusals are the texts that standbys refused because they write, shared by all sessions.
type refusals struct {
	mu sync.RWMutex
	r  *statement.Remembered
}

// refusalsKept is how many of them are kept.
const refusalsKept = 8192

// Has implements split.Refusals.
func (r *refusals) Has(text []byte) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.r != nil && r.r.Has(text)
}

func (r *refusals) add(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		r.r = statement.NewRemembered(refusalsKept)
	}
	r.r.Add(text)
}

func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r != nil {
		r.r.Forget()
	}
}
