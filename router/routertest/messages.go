// Package routertest plays clients and servers at the level of bytes, for tests of the router: a
// test writes down what each side sends and what it must receive, in order, in one goroutine.
package routertest

import (
	"encoding/binary"
	"slices"
	"strings"

	"howdah/router/wire"
)

// Message returns a message of the type with the parts as its body.
func Message(typ byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))
	return append(b, body...)
}

// Text returns the strings, each with its terminator.
func Text(s ...string) []byte { return []byte(strings.Join(s, "\x00") + "\x00") }

// Int32 returns a big-endian number.
func Int32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Int16 returns a big-endian number.
func Int16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// Startup returns a startup packet of protocol 3.0 with the pairs of names and values.
func Startup(pairs ...string) []byte { return StartupOf(3<<16, pairs...) }

// StartupOf returns a startup packet with the code in place of the version.
func StartupOf(code uint32, pairs ...string) []byte {
	body := Int32(code)
	if len(pairs) > 0 {
		body = append(body, Text(pairs...)...)
	}
	if code>>16 == 3 {
		body = append(body, 0)
	}
	return append(Int32(uint32(len(body)+4)), body...)
}

// Requests for encryption.
var (
	SSLRequest    = StartupOf(80877103)
	GSSENCRequest = StartupOf(80877104)
)

// What a client sends.
var (
	Sync      = Message('S')
	Flush     = Message('H')
	Terminate = Message('X')
	CopyDone  = Message('c')
)

// Query returns a simple query.
func Query(sql string) []byte { return Message('Q', Text(sql)) }

// Parse returns a Parse without parameter types.
func Parse(name, sql string) []byte { return Message('P', Text(name, sql), Int16(0)) }

// Bind returns a Bind without parameters.
func Bind(portal, statement string) []byte {
	return Message('B', Text(portal, statement), Int16(0), Int16(0), Int16(0))
}

// Describe returns a Describe of a portal.
func Describe(portal string) []byte { return Message('D', []byte{'P'}, Text(portal)) }

// Execute returns an Execute without a limit of rows.
func Execute(portal string) []byte { return Message('E', Text(portal), Int32(0)) }

// CopyFail returns a CopyFail.
func CopyFail(why string) []byte { return Message('f', Text(why)) }

// CopyData returns a CopyData.
func CopyData(b []byte) []byte { return Message('d', b) }

// What a server sends.
var (
	AuthOK        = Message('R', Int32(0))
	ParseComplete = Message('1')
	BindComplete  = Message('2')
	CloseComplete = Message('3')
	NoData        = Message('n')
	Suspended     = Message('s')
	Empty         = Message('I')
	CopyIn        = Message('G', []byte{0}, Int16(0))
	CopyOut       = Message('H', []byte{0}, Int16(0))
	CopyBoth      = Message('W', []byte{0}, Int16(0))
)

// Ready returns a ReadyForQuery with the transaction status.
func Ready(status byte) []byte { return Message('Z', []byte{status}) }

// Complete returns a CommandComplete.
func Complete(tag string) []byte { return Message('C', Text(tag)) }

// Row returns a DataRow of one text column.
func Row(value string) []byte {
	return Message('D', Int16(1), Int32(uint32(len(value))), []byte(value))
}

// RowDescription returns a RowDescription of one text column.
func RowDescription(name string) []byte {
	return Message('T', Int16(1), Text(name), Int32(0), Int16(0), Int32(25), Int16(0xffff), Int32(0xffffffff), Int16(0))
}

// Error returns an ErrorResponse of severity ERROR.
func Error(code, text string) []byte {
	e := wire.Error{Severity: "ERROR", Code: code, Message: text}
	return e.Append(nil)
}

// Fatal returns an ErrorResponse of severity FATAL.
func Fatal(code, text string) []byte { return wire.Fatal(code, "%s", text).Append(nil) }

// Notice returns a NoticeResponse.
func Notice(text string) []byte {
	e := wire.Error{Severity: "WARNING", Code: "01000", Message: text}
	b := e.Append(nil)
	b[0] = 'N'
	return b
}

// Notification returns a NotificationResponse.
func Notification(pid uint32, channel, payload string) []byte {
	return Message('A', Int32(pid), Text(channel, payload))
}

// ParameterStatus returns a ParameterStatus.
func ParameterStatus(name, value string) []byte { return Message('S', Text(name, value)) }

// KeyData returns a BackendKeyData.
func KeyData(pid uint32, secret string) []byte { return Message('K', Int32(pid), []byte(secret)) }
