// Package topology merges what gossip and Consul say into one picture: which epoch is the newest,
// who its primary is and whether it may be given sessions, and which standbys are fit to read from.
//
// It is pure. The clock is an argument and what must be remembered from one merge to the next is
// passed in and out. The highest epoch that was ever seen decides, whoever told of it; it never
// decreases (I3). What is not known is never taken for dead (I5): a picture that has grown old
// takes no new sessions, but ends none.
package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// Input is all that is known at one moment.
type Input struct {
	Now     schema.Instant
	Cluster string
	Peers   []schema.Peer
	// State is Consul's newest answer, if HasState.
	State    schema.ClusterState
	HasState bool
}

// Memory is what one merge leaves for the next. The zero Memory has seen nothing.
type Memory struct {
	// Epoch is the newest ever seen.
	Epoch schema.Epoch
	// RecordIndex is the ModifyIndex of the leader record seen last, RecordSeenAt when it was first
	// seen: an unchanged record is no new evidence, however often Consul repeats it.
	RecordIndex  uint64
	RecordSeenAt schema.Instant
	// newest is the last LSN heard of leader, the primary of Epoch, and samples are older ones,
	// oldest first. By them a standby's age is told.
	leader  string
	newest  sample
	samples []sample
}

// sample says: at this time the primary had flushed this far.
type sample struct {
	at  schema.Instant
	lsn schema.LSN
}

// Server is one Postgres as the router sees it.
type Server struct {
	Member  string
	Address string // host:port
	Epoch   schema.Epoch
	State   schema.State
	// LSN and ReplayLSN are as in schema.Status.
	LSN, ReplayLSN schema.LSN
	// LagBytes is what a standby has not replayed of the primary's newest known LSN; LagTime is how
	// long ago the primary was where the standby is now, zero if it lacks nothing known.
	LagBytes uint64
	LagTime  time.Duration
	HeardAt  schema.Instant
	// Fresh says that the standby was heard within the lease and its margin.
	Fresh         bool
	NoLoadBalance bool
}

// Topology is the picture. It is not changed once made.
type Topology struct {
	At    schema.Instant
	Epoch schema.Epoch
	// Leader is the member whose reign Epoch is; empty while nobody has told.
	Leader string
	// Phase is how far the reign has come; empty while nobody has told.
	Phase schema.Phase
	// Primary may be given sessions. It is nil while none may; then Reason says why.
	Primary *Server
	Reason  string
	// Over says, with Reason, that the leader is known to have stopped accepting writes.
	Over bool
	// KnownAt is the time of the newest evidence that this reign is alive.
	KnownAt schema.Instant
	// Window is how old evidence may be: the lease and its margin.
	Window time.Duration
	// Standbys are those that serve reads, sorted by name, and Unfit says of every other member why
	// it does not.
	Standbys []Server
	Unfit    map[string]string
	// MaxLagBytes and MaxLagTime are the cluster's bounds of staleness.
	MaxLagBytes uint64
	MaxLagTime  time.Duration
}

// Merge makes the picture. The order of in.Peers does not matter.
func Merge(in Input, mem Memory) (Topology, Memory) {
	peers := members(in)
	epoch := newestEpoch(in, mem)
	if epoch != mem.Epoch {
		mem.Epoch, mem.newest, mem.samples = epoch, sample{}, nil
	}
	cfg := schema.DefaultClusterConfig()
	if in.HasState && in.State.Config.Exists {
		cfg = in.State.Config.Value
	}
	record, mem := leaderRecord(in, mem)
	lease := cfg.Lease.D()
	if record != nil && record.Lease > 0 {
		lease = record.Lease.D()
	}
	t := Topology{
		At: in.Now, Epoch: epoch, Window: lease + schema.Margin(lease),
		MaxLagBytes: cfg.MaxStalenessBytes, MaxLagTime: cfg.MaxStalenessTime.D(),
	}
	t.findLeader(peers, record, in, mem)
	mem = t.sample(mem, peers, record)
	t.findStandbys(peers, in, mem)
	return t, mem
}

// members returns the peers of this cluster that are members, the newest word of each name, sorted.
func members(in Input) []schema.Peer {
	var ps []schema.Peer
	for _, p := range in.Peers {
		if p.Kind == "member" && ours(p, in.Cluster) {
			ps = append(ps, p)
		}
	}
	slices.SortStableFunc(ps, func(a, b schema.Peer) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.HeardAt != b.HeardAt {
			return int(min(max(b.HeardAt-a.HeardAt, -1), 1))
		}
		return int(min(max(int64(b.Status.Seq)-int64(a.Status.Seq), -1), 1))
	})
	return slices.CompactFunc(ps, func(a, b schema.Peer) bool { return a.Name == b.Name })
}

