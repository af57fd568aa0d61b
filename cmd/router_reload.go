package cmd

import (
	"context"
	"errors"
	"os"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"howdah/cmd/options"
	"howdah/router"
	"howdah/router/console"
)

// routerReloads are the options that a running router takes over from its sources; router.Apply is the other half of it.
var routerReloads = map[string]bool{
	"failover-wait": true, "consistency": true, "statement-routing": true, "max-clients": true, "read-only-fallback": true,
	"login-timeout": true, "dial-timeout": true, "cancel-timeout": true, "drain-timeout": true, "farewell-timeout": true, "tcp-user-timeout": true,
	"tls-cert-file": true, "tls-key-file": true, "tls-client-ca-file": true, "admin-users": true, "stats-users": true, "log-level": true, "rules": true, "ident-map": true, "limits": true,
}

// LoadAgain implements reloadable.
func (c *Router) LoadAgain(load func(Command) error) { c.load = load }

// routerReload reads a router's options again while it runs.
type routerReload struct {
	load  func(fresh Command) error
	fresh func() *Router
	apply func(router.Options) error
	level zap.AtomicLevel
	log   *zap.Logger

	mu sync.Mutex
	// inForce is what runs now: what was read, but for what takes a restart.
	inForce []options.Value
}

// again reads the options. One mistake anywhere in them, and nothing changes.
func (l *routerReload) again() ([]console.Change, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.load == nil {
		return nil, errors.New("the router was started without sources of options")
	}
	fresh := l.fresh()
	if err := l.load(fresh); err != nil {
		return nil, err
	}
	level, err := zapcore.ParseLevel(fresh.Log.Level)
	if err != nil {
		return nil, err
	}
	if err := l.apply(fresh.Options); err != nil {
		return nil, err
	}
	l.level.SetLevel(level)
	var changes []console.Change
	for i, v := range fresh.set.Values() {
		old := &l.inForce[i]
		if old.Text == v.Text {
			continue
		}
		changes = append(changes, console.Change{Name: v.Name, Old: old.Text, New: v.Text, Restart: !routerReloads[v.Name]})
		if routerReloads[v.Name] {
			old.Text = v.Text
		}
	}
	return changes, nil
}

// settings are the options in force.
func (l *routerReload) settings() []console.Setting {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]console.Setting, 0, len(l.inForce))
	for _, v := range l.inForce {
		list = append(list, console.Setting{Name: v.Name, Value: v.Text, Default: v.Default, Changeable: routerReloads[v.Name]})
	}
	return list
}

// on reads the options again at each signal until ctx ends.
func (l *routerReload) on(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		changes, err := l.again()
		if err != nil {
			l.log.Error("the options stay as they were; correct them and send SIGHUP again", zap.Error(err))
			continue
		}
		for _, c := range changes {
			if c.Restart {
				l.log.Warn("a changed option needs a restart", zap.String("option", c.Name), zap.String("old", c.Old), zap.String("new", c.New))
			} else {
				l.log.Info("option changed", zap.String("option", c.Name), zap.String("old", c.Old), zap.String("new", c.New))
			}
		}
		l.log.Info("options read again", zap.Int("changed", len(changes)))
	}
}
