package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// lockVerdict is what a judge makes of the lock.
type lockVerdict int

const (
	lockAlive    lockVerdict = iota // renewed lately, or not surely unrenewed
	lockDead                        // the lease of the record has surely run out
	lockReleased                    // its holder stopped Postgres and let go
)

// judge says whether the lease is over. It is dead only if the same ModifyIndex is still there in a
// consistent read made after lease and margin had passed since we first saw it. A missing key is
// judged like any other: whoever held it may still be counting.
func (d *decision) judge() lockVerdict {
	v := d.o.Lock
	if v.Exists && !v.Held() && v.Leader.Phase == schema.PhaseReleased && d.trusted() {
		return lockReleased
	}
	dead := d.deadAt()
	if d.o.Now.Before(dead) {
		return lockAlive
	}
	if v.AskedAt <= dead {
		d.readLeader()
		return lockAlive
	}
	if d.m.JudgedAt == schema.Never {
		d.m.JudgedAt = d.o.Now
		d.note(schema.EventJudged, v.Leader.Epoch, "the lease of %s was not renewed for %s", v.Leader.Member, d.o.Now.Sub(d.m.Seen.At).Round(time.Millisecond))
		d.rests(&schema.Evidence{Judgement: d.judgement()})
	}
	return lockDead
}

// deadAt is when the lease that we first saw at Seen.At has surely run out. Where a newer epoch is known than the record's, it is that of
// the newer reign: an old record that a restored Consul shows again, at its old index, may have been judged long ago.
func (d *decision) deadAt() schema.Instant {
	lease := d.o.Lock.Leader.Lease.D()
	if lease == 0 {
		lease = d.o.lease()
	}
	from := d.m.Seen.At
	if !d.trusted() {
		from = schema.Latest(from, d.m.EpochAt)
	}
	return from.Add(lease + schema.Margin(lease))
}

// stand is the life of a member while nobody reigns: it may become the next primary.
func (d *decision) stand() {
	d.plan.Hurry = true
	if d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete {
		d.say(schema.StateWaiting, "waiting for a primary to clone from: %s", d.without())
		return
	}
	if d.failover() == nil && d.leftAlone() || d.raise() {
		return
	}
	if d.o.Process.Gone() && d.o.Data.StandbySignal {
		d.startStandby(d.m.Following, "to learn how far it is")
		return
	}
	why := d.mayNotStand()
	if d.forced() {
		why = d.mayNotForce()
	}
	if why != "" {
		d.barred(why)
		d.say(d.restingState(), "may not stand: %s", why)
		return
	}
	if wait, who := d.turn(); d.o.Now.Before(wait) {
		d.barred("it waits for " + who + " to go first")
		d.say(d.restingState(), "may stand, and waits for %s to go first", who)
		return
	}
	phase := schema.PhasePromoting
	if d.m.Record.Follows != "" {
		phase = schema.PhaseFollowing
	}
	d.seize(phase, d.stands(d.reasonToStand()))
	d.say(d.restingState(), "standing for election")
}

func (d *decision) restingState() schema.State {
	if d.o.Process.Gone() {
		return schema.StateWaiting
	}
	return schema.StateRunning
}

func (d *decision) reasonToStand() string {
	l := d.o.Lock.Leader
	switch {
	case d.judge() == lockReleased && l.Successor == d.o.Name:
		return fmt.Sprintf("%s released the lock to %s", l.Member, d.o.Name)
	case d.judge() == lockReleased:
		return fmt.Sprintf("%s released the lock", l.Member)
	case l.Member == "":
		return "the leader key was missing"
	}
	return fmt.Sprintf("the lease of %s ran out", l.Member)
}

// resumes reports whether we were the last primary that anybody knows of: then no member has a
// commit that we lack, and a stopped Postgres of ours may begin the next reign.
func (d *decision) resumes() bool {
	return d.m.Record.Reigned != 0 && d.m.Record.Reigned >= d.m.Record.Epoch && d.o.Process.Gone() &&
		d.o.Data.State == DataValid && !d.o.Data.StandbySignal
}

