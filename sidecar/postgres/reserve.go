package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"howdah/consul/schema"
)

// maxReserved bounds how many timelines a promotion may skip.
const maxReserved = 1000

// ReserveTimeline has the next promotion of the local standby begin timeline next, or a later one.
//
// A promotion takes the number after the newest timeline whose history file exists in pg_wal
// (findNewestTimeLine, src/backend/access/transam/timeline.c). Two standbys that are promoted one after the other
// from the same timeline would take the same number, and nothing in PostgreSQL could tell their histories
// apart afterwards. So every number below next gets a history file: an empty one (a comment), which no
// server takes for a branch of its own timeline.
func (p *Postgres) ReserveTimeline(next schema.Timeline) error {
	dir := filepath.Join(p.o.DataDir, "pg_wal")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reserve timeline %d: %w", next, err)
	}
	newest := schema.Timeline(1)
	for _, e := range entries {
		var t schema.Timeline
		var rest string
		if n, _ := fmt.Sscanf(e.Name(), "%08X%s", &t, &rest); n == 2 && (rest == ".history" || len(rest) == 16) {
			newest = max(newest, t)
		}
	}
	if next > newest+maxReserved {
		return fmt.Errorf("reserve timeline %d: the newest here is %d; so great a step is no step of this cluster", next, newest)
	}
	for t := newest + 1; t < next; t++ {
		path := filepath.Join(dir, fmt.Sprintf("%08X.history", t))
		if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, err := writeFile(path, fmt.Appendf(nil, "# timeline %d was taken by a reign that ended; this server never was on it\n", t), 0o600); err != nil {
			return fmt.Errorf("reserve timeline %d: %w", next, err)
		}
	}
	return nil
}
