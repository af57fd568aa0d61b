package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// SQLSTATEs that the router itself answers with; the names follow PostgreSQL's
// src/backend/utils/errcodes.txt.
const (
	CodeProtocolViolation     = "08P01"
	CodeResolutionUnknown     = "08007"
	CodeConnectionFailure     = "08006"
	CodeFeatureNotSupported   = "0A000"
	CodeInvalidParameterValue = "22023"
	CodeReadOnlyTransaction   = "25006"
	CodeIdleInTransaction     = "25P03"
	CodeTransactionTimeout    = "25P04"
	CodeTooManyConnections    = "53300"
	CodeQueryCanceled         = "57014"
	CodeAdminShutdown         = "57P01"
	CodeCrashShutdown         = "57P02"
	CodeCannotConnectNow      = "57P03"
	CodeInvalidAuthorization  = "28000"
	CodeInvalidPassword       = "28P01"
)

// Error is what an ErrorResponse says. Only what may be shown to a client belongs in it.
type Error struct {
	Severity, Code, Message, Detail, Hint string
}

// Fatal returns an error that ends a session.
func Fatal(code, format string, args ...any) *Error {
	return &Error{Severity: "FATAL", Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithDetail returns a copy of e with a detail.
func (e *Error) WithDetail(format string, args ...any) *Error {
	c := *e
	c.Detail = fmt.Sprintf(format, args...)
	return &c
}

// WithHint returns a copy of e with a hint: what the reader can do.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Error implements error.
func (e *Error) Error() string { return e.Severity + " " + e.Code + ": " + e.Message }

// Append writes e as an ErrorResponse to the end of dst.
func (e *Error) Append(dst []byte) []byte {
	return e.append(dst, 'E')
}

// AppendNotice writes e as a NoticeResponse, whose severity is none that ends anything, to the end of dst.
func (e *Error) AppendNotice(dst []byte) []byte { return e.append(dst, 'N') }

func (e *Error) append(dst []byte, typ byte) []byte {
	start := len(dst)
	dst = append(dst, typ, 0, 0, 0, 0)
	for _, f := range [...]struct {
		code byte
		text string
	}{
		// V is S without translation, for clients since 9.6.
		{'S', e.Severity}, {'V', e.Severity}, {'C', e.Code}, {'M', e.Message}, {'D', e.Detail}, {'H', e.Hint},
	} {
		if f.text == "" {
			continue
		}
		dst = append(dst, f.code)
		dst = append(dst, strings.ReplaceAll(f.text, "\x00", " ")...)
		dst = append(dst, 0)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

// PeekError returns the SQLSTATE inside the body of an ErrorResponse, "" if it is not there, and
// whether the error ends the session. The beginning of the body is enough, since PostgreSQL writes
// these fields first.
func PeekError(body []byte) (code string, fatal bool) {
	for len(body) > 1 && body[0] != 0 {
		end := bytes.IndexByte(body[1:], 0)
		if end < 0 {
			break
		}
		text := body[1 : 1+end]
		switch body[0] {
		case 'V':
			fatal = string(text) == "FATAL" || string(text) == "PANIC"
		case 'C':
			if len(text) == 5 {
				code = string(text)
			}
		}
		body = body[end+2:]
	}
	return code, fatal
}

// PeekField returns one field of the body of an ErrorResponse or NoticeResponse, nil if it is not there. The beginning of the body will
// do, if the field is whole in it.
func PeekField(body []byte, field byte) []byte {
	for len(body) > 1 && body[0] != 0 {
		end := bytes.IndexByte(body[1:], 0)
		if end < 0 {
			break
		}
		if body[0] == field {
			return body[1 : 1+end]
		}
		body = body[end+2:]
	}
	return nil
}

// ParseError reads the body of an ErrorResponse that was read whole.
func ParseError(body []byte) (Error, error) {
	var e Error
	for len(body) > 0 && body[0] != 0 {
		end := bytes.IndexByte(body[1:], 0)
		if end < 0 {
			return Error{}, fmt.Errorf("error response: field %q has no end", rune(body[0]))
		}
		text := string(body[1 : 1+end])
		switch body[0] {
		case 'S':
			e.Severity = text
		case 'C':
			e.Code = text
		case 'M':
			e.Message = text
		case 'D':
			e.Detail = text
		case 'H':
			e.Hint = text
		}
		body = body[end+2:]
	}
	if len(body) != 1 {
		return Error{}, fmt.Errorf("error response: %d bytes where the terminator should be", len(body))
	}
	return e, nil
}
