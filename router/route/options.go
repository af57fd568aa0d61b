package route

import "strings"

// SplitOptions splits the startup parameter "options" into arguments: at white space, where a
// backslash takes the next character literally. It mirrors pg_split_opts of PostgreSQL's
// src/backend/utils/init/postinit.c.
func SplitOptions(s string) []string {
	var args []string
	for i := 0; i < len(s); {
		for i < len(s) && space(s[i]) {
			i++
		}
		if i == len(s) {
			break
		}
		var arg strings.Builder
		for escaped := false; i < len(s) && (escaped || !space(s[i])); i++ {
			if !escaped && s[i] == '\\' {
				escaped = true
				continue
			}
			escaped = false
			arg.WriteByte(s[i])
		}
		args = append(args, arg.String())
	}
	return args
}

// space is isspace in the C locale.
func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// argumentFlags are the switches of a backend that take an argument: those with a colon in the
// getopt string of process_postgres_switches in PostgreSQL's src/backend/tcop/postgres.c, of
// versions 13 to 18.
const argumentFlags = "BCDcdfhkNprStvW-"

// Settings returns the run-time parameters that the startup parameter "options" sets, with names
// in lower case and '-' for '_' as PostgreSQL reads them. A later setting replaces an earlier one.
// Whatever PostgreSQL would refuse is passed over: refusing is the server's part.
func Settings(options string) map[string]string {
	if options == "" {
		return nil
	}
	set := map[string]string{}
	args := SplitOptions(options)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' || arg == "--" {
			break // getopt stops at the first argument that is not a switch
		}
		for j := 1; j < len(arg); j++ {
			flag := arg[j]
			if strings.IndexByte(argumentFlags, flag) < 0 {
				continue // a switch without an argument; more may follow in the same word
			}
			value := arg[j+1:]
			if value == "" {
				if i++; i == len(args) {
					return set
				}
				value = args[i]
			}
			if flag == 'c' || flag == '-' {
				if name, v, ok := strings.Cut(value, "="); ok {
					set[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = v
				}
			}
			break
		}
	}
	return set
}

// ParseBool reads a boolean as PostgreSQL's parse_bool_with_len (src/backend/utils/adt/bool.c)
// does: any unambiguous beginning of true, false, yes, no, on, off, and 1 and 0, in any case.
func ParseBool(s string) (value, valid bool) {
	if s == "" {
		return false, false
	}
	begins := func(word string) bool { return len(s) <= len(word) && strings.EqualFold(s, word[:len(s)]) }
	switch s[0] {
	case 't', 'T':
		return true, begins("true")
	case 'f', 'F':
		return false, begins("false")
	case 'y', 'Y':
		return true, begins("yes")
	case 'n', 'N':
		return false, begins("no")
	case 'o', 'O':
		// "o" alone could be either.
		if len(s) < 2 {
			return false, false
		}
		if begins("on") {
			return true, true
		}
		return false, begins("off")
	case '1':
		return true, len(s) == 1
	case '0':
		return false, len(s) == 1
	}
	return false, false
}
