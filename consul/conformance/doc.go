// Package conformance holds one suite of tests for the lock, the documents and the
// watches, and runs every case on the embedded server and on a real Consul agent. It
// also sends both the same requests, chosen by hand and at random, and compares the
// answers: where they differ, the embedded server is wrong.
package conformance
