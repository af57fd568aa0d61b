package decide

import (
	"howdah/consul/schema"
)

// uninitialized is a cluster of which Consul has no initialize key: a new one, or one whose
// Consul has lost its memory. Only what members hold can tell the two apart (I7).
func (d *decision) uninitialized() {
	for _, p := range d.o.Peers {
		if id := p.Status.SystemID; id != "" && id != d.o.Data.SystemID {
			d.say(schema.StateWaiting, "consul holds nothing of cluster %s, yet member %s has its data (system identifier %s): "+
				"waiting for that member to write the initialize key again", d.m.Record.Cluster, p.Name, id)
			return
		}
	}
	switch d.o.Data.State {
	case DataValid:
		if d.m.Record.Epoch == 0 {
			d.foundData()
			return
		}
		// We were a member of this very cluster: our own record says so. Consul forgot; we did not.
		d.putInitialize(schema.Initialize{SystemID: d.o.Data.SystemID, By: d.o.Name, Mode: schema.InitRecovered}, "consul has lost the initialize key; it is written again from this member's record")
	case DataEmpty, DataIncomplete:
		if d.m.Record.SystemID != "" {
			d.say(schema.StateNeedsOperator, "this member once held cluster %s (system identifier %s), now its data directory is empty and consul holds nothing: "+
				"restore consul, or bring back a member that has the data; to begin anew for good, remove the member's record beside the data directory",
				d.m.Record.Cluster, d.m.Record.SystemID)
			return
		}
		if d.o.Init == schema.InitExisting {
			d.say(schema.StateWaiting, "there is nothing to adopt (--init existing): the data directory is empty; waiting for the member whose directory is to be adopted")
			return
		}
		if d.o.Init == schema.InitRestore {
			d.putInitialize(schema.Initialize{By: d.o.Name, Mode: schema.InitRestore}, "a cluster restored from a backup")
			return
		}
		if d.o.Config.Follow.Set() {
			d.putInitialize(schema.Initialize{By: d.o.Name, Mode: schema.InitFollow}, "a new standby cluster of "+d.o.Config.Follow.Address())
			return
		}
		d.putInitialize(schema.Initialize{By: d.o.Name, Mode: schema.InitNew}, "a new cluster")
	}
}

// foundData is a data directory that no reign has known, in a cluster that is not initialised. It is adopted only where
// an operator has said so, and nobody else has data of this cluster.
func (d *decision) foundData() {
	id := d.o.Data.SystemID
	if d.o.Init == schema.InitRestore {
		d.say(schema.StateNeedsOperator, "the data directory holds a cluster (system identifier %s), and --init restore fills only an empty one: move it away; "+
			"to have it as it is, start the sidecar with --init existing", id)
		return
	}
	if d.o.Init != schema.InitExisting {
		d.say(schema.StateNeedsOperator, "the data directory holds a cluster (system identifier %s) that howdah did not make; "+
			"to adopt it, start the sidecar with --init existing; to have a new cluster, point --data-dir at an empty directory", id)
		return
	}
	for _, m := range d.o.State.Members {
		if other := m.Value.SystemID; m.Value.Name != d.o.Name && other != "" && other != id {
			d.say(schema.StateNeedsOperator, "not adopting the data directory (system identifier %s): member %s is registered with that of system identifier %s; "+
				"check --cluster, or howdah remove %s if it is gone for good", id, m.Value.Name, other, m.Value.Name)
			return
		}
	}
	for _, p := range d.o.Peers {
		if s := p.Status; s.SystemID == id && s.Timeline > d.m.Timeline {
			d.say(schema.StateNeedsOperator, "not adopting the data directory: it is on timeline %d, and member %s has that of a later primary, on timeline %d, which would be lost; "+
				"to adopt that one, move this one away to have this member cloned", d.m.Timeline, p.Name, s.Timeline)
			return
		}
	}
	if d.o.Data.StandbySignal {
		d.say(schema.StateWaiting, "the data directory is a standby's, which is not adopted as a primary: waiting for the member that has the primary's, "+
			"started with --init existing; if this is all there is, promote it with pg_ctl promote first, stop it again, and start the sidecar")
		return
	}
	d.putInitialize(schema.Initialize{By: d.o.Name, Mode: schema.InitExisting}, "the data directory is adopted, system identifier "+id)
}

