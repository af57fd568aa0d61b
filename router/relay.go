package router

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"howdah/router/session"
	"howdah/router/wire"
)

// chunkSize is how much is read at a time, and the most that is held of one direction of one
// session: what a slow reader costs.
const chunkSize = 32 << 10

// chunk is a buffer with bytes from r to w still to be dealt with.
type chunk struct {
	b    [chunkSize]byte
	r, w int
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	c := chunks.Get().(*chunk)
	c.r, c.w = 0, 0
	return c
}

// free gives c back; nil is allowed.
func (c *chunk) free() {
	if c != nil {
		chunks.Put(c)
	}
}

// pump moves one direction of a session. It holds a chunk only while there are bytes in it, so an
// idle session holds none.
type pump struct {
	c        *client
	src, dst net.Conn
	server   *link           // whichever of the two it is
	raw      syscall.RawConn // of a src without TLS
	held     *chunk
	// alone, if it is not nil, is held while the client is being given a message; holding says that this pump holds it.
	alone   *sync.Mutex
	holding bool
	// ofClient: what is read is the client's, and waits while the router is paused.
	ofClient bool

	// Of a src with TLS, which cannot be asked whether there is something to read: idle is where the next bytes are waited for, long says that
	// the last read filled what it was given, so that more is likely there.
	long bool
	idle []byte

	// ready is readReady bound once: a method value made at each read would be an allocation.
	ready   func(uintptr) bool
	readErr error
}

// count takes in that n bytes were moved.
func (p *pump) count(n int) {
	all, own := &p.c.r.metrics.fromServers, &p.c.account.fromServer
	if p.ofClient {
		all, own = &p.c.r.metrics.fromClients, &p.c.account.fromClient
	}
	all.Add(uint64(n))
	own.Add(uint64(n))
}

// idleRead is what a session with TLS keeps for the next message of its client; most are shorter.
const idleRead = 2 << 10

func (c *client) newPump(src, dst net.Conn, held *chunk) (*pump, error) {
	p := &pump{c: c, src: src, dst: dst, server: c.server, held: held}
	plaintext, plain := src.(socket)
	if !plain {
		p.idle = make([]byte, idleRead)
		return p, nil
	}
	raw, err := plaintext.SyscallConn()
	if err != nil {
		return nil, err
	}
	p.raw, p.ready = raw, p.readReady
	return p, nil
}

// errSource and errSink tell which side of a pump failed.
type (
	errSource struct{ error }
	errSink   struct{ error }
)

func (e errSource) Unwrap() error { return e.error }
func (e errSink) Unwrap() error   { return e.error }

// run moves bytes until one side ends, the session is ended, or the bytes are not the protocol
// (a *wire.Error).
func (p *pump) run() error {
	defer func() { p.held.free() }()
	for {
		var err error
		if p.ofClient && p.c.auto != nil {
			err = p.c.auto.deal(p)
		} else {
			err = p.deal()
		}
		if err != nil {
			return err
		}
		if err := p.fill(); err != nil {
			return errSource{err}
		}
	}
}

// deal asks for orders about the bytes that are held and carries them out, until more are needed.
func (p *pump) deal() error {
	h := p.held
	if h == nil {
		return nil
	}
	if p.alone != nil {
		if !p.holding {
			p.alone.Lock()
			p.holding = true
		}
		defer p.release()
	}
	if all, err := p.carryOut(h, h.w); err != nil {
		return err
	} else if !all {
		h.w = copy(h.b[:], h.b[h.r:h.w])
		h.r = 0
		return nil
	}
	h.free()
	p.held = nil
	return nil
}

// carryOut asks for orders about the bytes of h up to end and carries them out. It returns false if more are needed.
func (p *pump) carryOut(h *chunk, end int) (bool, error) {
	for h.r < end {
		o, err := p.order(h.b[h.r:end])
		if err != nil {
			return false, err
		}
		if enough, err := p.obey(h, o); !enough {
			return false, err
		}
	}
	return true, nil
}

