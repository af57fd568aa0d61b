package statement

// tokenKind is what a token is, as far as the classifier cares.
type tokenKind uint8

const (
	tokenEnd       tokenKind = iota
	tokenBad                 // unterminated, or nothing that SQL has: reason says which
	tokenWord                // an unquoted identifier or keyword
	tokenQuoted              // "quoted", without escapes
	tokenEscaped             // a quoted identifier with doubled quotes, or U&"...": its name is not worked out
	tokenString              // any kind of string constant
	tokenNumber              // an integer or numeric constant
	tokenParameter           // $1
	tokenOperator            // a run of operator characters, and ':', ':=', '..'
	tokenCast                // ::
	tokenDot
	tokenComma
	tokenSemicolon
	tokenOpen
	tokenClose
	tokenOpenBracket
	tokenCloseBracket
)

// token is a piece of the text. For tokenQuoted start and end are those of the name between the quotes.
type token struct {
	kind       tokenKind
	word       word // of a tokenWord
	start, end int
}

func (t token) identifier() bool {
	return t.kind == tokenWord || t.kind == tokenQuoted || t.kind == tokenEscaped
}

// lexer splits a text as PostgreSQL's src/backend/parser/scan.l does, versions 13 to 18. Where the versions differ
// (hexadecimal numbers, 1_000, letters that follow a number at once) it accepts what all read in the same
// way or refuse, and else gives tokenBad.
type lexer struct {
	text     []byte
	pos      int
	settings *Settings
	reason   Reason // of a tokenBad
	hint     Hint
}

// Classes of bytes.
const (
	identStart = 1 << iota
	identPart
	operatorByte
	blank
	digit
)

var bytesOf = newByteClasses()

func newByteClasses() *[256]uint8 {
	var t [256]uint8
	for c := range t {
		switch b := byte(c); {
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b >= 0x80:
			t[c] = identStart | identPart
		case b >= '0' && b <= '9':
			t[c] = identPart | digit
		case b == '$':
			t[c] = identPart
		case b == ' ' || b == '\t' || b == '\n' || b == '\r' || b == '\f':
			t[c] = blank
		}
	}
	for _, b := range []byte("~!@#^&|`?+-*/%<>=") {
		t[b] = operatorByte
	}
	return &t
}

func (l *lexer) bad(r Reason) token {
	if l.reason == 0 {
		l.reason = r
	}
	l.pos = len(l.text)
	return token{kind: tokenBad, start: l.pos, end: l.pos}
}