func (d *decision) putInitialize(v schema.Initialize, why string) {
	d.do(Action{Kind: PutInitialize, Initialize: v, Index: d.o.State.Initialize.Index, Timeout: d.o.lease(), Why: why})
	d.say(schema.StateWaiting, "writing the initialize key: %s", why)
}

// bootstrapping is a cluster whose first initdb has been claimed and is not done. Only the member
// that claimed it may go on: there is one initdb for a cluster, ever.
func (d *decision) bootstrapping() {
	by := d.o.State.Initialize.Value.By
	if by != d.o.Name {
		d.say(schema.StateWaiting, "member %s makes the first data directory; if it is gone for good, delete the key howdah/%s/initialize in consul", by, d.m.Record.Cluster)
		return
	}
	if d.o.Lock.Held() {
		d.judge() // our own from before a restart, or somebody's mistake: it runs out
		d.say(schema.StateWaiting, "waiting for the lock, which %s holds", d.o.Lock.Leader.Member)
		return
	}
	d.seize(schema.PhaseBootstrapping, "bootstrap")
	d.say(schema.StateInitializing, "taking the lock for the first initdb")
}

// bootstrapReign is what the holder does until the first data directory stands.
func (d *decision) bootstrapReign() {
	init := d.o.State.Initialize
	existing, restore := init.Value.Mode == schema.InitExisting, init.Value.Mode == schema.InitRestore
	follow := init.Value.Mode == schema.InitFollow
	nothing := d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete
	switch {
	case restore && nothing:
		d.restore()
	case existing && nothing:
		d.say(schema.StateNeedsOperator, "the data directory that was to be adopted is gone: bring it back, or for a new cluster delete the key howdah/%s/initialize in consul", d.m.Record.Cluster)
	case (existing || restore) && d.o.Data.State == DataValid && init.Value.SystemID == "" && d.m.Adopted != d.o.Data.SystemID:
		d.do(Action{Kind: Adopt, Why: "an operator asked for it"})
		d.say(schema.StateInitializing, "adopting the data directory")
	case follow && nothing:
		d.cloneRemote()
	case nothing:
		d.do(Action{Kind: Initdb, Why: "bootstrap"})
	case d.o.Data.State == DataValid && init.Value.SystemID == "":
		d.do(Action{Kind: PutInitialize, Index: init.Index, Timeout: d.o.lease(),
			Initialize: schema.Initialize{SystemID: d.o.Data.SystemID, By: d.o.Name, Mode: init.Value.Mode}, Why: "the first data directory is ready"})
	case d.o.Data.State == DataValid && init.Value.SystemID == d.o.Data.SystemID && follow:
		d.setPhase(schema.PhaseFollowing)
	case d.o.Data.State == DataValid && init.Value.SystemID == d.o.Data.SystemID:
		d.setPhase(schema.PhasePromoting)
	}
	d.say(schema.StateInitializing, "making the first data directory")
}

// restore has the first data directory fetched from a backup. It appears recovered and whole, or not at all; then it is
// adopted like any other.
func (d *decision) restore() {
	if d.o.Init != schema.InitRestore {
		d.say(schema.StateNeedsOperator, "this member has begun to restore the cluster from a backup, and is started without --init restore: start it with that again, "+
			"or for a new cluster delete the key howdah/%s/initialize in consul", d.m.Record.Cluster)
		return
	}
	d.do(Action{Kind: Restore, Why: "an operator asked for it"})
	if d.heldBack(Restore) {
		d.say(schema.StateNeedsOperator, "the restore failed and left nothing; it is tried again: look at --restore-command and the other --restore options")
	}
	d.say(schema.StateInitializing, "restoring the backup")
}
