package route

import (
	"errors"
	"fmt"
	"strings"
)

// Consistency says what a read must see that a standby may not have yet.
type Consistency string

// The consistencies, from weak to strong.
const (
	// Eventual reads what is within the cluster's bounds of staleness.
	Eventual Consistency = "eventual"
	// Session reads all that the session itself has written.
	Session Consistency = "session"
	// Strict reads every commit that was acknowledged anywhere before the read arrived.
	Strict Consistency = "strict"
)

// ConsistencyParameter is the setting by which a client chooses its consistency, at startup or by SET.
const ConsistencyParameter = "howdah.consistency"

// ErrConsistency is a consistency that does not exist. Clients get it with SQLSTATE 22023.
type ErrConsistency struct{ Value string }

// Error implements error.
func (e *ErrConsistency) Error() string {
	return fmt.Sprintf("invalid value for parameter %q: %q", ConsistencyParameter, e.Value)
}

// Hint says what is allowed.
func (e *ErrConsistency) Hint() string { return "Available values: eventual, session, strict." }

// ParseConsistency reads a consistency, in any case; any other value is an *ErrConsistency.
func ParseConsistency(s string) (Consistency, error) {
	switch c := Consistency(strings.ToLower(s)); c {
	case Eventual, Session, Strict:
		return c, nil
	}
	return "", &ErrConsistency{Value: s}
}

// ConsistencyOf returns the consistency that a session asks for by its startup parameters, a parameter of its own before one inside
// options; false if it asks for none.
func ConsistencyOf(parameters map[string]string) (Consistency, bool, error) {
	v, ok := asked(parameters)(ConsistencyParameter)
	if !ok {
		return "", false, nil
	}
	c, err := ParseConsistency(v)
	return c, true, err
}

// Consistencies are all there are.
type Consistencies struct{}

// Check returns what a client is told of a value that is none; an empty message for one that is.
func (Consistencies) Check(value string) (message, hint string) {
	var bad *ErrConsistency
	if _, err := ParseConsistency(value); errors.As(err, &bad) {
		return bad.Error(), bad.Hint()
	}
	return "", ""
}
