package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
	"howdah/sidecar/postgres"
)

// duties is what upkeep needs to know, taken from the loop at one moment.
type duties struct {
	now      schema.Instant
	role     schema.Role
	serving  bool // a primary that accepts writes
	leads    bool // a standby cluster
	answers  bool
	consul   bool
	epoch    schema.Epoch
	state    schema.ClusterState
	members  []string
	config   schema.ClusterConfig
	systemID string
	version  int
	peers    []schema.Peer
	tags     schema.Tags
	started  schema.Instant // of the Postgres that runs
	// passwords is their generation; from is what a standby follows, nil if nobody is known.
	passwords uint64
	streaming bool
	runs      bool
	from      *postgres.Upstream
}

// upkeepEvery is how often upkeep looks; slowUpkeep how often it does again what seems done.
const (
	upkeepEvery = 500 * time.Millisecond
	slowUpkeep  = 10 * time.Second
)

// upkeep remembers what was done last.
type upkeep struct {
	s                *Sidecar
	log              *zap.Logger
	rolesFor         schema.Epoch
	checkedFor       schema.Epoch // of the reign whose first checkpoint was asked for
	rolesAt          schema.Instant
	rolesOf          uint64 // the generation of the passwords
	heeding          heeding
	toldForce        string
	slotsFor         []string
	slotsAt          schema.Instant
	slotsOf          schema.Instant // the Postgres that they were made in: a clone comes without
	permanent        schema.Instant // when the configuration's slots were seen to, in which Postgres and as what
	permanentOf      schema.Instant
	permanentServing bool
	registered       schema.Role
	announced        bool
	registerAt       schema.Instant
	joined           []string
	lastError        map[string]string
}

// keepUp does what is neither urgent nor dangerous, one thing after the other.
func (l *loop) keepUp(ctx context.Context) {
	u := &upkeep{s: l.s, log: l.log, lastError: map[string]string{}}
	t := time.NewTicker(upkeepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-l.wakeUpkeep:
		}
		c := make(chan duties, 1)
		if !l.post(func() { c <- l.duties() }) {
			return
		}
		select {
		case d := <-c:
			u.turn(ctx, d)
		case <-ctx.Done():
			return
		}
	}
}

// duties takes what upkeep needs. It runs in the loop.
func (l *loop) duties() duties {
	r := l.memory.Reign
	d := duties{
		now: l.obs.Now, role: l.published.Role, answers: l.obs.SQL.Answers(), consul: l.obs.Consul.Seen && l.obs.Consul.Error == "",
		epoch: l.memory.Record.Epoch, state: l.obs.State, members: l.memory.Record.Members, config: l.obs.Config,
		systemID: l.memory.Record.SystemID, version: l.obs.SQL.Version, peers: slices.Clone(l.obs.Peers),
		started: l.obs.Process.Since, tags: l.obs.Tags, passwords: l.passwords.generation, streaming: l.obs.SQL.Streaming,
		runs: l.obs.Process.State == decide.ProcessRunning,
	}
	d.serving = r.Active && r.Phase == schema.PhaseServing && l.obs.SQL.Answers() && !l.obs.SQL.InRecovery && l.obs.Process.State == decide.ProcessRunning
	// An address that cannot be read is nobody's; whoever follows it says so.
	d.from, _ = actor{s: l.s, config: l.obs.Config}.upstream(l.memory.Following)
	d.leads = r.Active && r.Phase == schema.PhaseFollowing && l.obs.Config.Follow.Set()
	return d
}

// turn does whatever is due.
func (u *upkeep) turn(ctx context.Context, d duties) {
	u.join(d)
	if d.consul {
		u.try("publish member", func() error { return u.member(ctx, d) })
		u.try("register service", func() error { return u.register(ctx, d) })
	}
	if (d.serving || d.leads) && d.consul {
		u.try("write cluster configuration", func() error { return u.config(ctx, d) })
	}
	if d.serving {
		u.try("ensure roles", func() error { return u.roles(ctx, d) })
	}
	if d.runs && d.role == schema.RoleStandby {
		u.try("look after passwords", func() error { return u.heed(ctx, d) })
	}
	if d.serving {
		u.checkpoint(ctx, d)
	}
	if d.answers && (d.serving || d.role == schema.RoleStandby) {
		u.try("ensure slots", func() error { return u.slots(ctx, d) })
		u.try("ensure permanent slots", func() error { return u.permanentSlots(ctx, d) })
	}
}

// try runs f within a bound and logs a failure once until it changes.
func (u *upkeep) try(what string, f func() error) {
	err := f()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != u.lastError[what] && text != "" && !errors.Is(err, context.Canceled) {
		u.log.Warn(what+" failed; it is tried again", zap.Error(err))
	}
	u.lastError[what] = text
}

