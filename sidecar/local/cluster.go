package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Options say what a Cluster is made of.
type Options struct {
	// Binary is the built howdah. It is copied into Dir, so that the user of the processes can reach it and a new build
	// does not change a cluster that runs.
	Binary string
	// Dir is the base directory: data, sockets, logs and secrets. It is made if it is missing.
	Dir string
	// BinDir holds PostgreSQL's programs.
	BinDir string
	// Cluster is the name in Consul.
	Cluster string
	// Members are the names of the members.
	Members []string
	// Consul is the address of the lock (http://host:port), ConsulTokenFile a file with its token, or empty.
	Consul, ConsulTokenFile string
	// RouterListen and RouterReadOnly are where the router listens, host:port; empty for a free port.
	RouterListen, RouterReadOnly string
	// Bootstrap is the configuration of a new cluster; nil for howdah's defaults.
	Bootstrap *schema.ClusterConfig
	// LogLevel is that of all processes; empty for info.
	LogLevel string
	// MemberFlags and RouterFlags are given to every sidecar and router beside what is needed.
	MemberFlags, RouterFlags []string
	// Log gets what happens to the processes.
	Log *zap.Logger
}

// Cluster is a cluster on this machine. Make it by New, end it by Stop.
type Cluster struct {
	o       Options
	user    User
	binary  string
	members []*Member
	router  *Router
	asker   *asker
}

// layoutFile keeps the addresses, so that a cluster that is started again has them again.
const layoutFile = "cluster.json"

// layout is the content of layoutFile.
type layout struct {
	Cluster string                      `json:"cluster"`
	Members map[string]schema.Addresses `json:"members"`
	// Gossip and API are the router's own addresses, Listen and ReadOnly those for clients.
	Router struct{ Listen, ReadOnly, Gossip, API string } `json:"router"`
}

