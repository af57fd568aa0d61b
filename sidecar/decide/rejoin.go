package decide

import (
	"fmt"

	"howdah/consul/schema"
)

// rewindTries is how often a rewind that left the directory as it was is tried under one leader.
const rewindTries = 4

// Rewinds is what came of the rewinds to the leader of one epoch.
type Rewinds struct {
	Epoch schema.Epoch
	// Tries counts those whose outcome said nothing for good.
	Tries int
	// Over says that there is to be no other one, and Why.
	Over bool
	Why  string
}

// Rewinding is what is told of the rewind that was begun last, while it runs.
type Rewinding struct{ To, Why string }

// repair brings a stopped Postgres whose history does not lead to the leader's onto it: by a rewind, which copies
// what differs, or where that is not possible or came to nothing under this leader, by a clone.
func (d *decision) repair(up Upstream, epoch schema.Epoch) {
	why := "its history does not lead to that of " + up.Member
	r, data := d.m.Rewinds, d.o.Data
	switch {
	case data.At < d.o.Process.Since:
		d.say(schema.StateWaiting, "%s; looking at the data directory", why)
	case r.Epoch == epoch && r.Over:
		d.clone(up, why+"; no rewind: "+r.Why)
	case !data.CanRewind:
		d.clone(up, why+"; no rewind: "+data.RewindWhy)
	default:
		if d.do(Action{Kind: Rewind, From: up, Epoch: epoch, Why: why}) {
			d.m.Rewinding = Rewinding{To: up.Member, Why: why}
		}
		d.say(schema.StateCloning, "rewinding to %s: %s", up.Member, why)
	}
}

// tellRewind says that a rewind runs, whatever else this member waits for. Until it ends the directory shows itself as incomplete,
// which is no reason to clone.
func (d *decision) tellRewind() {
	if r := d.m.Rewinding; d.o.Busy[SlotPostgres] == Rewind {
		d.plan.State, d.plan.Reason = schema.StateCloning, fmt.Sprintf("rewinding to %s: %s", r.To, r.Why)
	}
}

// learnRewind remembers, for the leader's epoch, whether another rewind is worth trying. A directory that was left
// half-way shows itself as incomplete.
func (d *decision) learnRewind(out Outcome) {
	r := &d.m.Rewinds
	if r.Epoch != out.Action.Epoch {
		*r = Rewinds{Epoch: out.Action.Epoch}
	}
	switch out.Result {
	case OK:
		d.m.Rejoin, d.m.Timeline, d.m.LSN, d.m.NotStreaming, d.m.Inspected = Rejoin{}, 0, 0, schema.Never, false
		r.Over, r.Why = true, "it has been rewound once"
		d.note(schema.EventRewound, d.m.Record.Epoch, "rewound to %s", out.Action.From.Member)
	case Refused:
		r.Over, r.Why = true, out.Error
	case Unclear:
		r.Tries++
		r.Over, r.Why = r.Tries >= rewindTries, out.Error
	}
}
