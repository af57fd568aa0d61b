package decide

import (
	"cmp"
	"fmt"
	"time"

	"howdah/consul/schema"
)

const (
	// recoveryRate is how fast crash recovery is expected to replay WAL, in bytes per second: a
	// cautious figure for one core and data that is mostly cached.
	recoveryRate = 64 << 20
	// crashesInPlace is how often a crashed primary is restarted in place before it hands over instead.
	crashesInPlace = 3
	// healthyFor is how long Postgres must run for its crashes to be forgotten.
	healthyFor = time.Minute
	// listenGrace is how long a postmaster that was just forked may take before it listens.
	listenGrace = 10 * time.Second
)

// serve is the reign of a primary that has been promoted.
func (d *decision) serve() {
	p, sql := d.o.Process, d.o.SQL
	if d.m.Switch.Step != StepNone {
		d.switchover()
		return
	}
	switch {
	case p.Ending:
		d.bow()
	case d.restartPrimary():
	case p.Gone():
		d.revive()
	case p.State == ProcessStopping:
		d.say(schema.StateStopping, "postgres is stopping")
	case d.hang() != "" && d.handOverHung():
	case sql.Answers() && !sql.InRecovery:
		d.thrive()
	case sql.Answers():
		d.setPhase(schema.PhasePromoting) // started as a standby while we reign
	case sql.State == SQLStarting || d.o.Now.Sub(p.Since) < listenGrace:
		d.say(schema.StateStarting, "postgres does not answer yet")
		if d.o.Now.Sub(p.Since) > d.o.Config.StartTimeout.D() && d.heir() != "" {
			d.handOver("postgres has not started within start_timeout (" + d.o.Config.StartTimeout.String() + ")")
		}
	default:
		d.say(schema.StateUnknown, "%s", cmp.Or(d.hang(), "postgres leaves probes unanswered"))
	}
}

// thrive is a primary that is well: it remembers so, and listens for requests.
func (d *decision) thrive() {
	d.setPhase(schema.PhaseServing) // a stop that was begun and did not come to its end
	if d.m.HealthyAt == schema.Never {
		d.m.HealthyAt = d.o.Now
		if d.m.Crashes > 0 {
			d.note(schema.EventRestarted, d.m.Reign.Epoch, "postgres accepts writes again")
		}
	}
	if d.o.Now.Sub(d.m.HealthyAt) >= healthyFor {
		d.m.Crashes = 0
	}
	d.keepSync()
	d.consider()
	d.keepConfigured()
	if why := d.hang(); why != "" {
		d.say(schema.StateRunning, "%s, and no other member may be promoted", why)
	}
	d.say(schema.StateRunning, "%s", cmp.Or(d.failsafe(), d.m.Refused))
}

// bow lets the lock go while howdah launch ends: it stops Postgres cleanly, so that nothing is lost,
// and a standby need not wait for the lease to run out.
func (d *decision) bow() {
	d.plan.Stopping = true
	d.setPhase(schema.PhaseStopping)
	d.say(schema.StateStopping, "howdah launch is ending")
	if d.o.Process.Gone() && d.o.Data.At >= d.o.Process.Since {
		d.release("", d.o.Data.ShutdownLSN, "howdah launch was told to end")
	}
}

// revive answers the death of a primary's Postgres with whichever is quicker and safe: crash recovery
// in place, which loses nothing, or a hand-over, which asynchronously may lose the last moments.
func (d *decision) revive() {
	p, r := d.o.Process, d.m.Reign
	if d.m.HealthyAt != schema.Never {
		d.m.HealthyAt = schema.Never
		d.note(schema.EventCrashed, r.Epoch, "postgres is gone: %s", p.Detail)
	}
	if d.leftAlone() || d.strange() {
		return
	}
	d.say(schema.StateCrashed, "postgres is gone: %s", p.Detail)
	if d.o.Busy[SlotPostgres] != "" || d.stale(StartPrimary) {
		return // a start is under way, or the data directory has not been looked at since
	}
	took := time.Duration(d.o.Data.RedoLSN.Behind(d.m.LSN)) * time.Second / recoveryRate
	to := d.heir()
	if to != "" && d.m.Crashes >= crashesInPlace {
		d.handOver("postgres has crashed again and again")
		return
	}
	if to != "" && took > d.o.Config.CrashRecoveryBound.D() {
		d.handOver("crash recovery is expected to take " + took.Round(time.Second).String())
		return
	}
	if d.startInPlace("crash recovery in place") {
		d.m.Crashes++
		d.note(schema.EventRecovering, r.Epoch, "restarting in place: %s", d.whyInPlace(to, took))
	}
}

// strange reports a reign that a record gave back to us, after a restart or after our lease had run out, with no primary running, while
// somebody has not been heard of since who may know a newer epoch: Consul may have been restored from a backup. A lease later it is believed.
func (d *decision) strange() bool {
	r := d.m.Reign
	if r.Found == schema.Never || d.o.Now.Sub(r.Found) > d.o.lease() || !d.unserving() {
		return false
	}
	for _, name := range union(d.m.Record.Members, d.o.memberNames()) {
		if name != d.o.Name && d.o.peer(name).HeardAt <= r.Found {
			d.say(schema.StateWaiting, "no primary runs here, and %s has not been heard of since the record gave epoch %d back: it may know of a newer one", name, r.Epoch)
			return true
		}
	}
	return false
}

// unserving reports that our Postgres accepts no writes, so that waiting ends nobody's session.
func (d *decision) unserving() bool {
	return d.o.Process.Gone() || d.o.SQL.Answers() && d.o.SQL.InRecovery
}

// startInPlace starts the Postgres of this reign again. It reports whether that is under way.
func (d *decision) startInPlace(why string) bool {
	if d.o.Busy[SlotPostgres] != "" || d.stale(StartPrimary) || !d.alive() || d.strange() || !d.syncBeforehand() {
		return false
	}
	r := d.m.Reign
	closed := r.Sync.Recorded.Need > 0
	if closed {
		d.setPhase(schema.PhasePromoting) // routers wait until the commits that were waiting are safe to be seen
	}
	return d.do(Action{
		Kind: StartPrimary, Sync: d.target(), Closed: closed, Epoch: r.Epoch, Deadline: r.Deadline, Timeout: d.o.Config.StartTimeout.D(), Why: why,
	})
}

// whyInPlace says why a primary that has crashed does not hand over.
func (d *decision) whyInPlace(to string, took time.Duration) string {
	if to == "" {
		return "no standby may be promoted"
	}
	return fmt.Sprintf("crash recovery is expected to take %s, no longer than crash_recovery_bound (%s), and loses nothing; %s could have followed",
		took.Round(10*time.Millisecond), d.o.Config.CrashRecoveryBound, to)
}

// successor returns the best member that may be promoted; empty if there is none.
func (d *decision) successor() string {
	var best schema.Peer
	for _, p := range d.o.Peers {
		if !d.peerFit(p) {
			continue
		}
		higher := p.Status.Tags.Priority - best.Status.Tags.Priority
		if best.Name == "" || higher > 0 || higher == 0 && p.Status.LSN > best.Status.LSN {
			best = p
		}
	}
	return best.Name
}
