package decide

import (
	"slices"

	"howdah/consul/schema"
)

// Synchronous replication rests on three sentences about sets of members. R is the set in the leader record, P the
// one that PostgreSQL goes by.
//
//	F1  every acknowledged commit is flushed on at least R.Need of R.Standbys
//	F2  a candidate has seen V, part of R.Standbys, with |V| > |R.Standbys| - R.Need, and has all that any of V has
//	I4  F1 and F2 => the candidate has every acknowledged commit
//
// F1 is kept by the order of the writes: P changes only to what R covers, and R changes only to what P and
// the commits before it already satisfy. quorum_test.go holds these functions to a brute-force twin.

// covers reports whether each acknowledgement under applied satisfies record: the standbys that acknowledge,
// with the primary, which always has the commit, make at least record.Need of record.Standbys.
func covers(record, applied schema.SyncSet, primary string) bool {
	if record.Need == 0 {
		return true
	}
	have := applied.Need
	for _, n := range applied.Standbys {
		if !slices.Contains(record.Standbys, n) {
			have-- // the worst case: it is one of those that acknowledge
		}
	}
	if slices.Contains(record.Standbys, primary) {
		have = max(have, 0) + 1
	}
	return have >= record.Need
}

// between returns a record that both what record covers and target satisfy: the step from one to the other.
func between(record, target schema.SyncSet) schema.SyncSet {
	need := min(record.Need, target.Need)
	if need == 0 {
		return schema.SyncSet{}
	}
	return schema.SyncSet{Need: need, Standbys: union(record.Standbys, target.Standbys)}
}

// elects reports whether seen are enough of the record's standbys to know of every acknowledged commit.
func elects(record schema.SyncSet, seen []string) bool {
	n := 0
	for _, s := range record.Standbys {
		if slices.Contains(seen, s) {
			n++
		}
	}
	return n > len(record.Standbys)-record.Need
}