// ours reports whether p speaks for this cluster; a peer of which nothing was heard says nothing.
func ours(p schema.Peer, cluster string) bool {
	return p.Status.Cluster == cluster || p.Status.Cluster == "" && p.Status.Epoch == 0
}

// newestEpoch is the highest that anything in sight, or before, has told of.
func newestEpoch(in Input, mem Memory) schema.Epoch {
	e := mem.Epoch
	for _, p := range in.Peers {
		if ours(p, in.Cluster) {
			e = max(e, p.Status.Epoch)
		}
	}
	if in.HasState {
		if in.State.Leader.Exists {
			e = max(e, in.State.Leader.Leader.Epoch)
		}
		e = max(e, in.State.History.Value.MaxEpoch())
	}
	return e
}

// leaderRecord returns Consul's leader record if it is of the newest epoch, and notes when its
// present form was first seen.
func leaderRecord(in Input, mem Memory) (*schema.Leader, Memory) {
	if !in.HasState || !in.State.Leader.Exists {
		return nil, mem
	}
	if v := in.State.Leader; v.Index != mem.RecordIndex || mem.RecordSeenAt == schema.Never {
		mem.RecordIndex, mem.RecordSeenAt = v.Index, in.State.AnsweredAt
	}
	if in.State.Leader.Leader.Epoch != mem.Epoch {
		return nil, mem
	}
	return &in.State.Leader.Leader, mem
}

// findLeader sets who reigns, how far the reign has come, and whether sessions may go there.
func (t *Topology) findLeader(peers []schema.Peer, record *schema.Leader, in Input, mem Memory) {
	if t.Epoch == 0 {
		t.Reason = "no primary has been heard of yet"
		return
	}
	var claimants []schema.Peer
	for _, p := range peers {
		if claims(p, t.Epoch) {
			claimants = append(claimants, p)
		}
	}
	switch {
	case record != nil:
		// The lock decides: whoever else claims this epoch is mistaken.
		t.Leader, t.Phase, t.KnownAt = record.Member, record.Phase, mem.RecordSeenAt
	case len(claimants) == 1:
		t.Leader = claimants[0].Name
	case len(claimants) > 1:
		t.Reason = fmt.Sprintf("%s and %s both claim epoch %d; waiting for the lock to tell", claimants[0].Name, claimants[1].Name, t.Epoch)
		return
	default:
		t.Reason = fmt.Sprintf("epoch %d has begun, its primary has not been heard of yet", t.Epoch)
		return
	}
	address := addressOf(t.Leader, record, in)
	var own *schema.Status
	if i := slices.IndexFunc(peers, func(p schema.Peer) bool { return p.Name == t.Leader }); i >= 0 {
		p := peers[i]
		if p.Status.Addresses.Postgres != "" {
			address = p.Status.Addresses.Postgres
		}
		if claims(p, t.Epoch) {
			t.KnownAt = schema.Latest(t.KnownAt, p.HeardAt)
		}
		if p.HeardAt != schema.Never && in.Now.Sub(p.HeardAt) <= t.Window && !gone(p.Liveness) {
			own = &p.Status
			t.settle(own, p.HeardAt >= mem.RecordSeenAt)
		}
	}
	t.Over = t.Over || t.Phase == schema.PhaseReleased
	if t.Reason == "" {
		t.Reason = t.whyNot(address, in.Now)
	}
	if t.Reason != "" {
		return
	}
	t.Primary = &Server{Member: t.Leader, Address: address, Epoch: t.Epoch, State: schema.StateRunning, HeardAt: t.KnownAt, Fresh: true}
	if own != nil {
		t.Primary.LSN = own.LSN
	} else if record != nil {
		t.Primary.LSN = record.FlushLSN
	}
}

// claims reports whether p says that it is the primary of epoch.
func claims(p schema.Peer, epoch schema.Epoch) bool {
	return p.Status.Role == schema.RolePrimary && p.Status.Epoch == epoch
}

func gone(l schema.Liveness) bool { return l == schema.LivenessDead || l == schema.LivenessLeft }

