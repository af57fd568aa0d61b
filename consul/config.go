package consul

import (
	"context"
	"errors"

	"github.com/hashicorp/consul/api"

	"howdah/consul/schema"
)

const configHistoryKey = "config-history"

// ReadConfigHistory reads who changed the cluster's configuration, when and how. It stands apart from ReadState:
// nothing that a member decides rests on it.
func (c *Client) ReadConfigHistory(ctx context.Context) (schema.Doc[schema.ConfigHistory], error) {
	const op = "read the history of the configuration"
	none := schema.Doc[schema.ConfigHistory]{}
	ctx, cancel := bounded(ctx)
	defer cancel()
	kv, meta, err := c.api.KV().Get(c.key(configHistoryKey), c.read(ctx))
	if err == nil {
		err = sane(meta)
	}
	if err != nil {
		return none, c.fail(op, areaKeyRead, err)
	}
	if kv == nil {
		return none, nil
	}
	doc, err := document(kv, schema.ConfigHistory{}, checkConfigHistory)
	if err != nil {
		return none, c.fail(op, areaKeyRead, err)
	}
	return doc, nil
}

// ChangeConfig writes the cluster's configuration and its history in one transaction, if both are still as of
// their indexes; index 0 means that the key must not exist yet. errors.Is(err, ErrConflict): somebody else was first.
func (c *Client) ChangeConfig(ctx context.Context, v schema.ClusterConfig, index uint64, h schema.ConfigHistory, historyIndex uint64) error {
	const op = "change the configuration"
	config, err := encode(v, schema.ClusterConfig.Validate)
	if err != nil {
		return c.misuse(op, "%w", err)
	}
	history, err := encode(h, checkConfigHistory)
	if err != nil {
		return c.misuse(op, "%w", err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	cas := func(name string, value []byte, index uint64) *api.TxnOp {
		return &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: c.key(name), Value: value, Index: index, Namespace: c.namespace, Partition: c.partition}}
	}
	ok, resp, _, err := c.api.Txn().Txn(api.TxnOps{cas(configKey, config, index), cas(configHistoryKey, history, historyIndex)}, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return c.fail(op, areaKey, err)
	}
	if ok {
		return nil
	}
	if err := c.refusal(op, resp.Errors); !errors.Is(err, ErrRefused) {
		return err
	}
	return c.conflict(op, index)
}

func checkConfigHistory(v schema.ConfigHistory) error {
	for _, change := range v.Changes {
		if change.By == "" {
			return errors.New("config-history: a change does not say by whom")
		}
	}
	return nil
}
