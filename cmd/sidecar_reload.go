package cmd

import (
	"context"
	"os"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// LoadAgain implements reloadable.
func (c *Sidecar) LoadAgain(load func(Command) error) { c.load = load }

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
		if c.load == nil {
			continue
		}
		fresh := NewSidecar(c.stdio)
		err := c.load(fresh)
		if err == nil {
			err = set(fresh.tags())
		}
		if err != nil {
			log.Error("the tags stay as they were; correct the options and send SIGHUP again", zap.Error(err))
			continue
		}
		log.Info("tags read again; other options are read at a start only", zap.Any("tags", fresh.tags()))
	}
}
