package decide

import (
	"time"

	"howdah/consul/schema"
)

// streamPatience is how long a standby may be without a WAL receiver before its history is
// checked against the leader's: longer than a reconnect, which wal_retrieve_retry_interval bounds.
const streamPatience = 5 * time.Second

// follow is the life of a member while another one reigns, or may still do so.
func (d *decision) follow() {
	l := d.o.Lock.Leader
	if d.leftAlone() {
		return
	}
	if l.Member == d.o.Name || l.Member == "" {
		if d.o.Process.Gone() && d.o.Data.StandbySignal {
			d.startStandby(Upstream{}, "to be ready while the lock is free")
		}
		d.say(schema.StateWaiting, "waiting until the lease of epoch %d has surely run out", l.Epoch)
		return
	}
	up := Upstream{Member: l.Member, Address: l.Addresses.Postgres}
	// Whom an old record names, out of a restored Consul, does not serve: nothing is brought onto its history.
	serves := (l.Phase == schema.PhaseServing || l.Phase == schema.PhaseStopping || l.Phase == schema.PhaseRecovering || l.Phase == schema.PhaseFollowing) && d.trusted()
	d.plan.Hurry = l.Phase == schema.PhaseStopping
	switch {
	case (d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete) && d.paused():
		d.say(schema.StateWaiting, "%s, and the cluster is paused%s: howdah reinit clones it", d.without(), d.pausedBy())
	case d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete:
		if serves {
			d.clone(up, d.without())
		}
		d.say(schema.StateWaiting, "waiting for %s to serve, to clone from it: %s", l.Member, d.without())
	case d.o.Process.Gone():
		d.rejoin(up, serves)
	case d.o.Process.State == ProcessStopping:
		d.say(schema.StateStopping, "postgres is stopping")
	default:
		d.steer(up, serves)
	}
}

// rejoin brings a stopped Postgres back under the leader.
func (d *decision) rejoin(up Upstream, serves bool) {
	epoch := d.o.Lock.Leader.Epoch
	checked := d.m.Rejoin.Checked && d.m.Rejoin.Epoch == epoch
	switch {
	case !serves && d.o.Data.StandbySignal:
		d.startStandby(d.m.Following, "a standby is up while the next primary is made")
	case !serves:
		d.say(schema.StateWaiting, "waiting for %s to serve", up.Member)
	case checked && !d.m.Rejoin.Follows && d.paused():
		d.say(schema.StateWaiting, "its history does not lead to that of %s, and the cluster is paused%s: howdah reinit clones it", up.Member, d.pausedBy())
	case checked && !d.m.Rejoin.Follows:
		d.repair(up, epoch)
	case checked || d.o.Data.StandbySignal:
		d.startStandby(up, "to follow "+up.Member)
	default:
		d.checkHistory(up, epoch, "it was a primary")
	}
}

// steer keeps a running standby on the leader.
func (d *decision) steer(up Upstream, serves bool) {
	sql := d.o.SQL
	if !sql.Answers() {
		d.m.NotStreaming = schema.Never
		d.say(schema.StateStarting, "postgres does not answer yet")
		// One that was rewound needs WAL of its source before it is consistent; the source may be gone by then.
		if serves && sql.State == SQLStarting && d.o.Now.Sub(d.o.Process.Since) >= d.o.Config.StartTimeout.D() {
			d.unstick(up, true)
		}
		return
	}
	if !sql.InRecovery {
		d.say(schema.StateStopping, "postgres accepts writes and must not")
		return
	}
	if serves && d.m.Following != up {
		d.do(Action{Kind: Follow, From: up, Why: "the primary is " + up.Member})
	}
	d.keepConfigured()
	if sql.Streaming {
		if d.m.NotStreaming != schema.Never {
			d.note(schema.EventFollowing, d.o.Lock.Leader.Epoch, "streaming from %s", up.Member)
		}
		d.m.NotStreaming = schema.Never
		d.say(schema.StateStreaming, "%s", d.m.Refused)
		return
	}
	if d.m.NotStreaming == schema.Never {
		d.m.NotStreaming = d.o.Now
	}
	d.say(schema.StateRunning, "no WAL receiver is connected to %s", up.Member)
	if serves {
		d.unstick(up, d.o.Now.Sub(d.m.NotStreaming) >= streamPatience)
	}
}

// unstick finds out why a standby does not stream or does not come up, once it has been waited for, and stops it
// where it cannot go on as it is.
func (d *decision) unstick(up Upstream, waited bool) {
	if d.paused() {
		return
	}
	epoch := d.o.Lock.Leader.Epoch
	r := d.m.Rejoin
	current := r.Checked && r.Epoch == epoch
	switch {
	case current && !r.Follows, d.o.Process.WALMissing && waited:
		if !d.do(Action{Kind: StopFast, Timeout: d.o.Config.StopTimeout.D(), Why: "it cannot follow " + up.Member + " as it is"}) {
			return
		}
		d.m.Rejoin = Rejoin{Epoch: epoch, Checked: true, At: d.o.Now}
		if d.o.Process.WALMissing {
			d.m.Rewinds = Rewinds{Epoch: epoch, Over: true, Why: "the WAL that it needs is gone"}
		}
	case waited && (!current || d.o.Now.Sub(r.At) >= 2*streamPatience):
		d.checkHistory(up, epoch, "no WAL has come for some time")
	}
}

func (d *decision) checkHistory(up Upstream, epoch schema.Epoch, why string) {
	d.do(Action{Kind: CheckHistory, From: up, Epoch: epoch, Timeout: 10 * time.Second, Why: why})
	d.say(schema.StateWaiting, "checking the history against that of %s: %s", up.Member, why)
}

func (d *decision) startStandby(up Upstream, why string) {
	d.do(Action{Kind: StartStandby, From: up, Timeout: d.o.Config.StartTimeout.D(), Why: why})
	d.say(schema.StateStarting, "starting as a standby: %s", why)
}
