package consul

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"

	"howdah/consul/schema"
)

const leaderKey = "leader"

// ReadLeader is a consistent read of the leader key.
func (c *Client) ReadLeader(ctx context.Context) (schema.LockView, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	const op = "read the leader key"
	asked := c.now()
	kv, meta, err := c.api.KV().Get(c.key(leaderKey), c.read(ctx))
	if err != nil {
		return schema.LockView{}, c.fail(op, areaKeyRead, err)
	}
	if err := sane(meta); err != nil {
		return schema.LockView{}, c.fail(op, areaKeyRead, err)
	}
	view := schema.LockView{Known: true, AskedAt: asked}
	if kv == nil {
		return view, nil
	}
	if view, err = leaderView(view, kv); err != nil {
		return schema.LockView{}, c.fail(op, areaKeyRead, err)
	}
	return view, nil
}

// leaderView fills in what kv says.
func leaderView(view schema.LockView, kv *api.KVPair) (schema.LockView, error) {
	leader, err := decode(kv, schema.Leader{}, checkLeader)
	if err != nil {
		return schema.LockView{}, err
	}
	view.Exists, view.Index, view.Session, view.Leader = true, kv.ModifyIndex, kv.Session, leader
	return view, nil
}

// Acquire takes a lock that nobody holds: the key is missing, or unlocked, as of at. v.Session is set to session.
func (c *Client) Acquire(ctx context.Context, at schema.LockView, session string, v schema.Leader) (schema.LockView, error) {
	v.Session = session
	if at.Held() {
		return schema.LockView{}, c.misuse("acquire", "the lock is held in the view that is acted on")
	}
	if err := c.mayFollow("acquire", at, v); err != nil {
		return schema.LockView{}, err
	}
	value, err := encode(v, checkLeader)
	if err != nil {
		return schema.LockView{}, c.misuse("acquire", "%w", err)
	}
	return c.transact(ctx, "acquire", at, v, session, c.guard(at), c.lockOp(api.KVLock, at, session, value))
}

// Renew writes v under the caller's own lock (v.Session), if nothing was written since at.
// On success the lease counts from the AskedAt of the view returned.
func (c *Client) Renew(ctx context.Context, at schema.LockView, v schema.Leader) (schema.LockView, error) {
	value, err := c.ownReign("renew", at, v)
	if err != nil {
		return schema.LockView{}, err
	}
	return c.transact(ctx, "renew", at, v, v.Session, c.guard(at), c.lockOp(api.KVLock, at, v.Session, value))
}

// TakeOver moves the lock from at.Session to session, if nothing was written since at. Where
// nobody holds the lock in at it is Acquire. v.Session is set to session; v.Epoch must be newer.
func (c *Client) TakeOver(ctx context.Context, at schema.LockView, session string, v schema.Leader) (schema.LockView, error) {
	if !at.Held() {
		return c.Acquire(ctx, at, session, v)
	}
	v.Session = session
	if !at.Known || v.Epoch <= at.Leader.Epoch {
		return schema.LockView{}, c.misuse("take over", "epoch %d does not follow epoch %d", v.Epoch, at.Leader.Epoch)
	}
	value, err := encode(v, checkLeader)
	if err != nil {
		return schema.LockView{}, c.misuse("take over", "%w", err)
	}
	return c.transact(ctx, "take over", at, v, session,
		c.guard(at), c.lockOp(api.KVUnlock, at, at.Session, value), c.lockOp(api.KVLock, at, session, value))
}

// Release gives up the caller's own lock (v.Session) and leaves v as the value, if nothing was written since at.
func (c *Client) Release(ctx context.Context, at schema.LockView, v schema.Leader) (schema.LockView, error) {
	value, err := c.ownReign("release", at, v)
	if err != nil {
		return schema.LockView{}, err
	}
	return c.transact(ctx, "release", at, v, "", c.guard(at), c.lockOp(api.KVUnlock, at, v.Session, value))
}

