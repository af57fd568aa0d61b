package decide

import (
	"fmt"
	"time"

	"howdah/consul/schema"
)

// reign is the life of the member that holds the lock.
func (d *decision) reign() {
	r := &d.m.Reign
	if d.blind() {
		d.say(schema.StateUnknown, "howdah launch has not answered for %s; the lease is left to run out", d.o.Now.Sub(d.m.LaunchLost).Round(time.Second))
		return
	}
	switch {
	case d.o.Process.State == ProcessUnknown:
		d.say(schema.StateUnknown, "howdah launch does not answer: %s", d.o.Process.Detail)
	case r.HandOver != "":
		d.handOver(r.HandOver)
	case r.Phase == schema.PhaseBootstrapping:
		d.bootstrapReign()
	case r.Phase == schema.PhasePromoting || r.Phase == schema.PhaseRecovering:
		d.promote()
	case r.Phase == schema.PhaseServing || r.Phase == schema.PhaseStopping:
		d.serve()
	case r.Phase == schema.PhaseFollowing:
		d.lead()
	}
	if !d.m.Reign.Active {
		return // it has just ended
	}
	if r.HandOver == "" {
		d.renew()
	}
	d.arm()
	d.askPromises()
	d.noteReign()
}

// blind reports a launcher that has been silent for a lease, with a Postgres that does not answer
// either: it died with its launcher. While Postgres does answer, the lease is renewed on: to let it
// run out would leave a primary that nobody can stop.
func (d *decision) blind() bool {
	return d.m.LaunchLost != schema.Never && d.o.Now.Sub(d.m.LaunchLost) >= d.o.lease() && !d.o.SQL.Answers()
}

// alive reports whether our lease is in force.
func (d *decision) alive() bool {
	r := d.m.Reign
	return r.Active && r.Deadline != schema.Never && d.o.Now.Before(r.Deadline)
}

// setPhase moves the reign on; renew writes it at once.
func (d *decision) setPhase(p schema.Phase) {
	if d.m.Reign.Phase != p {
		d.m.Reign.Phase, d.m.Reign.Since = p, d.o.Now
	}
}

// record is the leader record as we would write it now.
func (d *decision) record() schema.Leader {
	r := d.m.Reign
	epoch := r.Epoch
	if d.m.Record.Epoch > epoch { // somebody has heard of a newer one: rise above it
		epoch = d.m.Record.Epoch + 1
	}
	// The deadline in force must be covered by the lease in the record, also when the configured one was just lowered.
	lease := d.o.Config.Lease
	if left := r.Deadline.Sub(d.o.Now); r.Deadline != schema.Never && left > lease.D() {
		lease = schema.Duration(left)
	}
	return schema.Leader{
		Member: d.o.Name, Epoch: epoch, Phase: r.Phase, Addresses: d.o.Addresses, Timeline: d.m.Timeline,
		NextTimeline: max(r.NextTimeline, d.m.Timeline), FlushLSN: d.m.LSN, Session: r.Session, Lease: lease, Members: d.o.memberNames(),
		Sync: r.Sync.Wanted, Follows: d.follows(r.Phase),
	}
}

// renew writes the record every lease/6, and at once when the phase has changed. The record may name a
// newer epoch than before: if anybody has heard of one, the holder of the lock rises above it.
func (d *decision) renew() {
	r := &d.m.Reign
	since := d.o.Now.Sub(r.AskedAt)
	changed := r.Phase != r.WrittenPhase || d.m.Record.Epoch > r.Epoch || !r.Sync.Wanted.Equal(r.Sync.Recorded)
	if d.o.Busy[SlotLock] != "" || d.planned(SlotLock) || since < schema.RenewInterval(d.o.lease()) && (!changed || since < 50*time.Millisecond) {
		return
	}
	if d.refusedLately() {
		d.readLeader()
		return
	}
	a := Action{Kind: Renew, Leader: d.record(), Timeout: d.o.lease() / 3}
	a.At = schema.LockView{Known: true, Exists: true, Index: r.Index, Session: r.Session}
	if v := d.o.Lock; v.Known && v.Index != r.Index && !v.HeldBy(r.Session) {
		// squareReign has left us only two such views: our own record, unlocked, or no key at all.
		if d.o.Session == "" {
			return
		}
		a.Kind, a.At, a.Why = Seize, v, "our session had expired"
		a.Leader.Session = d.o.Session
		a.Leader.Epoch = r.Epoch
	}
	if d.do(a) {
		r.AskedAt = d.o.Now
	}
}

