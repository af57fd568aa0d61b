package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"howdah/cmd/options"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/detector"
	"howdah/sidecar/postgres/postgrestest"
)

// Two routers, as the command makes them, with a real gossip and a real server: a client whose cancel request comes to the other router has its statement
// cancelled, and no other.
func TestCancelAtAnotherRouter(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t)
	keyFile := filepath.Join(t.TempDir(), "gossip.key")
	write(t, keyFile, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
	keys, err := readGossipKeys(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	member, err := detector.Start(detector.Config{
		Name: "pg1", Kind: detector.KindMember, Cluster: "main", Keys: keys, Bind: "127.0.0.1:0",
	}, boottime.Now, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	// t's context has ended when this is called.
	defer func() {
		bye, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
		defer cancel()
		member.Shutdown(bye)
	}()
	var wg sync.WaitGroup
	defer wg.Wait()
	running, end := context.WithCancel(ctx)
	defer end()
	var addresses []string
	for _, name := range []string{"r1", "r2"} {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(postgrestest.FreePort(t)))
		addresses = append(addresses, address)
		stdio, _, _ := testStdio()
		c := NewRouter(stdio)
		if err := options.New("howdah router", c).Load(options.Sources{Flags: map[string]string{
			"cluster": "main", "name": name, "gossip-key-file": keyFile, "gossip-listen": "127.0.0.1:0", "gossip-join": member.Addr(),
			"listen": address, "consul-addr": "127.0.0.1:1", "drain-timeout": "0s",
		}}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := c.Run(running); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	member.Publish(schema.Status{
		Role: schema.RolePrimary, State: schema.StateRunning, Epoch: 1, Timeline: 1, LSN: 1000, Addresses: schema.Addresses{Postgres: server.Addr()},
	})
	go func() { // as a sidecar does, so that the routers' knowledge does not grow old
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for seq := uint64(2); ; seq++ {
			select {
			case <-running.Done():
				return
			case <-tick.C:
			}
			member.Publish(schema.Status{
				Role: schema.RolePrimary, State: schema.StateRunning, Epoch: 1, Timeline: 1, LSN: 1000, Seq: seq, Addresses: schema.Addresses{Postgres: server.Addr()},
			})
		}
	}()
	connect := func(at string) *pgx.Conn {
		t.Helper()
		var conn *pgx.Conn
		postgrestest.Until(ctx, t, "a session at "+at, func() bool {
			conn, err = pgx.Connect(ctx, fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", postgrestest.Password, at))
			return err == nil
		})
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	sleep := func(conn *pgx.Conn) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, "SELECT pg_sleep(100)")
			done <- err
		}()
		return done
	}
	one, bystander := connect(addresses[0]), connect(addresses[0])
	two := connect(addresses[1])
	// at sends the cancel request of conn to another router than its own, again and again until it has an effect: that the routers know each other is not announced.
	at := func(address string, conn *pgx.Conn, asleep <-chan error) {
		t.Helper()
		request := cancelRequest(conn.PgConn().PID(), conn.PgConn().SecretKey())
		postgrestest.Until(ctx, t, "the statement to be cancelled", func() bool {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write(request)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%d bytes, %v", n, err)
			}
			select {
			case err := <-asleep:
				var e *pgconn.PgError
				if !errors.As(err, &e) || e.Code != "57014" {
					t.Fatalf("the statement: %v", err)
				}
				return true
			default:
				return false
			}
		})
	}
	others := sleep(bystander)
	at(addresses[1], one, sleep(one))
	at(addresses[0], two, sleep(two))
	select {
	case err := <-others:
		t.Errorf("a statement that nobody cancelled: %v", err)
	default:
	}
	at(addresses[1], bystander, others)
}

func cancelRequest(pid uint32, secret []byte) []byte {
	b := []byte{0, 0, 0, byte(12 + len(secret)), 4, 210, 22, 46, byte(pid >> 24), byte(pid >> 16), byte(pid >> 8), byte(pid)}
	return append(b, secret...)
}
