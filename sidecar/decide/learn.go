package decide

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
)

// learn turns what was observed into memory, before anything is decided.
func (d *decision) learn() {
	for _, out := range d.o.Done {
		d.learnOutcome(out)
	}
	d.learnEpoch()
	d.learnLock()
	d.learnPostgres()
	d.learnRemoved()
	d.learnConsul()
}

// learnEpoch keeps the newest epoch that anybody ever named (I3).
func (d *decision) learnEpoch() {
	e := max(d.m.Record.Epoch, d.o.Lock.Leader.Epoch, d.o.State.History.Value.MaxEpoch(), d.m.Reign.Epoch)
	for _, p := range d.o.Peers {
		e = max(e, p.Status.Epoch)
	}
	if e > d.m.Record.Epoch {
		d.m.EpochAt = d.o.Now
		d.m.Reports.Got = nil // whoever reigns in it may have acknowledged commits since they were told
	}
	d.m.Record.Epoch = e
	switch {
	case d.o.State.Index == 0:
	case d.o.State.Leader.Exists:
		d.m.Record.Members = d.o.memberNames()
	default: // Consul may have lost its memory; we have not
		d.m.Record.Members = union(d.m.Record.Members, d.o.memberNames())
	}
	d.m.Record.Timeline = max(d.m.Record.Timeline, d.newestTimeline())
	switch r := d.m.Reign; {
	case r.Active && e > r.Epoch && !d.alive():
		d.endReign(fmt.Sprintf("epoch %d is known, and the lease of epoch %d has run out", e, r.Epoch))
	case r.Active && e > r.Epoch && r.Found != schema.Never && d.unserving():
		// The record is one that an old backup of Consul has brought back: whoever reigned since may have commits that we lack.
		d.endReign(fmt.Sprintf("epoch %d is known, and the record of epoch %d was found again with no primary running", e, r.Epoch))
	}
}

// learnLock dates the newest ModifyIndex, and squares the lock with our reign.
func (d *decision) learnLock() {
	v := d.o.Lock
	if !v.Known {
		return
	}
	s := &d.m.Seen
	// Whoever could not read the key for a while may find it as it was although it has been renewed: a backup has been brought back.
	if !s.Known || s.Index != v.Index || s.Exists != v.Exists || d.m.ConsulLost {
		*s = Seen{Known: true, Exists: v.Exists, Index: v.Index, At: d.o.Now}
		d.m.JudgedAt, d.m.Barred = schema.Never, ""
	}
	if slices.Contains(v.Leader.Members, d.o.Name) {
		d.m.Record.Named = max(d.m.Record.Named, v.Leader.Epoch)
	}
	if d.trusted() {
		d.m.Record.Follows = v.Leader.Follows
	}
	d.learnTaken(v.Leader)
	if d.m.Reign.Active {
		d.squareReign(v)
		return
	}
	if d.adoptable(v) {
		d.adopt(v)
	}
}

// learnTaken takes in an epoch that was ours without our record knowing it: we took the lock and died before the record was written.
// Between that epoch and our last reign is none, so nobody else has reigned since, and what nobody else had is not waited for (see resumes).
func (d *decision) learnTaken(l schema.Leader) {
	r := &d.m.Record
	if r.Reigned != 0 && l.Member == d.o.Name && l.Epoch == r.Epoch && l.Epoch == r.Reigned+1 {
		r.Reigned = l.Epoch
	}
}

