// Package sidecar does a keeper's duties beside one Postgres.
//
// One goroutine, the loop, owns all state. Others observe and act, and tell the loop
// what they saw by posting to it; nobody else touches its fields. A turn of the loop is:
//
//	what was posted -> Observation -> decide.Decide -> Plan -> actions, each in its slot
//
// observe.go looks, act.go does, publish.go tells the others, upkeep.go sees to what is
// neither urgent nor dangerous (roles, slots, the service in Consul, the member's own
// document). What to do is decided in package decide and nowhere else.
package sidecar
