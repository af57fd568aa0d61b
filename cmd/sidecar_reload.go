package cmd

import (
	"context"
	"os"
	"sync"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar"
)

// LoadAgain implements reloadable.
func (c *Sidecar) LoadAgain(load func(Command) error) {
	var one sync.Mutex // a signal and the API may ask at the same time
	c.load = func(fresh Command) error {
		one.Lock()
		defer one.Unlock()
		return load(fresh)
	}
}

func (c *Sidecar) tags() schema.Tags {
	return schema.Tags{Priority: c.Priority, NoFailover: c.NoFailover, NoSync: c.NoSync, NoLoadBalance: c.NoLoadBalance, CloneFrom: c.CloneFrom}
}

// reloadOn reads the options again at each signal and gives the tags among them to set, until ctx ends. One mistake
// anywhere in the options keeps all tags as they were.
func (c *Sidecar) reloadOn(ctx context.Context, signals <-chan os.Signal, set func(schema.Tags) error, log *zap.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		_ = c.reread(set, log) // which logs it
	}
}

// reread reads the options again and gives the tags among them to set.
func (c *Sidecar) reread(set func(schema.Tags) error, log *zap.Logger) error {
	if c.load == nil {
		return nil
	}
	fresh := NewSidecar(c.stdio)
	err := c.load(fresh)
	if err == nil {
		err = set(fresh.tags())
	}
	if err != nil {
		log.Error("the tags stay as they were; correct the options and send SIGHUP again, or howdah reload", zap.Error(err))
		return err
	}
	log.Info("tags read again; other options are read at a start only", zap.Any("tags", fresh.tags()))
	return nil
}

// reloading is a sidecar whose reload reads its own options too.
type reloading struct {
	*sidecar.Sidecar
	reread func() error
}

// Reload implements api.Source.
func (s reloading) Reload(ctx context.Context) schema.ReloadReport {
	err := s.reread()
	r := s.Sidecar.Reload(ctx)
	if err != nil {
		r.Options = err.Error()
	}
	return r
}
