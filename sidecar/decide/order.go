package decide

import (
	"fmt"
	"slices"

	"howdah/consul/schema"
)

// cloneTries is how often a clone that was ordered is tried before the old directory is started again.
const cloneTries = 3

// Order is what an operator ordered this member to do; one at a time.
type Order struct {
	ID   string
	Kind schema.OrderKind
}

// Ordered is how far the newest order has come.
type Ordered struct {
	ID   string
	Kind schema.OrderKind
	Step Step
	// Since is when the step began.
	Since schema.Instant
	// Primary is set where the order was begun by the holder of the lock.
	Primary bool
	// Over is set at the end; Why then says why it came to nothing.
	Over bool
	Why  string
}

// ordering reports that an order is being carried out.
func (d *decision) ordering() bool {
	return d.o.Order.ID != "" && d.m.Ordered.ID == d.o.Order.ID && !d.m.Ordered.Over
}

// orderedStart reports that Postgres is down because of an order, and is to come up again.
func (d *decision) orderedStart() bool { return d.ordering() && d.m.Ordered.Step == StepStart }

func (d *decision) orderStep(s Step) { d.m.Ordered.Step, d.m.Ordered.Since = s, d.o.Now }

// endOrder ends the order; why says why it came to nothing, empty that it was carried out.
func (d *decision) endOrder(why string) {
	ord := &d.m.Ordered
	ord.Over, ord.Why, ord.Step = true, why, StepNone
	if why != "" {
		d.note(schema.EventActionFail, d.m.Record.Epoch, "%s given up: %s", ord.Kind, why)
		return
	}
	d.note(schema.EventOrdered, d.m.Record.Epoch, "%s done", ord.Kind)
}

// takeOrder begins an order that is new, and ends one that is done or cannot be.
func (d *decision) takeOrder() {
	new := d.o.Order
	if new.ID != "" && new.ID != d.m.Ordered.ID {
		d.m.Ordered = Ordered{ID: new.ID, Kind: new.Kind, Step: StepStop, Since: d.o.Now, Primary: d.m.Reign.Active}
		if why := Unable(d.o, d.m, new.Kind); why != "" {
			d.endOrder(why)
			return
		}
		if d.m.Reign.Active && !d.o.Process.Gone() {
			d.m.Ordered.Step = StepCheckpoint
		}
	}
	if d.ordering() {
		d.judgeOrder()
	}
}

// judgeOrder ends an order that is done, that was overtaken, or that has had its time.
func (d *decision) judgeOrder() {
	ord, sql := d.m.Ordered, d.o.SQL
	took := d.o.Now.Sub(ord.Since)
	for _, out := range d.o.Done {
		if k := out.Action.Kind; ord.Step == StepStart && out.Result != OK && (k == StartPrimary || k == StartStandby) {
			d.endOrder(out.Error)
			return
		}
	}
	up := ord.Step == StepStart && d.o.Process.State == ProcessRunning && sql.Answers()
	switch {
	case d.m.Reign.Active && !ord.Primary && ord.Step == StepStart:
		d.m.Ordered.Primary = true // the last primary, started again, goes on
	case ord.Primary != d.m.Reign.Active:
		d.endOrder("the primary has changed meanwhile")
	case up && ord.Primary && !sql.InRecovery && d.m.Reign.Phase != schema.PhasePromoting && d.m.Reign.Phase != schema.PhaseRecovering:
		d.endOrder("")
	case up && !ord.Primary && sql.InRecovery && (sql.Streaming || !d.somebodyServes()):
		d.endOrder("")
	case ord.Step == StepStop && took > 2*d.o.Config.StopTimeout.D():
		d.endOrder("postgres does not stop: " + d.o.Process.Detail)
	case ord.Step == StepStart && took > d.o.Config.StartTimeout.D() && !sql.Answers():
		d.endOrder("postgres has not come up within start_timeout (" + d.o.Config.StartTimeout.String() + ")")
	case ord.Step == StepStart && took > d.o.Config.StartTimeout.D() && !ord.Primary:
		d.endOrder(fmt.Sprintf("postgres runs, and does not stream from %s", d.o.Lock.Leader.Member))
	case ord.Step == StepClone && d.m.Retries[SlotPostgres].Kind == Clone && d.m.Retries[SlotPostgres].Count >= cloneTries:
		left := "and the data directory is as it was: "
		if d.o.Data.Removed {
			left = "and this member has no copy of its own any more, and is cloned as soon as it can be: "
		}
		d.endOrder("the clone has failed again and again, " + left + d.m.Retries[SlotPostgres].Error)
	}
}