// New prepares the directory and chooses the ports. It starts nothing.
func New(o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if len(o.Members) == 0 {
		return nil, errors.New("a cluster needs a member")
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	c := &Cluster{o: o, asker: newAsker()}
	if c.user, err = Unprivileged(); err != nil {
		return nil, err
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	l, err := c.layout()
	if err != nil {
		return nil, err
	}
	for _, name := range o.Members {
		c.members = append(c.members, c.newMember(name, l))
	}
	c.router = c.newRouter(l)
	return c, nil
}

// prepare makes the folders and copies the binary.
func (c *Cluster) prepare() error {
	if err := c.user.Reaches(filepath.Dir(c.o.Dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("log"), 0o755); err != nil {
		return err
	}
	if err := c.user.Reaches(c.o.Dir); err != nil {
		return err
	}
	if err := c.user.own(c.path("secrets")); err != nil {
		return err
	}
	// sockaddr_un.sun_path holds 108 bytes with the final zero, unix(7); Postgres appends the name of its lock file.
	longest := slices.MaxFunc(c.o.Members, func(a, b string) int { return len(a) - len(b) })
	if socket := filepath.Join(c.path(longest, "run"), ".s.PGSQL.65535.lock"); len(socket) > 107 {
		return fmt.Errorf("%s is too long a path: a unix socket's may have 107 bytes, and %s has %d; choose a shorter one", c.o.Dir, socket, len(socket))
	}
	for _, name := range c.o.Members {
		for _, dir := range []string{c.path(name), c.path(name, "run")} {
			if err := c.user.own(dir); err != nil {
				return err
			}
		}
	}
	return c.copyBinary()
}

func (c *Cluster) copyBinary() (err error) {
	from, err := os.Open(c.o.Binary)
	if err != nil {
		return fmt.Errorf("the built howdah: %w; run make build", err)
	}
	defer from.Close()
	c.binary = c.path("bin", "howdah")
	if err := os.MkdirAll(c.path("bin"), 0o755); err != nil {
		return err
	}
	// Under another name first: the old one may still be executed.
	to, err := os.OpenFile(c.binary+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Chmod(0o755), to.Close()); err != nil {
		return err
	}
	return os.Rename(c.binary+".new", c.binary)
}

// layout chooses the addresses: those of the last time where they are free.
func (c *Cluster) layout() (layout, error) {
	old, err := readLayout(c.path(layoutFile))
	if err != nil {
		return old, err
	}
	if old.Cluster != "" && old.Cluster != c.o.Cluster {
		return old, fmt.Errorf("%s holds cluster %q and not %q", c.o.Dir, old.Cluster, c.o.Cluster)
	}
	for name := range old.Members {
		if !slices.Contains(c.o.Members, name) {
			return old, fmt.Errorf("%s holds member %s too, without which the others may not go on: start all of %d members", c.o.Dir, name, len(old.Members))
		}
	}
	p := &picker{taken: map[string]bool{c.o.RouterListen: true, c.o.RouterReadOnly: true}}
	l := layout{Cluster: c.o.Cluster, Members: map[string]schema.Addresses{}}
	var errs []error
	free := func(want string) string {
		a, err := p.free(want)
		errs = append(errs, err)
		return a
	}
	for _, name := range c.o.Members {
		was := old.Members[name]
		l.Members[name] = schema.Addresses{Postgres: free(was.Postgres), API: free(was.API), Gossip: free(was.Gossip)}
	}
	l.Router.Listen, l.Router.ReadOnly = c.o.RouterListen, c.o.RouterReadOnly
	if l.Router.Listen == "" {
		l.Router.Listen = free(old.Router.Listen)
	}
	if l.Router.ReadOnly == "" {
		l.Router.ReadOnly = free(old.Router.ReadOnly)
	}
	l.Router.Gossip, l.Router.API = free(old.Router.Gossip), free(old.Router.API)
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return l, err
	}
	return l, os.WriteFile(c.path(layoutFile), append(b, '\n'), 0o644)
}

// Saved returns the name and the members of the cluster that dir holds; no name if it holds none.
func Saved(dir string) (cluster string, members []string, err error) {
	l, err := readLayout(filepath.Join(dir, layoutFile))
	return l.Cluster, slices.Sorted(maps.Keys(l.Members)), err
}

func readLayout(file string) (layout, error) {
	var l layout
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return l, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

func (c *Cluster) path(more ...string) string {
	return filepath.Join(append([]string{c.o.Dir}, more...)...)
}

// Start starts every member and the router. The cluster is up only later: see Await.
func (c *Cluster) Start(ctx context.Context) error {
	for _, m := range c.members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	// The first sidecar generates the key that the router needs.
	if err := Poll(ctx, 20*time.Millisecond, func() bool { _, err := os.Stat(c.SecretFile("gossip.key")); return err == nil }); err != nil {
		return fmt.Errorf("no sidecar has made its secrets: %w%s", err, c.troubles())
	}
	return c.router.Start()
}

// Stop ends everything in order: the router, the sidecars, then the launchers with their Postgres, the primary first,
// so that the standbys have all that it wrote. What does not end before ctx does is killed, and named in the error.
// Nothing is left running.
func (c *Cluster) Stop(ctx context.Context) error {
	primary := c.Look(ctx).Primary()
	errs := []error{c.router.Stop(ctx)}
	errs = append(errs, c.each(func(m *Member) error { return m.stopSidecar(ctx) })...)
	if primary != nil {
		errs = append(errs, primary.Stop(ctx))
	}
	errs = append(errs, c.each(func(m *Member) error { return m.Stop(ctx) })...)
	return errors.Join(errs...)
}

// Kill ends everything at once by SIGKILL.
func (c *Cluster) Kill() error {
	return errors.Join(append(c.each((*Member).Kill), c.router.Kill())...)
}

func (c *Cluster) each(f func(*Member) error) []error {
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() { errs[i] = f(m) })
	}
	wg.Wait()
	return errs
}

// Members returns the members in the order of Options.
func (c *Cluster) Members() []*Member { return slices.Clone(c.members) }

// Member returns the member of that name; nil if there is none.
func (c *Cluster) Member(name string) *Member {
	for _, m := range c.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Router returns the router.
func (c *Cluster) Router() *Router { return c.router }

// User returns whom the processes run as.
func (c *Cluster) User() User { return c.user }

// Name returns the name of the cluster in Consul.
func (c *Cluster) Name() string { return c.o.Cluster }

// Consul returns the address of the lock.
func (c *Cluster) Consul() string { return c.o.Consul }

// Dir returns the base directory.
func (c *Cluster) Dir() string { return c.o.Dir }

// Binary returns the copy of howdah that the cluster runs.
func (c *Cluster) Binary() string { return c.binary }

// SecretFile returns the path of a file of the secrets folder: superuser, replication, rewind, router, gossip.key, api.token.
func (c *Cluster) SecretFile(name string) string { return c.path("secrets", name) }

// Secret returns the first line of a secret file, which is the one in force; "superuser" is the password of postgres.
func (c *Cluster) Secret(name string) (string, error) {
	b, err := os.ReadFile(c.SecretFile(name))
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(first), err
}

// AddSecret writes a file into the secrets folder, for the user of the processes, unless it is there.
func (c *Cluster) AddSecret(name, text string) error {
	f, err := os.OpenFile(c.SecretFile(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	if c.user.credential != nil {
		err = errors.Join(err, f.Chown(int(c.user.UID), int(c.user.GID)))
	}
	return errors.Join(err, f.Close())
}

// command makes a child that runs howdah with args.
func (c *Cluster) command(orphan syscall.Signal, args ...string) *exec.Cmd {
	cmd := exec.Command(c.binary, args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	if c.o.LogLevel != "" {
		cmd.Args = append(cmd.Args, "--log-level", c.o.LogLevel)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphan, Credential: c.user.credential}
	return cmd
}

// environment is ours without what would change options of howdah, or PostgreSQL's programs, behind our back.
func environment() []string {
	var kept []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOWDAH_") && !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "CONSUL_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// consulFlags are those that every process needs.
func (c *Cluster) consulFlags() []string {
	flags := []string{"--cluster", c.o.Cluster, "--consul-addr", c.o.Consul}
	if c.o.ConsulTokenFile != "" {
		flags = append(flags, "--consul-token-file", c.o.ConsulTokenFile)
	}
	return flags
}

// seeds are the gossip addresses of all members but one.
func (c *Cluster) seeds(but string) string {
	var seeds []string
	for _, m := range c.members {
		if m.Name != but {
			seeds = append(seeds, m.Addresses.Gossip)
		}
	}
	return strings.Join(seeds, ",")
}

// Troubles says, for each process that has ended unasked since its start, how and what its log said last.
func (c *Cluster) Troubles() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.launch.trouble(), m.sidecar.trouble())
	}
	all = append(all, c.router.process.trouble())
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

func (c *Cluster) troubles() string {
	var b strings.Builder
	for _, t := range c.Troubles() {
		b.WriteString("\n" + t)
	}
	return b.String()
}

// Poll calls ok every interval until it holds, or ctx ends, which is the error.
func Poll(ctx context.Context, interval time.Duration, ok func() bool) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return nil
}
