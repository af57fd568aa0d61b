package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// LimitKind is what the clients have in common that a limit counts together.
type LimitKind string

// The kinds.
const (
	LimitUser     LimitKind = "user"
	LimitDatabase LimitKind = "database"
	LimitAddress  LimitKind = "address"
)

// LimitKinds are all kinds.
var LimitKinds = []LimitKind{LimitUser, LimitDatabase, LimitAddress}

// Limit is one line: kind, whom it is for, how many clients each of them may have at one time.
type Limit struct {
	Kind LimitKind
	// All: it is for whatever no line before it is for.
	All      bool
	names    []word         // of users and databases
	networks []netip.Prefix // of addresses
	// Max is how many; 0 is any number.
	Max int
}

const (
	// MaxName is the length of the longest name of a role or a database, in bytes; PostgreSQL cuts off the rest (NAMEDATALEN).
	MaxName = 63
	// maxClients bounds a limit, as the option max-clients is bounded.
	maxClients = 1_000_000
	unlimited  = "unlimited"
)

// ParseLimit reads a line. The error says what is allowed.
func ParseLimit(line string) (Limit, error) {
	fields, err := split(line)
	switch {
	case err != nil:
		return Limit{}, err
	case len(fields) != 3:
		return Limit{}, fmt.Errorf("has %d fields; want user, database or address, then whom it is for, then how many clients each of them may have", len(fields))
	case len(fields[0]) != 1 || len(fields[2]) != 1:
		return Limit{}, errors.New("has a list where one word belongs; lists are for users, databases and addresses")
	}
	l := Limit{Kind: LimitKind(fields[0][0].text)}
	if !slices.Contains(LimitKinds, l.Kind) {
		return Limit{}, fmt.Errorf("begins with %q; choose user, database or address", l.Kind)
	}
	if l.Max, err = parseMax(fields[2][0].text); err != nil {
		return Limit{}, err
	}
	for _, w := range fields[1] {
		if err := l.add(w); err != nil {
			return Limit{}, err
		}
	}
	return l, nil
}

// parseMax reads a number of clients. Zero is refused: to pgbouncer it means any number, to PostgreSQL (CONNECTION LIMIT) none.
func parseMax(text string) (int, error) {
	if text == unlimited {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxClients {
		return 0, fmt.Errorf("has the number %q; choose from 1 to %d, or %s", text, maxClients, unlimited)
	}
	return n, nil
}

// add has the limit be for w too.
func (l *Limit) add(w word) error {
	if w.is("all") || l.Kind == LimitAddress && w.text == "all" {
		l.All = true
		return nil
	}
	if l.Kind == LimitAddress {
		network, err := parseAddress(w.text)
		l.networks = append(l.networks, network)
		return err
	}
	switch {
	case !w.quoted && (slices.Contains([]string{"sameuser", "samerole", "samegroup", "replication"}, w.text) || strings.IndexAny(w.text, "+@/") == 0):
		return fmt.Errorf("has %q, which is no name; choose all or names, in double quotes where they look like something else", w.text)
	case len(w.text) > MaxName:
		return fmt.Errorf("has %q, which is longer than any name: %d bytes", w.text, MaxName)
	}
	l.names = append(l.names, w)
	return nil
}

// MaxOf returns how many clients the user or the database name may have, by the first line that is for it; 0 is any number.
func MaxOf(lines []Limit, kind LimitKind, name string) int {
	for i := range lines {
		l := &lines[i]
		if l.Kind == kind && (l.All || slices.ContainsFunc(l.names, func(w word) bool { return w.text == name })) {
			return l.Max
		}
	}
	return 0
}

// MaxOfAddress is MaxOf for an address. A client that came by a Unix-domain socket has none, and no limit.
func MaxOfAddress(lines []Limit, a netip.Addr) int {
	if !a.IsValid() {
		return 0
	}
	a = a.Unmap().WithZone("")
	for i := range lines {
		l := &lines[i]
		if l.Kind == LimitAddress && (l.All || slices.ContainsFunc(l.networks, func(p netip.Prefix) bool { return p.Contains(a) })) {
			return l.Max
		}
	}
	return 0
}
