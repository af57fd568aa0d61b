package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// settledAfter is how long after a reload a walsender may still release commits by the old setting. A walsender
// reads its configuration again before it processes a reply (WalSndLoop, src/backend/replication/walsender.c),
// and standbys reply every wal_receiver_status_interval, which howdah sets to 1 s.
const settledAfter = 2 * time.Second

// reportFresh is how old the probe may be that a report rests on.
const reportFresh = 300 * time.Millisecond

// SeenReplica is a standby that streamed from us, and when it last did.
type SeenReplica struct {
	Name string
	At   schema.Instant
}

// Synchronous is the part of a reign that keeps F1.
type Synchronous struct {
	// Recorded is what the leader record says, Wanted what it shall say.
	Recorded, Wanted schema.SyncSet
	// Applied is what PostgreSQL was last told; since AppliedAt, as far as we know at AppliedLSN once it has settled.
	Applied    schema.SyncSet
	AppliedAt  schema.Instant
	AppliedLSN schema.LSN
	// Unsure says that Postgres may go by another set than Applied, which the record covers too: it was told of one, and has not
	// answered, or the telling failed.
	Unsure bool
	// Fresh says that no walsender can go by anything older than Applied: it was in force before this Postgres took its first write.
	Fresh bool
	// Closed keeps clients out after a crash until the commits that were waiting are where R says.
	Closed bool
	Seen   []SeenReplica
}

// Report is what a member said about its WAL after the lease of Index was dead.
type Report struct {
	Member   string
	LSN      schema.LSN
	Timeline schema.Timeline
}

// Reports are the answers of one round.
type Reports struct {
	Index   uint64 // of the lock when they were asked for
	AskedAt schema.Instant
	Got     []Report
}

// target is the set that the configuration and the standbys that stream ask for.
func (d *decision) target() schema.SyncSet {
	mode := d.o.Config.SynchronousMode
	if mode == "" || mode == schema.SyncOff {
		return schema.SyncSet{}
	}
	low, high := d.o.Config.SyncBounds()
	there := d.standbysThere()
	if mode == schema.SyncOn {
		if len(there) < low {
			return schema.SyncSet{}
		}
		return schema.SyncSet{Need: min(len(there), high), Standbys: there}
	}
	need := min(max(len(there), low), high)
	if len(there) < need { // commits wait until they come
		there = union(there, d.m.Reign.Sync.Recorded.Standbys)
	}
	if len(there) < need {
		there = union(there, d.others())
	}
	if len(there) < need {
		return schema.SyncSet{Need: need, Standbys: union(there, []string{"*"})} // nobody is known yet: nothing is acknowledged
	}
	return schema.SyncSet{Need: need, Standbys: there}
}

// others are the other members that may be synchronous, sorted.
func (d *decision) others() []string {
	return slices.DeleteFunc(d.o.memberNames(), func(n string) bool { return n == d.o.Name || d.o.peer(n).Status.Tags.NoSync })
}

// standbysThere are the standbys that stream, or did within a lease, sorted. Before our Postgres is a primary they
// are those that could.
func (d *decision) standbysThere() []string {
	s := &d.m.Reign.Sync
	var names []string
	if !d.o.SQL.Answers() || d.o.SQL.InRecovery {
		for _, n := range d.others() {
			if p := d.o.peer(n); p.Liveness == schema.LivenessAlive && p.Status.Role == schema.RoleStandby {
				names = append(names, n)
			}
		}
		return names
	}
	var seen []SeenReplica
	for _, n := range d.others() {
		at := schema.Never
		for _, r := range s.Seen {
			if r.Name == n {
				at = r.At
			}
		}
		if slices.ContainsFunc(d.o.SQL.Replicas, func(r Replica) bool { return r.Name == n && r.Streaming }) {
			at = d.o.Now
		}
		if at != schema.Never && d.o.Now.Sub(at) < d.o.lease() {
			seen = append(seen, SeenReplica{n, at})
			names = append(names, n)
		}
	}
	s.Seen = seen
	return names
}

