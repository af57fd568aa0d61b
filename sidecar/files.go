package sidecar

import (
	"context"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
	"howdah/sidecar/postgres"
)

// filesEvery is how often Postgres's configuration files are compared with what they should be, when nothing says that
// something has changed.
const filesEvery = 2 * time.Second

// watchFiles compares Postgres's configuration files with what they should be: after each change of the cluster's
// configuration, after each action on Postgres, and from time to time, because others may change files.
func (l *loop) watchFiles(ctx context.Context) {
	t := time.NewTicker(filesEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wakeFiles:
		case <-t.C:
		}
		type question struct {
			standing decide.Standing
			ok       bool
			do       actor
			control  postgres.ControlData
		}
		c := make(chan question, 1)
		if !l.post(func() {
			st, ok := decide.Configured(&l.obs, l.memory)
			c <- question{st, ok && l.obs.Busy[decide.SlotPostgres] == "", actor{s: l.s, config: l.obs.Config}, l.found.Control}
		}) {
			return
		}
		select {
		case q := <-c:
			if q.ok {
				began := l.s.d.Now()
				found, err := q.do.compare(ctx, q.standing, q.control)
				l.post(func() { l.seeFiles(began, q.standing, found, err) })
			}
		case <-ctx.Done():
			return
		}
	}
}

func (x actor) compare(ctx context.Context, st decide.Standing, control postgres.ControlData) (postgres.Comparison, error) {
	s, err := x.settings(st)
	if err != nil {
		return postgres.Comparison{}, err
	}
	return x.s.d.Server.Compare(ctx, s, control)
}

// seeFiles takes in a comparison. One that failed says nothing.
func (l *loop) seeFiles(at schema.Instant, st decide.Standing, found postgres.Comparison, err error) {
	if err != nil {
		l.log.Debug("the configuration files could not be compared with what they should be", zap.Error(err))
		l.obs.Files = decide.Files{At: schema.Never}
		return
	}
	l.obs.Files = decide.Files{At: at, For: st, Differ: found.Differ, Refused: found.Refused}
}

// parametersBound is how long Postgres may take to describe its settings.
const parametersBound = 2 * time.Second

// reloadBound is how long Postgres may take to read its files and to say what it found.
const reloadBound = 8 * time.Second

// Reload has the member's Postgres read its configuration files, and reports what came of it. The loop is not involved.
func (s *Sidecar) Reload(ctx context.Context) schema.ReloadReport {
	ctx, cancel := context.WithTimeout(ctx, reloadBound)
	defer cancel()
	r, err := s.d.Server.ReloadFiles(ctx, s.d.Launcher.Reload)
	if err != nil {
		r.Postgres = err.Error()
	}
	return r
}

// Parameters returns what the member's Postgres says of its settings, without their values.
func (s *Sidecar) Parameters(ctx context.Context) ([]schema.Parameter, error) {
	ctx, cancel := context.WithTimeout(ctx, parametersBound)
	defer cancel()
	return s.d.Server.Parameters(ctx)
}
