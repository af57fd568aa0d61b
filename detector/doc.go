// Package detector tells who is alive and carries what members say about
// themselves: hashicorp/memberlist between all sidecars and routers of one cluster.
//
// What travels goes by four roads:
//
//   - Liveness, and node metadata (kind, role, epoch, addresses): memberlist's own
//     gossip, which reaches everybody even where packets are lost.
//   - A schema.Status, several times a second: one packet to every live peer as soon
//     as it is published, again after StatusInterval until a newer one is published,
//     and in every push/pull exchange, so that a newcomer learns all of them at once.
//   - Promises: a question to one named member, repeated until it is answered.
//   - Cancel requests of PostgreSQL clients, from a router that was given one to the router whose session
//     it means: sent once, over TCP.
//
// # Which status is newer
//
// Each process has a generation: the nanoseconds of the wall clock when it started.
// A status is newer than another of the same name if (generation, number) is
// greater, where number counts the calls of Publish. So nothing that a former
// process of that name has said replaces what the present one says. Wall clocks can
// be set back; a process that learns that others hold a later generation under its
// name, from a process that has fallen silent, takes the next one after it.
//
// # What the verdict is worth
//
// Gossip never decides by itself: the lock does. Judge puts gossip, replication,
// probes and the lease together. Not knowing is never a sign of death (I5).
//
// # Locks
//
// memberlist calls its delegates under its own lock. Here they only copy what they
// are given into the inbox; one goroutine, Detector.run, owns the table of peers.
// The detector's own lock is never held while memberlist is called.
package detector
