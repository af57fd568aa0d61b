package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// Options say what a cluster is made of.
type Options struct {
	// Howdah and Consul are the built binaries, BinDir holds PostgreSQL's programs.
	Howdah, Consul, BinDir string
	// Members and Routers are how many there are, 1 or more.
	Members, Routers int
	// Config is what the new cluster gets.
	Config schema.ClusterConfig
	// MemberFlags and RouterFlags are given to every sidecar and router beside what is needed.
	MemberFlags, RouterFlags []string
	// WallClocks gives each host a wall clock of its own, which SetWallClock sets. Howdah is then one that BuildShifted built.
	WallClocks bool
}

// Name is the cluster's name in Consul.
const Name = "campaign"

// servers is how many Consul servers there are.
const servers = 3

// Cluster is a whole cluster with its network. Make it by New, end it by Close.
type Cluster struct {
	// ID names the run, Dir is its directory.
	ID, Dir string
	Members []*Member
	Routers []*Router
	Servers []*Server
	// Client is where clients of the routers are.
	Client *Host

	o      Options
	lock   *os.File
	cgroup string
	net    *network
	user   local.User
	hosts  int
}

// New sweeps up after crashed runs and makes the hosts. It starts nothing. Close it even if it fails.
func New(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{o: o}
	if err := prerequisites(ctx); err != nil {
		return c, err
	}
	if _, err := Sweep(ctx); err != nil {
		return c, fmt.Errorf("removing what an earlier run left: %w", err)
	}
	var err error
	if c.user, err = local.Unprivileged(); err != nil {
		return c, err
	}
	if c.cgroup, err = cgroup2(); err != nil {
		return c, err
	}
	if c.ID, c.Dir, c.lock, err = claim(); err != nil {
		return c, err
	}
	for _, dir := range []string{"log", "disk", "consul", "run"} {
		if err := os.Mkdir(c.path(dir), 0o755); err != nil {
			return c, err
		}
	}
	if err := c.owned(c.path("secrets")); err != nil {
		return c, err
	}
	if err := copyFile(o.Howdah, c.path("howdah")); err != nil {
		return c, fmt.Errorf("the built howdah: %w; run make build", err)
	}
	if c.net, err = newNetwork(ctx, c.ID, c.cgroup); err != nil {
		return c, err
	}
	if o.WallClocks {
		if err := c.buildPreload(ctx); err != nil {
			return c, fmt.Errorf("the library that shifts the clock of PostgreSQL: %w", err)
		}
	}
	return c, c.build(ctx)
}

// build makes hosts, disks and the units on them.
func (c *Cluster) build(ctx context.Context) error {
	config, err := json.Marshal(c.o.Config) // JSON is YAML
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("bootstrap.yaml"), config, 0o644); err != nil {
		return err
	}
	for i := range servers {
		h, err := c.host(ctx, fmt.Sprintf("consul%d", i+1))
		if err != nil {
			return err
		}
		s := &Server{Host: h, c: c}
		if s.unit, err = c.agent(h, true); err != nil {
			return err
		}
		c.Servers = append(c.Servers, s)
	}
	for i := range c.o.Members {
		h, err := c.host(ctx, fmt.Sprintf("pg%d", i+1))
		if err != nil {
			return err
		}
		m, err := c.newMember(ctx, h)
		if err != nil {
			return err
		}
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		m.sidecar = c.sidecarUnit(m)
	}
	for i := range c.o.Routers {
		h, err := c.host(ctx, fmt.Sprintf("router%d", i+1))
		if err != nil {
			return err
		}
		r, err := c.newRouter(h)
		if err != nil {
			return err
		}
		c.Routers = append(c.Routers, r)
	}
	c.Client, err = c.host(ctx, "client")
	return err
}

func (c *Cluster) host(ctx context.Context, name string) (*Host, error) {
	c.hosts++
	h, err := c.net.add(ctx, name, 10+c.hosts)
	if err == nil && c.o.WallClocks {
		h.clock, err = c.newWallClock(h)
	}
	return h, err
}