// squareReign compares a view of the lock with the reign that we believe in.
func (d *decision) squareReign(v schema.LockView) {
	r := &d.m.Reign
	if v.Index == r.Index && v.HeldBy(r.Session) || v.AskedAt <= r.RenewedAt && v.Index < r.Index {
		return // as we left it, or older than our newest write
	}
	own := v.Leader.Member == d.o.Name && v.Leader.Epoch == r.Epoch
	switch {
	case v.Leader.Member == d.o.Name && v.HeldBy(r.Session) && v.Leader.Epoch >= r.Epoch:
		r.Index, r.Epoch = v.Index, v.Leader.Epoch // our own write, whose answer was lost
		d.m.Record.Reigned = r.Epoch
		r.WrittenPhase = v.Leader.Phase
		r.Written = v.Leader.Members
		r.Sync.Recorded = v.Leader.Sync
	case own && d.o.Session != "" && v.HeldBy(d.o.Session):
		// Our session had expired and we have taken the key again: the watch was quicker than the answer.
		r.Session, r.Index, r.WrittenPhase = v.Session, v.Index, v.Leader.Phase
		r.Written, r.Sync.Recorded = v.Leader.Members, v.Leader.Sync
		d.m.Record.Session = v.Session
	case own && !v.Held() && v.Leader.Phase != schema.PhaseReleased:
		// The session expired and nobody has come: renew takes the key again, at this index.
	case own && v.Leader.Phase == schema.PhaseReleased:
		d.endReign("released")
	case !v.Exists && d.m.Record.Epoch == r.Epoch:
		// The key was deleted and no newer epoch is known: renew puts it back if nobody else has.
	default:
		d.endReign("the lock was taken by " + v.Leader.Member)
	}
}

// adoptable reports whether the lock is ours without our knowing it: a seizure whose answer was
// lost, or a reign from before this sidecar started.
func (d *decision) adoptable(v schema.LockView) bool {
	return d.o.Busy[SlotLock] != Seize && d.o.Session != "" && v.HeldBy(d.o.Session) && v.Leader.Member == d.o.Name &&
		v.Leader.Phase != schema.PhaseReleased && v.Leader.Epoch >= d.m.Record.Epoch
}

// adopt begins a reign from the record. Its deadline is the launcher's, if that is of this epoch;
// else there is none until a renewal is answered.
func (d *decision) adopt(v schema.LockView) {
	r := Reign{
		Active: true, Epoch: v.Leader.Epoch, Phase: v.Leader.Phase, WrittenPhase: v.Leader.Phase, Session: d.o.Session,
		Index: v.Index, NextTimeline: v.Leader.NextTimeline, Written: v.Leader.Members,
		Sync: Synchronous{Recorded: v.Leader.Sync, Wanted: v.Leader.Sync}, Since: d.o.Now, Found: d.o.Now, Why: "found again after a restart",
	}
	if r.Phase == schema.PhaseStopping {
		r.Phase = schema.PhaseServing // a switchover that its sidecar did not live to finish
	}
	// It may have been started with clients kept out, until the commits that were waiting are where the record says.
	r.Sync.Closed = r.Sync.Recorded.Need > 0 && (r.Phase == schema.PhasePromoting || r.Phase == schema.PhaseRecovering)
	r.Lease = v.Leader.Lease
	if p := d.o.Process; p.Armed && p.Epoch == r.Epoch {
		r.Deadline = p.Deadline
	} else if r.Phase != schema.PhaseBootstrapping { // a promise may have been given and forgotten over a restart
		lease := v.Leader.Lease.D()
		d.m.PromisedUntil = schema.Latest(d.m.PromisedUntil, d.o.Now.Add(lease+schema.Margin(lease)))
	}
	d.m.SeizeFailedAt = schema.Never
	d.beginReign(r)
}

// beginReign makes r ours.
func (d *decision) beginReign(r Reign) {
	d.m.Reign = r
	d.m.Switch = Switch{}
	d.m.Record.Epoch = max(d.m.Record.Epoch, r.Epoch)
	d.m.Record.Reigned = r.Epoch
	d.m.Record.Session = r.Session
}

// endReign forgets our reign; fence sees to what it leaves behind.
func (d *decision) endReign(why string) {
	d.note(schema.EventDemoted, d.m.Reign.Epoch, "the reign ended: %s", why)
	d.m.Reign = Reign{}
	d.m.Switch = Switch{}
	d.m.Record.Session = ""
	d.m.Rejoin = Rejoin{}
	d.m.Following = Upstream{}
}