// ownReign checks that v goes on with the reign in at, which its own session holds, and encodes it.
func (c *Client) ownReign(op string, at schema.LockView, v schema.Leader) ([]byte, error) {
	if !at.HeldBy(v.Session) {
		return nil, c.misuse(op, "the view that is acted on does not show the lock held by session %q", v.Session)
	}
	// The session is the proof that the lock is the caller's; a holder that hears of a newer epoch may rise above it.
	if at.Leader.Member != "" && at.Leader.Member != v.Member {
		return nil, c.misuse(op, "%s cannot go on with the reign of %s", v.Member, at.Leader.Member)
	}
	if at.Leader.Epoch > v.Epoch {
		return nil, c.misuse(op, "epoch %d is older than epoch %d, which it follows", v.Epoch, at.Leader.Epoch)
	}
	value, err := encode(v, checkLeader)
	if err != nil {
		return nil, c.misuse(op, "%w", err)
	}
	return value, nil
}

// mayFollow keeps epochs from decreasing (I3). The same epoch may go on only with the same member,
// whose session was lost while it served.
func (c *Client) mayFollow(op string, at schema.LockView, v schema.Leader) error {
	if !at.Known {
		return c.misuse(op, "nothing is known of the leader key yet; read it first")
	}
	if !at.Exists {
		return nil
	}
	same := v.Epoch == at.Leader.Epoch && v.Member == at.Leader.Member
	if v.Epoch > at.Leader.Epoch || same && at.Leader.Phase != schema.PhaseReleased {
		return nil
	}
	return c.misuse(op, "epoch %d of %s does not follow epoch %d of %s", v.Epoch, v.Member, at.Leader.Epoch, at.Leader.Member)
}

// guard makes the transaction conditional on the key being as in at.
func (c *Client) guard(at schema.LockView) *api.KVTxnOp {
	op := &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: c.key(leaderKey), Namespace: c.namespace, Partition: c.partition}
	if at.Exists {
		op.Verb, op.Index = api.KVCheckIndex, at.Index
	}
	return op
}

// lockOp locks or unlocks with a value. Flags make the pair differ from the one it replaces, else
// Consul would not count the write (see the package comment): what is stored carries an index older
// than its own ModifyIndex, which is at.Index.
func (c *Client) lockOp(verb api.KVOp, at schema.LockView, session string, value []byte) *api.KVTxnOp {
	return &api.KVTxnOp{
		Verb: verb, Key: c.key(leaderKey), Value: value, Session: session, Flags: at.Index,
		Namespace: c.namespace, Partition: c.partition,
	}
}

// transact sends one transaction on the leader key. holder is the session that must hold it afterwards.
func (c *Client) transact(ctx context.Context, op string, at schema.LockView, v schema.Leader, holder string, kvs ...*api.KVTxnOp) (schema.LockView, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	ops := make(api.TxnOps, len(kvs))
	for i, kv := range kvs {
		ops[i] = &api.TxnOp{KV: kv}
	}
	asked := c.now()
	ok, resp, _, err := c.api.Txn().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return schema.LockView{}, c.fail(op, areaKey, err)
	}
	if !ok {
		return schema.LockView{}, c.refusal(op, resp.Errors)
	}
	if len(resp.Results) == 0 || resp.Results[len(resp.Results)-1].KV == nil {
		return schema.LockView{}, c.fail(op, areaKey, errors.New("the answer holds no result; may the token read the key?"))
	}
	last := resp.Results[len(resp.Results)-1].KV
	if last.Session != holder || last.ModifyIndex <= at.Index {
		return schema.LockView{}, c.fail(op, areaKey, fmt.Errorf("the answer makes no sense: index %d after %d, session %q", last.ModifyIndex, at.Index, last.Session))
	}
	return schema.LockView{Known: true, Exists: true, Index: last.ModifyIndex, Session: holder, Leader: v, AskedAt: asked}, nil
}
