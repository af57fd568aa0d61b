package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// Candidates judges every member as things are now: who could become the primary if the lock were free, and what bars
// the others. Ourselves come first, the others as far as gossip knows them, by name.
func Candidates(o Observation, m Memory) []schema.Candidate {
	return (&decision{o: &o, m: m}).candidates() // what it plans meanwhile is carried out by nobody
}

func (d *decision) candidates() []schema.Candidate {
	all := []schema.Candidate{{Member: d.o.Name, LSN: max(d.m.LSN, d.o.SQL.LSN), Timeline: d.m.Timeline, Priority: d.o.Tags.Priority, Bar: d.bar()}}
	for _, p := range d.o.Peers {
		s := p.Status
		all = append(all, schema.Candidate{Member: p.Name, LSN: max(s.LSN, s.ReplayLSN), Timeline: s.Timeline, Priority: s.Tags.Priority, Bar: d.peerBar(p)})
	}
	for _, name := range d.o.memberNames() {
		if !slices.ContainsFunc(all, func(c schema.Candidate) bool { return c.Member == name }) {
			all = append(all, schema.Candidate{Member: name, Bar: "nothing was heard of it"})
		}
	}
	slices.SortStableFunc(all[1:], func(a, b schema.Candidate) int { return strings.Compare(a.Member, b.Member) })
	return all
}

// bar returns why we could not become the primary; nothing if we could.
func (d *decision) bar() string {
	switch {
	case d.m.Reign.Active:
		return "" // it reigns
	case d.o.Data.Removed:
		return removedCopy
	case d.o.Data.State == DataEmpty || d.o.Data.State == DataIncomplete:
		return "its data directory is " + string(d.o.Data.State)
	case !d.o.Consul.Seen || !d.o.Lock.Known:
		return "consul has not told it yet who holds the lock"
	}
	return d.mayNotStand()
}

// evidence is what a seizure rests on; nothing where there is nobody yet to choose from.
func (d *decision) evidence(phase schema.Phase) *schema.Evidence {
	if phase == schema.PhaseBootstrapping {
		return nil
	}
	e := &schema.Evidence{Candidates: d.candidates()}
	if d.judge() == lockDead {
		e.Judgement = d.judgement()
	}
	return e
}

// judgement is what is known of the lease.
func (d *decision) judgement() *schema.Judgement {
	v := d.o.Lock
	p := d.o.peer(v.Leader.Member)
	j := &schema.Judgement{
		Holder: v.Leader.Member, Epoch: v.Leader.Epoch, Index: v.Index, Lease: v.Leader.Lease, Liveness: p.Liveness, HeardAgo: -1,
		Unrenewed: schema.Duration(d.o.Now.Sub(d.m.Seen.At)), ReadAgo: schema.Duration(d.o.Now.Sub(v.AskedAt)),
	}
	if p.HeardAt != schema.Never {
		j.HeardAgo = schema.Duration(d.o.Now.Sub(p.HeardAt))
	}
	return j
}

// barred records why we do not stand although nobody reigns: once for as long as it stays the same, whatever its
// numbers are.
func (d *decision) barred(why string) {
	key := strings.Join(slices.DeleteFunc(strings.Fields(why), func(w string) bool { return strings.ContainsAny(w, "0123456789") }), " ")
	if key == d.m.Barred {
		return
	}
	d.m.Barred = key
	d.note(schema.EventBarred, d.m.Record.Epoch, "%s", why)
}

// peerBar returns why a peer, as far as is known, may not be promoted; nothing if it may.
func (d *decision) peerBar(p schema.Peer) string {
	s, l := p.Status, d.o.Lock.Leader
	if !d.m.Reign.Active && !d.trusted() {
		l = schema.Leader{}
	}
	behind := max(s.LSN, s.ReplayLSN).Behind(l.FlushLSN)
	switch {
	case p.Liveness != schema.LivenessAlive:
		return fmt.Sprintf("it is not heard of (%s)", p.Liveness)
	case s.Role == schema.RolePrimary:
		return "it is a primary"
	case s.Role != schema.RoleStandby, s.State != schema.StateRunning && s.State != schema.StateStreaming:
		return strings.TrimSuffix(fmt.Sprintf("it is no standby that runs: %s: %s", s.State, s.Reason), ": ")
	case s.Tags.NoFailover:
		return "its nofailover tag is set"
	case s.SystemID != d.m.Record.SystemID:
		return fmt.Sprintf("it is of another cluster: its system identifier is %s", s.SystemID)
	case l.Timeline != 0 && s.Timeline != l.Timeline:
		return fmt.Sprintf("it is on timeline %d, the last primary was on %d", s.Timeline, l.Timeline)
	case s.DiskSilent.D() >= d.o.Config.HangBound()*2/3:
		return fmt.Sprintf("its disk has taken no write for %s", s.DiskSilent.D().Round(100*time.Millisecond))
	case behind > d.o.Config.MaximumLagOnFailover:
		return fmt.Sprintf("it lacks %d bytes of what the last primary had published, more than maximum_lag_on_failover (%d)", behind, d.o.Config.MaximumLagOnFailover)
	}
	return ""
}
