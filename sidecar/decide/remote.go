package decide

import (
	"cmp"

	"howdah/consul/schema"
)

// A standby cluster follows a remote primary. One member holds the lock as in any cluster; it leads, as a standby of the
// remote, and the others follow it. Its epochs and its lease are those of a reign, though there is nothing to fence but a
// mistake:
//
//	PhaseFollowing  =>  nothing is armed; a Postgres that accepts writes is stopped
//	promotion       =>  the record in Consul has left PhaseFollowing, with a timeline that neither the remote, as far as
//	                    its WAL tells, nor a reign has used
//	takeover        =>  the one who takes over follows if the record that it takes over did
//
// That it is to be promoted is said by the configuration in Consul. A configuration that is missing says nothing.

// RemotePrimary is what the remote is called where a member stands elsewhere. No member's name has a space.
const RemotePrimary = "the remote primary"

// remote is the remote as an upstream.
func (d *decision) remote() Upstream {
	return Upstream{Member: RemotePrimary, Address: d.o.Config.Follow.Address()}
}

// follows is what a leader record of that phase says of the remote.
func (d *decision) follows(p schema.Phase) string {
	if p == schema.PhaseFollowing || p == schema.PhaseBootstrapping && d.o.State.Initialize.Value.Mode == schema.InitFollow {
		return cmp.Or(d.o.Config.Follow.Address(), d.m.Record.Follows)
	}
	return ""
}

// cloneRemote makes the first data directory of a standby cluster. What it replaces is nothing, or our own unfinished clone.
func (d *decision) cloneRemote() {
	if !d.o.Config.Follow.Set() {
		d.say(schema.StateNeedsOperator, "this was to become a standby cluster, and its configuration names no remote primary any more: "+
			"set follow again, or for a new cluster delete the key howdah/%s/initialize in consul", d.m.Record.Cluster)
		return
	}
	up := d.remote()
	d.m.Clone = Cloning{From: up, Since: d.o.Now, Why: "a new standby cluster"}
	d.plan.CloneFrom = up.Member
	d.do(Action{Kind: Clone, From: up, Holder: up, Why: d.m.Clone.Why})
	d.say(schema.StateCloning, "cloning from %s at %s: a new standby cluster", up.Member, up.Address)
}

// lead is the reign of the member that follows the remote.
func (d *decision) lead() {
	p, follow := d.o.Process, d.o.Config.Follow
	switch {
	case p.Ending:
		d.say(schema.StateStopping, "howdah launch is ending")
		if p.Gone() {
			d.release("", 0, "howdah launch was told to end")
		}
		return
	case !follow.Set() && d.o.State.Config.Exists:
		d.m.Reign.NextTimeline = max(d.m.Reign.NextTimeline, d.unusedTimeline())
		d.m.Reign.Noted, d.m.Reign.Followed = false, true
		d.m.Reign.Why = "the standby cluster is promoted: it follows nobody any more"
		d.setPhase(schema.PhasePromoting)
		d.say(schema.StatePromoting, "%s", d.m.Reign.Why)
		return
	case !follow.Set():
		d.say(schema.StateNeedsOperator, "consul has lost the cluster's configuration, and this is a standby cluster of %s: start the sidecars with their --bootstrap-config again, or restore consul", d.m.Record.Follows)
		return
	case d.leftAlone():
		return
	case d.hang() != "" && d.handOverHung():
		return
	case p.Gone() && d.startsNot() && d.heir() != "":
		d.handOver("postgres does not start: " + d.m.Retries[SlotPostgres].Error)
		return
	}
	d.followRemote()
	if d.plan.State == schema.StateStreaming {
		d.plan.Reason = "leads a standby cluster of " + follow.Address()
		if d.m.Refused != "" {
			d.plan.Reason += "; " + d.m.Refused
		}
	}
}

// startsNot reports a standby that has failed to start again and again.
func (d *decision) startsNot() bool {
	r := d.m.Retries[SlotPostgres]
	return r.Kind == StartStandby && r.Count >= crashesInPlace
}

// followRemote has our Postgres follow the remote as those of other members follow the one that leads.
func (d *decision) followRemote() {
	up := d.remote()
	empty := d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete
	switch {
	case empty && d.paused():
		d.say(schema.StateWaiting, "the data directory is %s and the cluster is paused%s", d.o.Data.State, d.pausedBy())
	case empty:
		if d.heir() != "" {
			d.handOver("its data directory is " + string(d.o.Data.State))
			return
		}
		d.clone(up, "the data directory is "+string(d.o.Data.State))
	case d.o.Process.Gone():
		d.rejoin(up, true)
	case d.o.Process.State == ProcessStopping:
		d.say(schema.StateStopping, "postgres is stopping")
	default:
		d.steer(up, true)
	}
}