// settle weighs what the leader says of itself against the phase in its record. newer says that it
// said so after the record was seen.
func (t *Topology) settle(own *schema.Status, newer bool) {
	primary := own.Role == schema.RolePrimary && own.Epoch == t.Epoch
	switch {
	case t.Phase == schema.PhaseReleased:
	case own.State == schema.StateFenced, own.State == schema.StateStopped, own.State == schema.StateCrashed:
		// Before its reign serves, a leader's Postgres may well be stopped.
		if t.Phase == schema.PhaseServing || t.Phase == schema.PhaseStopping || primary {
			t.Over, t.Reason = true, fmt.Sprintf("PostgreSQL of %s is %s", own.Name, own.State)
		}
	case primary && (own.Stopping || own.State == schema.StateStopping):
		t.Phase = schema.PhaseStopping
	case primary && own.State == schema.StateRunning:
		if t.Phase != schema.PhaseStopping {
			t.Phase = schema.PhaseServing
		}
	case t.Phase == schema.PhaseFollowing: // it is to be a standby
	case primary || newer:
		t.Reason = fmt.Sprintf("%s holds epoch %d but its PostgreSQL is %s as %s", own.Name, t.Epoch, word(string(own.State)), word(string(own.Role)))
	}
}

func word(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// whyNot says why the leader may not be given sessions; empty if it may.
func (t *Topology) whyNot(address string, now schema.Instant) string {
	age := now.Sub(t.KnownAt)
	switch t.Phase {
	case schema.PhaseServing:
	case schema.PhaseStopping:
		return fmt.Sprintf("a planned stop of the primary %s has begun", t.Leader)
	case schema.PhaseReleased:
		return fmt.Sprintf("the primary %s has stopped and released the lock", t.Leader)
	case schema.PhaseFollowing:
		return fmt.Sprintf("this is a standby cluster of a remote primary, led by %s: it takes reads alone until it is promoted (howdah config set follow=null)", t.Leader)
	case schema.PhasePromoting, schema.PhaseBootstrapping:
		return fmt.Sprintf("%s is %s for epoch %d", t.Leader, t.Phase, t.Epoch)
	default:
		if age <= t.Window {
			return fmt.Sprintf("%s has taken epoch %d and does not serve yet", t.Leader, t.Epoch)
		}
	}
	if age > t.Window {
		return fmt.Sprintf("the primary %s was last heard of %s ago, longer than its lease", t.Leader, age.Round(100*time.Millisecond))
	}
	if address == "" {
		return fmt.Sprintf("the address of the primary %s is not known", t.Leader)
	}
	return ""
}

// addressOf is where Consul says that the member's Postgres listens.
func addressOf(member string, record *schema.Leader, in Input) string {
	if record != nil && record.Addresses.Postgres != "" {
		return record.Addresses.Postgres
	}
	for _, m := range in.State.Members {
		if m.Value.Name == member {
			return m.Value.Addresses.Postgres
		}
	}
	return ""
}

// KeepsPrimary reports whether a session on member as the primary of epoch may go on; if not, why.
func (t Topology) KeepsPrimary(member string, epoch schema.Epoch) (bool, string) {
	switch {
	case epoch < t.Epoch && t.Leader != "" && t.Leader != member:
		return false, fmt.Sprintf("%s is no longer the primary: %s has taken epoch %d", member, t.Leader, t.Epoch)
	case epoch < t.Epoch:
		return false, fmt.Sprintf("epoch %d of %s has ended: epoch %d has begun", epoch, member, t.Epoch)
	case epoch > t.Epoch:
		return true, ""
	case t.Leader != "" && t.Leader != member:
		return false, fmt.Sprintf("epoch %d belongs to %s, not to %s", epoch, t.Leader, member)
	case t.Over:
		return false, t.Reason
	}
	return true, ""
}

// KeepsStandby reports whether a session on member as a standby may go on; if not, why.
func (t Topology) KeepsStandby(member string) (bool, string) {
	if member == t.Leader && t.Phase != schema.PhaseFollowing {
		return false, fmt.Sprintf("%s is becoming the primary", member)
	}
	for _, s := range t.Standbys {
		if s.Member != member {
			continue
		}
		if t.MaxLagBytes > 0 && s.LagBytes > t.MaxLagBytes || t.MaxLagTime > 0 && s.LagTime > t.MaxLagTime {
			return false, fmt.Sprintf("%s is too far behind the primary: %d bytes, %s", member, s.LagBytes, s.LagTime.Round(time.Millisecond))
		}
		return true, ""
	}
	if why := t.Unfit[member]; why != "" {
		return false, why
	}
	return false, fmt.Sprintf("%s has left the cluster", member)
}
