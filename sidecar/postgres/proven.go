package postgres

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"howdah/consul/schema"
)

// proven is what is remembered of the operator's part of the configuration, in a file beside the data directory: what a
// server of this member has run with, and what it refused. One value that PostgreSQL does not take
// would keep it from reading anything else at a reload, and from starting at all; so such a value is never left in the
// files, and what ran before stays in its place.
type proven struct {
	// Known is set once a server has run; until then there is nothing to fall back to.
	Known      bool              `json:"known"`
	Parameters map[string]string `json:"parameters,omitempty"`
	HBA        []string          `json:"hba,omitempty"`
	// Refused are the parameters, by name in lower case, that did not do.
	Refused map[string]refusal `json:"refused,omitempty"`
	// RefusedHBA is the hba list that did not do; nil if none was refused.
	RefusedHBA *refusedHBA `json:"refused_hba,omitempty"`
}

// refusal is one value and why PostgreSQL did not take it.
type refusal struct {
	Value string `json:"value"`
	Why   string `json:"why"`
	// Start is set where a start failed, which does not say for certain what the reason was.
	Start bool `json:"start,omitempty"`
}

type refusedHBA struct {
	Lines []string `json:"lines"`
	Why   string   `json:"why"`
	Start bool     `json:"start,omitempty"`
}

func (p *Postgres) provenFile() string { return p.o.DataDir + ".proven" }

// readProven reads the file; one that is not there, or that is not whole, proves nothing.
func (p *Postgres) readProven() proven {
	var v proven
	if b, err := os.ReadFile(p.provenFile()); err != nil || json.Unmarshal(b, &v) != nil {
		return proven{}
	}
	return v
}

// changeProven changes the file by f. Nothing of value is lost with it, so a failure to write is only logged.
func (p *Postgres) changeProven(f func(*proven)) error {
	p.provenLock.Lock()
	defer p.provenLock.Unlock()
	v := p.readProven()
	f(&v)
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := writeFile(p.provenFile(), b, 0o600); err != nil {
		return fmt.Errorf("remember which settings work: %w", err)
	}
	return nil
}

// effective is cfg with everything in it that was refused put back to what ran before. It says in words what that is.
func (v proven) effective(cfg schema.ClusterConfig) (schema.ClusterConfig, []string) {
	var said []string
	params := maps.Clone(cfg.Parameters)
	for _, name := range slices.Sorted(maps.Keys(cfg.Parameters)) {
		r, refused := v.Refused[strings.ToLower(name)]
		if !refused || r.Value != cfg.Parameters[name] {
			continue
		}
		if old, had := v.Parameters[strings.ToLower(name)]; had && old != r.Value {
			params[name] = old
			said = append(said, fmt.Sprintf("parameters.%s = %s is not in force: %s; it stays %s", name, r.Value, r.Why, old))
			continue
		}
		delete(params, name)
		said = append(said, fmt.Sprintf("parameters.%s = %s is not in force: %s; it stays as if it were not set", name, r.Value, r.Why))
	}
	cfg.Parameters = params
	if r := v.RefusedHBA; r != nil && slices.Equal(r.Lines, cfg.HBA) {
		cfg.HBA = v.HBA
		said = append(said, "the hba list is not in force: "+r.Why+"; the list before it stays")
	}
	return cfg, said
}

// works takes in that a server has taken cfg, of which the parameters named in waiting still wait for a restart.
func (v *proven) works(cfg schema.ClusterConfig, waiting []string) {
	now, _ := v.effective(cfg)
	params := map[string]string{}
	for name, value := range now.Parameters {
		low := strings.ToLower(name)
		if !slices.Contains(waiting, low) {
			params[low] = value
		} else if old, had := v.Parameters[low]; had {
			params[low] = old
		}
	}
	v.Known, v.Parameters, v.HBA = true, params, now.HBA
	for name, value := range cfg.Parameters { // what is no longer asked for is no longer refused
		if r, is := v.Refused[strings.ToLower(name)]; is && r.Value != value {
			delete(v.Refused, strings.ToLower(name))
		}
	}
	maps.DeleteFunc(v.Refused, func(name string, _ refusal) bool { return !setsAny(cfg.Parameters, name) })
	if r := v.RefusedHBA; r != nil && !slices.Equal(r.Lines, cfg.HBA) {
		v.RefusedHBA = nil
	}
}

func setsAny(params map[string]string, low string) bool {
	for name := range params {
		if strings.ToLower(name) == low {
			return true
		}
	}
	return false
}

// isProven reports whether nothing in cfg, as it takes effect, is new to a server of this member.
func (v proven) isProven(cfg schema.ClusterConfig) bool {
	now, _ := v.effective(cfg)
	if !v.Known || !slices.Equal(now.HBA, v.HBA) || len(now.Parameters) != len(v.Parameters) {
		return false
	}
	for name, value := range now.Parameters {
		if old, had := v.Parameters[strings.ToLower(name)]; !had || old != value {
			return false
		}
	}
	return true
}

// blame looks for the reason of a start that failed, of which the server's log holds words, in what is new since the last that
// worked, and refuses it. Where it finds nothing new, what an earlier failure was blamed on was
// not the reason: it is believed again. It names what is refused now.
func (v *proven) blame(cfg schema.ClusterConfig, why, words string) []string {
	if !v.Known {
		return nil
	}
	now, _ := v.effective(cfg)
	var fresh []string
	for _, name := range slices.Sorted(maps.Keys(now.Parameters)) {
		if old, had := v.Parameters[strings.ToLower(name)]; !had || old != now.Parameters[name] {
			fresh = append(fresh, name)
		}
	}
	hba := !slices.Equal(now.HBA, v.HBA)
	if len(fresh) == 0 && !hba {
		maps.DeleteFunc(v.Refused, func(_ string, r refusal) bool { return r.Start })
		if v.RefusedHBA != nil && v.RefusedHBA.Start {
			v.RefusedHBA = nil
		}
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(fresh), func(name string) bool { return !strings.Contains(words, `"`+strings.ToLower(name)+`"`) })
	switch {
	case hba && strings.Contains(words, "pg_hba.conf"):
		fresh = nil
	case len(named) > 0:
		fresh, hba = named, false
	}
	why = "PostgreSQL did not start with it: " + clip(why)
	var blamed []string
	for _, name := range fresh {
		if v.Refused == nil {
			v.Refused = map[string]refusal{}
		}
		v.Refused[strings.ToLower(name)] = refusal{Value: now.Parameters[name], Why: why, Start: true}
		blamed = append(blamed, "parameters."+name)
	}
	if hba {
		v.RefusedHBA = &refusedHBA{Lines: now.HBA, Why: why, Start: true}
		blamed = append(blamed, "hba")
	}
	return blamed
}