// mayNotStand returns why we may not become primary, or nothing if we may.
func (d *decision) mayNotStand() string {
	l, o := d.o.Lock.Leader, d.o
	switch {
	case d.forbidden() != "":
		return d.forbidden()
	case d.paused() && d.failover() == nil && !d.mayStandPaused():
		return "the cluster is paused" + d.pausedBy()
	case o.Tags.NoFailover:
		return "its nofailover tag is set"
	case !d.trusted():
		if why := d.seesEverybody(); why != "" {
			return why
		}
	}
	if d.resumes() {
		return ""
	}
	return d.unfit(l)
}

// unfit returns why our Postgres may not be promoted.
func (d *decision) unfit(l schema.Leader) string {
	sql := d.o.SQL
	if !d.trusted() {
		l = schema.Leader{}
	}
	switch {
	case d.o.Process.State != ProcessRunning || !sql.Answers():
		return "postgres does not answer"
	case !sql.InRecovery:
		return "postgres is not a standby"
	case l.Timeline != 0 && d.m.Timeline != l.Timeline:
		return fmt.Sprintf("it is on timeline %d, the last primary was on %d", d.m.Timeline, l.Timeline)
	case d.syncUnfit(l) != "":
		return d.syncUnfit(l)
	case !d.trusted() && !d.forced() && d.untold() != "":
		return d.untold()
	case d.judge() == lockReleased && sql.LSN < l.ShutdownLSN && !d.abandoned(l):
		return fmt.Sprintf("it has WAL up to %s and the last primary stopped at %s", sql.LSN, l.ShutdownLSN)
	case l.Sync.Need == 0 && sql.LSN.Behind(l.FlushLSN) > d.o.Config.MaximumLagOnFailover:
		return fmt.Sprintf("it lacks %d bytes of what the last primary had published, more than maximum_lag_on_failover (%d)",
			sql.LSN.Behind(l.FlushLSN), d.o.Config.MaximumLagOnFailover)
	}
	return ""
}

// abandoned reports a released record whose successor and whose holder have both had their time: then a standby that
// lacks the end of it, within the bound, is better than none.
func (d *decision) abandoned(l schema.Leader) bool {
	return l.Sync.Need == 0 && d.o.Now.Sub(d.deadAt()) > d.o.lease() && d.o.peer(l.Member).Liveness != schema.LivenessAlive
}

// trusted reports that the leader record is of the newest epoch that anybody knows. A missing key, or one from a
// backup, does not say how far the last primary was.
func (d *decision) trusted() bool {
	return d.o.Lock.Exists && d.o.Lock.Leader.Epoch >= d.m.Record.Epoch
}

// seesEverybody is asked where no leader record says how far the last primary was: then every member
// must be heard, so that the one that has most is known.
func (d *decision) seesEverybody() string {
	var unseen []string
	if p := d.reigning(); p != "" {
		return p + " says that it reigns"
	}
	for _, name := range union(d.m.Record.Members, d.o.memberNames()) {
		if name != d.o.Name && d.o.peer(name).Liveness != schema.LivenessAlive {
			unseen = append(unseen, name)
		}
	}
	if len(unseen) == 0 {
		return ""
	}
	return "consul has no leader record of the newest epoch, so nobody can tell who has most; not heard of: " + strings.Join(unseen, ", ")
}

// reigning returns a member that said within a lease that it reigns; empty if none did.
func (d *decision) reigning() string {
	for _, p := range d.o.Peers {
		if p.Status.LeaseLeft > 0 && d.o.Now.Sub(p.HeardAt) < d.o.lease() {
			return p.Name
		}
	}
	return ""
}

// turn returns when it is our turn to stand, and who goes before us.
func (d *decision) turn() (schema.Instant, string) {
	start := d.deadAt()
	l := d.o.Lock.Leader
	if d.judge() == lockReleased {
		if l.Successor == d.o.Name {
			return d.o.Now, ""
		}
		if l.Successor != "" || l.Member == d.o.Name {
			return start, l.Successor // the named one, or any but the one who let go, has a lease's time
		}
		start = d.m.Seen.At
	}
	better := d.better()
	if len(better) == 0 || d.failover() != nil && (d.trusted() || d.forced()) {
		return start, ""
	}
	if !d.trusted() { // no bound says how much the next best may lack
		return schema.Forever, better[0]
	}
	beat := schema.RenewInterval(d.o.lease())
	return start.Add(2 * beat * time.Duration(len(better))), better[0]
}

