package cmd

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"howdah/cmd/options"
	"howdah/router"
	"howdah/router/console"
)

// routerReloading is a routerReload over a file; what was applied last is in *applied.
func routerReloading(t *testing.T, file string) (l *routerReload, applied *router.Options) {
	t.Helper()
	load := func(fresh Command) error {
		return options.New("howdah router", fresh).Load(options.Sources{
			Flags:    map[string]string{"config": file, "cluster": "shop", "name": "r1", "gossip-key-file": "/k"},
			ReadFile: os.ReadFile,
		})
	}
	c := NewRouter(Stdio{})
	if err := load(c); err != nil {
		t.Fatal(err)
	}
	applied = &router.Options{}
	return &routerReload{
		load: load, fresh: func() *Router { return NewRouter(Stdio{}) }, level: zap.NewAtomicLevel(), log: zap.NewNop(), inForce: c.set.Values(),
		apply: func(o router.Options) error { *applied = o; return nil },
	}, applied
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRouterReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "howdah.yaml")
	write(t, file, "max_clients: 10\n")
	l, applied := routerReloading(t, file)
	if got, err := l.again(); len(got) != 0 || err != nil {
		t.Errorf("unchanged: %v, %v", got, err)
	}
	write(t, file, "max_clients: 20\nlisten: 127.0.0.1:7000\nlog_level: debug\n")
	want := []console.Change{
		{Name: "listen", Old: "127.0.0.1:6432", New: "127.0.0.1:7000", Restart: true},
		{Name: "max-clients", Old: "10", New: "20"}, {Name: "log-level", Old: "info", New: "debug"},
	}
	got, err := l.again()
	if !slices.Equal(got, want) || err != nil || applied.MaxClients != 20 || l.level.Level() != zapcore.DebugLevel {
		t.Errorf("changed: %v, %v", got, err)
	}
	// What needs a restart is said each time until the restart, and what is in force stands in the settings.
	if got, err = l.again(); !slices.Equal(got, want[:1]) || err != nil {
		t.Errorf("again: %v, %v", got, err)
	}
	for _, s := range l.settings() {
		if s.Name == "listen" && (s.Value != "127.0.0.1:6432" || s.Changeable) || s.Name == "max-clients" && (s.Value != "20" || s.Default != "1000" || !s.Changeable) {
			t.Errorf("setting %+v", s)
		}
	}
	// One mistake anywhere, and nothing changes.
	write(t, file, "max_clients: 30\nmax_cliens: 40\n")
	if got, err := l.again(); len(got) != 0 || err == nil || !strings.Contains(err.Error(), "max_cliens") || applied.MaxClients != 20 {
		t.Errorf("a mistake: %v, %v", got, err)
	}
	l.apply = func(router.Options) error { return errors.New("no such certificate") }
	write(t, file, "max_clients: 30\nlog_level: warn\n")
	if _, err := l.again(); err == nil || l.level.Level() != zapcore.DebugLevel {
		t.Errorf("not applied: %v", err)
	}
}

// Whatever is said to be changeable is taken over by the router, or is the log's level, and nothing else is.
func TestRouterReloadsWhatItSays(t *testing.T) {
	said := maps.Clone(routerReloads)
	delete(said, "log-level")
	fields := reflect.TypeFor[router.Options]()
	for i := range fields.NumField() {
		if !fields.Field(i).IsExported() {
			continue
		}
		c := NewRouter(Stdio{})
		set := options.New("howdah router", c)
		before := set.Values()
		switch f := reflect.ValueOf(&c.Options).Elem().Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Int, reflect.Int64:
			f.SetInt(f.Int() + int64(time.Second))
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"x"}))
		}
		taken := !reflect.DeepEqual(router.DefaultOptions().Reloaded(c.Options), router.DefaultOptions())
		for k, v := range set.Values() {
			if v.Text == before[k].Text {
				continue
			}
			if taken != said[v.Name] {
				t.Errorf("%s: said to be changeable %v, taken over %v", v.Name, said[v.Name], taken)
			}
			delete(said, v.Name)
		}
	}
	if len(said) > 0 {
		t.Errorf("no option of the router's is one of %v", said)
	}
}

func TestRouterReloadOnSignal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "howdah.yaml")
	write(t, file, "")
	l, _ := routerReloading(t, file)
	done := make(chan int, 1)
	l.apply = func(o router.Options) error { done <- o.MaxClients; return nil }
	signals := make(chan os.Signal, 1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan struct{})
	go func() { l.on(ctx, signals); close(ended) }()
	write(t, file, "max_clients: 7\n")
	signals <- os.Interrupt
	select {
	case n := <-done:
		if n != 7 {
			t.Errorf("max-clients %d", n)
		}
	case <-ctx.Done():
		t.Fatal("nothing was read")
	}
	stop()
	<-ended
}

func TestConsoleOptions(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "admin")
	write(t, file, "sesame\n")
	load := func(more map[string]string, environ ...string) (*Router, error) {
		c := NewRouter(Stdio{})
		args := map[string]string{"cluster": "main", "name": "r", "gossip-key-file": "/k"}
		for k, v := range more {
			args[k] = v
		}
		return c, options.New("howdah router", c).Load(options.Sources{Flags: args, Environ: environ})
	}
	for word, more := range map[string]map[string]string{
		"admin-password-file": {"admin-users": "root"}, "admin-users": {"admin-password-file": file},
	} {
		if _, err := load(more); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v: %v", more, err)
		}
	}
	if _, err := load(map[string]string{"admin-users": "root", "admin-password-file": file}, "HOWDAH_ADMIN_PASSWORD=hush"); err == nil || !strings.Contains(err.Error(), "give one of them") || strings.Contains(err.Error(), "hush") {
		t.Errorf("both: %v", err)
	}
	c, err := load(map[string]string{"stats-users": "a,b", "admin-password-file": file})
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.consolePassword()
	if err != nil || must(t, f) != "sesame" || len(c.StatsUsers) != 2 {
		t.Errorf("from a file: %v %v", err, c.StatsUsers)
	}
	write(t, file, "sésame\n")
	if _, err := f(); !errors.Is(err, errConsolePassword) {
		t.Errorf("not ASCII: %v", err)
	}
}