func (c *Cluster) path(more ...string) string {
	return filepath.Join(append([]string{c.Dir}, more...)...)
}

// LogDir holds the log of every process.
func (c *Cluster) LogDir() string { return c.path("log") }

// Password is that of the superuser postgres.
func (c *Cluster) Password() (string, error) {
	b, err := os.ReadFile(c.path("secrets", "superuser"))
	return string(trimmed(b)), err
}

// owned makes a directory for the unprivileged user alone.
func (c *Cluster) owned(dir string) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, int(c.user.UID), int(c.user.GID)))
}

// Start starts everything: Consul first, then the members, then the routers. The cluster is whole only later, see Await.
func (c *Cluster) Start(ctx context.Context) error {
	for _, s := range c.Servers {
		if err := s.Start(); err != nil {
			return err
		}
	}
	if err := c.awaitLeader(ctx); err != nil {
		return err
	}
	for _, m := range c.Members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := local.Poll(wait, 20*time.Millisecond, func() bool { _, err := os.Stat(c.path("secrets", "gossip.key")); return err == nil }); err != nil {
		return fmt.Errorf("no sidecar has made its secrets: %w", err)
	}
	for _, r := range c.Routers {
		if err := r.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends everything at once and removes it, logs included, whatever has become of it. It does not need New to have succeeded.
func (c *Cluster) Close() error {
	if c.ID == "" {
		return nil
	}
	// Ctrl-C has ended the caller's context; this must go on.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range c.Members {
		_ = m.disk.resume(ctx)
	}
	for _, u := range c.units() {
		u.release()
	}
	var errs []error
	if c.net != nil {
		errs = append(errs, killAll(ctx, c.net.group))
		for _, h := range c.net.hosts {
			h.close()
		}
	}
	errs = append(errs, remove(ctx, c.ID, c.cgroup))
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}

func (c *Cluster) units() []*unit {
	var all []*unit
	for _, s := range c.Servers {
		all = append(all, s.unit)
	}
	for _, m := range c.Members {
		all = append(all, m.agent, m.launch, m.sidecar)
	}
	for _, r := range c.Routers {
		all = append(all, r.agent, r.router)
	}
	return slices.DeleteFunc(all, func(u *unit) bool { return u == nil })
}

// Troubles says which processes ended that nobody killed on purpose, and when.
func (c *Cluster) Troubles() []string {
	var all []string
	for _, u := range c.units() {
		u.mu.Lock()
		all = append(all, u.ends...)
		u.mu.Unlock()
	}
	return all
}

// Cut drops everything between each of a and each of b, both ways.
func (c *Cluster) Cut(ctx context.Context, a, b []*Host) error {
	var pairs []pair
	for _, x := range a {
		for _, y := range b {
			if x != y {
				pairs = append(pairs, pair{x, y}, pair{y, x})
			}
		}
	}
	return c.net.cut(ctx, pairs)
}

// CutOneWay drops what goes from each of the one to each of the other; the way back stays open.
func (c *Cluster) CutOneWay(ctx context.Context, from, to []*Host) error {
	var pairs []pair
	for _, x := range from {
		for _, y := range to {
			if x != y {
				pairs = append(pairs, pair{x, y})
			}
		}
	}
	return c.net.cut(ctx, pairs)
}

// Heal ends every cut.
func (c *Cluster) Heal(ctx context.Context) error { return c.net.heal(ctx) }

// Others are all hosts but those given.
func (c *Cluster) Others(but ...*Host) []*Host {
	var others []*Host
next:
	for _, h := range c.net.hosts {
		for _, b := range but {
			if h == b {
				continue next
			}
		}
		others = append(others, h)
	}
	return others
}

// kept makes a unit whose log is named for it.
func (c *Cluster) kept(h *Host, what string, u *local.User, orphan syscall.Signal, args ...string) *unit {
	return &unit{name: what + " of " + h.Name, log: c.path("log", h.Name+"-"+what+".log"), host: h, user: u, orphan: orphan, args: args}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
