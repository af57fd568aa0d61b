package scram

import (
	"fmt"
	"strings"

	"howdah/router/wire"
)

// malformed is a message that breaks the grammar.
func malformed(detail string, args ...any) *wire.Error {
	return wire.Fatal(wire.CodeProtocolViolation, "malformed SCRAM message").WithDetail(detail, args...)
}

// checkMessage holds a message against what every one must be.
func checkMessage(b []byte) *wire.Error {
	switch {
	case len(b) == 0:
		return malformed("The message is empty.")
	case len(b) > MaxMessage:
		return malformed("The message is longer than %d bytes.", MaxMessage)
	case strings.IndexByte(string(b), 0) >= 0:
		return malformed("Message length does not match input length.")
	}
	return nil
}

// attributes is what is left of a message: name=value, separated by commas.
type attributes struct{ rest string }

// at is the next byte; 0 at the end.
func (a *attributes) at() byte {
	if a.rest == "" {
		return 0
	}
	return a.rest[0]
}

// value takes the attribute with the name, which must be next.
func (a *attributes) value(name byte) (string, *wire.Error) {
	if a.at() != name {
		return "", malformed("Expected attribute \"%c\" but found \"%s\".", name, printable(a.at()))
	}
	_, v, err := a.any()
	return v, err
}

// any takes the next attribute, whatever it is.
func (a *attributes) any() (name byte, value string, err *wire.Error) {
	name = a.at()
	if !(name >= 'a' && name <= 'z' || name >= 'A' && name <= 'Z') {
		return 0, "", malformed("Attribute expected, but found invalid character \"%s\".", printable(name))
	}
	if len(a.rest) < 2 || a.rest[1] != '=' {
		return 0, "", malformed("Expected character \"=\" for attribute \"%c\".", name)
	}
	value, a.rest, _ = strings.Cut(a.rest[2:], ",")
	return name, value, nil
}

// printable shows a byte of a stranger's (sanitize_char).
func printable(c byte) string {
	if c >= 0x21 && c <= 0x7e {
		return fmt.Sprintf("'%c'", c)
	}
	return fmt.Sprintf("0x%02x", c)
}

// printableText shows up to 30 characters of a stranger's text (sanitize_str).
func printableText(s string) string {
	b := []byte(s[:min(len(s), 30)])
	for i, c := range b {
		if c < 0x21 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}

// isNonce reports whether s may be a nonce: printable ASCII without a comma (RFC 5802, section 7).
func isNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != ""
}
