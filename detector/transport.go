package detector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's own, whose outgoing streams end with the detector: a
// shutdown does not wait for a peer that accepts connections and is silent.
type transport struct {
	*memberlist.NetTransport
	ctx context.Context
}

// bindAttempts is how often a free port is tried for: the kernel picks it for TCP, and UDP may have it in use.
const bindAttempts = 10

func listen(ctx context.Context, at netip.AddrPort) (*transport, error) {
	attempts := 1
	if at.Port() == 0 {
		attempts = bindAttempts
	}
	var err error
	for range attempts {
		var nt *memberlist.NetTransport
		nt, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{at.Addr().String()},
			BindPort:  int(at.Port()),
			// It speaks only of reads that fail, which memberlist's own log repeats.
			Logger: log.New(io.Discard, "", 0),
		})
		if err == nil {
			return &transport{NetTransport: nt, ctx: ctx}, nil
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("gossip: %s is in use; stop the other process or choose another gossip address: %w", at, err)
	}
	return nil, fmt.Errorf("gossip: cannot listen on %s: %w", at, err)
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. memberlist sets no deadline on streams of
// user messages, so the whole stream gets one here, from the time that a connection may take.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		c.Close()
		return nil, err
	}
	return &stream{Conn: c, release: context.AfterFunc(t.ctx, func() { c.Close() })}, nil
}

type stream struct {
	net.Conn
	release func() bool
}

func (s *stream) Close() error {
	s.release()
	return s.Conn.Close()
}