// refusedLately reports a write of ours that was refused and whose reason has not been read yet.
func (d *decision) refusedLately() bool {
	return d.m.ReadAt == schema.Never && d.o.Lock.AskedAt < d.m.Reign.AskedAt
}

// arm passes the deadline on to the launcher whenever it has moved.
func (d *decision) arm() {
	r, p := d.m.Reign, d.o.Process
	if p.State == ProcessRunning && p.Armed && d.alive() && (p.Epoch != r.Epoch || p.Deadline < r.Deadline) {
		d.do(Action{Kind: Arm, Epoch: r.Epoch, Deadline: r.Deadline, Timeout: d.o.lease() / 6})
	}
}

// noteReign writes the reign into the history once it serves.
func (d *decision) noteReign() {
	r := &d.m.Reign
	d.keepInitialize()
	if r.Noted || r.Phase != schema.PhaseServing && r.Phase != schema.PhaseFollowing || d.o.State.Index == 0 {
		return
	}
	h := d.o.State.History
	reigns := h.Value.Reigns
	if e := h.Value.MaxEpoch(); e > r.Epoch || e == r.Epoch && !(r.Followed && reigns[len(reigns)-1].Timeline < d.m.Timeline) {
		r.Noted = true
		return
	}
	d.do(Action{Kind: PutHistory, Index: h.Index, Timeout: d.o.lease(), Reign: schema.Reign{
		Epoch: r.Epoch, Member: d.o.Name, Timeline: d.m.Timeline, LSN: d.m.LSN, Why: r.Why,
	}})
}

// promote turns our Postgres into a primary: not before the lease is in force, and not while a
// promise to the last primary binds us (I1).
func (d *decision) promote() {
	r, p, sql := &d.m.Reign, d.o.Process, d.o.SQL
	mode := d.o.Config.StartTimeout.D()
	switch {
	case !d.alive():
		d.say(schema.StatePromoting, "waiting for the lease to be confirmed")
	case d.o.Now.Before(d.m.PromisedUntil):
		d.say(schema.StatePromoting, "waiting until the promise to the last primary has run out")
	case d.strange():
		return
	case r.WrittenPhase == schema.PhaseFollowing: // nobody else may begin the same timeline, nor go on following
		d.say(schema.StatePromoting, "waiting until the leader record says that the cluster follows nobody any more")
	case d.diskSilent() && d.heir() != "" && sql.InRecovery:
		d.handOver(fmt.Sprintf("its disk has taken no write for %s", d.o.Now.Sub(d.o.DiskAt).Round(time.Second)))
	case d.o.Now.Sub(r.Since) > mode:
		d.handOver(fmt.Sprintf("the promotion has not ended within start_timeout (%s)", mode))
	case p.Gone() && d.o.Data.StandbySignal:
		d.startStandby(Upstream{}, "to be promoted")
	case !d.syncBeforehand():
	case p.Gone():
		d.do(Action{Kind: StartPrimary, Sync: d.target(), Closed: r.Sync.Recorded.Need > 0, Epoch: r.Epoch, Deadline: r.Deadline, Timeout: mode, Why: "the data directory is a primary's"})
	case sql.Answers() && !sql.InRecovery && p.Armed && p.Epoch == r.Epoch && r.Sync.Closed:
		d.setPhase(schema.PhaseRecovering)
		d.keepSync()
	case sql.Answers() && !sql.InRecovery && p.Armed && p.Epoch == r.Epoch:
		d.setPhase(schema.PhaseServing)
		d.note(schema.EventPromoted, r.Epoch, "timeline %d at %s", d.m.Timeline, d.m.LSN)
		d.say(schema.StateRunning, "")
		return
	case sql.Answers() && sql.InRecovery && p.State == ProcessRunning:
		d.do(Action{Kind: Promote, Sync: d.target(), Epoch: r.Epoch, Deadline: r.Deadline, Timeline: r.NextTimeline, Timeout: mode, Why: r.Why})
	}
	d.say(schema.StatePromoting, "promoting in epoch %d: %s", r.Epoch, r.Why)
}

