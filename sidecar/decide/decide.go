package decide

import (
	"fmt"
	"time"

	"howdah/consul/schema"
)

// decision is one call of Decide: what it reads, what it will remember, what it plans.
type decision struct {
	o    *Observation
	m    Memory
	plan Plan
}

// Decide says what to do about o, and what to remember of it.
func Decide(o Observation, m Memory) (Plan, Memory) {
	d := &decision{o: &o, m: m}
	d.learn()
	d.takeOrder()
	d.keepSession()
	d.fence()
	if d.m.Reign.Active {
		d.reign()
	} else {
		d.subject()
	}
	d.tellClone()
	d.tellRewind()
	d.plan.Resumes = d.resumes()
	return d.plan, d.m
}

// DecideSaved is Decide for a member on whose disk saved is: what rests on a record that is not there yet is planned
// only once it is, the rest goes on, however long the disk takes. Decide is pure, so it may be asked twice.
func DecideSaved(o Observation, m Memory, saved Record) (Plan, Memory) {
	o.Unsaved = !m.Record.Equal(saved)
	plan, next := Decide(o, m)
	if !o.Unsaved && !next.Record.Equal(saved) {
		o.Unsaved = true
		plan, next = Decide(o, m)
	}
	return plan, next
}

// restsOnRecord reports whether an action must not be begun before the record is on disk: what takes the lock for a
// newer epoch, what changes Postgres or its directory, what tells Consul of it.
//
// The others may, and must, since a disk that hangs may be the reason for them. To ask, to stop and to let go claims
// nothing. A renewal and an extension of the launcher's deadline claim an epoch that Consul has and that only a
// promotion, which waited for the record, made writable; a sidecar that is restarted without remembering it finds it there, or
// lets the lease run out. A promise (see Promise) binds by deadAt also after a restart that forgets it.
func (k Kind) restsOnRecord() bool {
	switch k {
	case ReadLeader, Renew, Release, OpenSession, RenewSession, DropRequest, StopFast, StopNow, Checkpoint, Arm, AskPromises, AskReports:
		return false
	}
	return true
}

// do plans a, unless its slot is taken, it has failed too recently or it must wait for the record.
// It reports whether a was planned.
func (d *decision) do(a Action) bool {
	slot := a.Kind.Slot()
	if (slot == SlotPostgres || slot == SlotLook) && d.stale(a.Kind) {
		return false
	}
	if d.o.Busy[slot] != "" || d.planned(slot) || d.heldBack(a.Kind) || d.o.Unsaved && a.Kind.restsOnRecord() {
		return false
	}
	d.plan.Actions = append(d.plan.Actions, a)
	return true
}

// stale reports that what was seen of Postgres or of its directory is older than the last action on it, or than
// the last change of its process: then nothing is begun that rests on it.
func (d *decision) stale(k Kind) bool {
	if d.o.Process.At <= d.m.HandledAt {
		return true
	}
	switch k {
	case Initdb, Adopt, Restore, Clone, Rewind, StartPrimary, StartStandby, CheckHistory:
		return d.o.Data.At <= d.m.HandledAt || d.o.Data.At < d.o.Process.Since
	}
	return false
}

// stopNow stops Postgres by SIGQUIT, not more often than every 200 ms.
func (d *decision) stopNow(why string) {
	since := d.o.Now.Sub(d.m.StopAt)
	if d.m.StopAt != schema.Never && since < 200*time.Millisecond || !d.do(Action{Kind: StopNow, Why: why}) {
		return
	}
	if d.m.StopAt == schema.Never || since > 10*time.Second {
		d.note(schema.EventDemoted, d.m.Record.Epoch, "stopping postgres: %s", why)
	}
	d.m.StopAt = d.o.Now
}

// planned reports whether this plan already has an action for the slot.
func (d *decision) planned(s Slot) bool {
	for _, a := range d.plan.Actions {
		if a.Kind.Slot() == s {
			return true
		}
	}
	return false
}

// heldBack reports whether an action of this kind failed so recently that it must wait.
func (d *decision) heldBack(k Kind) bool {
	r := d.m.Retries[k.Slot()]
	return k == r.Kind && d.o.Now.Before(r.Until)
}

// say sets what people are told; the first to speak in a decision is heard.
func (d *decision) say(s schema.State, format string, args ...any) {
	if d.plan.State == "" {
		d.plan.State, d.plan.Reason = s, fmt.Sprintf(format, args...)
		for _, slot := range []Slot{SlotPostgres, SlotLook} {
			if r := d.m.Retries[slot]; r.Error != "" && d.o.Now.Before(r.Until) {
				d.plan.Reason += fmt.Sprintf(" (%s failed %d times: %s)", r.Kind, r.Count, r.Error)
			}
		}
	}
}

// note records a step for those who ask later.
func (d *decision) note(k schema.EventKind, e schema.Epoch, format string, args ...any) {
	d.plan.Events = append(d.plan.Events, schema.Event{Kind: k, Epoch: e, Detail: fmt.Sprintf(format, args...)})
}

// rests adds to the step noted last what it rests on.
func (d *decision) rests(e *schema.Evidence) { d.plan.Events[len(d.plan.Events)-1].Evidence = e }