// obey carries out one order about the bytes of h. It returns false if more are needed.
func (p *pump) obey(h *chunk, o session.Order) (enough bool, err error) {
	switch o.Verb {
	case session.Forward:
		if _, err := p.dst.Write(h.b[h.r : h.r+o.N]); err != nil {
			return false, errSink{err}
		}
		p.count(o.N)
		h.r += o.N
	case session.Skip:
		if _, err := p.dst.Write(o.Insert); err != nil {
			return false, errSink{err}
		}
		h.r += o.N
	case session.Answer:
		if err := p.c.answer(o); err != nil {
			return false, err
		}
		h.r += o.N
	case session.Fetch:
		return false, nil
	default:
		return false, o.Err
	}
	return true, nil
}

// pass lets the first n bytes that are held go to the other side. The machine has given its first order about them.
func (p *pump) pass(n int, first session.Order) error {
	end := p.held.r + n
	all, err := p.obey(p.held, first)
	if err == nil && all {
		all, err = p.carryOut(p.held, end)
	}
	if err == nil && !all {
		return wire.Fatal(wire.CodeProtocolViolation, "a message could not be followed") // the tracker shows enough of each
	}
	return err
}

// letGo gives up what a pump that has ended holds.
func (p *pump) letGo() {
	if p.holding {
		p.holding = false
		p.alone.Unlock()
	}
}

// release lets others give the client messages, unless it has a part of one.
func (p *pump) release() {
	p.c.mu.Lock()
	mid := p.c.machine.MidMessage()
	p.c.mu.Unlock()
	if p.holding && !mid {
		p.holding = false
		p.alone.Unlock()
	}
}

// order asks the machine. The lock makes "ended" and "asked" one step: after the session's end
// nothing is counted as asked of the server.
func (p *pump) order(b []byte) (session.Order, error) {
	for {
		if o, h, err := p.orderNow(b); h.resumed == nil {
			return o, err
		} else if !p.c.account.wait(h) {
			return session.Order{}, errEnded
		}
	}
}

// orderNow does not ask the machine where the session must be held first: then it returns what it waits for.
func (p *pump) orderNow(b []byte) (o session.Order, h held, err error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.ending != nil {
		return o, h, errEnded
	}
	if p.server != p.c.server {
		return o, h, errDetached // what is here still is of a server that has lost the session
	}
	if p.ofClient && p.c.auto == nil {
		p.c.takeUp()
		if o, recalled := p.c.machine.Recalled(b); recalled {
			return o, h, nil
		}
		if h = p.c.mustWait(b[0]); h.resumed != nil {
			return o, h, nil
		}
	}
	if p.ofClient {
		return p.c.machine.FromClient(b), h, nil
	}
	return p.c.machine.FromServer(b), h, nil
}

// fill reads more. With nothing held it waits without a buffer and takes one when there is
// something to read.
func (p *pump) fill() error {
	if h := p.held; h != nil {
		n, err := p.src.Read(h.b[h.w:])
		h.w += n
		if n > 0 {
			return nil
		}
		return err
	}
	if p.raw == nil {
		return p.fillTLS()
	}
	if err := p.raw.Read(p.ready); err != nil {
		return err
	}
	return p.readErr
}

// fillTLS reads once, into a chunk if much is likely to come.
func (p *pump) fillTLS() error {
	if p.long {
		h := newChunk()
		n, err := p.src.Read(h.b[:])
		if n == 0 {
			h.free()
			return err
		}
		h.w, p.held, p.long = n, h, n >= idleRead
		return nil
	}
	n, err := p.src.Read(p.idle)
	if n == 0 {
		return err
	}
	h := newChunk()
	h.w, p.held, p.long = copy(h.b[:], p.idle[:n]), h, n == len(p.idle)
	return nil
}

// readReady reads once from a socket that may be readable; false to be called again when it is.
func (p *pump) readReady(fd uintptr) bool {
	h := newChunk()
	for {
		n, err := syscall.Read(int(fd), h.b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			h.free()
			return false
		case n > 0:
			h.w = n
			p.held, p.readErr = h, nil
			return true
		case err == nil:
			err = io.EOF
		}
		h.free()
		p.readErr = err
		return true
	}
}

