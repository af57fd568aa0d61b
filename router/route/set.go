package route

import (
	"slices"
	"strings"
)

// Row is a row of pg_db_role_setting: what is set for one role or all, in one database or all, by ALTER ROLE ... SET and ALTER DATABASE ... SET.
type Row struct {
	OfRole, InDatabase bool
	Config             []string // name=value
}

// Source is where a setting of a session is from.
type Source uint8

// The sources. Of those of a Row the first that says something counts, as in PostgreSQL (process_settings of src/backend/utils/init/postinit.c).
const (
	FromDefault Source = iota
	FromClient
	FromListener
	FromRoleInDatabase
	FromRole
	FromDatabase
	FromAll
	// FromNowhere: it is not known what roles and databases set.
	FromNowhere
	// FromSet: SET in the session says it.
	FromSet
)

// String is the word for a source.
func (s Source) String() string {
	return [...]string{"default", "client", "listener", "role in database", "role", "database", "all roles", "unknown", "set"}[s]
}

// Chosen reports whether the client or its listener has said it, before what is set for roles and databases.
func (s Source) Chosen() bool { return s == FromClient || s == FromListener }

// source is what a setting of this row is from.
func (r Row) source() Source {
	switch {
	case r.OfRole && r.InDatabase:
		return FromRoleInDatabase
	case r.OfRole:
		return FromRole
	case r.InDatabase:
		return FromDatabase
	}
	return FromAll
}

// value returns what the row says of a parameter. PostgreSQL compares names without case, and of two in one row the last counts.
func (r Row) value(parameter string) (string, bool) {
	for _, c := range slices.Backward(r.Config) {
		if name, value, ok := strings.Cut(c, "="); ok && strings.EqualFold(name, parameter) {
			return value, true
		}
	}
	return "", false
}

// said calls f with what rows say of a parameter, what counts first, until f returns true.
func said(rows []Row, parameter string, f func(value string, from Source) bool) {
	for _, from := range []Source{FromRoleInDatabase, FromRole, FromDatabase, FromAll} {
		for _, r := range rows {
			if r.source() != from {
				continue
			}
			if v, ok := r.value(parameter); ok && f(v, from) {
				return
			}
		}
	}
}

// Set returns the route that rows set for a session; FromDefault if they set none. As in PostgreSQL a value that is none is passed over with a warning: those
// that were are returned too.
func Set(rows []Row) (r Route, from Source, bad []error) {
	r, from = Auto, FromDefault
	said(rows, Parameter, func(value string, of Source) bool {
		parsed, err := Parse(value)
		if err != nil {
			bad = append(bad, err)
			return false
		}
		r, from = parsed, of
		return true
	})
	return r, from, bad
}

// SetConsistency returns the consistency that rows set for a session; FromDefault if they set none. A value that is none counts as Strict, and is returned as bad:
// whoever has misspelt one gets no reads that are weaker than what was meant.
func SetConsistency(rows []Row) (c Consistency, from Source, bad error) {
	from = FromDefault
	said(rows, ConsistencyParameter, func(value string, of Source) bool {
		if c, bad = ParseConsistency(value); bad != nil {
			c = Strict
		}
		from = of
		return true
	})
	return c, from, bad
}
