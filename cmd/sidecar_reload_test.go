package cmd

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/cmd/options"
	"howdah/consul/schema"
)

// SIGHUP has the file read again; a mistake anywhere in it keeps the tags.
func TestTagsAreReadAgainOnSIGHUP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "howdah.yaml")
	c := NewSidecar(Stdio{})
	c.LoadAgain(func(fresh Command) error {
		return options.New("howdah sidecar", fresh).Load(options.Sources{
			Flags:    map[string]string{"config": file, "cluster": "shop", "name": "pg1", "data-dir": "/data", "postgres-advertise": "10.0.0.1:5432", "nosync": "true"},
			ReadFile: os.ReadFile,
		})
	})
	core, logs := observer.New(zap.InfoLevel)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	set, failed := make(chan schema.Tags, 1), make(chan string, 1)
	log := zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Level == zap.ErrorLevel {
			failed <- e.Message
		}
		return nil
	}))
	go c.reloadOn(ctx, signals, func(tags schema.Tags) error { set <- tags; return nil }, log)
	for _, step := range []struct {
		file string
		want schema.Tags
		bad  string
	}{
		{"priority: 7\nnofailover: true\nclonefrom: true\n", schema.Tags{Priority: 7, NoFailover: true, NoSync: true, CloneFrom: true}, ""},
		{"priority: 8\nnofailovr: true\n", schema.Tags{}, "did you mean nofailover?"},
		{"priority: 8\napi_listen: nowhere\n", schema.Tags{}, "api_listen"},
		{"noloadbalance: true\n", schema.Tags{NoSync: true, NoLoadBalance: true}, ""},
	} {
		if err := os.WriteFile(file, []byte(step.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-set:
			if step.bad != "" || got != step.want {
				t.Fatalf("%q: set %+v, want %+v %s", step.file, got, step.want, step.bad)
			}
		case <-failed:
			all := logs.All()
			said, _ := all[len(all)-1].ContextMap()["error"].(string)
			if step.bad == "" || !strings.Contains(said, step.bad) {
				t.Fatalf("%q: refused: %s", step.file, said)
			}
		case <-ctx.Done():
			t.Fatalf("%q: nothing happened", step.file)
		}
	}
}
