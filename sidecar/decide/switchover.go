package decide

import (
	"fmt"
	"strings"
	"time"

	"howdah/consul/schema"
)

// verifyBound is how long the successor has to show that it holds the shutdown checkpoint.
const verifyBound = 5 * time.Second

// consider takes up a request that concerns us, or drops one that is void.
func (d *decision) consider() {
	req := d.o.State.Request
	if !req.Exists {
		return
	}
	if d.carriedOut(req.Value) {
		d.do(Action{Kind: DropRequest, Index: req.Index, Timeout: d.o.lease(), Why: "it was carried out"})
		return
	}
	if req.Value.Kind == schema.RequestFailover { // carried out, or of no use: there is a primary
		d.do(Action{Kind: DropRequest, Index: req.Index, Timeout: d.o.lease(), Why: "there is a primary"})
		return
	}
	why := d.refusal(req.Value)
	if req.Value.ID == d.m.Switch.ID {
		why = "it was given up"
	}
	if why != "" {
		if d.do(Action{Kind: DropRequest, Index: req.Index, Timeout: d.o.lease(), Why: why}) {
			d.note(schema.EventActionFail, d.m.Reign.Epoch, "switchover refused: %s", why)
		}
		return
	}
	to := req.Value.To
	if to == "" {
		to = d.successor()
	}
	d.m.Switch = Switch{ID: req.Value.ID, To: to, Step: StepCheckpoint, Since: d.o.Now}
	d.switchover()
}

// carriedOut reports a request whose end is reached: who was asked to let go is the primary no more, and we, whom it named
// or left open, are.
func (d *decision) carriedOut(r schema.Request) bool {
	return r.Kind == schema.RequestSwitchover && r.From != "" && r.From != d.o.Name && (r.To == "" || r.To == d.o.Name)
}

// refusal returns why a request cannot be carried out; nothing if it can.
func (d *decision) refusal(r schema.Request) string {
	switch {
	case r.Kind != schema.RequestSwitchover:
		return fmt.Sprintf("howdah does not know the request %q", r.Kind)
	case r.From != "" && r.From != d.o.Name:
		return fmt.Sprintf("it was asked of %s, and %s is the primary", r.From, d.o.Name)
	case r.To == d.o.Name:
		return d.o.Name + " is the primary already"
	}
	if why := Unready(d.o, d.m, r.To); why != "" {
		return why
	}
	return ""
}

// Unready returns why member to may not follow in a planned switchover; nothing if it may. An empty
// name stands for the best candidate.
func Unready(o *Observation, m Memory, to string) string {
	d := &decision{o: o, m: m}
	if to == "" {
		if d.successor() != "" {
			return ""
		}
		return "no member may be promoted at the moment: " + d.peerBars()
	}
	p := o.peer(to)
	s := p.Status
	switch bar := d.peerBar(p); {
	case p.Liveness != schema.LivenessAlive:
		return fmt.Sprintf("member %s is not heard of (%s)", to, p.Liveness)
	case s.Tags.NoFailover:
		return fmt.Sprintf("member %s has its nofailover tag set", to)
	case s.State != schema.StateStreaming:
		return strings.TrimSpace(fmt.Sprintf("member %s does not stream: %s %s", to, s.State, s.Reason))
	case bar != "":
		return fmt.Sprintf("member %s may not be promoted: %s", to, bar)
	}
	return ""
}

// peerBars says of every other member why it may not be promoted.
func (d *decision) peerBars() string {
	var bars []string
	for _, c := range d.candidates()[1:] {
		bars = append(bars, c.Member+": "+c.Bar)
	}
	if len(bars) == 0 {
		return "no other member is known"
	}
	return strings.Join(bars, "; ")
}

// switchover carries on from the step that has been reached. No acknowledged write is lost: the
// lock is released only after Postgres has stopped and the successor has its shutdown checkpoint.
func (d *decision) switchover() {
	sw := &d.m.Switch
	if n := d.o.SQL.Transactions; sw.Step == StepDrain && n > 0 {
		d.say(schema.StateStopping, "switchover to %s: waiting for %d transactions, at most switchover_drain (%s)", sw.To, n, d.o.Config.DrainBound())
	}
	d.say(schema.StateStopping, "switchover to %s: %s", sw.To, sw.Step)
	switch sw.Step {
	case StepCheckpoint:
		d.checkpointFirst()
	case StepDrain:
		d.plan.Stopping = true
		d.drain()
	case StepStop:
		d.plan.Stopping = true
		d.stopCleanly()
	case StepVerify:
		d.plan.Stopping = true
		d.verifyAndRelease()
	}
}

