package local

import (
	"context"
	"os/exec"
	"syscall"

	"howdah/consul/schema"
)

// Router is the router of a cluster.
type Router struct {
	// Name is its name in the gossip.
	Name string
	// Listen is where clients connect that read and write, ReadOnly where those do that only read. Both host:port.
	Listen, ReadOnly string
	// API is the address of its HTTP API, Log the path of its log.
	API, Log string

	c       *Cluster
	process *process
}

func (c *Cluster) newRouter(l layout) *Router {
	r := &Router{
		Name: "router", Listen: l.Router.Listen, ReadOnly: l.Router.ReadOnly, API: l.Router.API,
		Log: c.path("log", "router.log"), c: c,
	}
	r.process = &process{name: "the router", log: r.Log, logger: c.o.Log, make: func() *exec.Cmd {
		args := append([]string{"router", "--name", r.Name, "--listen", r.Listen, "--listen-ro", r.ReadOnly, "--api-listen", r.API,
			"--gossip-listen", l.Router.Gossip, "--gossip-join", c.seeds(""), "--gossip-key-file", c.SecretFile("gossip.key"),
			"--router-password-file", c.SecretFile("router"), "--drain-timeout", "1s"}, c.consulFlags()...)
		return c.command(syscall.SIGKILL, append(args, c.o.RouterFlags...)...)
	}}
	return r
}

// Start starts the router.
func (r *Router) Start() error { return r.process.start() }

// Stop ends it in order; once ctx ends it is killed.
func (r *Router) Stop(ctx context.Context) error { return r.process.stop(ctx) }

// Kill ends it by SIGKILL.
func (r *Router) Kill() error { return r.process.kill() }

// PID returns its pid; 0 while it does not run.
func (r *Router) PID() int { return r.process.pid() }

// Events returns what the router has recorded since it was started.
func (r *Router) Events(ctx context.Context) ([]schema.Event, error) {
	var e []schema.Event
	err := r.c.asker.get(ctx, r.API, "/events", &e)
	return e, err
}
