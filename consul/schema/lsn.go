package schema

import (
	"fmt"

	"github.com/jackc/pglogrepl"
)

// LSN is a byte position in PostgreSQL's write-ahead log. Its text form is
// PostgreSQL's ("16/B374D848"). Zero means unknown: PostgreSQL's own InvalidXLogRecPtr.
type LSN uint64

// ParseLSN reads PostgreSQL's text form.
func ParseLSN(s string) (LSN, error) {
	l, err := pglogrepl.ParseLSN(s)
	if err != nil {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers, such as 16/B374D848: %w", s, err)
	}
	return LSN(l), nil
}

// String returns PostgreSQL's text form.
func (l LSN) String() string { return pglogrepl.LSN(l).String() }

// MarshalText implements encoding.TextMarshaler.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	*l = v
	return err
}

// Behind returns how many bytes l lacks of other; zero if it lacks none.
func (l LSN) Behind(other LSN) uint64 {
	if other <= l {
		return 0
	}
	return uint64(other - l)
}

// Timeline is PostgreSQL's timeline ID. Zero means unknown.
type Timeline uint32
