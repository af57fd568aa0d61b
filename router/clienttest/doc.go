// Package clienttest runs the clients that people use through the router and directly against the servers, over TLS with SCRAM, and demands the
// same results and SQLSTATEs. A client is a program in testdata, or Go code here, that goes through steps (values, prepared statements,
// transactions, COPY, LISTEN, pipelines, cursors, big results, cancel, errors) and says for each `step: result`.
//
// What it says directly is held against testdata/expected, which `go test ./router/clienttest -update` writes anew for review. What it
// says through a route is held against what it said directly: routes rw and auto against the primary, ro against a standby, where what
// writes must fail with the same 25006. Where statements are routed one by one the standbys must count queries of the client, so steps that keep a session on
// the primary have one of their own. testdata/differences.txt has the differences that are accepted, each with its reason; one that is not there fails,
// and so does an entry that no longer happens.
//
// A program is given host, port, role, password and sslmode in libpq's environment. Each run has a role of its own, with a schema of the same name
// that holds the tables t (id, s), with the rows 1 to 3, and copied (id, s). Before it waits for a statement to be cancelled it says `sleeping`; the test
// answers with a line on its standard input once a server shows the statement asleep.
package clienttest
