package decide

import (
	"fmt"
	"slices"

	"howdah/consul/schema"
)

// removedCopy is why a member without a copy of its own is cloned.
const removedCopy = "its own copy was removed, because two have no room on its disk (clone-without-room: remove-first)"

// without is why a member whose data directory is empty or incomplete is cloned.
func (d *decision) without() string {
	if d.o.Data.Removed {
		return removedCopy
	}
	return "the data directory is " + string(d.o.Data.State)
}

// keepsCopy returns why our copy stays until a clone from up is whole, even where two have no room; nothing if it may go
// before, since the operator has said so and the holder has what the cluster holds (I7). The copying measures the room, and
// asks the source and the lock again.
func (d *decision) keepsCopy(up Upstream) string {
	l := d.o.Lock.Leader
	switch {
	case !d.o.RemoveFirst:
		return ""
	case d.m.Reign.Active || l.Member == d.o.Name || d.ownRecord() || d.resumes():
		return "this member holds the lock, or was the last to"
	case d.o.Busy[SlotLock] == Seize || d.m.SeizeFailedAt != schema.Never && d.o.Lock.AskedAt <= d.m.SeizeFailedAt:
		return "the outcome of an attempt to take over is not known yet"
	case !d.somebodyServes() || !d.trusted() || l.Member != up.Member:
		return "no primary serves"
	case !d.o.Now.Before(d.deadAt()):
		return "the primary " + l.Member + " no longer renews its lease"
	case d.o.peer(l.Member).Liveness != schema.LivenessAlive:
		return fmt.Sprintf("the primary %s is not heard of (%s)", l.Member, d.o.peer(l.Member).Liveness)
	case !d.o.Process.Gone():
		return "postgres is not stopped"
	case slices.Contains(l.Sync.Standbys, d.o.Name):
		return fmt.Sprintf("commits count on what it has (%s)", l.Sync) // F1
	}
	return ""
}

// learnRemoved takes in that our copy was removed: from then on we have nothing, whatever Postgres was last seen at.
func (d *decision) learnRemoved() {
	removed := d.o.Data.Removed
	if removed {
		d.m.Timeline, d.m.LSN, d.m.Rejoin, d.m.NotStreaming, d.m.Inspected = 0, 0, Rejoin{}, schema.Never, false
	}
	if removed && !d.m.Removed {
		from := d.m.Clone.From.Member
		if from == "" {
			from = "whoever serves"
		}
		d.note(schema.EventRemoved, d.m.Record.Epoch, "%s; to be cloned from %s", removedCopy, from)
	}
	d.m.Removed = removed
}
