package detector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"howdah/consul/schema"
)

// The kinds of process in the gossip.
const (
	KindMember = "member"
	KindRouter = "router"
)

// labelPrefix and the cluster's name make memberlist's label, which stands before each packet and
// stream and is authenticated with it.
const labelPrefix = "howdah/"

const (
	maxName    = 128
	maxCluster = 128
)

// resolveTimeout bounds one look-up of a host name.
const resolveTimeout = 3 * time.Second

// Config says who this process is in the gossip and how it takes part.
type Config struct {
	// Name is unique in the cluster, over members and routers. Kind is KindMember or KindRouter.
	Name, Kind string
	Cluster    string
	// Instance is made anew at each start (schema.Member.Instance); at most 64 bytes.
	Instance string
	// Addresses go into the node metadata at once. Start refuses what does not fit there: all strings
	// together get about 480 bytes. Publish may change them later.
	Addresses schema.Addresses
	// Bind is the host:port to listen on, UDP and TCP; port 0 takes a free one, an empty host or 0.0.0.0
	// all IPv4 addresses.
	Bind string
	// Advertise is the host:port that others are told; the host may be a name, which is resolved once,
	// at start. An empty one stands for Bind, with a private address of this host where Bind names none; port 0
	// stands for the port bound.
	Advertise string
	// Join are host:port of other processes. They are tried again for as long as they are not alive; names
	// are looked up anew each time and may stand for several addresses. None need answer.
	Join []string
	// Keys are the gossip keys, see ParseKeys; the first encrypts.
	Keys [][]byte
	// Timing is LAN() if it is zero.
	Timing Timing

	// generation stands for the wall clock, and transport wraps the network, in tests.
	generation uint64
	transport  func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// validate returns every mistake at once.
func (c Config) validate() error {
	var errs []error
	length := func(key, v string, low, high int) {
		if len(v) < low || len(v) > high {
			errs = append(errs, fmt.Errorf("gossip: %s: %q has %d bytes; choose from %d to %d", key, v, len(v), low, high))
		}
	}
	length("name", c.Name, 1, maxName)
	length("cluster", c.Cluster, 1, maxCluster)
	length("instance", c.Instance, 0, 64)
	if c.Kind != KindMember && c.Kind != KindRouter {
		errs = append(errs, fmt.Errorf("gossip: kind: %q is not allowed; choose %s or %s", c.Kind, KindMember, KindRouter))
	} else if _, err := c.meta().encode(); err != nil {
		errs = append(errs, err)
	}
	for _, hp := range append([]string{c.Bind}, c.Join...) {
		if _, _, err := splitHostPort(hp); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Advertise != "" {
		if _, _, err := splitHostPort(c.Advertise); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, checkKeys(c.Keys), c.Timing.Validate())
	return errors.Join(errs...)
}

func (c Config) meta() meta {
	return meta{Kind: c.Kind, Generation: c.generation, Cluster: c.Cluster, Instance: c.Instance, Addresses: c.Addresses}
}

func splitHostPort(hp string) (string, uint16, error) {
	host, p, err := net.SplitHostPort(hp)
	if err != nil {
		return "", 0, fmt.Errorf("gossip: address %q: want host:port, such as 10.0.0.1:7946: %w", hp, err)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("gossip: address %q: the port must be a number from 0 to 65535", hp)
	}
	return host, uint16(port), nil
}

// resolve returns the addresses of host:port, IPv4 first.
func resolve(ctx context.Context, hp string) ([]netip.AddrPort, error) {
	host, port, err := splitHostPort(hp)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("gossip: address %q: %w", hp, err)
	}
	var v4, v6 []netip.AddrPort
	for _, ip := range ips {
		ap := netip.AddrPortFrom(ip.Unmap(), port)
		if ap.Addr().Is4() {
			v4 = append(v4, ap)
		} else {
			v6 = append(v6, ap)
		}
	}
	return append(v4, v6...), nil
}

// resolveOne is resolve for an address that must stand for a single one.
func resolveOne(ctx context.Context, what, hp string) (netip.AddrPort, error) {
	all, err := resolve(ctx, hp)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip: %s address: %w", what, err)
	}
	if len(all) == 0 {
		return netip.AddrPort{}, fmt.Errorf("gossip: %s address %q: the name has no address; use an IP address or a name that resolves on this host", what, hp)
	}
	return all[0], nil
}

// bindAddress returns where to listen.
func (c Config) bindAddress(ctx context.Context) (netip.AddrPort, error) {
	host, port, err := splitHostPort(c.Bind)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), port), nil
	}
	return resolveOne(ctx, "listen", c.Bind)
}

// advertise returns what memberlist is to tell others. An invalid address leaves the choice to
// memberlist's transport, which takes the bound or a private one.
func (c Config) advertise(ctx context.Context, bound netip.AddrPort) (netip.AddrPort, error) {
	if c.Advertise == "" {
		if bound.Addr().Is6() && bound.Addr().IsUnspecified() {
			return netip.AddrPort{}, fmt.Errorf("gossip: listening on %s: the advertise address must be given, because others cannot reach [::]", bound)
		}
		return netip.AddrPort{}, nil
	}
	a, err := resolveOne(ctx, "advertise", c.Advertise)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if a.Addr().IsUnspecified() {
		return netip.AddrPort{}, fmt.Errorf("gossip: advertise address %s: others cannot reach it; name an address of this host", c.Advertise)
	}
	if a.Port() == 0 {
		a = netip.AddrPortFrom(a.Addr(), bound.Port())
	}
	return a, nil
}
