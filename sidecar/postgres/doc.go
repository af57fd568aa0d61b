// Package postgres does a sidecar's duties on one PostgreSQL server: it inspects a
// data directory, makes one (initdb, pg_basebackup), rewinds it (pg_rewind), configures it, asks the running
// server how it is, promotes it, and keeps its roles and replication slots.
//
// It never starts or stops the server; that is the launcher's, which also runs the
// tools (initdb and the like) through Runner. It reads no clock that matters to the
// lease and decides nothing: what is unknown is returned as an error and never as
// "absent" or "dead" (I5), and no directory is touched that this package did not make
// itself or was not told to replace (I7).
//
// Names beside the data directory D, all of them of this package:
//
//	D.init, D.clone  a directory that is being made; renamed to D once it is whole
//	D.old            what D held before a clone took its place; removed after the swap
//	D.howdah         the marker: who is at work on these names, and how far (swap.go)
//	D.rewind         a rewind of D has begun and not ended: D is worth nothing (rewindmark.go)
//	D.pwfile         the superuser's password for initdb; removed right after
//	D.pgpass         the replication password, for walreceivers and pg_basebackup
package postgres
