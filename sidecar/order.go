package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// Order has this member do something that an operator asked for, and returns the order's ID: Status tells how it ends.
// What cannot be is refused here, so that whoever asks learns at once why.
func (s *Sidecar) Order(ctx context.Context, kind schema.OrderKind) (string, error) {
	type answer struct {
		id  string
		err error
	}
	if !s.running.Load() {
		return "", errors.New("the sidecar is still starting")
	}
	c := make(chan answer, 1)
	if !s.loop.post(func() {
		id, err := s.loop.order(kind)
		c <- answer{id, err}
	}) {
		return "", context.Canceled
	}
	select {
	case a := <-c:
		return a.id, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// ReinitPlan says what a reinit of this member would throw away.
func (s *Sidecar) ReinitPlan(ctx context.Context) (schema.ReinitPlan, error) {
	plan := schema.ReinitPlan{DataDir: s.o.DataDir}
	if !s.running.Load() {
		return plan, errors.New("the sidecar is still starting")
	}
	c := make(chan struct{})
	if !s.loop.post(func() {
		l := s.loop
		l.obs.Now = s.d.Now()
		plan.From, plan.Refusal = l.obs.Lock.Leader.Member, decide.Unable(&l.obs, l.memory, schema.OrderReinit)
		close(c)
	}) {
		return plan, context.Canceled
	}
	select {
	case <-c:
	case <-ctx.Done():
		return schema.ReinitPlan{}, ctx.Err()
	}
	err := filepath.WalkDir(s.o.DataDir, func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || e.IsDir() {
			return nil // a file that has just gone does not matter to a sum that people read
		}
		if info, err := e.Info(); err == nil {
			plan.Bytes += info.Size()
		}
		return nil
	})
	return plan, err
}

// order takes an order, one at a time.
func (l *loop) order(kind schema.OrderKind) (string, error) {
	if o := l.obs.Order; o.ID != "" {
		return "", fmt.Errorf("another order is being carried out: %s", o.Kind)
	}
	l.obs.Now = l.s.d.Now()
	if why := decide.Unable(&l.obs, l.memory, kind); why != "" {
		return "", errors.New(why)
	}
	l.obs.Order = decide.Order{ID: newID(), Kind: kind}
	return l.obs.Order.ID, nil
}

// forgetOrder ends what decide has done with.
func (l *loop) forgetOrder() {
	if m := l.memory.Ordered; m.Over && m.ID == l.obs.Order.ID {
		l.obs.Order = decide.Order{}
	}
}

// orderStatus is what the API tells of the newest order; nil if there was none.
func (l *loop) orderStatus() *schema.OrderStatus {
	m := l.memory.Ordered
	if m.ID == "" {
		return nil
	}
	return &schema.OrderStatus{ID: m.ID, Kind: m.Kind, Step: string(m.Step), Ended: m.Over, Error: m.Why}
}
