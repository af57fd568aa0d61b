package decide

import (
	"strings"
	"time"

	"howdah/consul/schema"
)

// reconfigureBound is how long Postgres may take to be asked about new files and to read them.
const reconfigureBound = 5 * time.Second

// Standing is what the configuration files of a running Postgres depend on besides the cluster's configuration.
type Standing struct {
	Role schema.Role
	From Upstream
	Sync schema.SyncSet
}

// Equal reports whether s and t ask for the same files.
func (s Standing) Equal(t Standing) bool {
	return s.Role == t.Role && s.From == t.From && s.Sync.Equal(t.Sync)
}

// Files is a comparison of Postgres's configuration files with what they should be.
type Files struct {
	// At is when the comparison began; Never where none could be made.
	At schema.Instant
	// For is what they were compared with.
	For Standing
	// Differ says that they are not so, or that Postgres has not read them since.
	Differ bool
	// Refused says in words what of the cluster's configuration Postgres refused.
	Refused []string
}

// Configured returns how Postgres stands while nothing is under way that configures it otherwise: as a primary that serves
// or as a standby of one. At any other moment its files are the business of whatever is under way.
func Configured(o *Observation, m Memory) (Standing, bool) {
	d := &decision{o: o, m: m}
	sql, r, l := o.SQL, m.Reign, o.Lock.Leader
	if o.Process.State != ProcessRunning || o.Process.Ending || !sql.Answers() || d.ordering() {
		return Standing{}, false
	}
	if r.Active && r.Phase == schema.PhaseFollowing {
		return Standing{Role: schema.RoleStandby, From: m.Following}, sql.InRecovery && r.HandOver == "" && o.Config.Follow.Set() && m.Following == d.remote()
	}
	if r.Active {
		s := r.Sync
		ok := r.Phase == schema.PhaseServing && r.HandOver == "" && m.Switch.Step == StepNone && !sql.InRecovery && o.Process.Armed && d.alive() &&
			!s.Closed && s.Wanted.Equal(s.Recorded) && covers(s.Recorded, s.Applied, o.Name)
		return Standing{Role: schema.RolePrimary, Sync: s.Applied}, ok
	}
	up := Upstream{Member: l.Member, Address: l.Addresses.Postgres}
	ok := sql.InRecovery && o.Lock.Held() && l.Member != o.Name && (l.Phase == schema.PhaseServing || l.Phase == schema.PhaseFollowing) && m.Following == up
	return Standing{Role: schema.RoleStandby, From: m.Following}, ok
}

// keepConfigured has Postgres read what the cluster's configuration asks for. It is done once a comparison made after the
// last action on Postgres finds no difference. Whatever else wants Postgres goes first.
func (d *decision) keepConfigured() {
	s, ok := Configured(d.o, d.m)
	f := d.o.Files
	if !ok || s.Role == schema.RolePrimary && !s.Sync.Equal(d.target()) || f.At == schema.Never || f.At <= d.m.HandledAt || !f.For.Equal(s) {
		return
	}
	d.learnRefused(f.Refused)
	if f.Differ {
		d.do(Action{Kind: Reconfigure, Role: s.Role, From: s.From, Sync: s.Sync, Timeout: reconfigureBound, Why: "its configuration is not what it should be"})
	}
}

// learnReconfigure notes that Postgres has read a changed configuration.
func (d *decision) learnReconfigure(out Outcome) {
	if out.Result == OK {
		d.note(schema.EventConfigured, d.m.Record.Epoch, "the configuration was written and read again")
	}
}

// learnRefused notes what Postgres refuses, once for each change of it.
func (d *decision) learnRefused(refused []string) {
	text := strings.Join(refused, "; ")
	if text == d.m.Refused {
		return
	}
	if text != "" {
		d.note(schema.EventRefused, d.m.Record.Epoch, "%s", text)
	}
	d.m.Refused = text
}