// member keeps our document in Consul true.
func (u *upkeep) member(ctx context.Context, d duties) error {
	want := schema.Member{
		Name: u.s.o.Name, Addresses: u.s.o.Addresses, SystemID: d.systemID, PostgresVersion: d.version, Version: u.s.o.Version,
		Tags: d.tags, Instance: u.s.instance,
	}
	index := uint64(0)
	for _, m := range d.state.Members {
		if m.Value.Name != want.Name {
			continue
		}
		if want.PostgresVersion == 0 {
			want.PostgresVersion = m.Value.PostgresVersion
		}
		if m.Value == want {
			return nil
		}
		index = m.Index
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return u.s.d.Documents.PutMember(ctx, want, index)
}

// join tells the gossip where the registered members are.
func (u *upkeep) join(d duties) {
	var addrs []string
	for _, m := range d.state.Members {
		if m.Value.Name != u.s.o.Name && m.Value.Addresses.Gossip != "" {
			addrs = append(addrs, m.Value.Addresses.Gossip)
		}
	}
	if !slices.Equal(addrs, u.joined) {
		u.s.d.Gossip.Join(addrs)
		u.joined = addrs
	}
}

// config writes the bootstrap configuration where Consul has none.
func (u *upkeep) config(ctx context.Context, d duties) error {
	if d.state.Config.Exists {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return u.s.d.Documents.PutConfig(ctx, d.config, 0)
}

// register announces our role in the service catalogue, and again from time to time: an agent that
// was replaced has forgotten it.
func (u *upkeep) register(ctx context.Context, d duties) error {
	if u.s.d.Register == nil || u.announced && u.registered == d.role && d.now.Sub(u.registerAt) < 3*slowUpkeep {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := u.s.d.Register(ctx, d.role); err != nil {
		return err
	}
	u.announced, u.registered, u.registerAt = true, d.role, d.now
	return nil
}

// roles sees to howdah's roles, at the beginning of each reign, when passwords have changed and from time to time.
func (u *upkeep) roles(ctx context.Context, d duties) error {
	if u.rolesFor == d.epoch && u.rolesOf == d.passwords && d.now.Sub(u.rolesAt) < 3*slowUpkeep {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := u.s.d.Server.EnsureRoles(ctx); err != nil {
		u.tellForce(err)
		return err
	}
	u.tellForce(nil)
	u.rolesFor, u.rolesAt, u.rolesOf = d.epoch, d.now, d.passwords
	return nil
}

// checkpoint asks for one at the beginning of a reign, beside everything else because it may take long: it writes
// the new timeline into the control file, before which no member can be rewound to this one.
func (u *upkeep) checkpoint(ctx context.Context, d duties) {
	if u.checkedFor == d.epoch {
		return
	}
	u.checkedFor = d.epoch
	u.s.loop.acting.Go(func() {
		if err := u.s.d.Server.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			u.log.Warn("checkpoint after the promotion failed; PostgreSQL makes one in its own time", zap.Error(err))
		}
	})
}

// slots keeps one slot for every other member, on standbys too, where they are moved up by what the
// members say of themselves, so that each survives a failover without holding WAL back for ever.
func (u *upkeep) slots(ctx context.Context, d duties) error {
	if u.slotsOf == d.started && slices.Equal(u.slotsFor, d.members) && d.now.Sub(u.slotsAt) < slowUpkeep {
		return nil
	}
	var want []postgres.Slot
	for _, name := range d.members {
		if name == u.s.o.Name {
			continue
		}
		s := postgres.Slot{Name: postgres.SlotName(name)}
		if !d.serving {
			for _, p := range d.peers {
				if p.Name == name && p.Status.SystemID == d.systemID {
					s.AdvanceTo = max(p.Status.LSN, p.Status.ReplayLSN)
				}
			}
		}
		want = append(want, s)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := u.s.d.Server.EnsureSlots(ctx, want); err != nil {
		return err
	}
	u.slotsFor, u.slotsAt, u.slotsOf = slices.Clone(d.members), d.now, d.started
	return nil
}

// permanentSlots keeps the slots that the cluster's configuration names. What it names is known only once Consul has
// said so: before, none would be missed, and slots dropped that somebody needs.
func (u *upkeep) permanentSlots(ctx context.Context, d duties) error {
	if !d.state.Config.Exists || u.permanent != 0 && u.permanentOf == d.started && u.permanentServing == d.serving && d.now.Sub(u.permanent) < slowUpkeep {
		return nil
	}
	u.permanent, u.permanentOf, u.permanentServing = d.now, d.started, d.serving
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return u.s.d.Server.EnsurePermanentSlots(ctx, d.state.Config.Value.Slots)
}

// Alone makes sure that no other sidecar lives under our name: one that is registered and answers on its
// API as another instance. It is asked once, before Run; a silent one is not dead, but it is not proof either.
func (s *Sidecar) Alone(ctx context.Context, st schema.ClusterState) error {
	for _, d := range st.Members {
		m := d.Value
		// On our own address nobody else answers: it is ours already, and not served yet.
		if m.Name != s.o.Name || m.Instance == s.instance || m.Addresses.API == "" || m.Addresses.API == s.o.Addresses.API {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Addresses.API+"/status", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		defer res.Body.Close()
		var other schema.ClusterStatus
		if json.NewDecoder(http.MaxBytesReader(nil, res.Body, 1<<20)).Decode(&other) == nil &&
			other.Cluster == s.o.Cluster && other.Member == s.o.Name && other.Self.Instance != s.instance {
			return fmt.Errorf("another sidecar named %s of cluster %s runs and answers at %s: give this one another --name, or stop that one first", s.o.Name, s.o.Cluster, m.Addresses.API)
		}
	}
	return nil
}
