package session

import "howdah/router/wire"

// recalled is what becomes of a request of the client's that is cancelled before a server has been sent anything of it. The client is answered as PostgreSQL
// answers one that it has read and cancels: with the error and ReadyForQuery, and in the extended protocol everything in between is passed over.
type recalled uint8

const (
	recalledNothing recalled = iota
	recalledNext             // the next request
	recalledToSync           // what is left up to a Sync: the client has been told the error
)

var canceled = &wire.Error{Severity: "ERROR", Code: wire.CodeQueryCanceled, Message: "canceling statement due to user request"}

// Canceled returns the answer to a request that was cancelled, with the transaction status that it leaves behind.
func Canceled(status byte) []byte { return appendReady(canceled.Append(nil), status) }

func appendReady(dst []byte, status byte) []byte { return append(dst, 'Z', 0, 0, 0, 5, status) }

// Recall has what the client asks next cancelled before the server gets any of it: Recalled says what becomes of that. The session is idle.
func (s *Session) Recall() { s.recalled = recalledNext }

// Recalling reports whether Recalled has more to say.
func (s *Session) Recalling() bool { return s.recalled != recalledNothing || s.recalledLeft > 0 }

// Recalled is shown what the client sent and has not been dealt with yet, before FromClient is. It returns false if nothing of it is of a request that was
// recalled. An Answer with Err has told the client that.
func (s *Session) Recalled(b []byte) (Order, bool) {
	if !s.Recalling() {
		return Order{}, false
	}
	o := Order{Verb: Answer}
	for o.N < len(b) && s.Recalling() {
		if s.recalledLeft == 0 {
			if len(b)-o.N < wire.HeaderSize {
				break
			}
			h := wire.ParseHeader(b[o.N:])
			if err := h.CheckClient(false); err != nil || h.Type == 'X' {
				s.recalled = recalledNothing // FromClient refuses it, or takes leave
				break
			}
			s.recalledType, s.recalledLeft = h.Type, h.Size()
		}
		n := min(s.recalledLeft, len(b)-o.N)
		o.N += n
		if s.recalledLeft -= n; s.recalledLeft == 0 {
			s.recallMessage(&o)
		}
	}
	if o.N == len(b) && s.recalled == recalledNext && s.recalledLeft == 0 {
		s.recalled = recalledNothing // nothing of that was a request
	}
	if o.N == 0 && s.Recalling() {
		return Order{Verb: Fetch, N: wire.HeaderSize}, true
	}
	return o, o.N > 0
}

// recallMessage takes in a message that was dropped whole. Outside of a copy PostgreSQL passes over what belongs to one (PostgresMain in
// src/backend/tcop/postgres.c), where nothing is outstanding Flush does nothing, and a Sync alone cannot be cancelled.
func (s *Session) recallMessage(o *Order) {
	next := s.recalled == recalledNext
	switch s.recalledType {
	case 'S':
		o.Insert = appendReady(o.Insert, s.status)
		if !next {
			s.recalled = recalledNothing
		}
	case 'Q', 'F':
		if next {
			o.Insert, o.Err = append(o.Insert, Canceled(s.status)...), canceled
			s.recalled = recalledNothing
		}
	case 'P', 'B', 'D', 'E', 'C':
		if next {
			o.Insert, o.Err = canceled.Append(o.Insert), canceled
			s.recalled = recalledToSync
		}
	}
}
