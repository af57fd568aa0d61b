package router

import (
	"context"
	"errors"
	"os"
	"time"

	"howdah/router/session"
	"howdah/router/split"
	"howdah/router/wire"
)

// ask sends a batch to the standby and gives the client its answer. It returns false if the standby did not carry it out and the
// client has been told nothing, and otherwise the transaction status that it leaves behind.
func (a *auto) ask(rd *reader, batch []byte) (done bool, status byte, err error) {
	if a.cancelled.Load() {
		return false, 0, nil
	}
	out, hidden := a.tracker.Prepare(a.out[:0], rd.have)
	out = append(out, batch...)
	if a.out = out; cap(out) > keepOut {
		a.out = nil
	}
	if err := rd.send(out); err != nil {
		a.drop()
		return false, 0, nil
	}
	a.asks(rd)
	defer a.asked(&err)
	begins, _, _ := a.tracker.BeginsBlock()
	reply := split.Reply{Hidden: hidden, Longest: chunkSize, Begins: begins}
	if done, err = a.answer(rd, &reply); begins && !done && err == nil {
		a.rollBack()
	}
	return done, reply.Status(), err
}

// asks notes that the standby has the client's batch.
func (a *auto) asks(rd *reader) {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	a.at = rd
	switch {
	case rd.cut:
		a.cancelLeft()
	case a.cancelled.Load(): // since ask looked
		s := a.aim()
		c.r.work.Go(func() { c.shoot(context.Background(), s) })
	}
}

// asked notes that the standby has answered, or that nobody waits for its answer any more.
func (a *auto) asked(err *error) {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	if *err != nil {
		a.interrupt()
	}
	a.at = nil
}

// tellCancelled gives the client the answer to a batch that was cancelled before a standby had it, or that none carried out. It returns the transaction
// status that this leaves behind. A block fails with it, and is made to fail where it goes on, on the primary.
func (a *auto) tellCancelled() (status byte, err error) {
	status = 'I'
	if a.tracker.InBlock() {
		a.drop()
		status = 'E'
	}
	a.c.r.metrics.refused(wire.CodeQueryCanceled)
	a.c.r.metrics.cancelled("held")
	a.c.writing.Lock()
	defer a.c.writing.Unlock()
	return status, a.tell(session.Canceled(status), false)
}

// answer gives the client what the standby says to a batch.
func (a *auto) answer(rd *reader, reply *split.Reply) (bool, error) {
	in := newChunk()
	defer in.free()
	in.w = copy(in.b[:], rd.rest)
	rd.rest = nil
	rd.lookLater()
	locked := false
	defer func() {
		if locked {
			a.c.writing.Unlock()
		}
	}()
	for {
		o := reply.FromServer(in.b[in.r:in.w])
		switch o.Verb {
		case split.Send, split.Finished:
			if !locked {
				a.c.writing.Lock()
				locked = true
			}
			if err := a.tell(in.b[in.r:in.r+o.N], reply.MidMessage()); err != nil {
				return false, err
			}
			in.r += o.N
			if o.Verb == split.Finished {
				rd.rest = append(rd.rest, in.b[in.r:in.w]...)
				if a.failed = reply.Failed(); a.failed {
					split.Doubt(rd.have)
					a.c.r.metrics.serverError(reply.Code(), false)
				}
				switch reply.Code() {
				case wire.CodeReadOnlyTransaction, wire.CodeFeatureNotSupported: // the second of an unlogged table
					a.tracker.Texts(a.c.r.refused.add)
				}
				return true, nil
			}
		case split.Drop:
			if m := in.b[in.r+o.At : in.r+o.At+o.N]; m[0] == 'S' {
				rd.told(m)
			}
			copy(in.b[in.r+o.At:], in.b[in.r+o.At+o.N:in.w])
			in.w -= o.N
		case split.Repeat:
			if o.Fatal && outOfTime(o.Code) {
				return false, a.timedOut(rd, in, o)
			}
			a.repeat(rd, in, o.Code)
			return false, nil
		case split.Need:
			if err := a.more(rd, in); err != nil {
				if errors.As(err, new(errSource)) {
					return false, err
				}
				if reply.Begun() {
					return false, a.lost(rd)
				}
				a.drop()
				return false, nil
			}
		default:
			if o.Fatal && outOfTime(o.Code) {
				return false, a.timedOut(rd, in, o)
			}
			return false, a.lost(rd)
		}
	}
}

// lookEvery is how often a session that waits for a standby looks whether its client is still there: nobody reads from that meanwhile.
const lookEvery = 200 * time.Millisecond

// more reads what the standby says next. An errSource is a client that has gone.
func (a *auto) more(rd *reader, in *chunk) error {
	for {
		err := in.more(rd.conn)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if gone, err := a.c.conn.hungUp(); err != nil || gone {
			return errSource{errClientGone}
		}
		rd.lookLater()
	}
}

// lookLater has the next look come soon enough. A deadline costs more than a clock, so it is not set anew for each of many short reads.
func (rd *reader) lookLater() {
	if now := time.Now(); rd.look.Sub(now) < lookEvery/2 {
		rd.look = now.Add(lookEvery)
		rd.conn.SetReadDeadline(rd.look)
	}
}

// tell writes a part of the standby's answer to the client.
func (a *auto) tell(b []byte, mid bool) error {
	a.c.mu.Lock()
	if a.c.ending != nil {
		a.c.mu.Unlock()
		return errEnded
	}
	a.c.mu.Unlock()
	if n, err := a.c.conn.Write(b); err != nil {
		a.c.mid = a.c.mid || n > 0
		return errSource{err}
	}
	a.c.mid = mid
	a.c.r.metrics.fromServers.Add(uint64(len(b)))
	a.c.account.fromServer.Add(uint64(len(b)))
	return nil
}

// repeat makes ready for the primary what the standby did not carry out.
func (a *auto) repeat(rd *reader, in *chunk, code string) {
	if code == wire.CodeReadOnlyTransaction {
		a.tracker.Texts(a.c.r.refused.add)
	}
	split.Doubt(rd.have) // which of it is there cannot be told
	if err := rd.drain(in); err != nil {
		a.drop()
	}
}

// lost ends the session: the client has got a part of an answer whose rest will not come.
func (a *auto) lost(rd *reader) error {
	return a.endWith(ending{err: wire.Fatal(wire.CodeAdminShutdown, "terminating connection because the standby %s went away in the middle of its answer", rd.member).
		WithHint("Connect again.")})
}

// outOfTime reports whether an error is that of a server which ends a session because its transaction has taken, or has been idle for, too long. A session
// that has one server would end with it, so the primary does not go on with what the standby has ended so.
func outOfTime(code string) bool {
	return code == wire.CodeIdleInTransaction || code == wire.CodeTransactionTimeout
}

// timedOut ends the session with the error for which the standby has ended its connection, in the standby's words if they are there.
func (a *auto) timedOut(rd *reader, in *chunk, o split.ReplyOrder) error {
	in.r += o.At
	said := wire.Fatal(o.Code, "terminating connection due to a timeout of the transaction")
	l := &letters{conn: rd.conn, in: in, check: checkServer}
	if m, err := l.peek(); err == nil {
		if e, err := wire.ParseError(m[wire.HeaderSize:]); err == nil {
			e.Severity = said.Severity // which may have been translated
			said = &e
		}
	}
	return a.endWith(ending{err: said, said: true})
}

// endWith ends a session whose standby has ended.
func (a *auto) endWith(e ending) error {
	a.drop()
	a.c.end(e)
	return errEnded
}
