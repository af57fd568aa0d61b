package split

import (
	"bytes"

	"howdah/router/route/statement"
)

// PostgreSQL takes howdah.consistency for a setting of an extension that it does not know, and so any value of it. Where the value is none, the primary is
// sent in place of the SET what fails at the same point with the error that it has for an enum; so also what follows in a transaction or a batch is as it would be.

// Consistency returns what SET howdah.consistency says; empty if there was none, or it was DEFAULT.
func (t *Tracker) Consistency() string { return consistencyOf(t.state.consistency) }

// consistencyOf reads what SET assigns; empty for DEFAULT and for nothing.
func consistencyOf(value []byte) string {
	if len(value) == 0 || bytes.EqualFold(value, []byte("default")) {
		return ""
	}
	if n := len(value); n > 1 && value[0] == value[n-1] && (value[0] == '\'' || value[0] == '"') {
		value = value[1 : n-1]
	}
	return string(value)
}

// Enum knows the values of a setting.
type Enum interface {
	// Check returns an empty message for a value that there is, in any case.
	Check(value string) (message, hint string)
}

// bad returns the message about a value of howdah.consistency that is none, and its hint.
func (s *state) bad(value []byte) (message, hint string) {
	if v := consistencyOf(value); v != "" && s.consistencies != nil {
		return s.consistencies.Check(v)
	}
	return "", ""
}

// refused returns what the primary is to be sent in place of a Query or a Parse with a value that is none; nil if there is no such.
func (t *Tracker) refused(typ byte, body []byte) []byte {
	if !t.state.asks {
		return nil
	}
	text, rest, _ := bytes.Cut(body, []byte{0})
	name := []byte(nil)
	if typ == 'P' {
		name = text
		text, rest, _ = bytes.Cut(rest, []byte{0})
	}
	v := t.classify(text)
	message, hint := t.state.bad(v.Value.Of(text))
	if message == "" {
		return nil
	}
	instead := append([]byte("DO $howdah$BEGIN RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = '"), plain(message)...)
	instead = append(append(instead, "', HINT = '"...), plain(hint)...)
	instead = append(instead, "'; END$howdah$\x00"...)
	if typ == 'Q' {
		return appendMessage(nil, 'Q', instead)
	}
	all := append(append(append(bytes.Clone(name), 0), instead...), rest...)
	if p := t.known.find(name, true); p != nil {
		t.known.replace(p, all)
	}
	return appendMessage(nil, 'P', all)
}

// replace takes in that the primary has another text, which fails.
func (s *statements) replace(p *prepared, body []byte) {
	if p.name != "" {
		s.bytes += len(body) - len(p.text)
	}
	p.text, p.fails = body, true
	p.verdict = statement.Verdict{Kind: statement.Show, Kinds: 1 << statement.Show, Statements: 1, Reason: statement.ReasonSession}
}

// plain is a text that may stand in a constant of SQL: what could end it, or be read in another encoding, is a question mark.
func plain(s string) []byte {
	const longest = 200
	b := []byte(s[:min(len(s), longest)])
	for i, c := range b {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' || c == '$' {
			b[i] = '?'
		}
	}
	return b
}

// Replacement returns what the primary is to be sent for the bytes that Replace named.
func (t *Tracker) Replacement() []byte { return t.replacement }
