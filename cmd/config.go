package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/schema"
)

const configLong = `Shows the configuration that holds for the whole cluster, as YAML. It lives in Consul. howdah's own settings hold from
the moment they are written; parameters and hba reach every running PostgreSQL within seconds, by a reload. What only a
restart heeds, howdah status shows. What PostgreSQL refuses stays as it was, and the member's status says so.`

const configExample = `howdah config --cluster shop
howdah config show --cluster shop --changes`

// ConsulAccess is how a command that speaks to Consul alone finds a cluster.
type ConsulAccess struct {
	Cluster string
	Consul  ConsulOptions
}

func (a *ConsulAccess) declare(s *options.Set) {
	s.Group("Cluster")
	declareCluster(s, &a.Cluster)
	a.Consul.declare(s)
}

// open returns a client and the state of the cluster, which must be known.
func (a *ConsulAccess) open(ctx context.Context) (*consul.Client, schema.ClusterState, error) {
	client, err := a.Consul.client(a.Cluster, zap.NewNop())
	if err != nil {
		return nil, schema.ClusterState{}, err
	}
	asking, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	state, err := client.ReadState(asking)
	if err != nil {
		return nil, schema.ClusterState{}, err
	}
	if !state.Leader.Exists && !state.Initialize.Exists && len(state.Members) == 0 {
		v := &view{a: ClusterAccess{Cluster: a.Cluster}, consul: client}
		return nil, schema.ClusterState{}, v.unknownCluster(ctx)
	}
	return client, state, nil
}

// ConfigShow prints the cluster's configuration, or who changed it.
type ConfigShow struct {
	ConsulAccess
	// Output is yaml or json.
	Output string
	// History shows the changes instead.
	History bool

	stdio Stdio
}

// NewConfigShow returns a ConfigShow with its defaults.
func NewConfigShow(stdio Stdio) *ConfigShow { return &ConfigShow{Output: "yaml", stdio: stdio} }

// Declare implements Command.
func (c *ConfigShow) Declare(s *options.Set) {
	c.declare(s)
	declareOutput(s, &c.Output, "yaml")
	s.Bool(&c.History, "changes", "show who changed what and when instead")
}

// configGroup is `howdah config`: by itself it shows.
type configGroup struct{ *ConfigShow }

// Commands implements parent.
func (c configGroup) Commands() []entry {
	return []entry{
		{"show", "show it", configLong, configExample, NewConfigShow(c.stdio)},
		{"edit", "change it in an editor", configEditLong, configEditExample, NewConfigEdit(c.stdio)},
		{"set", "change some keys", configSetLong, configSetExample, NewConfigSet(c.stdio)},
	}
}

// Validate returns every mistake at once.
func (c *ConfigShow) Validate() error { return options.Validate(c) }

// Run implements Command.
func (c *ConfigShow) Run(ctx context.Context) error {
	client, state, err := c.open(ctx)
	if err != nil {
		return err
	}
	if c.History {
		return c.changes(ctx, client)
	}
	if !state.Config.Exists {
		return fmt.Errorf("cluster %s has no configuration in Consul yet: its first primary writes it", c.Cluster)
	}
	if c.Output == "json" {
		return writeJSON(c.stdio, state.Config.Value)
	}
	text, err := writeClusterConfig(state.Config.Value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.stdio.Out, text)
	return err
}

func (c *ConfigShow) changes(ctx context.Context, client *consul.Client) error {
	asking, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	h, err := client.ReadConfigHistory(asking)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return writeJSON(c.stdio, h.Value)
	}
	if len(h.Value.Changes) == 0 {
		_, err = fmt.Fprintln(c.stdio.Out, "nobody has changed the configuration since the cluster was made")
		return err
	}
	table := tabwriter.NewWriter(c.stdio.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "WHEN\tWHO\tWHAT")
	for _, change := range h.Value.Changes {
		when, who := wall(change.At), change.By
		for _, line := range change.Changes {
			fmt.Fprintf(table, "%s\t%s\t%s\n", when, printable(who), printable(line))
			when, who = "", ""
		}
	}
	return table.Flush()
}

