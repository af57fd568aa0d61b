package postgres

import (
	"errors"
	"strings"
	"unicode/utf8"
)

var errUnquotable = errors.New("must be valid UTF-8 without zero bytes")

// quoteSetting quotes a value for postgresql.conf. Line breaks become escapes, because the lexer ends
// every string at the line's end (STRING in src/backend/utils/misc/guc-file.l; its escapes are
// undone by DeescapeQuotedString).
func quoteSetting(v string) (string, error) {
	if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
		return "", errUnquotable
	}
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(v) + "'", nil
}

// quoteConninfo quotes a value of a libpq connection string (conninfo_parse in src/interfaces/libpq/fe-connect.c).
func quoteConninfo(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(v) + "'"
}

// quotePassfile quotes a field of a password file (passwordFromFile, same file).
func quotePassfile(v string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(v)
}
