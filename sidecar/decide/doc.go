// Package decide is the mind of a sidecar: given what was observed and what is
// remembered, it says what to do next.
//
// Decide is pure. It reads no clock (Observation.Now is the only time there is),
// starts no goroutine and does no I/O; a test of the house enforces it. What it
// wants done it returns as data. Every action is idempotent: it is planned again
// at the next call until an observation shows that it is done, and nothing here
// relies on an action having worked.
//
// Read it in the order of a member's life: bootstrap.go, follow.go, stand.go,
// reign.go, serve.go, switchover.go; promise.go is what a member says to a primary that has
// lost Consul; learn.go is how outcomes become memory.
//
// # The invariants that live here
//
// Numbers are those of ARCHITECTURE.md.
//
//	I1  promote(e)   =>  the lock was held by own session at epoch e, and now > PromisedUntil
//	I2  armed        =>  Deadline = (time before the request was sent) + lease
//	I3  Record.Epoch is the maximum of every epoch ever seen; a reign begins at Record.Epoch+1
//	I5  unknown      =>  no Clone, no Initdb, no Restore, no Release
//	I7  Clone        =>  another member serves, with the lock, under the same system identifier
//	    RemoveFirst  =>  besides, it is heard of and its lease is in force, no commit counts on our copy, and the operator has said so
package decide