func writeJSON(stdio Stdio, v any) error {
	e := json.NewEncoder(stdio.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// wall is a time of the wall clock as tables show it.
func wall(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// printable keeps what others wrote from moving the cursor or breaking a table.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

const configSetLong = `Changes some keys of the cluster's configuration. Settings of PostgreSQL stand under parameters.
A value of null takes a parameter or a slot away, or gives a key its default again. Below PostgreSQL 17 a logical slot is made
anew after a failover, and its consumer may miss changes.`

const configSetExample = `howdah config set --cluster shop lease=5s parameters.work_mem=64MB
howdah config set --cluster shop parameters.work_mem=null
howdah config set --cluster shop 'slots.feed={type: logical, database: shop, plugin: pgoutput}'`

// ConfigSet changes some keys.
type ConfigSet struct {
	ConsulAccess
	// Words are the changes, each KEY=VALUE.
	Words []string
	// APICAFile is for members whose API speaks https.
	APICAFile string

	stdio Stdio
}

// NewConfigSet returns a ConfigSet with its defaults.
func NewConfigSet(stdio Stdio) *ConfigSet { return &ConfigSet{stdio: stdio} }

// Declare implements Command.
func (c *ConfigSet) Declare(s *options.Set) {
	c.declare(s)
	s.String(&c.APICAFile, "api-ca-file", "PEM certificates of whoever signed the members' APIs: they speak https", options.Placeholder("FILE"))
}

// Validate returns every mistake at once.
func (c *ConfigSet) Validate() error { return options.Validate(c) }

// ArgumentsUse implements argued.
func (c *ConfigSet) ArgumentsUse() string { return "KEY=VALUE..." }

// Arguments implements argued.
func (c *ConfigSet) Arguments(words []string) error {
	if len(words) == 0 {
		return errors.New("name what to change, such as lease=5s or parameters.work_mem=64MB")
	}
	c.Words = words
	return nil
}

// Run implements Command.
func (c *ConfigSet) Run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		client, state, err := c.open(ctx)
		if err != nil {
			return err
		}
		after, err := c.changed(state.Config.Value)
		if err != nil {
			return err
		}
		if err := checkWithMember(ctx, c.stdio, c.APICAFile, state, after); err != nil {
			return err
		}
		err = changeConfig(ctx, c.stdio, client, state, after)
		// Somebody else was first: what was asked for concerns its own keys only, so it is done over theirs.
		if !errors.Is(err, consul.ErrConflict) || attempt == configAttempts {
			return err
		}
	}
}

// checkWithMember asks a running member what PostgreSQL would refuse of the parameters that change, by name, type or range.
// Where none answers the change is not held up: each member finds out by itself, and says so.
func checkWithMember(ctx context.Context, stdio Stdio, caFile string, state schema.ClusterState, after schema.ClusterConfig) error {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(after.Parameters)) {
		if old, was := state.Config.Value.Parameters[name]; !was || old != after.Parameters[name] {
			changed = append(changed, name)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	members, err := newMemberAPI(caFile, "")
	if err != nil {
		return err
	}
	for _, m := range state.Members {
		known, err := members.parameters(ctx, m.Value.Addresses.API)
		if err != nil || len(known) == 0 {
			continue
		}
		if err := errors.Join(schema.CheckParameters(known, after.Parameters, changed)...); err != nil {
			return fmt.Errorf("nothing was changed: PostgreSQL of member %s would refuse it:\n%w", m.Value.Name, err)
		}
		return nil
	}
	_, err = fmt.Fprintln(stdio.Err, "no member answers, so names and values of parameters are not checked; watch howdah status")
	return err
}

// configAttempts is how often a change is tried while others change the configuration too.
const configAttempts = 5

func (c *ConfigSet) changed(config schema.ClusterConfig) (schema.ClusterConfig, error) {
	var errs []error
	for _, word := range c.Words {
		if err := assign(&config, word); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return config, fmt.Errorf("nothing was changed:\n%w", errors.Join(errs...))
	}
	if err := checkClusterConfig(config); err != nil {
		return config, fmt.Errorf("nothing was changed:\n%w", err)
	}
	return config, nil
}

// changeConfig writes the configuration with an entry in its history, under the condition that nobody else has
// changed it since state was read.
func changeConfig(ctx context.Context, stdio Stdio, client *consul.Client, state schema.ClusterState, after schema.ClusterConfig) error {
	if !state.Config.Exists {
		return errors.New("the cluster has no configuration in Consul yet: wait until its first primary has written it")
	}
	if after.Follow.Set() && !state.Config.Value.Follow.Set() {
		return errors.New("nothing was changed: follow makes a standby cluster, and this cluster has data of its own; give it in the --bootstrap-config of a new one")
	}
	settlePause(state.Config.Value, &after)
	changes := state.Config.Value.Changes(after)
	if len(changes) == 0 {
		_, err := fmt.Fprintln(stdio.Out, "nothing to change: it is so already")
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, consulTimeout)
	defer cancel()
	h, err := client.ReadConfigHistory(ctx)
	if err != nil {
		return err
	}
	entry := schema.ConfigChange{At: time.Now().UTC(), By: whoami(), Changes: changes}
	if err := client.ChangeConfig(ctx, after, state.Config.Index, h.Value.Add(entry), h.Index); err != nil {
		return err
	}
	for _, line := range changes {
		fmt.Fprintln(stdio.Out, printable(line))
	}
	_, err = fmt.Fprintln(stdio.Out, "written; parameters and hba reach every running PostgreSQL within seconds: howdah status shows what waits for a restart, and what PostgreSQL refuses")
	return err
}

// settlePause keeps who paused the cluster and why in step with whether it is.
func settlePause(before schema.ClusterConfig, after *schema.ClusterConfig) {
	switch {
	case !after.Pause:
		after.PauseBy, after.PauseReason = "", ""
	case !before.Pause && after.PauseBy == "":
		after.PauseBy = whoami()
	}
}

// whoami is the person at the keyboard as far as that can be told: behind sudo, whoever called it.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		name = "unknown"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}