// somebodyServes reports that another member holds the lock and serves, as far as the record says.
func (d *decision) somebodyServes() bool {
	v := d.o.Lock
	return v.Held() && v.Leader.Member != d.o.Name && (v.Leader.Phase == schema.PhaseServing || v.Leader.Phase == schema.PhaseFollowing)
}

// Unable returns why this member cannot carry out an order of that kind now; nothing if it can.
func Unable(o *Observation, m Memory, k schema.OrderKind) string {
	d := &decision{o: o, m: m}
	busy := o.Busy[SlotPostgres]
	switch {
	case o.Process.State == ProcessUnknown:
		return "howdah launch does not answer: " + o.Process.Detail
	case o.Process.Ending:
		return "howdah launch is ending"
	case !o.Consul.Seen || !o.Lock.Known:
		return "consul has not answered yet"
	case m.Switch.Step != StepNone || m.Reign.HandOver != "":
		return "it is handing over"
	case m.Reign.Active && m.Reign.Phase == schema.PhaseFollowing:
		return "it leads a standby cluster: stop its sidecar and its launcher, another member leads then, and start them again"
	case m.Reign.Active && m.Reign.Phase != schema.PhaseServing:
		return fmt.Sprintf("it holds the lock and does not serve yet (%s)", m.Reign.Phase)
	case busy == Initdb || busy == Restore || busy == Clone || busy == Rewind || busy == StartPrimary || busy == StartStandby || busy == Promote:
		return fmt.Sprintf("it is busy (%s); try again when that has ended", busy)
	case k == schema.OrderReinit:
		return d.cannotReinit()
	case o.Data.State != DataValid:
		return fmt.Sprintf("its data directory is %s", o.Data.State)
	case !m.Reign.Active && !o.Data.StandbySignal && !d.somebodyServes() && !d.resumes():
		return "it was a primary and nobody serves: it starts again once it may"
	}
	return ""
}

// cannotReinit returns why the data directory may not be cloned anew; nothing if it may. I7: an operator has asked,
// and the holder of the lock has what the cluster holds.
func (d *decision) cannotReinit() string {
	l := d.o.Lock.Leader
	switch {
	case d.m.Reign.Active || l.Member == d.o.Name:
		return "it is the primary, or was the last: there is nobody to clone from; howdah switchover first"
	case !d.somebodyServes() || !d.trusted():
		return "there is no primary to clone from"
	case !d.o.Now.Before(d.deadAt()):
		return "the primary " + l.Member + " no longer renews its lease: there is nobody to clone from"
	case d.o.peer(l.Member).Liveness != schema.LivenessAlive:
		return fmt.Sprintf("the primary %s is not heard of (%s): there is nobody to clone from", l.Member, d.o.peer(l.Member).Liveness)
	case d.o.Data.State == DataUnknown || d.o.Data.State == DataForeign:
		return "its data directory cannot be replaced: " + d.o.Data.Detail
	}
	return ""
}

// obey carries on the order of a member that does not hold the lock. It reports whether that is all that may be done
// with Postgres now; once it is only to be started again, the ordinary rules do that.
func (d *decision) obey() bool {
	if !d.ordering() {
		return false
	}
	ord, p := &d.m.Ordered, d.o.Process
	if ord.Step == StepStop && p.Gone() {
		if ord.Kind == schema.OrderReinit {
			d.orderStep(StepClone)
		} else {
			d.orderStep(StepStart)
		}
	}
	switch ord.Step {
	case StepStop:
		d.say(schema.StateStopping, "stopping postgres: an operator ordered a %s", ord.Kind)
		d.stopForOrder(false)
		return true
	case StepClone:
		return d.cloneForOrder()
	}
	return false
}

