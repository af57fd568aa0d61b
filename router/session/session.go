// Package session is the state machine of one relayed session. It owns no socket, starts no
// goroutine and reads no clock: it is shown the bytes of either direction and orders what becomes
// of them, so that every hazard of the protocol is a table in its tests and any driver can run it.
//
// It forwards every byte as it came, with two exceptions: the server's BackendKeyData, which the
// router replaces by a key of its own, and the success of a commit that no standby has confirmed.
package session

import (
	"bytes"

	"howdah/router/wire"
)

// Verb is what a driver must do next.
type Verb uint8

// The verbs.
const (
	// Forward: write the first N bytes to the other side.
	Forward Verb = iota + 1
	// Skip: drop the first N bytes and write Insert to the other side instead.
	Skip
	// Fetch: read on until at least N bytes are there, then ask again with the same beginning.
	Fetch
	// Refuse: this is not the protocol; end the session with Err. Nothing is to be forwarded.
	Refuse
	// Answer: drop the first N bytes and write Insert back to who sent them.
	Answer
)

// Order is what becomes of the bytes that were shown. A driver carries it out before it asks again
// for the same direction.
type Order struct {
	Verb   Verb
	N      int
	Insert []byte
	Err    *wire.Error
}

// MaxFetch is the most that an Order asks a driver to hold in one piece.
const MaxFetch = wire.HeaderSize + peekText

// How much of a body is looked at; a longer one is judged by its beginning.
const (
	peekText  = 512
	peekError = 128
	// peekParameter is enough for those that are looked at.
	peekParameter = 256
	// peekNotice is enough for the warning that is looked for, in any language.
	peekNotice = 512
)

type phase uint8

const (
	phaseAuthenticating phase = iota
	phaseStarting             // authenticated; the first ReadyForQuery has not come
	phaseReady
)

type copyMode uint8

const (
	copyNone copyMode = iota
	copyIn            // the server takes CopyData and passes over Sync and Flush
	copyBoth          // a replication stream: what flows in it is not ours to understand
)

// Session is the state of one session from after its startup packet was sent to the server. It is
// not safe for concurrent use: a driver with two goroutines locks around each call.
type Session struct {
	hooks    Hooks
	follower Follower // nil if the hooks are none
	phase    phase
	// clientLeft and serverLeft are how many bytes of the message being forwarded are still to
	// come, its header included.
	clientLeft, serverLeft int

	requests requests
	status   byte // of the last ReadyForQuery: 'I', 'T' or 'E'; 0 before the first
	copy     copyMode
	// skipping: the server passes over everything up to a Sync that the client has not sent yet.
	skipping bool
	// state is status as far as it is known to hold still: an Execute may change it between two
	// ReadyForQuery.
	state byte
	// executed: an Execute was answered since the last ReadyForQuery.
	executed bool

	statements statements
	withhold   withhold
	// dropping: serverLeft is of a message that the client does not get.
	dropping   bool
	insert     []byte
	fatal      bool
	terminated bool

	// unsynced: what the client sent last is of the extended protocol, and no Sync has followed: the server keeps a transaction open for it, also
	// once it has answered everything.
	unsynced bool

	queries, transactions uint64

	// recalledLeft is how many bytes of a message of recalledType are still to be dropped.
	recalled     recalled
	recalledType byte
	recalledLeft int
}

// New returns the machine of a session whose startup packet goes to the server next.
func New(h Hooks) *Session {
	f, _ := h.(Follower)
	return &Session{hooks: h, follower: f}
}

// Ready reports whether the server has once said that it takes queries.
func (s *Session) Ready() bool { return s.phase == phaseReady }

// Authenticated reports whether the server has accepted the client.
func (s *Session) Authenticated() bool { return s.phase != phaseAuthenticating }

// Status is the transaction status of the last ReadyForQuery: 'I', 'T' or 'E'; 0 before the first.
func (s *Session) Status() byte { return s.status }

// Idle reports whether the session is between transactions with nothing outstanding, so that
// ending it undoes nothing.
func (s *Session) Idle() bool { return s.status == 'I' && s.Answered() }

// Answered reports whether nothing is outstanding, in a transaction or between two.
func (s *Session) Answered() bool {
	return s.phase == phaseReady && !s.Busy() && s.clientLeft == 0 && !s.skipping && !s.unsynced
}

// Busy reports whether the server owes an answer.
func (s *Session) Busy() bool { return s.requests.len() > 0 }

// Counts returns how many requests were answered with a ReadyForQuery, and how many of those left no transaction open.
func (s *Session) Counts() (queries, transactions uint64) { return s.queries, s.transactions }

// Replicating reports whether a replication stream flows.
func (s *Session) Replicating() bool { return s.copy == copyBoth }

// MidMessage reports whether the client has been sent the beginning of a message and not its end:
// then nothing of the router's own may be written to it.
func (s *Session) MidMessage() bool { return s.serverLeft > 0 && !s.dropping }

// Terminated reports whether the client has said goodbye.
func (s *Session) Terminated() bool { return s.terminated }

// Fatal reports whether the server has told the client why the session ends.
func (s *Session) Fatal() bool { return s.fatal }

