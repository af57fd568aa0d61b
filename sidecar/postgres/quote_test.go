package postgres

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// unquoteSetting is what PostgreSQL does with a quoted value: the token of guc-file.l (a string ends at
// an unescaped quote and cannot hold a line break), then DeescapeQuotedString.
func unquoteSetting(q string) (string, error) {
	if len(q) < 2 || q[0] != '\'' || q[len(q)-1] != '\'' {
		return "", errors.New("not quoted")
	}
	q = q[1 : len(q)-1]
	var b strings.Builder
	for i := 0; i < len(q); i++ {
		switch {
		case q[i] == '\n':
			return "", errors.New("line break inside a string")
		case q[i] == '\'':
			if i+1 == len(q) || q[i+1] != '\'' {
				return "", errors.New("the string ends too early")
			}
			i++
			b.WriteByte('\'')
		case q[i] == '\\':
			if i++; i == len(q) {
				return "", errors.New("the escape takes the closing quote")
			}
			switch q[i] {
			case 'b':
				b.WriteByte('\b')
			case 'f':
				b.WriteByte('\f')
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '0', '1', '2', '3', '4', '5', '6', '7':
				return "", errors.New("an octal escape that nobody wrote")
			default:
				b.WriteByte(q[i])
			}
		default:
			b.WriteByte(q[i])
		}
	}
	return b.String(), nil
}

func FuzzQuoteSetting(f *testing.F) {
	for _, s := range []string{"", "plain", "it's", `back\slash`, `\`, `'`, `\'`, "two\nlines", "a\r\nb", "'; include '/etc/passwd", "\x00", "\xff", "ü # x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		q, err := quoteSetting(v)
		if err != nil {
			if utf8.ValidString(v) && !strings.Contains(v, "\x00") {
				t.Fatalf("%q refused: %v", v, err)
			}
			return
		}
		if got, err := unquoteSetting(q); err != nil || got != v {
			t.Fatalf("%q became %s, which reads as %q, %v", v, q, got, err)
		}
	})
}

func FuzzQuoteConninfo(f *testing.F) {
	for _, s := range []string{"", "plain", "it's", `back\slash`, `\`, "two words", "host=evil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		// conninfo_parse: inside quotes a backslash takes the next character as it is; a quote ends the value.
		q := quoteConninfo(v)
		var b strings.Builder
		i := 1
		for ; i < len(q) && q[i] != '\''; i++ {
			if q[i] == '\\' {
				i++
			}
			b.WriteByte(q[i])
		}
		if i != len(q)-1 || b.String() != v {
			t.Fatalf("%q became %s, which reads as %q", v, q, b.String())
		}
	})
}
