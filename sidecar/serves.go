package sidecar

import (
	"context"
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// stillServes watches the leader key, by consistent reads, and returns why the holder that a clone was decided for does not surely serve
// any more, or counts on what this member has. Time has passed since that was decided: the source has made a checkpoint. The record of a
// holder that has died stays as it is until Consul ends its session, so one renewal is waited for.
func (x actor) stillServes(ctx context.Context, a decide.Action) error {
	lease := x.config.Lease.D()
	var first uint64
	for began := x.s.d.Now(); ; {
		ask, cancel := context.WithTimeout(ctx, lease)
		v, err := x.s.d.Lock.ReadLeader(ask)
		cancel()
		if err != nil {
			return fmt.Errorf("the leader key cannot be read: %w", err)
		}
		if err := x.holds(v, a); err != nil {
			return err
		}
		if first == 0 {
			first = v.Index
		}
		if v.Index != first {
			return nil
		}
		if x.s.d.Now().Sub(began) > lease {
			return fmt.Errorf("%s no longer renews its lease", v.Leader.Member)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(schema.RenewInterval(lease) / 2):
		}
	}
}

// holds returns why v is not the lock that a clone was decided for.
func (x actor) holds(v schema.LockView, a decide.Action) error {
	l, then := v.Leader, a.At.Leader
	switch {
	case !v.Held() || l.Member != a.Holder.Member || l.Epoch != then.Epoch || l.Phase != schema.PhaseServing && l.Phase != schema.PhaseFollowing:
		return fmt.Errorf("the leader key has changed: it was held by %s in epoch %d, and says %q, epoch %d, %s now", a.Holder.Member, then.Epoch, l.Member, l.Epoch, l.Phase)
	case slices.Contains(l.Sync.Standbys, x.s.o.Name):
		return fmt.Errorf("commits count on what this member has (%s)", l.Sync)
	}
	return nil
}
