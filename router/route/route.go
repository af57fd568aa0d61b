// Package route decides where a session belongs. It is pure: no clock, no goroutine, no I/O; the
// same arguments always give the same answer.
package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Route says which servers a session may be given.
type Route string

// The routes.
const (
	// Auto leaves the choice to the router, statement by statement (package split); where it cannot, an auto session is an rw session.
	Auto Route = "auto"
	// RW is the primary only.
	RW Route = "rw"
	// RO is a standby, or the primary where no standby may serve and that is allowed.
	RO Route = "ro"
)

// Parameter is the startup parameter by which a client chooses its route.
const Parameter = "howdah.route"

// ErrRoute is a route that does not exist. Its text says what is allowed; clients get it with
// SQLSTATE 22023.
type ErrRoute struct{ Value string }

// Error implements error.
func (e *ErrRoute) Error() string {
	return fmt.Sprintf("invalid value for parameter %q: %q", Parameter, e.Value)
}

// Hint says what is allowed.
func (e *ErrRoute) Hint() string {
	return "Available values: rw (also primary, master), ro (also standby, replica), auto."
}

// Parse reads a route, in any case. It accepts the words for the roles that serve it; any other
// value is an *ErrRoute.
func Parse(s string) (Route, error) {
	switch strings.ToLower(s) {
	case "auto":
		return Auto, nil
	case "rw", "primary", "master":
		return RW, nil
	case "ro", "standby", "replica":
		return RO, nil
	}
	return "", &ErrRoute{Value: s}
}

// Of returns the route that a session's startup parameters and the listener that it came by choose, in this order: howdah.route (a parameter of its own before one
// inside options, as PostgreSQL applies them), the listener's route if it has one, default_transaction_read_only=on. If none does it is Auto, FromDefault, and
// what Set says goes before that.
func Of(parameters map[string]string, listener Route) (Route, Source, error) {
	get := asked(parameters)
	if v, ok := get(Parameter); ok {
		r, err := Parse(v)
		return r, FromClient, err
	}
	if listener == RW || listener == RO {
		return listener, FromListener, nil
	}
	if v, ok := get("default_transaction_read_only"); ok {
		if on, valid := ParseBool(v); valid && on {
			return RO, FromClient, nil
		}
	}
	return Auto, FromDefault, nil
}

// asked returns what looks a setting up in startup parameters: as one of its own, then inside options.
func asked(parameters map[string]string) func(name string) (string, bool) {
	settings := Settings(parameters["options"])
	names := slices.Sorted(maps.Keys(parameters))
	return func(name string) (string, bool) {
		if v, ok := parameters[name]; ok {
			return v, true
		}
		// PostgreSQL compares names without case. Which of two spellings wins it does not say;
		// here the first by name does.
		for _, k := range names {
			if strings.EqualFold(k, name) {
				return parameters[k], true
			}
		}
		v, ok := settings[name]
		return v, ok
	}
}