// relay moves bytes both ways until the session ends, and then has the client told why if it does
// not know.
func (c *client) relay() {
	up, down, err := c.pumps()
	if err != nil {
		c.stopLogin()
		c.cutOff()
		c.log().Warn("session lost", zap.Error(err))
		return
	}
	done := make(chan bool, 1)
	go func() {
		defer close(done)
		done <- c.clientEnded(up.run())
	}()
	var gone, ended bool
	for {
		err = down.run()
		if c.auto == nil {
			break
		}
		if !c.outlives(down.server, err) {
			break
		}
		down.letGo()
		if down, gone, ended = c.auto.next(done); ended {
			break
		}
	}
	c.endBoth(err, down, done, gone, ended)
}

// pumps returns what moves either direction, with what was read already.
func (c *client) pumps() (up, down *pump, err error) {
	early, first := c.early, c.first
	c.early, c.first = nil, nil
	up, err = c.newPump(c.conn.Conn, c.server.Conn, early)
	if err != nil {
		return nil, nil, err
	}
	up.ofClient = true
	down, err = c.newDown(first)
	return up, down, err
}

// endBoth ends both directions after that of the server has ended with err, and down with it unless what reads from the client has ended already.
func (c *client) endBoth(err error, down *pump, done <-chan bool, gone, ended bool) {
	defer c.stopLogin()
	if a := c.auto; a != nil {
		defer a.drop()
	}
	broken := !ended && errors.As(err, new(errSink)) // the client did not get what it was being sent
	if broken {
		c.abandon()
	}
	var bad *wire.Error
	if errors.As(err, &bad) {
		c.end(ending{err: bad, ofServer: true})
	}
	c.conn.SetReadDeadline(past)
	c.cutOff()
	if !ended {
		down.letGo()
		gone = <-done
	}
	c.stopLogin()
	if gone || broken {
		c.log().Debug("session ends with its client")
		c.conn.reset()
		return
	}
	c.tellEnd()
}

// tellEnd has the client told why the session has ended.
func (c *client) tellEnd() {
	e, said := c.lastWord()
	if e == nil {
		return
	}
	if said {
		c.r.metrics.serverError(e.Code, true)
	} else {
		c.r.metrics.refused(e.Code)
	}
	c.log().Debug("session ends", zap.String("sqlstate", e.Code), zap.String("reason", e.Message))
	if c.machine.MidMessage() || c.mid {
		// Whatever is written now would be taken for the rest of that message.
		c.conn.reset()
		return
	}
	c.r.farewell(c.conn, e)
}

// newDown returns the pump of the server's direction, with what was read already.
func (c *client) newDown(held *chunk) (*pump, error) {
	down, err := c.newPump(c.server.Conn, c.conn.Conn, held)
	if err == nil {
		down.alone = &c.writing
	}
	return down, err
}

// cutOff ends what the session does with servers: it gets no other one.
func (c *client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account.release()
	if c.server != nil {
		c.server.Close()
	}
	if c.search != nil {
		c.search(errEnded)
	}
	if c.auto != nil {
		c.auto.interrupt()
	}
}

// clientEnded deals with the end of the client's direction and reports whether the client vanished.
func (c *client) clientEnded(err error) bool {
	var bad *wire.Error
	if errors.As(err, &bad) {
		c.end(ending{err: bad, ofServer: true})
		return false
	}
	if !errors.As(err, new(errSource)) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false // the server's direction has ended, or will: it knows why
	}
	c.mu.Lock()
	quiet := c.ending != nil || c.machine.Terminated()
	c.mu.Unlock()
	if quiet {
		// After its goodbye a client expects that what it asked for is still carried out.
		return false
	}
	c.abandon()
	return true
}

// abandon cuts the server off from a client that has vanished. What runs is cancelled first:
// PostgreSQL would not notice before it has something to write.
func (c *client) abandon() {
	c.mu.Lock()
	ended := c.ending != nil
	server := c.server
	busy := c.machine.Busy() && !c.machine.Replicating() && !c.machine.Terminated()
	idle := c.machine.Idle()
	c.mu.Unlock()
	if ended || server == nil {
		return
	}
	if busy {
		c.r.cancelAbandoned(c)
	}
	if idle {
		c.sayGoodbye(server)
	}
	server.Close()
}
