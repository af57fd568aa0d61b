package schema

import (
	"fmt"
	"slices"
	"strings"
)

// SyncSet says where an acknowledged commit stands besides the primary: on at least Need of Standbys.
// The zero SyncSet promises nothing: asynchronous replication.
type SyncSet struct {
	Need int `json:"need,omitempty"`
	// Standbys are members' names, sorted.
	Standbys []string `json:"standbys,omitempty"`
}

// Equal reports whether s and t promise the same of the same members.
func (s SyncSet) Equal(t SyncSet) bool {
	return s.Need == t.Need && (s.Need == 0 || slices.Equal(s.Standbys, t.Standbys))
}

// Setting returns PostgreSQL's synchronous_standby_names for s; empty for the zero SyncSet.
func (s SyncSet) Setting() string {
	if s.Need == 0 {
		return ""
	}
	quoted := make([]string, len(s.Standbys))
	for i, n := range s.Standbys {
		quoted[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return fmt.Sprintf("ANY %d (%s)", s.Need, strings.Join(quoted, ", "))
}

// String is for people: "1 of pg2, pg3", or "none".
func (s SyncSet) String() string {
	if s.Need == 0 {
		return "none"
	}
	return fmt.Sprintf("%d of %s", s.Need, strings.Join(s.Standbys, ", "))
}

// The values of ClusterConfig.SynchronousMode.
const (
	SyncOff    = "off"    // asynchronous
	SyncOn     = "on"     // synchronous while enough standbys are there; the degradation is recorded before it takes effect
	SyncStrict = "strict" // commits wait for min_synchronous_standbys however long it takes
)