func (d *decision) step(s Step) { d.m.Switch.Step, d.m.Switch.Since = s, d.o.Now }

// checkpointFirst makes the shutdown checkpoint short, while clients still write.
func (d *decision) checkpointFirst() {
	sw := &d.m.Switch
	if d.checkpointed(sw.ID) {
		d.step(StepDrain)
		d.setPhase(schema.PhaseStopping)
		d.plan.Stopping, d.plan.Hurry = true, true
		return
	}
	d.do(Action{Kind: Checkpoint, Timeout: d.o.Config.StopTimeout.D(), Why: sw.ID})
}

// hearsay is how long routers may take to hear of a stop: only who looks later sees all that they let through.
const hearsay = 20 * time.Millisecond

// drain lets the transactions under way end. Routers begin no new ones: the wait is theirs too.
func (d *decision) drain() {
	if d.draining(d.m.Switch.Since) {
		d.plan.Hurry = true
		return
	}
	d.step(StepStop)
	d.stopCleanly()
}

// draining reports whether a stop that was told of at since is still to wait for transactions. Whatever else happens to Postgres, to the launcher or
// to the lease ends the wait: a lease of which half is gone is not being renewed, and the rest is for the stop.
func (d *decision) draining(since schema.Instant) bool {
	p, sql, now := d.o.Process, d.o.SQL, d.o.Now
	switch {
	case p.State != ProcessRunning || p.Ending || !sql.Answers():
		return false
	case d.m.Reign.Deadline.Sub(now) < d.o.lease()/2:
		return false
	case now.Sub(since) >= d.o.Config.DrainBound():
		return false
	}
	seen := sql.At.Sub(since)
	// What has begun since then came past the routers, and there may always be more of it.
	return seen < hearsay || sql.Transactions > 0 && sql.Oldest > seen-hearsay
}

// stopCleanly stops Postgres, and takes it up again if that takes too long.
func (d *decision) stopCleanly() {
	p, since := d.o.Process, d.o.Now.Sub(d.m.Switch.Since)
	switch {
	case p.Gone() && d.o.Data.At >= p.Since:
		d.m.HealthyAt = schema.Never
		d.step(StepVerify)
		d.verifyAndRelease()
	case p.Gone():
	case since > d.o.Config.StopTimeout.D():
		d.stopNow("the clean stop took longer than stop_timeout")
	default:
		d.do(Action{Kind: StopFast, Timeout: d.o.Config.StopTimeout.D(), Why: "switchover"})
	}
}

// verifyAndRelease lets go once the successor has every byte; else the primary comes back in place.
func (d *decision) verifyAndRelease() {
	sw, end := d.m.Switch, d.o.Data.ShutdownLSN
	d.plan.Hurry = true
	s := d.o.peer(sw.To).Status
	switch {
	case end == 0:
		d.giveUpSwitch("postgres was not stopped cleanly")
	case s.LSN >= end:
		d.release(sw.To, end, "switchover to "+sw.To)
	case d.o.Now.Sub(sw.Since) > verifyBound:
		d.giveUpSwitch(fmt.Sprintf("%s has WAL up to %s and the shutdown checkpoint ends at %s", sw.To, s.LSN, end))
	}
}

// giveUpSwitch returns to serving; revive starts Postgres again.
func (d *decision) giveUpSwitch(why string) {
	d.note(schema.EventActionFail, d.m.Reign.Epoch, "switchover to %s given up: %s", d.m.Switch.To, why)
	if req := d.o.State.Request; req.Exists {
		d.do(Action{Kind: DropRequest, Index: req.Index, Timeout: d.o.lease(), Why: why})
	}
	d.m.Switch = Switch{ID: d.m.Switch.ID}
	d.setPhase(schema.PhaseServing)
}
