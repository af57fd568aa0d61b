package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ConfigChange is one change of the cluster's configuration.
type ConfigChange struct {
	At time.Time `json:"at"` // wall clock, for people only
	// By is who changed it, as user@host.
	By string `json:"by"`
	// Changes are one line for each key: "lease: 3s -> 5s".
	Changes []string `json:"changes"`
}

// ConfigHistory is the value of the config-history key, oldest change first.
type ConfigHistory struct {
	Changes []ConfigChange `json:"changes"`
}

// KeptConfigChanges is how many changes the config-history key keeps: it is read with every answer of the watch.
const KeptConfigChanges = 50

// maxChangeText bounds what one change tells of itself, in bytes: 50 of them stay far below Consul's 512 KiB.
const maxChangeText = 2 << 10

// Add returns h with c as its newest change, cut to what is kept.
func (h ConfigHistory) Add(c ConfigChange) ConfigHistory {
	size := 0
	for i, line := range c.Changes {
		if size += len(line); size > maxChangeText {
			c.Changes = append(slices.Clone(c.Changes[:i]), fmt.Sprintf("and %d more", len(c.Changes)-i))
			break
		}
	}
	old := h.Changes[max(0, len(h.Changes)-KeptConfigChanges+1):]
	return ConfigHistory{Changes: append(slices.Clone(old), c)}
}

// Changes says what is different in to, one line for each key, sorted by key; nothing where they are the same.
func (c ClusterConfig) Changes(to ClusterConfig) []string {
	before, after := c.flat(), to.flat()
	keys := slices.Collect(maps.Keys(before))
	for k := range after {
		if _, both := before[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var lines []string
	for _, k := range keys {
		old, was := before[k]
		now, is := after[k]
		switch {
		case was && is && old == now:
		case k == "hba":
			lines = append(lines, hbaChanges(c.HBA, to.HBA)...)
		case !was:
			lines = append(lines, fmt.Sprintf("%s: set to %s", k, now))
		case !is:
			lines = append(lines, fmt.Sprintf("%s: removed, was %s", k, old))
		default:
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", k, old, now))
		}
	}
	return lines
}

// flat is the JSON form with one entry for each key and each PostgreSQL parameter, so that a field that is
// added is never forgotten here.
func (c ClusterConfig) flat() map[string]string {
	var values map[string]json.RawMessage
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &values)
	}
	if err != nil {
		panic(fmt.Sprintf("schema: a cluster configuration has no JSON form: %v", err)) // it holds text and numbers only
	}
	flat := map[string]string{}
	for k, raw := range values {
		if k == "parameters" {
			continue
		}
		flat[k] = plain(raw)
	}
	for name, value := range c.Parameters {
		flat["parameters."+name] = value
	}
	return flat
}

// plain takes the quotes off a JSON text.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func hbaChanges(before, after []string) []string {
	var lines []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			lines = append(lines, "hba: - "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			lines = append(lines, "hba: + "+l)
		}
	}
	if len(lines) == 0 {
		lines = append(lines, "hba: another order")
	}
	return lines
}
