package cmd

import (
	"fmt"
	"net"
	"os"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul"
	"howdah/consul/schema"
	"howdah/detector"
	"howdah/sidecar/launch"
	"howdah/sidecar/postgres"
)

const sidecarLong = `Keeps one member of a cluster: it drives the Postgres that howdah launch runs on the same machine (or in the same pod),
holds or watches the lock in Consul, and follows or takes over as the cluster needs. Postgres runs on while
the sidecar is restarted.`

const sidecarExample = `howdah sidecar --cluster shop --name pg1 --data-dir /var/lib/postgresql/main/data \
  --postgres-listen 0.0.0.0:5432 --postgres-advertise 10.0.0.1:5432 --secrets-dir /etc/howdah/secrets
howdah sidecar --config /etc/howdah/sidecar.yaml`

// The values of --clone-without-room.
const (
	keepCopy    = "keep"
	removeFirst = "remove-first"
)

// Sidecar runs one member's sidecar.
type Sidecar struct {
	// Cluster and Name say which member of which cluster this is; DataDir is its data directory, as the launcher
	// at LaunchSocket sees it.
	Cluster, Name, DataDir, LaunchSocket string
	// PostgresListen is where Postgres listens, PostgresAdvertise where others reach it (empty: there).
	PostgresListen, PostgresAdvertise, PostgresSocketDir string
	Consul                                               ConsulOptions
	Gossip                                               GossipOptions
	// APIListen is where the HTTP API listens, APIAdvertise where others reach it (empty: there, on the
	// host of PostgresAdvertise). APICertFile and APIKeyFile switch TLS on.
	APIListen, APIAdvertise, APITokenFile, APICertFile, APIKeyFile string
	// SecretsDir holds the secrets, BootstrapConfig is a YAML file with the configuration of a new cluster.
	SecretsDir, BootstrapConfig string
	// Init says what becomes of a cluster that is not initialised yet: schema.InitNew, schema.InitExisting or schema.InitRestore.
	Init string
	// Restore* are the options of schema.InitRestore; see postgres.RestoreOptions.
	RestoreCommand, RestoreFetch, RestoreTarget, RestoreTargetTimeline string
	RestoreTargetInclusive                                             bool
	// CloneWithoutRoom says what becomes of the old directory where two have no room: keepCopy or removeFirst.
	CloneWithoutRoom string
	// Priority, NoFailover, NoSync, NoLoadBalance and CloneFrom are the member's tags.
	Priority                                     int
	NoFailover, NoSync, NoLoadBalance, CloneFrom bool
	// RegisterService announces the member in Consul's service catalogue.
	RegisterService bool
	Log             LogOptions

	stdio Stdio
	load  func(Command) error // nil where Run is called without a command line
}

// NewSidecar returns a Sidecar with its defaults.
func NewSidecar(stdio Stdio) *Sidecar {
	return &Sidecar{
		LaunchSocket: defaultLaunchSocket, PostgresListen: "0.0.0.0:5432", PostgresSocketDir: defaultPostgresSocketDir,
		Gossip: GossipOptions{Listen: "0.0.0.0:7946"}, APIListen: "0.0.0.0:8008",
		SecretsDir: "/etc/howdah/secrets", RegisterService: true, Init: schema.InitNew, CloneWithoutRoom: keepCopy,
		RestoreTarget: "latest", RestoreTargetTimeline: "latest", RestoreTargetInclusive: true, Log: defaultLog(), stdio: stdio,
	}
}