// stopForOrder stops Postgres: cleanly, unless that would end the wait of commits or takes too long.
func (d *decision) stopForOrder(commitsWait bool) {
	switch {
	case d.o.Process.Gone():
	case commitsWait:
		d.stopNow("a restart was ordered, and commits wait for standbys that do not stream")
	case d.o.Now.Sub(d.m.Ordered.Since) > d.o.Config.StopTimeout.D():
		d.stopNow("the clean stop took longer than stop_timeout")
	default:
		d.do(Action{Kind: StopFast, Timeout: d.o.Config.StopTimeout.D(), Why: fmt.Sprintf("an operator ordered a %s", d.m.Ordered.Kind)})
	}
}

// cloneForOrder replaces the data directory by a clone of the primary's. The old one is there until the new one is whole, unless
// two have no room and the operator has settled that it goes first.
func (d *decision) cloneForOrder() bool {
	for _, out := range d.o.Done {
		if out.Action.Kind == Clone && out.Result == OK {
			d.orderStep(StepStart)
			return false
		}
	}
	if d.o.Busy[SlotPostgres] != Clone {
		if why := d.cannotReinit(); why != "" {
			d.endOrder(why)
			return false
		}
	}
	l := d.o.Lock.Leader
	d.clone(Upstream{Member: l.Member, Address: l.Addresses.Postgres}, "an operator ordered it")
	return true
}

// restartPrimary carries on the restart of a primary within its reign: the lease is kept, nobody takes over. It
// reports whether that is all that may be done with Postgres now.
func (d *decision) restartPrimary() bool {
	if !d.ordering() {
		return false
	}
	ord, p := &d.m.Ordered, d.o.Process
	if ord.Step == StepCheckpoint && (p.Gone() || d.checkpointed(ord.ID)) {
		d.orderStep(StepDrain)
		d.setPhase(schema.PhaseStopping) // routers hold new transactions
	}
	if ord.Step == StepDrain && !d.draining(ord.Since) {
		d.orderStep(StepStop)
	}
	switch ord.Step {
	case StepCheckpoint: // so that the shutdown's own is short
		d.say(schema.StateRunning, "restarting as ordered: checkpoint")
		d.do(Action{Kind: Checkpoint, Timeout: d.o.Config.StopTimeout.D(), Why: ord.ID})
		return true
	case StepDrain:
		d.plan.Stopping, d.plan.Hurry = true, true
		d.say(schema.StateStopping, "restarting as ordered: waiting for %d transactions, at most switchover_drain (%s)", d.o.SQL.Transactions, d.o.Config.DrainBound())
		return true
	case StepStop:
		d.plan.Stopping = true
		d.say(schema.StateStopping, "stopping postgres: an operator ordered a restart")
		if !p.Gone() || d.o.Data.At < p.Since {
			d.stopForOrder(d.commitsWait())
			return true
		}
		d.m.HealthyAt = schema.Never
		d.orderStep(StepStart)
	case StepStart:
		if !p.Gone() {
			return false
		}
	}
	d.plan.Stopping = true
	d.say(schema.StateStarting, "starting postgres again: an operator ordered a restart")
	d.startInPlace("an operator ordered a restart")
	return true
}

// commitsWait reports synchronous commits that wait for standbys that are not there. A fast shutdown would end their
// wait (SyncRepWaitForLSN, src/backend/replication/syncrep.c): the client is told by a warning, and the commit is
// visible. After SIGQUIT nobody was told anything, and clients are kept out until the standbys have it.
func (d *decision) commitsWait() bool {
	set := d.m.Reign.Sync.Applied
	n := 0
	for _, r := range d.o.SQL.Replicas {
		if r.Streaming && slices.Contains(set.Standbys, r.Name) { // PostgreSQL counts no standby that still catches up
			n++
		}
	}
	return n < set.Need
}

// checkpointed reports that the checkpoint that was asked for under this name has ended, however it did.
func (d *decision) checkpointed(id string) bool {
	for _, out := range d.o.Done {
		if out.Action.Kind == Checkpoint && out.Action.Why == id {
			return true
		}
	}
	return false
}
