package rule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Mapping is one line of an ident map, in the form of pg_ident.conf: map, name in the certificate, user.
type Mapping struct {
	Map          string
	system, user token
}

// token is a name or, if it begins with a slash, a regular expression.
type token struct {
	word
	match *regexp.Regexp
}

// ParseMapping reads a line. The error says what is allowed.
func ParseMapping(line string) (Mapping, error) {
	fields, err := split(line)
	switch {
	case err != nil:
		return Mapping{}, err
	case len(fields) != 3:
		return Mapping{}, fmt.Errorf("has %d fields; want map, name in the certificate and user, as in pg_ident.conf", len(fields))
	}
	for _, f := range fields {
		if len(f) != 1 {
			return Mapping{}, errors.New("has a list where one word belongs; quote a name that has a comma")
		}
	}
	m := Mapping{Map: fields[0][0].text}
	if m.system, err = parseToken(fields[1][0]); err != nil {
		return Mapping{}, err
	}
	if m.user, err = parseToken(fields[2][0]); err != nil {
		return Mapping{}, err
	}
	switch {
	case m.user.role():
		return Mapping{}, fmt.Errorf("has the user %q, whose members the router cannot know; name users, or use a regular expression", m.user.text)
	case m.backReference() && (m.system.match == nil || m.system.match.NumSubexp() == 0):
		return Mapping{}, fmt.Errorf(`has the user %q, but %q is no regular expression with a part in parentheses`, m.user.text, m.system.text)
	}
	return m, nil
}

func parseToken(w word) (token, error) {
	pattern, is := strings.CutPrefix(w.text, "/")
	if !is {
		return token{word: w}, nil
	}
	if bad := foreign(pattern); bad != "" {
		return token{}, fmt.Errorf("has the regular expression %q with %s, which the router and PostgreSQL could understand in two ways; write it without", w.text, bad)
	}
	re, err := regexp.Compile("(?s:" + pattern + ")")
	if err != nil {
		return token{}, fmt.Errorf("has the regular expression %q: %w", w.text, err)
	}
	re.Longest() // as PostgreSQL chooses among several matches
	return token{word: w, match: re}, nil
}

// foreign returns what in a pattern does not mean the same in PostgreSQL (documentation, section 9.7.3) and in package regexp; empty for nothing.
func foreign(pattern string) string {
	within, negated := false, false // a bracket expression
	for i := 0; i < len(pattern); i++ {
		rest := pattern[i:]
		switch c := rest[0]; {
		case c == '\\' && len(rest) > 1:
			next := rest[1]
			if (isLetter(next) || next >= '0' && next <= '9') && (!strings.ContainsRune("dsw", rune(next)) || negated) || next >= utf8.RuneSelf {
				return rest[:2]
			}
			i++
		case within && c == ']':
			within, negated = false, false
		case within && c == '[' && len(rest) > 1 && strings.ContainsRune(".=:", rune(rest[1])):
			return rest[:2]
		case within:
		case c == '[':
			within, negated = true, strings.HasPrefix(rest, "[^")
			if negated {
				i++
			}
			if strings.HasPrefix(pattern[i+1:], "]") {
				i++ // the first of a list is a character as others
			}
		case strings.HasPrefix(rest, "(?"):
			return "(?"
		case len(rest) > 1 && strings.ContainsRune("*+?}", rune(c)) && rest[1] == '?':
			return rest[:2]
		}
	}
	return ""
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// role reports whether the word means the members of a role.
func (w word) role() bool { return !w.quoted && strings.HasPrefix(w.text, "+") }

// backReference reports whether the user has a part of the name in the certificate.
func (m *Mapping) backReference() bool {
	return m.user.match == nil && strings.Contains(m.user.text, `\1`)
}

// Allows reports whether the map lets who has name in the certificate be user, as check_usermap does (PostgreSQL's src/backend/libpq/hba.c, from 16 on: before, a
// user could be neither all nor a regular expression).
func Allows(lines []Mapping, ofMap, name, user string) bool {
	for i := range lines {
		if lines[i].Map == ofMap && lines[i].allows(name, user) {
			return true
		}
	}
	return false
}

func (m *Mapping) allows(name, user string) bool {
	if m.system.match == nil {
		return m.system.text == name && m.user.is(user)
	}
	if !utf8.ValidString(name) {
		return false
	}
	found := m.system.match.FindStringSubmatchIndex(name)
	switch {
	case found == nil:
		return false
	case !m.backReference():
		return m.user.is(user)
	case found[2] < 0:
		return false // the part in parentheses took no part in the match
	}
	before, after, _ := strings.Cut(m.user.text, `\1`)
	return before+name[found[2]:found[3]]+after == user
}

// is reports whether the token means user.
func (t token) is(user string) bool {
	switch {
	case t.match != nil:
		return utf8.ValidString(user) && t.match.MatchString(user)
	case t.word.is("all"):
		return true
	}
	return t.text == user
}