// Declare implements Command.
func (c *Sidecar) Declare(s *options.Set) {
	s.Group("Member")
	declareCluster(s, &c.Cluster)
	declareName(s, &c.Name, "this member's name; it stays the same for as long as its data do")
	s.String(&c.DataDir, "data-dir", "PostgreSQL's data directory, as the launcher sees it", options.Required, absolute)
	s.String(&c.LaunchSocket, "launch-socket", "the socket of howdah launch", options.Required, absolute)
	s.String(&c.SecretsDir, "secrets-dir", "files superuser, replication, rewind, router (passwords, read again when they change; former ones below the first line), gossip.key, api.token; those missing are generated", options.Required, absolute)
	s.String(&c.BootstrapConfig, "bootstrap-config", "a YAML file with the configuration that a new cluster gets", options.Placeholder("FILE"))
	s.String(&c.Init, "init", "the first data of a cluster that is not initialised: new (initdb), existing (adopt the primary's directory that is here) or restore (from a backup)",
		options.OneOf(schema.InitNew, schema.InitExisting, schema.InitRestore))
	c.declareRestore(s)
	s.String(&c.CloneWithoutRoom, "clone-without-room", "where the disk has no room for a clone beside the old directory: keep (wait for room) or remove-first (clone once the old one is gone; until then this member has no copy)",
		options.OneOf(keepCopy, removeFirst))
	s.Int(&c.Priority, "priority", "orders candidates before their LSN does, higher first", -1000, 1000)
	s.Bool(&c.NoFailover, "nofailover", "this member never becomes the primary")
	s.Bool(&c.NoSync, "nosync", "no commit waits for this member")
	s.Bool(&c.NoLoadBalance, "noloadbalance", "this member gets no reads")
	s.Bool(&c.CloneFrom, "clonefrom", "others are cloned from this member, while it is a healthy standby, to spare the primary")
	s.Group("Postgres")
	s.String(&c.PostgresListen, "postgres-listen", "where Postgres listens", options.Required, reachableOrAny)
	s.String(&c.PostgresAdvertise, "postgres-advertise", "where others reach it, if not there", reachable)
	s.String(&c.PostgresSocketDir, "postgres-socket-dir", "where Postgres puts its unix socket", options.Required, absolute)
	c.Consul.declare(s)
	s.Bool(&c.RegisterService, "register-service", "announce the member as a service of the Consul agent")
	c.Gossip.declare(s, "a file of gossip keys instead of gossip.key in --secrets-dir")
	s.Group("API")
	s.String(&c.APIListen, "api-listen", "where the HTTP API listens", options.Required, address)
	s.String(&c.APIAdvertise, "api-advertise", "where others reach it, if not there", reachable)
	s.String(&c.APITokenFile, "api-token-file", "a file with the API's token instead of api.token in --secrets-dir", options.Placeholder("FILE"))
	s.String(&c.APICertFile, "api-cert-file", "a PEM certificate: the API speaks https", options.Placeholder("FILE"))
	s.String(&c.APIKeyFile, "api-key-file", "the PEM key that goes with it", options.Placeholder("FILE"))
	c.Log.declare(s)
	s.Check(func() []options.Problem { return c.check(s) })
}

func (c *Sidecar) check(s *options.Set) []options.Problem {
	found := pair(s, "api-cert-file", c.APICertFile, "api-key-file", c.APIKeyFile)
	found = append(found, c.checkRestore(s)...)
	if c.PostgresAdvertise == "" && wildcard(c.PostgresListen) {
		found = append(found, s.Problem("postgres-advertise", fmt.Sprintf("is required, because --postgres-listen %s is no address that others can connect to", c.PostgresListen)))
	}
	for name, a := range map[string]string{"postgres-advertise": c.PostgresAdvertise, "gossip-advertise": c.Gossip.Advertise, "api-advertise": c.APIAdvertise} {
		if a != "" && wildcard(a) {
			found = append(found, s.Problem(name, "name an address of this host that others can connect to"))
		}
	}
	return found
}

// declareRestore declares what goes with --init restore.
func (c *Sidecar) declareRestore(s *options.Set) {
	s.String(&c.RestoreCommand, "restore-command", "a shell line that fills the empty directory %d with a base backup, for example pgbackrest --stanza=main --pg1-path=%d restore",
		options.Placeholder("COMMAND"))
	s.String(&c.RestoreFetch, "restore-fetch", "PostgreSQL's restore_command for the recovery, if the backup's own configuration does not say it, for example cp /archive/%f %p",
		options.Placeholder("COMMAND"))
	s.String(&c.RestoreTarget, "restore-target", "where the recovery ends: latest, immediate, name=X, time=X, xid=X or lsn=X", options.Placeholder("TARGET"))
	s.String(&c.RestoreTargetTimeline, "restore-target-timeline", "along which timeline: latest, current or a number", options.Placeholder("TIMELINE"))
	s.Bool(&c.RestoreTargetInclusive, "restore-target-inclusive", "whether what is at the target (time, xid, lsn) is recovered, too")
}

