package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"
)

// lockDelay is how long Consul keeps a key locked after its session was invalidated. Zero would mean
// Consul's default of 15 s; howdah's lease already gives the old holder its time.
const lockDelay = time.Millisecond

// The bounds of a session's TTL: session_ttl_min of the agent, and structs.SessionTTLMax.
const (
	minSessionTTL = 10 * time.Second
	maxSessionTTL = 24 * time.Hour
)

// NewSession makes a session without health checks, which releases its locks when it ends. Consul
// ends it when it was not renewed for between one and two ttl (10 s to 24 h).
func (c *Client) NewSession(ctx context.Context, ttl time.Duration, name string) (string, error) {
	if ttl < minSessionTTL || ttl > maxSessionTTL {
		return "", c.misuse("new session", "session_ttl: %s is not allowed; choose from %s to %s", ttl, minSessionTTL, maxSessionTTL)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	id, _, err := c.api.Session().CreateNoChecks(&api.SessionEntry{
		Name: name, TTL: ttl.String(), LockDelay: lockDelay, Behavior: api.SessionBehaviorRelease,
	}, c.write(ctx))
	if err != nil {
		return "", c.fail("new session", areaSession, err)
	}
	return id, nil
}

// RenewSession sets the session's time back to its full TTL. ErrSessionGone if Consul does not know it.
func (c *Client) RenewSession(ctx context.Context, id string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	entry, _, err := c.api.Session().Renew(id, c.write(ctx))
	if err != nil {
		return c.fail("renew session", areaSession, err)
	}
	if entry == nil {
		return &failure{address: c.address, op: "renew session", certain: true, causes: []error{ErrSessionGone}, detail: id}
	}
	return nil
}

// DestroySession ends a session of one's own; its locks are released. A session that Consul does not
// know is no error. Never destroy another member's session to take over: that is not conditional.
func (c *Client) DestroySession(ctx context.Context, id string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := c.api.Session().Destroy(id, c.write(ctx))
	return c.fail("destroy session", areaSession, err)
}