// FromClient is shown what the client sent and has not been dealt with yet.
func (s *Session) FromClient(b []byte) Order {
	i := 0
	for i < len(b) {
		if s.clientLeft > 0 {
			n := min(s.clientLeft, len(b)-i)
			i += n
			s.clientLeft -= n
			continue
		}
		rest := b[i:]
		need := wire.HeaderSize
		if len(rest) >= need {
			h := wire.ParseHeader(rest)
			if err := h.CheckClient(s.phase == phaseAuthenticating); err != nil {
				if i > 0 {
					break
				}
				return Order{Verb: Refuse, Err: err}
			}
			if need += s.clientPeek(h); len(rest) >= need {
				s.onClient(h, rest[wire.HeaderSize:need])
				s.clientLeft = h.Size()
				continue
			}
		}
		if i > 0 {
			break
		}
		return Order{Verb: Fetch, N: need}
	}
	return Order{Verb: Forward, N: i}
}

// FromServer is shown what the server sent and has not been dealt with yet.
func (s *Session) FromServer(b []byte) Order {
	i := 0
	for i < len(b) {
		if s.dropping && s.serverLeft > 0 {
			if i > 0 {
				break
			}
			return s.drop(len(b))
		}
		if s.serverLeft > 0 {
			n := min(s.serverLeft, len(b)-i)
			i += n
			s.serverLeft -= n
			continue
		}
		rest := b[i:]
		need := wire.HeaderSize
		if len(rest) >= need {
			h := wire.ParseHeader(rest)
			peek, err := s.serverPeek(h)
			if err != nil {
				if i > 0 {
					break
				}
				return Order{Verb: Refuse, Err: err}
			}
			if need += peek; len(rest) >= need {
				if h.Type == 'K' {
					if i > 0 {
						break
					}
					return s.replaceKey(rest[:h.Size()])
				}
				if h.Type == 'R' && s.accepts(rest[wire.HeaderSize:need]) {
					if i > 0 {
						break
					}
					if err := s.accepted(); err != nil {
						return Order{Verb: Refuse, Err: err}
					}
				}
				if (h.Type == '1' || h.Type == '3') && s.requests.hidden() {
					if i > 0 {
						break
					}
					s.requests.pop()
					return Order{Verb: Skip, N: h.Size()}
				}
				if s.follower != nil && (h.Type == 'E' || h.Type == 'N') {
					if i > 0 {
						break
					}
					if s.takesLeave(h, rest[wire.HeaderSize:need]) {
						s.serverLeft = h.Size()
						return s.drop(len(rest))
					}
				}
				if s.requests.hiddenBlock() {
					if i > 0 {
						break
					}
					if o, ok := s.hide(h, rest[wire.HeaderSize:need], len(rest)); ok {
						return o
					}
				}
				if s.withhold != withholdNothing {
					if i > 0 {
						break
					}
					if o, ok := s.withheld(h, rest[wire.HeaderSize:need]); ok {
						return o
					}
				}
				s.onServer(h, rest[wire.HeaderSize:need])
				s.serverLeft = h.Size()
				continue
			}
		}
		if i > 0 {
			break
		}
		return Order{Verb: Fetch, N: need}
	}
	return Order{Verb: Forward, N: i}
}

// drop orders that what is there of a message, of n bytes shown, goes nowhere.
func (s *Session) drop(n int) Order {
	n = min(s.serverLeft, n)
	s.serverLeft -= n
	s.dropping = s.serverLeft > 0
	return Order{Verb: Skip, N: n}
}

// clientPeek is how much of the body must be seen before the message goes on.
func (s *Session) clientPeek(h wire.Header) int {
	switch h.Type {
	case 'Q', 'P', 'B', 'E':
		return min(int(h.Length)-4, peekText)
	}
	return 0
}

// serverPeek is how much of the body must be seen before the message goes on, and an error if no
// server sends such a message.
func (s *Session) serverPeek(h wire.Header) (int, *wire.Error) {
	if err := h.CheckServer(); err != nil {
		return 0, err
	}
	body := int(h.Length) - 4
	exact := 0
	switch h.Type {
	case 'R':
		exact = min(body, 4)
		if body < 4 {
			return 0, badServer(h)
		}
	case 'Z':
		exact = 1
		if body != 1 {
			return 0, badServer(h)
		}
	case 'K':
		exact = body
		if h.Size() > wire.MaxKeyData {
			return 0, badServer(h)
		}
	case 'E':
		exact = min(body, peekError)
	case 'N':
		exact = min(body, peekNotice)
	case 'S':
		if s.follower != nil {
			exact = min(body, peekParameter)
		}
	}
	return exact, nil
}

func badServer(h wire.Header) *wire.Error {
	return wire.Fatal(wire.CodeProtocolViolation, "the server sent a message of type %q with an impossible length %d", rune(h.Type), h.Length)
}

