package console

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is a column's type.
type kind uint8

const (
	text kind = iota
	number
)

// OIDs and sizes of the types, from PostgreSQL's src/include/catalog/pg_type.dat.
var types = [...]struct {
	oid  uint32
	size int16
}{text: {25, -1}, number: {20, 8}}

type column struct {
	name string
	kind kind
}

// columns makes columns of names; one that ends in # is a number's.
func columns(names ...string) []column {
	cs := make([]column, len(names))
	for i, n := range names {
		bare, isNumber := strings.CutSuffix(n, "#")
		cs[i] = column{name: bare}
		if isNumber {
			cs[i].kind = number
		}
	}
	return cs
}

// Table is an answer in rows.
type Table struct {
	columns []column
	rows    [][]any
}

func (t *Table) add(values ...any) { t.rows = append(t.rows, values) }

// Append writes t as RowDescription and DataRows to the end of dst.
func (t Table) Append(dst []byte) []byte {
	dst, start := begin(dst, 'T')
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(t.columns)))
	for _, c := range t.columns {
		dst = append(append(dst, c.name...), 0)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // of no table
		dst = binary.BigEndian.AppendUint32(dst, types[c.kind].oid)
		dst = binary.BigEndian.AppendUint16(dst, uint16(types[c.kind].size))
		dst = append(dst, 0xff, 0xff, 0xff, 0xff, 0, 0) // no modifier; as text
	}
	finish(dst, start)
	for _, row := range t.rows {
		dst, start = begin(dst, 'D')
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(row)))
		for _, v := range row {
			if v == nil {
				dst = append(dst, 0xff, 0xff, 0xff, 0xff)
				continue
			}
			s := format(v)
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
			dst = append(dst, s...)
		}
		finish(dst, start)
	}
	return dst
}

// format writes a value; what came from a client may hold anything and becomes valid UTF-8 without zero bytes.
func format(v any) string {
	switch v := v.(type) {
	case string:
		if utf8.ValidString(v) && !strings.Contains(v, "\x00") {
			return v
		}
		return strings.ToValidUTF8(strings.ReplaceAll(v, "\x00", "?"), "?")
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case bool:
		if v {
			return "1"
		}
		return "0"
	}
	return fmt.Sprint(v)
}

// begin starts a message; finish writes its length.
func begin(dst []byte, typ byte) ([]byte, int) { return append(dst, typ, 0, 0, 0, 0), len(dst) }

func finish(dst []byte, start int) {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
}

// message writes a whole message.
func message(dst []byte, typ byte, body ...byte) []byte {
	dst, start := begin(dst, typ)
	dst = append(dst, body...)
	finish(dst, start)
	return dst
}

// complete is CommandComplete.
func complete(dst []byte, tag string) []byte { return message(dst, 'C', append([]byte(tag), 0)...) }
