package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

const (
	// watchSlack is what an answer may take longer than the wait that was asked for; Consul itself adds
	// up to a sixteenth of the wait (structs.JitterFraction).
	watchSlack = 3 * time.Second
	// The pauses between failed queries of a watch, with jitter.
	firstPause = 100 * time.Millisecond
	longPause  = 2 * time.Second
)

// ReadState reads everything under howdah/<cluster>/ consistently and in one answer.
func (c *Client) ReadState(ctx context.Context) (schema.ClusterState, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	s, _, err := c.readState(ctx, 0)
	return s, err
}

// WatchState calls each with every answer of a blocking query on the cluster's keys until ctx ends, at
// least once in the configured wait and a little, also when nothing changed: the age of what a caller
// holds counts from AskedAt. After a failure it calls each with the error and a state that is empty but
// for AskedAt; what was known before is then neither confirmed nor void. Calls do not overlap.
func (c *Client) WatchState(ctx context.Context, each func(schema.ClusterState, error)) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstPause, longPause
	var index uint64
	for ctx.Err() == nil {
		asked := c.now()
		s, seen, err := c.watchOnce(ctx, index)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			each(schema.ClusterState{AskedAt: asked}, err)
		} else {
			each(s, nil)
		}
		if seen == 0 { // no answer: ask without blocking next, the servers may have started anew
			c.log.Debug("watch failed", zap.Error(err))
			index = 0
			if !rest(ctx, pause.NextBackOff()) {
				return
			}
			continue
		}
		pause.Reset()
		index = nextIndex(index, seen)
	}
}

// nextIndex is Consul's rule for clients (developer.hashicorp.com/consul/api-docs/features/blocking): an
// index that went backwards, after a restore or the reaping of tombstones, starts the watch anew.
func nextIndex(asked, answered uint64) uint64 {
	if answered < asked {
		return 0
	}
	return answered
}

func (c *Client) watchOnce(ctx context.Context, index uint64) (schema.ClusterState, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.watchWait+c.watchWait/16+watchSlack)
	defer cancel()
	return c.readState(ctx, index)
}

// rest pauses and reports whether ctx still lives.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// readState asks once, blocking where index is not 0. The second result is the index of the answer, which is
// also given where the answer came and could not be read; it is 0 where none came.
func (c *Client) readState(ctx context.Context, index uint64) (schema.ClusterState, uint64, error) {
	op := "read " + c.prefix
	q := c.read(ctx)
	q.WaitIndex, q.WaitTime = index, c.watchWait
	if index == 0 {
		q.WaitTime = 0
	}
	s := schema.ClusterState{AskedAt: c.now()}
	pairs, meta, err := c.api.KV().List(c.prefix, q)
	if err != nil {
		return schema.ClusterState{}, 0, c.fail(op, areaKeyRead, err)
	}
	s.AnsweredAt = c.now()
	if err := sane(meta); err != nil {
		return schema.ClusterState{}, 0, c.fail(op, areaKeyRead, err)
	}
	s.Index = meta.LastIndex
	s.Leader = schema.LockView{Known: true, AskedAt: s.AskedAt}
	var errs []error
	for _, kv := range pairs {
		errs = append(errs, c.place(&s, kv))
	}
	if err := errors.Join(errs...); err != nil {
		return schema.ClusterState{}, s.Index, c.fail(op, areaKeyRead, err)
	}
	slices.SortFunc(s.Members, func(a, b schema.Doc[schema.Member]) int {
		return strings.Compare(a.Value.Name, b.Value.Name)
	})
	if err := c.confirmMissing(ctx, s, meta); err != nil {
		return schema.ClusterState{}, 0, c.fail(op, areaKeyRead, err)
	}
	return s, s.Index, nil
}

// place puts one pair where it belongs. Keys that this howdah does not know are left alone.
func (c *Client) place(s *schema.ClusterState, kv *api.KVPair) error {
	name := strings.TrimPrefix(kv.Key, c.prefix)
	var err error
	switch name {
	case leaderKey:
		s.Leader, err = leaderView(s.Leader, kv)
	case initializeKey:
		s.Initialize, err = document(kv, schema.Initialize{}, checkInitialize)
	case configKey:
		// Fields that came with a newer howdah have their defaults; lists that are not there are empty.
		start := schema.DefaultClusterConfig()
		start.HBA, start.Parameters = nil, nil
		s.Config, err = document(kv, start, checkConfigRead)
	case historyKey:
		s.History, err = document(kv, schema.History{}, checkHistory)
	case requestKey:
		s.Request, err = document(kv, schema.Request{}, checkRequest)
	default:
		member, is := strings.CutPrefix(name, membersFolder)
		if !is || member == "" {
			return nil
		}
		var d schema.Doc[schema.Member]
		d, err = document(kv, schema.Member{}, func(m schema.Member) error {
			if m.Name != member {
				return fmt.Errorf("member: the key is of %q, the value of %q", member, m.Name)
			}
			return nil
		})
		s.Members = append(s.Members, d)
	}
	return err
}

func document[T any](kv *api.KVPair, start T, check func(T) error) (schema.Doc[T], error) {
	v, err := decode(kv, start, check)
	if err != nil {
		return schema.Doc[T]{}, err
	}
	return schema.Doc[T]{Exists: true, Index: kv.ModifyIndex, Value: v}, nil
}

// sane refuses answers that no Consul gives to a consistent read.
func sane(meta *api.QueryMeta) error {
	switch {
	case meta.LastIndex == 0:
		return errors.New("the answer has no X-Consul-Index; is the address that of a consul agent?")
	case !meta.KnownLeader:
		return errors.New("the answer comes from a consul without a leader")
	case meta.ResultsFilteredByACLs:
		return &statusError{code: 403, body: "keys were left out of the answer"}
	}
	return nil
}

// confirmMissing makes sure that what is not in the answer is missing and not hidden: without a token Consul
// leaves keys out and does not say so, but answers 403 to a read of one key.
func (c *Client) confirmMissing(ctx context.Context, s schema.ClusterState, meta *api.QueryMeta) error {
	if !c.anonymous || meta.DefaultACLPolicy != "deny" {
		return nil
	}
	missing := []string{membersFolder + "any"}
	for name, exists := range map[string]bool{
		leaderKey: s.Leader.Exists, initializeKey: s.Initialize.Exists, configKey: s.Config.Exists,
		historyKey: s.History.Exists, requestKey: s.Request.Exists,
	} {
		if !exists {
			missing = append(missing, name)
		}
	}
	for _, name := range missing {
		if _, _, err := c.api.KV().Get(c.key(name), c.read(ctx)); err != nil {
			return err
		}
	}
	return nil
}
