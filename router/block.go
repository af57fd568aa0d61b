package router

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"howdah/router/route"
	"howdah/router/topology"
	"howdah/router/wire"
)

// A READ ONLY block on a standby: split.Tracker says which, deal (split.go) carries it out batch by batch, and here is what differs from single reads.

// atWork reports whether a standby carries something out for the session, or has a transaction block of its. The client's lock is held; a may be nil.
func (a *auto) atWork() bool { return a != nil && (a.busy || a.block) }

// inBlock reports whether a standby has a transaction block of the session's. The client's lock is held; a may be nil.
func (a *auto) inBlock() bool { return a != nil && a.block }

// blockStandby returns the standby that has the session's block, if that may go on there.
func (a *auto) blockStandby(t *topology.Topology) *reader {
	rd := a.reader
	if rd == nil {
		return nil
	}
	if keep, _ := rd.kept(t); !keep || !a.settled(rd.conn) {
		a.drop()
		return nil
	}
	if a.consistency() == route.Strict {
		a.offer(t, rd, nil)
		if a.c.r.reads.Choose(context.Background(), &a.mark, route.Strict, a.readers, bound(t)) < 0 {
			return nil
		}
	}
	return rd
}

// mayBegin reports whether a block that the next batch begins may run on the standby. One that does not say its isolation level is asked about: the default
// may be a setting of the role, the database or the server.
func (a *auto) mayBegin(rd *reader) bool {
	begins, byDefault, ends := a.tracker.BeginsBlock()
	if !begins || !byDefault {
		return true
	}
	if rd.isolation == "" || rd.isolationOf != rd.version {
		level, err := rd.setting("default_transaction_isolation")
		if err != nil {
			a.c.log().Debug("a standby did not say its default_transaction_isolation", zap.String("member", rd.member), zap.Error(err))
			a.drop()
			return false
		}
		rd.isolation, rd.isolationOf = level, rd.version
	}
	return rd.isolation == "read committed" || rd.isolation == "read uncommitted" || rd.isolation == "repeatable read" && ends
}

// takeOver has the primary go on with the block that a standby has. The client's next message follows it without waiting for its answer.
func (a *auto) takeOver(p *pump) error {
	defer a.rested()
	a.c.mu.Lock()
	a.busy = true
	server := a.c.server
	a.c.mu.Unlock()
	a.settled(server) // a late cancel request must not hit the BEGIN
	a.c.mu.Lock()
	if a.c.ending != nil {
		a.c.mu.Unlock()
		return errEnded
	}
	a.c.machine.HideBlock()
	message := a.tracker.TakeOver()
	a.block = false
	a.c.mu.Unlock()
	a.seen = true // what the primary shows it now a standby may lack
	if _, err := p.dst.Write(message); err != nil {
		return errSink{err}
	}
	if over := a.rollBack(); over != nil {
		return a.endWith(ending{err: over, said: true})
	}
	return nil
}

// rollBack ends the transaction block that the session's standby has, if it still has one. It returns the error with which the standby has ended that
// because of its time.
func (a *auto) rollBack() *wire.Error {
	if a.reader == nil {
		return nil
	}
	if !a.settled(a.reader.conn) {
		a.drop()
		return nil
	}
	err := a.reader.exec([]byte("ROLLBACK"), nil)
	var last errLastWord
	switch {
	case errors.As(err, &last) && outOfTime(last.said.Code):
		return last.said
	case err != nil:
		a.drop()
	}
	return nil
}

// setting asks for the value of a setting.
func (rd *reader) setting(name string) (string, error) {
	return rd.value([]byte("SHOW " + name))
}