func (s *Session) replaceKey(message []byte) Order {
	server, err := wire.ParseKey(message[wire.HeaderSize:])
	if err != nil {
		return Order{Verb: Refuse, Err: wire.Fatal(wire.CodeProtocolViolation, "the server sent an invalid cancel key")}
	}
	own, err := s.hooks.Key(server)
	if err != nil {
		return Order{Verb: Refuse, Err: wire.Fatal(wire.CodeConnectionFailure, "no cancel key could be made for this session")}
	}
	s.insert = append(s.insert[:0], s.hooks.Notices()...)
	s.insert = own.AppendKeyData(s.insert)
	return Order{Verb: Skip, N: len(message), Insert: s.insert}
}

// accepts reports whether the body of an authentication request says that the server has accepted the client.
func (s *Session) accepts(body []byte) bool {
	return s.phase == phaseAuthenticating && body[0]|body[1]|body[2]|body[3] == 0
}

// accepted goes on to what follows the authentication, unless the hook is against it.
func (s *Session) accepted() *wire.Error {
	if err := s.hooks.Authenticated(); err != nil {
		return err
	}
	s.phase = phaseStarting
	return nil
}

// onServer follows what the server says. body is as much of it as serverPeek asked for.
func (s *Session) onServer(h wire.Header, body []byte) {
	switch h.Type {
	case 'Z':
		s.onReady(body[0])
	case 'E':
		code, fatal := wire.PeekError(body)
		s.fatal = s.fatal || fatal
		s.onError()
		s.hooks.Error(code, fatal)
	case 'N':
		s.onNotice(body)
	case 'A':
		if s.follower != nil {
			s.follower.Notified()
		}
	case 'S':
		if s.follower != nil {
			s.onParameter(body)
		}
	case '1':
		s.requests.answer(kindParse)
	case '2':
		s.requests.answer(kindBind)
	case '3':
		s.requests.answer(kindClose)
	case 'T', 'n':
		s.requests.answer(kindDescribe)
	case 'C', 'I', 's':
		if r, ok := s.requests.answer(kindExecute); ok {
			s.onExecuted(r.effect())
		}
	case 'G':
		if !s.requests.beginCopyIn() {
			s.copy = copyIn
		}
		if s.requests.turns == 0 {
			s.unsynced = true // the copy swallowed the Sync
		}
	case 'W':
		s.copy = copyBoth
	}
}

func (s *Session) onParameter(body []byte) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	value, _, whole := bytes.Cut(rest, []byte{0})
	if ok && whole {
		s.follower.Parameter(name, value)
	}
}

// Hide notes that the driver sends the server n messages of its own next, Parse or Close, between two messages of the client, whose answers the client
// does not get. It returns false if the server would pass over them: then they are not to be sent.
func (s *Session) Hide(n int) bool {
	if s.skipping || s.copy != copyNone {
		return false
	}
	for range n {
		s.requests.push(newRequest(kindHidden, effectNone))
	}
	return true
}

// Resume has an idle session go on with another server that has just said that it takes queries.
func (s *Session) Resume() {
	s.serverLeft, s.dropping, s.withhold, s.executed = 0, false, withholdNothing, false
}

// takesLeave reports whether a message says that the server ends an idle session, and the driver goes on without it.
func (s *Session) takesLeave(h wire.Header, body []byte) bool {
	if !s.Idle() {
		return false
	}
	code, fatal := wire.PeekError(body)
	return (fatal || h.Type == 'N') && (code == wire.CodeAdminShutdown || code == wire.CodeCrashShutdown) && s.follower.Leaving(fatal)
}

// HideBlock notes that the driver sends the server a Query of its own next, while the session is idle, that begins a transaction block. The client gets
// nothing of its answer.
func (s *Session) HideBlock() { s.requests.push(newRequest(kindBlock, effectNone)) }

// HidesBlock reports whether the server works on what HideBlock told of, and not on the client's request.
func (s *Session) HidesBlock() bool { return s.requests.hiddenBlock() }

// hide keeps from the client what belongs to the answer of a Query that is not its own, n bytes of which are shown. What the server says unasked is
// no part of it, nor is the last word of a server that ends the session.
func (s *Session) hide(h wire.Header, body []byte, n int) (Order, bool) {
	switch h.Type {
	case 'C', 'N':
	case 'E':
		if _, fatal := wire.PeekError(body); fatal {
			return Order{}, false
		}
	case 'Z':
		s.status, s.state, s.executed = body[0], body[0], false
		s.requests.ready()
		if s.follower != nil {
			s.follower.Unhidden()
		}
	default:
		return Order{}, false
	}
	s.serverLeft = h.Size()
	return s.drop(n), true
}

func (s *Session) onReady(status byte) {
	s.status, s.state = status, status
	s.executed = false
	s.copy = copyNone
	if s.phase != phaseReady {
		// The one that ends the startup answers no request.
		s.phase = phaseReady
		return
	}
	s.queries++
	if status == 'I' {
		s.transactions++
	}
	s.requests.ready()
}

func (s *Session) onExecuted(e effect) {
	s.executed = true
	if e != effectPlain && e != effectNone {
		s.state = unclear
	}
}

func (s *Session) onError() {
	if s.phase != phaseReady {
		return
	}
	s.copy = copyNone
	s.statements.failed()
	if s.requests.fail() {
		s.skipping = true
	}
}
