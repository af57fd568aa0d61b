package router

import (
	"howdah/router/session"
	"howdah/router/split"
)

// turn is what becomes of what the client sent.
type turn struct {
	split.Order
	machine session.Order // with Pass and Replace: what the machine orders first
	inject  []byte        // with Inject and Replace
	// Where nothing can be said yet: begins says that the session does its first thing, held what it waits for, moves that it needs another server
	// connection.
	begins, moves bool
	held          held
}

// order asks the tracker and the machine, in one step with whether the session goes on and is idle.
func (a *auto) order(p *pump) (turn, error) {
	for {
		t, err := a.orderNow(p.held.b[p.held.r:p.held.w]) // more may have come while the session waited
		switch {
		case err != nil:
			return t, err
		case t.begins:
			began := a.c.r.now()
			a.learnFunctions()
			a.beginMark(began)
			a.rested()
		case t.moves:
			if err := a.move(p); err != nil {
				return t, err
			}
		case t.held.resumed == nil:
			return t, nil
		case !a.c.account.wait(t.held):
			return t, errEnded
		}
	}
}

// orderNow does not ask where the session must be held first, nor before it begins, nor while it has no server connection.
func (a *auto) orderNow(b []byte) (t turn, err error) {
	c := a.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil || c.account.released() {
		return t, errEnded
	}
	c.takeUp()
	if o, recalled := c.machine.Recalled(b); recalled {
		a.tracker.Recalled()
		if t.machine, t.Order = o, (split.Order{Verb: split.Pass, N: o.N}); o.Verb == session.Fetch {
			t.Verb = split.More
		}
		return t, nil
	}
	switch {
	case c.server == nil && b[0] == 'X':
		c.machine.FromClient(b)
		return t, errEnded
	case !a.begun && c.machine.Idle(): // what a client sends before it is told that it may is answered by then
		a.begun, a.busy, t.begins, c.inHand = true, true, true, true
		return t, nil
	}
	if t.held = c.mustWait(b[0]); t.held.resumed != nil {
		return t, nil
	}
	if c.server == nil {
		t.moves, c.inHand = true, true
		return t, nil
	}
	if c.machine.Answered() {
		a.tracker.Answered()
	}
	t.Order = a.tracker.FromClient(b, c.machine.Idle())
	a.notePin()
	if t.Verb == split.Inject {
		message, n := a.tracker.Injection()
		if c.machine.Hide(n) {
			t.inject = message
			return t, nil
		}
		t.Order = a.tracker.FromClient(b, false) // the server passes over it too
	}
	switch t.Verb {
	case split.Pass, split.Replace:
		t.machine = c.machine.FromClient(b[:t.N])
		if t.Verb == split.Replace {
			t.inject = a.tracker.Replacement()
		}
	case split.Read:
		a.busy = true
	}
	return t, nil
}

// pinToServer keeps the session on the primary: no standby takes its login or its settings.
func (a *auto) pinToServer() {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.tracker.PinTo(split.PinServer)
	a.notePin()
}

// rested says that the session does nothing with a standby any more.
func (a *auto) rested() {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	a.busy = false
}
