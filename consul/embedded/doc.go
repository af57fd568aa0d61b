// Package embedded is the part of Consul's HTTP API that howdah uses, in the memory of
// one process: for `howdah demo` and for tests. It is driven by the same consul/api client as a
// real Consul, and the conformance suite (howdah/consul/conformance) runs every case on both:
// where they differ, this one is wrong.
//
// What it leaves out: replication and durability, access control, namespaces, blocking
// on anything but keys and sessions, health checks (services are kept, their checks are
// never run), DNS, and the reaping of tombstones: an index never goes backwards here.
// What it does not speak it refuses, also where Consul passes over it (a transaction's
// operation of an unknown kind).
//
// Semantics, texts of errors (capitals included) and status codes follow Consul 1.22.6: agent/consul/state/kvs.go,
// state/txn.go, state/session.go, blockingquery/blockingquery.go and agent/*_endpoint.go.
package embedded
