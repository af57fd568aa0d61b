package topology

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
)

// The samples of the primary's LSN are a fraction of the allowed staleness apart, and go back twice
// as far as it: so the age of a standby is overstated by at most one spacing, and one that has
// passed none of them is too old in any case.
const (
	samplesPerBound = 8
	keepSamples     = 2*samplesPerBound + 2
	minSpacing      = 10 * time.Millisecond
)

// sample notes how far the primary has come.
func (t *Topology) sample(mem Memory, peers []schema.Peer, record *schema.Leader) Memory {
	if t.Leader != mem.leader {
		mem.leader, mem.newest, mem.samples = t.Leader, sample{}, nil
	}
	now := sample{}
	for _, p := range peers {
		if p.Name == t.Leader && claims(p, t.Epoch) && p.Status.LSN > 0 {
			now = sample{at: p.HeardAt, lsn: p.Status.LSN}
		}
	}
	if record != nil && record.FlushLSN > now.lsn {
		now = sample{at: mem.RecordSeenAt, lsn: record.FlushLSN}
	}
	if now.lsn == 0 || now.lsn < mem.newest.lsn || now.lsn == mem.newest.lsn && now.at <= mem.newest.at {
		return mem
	}
	now.at = schema.Latest(now.at, mem.newest.at)
	mem.newest = now
	spacing := max(t.MaxLagTime/samplesPerBound, minSpacing)
	if n := len(mem.samples); n == 0 || now.at.Sub(mem.samples[n-1].at) >= spacing {
		// The caller may still hold the old Memory, so its samples are not written to.
		mem.samples = append(slices.Clone(mem.samples), now)
		if n := len(mem.samples); n > keepSamples {
			mem.samples = mem.samples[n-keepSamples:]
		}
	}
	return mem
}

// findStandbys sets which members are fit to read from.
func (t *Topology) findStandbys(peers []schema.Peer, in Input, mem Memory) {
	t.Unfit = map[string]string{}
	for _, p := range peers {
		if p.Name == t.Leader && t.Phase != schema.PhaseFollowing {
			continue
		}
		if why := t.unfit(p, in); why != "" {
			t.Unfit[p.Name] = why
			continue
		}
		st := p.Status
		s := Server{
			Member: p.Name, Address: st.Addresses.Postgres, Epoch: st.Epoch, State: st.State,
			LSN: st.LSN, ReplayLSN: st.ReplayLSN, HeardAt: p.HeardAt,
			Fresh:         in.Now.Sub(p.HeardAt) <= t.Window,
			NoLoadBalance: st.Tags.NoLoadBalance,
			LagBytes:      st.ReplayLSN.Behind(mem.newest.lsn),
		}
		s.LagTime = lagTime(mem, st.ReplayLSN, in.Now)
		if !s.Fresh {
			// Nothing is known of what it has replayed since.
			s.LagTime = max(s.LagTime, in.Now.Sub(p.HeardAt))
		}
		t.Standbys = append(t.Standbys, s)
	}
}

// lagTime returns how long ago the primary was where replay is.
func lagTime(mem Memory, replay schema.LSN, now schema.Instant) time.Duration {
	if len(mem.samples) == 0 || replay >= mem.newest.lsn {
		return 0
	}
	at := mem.samples[0].at
	for _, s := range mem.samples {
		if s.lsn <= replay {
			at = s.at
		}
	}
	return now.Sub(at)
}

// unfit says why p serves no reads; empty if it does.
func (t *Topology) unfit(p schema.Peer, in Input) string {
	st := p.Status
	switch {
	case p.HeardAt == schema.Never:
		return fmt.Sprintf("%s has not been heard of yet", p.Name)
	case p.Liveness == schema.LivenessDead:
		return fmt.Sprintf("%s does not answer any more", p.Name)
	case p.Liveness == schema.LivenessLeft:
		return fmt.Sprintf("%s has left the cluster", p.Name)
	case st.Role != schema.RoleStandby:
		return fmt.Sprintf("%s is no standby but %s", p.Name, word(string(st.Role)))
	case st.State != schema.StateStreaming && st.State != schema.StateRunning:
		return fmt.Sprintf("PostgreSQL of %s is %s", p.Name, word(string(st.State)))
	case st.Addresses.Postgres == "":
		return fmt.Sprintf("the address of %s is not known", p.Name)
	case st.Upstream != t.Leader && diverged(st, in):
		return fmt.Sprintf("%s has WAL of an older timeline that the primary does not have", p.Name)
	}
	return ""
}

// diverged reports whether a standby on an older timeline has gone past the point where the newest
// one began: what it shows may never have happened.
func diverged(st schema.Status, in Input) bool {
	if !in.HasState || st.Timeline == 0 {
		return false
	}
	for _, r := range in.State.History.Value.Reigns {
		if r.Timeline > st.Timeline && r.LSN > 0 && st.LSN > r.LSN {
			return true
		}
	}
	return false
}