// keepSync moves record and setting towards the target, one step at a time, never past what F1 allows. While
// it is not known which of two records Consul has, nothing moves.
func (d *decision) keepSync() {
	s := &d.m.Reign.Sync
	target := d.target()
	switch {
	case !s.Wanted.Equal(s.Recorded):
	case s.Closed && !d.waitersArrived():
		d.say(schema.StatePromoting, "commits that waited for a standby when postgres went away are visible now: clients are kept out until %s have them", s.Recorded)
	case !s.Closed && s.sure() && !s.Recorded.Equal(s.Applied) && !d.steps(target) && d.settled() && d.have(s.Applied, s.AppliedLSN):
		s.Wanted = s.Applied // what is sure already is recorded before the set is changed again, which takes time to be sure of
	case !covers(s.Recorded, target, d.o.Name):
		s.Wanted = between(s.Recorded, target)
	case s.Closed || s.Unsure || !s.Applied.Equal(target):
		if d.do(Action{Kind: SetSync, Sync: target, Timeout: d.o.lease(), Why: "synchronous: " + target.String()}) {
			s.Unsure = true // until it is answered
		}
	}
}

// sure reports that Applied is what Postgres goes by. In a reign that was found after a restart nobody knows, until it is told anew.
func (s *Synchronous) sure() bool { return !s.Unsure && s.AppliedAt != schema.Never }

// steps reports a record that was widened on the way from the set that PostgreSQL goes by to target: that comes next.
func (d *decision) steps(target schema.SyncSet) bool {
	s := d.m.Reign.Sync
	return !s.Applied.Equal(target) && s.Recorded.Equal(between(s.Applied, target)) && covers(s.Recorded, target, d.o.Name)
}

// waitersArrived reports that what Postgres recovered is where the record says that commits are.
func (d *decision) waitersArrived() bool {
	s := &d.m.Reign.Sync
	if d.o.SQL.At <= s.AppliedAt {
		return false
	}
	if s.AppliedLSN == 0 {
		s.AppliedLSN = d.o.SQL.LSN
	}
	return d.have(s.Recorded, s.AppliedLSN)
}

// settled reports that PostgreSQL goes by Applied alone, and dates it with an LSN.
func (d *decision) settled() bool {
	s := &d.m.Reign.Sync
	switch {
	case d.o.SQL.At <= s.AppliedAt:
		return false
	case !s.Fresh && d.o.SQL.At.Sub(s.AppliedAt) < settledAfter:
		return false
	}
	if s.AppliedLSN == 0 {
		s.AppliedLSN = d.o.SQL.LSN
	}
	return true
}

// have reports whether so many of the set's standbys as it needs have flushed WAL up to lsn.
func (d *decision) have(set schema.SyncSet, lsn schema.LSN) bool {
	n := 0
	if slices.Contains(set.Standbys, d.o.Name) {
		n++ // a set that we inherited: the primary has every commit itself
	}
	for _, r := range d.o.SQL.Replicas {
		if r.Flush >= lsn && slices.Contains(set.Standbys, r.Name) {
			n++
		}
	}
	return n >= set.Need
}

// learnSetSync takes in that PostgreSQL was told.
func (d *decision) learnSetSync(out Outcome) {
	s := &d.m.Reign.Sync
	if out.Result == OK && d.m.Reign.Active {
		s.Fresh = s.Fresh && s.Applied.Equal(out.Action.Sync) // then only clients were let in
		s.Applied, s.AppliedAt, s.AppliedLSN, s.Unsure, s.Closed = out.Action.Sync, d.o.Now, 0, false, false
	}
}

// begun takes in that a start or a promotion has put a set into effect before the first commit. A standby's setting until then
// names nobody, so that no walsender releases commits by it. The set's standbys have a lease's time to connect.
func (s *Synchronous) begun(a Action, now schema.Instant) {
	s.Applied, s.AppliedAt, s.AppliedLSN, s.Fresh, s.Closed = a.Sync, now, 0, !s.Unsure, a.Closed
	s.Unsure = false
	s.Seen = nil
	for _, n := range a.Sync.Standbys {
		s.Seen = append(s.Seen, SeenReplica{n, now})
	}
}

// failed takes in a start or a promotion of which it is not known how far it came: Postgres may be up, or come up yet, by its set.
func (s *Synchronous) failed(a Action) {
	s.Unsure = s.Unsure || a.Sync.Need > 0 || s.Recorded.Need > 0
	s.Closed = s.Closed || a.Closed
}

