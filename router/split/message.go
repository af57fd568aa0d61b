package split

import (
	"bytes"
	"encoding/binary"
)

// statementOf returns the name of the prepared statement that a Bind or a Describe is about; false if it is about none.
func statementOf(typ byte, body []byte) ([]byte, bool) {
	switch typ {
	case 'B':
		_, rest, ok := bytes.Cut(body, []byte{0})
		if !ok {
			return nil, false
		}
		body = rest
	case 'D':
		if len(body) == 0 || body[0] != 'S' {
			return nil, false
		}
		body = body[1:]
	}
	name, _, ok := bytes.Cut(body, []byte{0})
	return name, ok
}

// appendMessage writes a message of that type and body to the end of dst.
func appendMessage(dst []byte, typ byte, body []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// appendClose writes a Close of a prepared statement to the end of dst.
func appendClose(dst []byte, name string) []byte {
	dst = append(dst, 'C')
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(name)+6))
	dst = append(dst, 'S')
	dst = append(dst, name...)
	return append(dst, 0)
}

// textOf returns the text of a Parse's body.
func textOf(body []byte) ([]byte, bool) {
	_, rest, ok := bytes.Cut(body, []byte{0})
	if !ok {
		return nil, false
	}
	text, _, ok := bytes.Cut(rest, []byte{0})
	return text, ok
}
