package sidecar

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// newID makes a name that nobody else makes.
func newID() string { return rand.Text() }

// status is what this member says about itself.
func (l *loop) status() schema.Status {
	r, sql := l.memory.Reign, l.obs.SQL
	st := schema.Status{
		Name: l.s.o.Name, Cluster: l.s.o.Cluster, Instance: l.s.instance, Addresses: l.obs.Addresses, Tags: l.obs.Tags,
		State: l.plan.State, Reason: l.plan.Reason, SystemID: l.memory.Record.SystemID, Timeline: l.memory.Timeline,
		Epoch: l.memory.Record.Epoch, LSN: l.memory.LSN, Stopping: l.plan.Stopping, Resumes: l.plan.Resumes, PostgresVersion: sql.Version,
		PendingRestart: l.pending, CloneFrom: l.plan.CloneFrom,
	}
	reigns := r.Active && (r.Phase == schema.PhaseServing || r.Phase == schema.PhaseStopping)
	if silent := l.obs.Now.Sub(l.obs.DiskAt); l.obs.DiskAt != schema.Never && silent > l.obs.Config.HangBound()/2 {
		st.DiskSilent = schema.Duration(silent)
	}
	if left := r.Deadline.Sub(l.obs.Now); r.Active && r.Deadline != schema.Never && left > 0 {
		st.LeaseLeft = schema.Duration(left)
	}
	switch {
	case reigns:
		st.Role, st.Epoch = schema.RolePrimary, r.Epoch
		if st.LeaseLeft == 0 && st.State == schema.StateRunning {
			st.State, st.Reason = schema.StateFenced, "the lease has run out"
		}
	case l.obs.Data.State == decide.DataValid && (l.obs.Data.StandbySignal || sql.InRecovery):
		st.Role = schema.RoleStandby
		st.ReplayLSN = sql.ReplayLSN
		if sql.Answers() {
			st.LSN = sql.LSN
		}
		if sql.Streaming {
			st.Upstream = l.memory.Following.Member
		}
	}
	if st.State == "" {
		st.State = schema.StateUnknown
	}
	if trouble := l.passwords.trouble(); trouble != "" {
		st.Reason = strings.TrimPrefix(st.Reason+"; "+trouble, "; ")
	}
	return st
}

// publish tells the others what has changed: at once if it is a change of state, else a few times in a lease.
func (l *loop) publish() {
	st := l.status()
	old := l.published
	urgent := st.State != old.State || st.Role != old.Role || st.Epoch != old.Epoch || st.Stopping != old.Stopping ||
		st.Upstream != old.Upstream || st.CloneFrom != old.CloneFrom || st.Timeline != old.Timeline || !slices.Equal(st.PendingRestart, old.PendingRestart) || l.plan.Hurry && st.LSN != old.LSN
	urgent = urgent || l.toldOrder != l.memory.Ordered
	since := l.obs.Now.Sub(l.toldAt)
	if !urgent && since < schema.RenewInterval(l.obs.Config.Lease.D())/2 {
		return
	}
	st.Seq = old.Seq + 1
	l.published, l.toldAt, l.toldOrder = st, l.obs.Now, l.memory.Ordered
	l.s.d.Gossip.Publish(st)
	if st.Role != old.Role || st.Epoch != old.Epoch {
		wake(l.wakeUpkeep)
	}
	l.show(st)
	if said := string(st.State) + ": " + st.Reason; said != l.said {
		l.said = said
		l.log.Info("state", zap.String("role", string(st.Role)), zap.String("state", string(st.State)), zap.String("reason", st.Reason),
			zap.Uint64("epoch", uint64(st.Epoch)))
	}
}