// handOver lets the lock go for whoever may stand. Once begun it is not taken back; it ends with
// Postgres provably stopped and the lock released, in that order.
//
// Meanwhile the lease is not extended any more. A process that waits in the kernel for a disk does not die of SIGKILL
// until the disk goes on, so a Postgres that hangs may never be seen to be gone; then the lease runs out, and whoever
// may stand judges it as if we were dead. That is safe: such a process runs no code of its own again, so it
// acknowledges nothing, but there is no telling from outside that every process has its SIGKILL and sleeps so, and none may
// be forked or wake between two looks at /proc. The lease ends within three seconds; a proof would win no more than that.
func (d *decision) handOver(why string) {
	r := &d.m.Reign
	if r.HandOver == "" {
		r.HandOver = why
		d.note(schema.EventHandOver, r.Epoch, "%s", why)
		d.rests(&schema.Evidence{Candidates: d.candidates()})
	}
	d.say(schema.StateStopping, "handing over: %s", r.HandOver)
	if !d.o.Process.Gone() {
		d.stopNow(r.HandOver)
		return
	}
	end := d.o.Data.ShutdownLSN
	if d.o.Data.At < d.o.Process.Since {
		end = 0 // what it says may be where an earlier run ended; a successor that need not have more would lack what came since
	}
	d.release("", end, r.HandOver)
}

// release plans the conditional release. The caller has seen that Postgres is gone.
func (d *decision) release(successor string, shutdown schema.LSN, why string) {
	r := &d.m.Reign
	if v := d.o.Lock; v.Known && v.Index != r.Index && !v.HeldBy(r.Session) {
		d.endReign(why + "; our session had expired, so the lease runs out instead of a release")
		return
	}
	if d.o.Busy[SlotPostgres] != "" || d.o.Process.At <= d.m.HandledAt {
		return // a start may be under way, whose Postgres has not been seen yet
	}
	l := d.record()
	l.Phase, l.Successor, l.ShutdownLSN = schema.PhaseReleased, successor, shutdown
	l.FlushLSN = max(l.FlushLSN, shutdown)
	if d.refusedLately() {
		d.readLeader()
		return
	}
	if d.o.Now.Sub(r.AskedAt) < 10*time.Millisecond {
		return
	}
	if d.do(Action{Kind: Release, At: schema.LockView{Known: true, Exists: true, Index: r.Index, Session: r.Session}, Leader: l, Timeout: d.o.lease() / 3, Why: why}) {
		r.AskedAt = d.o.Now
	}
}

// keepInitialize writes the initialize key again if Consul has lost it, or if a member that has nothing has
// claimed it since.
func (d *decision) keepInitialize() {
	init := d.o.State.Initialize
	if p := d.m.Reign.Phase; p != schema.PhaseServing && p != schema.PhaseFollowing || d.o.State.Index == 0 || d.m.Record.SystemID == "" || init.Exists && init.Value.SystemID != "" {
		return
	}
	d.do(Action{Kind: PutInitialize, Index: init.Index, Timeout: d.o.lease(), Why: "consul has lost the initialize key",
		Initialize: schema.Initialize{SystemID: d.m.Record.SystemID, By: d.o.Name, Mode: "recovered"}})
}
