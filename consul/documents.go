package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/consul/api"

	"howdah/consul/schema"
)

const (
	initializeKey = "initialize"
	configKey     = "config"
	historyKey    = "history"
	requestKey    = "request"
	membersFolder = "members/"
)

// PutInitialize writes the initialize key by check-and-set; index 0 means that it must not exist yet.
func (c *Client) PutInitialize(ctx context.Context, v schema.Initialize, index uint64) error {
	return put(ctx, c, initializeKey, v, index, checkInitialize)
}

// PutConfig writes the cluster's configuration by check-and-set, if it is valid.
func (c *Client) PutConfig(ctx context.Context, v schema.ClusterConfig, index uint64) error {
	return put(ctx, c, configKey, v, index, schema.ClusterConfig.Validate)
}

// PutMember writes members/<v.Name> by check-and-set.
func (c *Client) PutMember(ctx context.Context, v schema.Member, index uint64) error {
	return put(ctx, c, membersFolder+v.Name, v, index, checkMember)
}

// PutHistory writes the history by check-and-set.
func (c *Client) PutHistory(ctx context.Context, v schema.History, index uint64) error {
	return put(ctx, c, historyKey, v, index, checkHistory)
}

// PutRequest writes an operator's request by check-and-set; index 0 means that none may be open.
func (c *Client) PutRequest(ctx context.Context, v schema.Request, index uint64) error {
	return put(ctx, c, requestKey, v, index, checkRequest)
}

// DeleteRequest deletes the request if it is still as of index. One that is gone already is no error.
func (c *Client) DeleteRequest(ctx context.Context, index uint64) error {
	return c.remove(ctx, requestKey, index)
}

// DeleteMember deletes members/<name> if it is still as of index. One that is gone already is no error.
func (c *Client) DeleteMember(ctx context.Context, name string, index uint64) error {
	return c.remove(ctx, membersFolder+name, index)
}

func put[T any](ctx context.Context, c *Client, name string, v T, index uint64, check func(T) error) error {
	op := "write " + c.key(name)
	value, err := encode(v, check)
	if err != nil {
		return c.misuse(op, "%w", err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	ok, _, err := c.api.KV().CAS(&api.KVPair{Key: c.key(name), Value: value, ModifyIndex: index}, c.write(ctx))
	if err != nil {
		return c.fail(op, areaKey, err)
	}
	if !ok {
		return c.conflict(op, index)
	}
	return nil
}

func (c *Client) remove(ctx context.Context, name string, index uint64) error {
	op := "delete " + c.key(name)
	ctx, cancel := bounded(ctx)
	defer cancel()
	ok, _, err := c.api.KV().DeleteCAS(&api.KVPair{Key: c.key(name), ModifyIndex: index}, c.write(ctx))
	if err != nil {
		return c.fail(op, areaKey, err)
	}
	if !ok {
		return c.conflict(op, index)
	}
	return nil
}

func (c *Client) conflict(op string, index uint64) error {
	detail := "it exists already"
	if index != 0 {
		detail = "it is not as of index " + strconv.FormatUint(index, 10)
	}
	return &failure{address: c.address, op: op, certain: true, causes: []error{ErrConflict}, detail: detail}
}

// encode refuses what decode would refuse.
func encode[T any](v T, check func(T) error) ([]byte, error) {
	if err := check(v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// decode reads a document over the values in start, so that a field that an older howdah did not write keeps them.
func decode[T any](kv *api.KVPair, start T, check func(T) error) (T, error) {
	var zero T
	v := start
	bad := func(err error) (T, error) { return zero, fmt.Errorf("%w: %s: %w", ErrUnreadable, kv.Key, err) }
	// null is valid JSON for any type and would leave the zero value.
	if b := bytes.TrimSpace(kv.Value); len(b) == 0 || b[0] != '{' {
		return bad(errors.New("want a JSON object"))
	}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return bad(err)
	}
	if err := check(v); err != nil {
		return bad(err)
	}
	return v, nil
}

// checkLeader refuses a record by which a judge would count wrongly: without a lease, it would be dead at once.
func checkLeader(v schema.Leader) error {
	switch {
	case v.Member == "":
		return errors.New("leader: member is missing")
	case v.Epoch == 0:
		return errors.New("leader: epoch is missing; the first is 1")
	case v.Lease <= 0:
		return errors.New("leader: lease is missing")
	case v.Phase == "":
		return errors.New("leader: phase is missing")
	}
	return nil
}

func checkInitialize(v schema.Initialize) error {
	if v.By == "" {
		return errors.New("initialize: by is missing; name the member that bootstraps")
	}
	return nil
}

// checkConfigRead asks less than Validate: a configuration that a newer rule refuses still holds.
func checkConfigRead(v schema.ClusterConfig) error {
	if v.Lease <= 0 || v.SessionTTL <= 0 {
		return errors.New("config: lease and session_ttl must be more than zero")
	}
	return nil
}

func checkMember(v schema.Member) error {
	if !memberName.MatchString(v.Name) {
		return fmt.Errorf("member: name %q is not allowed; use 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', the first and last a letter or digit", v.Name)
	}
	return nil
}

func checkHistory(v schema.History) error {
	if len(v.Reigns) == 0 {
		return errors.New("history: reigns are missing")
	}
	return nil
}

func checkRequest(v schema.Request) error {
	if v.ID == "" || v.Kind == "" {
		return errors.New("request: id and kind are both needed")
	}
	return nil
}