// restore is what Restore* say; its zero value where the cluster does not begin with a backup.
func (c *Sidecar) restore() postgres.RestoreOptions {
	if c.Init != schema.InitRestore {
		return postgres.RestoreOptions{}
	}
	return postgres.RestoreOptions{Command: c.RestoreCommand, Fetch: c.RestoreFetch, Target: c.RestoreTarget, Timeline: c.RestoreTargetTimeline,
		Exclusive: !c.RestoreTargetInclusive}
}

func (c *Sidecar) checkRestore(s *options.Set) []options.Problem {
	if c.Init == schema.InitRestore {
		return s.Adopt(c.restore().Validate())
	}
	var found []options.Problem
	for _, o := range []struct {
		name  string
		given bool
	}{
		{"restore-command", c.RestoreCommand != ""}, {"restore-fetch", c.RestoreFetch != ""}, {"restore-target", c.RestoreTarget != "latest"},
		{"restore-target-timeline", c.RestoreTargetTimeline != "latest"}, {"restore-target-inclusive", !c.RestoreTargetInclusive},
	} {
		if o.given {
			found = append(found, s.Problem(o.name, "goes with --init restore only"))
		}
	}
	return found
}

// reachableOrAny is a place to listen whose port others must be told: not 0.
func reachableOrAny(o *options.Option) { hostPort(o, 1, false) }

// Validate returns every mistake at once.
func (c *Sidecar) Validate() error { return options.Validate(c) }

// addresses are what others are told. Gossip and API are reached on the host that Postgres is reached on, where
// nothing else is said and they listen on every interface.
func (c *Sidecar) addresses() schema.Addresses {
	postgres := c.PostgresAdvertise
	if postgres == "" {
		postgres = c.PostgresListen
	}
	host, _, _ := net.SplitHostPort(postgres)
	tell := func(advertise, listen string) string {
		if advertise != "" {
			return advertise
		}
		if !wildcard(listen) {
			return listen
		}
		_, port, _ := net.SplitHostPort(listen)
		return net.JoinHostPort(host, port)
	}
	return schema.Addresses{Postgres: postgres, API: tell(c.APIAdvertise, c.APIListen), Gossip: tell(c.Gossip.Advertise, c.Gossip.Listen)}
}

// bootstrap reads the configuration of a new cluster: howdah's defaults with what the file changes.
func (c *Sidecar) bootstrap() (schema.ClusterConfig, error) {
	config := schema.DefaultClusterConfig()
	if c.BootstrapConfig == "" {
		return config, nil
	}
	data, err := os.ReadFile(c.BootstrapConfig)
	if err != nil {
		return config, fmt.Errorf("bootstrap-config: %w", err)
	}
	if err := readClusterConfig(data, &config); err != nil {
		return config, fmt.Errorf("bootstrap-config %s:\n%w", c.BootstrapConfig, err)
	}
	if err := postgres.CheckConfig(config); err != nil {
		return config, fmt.Errorf("bootstrap-config %s:\n%w", c.BootstrapConfig, err)
	}
	return config, nil
}

// member is everything that Run puts together, before anything is started.
type member struct {
	log       *zap.Logger
	secrets   Secrets
	bootstrap schema.ClusterConfig
	addresses schema.Addresses
	tags      schema.Tags
	consul    *consul.Client
	gossip    detector.Config
	launcher  *launch.Client
}

// prepare reads the files that the options name. Nothing is started and nobody is asked.
func (c *Sidecar) prepare() (member, error) {
	var m member
	var err error
	if m.log, err = c.Log.logger(c.stdio.Err); err != nil {
		return m, err
	}
	if m.secrets, err = loadSecrets(c.SecretsDir, c.Gossip.KeyFile, c.APITokenFile); err != nil {
		return m, err
	}
	if m.bootstrap, err = c.bootstrap(); err != nil {
		return m, err
	}
	if m.consul, err = c.Consul.client(c.Cluster, m.log); err != nil {
		return m, err
	}
	m.addresses = c.addresses()
	m.tags = c.tags()
	m.gossip = detector.Config{
		Name: c.Name, Kind: detector.KindMember, Cluster: c.Cluster, Addresses: m.addresses,
		Bind: c.Gossip.Listen, Advertise: m.addresses.Gossip, Join: c.Gossip.Join, Keys: m.secrets.GossipKeys,
	}
	m.launcher = launch.NewClient(c.LaunchSocket)
	return m, nil
}
