package statement

import (
	"strings"
	"testing"
)

// kindNames are how the tests below write tokens.
var kindNames = map[tokenKind]string{
	tokenEnd: "end", tokenBad: "bad", tokenWord: "word", tokenQuoted: "quoted", tokenEscaped: "escaped", tokenString: "string",
	tokenNumber: "number", tokenParameter: "parameter", tokenOperator: "operator", tokenCast: "cast", tokenDot: "dot", tokenComma: "comma",
	tokenSemicolon: "semicolon", tokenOpen: "open", tokenClose: "close", tokenOpenBracket: "bracket", tokenCloseBracket: "endbracket",
}

// tokens lists what the lexer makes of a text: kind and text of each token, the reason behind a bad one.
func tokens(text string, s *Settings) string {
	l := lexer{text: []byte(text), settings: s}
	var all []string
	for {
		switch t := l.next(); t.kind {
		case tokenEnd:
			return strings.Join(all, " ")
		case tokenBad:
			return strings.Join(append(all, "bad:"+l.reason.String()), " ")
		default:
			all = append(all, kindNames[t.kind]+":"+text[t.start:t.end])
		}
	}
}

func TestStrings(t *testing.T) {
	for _, c := range []struct {
		text             string
		on, off, unknown string
	}{
		{`'a' b`, "string:'a' word:b", "string:'a' word:b", "string:'a' word:b"},
		{`'a''b' c`, "string:'a''b' word:c", "string:'a''b' word:c", "string:'a''b' word:c"},
		{`'\' b --'`, `string:'\' word:b`, `string:'\' b --'`, "bad:strings"},
		{`'\\' b`, `string:'\\' word:b`, `string:'\\' word:b`, "bad:strings"},
		{`'\'' b --'`, `string:'\'' b --'`, `string:'\'' word:b`, "bad:strings"},
		{`E'\' b --'`, `string:E'\' b --'`, `string:E'\' b --'`, `string:E'\' b --'`},
		{`e'\\' b`, `string:e'\\' word:b`, `string:e'\\' word:b`, `string:e'\\' word:b`},
		{`E'a''\'b' c`, `string:E'a''\'b' word:c`, `string:E'a''\'b' word:c`, `string:E'a''\'b' word:c`},
		{`E '\' c --'`, `word:E string:'\' word:c`, `word:E string:'\' c --'`, "word:E bad:strings"},
		{`U&'\0041' UESCAPE '!' b`, `string:U&'\0041' word:UESCAPE string:'!' word:b`, "bad:strings", "bad:strings"},
		{`u&'\' b`, `string:u&'\' word:b`, "bad:strings", "bad:strings"},
		{`U& 'a'`, "word:U operator:& string:'a'", "word:U operator:& string:'a'", "word:U operator:& string:'a'"},
		{`B'01' X'1F' N'a'`, "string:B'01' string:X'1F' word:N string:'a'", "string:B'01' string:X'1F' word:N string:'a'", "string:B'01' string:X'1F' word:N string:'a'"},
		{`B'\' a`, `string:B'\' word:a`, `string:B'\' word:a`, `string:B'\' word:a`},
		{`X'a''b'`, "string:X'a' string:'b'", "string:X'a' string:'b'", "string:X'a' string:'b'"},
		{"'a'\n'b' c", "string:'a'\n'b' word:c", "string:'a'\n'b' word:c", "string:'a'\n'b' word:c"},
		{"'a' 'b'", "string:'a' string:'b'", "string:'a' string:'b'", "string:'a' string:'b'"},
		{"E'a'\r\n '\\'b' c", "string:E'a'\r\n '\\'b' word:c", "string:E'a'\r\n '\\'b' word:c", "string:E'a'\r\n '\\'b' word:c"},
		{"'a' -- '\n  'b' c", "string:'a' -- '\n  'b' word:c", "string:'a' -- '\n  'b' word:c", "string:'a' -- '\n  'b' word:c"},
		{"'a'\n-- '\n'b' c", "string:'a'\n-- '\n'b' word:c", "string:'a'\n-- '\n'b' word:c", "string:'a'\n-- '\n'b' word:c"},
		{"'a'\n/**/'b'", "string:'a' string:'b'", "string:'a' string:'b'", "string:'a' string:'b'"},
		{"X'1'\n'2' a", "string:X'1'\n'2' word:a", "string:X'1'\n'2' word:a", "string:X'1'\n'2' word:a"},
		{"'a'\n-- ", "string:'a'", "string:'a'", "string:'a'"},
	} {
		for s, want := range map[Strings]string{ConformingStrings: c.on, EscapedStrings: c.off, UnknownStrings: c.unknown} {
			if got := tokens(c.text, &Settings{Strings: s, SafeEncoding: true}); got != want {
				t.Errorf("%q with %d: %q, want %q", c.text, s, got, want)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	for text, want := range map[string]string{
		// Comments.
		"a -- b ' \nc":         "word:a word:c",
		"a -- b\rc":            "word:a word:c",
		"a /* /* ' */ \" */ b": "word:a word:b",
		"a/**/b":               "word:a word:b",
		"a /*/ b */ c":         "word:a word:c",
		"a /* /* */":           "word:a bad:unterminated",
		"/*":                   "bad:unterminated",
		"/*/":                  "bad:unterminated",
		"a -- /*\nb */":        "word:a word:b operator:*/",
		"a */ b":               "word:a operator:*/ word:b",
		"'/*' a '*/'":          "string:'/*' word:a string:'*/'",
		"--":                   "",
		"":                     "",
		"a\v":                  "word:a bad:character", // white space since PostgreSQL 16
		"a\x00b":               "word:a bad:character",
		// Operators up to a comment.
		"a+-- b\nc":    "word:a operator:+ word:c",
		"a+/* b */c":   "word:a operator:+ word:c",
		"a@-- b":       "word:a operator:@",
		"a-/**/-b":     "word:a operator:- operator:- word:b",
		"a<--1":        "word:a operator:<",
		"a*/*b*/c":     "word:a operator:* word:c",
		"a/-*b":        "word:a operator:/-* word:b",
		"a->>'x'#>>b":  "word:a operator:->> string:'x' operator:#>> word:b",
		"a::b:=c:d..e": "word:a cast::: word:b operator::= word:c operator:: word:d operator:.. word:e",
		"a=>b":         "word:a operator:=> word:b",
		// Dollar quotes and parameters.
		"$$a;'$$ b":       "string:$$a;'$$ word:b",
		"$t$ $$ $T$ $t$b": "string:$t$ $$ $T$ $t$ word:b",
		"$$a$":            "bad:unterminated",
		"$a$ $$":          "bad:unterminated",
		"$é1$a$é1$":       "string:$é1$a$é1$",
		"a$b$c$b$":        "word:a$b$c$b$",
		"$1$a$ ; $a$":     "parameter:$1 string:$a$ ; $a$",
		"$1a":             "bad:number",
		"$12+$3":          "parameter:$12 operator:+ parameter:$3",
		"$":               "bad:character",
		"$a":              "bad:character",
		"$a b$":           "bad:character",
		"$1x$":            "bad:number",
		"1$$a$$":          "number:1 string:$$a$$",
		// Numbers.
		"1 1. .5 1.5 1e5 1.e-5 .5E+5": "number:1 number:1. number:.5 number:1.5 number:1e5 number:1.e-5 number:.5E+5",
		"0x1F 0XaB 0o17 0b101 1_000":  "number:0x1F number:0XaB number:0o17 number:0b101 number:1_000",
		"0x_1F 1_0.5_0e1_0":           "number:0x_1F number:1_0.5_0e1_0",
		"1..2":                        "number:1 operator:.. number:2",
		"1.5.6":                       "number:1.5 number:.6",
		"1a":                          "bad:number",
		"0x":                          "bad:number",
		"0xg":                         "bad:number",
		"0b12":                        "number:0b1 number:2",
		"1__0":                        "bad:number",
		"1_":                          "bad:number",
		"1e":                          "bad:number",
		"1e+":                         "bad:number",
		"0x1Fg":                       "bad:number",
		"1union":                      "bad:number",
		// Identifiers.
		`"a" "a""b" "A;'" ""`: `quoted:a escaped:"a""b" quoted:A;' quoted:`,
		`U&"\0061" u&"x"`:     `escaped:U&"\0061" escaped:u&"x"`,
		`"a`:                  "bad:unterminated",
		`"a""`:                "bad:unterminated",
		`U&"a`:                "bad:unterminated",
		"bär_1$ É":            "word:bär_1$ word:É",
		"a.b .c[1]":           "word:a dot:. word:b dot:. word:c bracket:[ number:1 endbracket:]",
		"{":                   "bad:character",
		`\`:                   "bad:character",
		"a , ( b ) ; c":       "word:a comma:, open:( word:b close:) semicolon:; word:c",
	} {
		if got := tokens(text, &Settings{Strings: ConformingStrings, SafeEncoding: true}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestUnterminatedStrings(t *testing.T) {
	for _, text := range []string{"'a", "'a''", "E'a", `E'\'`, `E'\`, "U&'a", "B'0", "X'0", "N'a", "'a'\n'b", "E'a'\n'b", "X'1'\n'2", "$$", "$a$ $a", "'"} {
		if got := tokens(text, &Settings{Strings: ConformingStrings, SafeEncoding: true}); !strings.HasSuffix(got, "bad:unterminated") {
			t.Errorf("%q: %q", text, got)
		}
		if v := Classify([]byte("SELECT 1, "+text), settings(t)); v.Read || v.Block || v.Reason != ReasonUnterminated || !v.Is(FlagOpaque) {
			t.Errorf("%q: %+v", text, v)
		}
	}
}

// In an encoding in which a byte below 0x80 may be half a character, any character that is not ASCII makes a write, except
// in a comment, which ends at two bytes of which neither is such a half.
func TestUnsafeEncoding(t *testing.T) {
	s := settings(t)
	s.SafeEncoding = false
	for _, text := range []string{
		"SELECT '\x83\x5c'", "SELECT E'\x83\x5c'", "SELECT E'\\\x83'", "SELECT U&'\x83'", "SELECT B'\x83'", "SELECT X'1'\n'\x83'", "SELECT \"\x83\"", "SELECT \"a\"\"\x83\"",
		"SELECT U&\"\x83\"", "SELECT \x83", "SELECT a\x83", "SELECT $$\x83$$", "SELECT $\x83$a$\x83$", "SELECT $a$\x83\x5c$a$",
	} {
		if v := Classify([]byte(text), s); v.Reason != ReasonEncoding || v.Block || !v.Is(FlagOpaque) {
			t.Errorf("%q: %s", text, v.Reason)
		}
	}
	if v := Classify([]byte("SELECT 'a', \"b\", E'\\'', $$c$$"), s); !v.Read {
		t.Errorf("ASCII alone is a read in any encoding: %s", v.Reason)
	}
	s.Strings = EscapedStrings
	if v := Classify([]byte("SELECT '\\\x83'"), s); v.Reason != ReasonEncoding {
		t.Errorf("behind a backslash: %s", v.Reason)
	}
}

func TestSafeEncoding(t *testing.T) {
	for _, name := range []string{"UTF8", "UNICODE", "SQL_ASCII", "LATIN1", "LATIN10", "ISO_8859_5", "WIN1252", "WIN866", "WIN874", "KOI8R", "KOI8U", "EUC_JP", "EUC_JIS_2004", "EUC_CN", "EUC_KR", "EUC_TW"} {
		if !SafeEncoding(name) {
			t.Errorf("%s is safe", name)
		}
	}
	for _, name := range []string{"", "BIG5", "GB18030", "GBK", "JOHAB", "SJIS", "SHIFT_JIS_2004", "UHC", "MULE_INTERNAL", "WIN932", "WIN936", "WIN949", "WIN950", "utf8", "no such"} {
		if SafeEncoding(name) {
			t.Errorf("%q is not known to be safe", name)
		}
	}
}
