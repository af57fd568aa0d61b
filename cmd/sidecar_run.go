package cmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"howdah/consul"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/detector"
	"howdah/sidecar"
	"howdah/sidecar/api"
	"howdah/sidecar/postgres"
)

// Run implements Command.
func (c *Sidecar) Run(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	m, err := c.prepare()
	if err != nil {
		return err
	}
	defer func() { _ = m.log.Sync() }()
	defer m.launcher.Close()
	instance := rand.Text()
	server, err := c.server(m)
	if err != nil {
		return err
	}
	defer server.Close()
	// The API's address is taken first: if it is in use, nothing else has begun yet.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.APIListen)
	if err != nil {
		return fmt.Errorf("api-listen: %w; is another sidecar running here? choose another address", err)
	}
	m.gossip.Instance = instance
	gossip, err := detector.Start(m.gossip, boottime.Now, m.log.Named("gossip"))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := gossip.Shutdown(bye); err != nil {
			m.log.Warn("gossip did not end in order", zap.Error(err))
		}
	}()
	s, err := sidecar.New(sidecar.Options{
		Cluster: c.Cluster, Name: c.Name, DataDir: c.DataDir, Addresses: m.addresses, Tags: m.tags, Bootstrap: m.bootstrap, Init: c.Init,
		RemoveFirst: c.CloneWithoutRoom == removeFirst,
		Version:     buildVersion(), Instance: instance, Log: m.log,
	}, sidecar.Deps{
		Lock: m.consul, Documents: m.consul, Gossip: memberGossip{gossip, m.log.Named("gossip")}, Launcher: m.launcher, Server: server,
		Register: c.register(m), Refused: unchanged,
		SessionGone: func(err error) bool { return errors.Is(err, consul.ErrSessionGone) }, Now: boottime.Now,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := c.onlyOne(ctx, m, s); err != nil {
		return errors.Join(err, listener.Close())
	}
	o := api.Options{Token: m.secrets.APIToken.Reveal(), CertFile: c.APICertFile, KeyFile: c.APIKeyFile}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return api.Serve(ctx, listener, api.New(reloading{s, func() error {
			select {
			case again <- syscall.SIGHUP:
			default:
			}
			return c.reread(s.SetTags, m.log)
		}}, o, m.log.Named("api")), o, m.log.Named("api"))
	})
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { c.reloadOn(ctx, hangups, s.SetTags, m.log); return nil })
	g.Go(func() error { c.watchPasswords(ctx, again, m, s); return nil })
	return g.Wait()
}

// server makes the hand that works on the data directory, with the tools that the launcher runs.
func (c *Sidecar) server(m member) (*postgres.Postgres, error) {
	host, text, err := net.SplitHostPort(c.PostgresListen)
	if err != nil {
		return nil, fmt.Errorf("postgres-listen: %w", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("postgres-listen: %w", err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "*"
	}
	return postgres.New(postgres.Options{
		Name: c.Name, Cluster: c.Cluster, DataDir: c.DataDir, SocketDir: c.PostgresSocketDir, Port: port, ListenAddresses: host,
		Secrets: m.secrets.inClear(), Restore: c.restore(), Log: m.log.Named("postgres"),
	}, sidecar.Runner{Client: m.launcher})
}

// register announces the member in Consul's catalogue by its role.
func (c *Sidecar) register(m member) func(context.Context, schema.Role) error {
	if !c.RegisterService {
		return nil
	}
	scheme := "http"
	if c.APICertFile != "" {
		scheme = "https"
	}
	checks := map[schema.Role]string{schema.RolePrimary: "/primary", schema.RoleStandby: "/standby", schema.RoleUnknown: "/health"}
	return func(ctx context.Context, role schema.Role) error {
		service, err := m.consul.MemberService(c.Name, role, m.addresses.Postgres, scheme+"://"+m.addresses.API+checks[role])
		if err != nil {
			return err
		}
		return m.consul.Register(ctx, service)
	}
}

// onlyOne refuses a second sidecar under one name, as far as Consul can tell; a Consul that does not
// answer is no reason not to start.
func (c *Sidecar) onlyOne(ctx context.Context, m member, s *sidecar.Sidecar) error {
	ask, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := m.consul.ReadState(ask)
	switch {
	case errors.Is(err, consul.ErrDenied):
		return err
	case err != nil:
		m.log.Warn("consul does not answer; waiting for it", zap.String("address", m.consul.Address()), zap.Error(err))
		return nil
	}
	return s.Alone(ctx, st)
}

// unchanged reports an error after which Consul has certainly changed nothing.
func unchanged(err error) bool {
	return errors.Is(err, consul.ErrRefused) || errors.Is(err, consul.ErrConflict) || errors.Is(err, consul.ErrSessionGone) || errors.Is(err, consul.ErrDenied)
}
