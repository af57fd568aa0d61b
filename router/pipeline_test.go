package router_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// A client that sends without reading, until nobody takes it, and then reads gets every answer, in order; whoever gives it. libpq's pipeline mode and
// JDBC's batches do so.
func TestPipelineSentWithoutReading(t *testing.T) {
	s := startSplit(t)
	for name, c := range map[string]struct {
		of     route.Route
		writes bool
	}{"to the primary": {route.RW, true}, "reads and writes": {route.Auto, true}, "reads": {route.Auto, false}} {
		t.Run(name, func(t *testing.T) { pipelineWithoutReading(t, s, c.of, c.writes) })
	}
}

func pipelineWithoutReading(t *testing.T, s *splitCluster, of route.Route, writes bool) {
	conn := s.connect(t, of, "")
	if of == route.Auto {
		s.caughtUp(conn)
	}
	hijacked, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	const batches = 3000
	before := strings.Count(s.two.Log(), "repeat('x', 4000)")
	var sent []byte
	pad := "/*" + strings.Repeat("-", 8000) + "*/"
	for i := range batches {
		length := 4000
		if i == 1005 {
			length = 30 << 20 // more than sockets hold: its server cannot read on meanwhile
		}
		switch sql := fmt.Sprintf("SELECT %d, repeat('x', %d) %s", i, length, pad); {
		case i%10 == 0 && writes:
			sent = append(sent, rt.Query(fmt.Sprintf("INSERT INTO t VALUES (%d) ON CONFLICT (n) DO UPDATE SET s = '' RETURNING n, repeat('x', 4000) %s", i, pad))...)
		case i%10 < 4:
			sent = append(sent, rt.Query(sql)...)
		default:
			sent = append(sent, bytes.Join([][]byte{rt.Parse("", sql), rt.Bind("", ""), rt.Execute(""), rt.Sync}, nil)...)
		}
	}
	taken := 0
	for taken < len(sent) {
		hijacked.Conn.SetWriteDeadline(time.Now().Add(blockedFor))
		n, err := hijacked.Conn.Write(sent[taken:])
		taken += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if taken == len(sent) {
		t.Fatal("all was taken: nothing had to wait")
	}
	t.Logf("%d of %d bytes are taken before anything is read", taken, len(sent))
	hijacked.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	written := make(chan error, 1)
	go func() {
		_, err := hijacked.Conn.Write(sent[taken:])
		written <- err
	}()
	expectInOrder(t, hijacked, batches)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if there := strings.Count(s.two.Log(), "repeat('x', 4000)") - before; !writes && there < batches/2 {
		t.Errorf("%d batches on the standby", there)
	}
}

func expectInOrder(t *testing.T, c *pgconn.HijackedConn, batches int) {
	t.Helper()
	for next := 0; next < batches; {
		m, err := c.Frontend.Receive()
		if err != nil {
			t.Fatalf("after %d answers: %v", next, err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			if string(m.Values[0]) != fmt.Sprint(next) {
				t.Fatalf("received row %s, want %d", m.Values[0], next)
			}
		case *pgproto3.ErrorResponse:
			t.Fatalf("answer %d: %+v", next, m)
		case *pgproto3.ReadyForQuery:
			next++
		}
	}
}
