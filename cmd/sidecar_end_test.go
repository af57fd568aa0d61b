package cmd

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"howdah/sidecar/local"
)

func TestSidecarThatWaitsForItsLauncherEndsInOrder(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), &output{}
	c := NewSidecar(Stdio{Out: out, Err: out})
	c.Cluster, c.Name, c.DataDir, c.LaunchSocket = "main", "a", filepath.Join(dir, "data"), filepath.Join(dir, "launch.sock")
	c.SecretsDir, c.PostgresListen, c.APIListen, c.Gossip.Listen, c.Consul.Addr = filepath.Join(dir, "secrets"), "127.0.0.1:5432", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:1"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	patience, enough := context.WithTimeout(t.Context(), time.Minute)
	defer enough()
	if err := local.Poll(patience, 10*time.Millisecond, func() bool { return strings.Contains(out.String(), "waiting for howdah launch") }); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v", err)
	}
}
