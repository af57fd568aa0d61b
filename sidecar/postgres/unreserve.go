package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"howdah/consul/schema"
)

// dropReservations removes the empty history files that ReserveTimeline left for a promotion that did not come
// about. A standby that starts takes the newest history file for the timeline to follow
// (recovery_target_timeline = latest); one that names no ancestor makes it refuse its own WAL
// ("unexpected timeline ID") and never come up. Those below a timeline that did come about are
// harmless, and stay: numbering goes on from there only if there is no gap.
func dropReservations(dir string) error {
	wal := filepath.Join(dir, "pg_wal")
	entries, err := os.ReadDir(wal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var empty []schema.Timeline
	newest := schema.Timeline(1)
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), ".history")
		n, err := strconv.ParseUint(number, 16, 32)
		if !ok || len(number) != 8 || err != nil || n < 2 {
			continue
		}
		b, err := os.ReadFile(filepath.Join(wal, e.Name()))
		if err != nil {
			return err
		}
		if namesAncestor(string(b)) {
			newest = max(newest, schema.Timeline(n))
		} else {
			empty = append(empty, schema.Timeline(n))
		}
	}
	for _, t := range empty {
		if t < newest {
			continue
		}
		if err := removeFile(filepath.Join(wal, fmt.Sprintf("%08X.history", uint32(t)))); err != nil {
			return err
		}
	}
	return nil
}

// namesAncestor reports whether a history file holds anything but comments.
func namesAncestor(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}
