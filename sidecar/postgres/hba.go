package postgres

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// ownHBA are the lines that howdah needs for itself. They come first, so that no line of the operator can
// shut it out; they admit nobody but its own roles, each to what it is for.
var ownHBA = []string{
	"local all " + SuperuserRole + " scram-sha-256",
	"local replication " + ReplicationRole + " scram-sha-256",
	"host replication " + ReplicationRole + " all scram-sha-256",
	"local postgres " + RewindRole + "," + RouterRole + " scram-sha-256",
	"host postgres " + RewindRole + "," + RouterRole + " all scram-sha-256",
}

var hostTypes = []string{"host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"}

var hbaMethods = []string{"trust", "reject", "scram-sha-256", "md5", "password", "gss", "sspi", "ident", "peer", "ldap", "radius", "cert", "pam", "bsd", "oauth"}

// renderHBA is the text of pg_hba.conf.
func renderHBA(lines []string) (string, error) {
	if err := checkHBA(lines); err != nil {
		return "", err
	}
	return "# Written by howdah; changes are lost. Its own lines come first, then the hba list of the cluster's configuration.\n" +
		strings.Join(ownHBA, "\n") + "\n" + strings.Join(append(slices.Clone(lines), ""), "\n"), nil
}

// checkHBA returns every line that PostgreSQL would not read as exactly one line of its own. One such
// line would keep every server from starting; another might open it to more than was meant.
func checkHBA(lines []string) error {
	var errs []error
	for i, line := range lines {
		if err := checkHBALine(line); err != nil {
			errs = append(errs, fmt.Errorf("hba: line %d, %q: %w", i+1, line, err))
		}
	}
	return errors.Join(errs...)
}

func checkHBALine(line string) error {
	if strings.ContainsAny(line, "\n\r\x00") || !utf8.ValidString(line) {
		return errors.New("must be one line of valid UTF-8")
	}
	// From PostgreSQL 14 on a backslash at the end goes on with the next line, also in a comment.
	if strings.HasSuffix(line, `\`) {
		return errors.New("must not end in a backslash")
	}
	if t := strings.TrimSpace(line); t == "" || t[0] == '#' {
		return nil
	}
	f, err := hbaFields(line)
	if err != nil {
		return err
	}
	kind := f[0]
	method := 3
	switch {
	case kind == "local":
	case slices.Contains(hostTypes, kind):
		method = 4
		if len(f) > 3 {
			if _, err := netip.ParseAddr(f[3]); err == nil {
				method = 5 // an address without a length has its mask in a field of its own
			}
		}
	default:
		return fmt.Errorf("begins with %q; choose local, %s", kind, strings.Join(hostTypes, ", "))
	}
	if len(f) <= method {
		return errors.New("has too few fields; want type, database, user, address (not for local) and method")
	}
	if !slices.Contains(hbaMethods, f[method]) {
		return fmt.Errorf("has the method %q; choose from %s", f[method], strings.Join(hbaMethods, ", "))
	}
	for _, option := range f[method+1:] {
		if !strings.Contains(option, "=") {
			return fmt.Errorf("has the option %q; want name=value", option)
		}
	}
	return nil
}

// hbaFields splits a line into fields as next_field_expand of src/backend/libpq/hba.c does: blanks end
// a field, commas join the words of a list, double quotes protect both, # begins a comment.
func hbaFields(line string) ([]string, error) {
	var fields []string
	var b strings.Builder
	inField, quoted, comma := false, false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		blank := c == ' ' || c == '\t'
		switch {
		case c == '"':
			quoted, inField, comma = !quoted, true, false
		case quoted:
			b.WriteByte(c)
		case c == '#':
			i = len(line)
		case blank && inField && !comma:
			fields = append(fields, b.String())
			b.Reset()
			inField = false
		case blank:
		default:
			b.WriteByte(c)
			inField, comma = true, c == ','
		}
	}
	if quoted {
		return nil, errors.New("has a double quote without its pair")
	}
	if inField {
		fields = append(fields, b.String())
	}
	if len(fields) == 0 {
		return nil, errors.New("has no fields")
	}
	return fields, nil
}