// at returns the byte at i, 0 behind the end.
func (l *lexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

// next returns the next token; after tokenEnd or tokenBad always the same.
func (l *lexer) next() token {
	if l.reason != 0 {
		return l.bad(l.reason)
	}
	if !l.space() {
		return l.bad(ReasonUnterminated)
	}
	start := l.pos
	if start >= len(l.text) {
		return token{kind: tokenEnd, start: start, end: start}
	}
	c := l.text[start]
	switch class := bytesOf[c]; {
	case class&identStart != 0:
		return l.word(c)
	case class&digit != 0:
		return l.number()
	case class&operatorByte != 0:
		return l.operator()
	}
	switch c {
	case '\'':
		return l.plain(start)
	case '"':
		return l.quoted(start, start+1, tokenQuoted)
	case '$':
		return l.dollar()
	case '.':
		if bytesOf[l.at(start+1)]&digit != 0 {
			return l.number()
		}
		if l.at(start+1) == '.' {
			return l.take(tokenOperator, 2)
		}
		return l.take(tokenDot, 1)
	case ':':
		switch l.at(start + 1) {
		case ':':
			return l.take(tokenCast, 2)
		case '=':
			return l.take(tokenOperator, 2)
		}
		return l.take(tokenOperator, 1)
	case ',':
		return l.take(tokenComma, 1)
	case ';':
		return l.take(tokenSemicolon, 1)
	case '(':
		return l.take(tokenOpen, 1)
	case ')':
		return l.take(tokenClose, 1)
	case '[':
		return l.take(tokenOpenBracket, 1)
	case ']':
		return l.take(tokenCloseBracket, 1)
	}
	return l.bad(ReasonCharacter)
}

func (l *lexer) take(kind tokenKind, n int) token {
	start := l.pos
	l.pos += n
	return token{kind: kind, start: start, end: l.pos}
}

// space passes over white space and comments. It returns false where a comment does not end.
func (l *lexer) space() bool {
	text := l.text
	for i := l.pos; ; {
		for i < len(text) && bytesOf[text[i]]&blank != 0 {
			i++
		}
		if i+1 >= len(text) {
			l.pos = i
			return true
		}
		switch {
		case text[i] == '-' && text[i+1] == '-':
			i = l.line(i)
		case text[i] == '/' && text[i+1] == '*':
			end := l.block(i)
			if end < 0 {
				return false
			}
			l.remark(text[i+2 : end-2])
			i = end
		default:
			l.pos = i
			return true
		}
	}
}

// line returns where the line of i ends.
func (l *lexer) line(i int) int {
	for i < len(l.text) && l.text[i] != '\n' && l.text[i] != '\r' {
		i++
	}
	return i
}

// block returns the place behind the comment that begins at i, or -1. Comments nest.
func (l *lexer) block(i int) int {
	text, depth := l.text, 0
	for i+1 < len(text) {
		switch {
		case text[i] == '/' && text[i+1] == '*':
			depth++
			i += 2
		case text[i] == '*' && text[i+1] == '/':
			i += 2
			if depth--; depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// word reads an unquoted identifier, or one of the constants that begin with a letter.
func (l *lexer) word(c byte) token {
	start := l.pos
	switch quote := l.at(start + 1); {
	case quote == '\'':
		switch c {
		case 'e', 'E':
			l.pos += 2
			return l.escaped(start)
		case 'b', 'B', 'x', 'X':
			return l.bits(start)
		}
		// N'...' is the word NCHAR and then a plain string.
	case quote == '&' && (c == 'u' || c == 'U'):
		switch l.at(start + 2) {
		case '\'':
			if l.settings.Strings != ConformingStrings {
				return l.bad(ReasonStrings)
			}
			l.pos += 2
			return l.plain(start)
		case '"':
			return l.quoted(start, start+3, tokenEscaped)
		}
	}
	text, i, high := l.text, start, byte(0)
	for i < len(text) && bytesOf[text[i]]&identPart != 0 {
		high |= text[i]
		i++
	}
	if high >= 0x80 && !l.settings.SafeEncoding {
		return l.bad(ReasonEncoding)
	}
	l.pos = i
	return token{kind: tokenWord, word: words.find(text[start:i]), start: start, end: i}
}

// quoted reads a quoted identifier whose first byte is at i.
func (l *lexer) quoted(start, i int, kind tokenKind) token {
	text, from, high := l.text, i, byte(0)
	for i < len(text) {
		high |= text[i]
		if text[i] != '"' {
			i++
			continue
		}
		if l.at(i+1) == '"' {
			kind = tokenEscaped
			i += 2
			continue
		}
		if high >= 0x80 && !l.settings.SafeEncoding {
			return l.bad(ReasonEncoding)
		}
		l.pos = i + 1
		if kind == tokenEscaped {
			return token{kind: kind, start: start, end: i + 1}
		}
		return token{kind: kind, start: from, end: i}
	}
	return l.bad(ReasonUnterminated)
}

// plain reads '...', whose meaning depends on standard_conforming_strings if it has a backslash.
func (l *lexer) plain(start int) token {
	i := l.pos + 1
	for {
		text := l.text
		for i < len(text) && text[i] != '\'' {
			if text[i] >= 0x80 && !l.settings.SafeEncoding {
				return l.bad(ReasonEncoding)
			}
			if text[i] == '\\' {
				switch l.settings.Strings {
				case EscapedStrings:
					if i++; l.at(i) >= 0x80 && !l.settings.SafeEncoding {
						return l.bad(ReasonEncoding)
					}
				case ConformingStrings:
				default:
					return l.bad(ReasonStrings)
				}
			}
			i++
		}
		if i >= len(text) {
			return l.bad(ReasonUnterminated)
		}
		if l.at(i+1) == '\'' {
			i += 2
			continue
		}
		next := l.continued(i + 1)
		if next < 0 {
			l.pos = i + 1
			return token{kind: tokenString, start: start, end: l.pos}
		}
		i = next
	}
}

// escaped reads the rest of E'...'.
func (l *lexer) escaped(start int) token {
	i := l.pos
	for i < len(l.text) {
		switch c := l.text[i]; {
		case c >= 0x80 && !l.settings.SafeEncoding:
			return l.bad(ReasonEncoding)
		case c == '\\' && l.at(i+1) < 0x80:
			i += 2
		case c == '\\':
			i++
		case c != '\'':
			i++
		case l.at(i+1) == '\'':
			i += 2
		default:
			next := l.continued(i + 1)
			if next < 0 {
				l.pos = i + 1
				return token{kind: tokenString, start: start, end: l.pos}
			}
			i = next
		}
	}
	return l.bad(ReasonUnterminated)
}

// continued looks behind the end of a string, at i, for another piece of it: white space with at least one line break
// in it, comments to the end of the line, and a quote. It returns the place behind that quote, or -1. The piece
// has the kind of the first one.
func (l *lexer) continued(i int) int {
	text, broken := l.text, false
	for i < len(text) {
		switch c := text[i]; {
		case bytesOf[c]&blank != 0:
			broken = broken || c == '\n' || c == '\r'
			i++
		case c == '-' && l.at(i+1) == '-':
			if i = l.line(i); i == len(text) {
				return -1
			}
		case c == '\'' && broken:
			return i + 1
		default:
			return -1
		}
	}
	return -1
}

// bits reads B'...' or X'...', in which nothing is escaped.
func (l *lexer) bits(start int) token {
	for i := start + 2; i >= 0; i = l.continued(l.pos) {
		for i < len(l.text) && l.text[i] != '\'' {
			if l.text[i] >= 0x80 && !l.settings.SafeEncoding {
				return l.bad(ReasonEncoding)
			}
			i++
		}
		if i == len(l.text) {
			return l.bad(ReasonUnterminated)
		}
		l.pos = i + 1
	}
	return token{kind: tokenString, start: start, end: l.pos}
}

// dollar reads $1 or $tag$...$tag$.
func (l *lexer) dollar() token {
	text, start := l.text, l.pos
	i := start + 1
	if bytesOf[l.at(i)]&digit != 0 {
		for i < len(text) && bytesOf[text[i]]&digit != 0 {
			i++
		}
		if i < len(text) && bytesOf[text[i]]&identStart != 0 {
			return l.bad(ReasonNumber)
		}
		l.pos = i
		return token{kind: tokenParameter, start: start, end: i}
	}
	if bytesOf[l.at(i)]&identStart != 0 {
		for i < len(text) && bytesOf[text[i]]&identPart != 0 && text[i] != '$' {
			if text[i] >= 0x80 && !l.settings.SafeEncoding {
				return l.bad(ReasonEncoding)
			}
			i++
		}
	}
	if l.at(i) != '$' {
		return l.bad(ReasonCharacter)
	}
	tag := text[start : i+1]
	for i++; i+len(tag) <= len(text); i++ {
		if text[i] >= 0x80 && !l.settings.SafeEncoding {
			return l.bad(ReasonEncoding)
		}
		if text[i] == '$' && string(text[i:i+len(tag)]) == string(tag) {
			l.pos = i + len(tag)
			return token{kind: tokenString, start: start, end: l.pos}
		}
	}
	return l.bad(ReasonUnterminated)
}

// number reads a number. A letter that follows it at once began a word of its own before PostgreSQL 15.
func (l *lexer) number() token {
	text, start := l.text, l.pos
	i := start
	if text[i] == '0' && i+2 < len(text) {
		if n := l.radix(i); n > 0 {
			l.pos = n
			return l.numberEnd(start)
		}
	}
	i = l.digits(i)
	if l.at(i) == '.' && l.at(i+1) != '.' {
		i = l.digits(i + 1)
	}
	if c := l.at(i); c == 'e' || c == 'E' {
		exponent := i + 1
		if sign := l.at(exponent); sign == '+' || sign == '-' {
			exponent++
		}
		if bytesOf[l.at(exponent)]&digit != 0 {
			i = l.digits(exponent)
		}
	}
	l.pos = i
	return l.numberEnd(start)
}

func (l *lexer) numberEnd(start int) token {
	if l.pos < len(l.text) && bytesOf[l.text[l.pos]]&identStart != 0 {
		return l.bad(ReasonNumber)
	}
	return token{kind: tokenNumber, start: start, end: l.pos}
}

// digits passes over decimal digits, with single underscores between them.
func (l *lexer) digits(i int) int {
	for i < len(l.text) && (bytesOf[l.text[i]]&digit != 0 ||
		l.text[i] == '_' && i > 0 && bytesOf[l.text[i-1]]&digit != 0 && bytesOf[l.at(i+1)]&digit != 0) {
		i++
	}
	return i
}

// radix passes over 0x1F, 0o17 or 0b11 (PostgreSQL 16), and returns 0 where there is none.
func (l *lexer) radix(i int) int {
	var valid string
	switch l.text[i+1] {
	case 'x', 'X':
		valid = "0123456789abcdefABCDEF"
	case 'o', 'O':
		valid = "01234567"
	case 'b', 'B':
		valid = "01"
	default:
		return 0
	}
	i += 2
	from := i
	for i < len(l.text) && (contains(valid, l.text[i]) || l.text[i] == '_' && contains(valid, l.at(i+1))) {
		i++
	}
	if i == from {
		return 0
	}
	return i
}

func contains(set string, c byte) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

// operator reads a run of operator characters, up to where a comment begins.
func (l *lexer) operator() token {
	text, start := l.text, l.pos
	i := start
	for i < len(text) && bytesOf[text[i]]&operatorByte != 0 {
		if next := l.at(i + 1); i > start && (text[i] == '-' && next == '-' || text[i] == '/' && next == '*') {
			break
		}
		i++
	}
	l.pos = i
	return token{kind: tokenOperator, start: start, end: i}
}

// remark notes a hint, if the inside of a comment is one.
func (l *lexer) remark(text []byte) {
	for len(text) > 0 && bytesOf[text[0]]&blank != 0 {
		text = text[1:]
	}
	const name = "howdah:"
	if len(text) < len(name) || !equalFold(text[:len(name)], name) {
		return
	}
	text = text[len(name):]
	for len(text) > 0 && bytesOf[text[0]]&blank != 0 {
		text = text[1:]
	}
	for len(text) > 0 && bytesOf[text[len(text)-1]]&blank != 0 {
		text = text[:len(text)-1]
	}
	switch {
	case equalFold(text, "primary"):
		l.hint = HintPrimary
	case equalFold(text, "standby"):
		l.hint = max(l.hint, HintStandby)
	}
}
