package split

import (
	"howdah/router/wire"
)

// ReplyVerb is what becomes of the standby's bytes.
type ReplyVerb uint8

// The verbs of a Reply.
const (
	// Send: the first N bytes go to the client.
	Send ReplyVerb = iota + 1
	// Drop: the N bytes from At on go nowhere.
	Drop
	// Need: nothing can be said before more bytes are there.
	Need
	// Repeat: the standby has not carried the batch out, and the client has been told nothing: it can be repeated on the primary. What else
	// the standby has to say goes nowhere; Code is its SQLSTATE, and its error begins At.
	Repeat
	// Lost: the standby ends the connection, after a part of its answer has gone to the client. Code is the SQLSTATE of its error, which begins At.
	Lost
	// Finished: the first N bytes go to the client, and with them the answer is complete.
	Finished
)

// ReplyOrder is what becomes of the bytes that were shown.
type ReplyOrder struct {
	Verb  ReplyVerb
	At, N int
	Code  string
	// Fatal: with this error the standby ends the connection.
	Fatal bool
}

// Reply follows the answer of a standby to one batch.
//
// What says nothing yet about whether the batch succeeds (ParseComplete, BindComplete, descriptions, notices) is held back until
// something does, so that a batch which the standby refuses can be repeated on the primary. Any error is a reason to repeat
// it but a cancelled statement: the primary knows better, and reads may be repeated.
type Reply struct {
	// Hidden is how many answers at the beginning are to messages that are not the client's.
	Hidden int
	// Longest is how many bytes can be held back.
	Longest int
	// Begins says that the batch begins a transaction block: then also the first CommandComplete says nothing yet.
	Begins bool

	begun, failed bool
	code          string
	status        byte
	left          int
}

// Code is the SQLSTATE of the last error that the client was told of; "" if there was none.
func (r *Reply) Code() string { return r.code }

// Failed reports whether the client was told of an error: then it is not known which of the hidden messages were carried out.
func (r *Reply) Failed() bool { return r.failed }

// Status is the transaction status once the answer is Finished: 'I', 'T' or 'E'.
func (r *Reply) Status() byte { return r.status }

// Begun reports whether anything has gone to the client.
func (r *Reply) Begun() bool { return r.begun }

// MidMessage reports whether the client has got the beginning of a message and not its end.
func (r *Reply) MidMessage() bool { return r.left > 0 }

// FromServer is shown what the standby sent and has not been dealt with.
func (r *Reply) FromServer(b []byte) ReplyOrder {
	if len(b) == 0 {
		return ReplyOrder{Verb: Need}
	}
	if r.left > 0 {
		n := min(r.left, len(b))
		r.left -= n
		return ReplyOrder{Verb: Send, N: n}
	}
	if r.begun {
		return r.pass(b)
	}
	begins := r.Begins
	for n := 0; ; {
		rest := b[n:]
		if len(rest) < wire.HeaderSize {
			return r.hold(b, n)
		}
		h := wire.ParseHeader(rest)
		if h.CheckServer() != nil {
			return ReplyOrder{Verb: Repeat, Code: wire.CodeProtocolViolation}
		}
		size := h.Size()
		if r.Hidden > 0 && (h.Type == '1' || h.Type == '3') {
			if len(rest) < size {
				return r.hold(b, n)
			}
			r.Hidden--
			return ReplyOrder{Verb: Drop, At: n, N: size}
		}
		if h.Type == 'C' && begins {
			if len(rest) < size {
				return r.hold(b, n)
			}
			begins = false
			n += size
			continue
		}
		switch h.Type {
		case 'S', 'A': // of the standby's own; the client has the primary's
			if len(rest) < size {
				return r.hold(b, n)
			}
			return ReplyOrder{Verb: Drop, At: n, N: size}
		case '1', '2', '3', 'T', 't', 'n', 'N':
			if len(rest) < size {
				return r.hold(b, n)
			}
			n += size
		case 'E':
			need := min(size, wire.HeaderSize+peekError)
			if len(rest) < need {
				return r.hold(b, n)
			}
			code, fatal := wire.PeekError(rest[wire.HeaderSize:need])
			if fatal || code != wire.CodeQueryCanceled {
				return ReplyOrder{Verb: Repeat, At: n, Code: code, Fatal: fatal}
			}
			r.begun = true
			return r.begin(b, n)
		default:
			r.begun = true
			return r.begin(b, n)
		}
	}
}

// peekError is how much of an error is looked at.
const peekError = 128

// hold waits for more, or begins where no more can be held back.
func (r *Reply) hold(b []byte, n int) ReplyOrder {
	if len(b) < r.Longest {
		return ReplyOrder{Verb: Need}
	}
	r.begun = true
	return r.begin(b, n)
}

// begin sends the n bytes of whole messages that were held back, and goes on.
func (r *Reply) begin(b []byte, n int) ReplyOrder {
	if n > 0 {
		return ReplyOrder{Verb: Send, N: n}
	}
	return r.pass(b)
}

// pass sends as many messages as are there.
func (r *Reply) pass(b []byte) ReplyOrder {
	n := 0
	for n < len(b) {
		rest := b[n:]
		if len(rest) < wire.HeaderSize {
			break
		}
		h := wire.ParseHeader(rest)
		if h.CheckServer() != nil {
			return r.stop(n, ReplyOrder{Verb: Lost, Code: wire.CodeProtocolViolation})
		}
		size := h.Size()
		switch h.Type {
		case 'Z':
			if h.Length != 5 {
				return r.stop(n, ReplyOrder{Verb: Lost, Code: wire.CodeProtocolViolation})
			}
			if len(rest) < size {
				return r.stop(n, ReplyOrder{Verb: Need})
			}
			r.status = rest[wire.HeaderSize]
			return ReplyOrder{Verb: Finished, N: n + size}
		case 'S', 'A':
			if n > 0 || len(rest) < size {
				return r.stop(n, ReplyOrder{Verb: Need})
			}
			return ReplyOrder{Verb: Drop, N: size}
		case 'E':
			need := min(size, wire.HeaderSize+peekError)
			if len(rest) < need {
				return r.stop(n, ReplyOrder{Verb: Need})
			}
			code, fatal := wire.PeekError(rest[wire.HeaderSize:need])
			if fatal {
				return r.stop(n, ReplyOrder{Verb: Lost, Code: code, Fatal: true})
			}
			r.failed, r.code = true, code
		case 'G', 'W':
			return r.stop(n, ReplyOrder{Verb: Lost, Code: wire.CodeProtocolViolation}) // no read copies in
		}
		if size > len(rest) {
			r.left = size - len(rest)
			return ReplyOrder{Verb: Send, N: len(b)}
		}
		n += size
	}
	return r.stop(n, ReplyOrder{Verb: Need})
}

// stop sends what was passed, or gives the order about what follows it.
func (r *Reply) stop(n int, then ReplyOrder) ReplyOrder {
	if n > 0 {
		return ReplyOrder{Verb: Send, N: n}
	}
	return then
}
