package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"howdah/consul/schema"
)

// TimelineSwitch says that Timeline was left at LSN for the next one.
type TimelineSwitch struct {
	Timeline schema.Timeline
	LSN      schema.LSN
}

// History is how a timeline came to be: Current, and the ones it descends from, oldest first.
type History struct {
	Current  schema.Timeline
	Switches []TimelineSwitch
}

// ParseHistory reads a timeline history file (XXXXXXXX.history) of timeline t, by the rules of
// readTimeLineHistory in src/backend/access/transam/timeline.c: one ancestor a line, as its
// number, the switch point and a reason, with numbers that grow and stay below t.
func ParseHistory(t schema.Timeline, content string) (History, error) {
	h := History{Current: t}
	if t == 0 {
		return h, fmt.Errorf("timeline history: timeline 0 does not exist")
	}
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return History{}, fmt.Errorf("history of timeline %d: line %q: want a timeline and a switch point", t, clip(line))
		}
		n, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d: %q is not a timeline", t, clip(f[0]))
		}
		lsn, err := parseLSN(f[1])
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d: %w", t, err)
		}
		s := TimelineSwitch{Timeline: schema.Timeline(n), LSN: lsn}
		last := TimelineSwitch{}
		if len(h.Switches) > 0 {
			last = h.Switches[len(h.Switches)-1]
		}
		if s.Timeline <= last.Timeline || s.Timeline >= t || s.LSN < last.LSN {
			return History{}, fmt.Errorf("history of timeline %d: timeline %d at %s does not follow timeline %d at %s", t, s.Timeline, s.LSN, last.Timeline, last.LSN)
		}
		h.Switches = append(h.Switches, s)
	}
	if t > 1 && len(h.Switches) == 0 {
		return History{}, fmt.Errorf("history of timeline %d: it names no ancestor", t)
	}
	return h, nil
}

// CanFollow reports whether a server that wrote or replayed WAL of timeline local up to end can go on
// along h without a rewind, and if not, why. Unknown facts mean no.
//
// For a stopped server, local and end are what LocalEnd returns. For a running standby, end is its
// replay LSN once its receiver has stopped: it may have received the first part of a record that the new
// primary never had, and that does not keep it from following.
func CanFollow(local schema.Timeline, end schema.LSN, h History) (ok bool, why string) {
	switch {
	case local == 0 || end == 0:
		return false, "its own timeline or position is not known"
	case h.Current == 0:
		return false, "the history to follow is not known"
	case local == h.Current:
		return true, ""
	case local > h.Current:
		return false, fmt.Sprintf("its timeline %d is newer than timeline %d", local, h.Current)
	}
	for _, s := range h.Switches {
		if s.Timeline != local {
			continue
		}
		if end <= s.LSN {
			return true, ""
		}
		return false, fmt.Sprintf("it went on to %s on timeline %d, which timeline %d left at %s", end, local, h.Current, s.LSN)
	}
	return false, fmt.Sprintf("its timeline %d is not an ancestor of timeline %d", local, h.Current)
}