// better returns the members that should stand before us, best first.
func (d *decision) better() []string {
	type candidate struct {
		name     string
		resumes  bool
		priority int
		timeline schema.Timeline // counts where no record says which is right
		lsn      schema.LSN
	}
	var all []candidate
	self := candidate{d.o.Name, d.resumes(), d.o.Tags.Priority, 0, d.o.SQL.LSN}
	if !d.trusted() {
		self.priority, self.timeline = 0, d.m.Timeline
	}
	all = append(all, self)
	for _, p := range d.o.Peers {
		last := p.Name == d.o.Lock.Leader.Member
		if !d.trusted() { // the record is of an older reign, or of none: only the member itself knows
			last = p.Status.Resumes && p.Status.SystemID == d.m.Record.SystemID
		}
		resumes := last && p.Liveness == schema.LivenessAlive && d.judge() != lockReleased &&
			(p.Status.State == schema.StateWaiting || p.Status.State == schema.StateStopped)
		if resumes || d.peerFit(p) {
			c := candidate{p.Name, resumes, p.Status.Tags.Priority, 0, max(p.Status.LSN, p.Status.ReplayLSN)}
			if !d.trusted() {
				c.priority, c.timeline = 0, p.Status.Timeline
			}
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.resumes != b.resumes {
			if a.resumes {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(b.timeline, a.timeline), cmp.Compare(b.lsn, a.lsn), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, c := range all {
		if c.name == d.o.Name {
			break
		}
		names = append(names, c.name)
	}
	return names
}

// peerFit reports whether a peer, as far as is known, may be promoted.
func (d *decision) peerFit(p schema.Peer) bool { return d.peerBar(p) == "" }

// unsettled reports a seizure of ours that failed in a way not yet explained by a later read.
func (d *decision) unsettled() bool {
	if d.m.SeizeFailedAt == schema.Never || d.o.Lock.AskedAt > d.m.SeizeFailedAt {
		return false
	}
	d.readLeader()
	return true
}

// seize plans to take the lock for a new epoch, under the condition that it is still as last seen.
func (d *decision) seize(phase schema.Phase, why string) {
	if d.unsettled() {
		return
	}
	set := d.o.Lock.Leader.Sync
	if d.forced() {
		set = schema.SyncSet{} // what was acknowledged may be lost, so no set of standbys vouches for it any more
	}
	d.do(Action{
		Kind: Seize, At: d.o.Lock, Why: why, Timeout: d.o.lease() / 2, Evidence: d.evidence(phase),
		Leader: schema.Leader{
			Member: d.o.Name, Epoch: d.m.Record.Epoch + 1, Phase: phase, Addresses: d.o.Addresses, Session: d.o.Session,
			Timeline: d.m.Timeline, NextTimeline: d.unusedTimeline(), FlushLSN: max(d.m.LSN, d.o.SQL.LSN), Lease: d.o.Config.Lease, Members: d.o.memberNames(),
			Sync: set, Follows: d.follows(phase),
		},
	})
}

// unusedTimeline returns a timeline that no reign has promoted to: the record passes from holder to holder by
// check-and-set, so no two reigns get the same.
func (d *decision) unusedTimeline() schema.Timeline {
	return max(d.newestTimeline(), d.m.Record.Timeline) + 1
}

// newestTimeline is the newest one that anything observed names.
func (d *decision) newestTimeline() schema.Timeline {
	t := max(d.o.Lock.Leader.NextTimeline, d.o.Lock.Leader.Timeline, d.m.Timeline)
	for _, r := range d.o.State.History.Value.Reigns {
		t = max(t, r.Timeline)
	}
	for _, p := range d.o.Peers {
		t = max(t, p.Status.Timeline)
	}
	return t
}
