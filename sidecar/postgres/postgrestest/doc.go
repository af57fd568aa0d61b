// Package postgrestest runs real PostgreSQL servers for tests: on loopback, on a free port, as
// the unprivileged user postgres when the test runs as root, and gone at the test's end.
//
// One data directory is made by initdb for each test binary and copied for each server, so all
// primaries of one binary have the same system identifier; WithOwnSystemID makes another.
// A package that uses it should have
//
//	func TestMain(m *testing.M) { postgrestest.Main(m) }
//
// which keeps that directory until the last test and then removes it. Without it the directory is
// made anew whenever no server is left that uses it.
package postgrestest
