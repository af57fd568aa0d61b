// Package schema is the vocabulary that every part of howdah shares: epochs,
// instants, LSNs, members, the leader record and the cluster configuration.
//
// It is a leaf: it imports the standard library and pglogrepl (for the text form
// of an LSN) and nothing else, reads no clock and does no I/O. The JSON forms of
// its types are what stands in Consul's KV store, in gossip messages and on the
// HTTP API, so a field may be added but never renamed or given another meaning.
package schema
