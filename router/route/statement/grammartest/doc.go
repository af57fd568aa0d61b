// Package grammartest checks the classifier against PostgreSQL's own grammar (libpg_query, by way of cgo): what it calls a
// read must not write by the parse tree. It is a package of its own because that grammar takes a minute to compile.
package grammartest
