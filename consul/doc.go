// Package consul is the leader lock, the documents of a cluster, the watch on them
// and the registration of its service, all in HashiCorp Consul. It is the only
// importer of consul/api, and it keeps no state of its own: a caller gives the view
// that it acts on and gets the view that followed.
//
// # The lock
//
// The key howdah/<cluster>/leader is locked by a Consul session. Each change of it is
// one transaction that begins with check-index on the ModifyIndex that the caller saw,
// so a renewal and a takeover that start from the same view exclude each other: one
// wins, the other is rolled back whole.
//
// Whoever renews counts its lease from LockView.AskedAt, read before the request left.
// Nothing here retries: a caller that has time left decides that with a fresh view.
//
// # What an error says
//
// ErrRefused means that Consul answered and rolled back. OutcomeUnknown(err) says
// whether a change may have taken place all the same: after a timeout, a lost
// connection or a 5xx it may have, and may yet. After a refusal, a denial, or a
// connection that was never made it has not.
//
// # Odd choices, and why
//
//   - Every write of the leader key carries in the KV pair's Flags the ModifyIndex that it
//     was conditional on. Consul leaves ModifyIndex as it was when a write changes nothing
//     (kvsSetTxn in agent/consul/state/kvs.go), and the renewals of an idle primary carry
//     the same value each time: without the Flags such a renewal would be answered and
//     yet be invisible to the judges, who would then take over from a living primary.
//   - An expired session is not destroyed by those who take over; the old holder is
//     unlocked by name inside the transaction. Destroying is not conditional.
//   - Sessions are made with CreateNoChecks: with consul/api's Create an empty list of
//     checks is left out of the request and Consul puts its serfHealth check in.
//   - A 404 of the KV store counts as "missing" only with an X-Consul-Index header, which
//     Consul always sends. A proxy's or another server's 404 would look like an empty
//     cluster.
//   - Consul leaves out of a recursive read what the token may not see, and tells only
//     those who sent a token. Without one, on an agent whose ACL default is deny, missing
//     keys are asked for one by one, which is answered by 403: denied is not missing.
//   - A document that does not parse, or parses into something no member would write (no
//     epoch, no lease), is an error naming its key and never a zero value: unknown is not
//     empty.
//   - What the Options leave empty is taken from Consul's own environment variables
//     (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_CACERT ...), as every Consul tool does.
package consul