// syncUnfit returns why we may not be promoted although replication was synchronous; nothing if we may (F2).
func (d *decision) syncUnfit(l schema.Leader) string {
	if l.Sync.Need == 0 || d.judge() == lockReleased && l.ShutdownLSN != 0 {
		return ""
	}
	got := d.m.Reports
	if got.Index != d.o.Lock.Index {
		got = Reports{}
	}
	seen := []string{d.o.Name}
	ahead := ""
	for _, r := range got.Got {
		seen = append(seen, r.Member)
		if r.Timeline == d.m.Timeline && r.LSN > d.o.SQL.LSN {
			ahead = r.Member
		}
	}
	switch {
	case !elects(l.Sync, seen):
		d.askReports(l.Sync)
		return fmt.Sprintf("replication is synchronous (%s), and too few of these have told how far they are", l.Sync)
	case ahead != "":
		d.askReports(l.Sync)
		return ahead + " has WAL that it lacks"
	}
	return ""
}

// untold is asked where no leader record says how far the last primary was. Gossip tells how far a standby was at some time; the commits that
// were acknowledged last may be on any. So each that runs must have told it since the lease was dead.
func (d *decision) untold() string {
	got := d.m.Reports
	if got.Index != d.o.Lock.Index {
		got = Reports{}
	}
	var missing []string
	for _, name := range union(d.m.Record.Members, d.o.memberNames()) {
		p := d.o.peer(name)
		i := slices.IndexFunc(got.Got, func(r Report) bool { return r.Member == name })
		switch {
		case name == d.o.Name:
		case i >= 0 && (got.Got[i].Timeline > d.m.Timeline || got.Got[i].Timeline == d.m.Timeline && got.Got[i].LSN > d.o.SQL.LSN):
			d.askReports(schema.SyncSet{Standbys: []string{name}})
			return name + " has WAL that it lacks, and no leader record says that it may be lost"
		case i < 0 && p.Status.Role == schema.RoleStandby && (p.Status.State == schema.StateStreaming || p.Status.State == schema.StateRunning):
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	d.askReports(schema.SyncSet{Standbys: missing})
	return "consul has no leader record of the newest epoch, and these have not told how far they are: " + strings.Join(missing, ", ")
}

// askReports asks the set how far it is. An answer counts only if it was asked for after the lease was dead.
func (d *decision) askReports(set schema.SyncSet) {
	if d.m.Reports.AskedAt != schema.Never && d.o.Now.Sub(d.m.Reports.AskedAt) < 100*time.Millisecond && d.m.Reports.Index == d.o.Lock.Index {
		return
	}
	members := slices.DeleteFunc(slices.Clone(set.Standbys), func(n string) bool { return n == d.o.Name })
	if len(members) > 0 && d.do(Action{Kind: AskReports, Members: members, At: d.o.Lock, Timeout: d.o.lease() / 6}) {
		d.m.Reports.AskedAt = d.o.Now
	}
}

// learnReports takes in a round of reports about the lock as it is now. What was asked for before a promise of ours has run out, or before
// a newer epoch was known, does not count: a primary may have acknowledged commits since, and the index is the same.
func (d *decision) learnReports(out Outcome) {
	if out.StartedAt < d.m.PromisedUntil || out.StartedAt < d.m.EpochAt {
		return
	}
	index := out.Action.At.Index
	if d.m.Reports.Index != index {
		d.m.Reports.Index, d.m.Reports.Got = index, nil
	}
	for _, p := range out.Promises {
		if p.LSN == 0 {
			continue
		}
		d.m.Reports.Got = slices.DeleteFunc(slices.Clone(d.m.Reports.Got), func(r Report) bool { return r.Member == p.Member })
		d.m.Reports.Got = append(d.m.Reports.Got, Report{p.Member, p.LSN, p.Timeline})
	}
}

// report answers a candidate's question.
func report(o Observation, m Memory) schema.PromiseReply {
	r := schema.PromiseReply{Member: o.Name}
	switch {
	case !o.SQL.Answers() || !o.SQL.InRecovery || o.Now.Sub(o.SQL.At) > reportFresh:
		r.Why = "postgres has not just been asked"
	case !m.Inspected: // SQL may know of an older timeline only, and what is told of that does not count against a candidate
		r.Why = "its data directory has not been looked at yet"
	default:
		r.LSN, r.Timeline = o.SQL.LSN, max(m.Timeline, o.SQL.Timeline)
	}
	return r
}

// syncBeforehand sees to it, before Postgres takes its first write of a reign, that the record covers what it will go by.
func (d *decision) syncBeforehand() bool {
	s := &d.m.Reign.Sync
	if !s.Wanted.Equal(s.Recorded) {
		return false
	}
	target := d.target()
	if covers(s.Recorded, target, d.o.Name) {
		return true
	}
	s.Wanted = between(s.Recorded, target)
	return false
}
