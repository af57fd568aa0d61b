package cmd

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/sidecar/local/localtest"
	"howdah/sidecar/postgres/postgrestest"
)

// A router as a real process, with a file of options, the console and signals. It has no Consul and no members, and needs none for this.
func TestRouterProcess(t *testing.T) {
	dir := t.TempDir()
	config, admin, key := filepath.Join(dir, "howdah.yaml"), filepath.Join(dir, "admin"), filepath.Join(dir, "gossip.key")
	write(t, config, "max_clients: 10\n")
	write(t, admin, "sesame\n")
	write(t, key, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
	port := postgrestest.FreePort(t)
	address := "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.Command(localtest.Binary(t), "router", "--cluster", "x", "--name", "r1", "--gossip-key-file", key, "--gossip-listen", "127.0.0.1:0", "--listen", address,
		"--consul-addr", "127.0.0.1:1", "--config", config, "--admin-users", "root", "--admin-password-file", admin, "--so-reuseport")
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(said.String())
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	conf, err := pgx.ParseConfig("postgres://root:sesame@" + address + "/howdah?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	conf.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	var conn *pgx.Conn
	postgrestest.Until(ctx, t, "the console", func() bool {
		conn, err = pgx.ConnectConfig(ctx, conf)
		return err == nil
	})
	setting := func(name string) string {
		rows, err := conn.Query(ctx, "SHOW CONFIG")
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowToMap)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range list {
			if row["key"] == name {
				return row["value"].(string)
			}
		}
		t.Fatalf("no option %s", name)
		return ""
	}
	if got := setting("max-clients"); got != "10" {
		t.Errorf("max-clients %s", got)
	}
	write(t, config, "max_clients: 20\nlisten_ro: 127.0.0.1:0\n")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	postgrestest.Until(ctx, t, "the new limit", func() bool { return setting("max-clients") == "20" })
	rows, err := conn.Query(ctx, "RELOAD")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil || len(changes) != 1 || changes[0]["key"] != "listen-ro" || changes[0]["effect"] != "needs a restart" {
		t.Errorf("RELOAD: %v, %v", changes, err)
	}
	write(t, config, "max_cliens: 30\n")
	var refused *pgconn.PgError
	if _, err := conn.Exec(ctx, "RELOAD"); !errors.As(err, &refused) || refused.Code != "F0000" || !strings.Contains(refused.Message, "did you mean max_clients?") {
		t.Errorf("RELOAD of a mistake: %v", err)
	}
	if got := setting("max-clients"); got != "20" {
		t.Errorf("after a mistake: max-clients %s", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	ended <- nil
	for _, word := range []string{"may be refused", "sesame"} {
		if strings.Contains(said.String(), word) {
			t.Errorf("the log says %q", word)
		}
	}
	conn.Close(ctx)
}