// show makes the snapshot that the API serves.
func (l *loop) show(self schema.Status) {
	now := l.obs.Now
	age := func(at schema.Instant) schema.Duration {
		if at == schema.Never {
			return -1
		}
		return schema.Duration(now.Sub(at))
	}
	c := schema.ClusterStatus{
		Cluster: l.s.o.Cluster, Member: l.s.o.Name, Version: l.s.o.Version, At: time.Now().UTC(), Self: self,
		HoldsLock: self.Role == schema.RolePrimary && self.LeaseLeft > 0, ConsulAge: age(l.obs.Consul.AnsweredAt), Config: l.obs.Config,
		Order: l.orderStatus(),
	}
	for _, p := range l.memory.Reign.Promises {
		c.Promises = append(c.Promises, schema.PromiseView{Member: p.Member, Given: p.Given, Why: p.Why, AskedAgo: age(p.AskedAt), GivenAgo: age(p.GivenAt)})
	}
	if v := l.obs.Lock; v.Known && v.Exists {
		leader := v.Leader
		c.Leader, c.LeaderSeenFor = &leader, age(l.memory.Seen.At)
	}
	c.Members = append(c.Members, schema.MemberView{Status: self, Liveness: schema.LivenessAlive})
	for _, p := range l.obs.Peers {
		st := p.Status
		if st.Name == "" {
			st.Name = p.Name
		}
		c.Members = append(c.Members, schema.MemberView{Status: st, Liveness: p.Liveness, HeardAgo: age(p.HeardAt)})
	}
	for _, d := range l.obs.State.Members { // registered, and never heard of
		if !slices.ContainsFunc(c.Members, func(m schema.MemberView) bool { return m.Name == d.Value.Name }) {
			c.Members = append(c.Members, schema.MemberView{
				Status:   schema.Status{Name: d.Value.Name, Cluster: c.Cluster, Addresses: d.Value.Addresses, State: schema.StateUnknown, Tags: d.Value.Tags},
				Liveness: schema.LivenessUnknown, HeardAgo: -1,
			})
		}
	}
	slices.SortFunc(c.Members, func(a, b schema.MemberView) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	l.s.snapshot.Store(&c)
	candidates := decide.Candidates(l.obs, l.memory)
	l.s.candidates.Store(&candidates)
}

// Status returns what this member knows of the cluster.
func (s *Sidecar) Status() schema.ClusterStatus {
	if c := s.snapshot.Load(); c != nil {
		return *c
	}
	self := schema.Status{Name: s.o.Name, Cluster: s.o.Cluster, Instance: s.instance, State: schema.StateUnknown, Reason: "starting"}
	return schema.ClusterStatus{
		Cluster: s.o.Cluster, Member: s.o.Name, Version: s.o.Version, At: time.Now().UTC(), Self: self, ConsulAge: -1, Config: s.o.Bootstrap,
		Members: []schema.MemberView{{Status: self, Liveness: schema.LivenessAlive}},
	}
}

// Healthy reports whether the loop has turned within the last lease.
func (s *Sidecar) Healthy() bool {
	return s.d.Now().Sub(schema.Instant(s.turned.Load())) < s.o.Bootstrap.Lease.D()
}

// Events returns the steps recorded after the one of that Seq, oldest first: the oldest limit of them, so that who asks
// again from the last one misses none.
func (s *Sidecar) Events(after uint64, limit int) []schema.Event { return s.events.since(after, limit) }

// Why returns what this member has to say about why things are as they are.
func (s *Sidecar) Why() schema.Account {
	c := s.Status()
	a := schema.Account{
		Cluster: c.Cluster, Member: c.Member, At: c.At, State: c.Self.State, Reason: c.Self.Reason, Holds: c.HoldsLock, Epoch: c.Self.Epoch,
		Candidates: []schema.Candidate{}, Events: s.events.since(0, keptEvents),
	}
	if v := s.candidates.Load(); v != nil {
		a.Candidates = *v
	}
	return a
}

// note records e and logs it.
func (s *Sidecar) note(e schema.Event) {
	e.At, e.Wall, e.By = s.d.Now(), time.Now().UTC(), s.o.Name
	s.events.add(e)
	s.log.Info("event", zap.String("kind", string(e.Kind)), zap.Uint64("epoch", uint64(e.Epoch)), zap.String("detail", e.Detail))
}
