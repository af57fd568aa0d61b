package decide

import (
	"fmt"

	"howdah/consul/schema"
)

// A paused cluster is in maintenance: howdah does nothing of itself that an operator at work could stumble over. What
// it never gives up is the lease and its fence (I1, I2).
//
//	paused  =>  nobody stands but the last primary itself, the named successor of a planned release, or whom an
//	            operator asked for; no unplanned hand-over
//	paused  =>  no Clone, Rewind, nor a stop of a standby that cannot follow, but by order
//	paused  =>  a Postgres that went away unasked (pg_ctl stop, a crash) stays down, but by order

// paused reports that the cluster is in maintenance.
func (d *decision) paused() bool { return d.o.Config.Pause }

// leftAlone reports a Postgres that went away unasked while the cluster is paused: somebody may be at work on it.
func (d *decision) leftAlone() bool {
	if !d.paused() || d.o.Process.State != ProcessCrashed || d.orderedStart() {
		return false
	}
	d.say(schema.StateStopped, "postgres is gone (%s) and the cluster is paused%s: howdah restart starts it, and so does howdah resume",
		d.o.Process.Detail, d.pausedBy())
	return true
}

// pausedBy says who paused the cluster and why, for a sentence.
func (d *decision) pausedBy() string {
	c := d.o.Config
	text := ""
	if c.PauseBy != "" {
		text += " by " + c.PauseBy
	}
	if c.PauseReason != "" {
		text += fmt.Sprintf(" (%s)", c.PauseReason)
	}
	return text
}

// mayStandPaused reports whether a paused cluster lets this member stand: nobody else becomes the primary by it than
// an operator asked for.
func (d *decision) mayStandPaused() bool {
	l := d.o.Lock.Leader
	return d.resumes() && (d.o.Process.State != ProcessCrashed || d.orderedStart()) || d.judge() == lockReleased && l.Successor == d.o.Name
}
