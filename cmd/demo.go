package cmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul/embedded"
	"howdah/sidecar/local"
)

const demoLong = `Runs a whole cluster on this machine to try things on: members, a router, and a lock server in memory in
Consul's place. All of it ends with Ctrl-C; the data stay, and the next start uses them again. Nothing listens on
other addresses than loopback unless an option says so. It is not made for production: run a sidecar on each machine for that.`

const demoExample = "howdah demo --fresh"

// Demo runs a cluster on this machine.
type Demo struct {
	// Dir holds everything; Fresh deletes what an earlier demo left in it.
	Dir   string
	Fresh bool
	// Members is how many there are.
	Members int
	// RouterListen is for clients that write, RouterROListen for those that only read.
	RouterListen, RouterROListen string
	// Consul is the address of a real Consul; empty for the lock server in this process. ConsulTokenFile goes with it.
	Consul, ConsulTokenFile string
	// BinDir holds PostgreSQL's programs; empty for the newest installed.
	BinDir string

	stdio Stdio
}

// NewDemo returns a Demo with its defaults.
func NewDemo(stdio Stdio) *Demo {
	return &Demo{Dir: demoDir(), Members: 3, RouterListen: "127.0.0.1:6432", RouterROListen: "127.0.0.1:6433", stdio: stdio}
}

// demoDir is where the demo keeps its data: a cache folder, and for root a place that the unprivileged user who
// runs PostgreSQL can get into.
func demoDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/howdah-demo"
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), fmt.Sprintf("howdah-demo-%d", os.Geteuid()))
	}
	return filepath.Join(cache, "howdah-demo")
}

// Declare implements Command.
func (c *Demo) Declare(s *options.Set) {
	s.Group("Demo")
	s.String(&c.Dir, "dir", "where data, logs and secrets are kept", options.Required, options.Placeholder("PATH"))
	s.Bool(&c.Fresh, "fresh", "begin anew: delete what an earlier demo left in --dir")
	s.Int(&c.Members, "members", "how many members", 1, 9)
	s.String(&c.RouterListen, "router-listen", "where the router listens", options.Required, reachableOrAny)
	s.String(&c.RouterROListen, "router-ro-listen", "where it listens for clients that only read", options.Required, reachableOrAny)
	s.String(&c.Consul, "consul", "a real Consul to use instead of the lock server in memory", options.Placeholder("URL"))
	s.String(&c.ConsulTokenFile, "consul-token-file", "a file with the ACL token for it", options.Placeholder("FILE"))
	s.String(&c.BinDir, "bin-dir", "the directory of postgres and initdb; without it the newest installed", absolute)
	s.Check(func() []options.Problem {
		if c.RouterListen == c.RouterROListen {
			return []options.Problem{s.Problem("router-ro-listen", "is the same as --router-listen; choose another port")}
		}
		return nil
	})
}

// Validate returns every mistake at once.
func (c *Demo) Validate() error { return options.Validate(c) }

// consoleUser may use the router's console; the file with its password has the same name.
const consoleUser = "admin"

// demoStopTimeout is what the cluster has to end in order, before what is left of it is killed.
const demoStopTimeout = 45 * time.Second

// Run implements Command.
func (c *Demo) Run(ctx context.Context) (err error) {
	place, err := claim(c.Dir, c.Fresh)
	if err != nil {
		return err
	}
	defer place.release()
	cluster, closeLock, err := c.prepare(ctx, place)
	if err != nil {
		return err
	}
	defer closeLock()
	show := newScreen(c.stdio.Out)
	d := &demo{c: c, cluster: cluster, show: show, place: place, began: time.Now(), said: map[string]string{}}
	defer func() { err = errors.Join(err, d.stop()) }()
	d.welcome()
	if err := cluster.Start(ctx); err != nil {
		return interrupted(ctx, err)
	}
	primary, err := d.comeUp(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	if err := d.instruct(); err != nil {
		return err
	}
	d.watch(ctx, primary)
	return nil
}

// interrupted makes an end by a signal no error.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// prepare finds or starts all that the cluster needs, and makes sure of what can be known before anything runs.
func (c *Demo) prepare(ctx context.Context, p *place) (_ *local.Cluster, closeLock func(), err error) {
	if err := errors.Join(portFree("router-listen", c.RouterListen), portFree("router-ro-listen", c.RouterROListen)); err != nil {
		return nil, nil, err
	}
	bin := c.BinDir
	if bin == "" {
		bin, err = local.FindBinDir(ctx)
	} else {
		err = local.CheckBinDir(bin)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("bin-dir: %w", err)
	}
	name, members, err := c.members(p.dir)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	address, closeLock := c.Consul, func() {}
	if address == "" {
		if address, closeLock, err = serveLock(p); err != nil {
			return nil, nil, err
		}
	}
	cluster, err := local.New(local.Options{
		Binary: self, Dir: p.dir, BinDir: bin, Cluster: name, Members: members, Consul: address, ConsulTokenFile: c.ConsulTokenFile,
		RouterListen: c.RouterListen, RouterReadOnly: c.RouterROListen,
		RouterFlags: []string{"--admin-users", consoleUser, "--admin-password-file", filepath.Join(p.dir, "secrets", consoleUser)},
		// A Consul elsewhere cannot check what listens on our loopback.
		MemberFlags: []string{"--register-service=" + fmt.Sprint(c.Consul == "")},
		Log:         zap.NewNop(),
	})
	if err == nil {
		err = cluster.AddSecret(consoleUser, rand.Text())
	}
	if err != nil {
		closeLock()
		return nil, nil, err
	}
	return cluster, closeLock, nil
}

func portFree(flag, address string) error {
	if err := local.Free(address); err != nil {
		return fmt.Errorf("%s: %w; stop what listens there, or choose another address with --%s", flag, err, flag)
	}
	return nil
}

// members names the cluster and its members: those of the data that are there.
func (c *Demo) members(dir string) (cluster string, members []string, err error) {
	cluster, members, err = local.Saved(dir)
	if err != nil {
		return "", nil, err
	}
	if len(members) > c.Members {
		return "", nil, fmt.Errorf("members: %s holds the data of %d members (%s), and %d would leave some out, without which the others may not elect a primary; choose %d or more, or begin anew with --fresh",
			dir, len(members), strings.Join(members, ", "), c.Members, len(members))
	}
	for i := 1; len(members) < c.Members; i++ {
		if name := fmt.Sprintf("pg%d", i); !slices.Contains(members, name) {
			members = append(members, name)
		}
	}
	slices.Sort(members)
	if cluster == "" {
		cluster = "demo"
		if c.Consul != "" {
			// A Consul outlives demos: what an earlier one left there must not be taken for this one's.
			cluster = "demo-" + strings.ToLower(rand.Text()[:6])
		}
	}
	return cluster, members, nil
}

// serveLock serves the lock in memory, on the address of the last time if that is free.
func serveLock(p *place) (address string, closeLock func(), err error) {
	l, err := net.Listen("tcp", p.note.Lock)
	if p.note.Lock == "" || err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", nil, err
		}
	}
	p.note.Lock = l.Addr().String()
	if err := p.save(); err != nil {
		return "", nil, errors.Join(err, l.Close())
	}
	lock := embedded.New(zap.NewNop())
	server := &http.Server{Handler: lock.Handler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with Close
	}()
	return "http://" + p.note.Lock, func() {
		lock.Close()
		_ = server.Close()
		<-served
	}, nil
}