// learnOutcome takes in one action that ended.
func (d *decision) learnOutcome(out Outcome) {
	switch out.Action.Kind {
	case Seize:
		d.learnSeize(out)
	case Renew:
		d.learnRenew(out)
	case Release:
		if out.Result == OK {
			d.note(schema.EventReleased, out.Action.Leader.Epoch, "%s", out.Action.Why)
		}
		if out.Result == OK && d.m.Reign.Active {
			d.endReign("released: " + out.Action.Why)
		} else { // also where the watch told of the release before the answer did
			d.m.ReadAt = schema.Never
		}
	case AskPromises:
		d.learnPromises(out)
	case AskReports:
		d.learnReports(out)
	case SetSync:
		d.learnSetSync(out)
	case StartPrimary, Promote:
		switch r := &d.m.Reign; {
		case !r.Active || out.Action.Epoch != r.Epoch:
		case out.Result == OK:
			r.Sync.begun(out.Action, d.o.Now)
		default:
			r.Sync.failed(out.Action)
		}
	case CheckHistory:
		if out.Result == OK && out.StartedAt > d.m.HandledAt { // else it is about what the directory no longer holds
			d.m.Rejoin = Rejoin{Epoch: out.Action.Epoch, Checked: true, Follows: out.Follows, At: d.o.Now}
		}
	case Clone:
		if out.Result == OK {
			d.m.Rejoin, d.m.Timeline, d.m.LSN, d.m.NotStreaming, d.m.Inspected = Rejoin{}, 0, 0, schema.Never, false
			d.note(schema.EventCloned, d.m.Record.Epoch, "cloned from %s", out.Action.From.Member)
		}
	case Rewind:
		d.learnRewind(out)
	case Initdb, Adopt, Restore:
		d.learnFirstData(out)
	case StartStandby, Follow:
		if out.Result == OK {
			d.m.Following, d.m.NotStreaming = out.Action.From, schema.Never
		}
	case Reconfigure:
		d.learnReconfigure(out)
	case PutHistory:
		d.m.Reign.Noted = d.m.Reign.Noted || out.Result == OK && out.Action.Reign.Epoch == d.m.Reign.Epoch
	case RenewSession:
		if out.Result == Refused {
			d.m.SessionAt = schema.Never
		}
	}
	if out.Action.Kind.Slot() == SlotPostgres {
		d.m.HandledAt = schema.Latest(d.m.HandledAt, out.EndedAt)
	}
	d.learnRetry(out)
}

// learnFirstData takes in the first data directory of a cluster.
func (d *decision) learnFirstData(out Outcome) {
	if out.Result != OK {
		return
	}
	d.m.Record.SystemID = out.SystemID
	if out.Action.Kind == Adopt {
		d.m.Adopted = out.SystemID
	}
	d.note(schema.EventInitdb, d.m.Record.Epoch, "%s, system identifier %s", out.Action.Kind, out.SystemID)
}

// learnRetry holds back what has failed. An action on Postgres waits 0.5 s, then twice as long each
// time, up to 30 s; the quick ones wait a moment. The lock's actions are spaced by their own rules.
func (d *decision) learnRetry(out Outcome) {
	slot := out.Action.Kind.Slot()
	r := &d.m.Retries[slot]
	switch {
	case slot == SlotLock || slot == SlotPromises:
		return
	case out.Result == OK && r.Kind == out.Action.Kind:
		*r = Retry{}
		return
	case out.Result == OK:
		return
	}
	n := 0
	if r.Kind == out.Action.Kind {
		n = r.Count
	}
	wait := 50 * time.Millisecond
	if slot == SlotDocs {
		wait = 200 * time.Millisecond
	}
	if slot == SlotPostgres || slot == SlotLook {
		wait = min(30*time.Second, 500*time.Millisecond<<min(n, 6))
		if out.Action.Kind == Restore { // which is dear, and what fails is most often what an operator wrote
			wait = min(5*time.Minute, 5*time.Second<<min(n, 6))
		}
		d.note(schema.EventActionFail, d.m.Record.Epoch, "%s: %s", out.Action, out.Error)
	}
	*r = Retry{Kind: out.Action.Kind, Count: n + 1, Until: d.o.Now.Add(wait), Error: out.Error}
}

