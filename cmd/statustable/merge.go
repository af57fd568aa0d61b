// Package statustable merges what the members of a cluster say about themselves and about each other into
// one picture, and prints it. It does no I/O but the writing, so that `howdah status`
// and `howdah demo` show the same.
package statustable

import (
	"cmp"
	"maps"
	"slices"

	"howdah/consul/schema"
)

// Answer is what one member said when it was asked, or that it said nothing.
type Answer struct {
	// Member is the name asked for; it may be empty where only an address was known.
	Member string
	// Status is nil where no answer came; Err then says why, for people.
	Status *schema.ClusterStatus
	Err    string
}

// Consul is what was learned from Consul itself.
type Consul struct {
	// Asked is false where nobody asked Consul: the members' word is all there is.
	Asked bool
	// Err says why there was no answer; empty if there was one.
	Err string
	// State is what it answered.
	State schema.ClusterState
}

// Row is one member in the picture.
type Row struct {
	schema.MemberView
	// Answered says that the member itself answered just now. Where it did not, the rest is what
	// others heard HeardAgo ago, and nothing says that the member is dead.
	Answered bool `json:"answered"`
	// NoAnswer says why not.
	NoAnswer string `json:"no_answer,omitempty"`
	// LagBytes is what the member has not yet received of the primary's WAL, ReplayLagBytes what it has not yet
	// replayed. Both are -1 where one of the positions is unknown, and for the primary.
	LagBytes       int64 `json:"lag_bytes"`
	ReplayLagBytes int64 `json:"replay_lag_bytes"`
}

// Picture is one cluster at one moment.
type Picture struct {
	Cluster string `json:"cluster"`
	// Epoch is the newest that anybody named.
	Epoch schema.Epoch `json:"epoch"`
	// Leader is the newest leader record; nil if nobody has seen one.
	Leader *schema.Leader `json:"leader,omitempty"`
	// Primary names the member that serves in Epoch; empty if none is known to.
	Primary string `json:"primary"`
	// Paused says that the cluster is in maintenance, by whom and why; nil if it is not.
	Paused *Paused `json:"paused,omitempty"`
	// Consul is the state of Consul in words.
	Consul  string `json:"consul"`
	Members []Row  `json:"members"`
	// Asks names the primary that cannot renew its lease and asks for promises instead, Promises what it was told; empty
	// while there is none.
	Asks     string               `json:"asks,omitempty"`
	Promises []schema.PromiseView `json:"promises,omitempty"`
}

// Paused is who put a cluster into maintenance and why.
type Paused struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// paused goes by Consul's word, and where nobody asked Consul by the member that it answered last.
func paused(consul Consul, answers []Answer) *Paused {
	config := consul.State.Config.Value
	if !consul.Asked || consul.Err != "" {
		best := schema.Duration(-1)
		for _, a := range answers {
			if a.Status == nil {
				continue
			}
			if age := a.Status.ConsulAge; age >= 0 && (best < 0 || age < best) {
				config, best = a.Status.Config, age
			}
		}
	}
	if !config.Pause {
		return nil
	}
	return &Paused{By: config.PauseBy, Reason: config.PauseReason}
}

