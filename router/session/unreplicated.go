package session

import (
	"howdah/router/wire"
)

// withhold is what becomes of the answer to a commit that no standby has confirmed.
//
// When the wait of a commit for its synchronous standbys is cancelled, PostgreSQL says so in a WARNING and then reports the commit
// as done (SyncRepWaitForLSN, src/backend/replication/syncrep.c). A failover may undo that commit, so its client is told 08007
// instead. In a simple query, and where COMMIT is executed, the warning comes before the CommandComplete; an implicit
// transaction of the extended protocol ends at Sync, and the warning comes between the two.
type withhold uint8

const (
	withholdNothing withhold = iota
	withholdNext             // the wait was cancelled and the client has not been told
	withholdRest             // it has been told, and expects nothing but ReadyForQuery
)

// syncRepRoutine is the R field of the warning, which no translation changes.
const syncRepRoutine = "SyncRepWaitForLSN"

// unreplicated is what the client is told instead of success.
var unreplicated = (&wire.Error{
	Severity: "ERROR", Code: wire.CodeResolutionUnknown,
	Message: "the outcome of the transaction is unknown: its wait for a synchronous standby was cancelled",
	Detail:  "It is committed on the primary and may not be on any standby; a failover can still undo it.",
	Hint:    "Find out whether it lasts before you repeat it.",
}).Append(nil)

// onNotice is shown the beginning of a NoticeResponse.
func (s *Session) onNotice(body []byte) {
	if s.phase == phaseReady && string(wire.PeekField(body, 'R')) == syncRepRoutine {
		s.withhold = withholdNext
	}
}

// withheld says what becomes of a message that comes behind a cancelled wait; false if it goes on as usual.
func (s *Session) withheld(h wire.Header, body []byte) (Order, bool) {
	switch h.Type {
	case 'S', 'A', 'N': // may come at any time and answer nothing
		return Order{}, false
	case 'Z':
		told := s.withhold == withholdRest
		s.withhold = withholdNothing
		if told {
			return Order{}, false
		}
		return Order{Verb: Skip, Insert: unreplicated}, true
	case 'G', 'W':
		return Order{Verb: Refuse, Err: wire.Fatal(wire.CodeResolutionUnknown, "the outcome of a transaction is unknown: its wait for a synchronous standby was cancelled").
			WithDetail("A copy follows it in the same query, which cannot go on after an error.")}, true
	case 'E':
		if s.withhold == withholdNext {
			s.withhold = withholdNothing // the client learns of no success
			return Order{}, false
		}
	case 'C', 'I', 's':
	default:
		if s.withhold == withholdNext {
			return Order{}, false
		}
	}
	o := Order{Verb: Skip}
	if s.withhold == withholdNext {
		s.withhold, o.Insert = withholdRest, unreplicated
	}
	s.onServer(h, body)
	s.serverLeft, s.dropping = h.Size(), true
	return o, true
}