// learnSeize begins a reign where a seizure was answered.
func (d *decision) learnSeize(out Outcome) {
	l := out.Action.Leader
	switch out.Result {
	case OK:
		d.m.SeizeFailedAt = schema.Never
		deadline := out.View.AskedAt.Add(l.Lease.D())
		if r := &d.m.Reign; r.Active && r.Epoch == l.Epoch { // taken again after our session had expired
			if r.RenewedAt == schema.Never { // the watch told of the takeover before the answer did, and it was adopted
				r.Why = out.Action.Why
				d.note(schema.EventElected, l.Epoch, "%s", out.Action.Why)
				d.rests(out.Action.Evidence)
			}
			r.Session, r.Index, r.RenewedAt = l.Session, out.View.Index, out.View.AskedAt
			d.prolong(deadline)
			r.Lease = l.Lease
			r.Written, r.Attempted, r.WrittenPhase, r.Sync.Recorded = l.Members, nil, l.Phase, l.Sync
			d.m.Record.Session = l.Session
			return
		}
		d.beginReign(Reign{
			Active: true, Epoch: l.Epoch, Phase: l.Phase, WrittenPhase: l.Phase, Session: l.Session, Index: out.View.Index,
			Deadline: deadline, AskedAt: out.View.AskedAt, RenewedAt: out.View.AskedAt, Since: d.o.Now, Written: l.Members, NextTimeline: l.NextTimeline, Why: out.Action.Why,
			Sync: Synchronous{Recorded: l.Sync, Wanted: l.Sync}, Lease: l.Lease,
		})
		d.note(schema.EventElected, l.Epoch, "%s", out.Action.Why)
		d.rests(out.Action.Evidence)
	case Refused, Unclear:
		d.m.SeizeFailedAt, d.m.ReadAt = d.o.Now, schema.Never
	}
}

// learnRenew moves the deadline, or has the key read.
func (d *decision) learnRenew(out Outcome) {
	r := &d.m.Reign
	l := out.Action.Leader
	if !r.Active || r.Epoch > l.Epoch || r.Session != l.Session {
		return
	}
	switch out.Result {
	case OK:
		r.Epoch, r.Index, r.RenewedAt, r.WrittenPhase = l.Epoch, out.View.Index, out.View.AskedAt, l.Phase
		r.Written, r.Attempted, r.Sync.Recorded, r.Lease = l.Members, nil, l.Sync, l.Lease
		d.prolong(out.View.AskedAt.Add(l.Lease.D()))
		d.m.Record.Epoch = max(d.m.Record.Epoch, r.Epoch)
		d.m.Record.Reigned = r.Epoch
		r.Promises = nil
	case Refused, Unclear:
		r.Attempted = union(r.Attempted, l.Members)
		if out.Result == Refused {
			d.m.ReadAt = schema.Never
		}
	}
}

// prolong moves the deadline of our reign. A lease that had run out meanwhile is not simply in force again: while it was not,
// somebody may have reigned of whom this Consul knows nothing any more.
func (d *decision) prolong(deadline schema.Instant) {
	r := &d.m.Reign
	if r.Deadline != schema.Never && !d.alive() {
		r.Found = d.o.Now
	}
	r.Deadline = schema.Latest(r.Deadline, deadline)
}

// learnPostgres keeps what a stopped Postgres can no longer tell.
func (d *decision) learnPostgres() {
	// What was seen before the last action on the directory is of what it no longer holds.
	if d.o.Data.State == DataValid && d.o.Data.At > d.m.HandledAt {
		d.m.Record.SystemID, d.m.Inspected = d.o.Data.SystemID, true
		d.m.Timeline = max(d.m.Timeline, d.o.Data.Timeline)
		d.m.LSN = max(d.m.LSN, d.o.Data.ShutdownLSN, d.o.Data.RedoLSN)
	}
	if d.o.SQL.Answers() {
		d.m.Timeline = max(d.m.Timeline, d.o.SQL.Timeline)
		d.m.LSN = max(d.m.LSN, d.o.SQL.LSN)
	}
	d.learnStall()
	if d.o.Process.State != ProcessUnknown {
		d.m.LaunchLost = schema.Never
	} else if d.m.LaunchLost == schema.Never {
		d.m.LaunchLost = d.o.Now
	}
}

// learnConsul notices Consul's going and coming back.
func (d *decision) learnConsul() {
	c := d.o.Consul
	if lost := c.Error != "" && d.o.Now.Sub(c.AnsweredAt) > d.o.lease()/3; lost != d.m.ConsulLost {
		d.m.ConsulLost = lost
		if lost {
			d.note(schema.EventConsulAway, d.m.Record.Epoch, "%s", c.Error)
		} else {
			d.note(schema.EventConsulBack, d.m.Record.Epoch, "consul answers again")
		}
	}
}

// union returns the sorted names of a and b, each once.
func union(a, b []string) []string {
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}