// Merge makes one picture of Consul's word and of the members' answers. About one instance of a member the
// status with the highest Seq is newest; of two instances the one heard last.
func Merge(cluster string, consul Consul, answers []Answer) Picture {
	p := Picture{Cluster: cluster, Leader: newestLeader(consul, answers), Paused: paused(consul, answers)}
	rows := map[string]*Row{}
	row := func(name string) *Row {
		if rows[name] == nil {
			rows[name] = &Row{MemberView: schema.MemberView{
				Status:   schema.Status{Name: name, Cluster: cluster, State: schema.StateUnknown},
				Liveness: schema.LivenessUnknown, HeardAgo: -1,
			}}
		}
		return rows[name]
	}
	for _, doc := range consul.State.Members {
		r := row(doc.Value.Name)
		r.Addresses, r.Tags, r.PostgresVersion = doc.Value.Addresses, doc.Value.Tags, doc.Value.PostgresVersion
	}
	for _, a := range answers {
		if a.Status == nil {
			if a.Member != "" {
				row(a.Member).NoAnswer = a.Err
			}
			continue
		}
		for _, view := range a.Status.Members {
			if view.Name != a.Status.Member {
				row(view.Name).hear(view)
			}
		}
	}
	// What a member says about itself just now goes before what others heard.
	for _, a := range answers {
		if a.Status != nil {
			r := row(a.Status.Member)
			r.MemberView = schema.MemberView{Status: a.Status.Self, Liveness: schema.LivenessAlive}
			r.Name, r.Answered, r.NoAnswer = a.Status.Member, true, ""
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		p.Members = append(p.Members, *rows[name])
	}
	p.settle()
	var epoch schema.Epoch
	for _, a := range answers {
		if s := a.Status; s != nil && len(s.Promises) > 0 && s.Self.Epoch >= epoch {
			epoch, p.Asks, p.Promises = s.Self.Epoch, s.Member, s.Promises
		}
	}
	p.Consul = consulState(consul, answers)
	return p
}

func (r *Row) hear(view schema.MemberView) {
	if view.HeardAgo < 0 {
		return
	}
	newer := r.HeardAgo < 0 || view.HeardAgo < r.HeardAgo
	if r.HeardAgo >= 0 && view.Instance == r.Instance && view.Seq != r.Seq {
		newer = view.Seq > r.Seq
	}
	if newer {
		r.MemberView = view
	}
}

// settle finds the epoch, the primary and the lags once all rows are there.
func (p *Picture) settle() {
	if p.Leader != nil {
		p.Epoch = p.Leader.Epoch
	}
	for _, r := range p.Members {
		p.Epoch = max(p.Epoch, r.Epoch)
	}
	var end schema.LSN
	for _, r := range p.Members {
		if r.Role == schema.RolePrimary && r.Epoch == p.Epoch && r.State == schema.StateRunning {
			p.Primary, end = r.Name, r.LSN
		}
	}
	if p.Primary == "" && p.Leader != nil && p.Leader.Epoch == p.Epoch && p.Leader.Phase == schema.PhaseServing {
		p.Primary, end = p.Leader.Member, p.Leader.FlushLSN
	}
	for i := range p.Members {
		r := &p.Members[i]
		r.LagBytes, r.ReplayLagBytes = -1, -1
		if r.Name == p.Primary || end == 0 {
			continue
		}
		if r.LSN != 0 {
			r.LagBytes = int64(r.LSN.Behind(end))
		}
		if r.ReplayLSN != 0 {
			r.ReplayLagBytes = int64(r.ReplayLSN.Behind(end))
		}
	}
}

func newestLeader(consul Consul, answers []Answer) *schema.Leader {
	if consul.Asked && consul.Err == "" && consul.State.Leader.Exists {
		leader := consul.State.Leader.Leader
		return &leader
	}
	var newest *schema.Leader
	for _, a := range answers {
		if a.Status == nil || a.Status.Leader == nil {
			continue
		}
		if newest == nil || a.Status.Leader.Epoch > newest.Epoch {
			newest = a.Status.Leader
		}
	}
	return newest
}

func consulState(consul Consul, answers []Answer) string {
	switch {
	case consul.Asked && consul.Err == "":
		return "answers"
	case consul.Asked:
		return "does not answer here: " + consul.Err
	}
	var ages []schema.Duration
	for _, a := range answers {
		if a.Status != nil && a.Status.ConsulAge >= 0 {
			ages = append(ages, a.Status.ConsulAge)
		}
	}
	if len(ages) == 0 {
		return "no member has heard from it"
	}
	return "answered a member " + brief(slices.MinFunc(ages, cmp.Compare).D()) + " ago"
}
