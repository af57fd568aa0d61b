// Package wire knows the outer form of PostgreSQL's protocol: how long a message says it is and
// whether PostgreSQL would believe it, what a startup packet asks for, and how an error is written.
//
// Lengths come from strangers, so each is held against PostgreSQL's own limit before a byte is
// allocated for it. pgproto3 serves to decode what has been checked; it is never shown the wire.
package wire

import "encoding/binary"

// HeaderSize is the size of a message's header: one byte of type, four of length.
const HeaderSize = 5

// Limits of a message's length field, which counts itself. They mirror PostgreSQL's
// src/include/libpq/libpq.h (PQ_SMALL_MESSAGE_LIMIT, PQ_LARGE_MESSAGE_LIMIT),
// src/include/utils/memutils.h (MaxAllocSize) and src/include/libpq/auth.h
// (PG_MAX_AUTH_TOKEN_LENGTH).
const (
	maxAllocSize = 0x3fffffff

	SmallMessageLimit = 10000
	LargeMessageLimit = maxAllocSize - 1
	AuthMessageLimit  = 65535
	// ServerMessageLimit bounds what a server says. PostgreSQL builds a message in one allocation
	// of at most MaxAllocSize bytes and then writes it with the length field before it.
	ServerMessageLimit = maxAllocSize + 4
)

// Header is the header of one message.
type Header struct {
	Type byte
	// Length is the length field: the size of the body plus four. It has not been checked.
	Length uint32
}

// ParseHeader reads the header in the first HeaderSize bytes of b, which must be there.
func ParseHeader(b []byte) Header {
	return Header{Type: b[0], Length: binary.BigEndian.Uint32(b[1:5])}
}

// Size is the size of the whole message, header included.
func (h Header) Size() int { return int(h.Length) + 1 }

// clientLimits holds the limit for each message a client may send, as SocketBackend in
// PostgreSQL's src/backend/tcop/postgres.c sets them; zero marks a type it does not know.
var clientLimits = [256]uint32{
	'Q': LargeMessageLimit, 'F': LargeMessageLimit, 'B': LargeMessageLimit, 'P': LargeMessageLimit,
	'd': LargeMessageLimit,
	'X': SmallMessageLimit, 'C': SmallMessageLimit, 'D': SmallMessageLimit, 'E': SmallMessageLimit,
	'H': SmallMessageLimit, 'S': SmallMessageLimit, 'c': SmallMessageLimit, 'f': SmallMessageLimit,
}

// CheckClient returns an error if PostgreSQL would not accept a message with this header from a
// client. While it authenticates, a client also sends 'p' (a password, SASL or GSS message).
func (h Header) CheckClient(authenticating bool) *Error {
	limit := clientLimits[h.Type]
	if authenticating && h.Type == 'p' {
		limit = AuthMessageLimit
	}
	if limit == 0 {
		return Fatal(CodeProtocolViolation, "invalid frontend message type %d", h.Type)
	}
	return h.check(limit)
}

// CheckServer returns an error if no PostgreSQL server sends a message with this header.
func (h Header) CheckServer() *Error { return h.check(ServerMessageLimit) }

func (h Header) check(limit uint32) *Error {
	if h.Length < 4 || h.Length > limit {
		return Fatal(CodeProtocolViolation, "invalid message length %d in a message of type %q", h.Length, rune(h.Type))
	}
	return nil
}
