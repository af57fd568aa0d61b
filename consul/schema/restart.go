package schema

import (
	"cmp"
	"slices"
)

// RestartOrder returns the names of members in the order in which their Postgres may be restarted, one after the
// other: the next only once the one before is back (a standby that streams, a primary that serves).
//
//   - Standbys first, so that a setting with which PostgreSQL does not start shows where it does no harm; of those
//     the ones that do not stream, which nobody misses.
//   - The primary after every standby that waits for a restart. A standby must not run with less than its primary has
//     (max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions, max_locks_per_transaction), so
//     what is raised is raised on standbys first.
//   - Standbys that wait for nothing come after a primary that does. What is lowered is lowered on the primary first;
//     howdah keeps a standby's settings at the primary's until the lower ones have come with the WAL. So
//     whoever restarts what is pending asks again after the primary, until nobody waits for anything.
func RestartOrder(members []Status) []string {
	waits := slices.ContainsFunc(members, func(s Status) bool { return s.Role == RolePrimary && len(s.PendingRestart) > 0 })
	rank := func(s Status) int {
		switch {
		case s.Role == RolePrimary:
			return 2
		case waits && len(s.PendingRestart) == 0:
			return 3
		case s.State != StateStreaming:
			return 0
		}
		return 1
	}
	sorted := slices.SortedFunc(slices.Values(members), func(a, b Status) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	names := make([]string, len(sorted))
	for i, s := range sorted {
		names[i] = s.Name
	}
	return names
}