// keepSession sees to it that there is a Consul session, so that a candidate need not
// make one first.
func (d *decision) keepSession() {
	since := d.o.Now.Sub(d.m.SessionAt)
	never := d.m.SessionAt == schema.Never
	timeout := d.o.Config.SessionTTL.D() / 4
	switch {
	case d.o.Session == "" && (never || since >= time.Second):
		if d.do(Action{Kind: OpenSession, Timeout: timeout}) {
			d.m.SessionAt = d.o.Now
		}
	case d.o.Session != "" && since >= d.o.Config.SessionTTL.D()/4:
		if d.do(Action{Kind: RenewSession, Session: d.o.Session, Timeout: timeout}) {
			d.m.SessionAt = d.o.Now
		}
	}
}

// fence stops a Postgres that could accept writes while we may not let it (I1, I2). The
// launcher does the same at the deadline by itself; this is for what it cannot know.
func (d *decision) fence() {
	p, now := d.o.Process, d.o.Now
	writable := p.Armed || d.o.SQL.Answers() && !d.o.SQL.InRecovery
	if p.State != ProcessRunning && p.State != ProcessStopping || !writable {
		return
	}
	r := d.m.Reign
	why := ""
	switch {
	case r.Active && r.Deadline != schema.Never && r.Deadline.Reached(now):
		why = "the lease has run out"
	case r.Active && r.Phase == schema.PhaseFollowing:
		why = "it accepts writes in a cluster that follows a remote primary"
	case r.Active:
		return
	case p.Armed && p.Deadline.Reached(now):
		why = "the lease has run out"
	case p.Armed && !d.o.Lock.Known:
		return // we may be the holder still; the launcher watches the deadline
	case p.Armed && d.ownRecord():
		return // about to be adopted, or judged like anybody else's
	case p.Armed:
		why = fmt.Sprintf("the lock is not ours: %s holds epoch %d", d.o.Lock.Leader.Member, d.o.Lock.Leader.Epoch)
	default:
		why = "it accepts writes without a lease"
	}
	d.stopNow(why)
	d.say(schema.StateStopping, "stopping postgres: %s", why)
}

// ownRecord reports whether the lock is held by the session that we remember as ours.
func (d *decision) ownRecord() bool {
	l := d.o.Lock
	return l.Leader.Member == d.o.Name && d.m.Record.Session != "" && l.HeldBy(d.m.Record.Session)
}

// subject is the life of a member that does not hold the lock.
func (d *decision) subject() {
	switch {
	case d.o.Process.State == ProcessUnknown:
		d.say(schema.StateUnknown, "howdah launch does not answer: %s", d.o.Process.Detail)
	case d.o.Data.State == DataUnknown:
		d.say(schema.StateUnknown, "the data directory cannot be read: %s", d.o.Data.Detail)
	case d.o.Data.State == DataForeign:
		d.say(schema.StateNeedsOperator, "%s; howdah touches nothing that it did not make: point --data-dir at an empty directory or at a PostgreSQL data directory", d.o.Data.Detail)
	case !d.o.Consul.Seen:
		d.withoutConsul()
	case !d.o.Lock.Known:
		d.readLeader()
		d.say(schema.StateWaiting, "waiting for a first answer about the leader key")
	case !d.o.State.Initialize.Exists:
		d.uninitialized()
	case d.o.State.Initialize.Value.SystemID == "":
		d.bootstrapping()
	case d.wrongCluster():
	case d.obey():
	case d.judge() == lockDead, d.judge() == lockReleased:
		d.stand()
	default:
		d.follow()
	}
}

// wrongCluster refuses a data directory of another cluster's system identifier.
func (d *decision) wrongCluster() bool {
	want := d.o.State.Initialize.Value.SystemID
	if d.o.Data.State != DataValid || d.o.Data.SystemID == want {
		return false
	}
	if d.o.Process.State == ProcessRunning {
		d.stopNow("the data directory belongs to another cluster")
	}
	d.say(schema.StateNeedsOperator, "the data directory belongs to another cluster: its system identifier is %s, that of %s is %s; "+
		"check --cluster and --data-dir, or move the directory away to have this member cloned", d.o.Data.SystemID, d.m.Record.Cluster, want)
	return true
}

// withoutConsul is what can be done before Consul has ever answered: keep a standby up.
func (d *decision) withoutConsul() {
	if d.o.Data.State == DataValid && d.o.Data.StandbySignal && d.o.Process.Gone() {
		d.do(Action{Kind: StartStandby, From: d.m.Following, Timeout: d.o.Config.StartTimeout.D(), Why: "to serve reads until consul answers"})
	}
	d.say(schema.StateWaiting, "consul does not answer: %s", d.o.Consul.Error)
}

// readLeader plans a consistent read of the leader key, not more often than every 200 ms.
func (d *decision) readLeader() {
	if d.m.ReadAt != schema.Never && d.o.Now.Sub(d.m.ReadAt) < 200*time.Millisecond {
		return
	}
	if d.do(Action{Kind: ReadLeader, Timeout: d.o.lease() / 2}) {
		d.m.ReadAt = d.o.Now
	}
}
