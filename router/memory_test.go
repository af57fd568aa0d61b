package router_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"howdah/router"
	"howdah/router/own"
	"howdah/router/role"
	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/router/scram"
	"howdah/router/wire"
)

// resident is what the process has in memory, in bytes: "VmRSS" is now, "VmHWM" the most it has had.
func (c *child) resident(t *testing.T, which string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + which + `:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in %s", which, status)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// login opens a session of alice's and waits until it is ready.
func login(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, rt.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * rt.Patience))
	if _, err := conn.Write(rt.Startup("user", "alice")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(rt.AuthOK)+len(rt.Ready('I')))); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A thousand clients that do nothing cost a router less than 20 MB, once what their logins left behind has been collected. The race detector multiplies memory, so the bound is another one there.
func TestIdleClientsCostLittle(t *testing.T) {
	c := startChild(t, "127.0.0.1:0", echo(t))
	login(t, c.address)
	c.collect(t)
	before := c.resident(t, "VmRSS")
	for range 999 {
		login(t, c.address)
	}
	loggedIn := c.resident(t, "VmRSS") - before
	c.collect(t)
	cost, bound := c.resident(t, "VmRSS")-before, 20_000_000
	t.Logf("%d bytes for each of 999 idle clients, %d before the garbage was collected", cost/999, loggedIn/999)
	if raceEnabled {
		bound *= 10
	}
	if cost > bound {
		t.Errorf("999 idle clients cost %d bytes, at most %d", cost, bound)
	}
}

// routeStatements has a router end SCRAM and route statements, for alice. No samples are asked for.
func routeStatements(o *router.Options) {
	v := alicesVerifier()
	o.AuthType, o.StatementRouting, o.Consistency = router.AuthSCRAM, true, route.Eventual
	o.OwnPassword = func() (string, error) { return "", errors.New("nobody is to connect") }
	o.AskRoles(func(context.Context, own.Server, string) (role.Role, error) { return role.Role{Verifier: v}, nil })
}

var alicesCredentials = sync.OnceValue(func() scram.Credentials {
	c, err := scram.FromPassword("alice", "secret", salt, 4096)
	if err != nil {
		panic(err)
	}
	return c
})

func alicesVerifier() scram.Verifier { return alicesCredentials().Verifier() }

// scramEcho is echo with a login by SCRAM, and ParameterStatus as PostgreSQL sends them. Each Query is answered with a row that says who answers.
// What asks for all to be together is answered when as many have asked.
func scramEcho(t *testing.T, who string, together *sync.WaitGroup) (address string) {
	t.Helper()
	server := rt.Listen(t, "")
	var wg sync.WaitGroup
	wg.Go(func() {
		for conn := range server.Arrivals() {
			wg.Go(func() {
				defer conn.Close()
				s := rt.Play(t, conn)
				v := alicesVerifier()
				checks(s, offers(s, v), "alice", v)
				s.Send(rt.AuthOK)
				for _, p := range [][2]string{
					{"application_name", ""}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"}, {"default_transaction_read_only", "off"}, {"in_hot_standby", "off"},
					{"integer_datetimes", "on"}, {"IntervalStyle", "postgres"}, {"is_superuser", "off"}, {"server_encoding", "UTF8"}, {"server_version", "15.4"},
					{"session_authorization", "alice"}, {"standard_conforming_strings", "on"}, {"TimeZone", "Etc/UTC"},
				} {
					s.Send(rt.ParameterStatus(p[0], p[1]))
				}
				s.Send(rt.KeyData(1, "abcd"), rt.Ready('I'))
				conn.SetDeadline(time.Time{})
				for {
					var head [wire.HeaderSize]byte
					if _, err := io.ReadFull(conn, head[:]); err != nil || head[0] == 'X' {
						return
					}
					text := make([]byte, wire.ParseHeader(head[:]).Size()-len(head))
					if _, err := io.ReadFull(conn, text); err != nil {
						return
					}
					if strings.Contains(string(text), "together") {
						together.Done()
						together.Wait()
					}
					answer := [][]byte{rt.RowDescription("who"), rt.Row(who), rt.Complete("SELECT 1"), rt.Ready('I')}
					if strings.Contains(string(text), "pg_proc") {
						answer = [][]byte{rt.RowDescription("a"), rt.Complete("SELECT 0"), rt.Ready('I')}
					}
					conn.Write(slices.Concat(answer...))
				}
			})
		}
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return server.Address()
}

// scramLogin opens a session of alice's, and reads on the standby.
func scramLogin(t *testing.T, address string) *rt.Peer {
	t.Helper()
	c := rt.Dial(t, address)
	c.Send(rt.Startup("user", "alice", "application_name", "app"))
	m := scram.NewClient(scram.Channel{}, "client-nonce")
	for !m.Done() {
		typ, body := c.Next()
		if typ != 'R' {
			c.Fail("received %q %q, want an authentication request", typ, body)
		}
		reply, err := m.Request(body)
		if err == nil && m.Challenged() {
			reply, err = m.Answer(alicesCredentials())
		}
		if err != nil {
			c.Fail("%v", err)
		}
		if len(reply) > 0 {
			c.Send(reply)
		}
	}
	for typ, _ := c.Next(); typ != 'Z'; typ, _ = c.Next() {
	}
	c.Send(rt.Query("SELECT who FROM t WHERE n = 1"))
	expectStandby(c)
	return c
}

func expectStandby(c *rt.Peer) {
	c.Expect(rt.RowDescription("who"), rt.Row("standby"), rt.Complete("SELECT 1"), rt.Ready('I'))
}

// The bound for sessions that have two servers, with SCRAM ended in the router, each of which has read from its standby, all at the same time.
func TestIdleSessionsOfTwoServersCostLittle(t *testing.T) {
	var together sync.WaitGroup
	together.Add(999)
	c := startChild(t, "127.0.0.1:0", scramEcho(t, "primary", nil)+" "+scramEcho(t, "standby", &together))
	scramLogin(t, c.address)
	c.collect(t)
	before := c.resident(t, "VmRSS")
	var sessions []*rt.Peer
	for range 999 {
		sessions = append(sessions, scramLogin(t, c.address))
	}
	for _, s := range sessions {
		s.Send(rt.Query("SELECT together FROM t"))
	}
	for _, s := range sessions {
		expectStandby(s)
	}
	loggedIn := c.resident(t, "VmRSS") - before
	c.collect(t)
	cost, bound := c.resident(t, "VmRSS")-before, 20_000_000
	t.Logf("%d bytes for each of 999 idle clients, %d before the garbage was collected", cost/999, loggedIn/999)
	if raceEnabled {
		bound *= 20 // the buffers of reads at the same moment leave more of it behind
	}
	if cost > bound {
		t.Errorf("999 idle clients cost %d bytes, at most %d", cost, bound)
	}
}

// A row of a gigabyte, the longest message that a server sends, goes through in constant memory.
func TestLongestRowInConstantMemory(t *testing.T) {
	server := rt.Listen(t, "")
	c := startChild(t, "127.0.0.1:0", server.Address())
	client := rt.Dial(t, c.address)
	client.Send(rt.Startup("user", "alice"))
	s := server.Accept()
	s.Welcome(rt.KeyData(1, "abcd"))
	client.Welcomed()
	client.Send(rt.Query("x"))
	s.Expect(rt.Query("x"))
	before := c.resident(t, "VmHWM")

	const length = 0x3fffffff // MaxAllocSize, the length field included
	row := make([]byte, 1<<20)
	row[0] = 'D'
	binary.BigEndian.PutUint32(row[1:], length)
	binary.BigEndian.PutUint16(row[5:], 1)
	binary.BigEndian.PutUint32(row[7:], length-4-2-4)
	sent := make(chan error, 1)
	go func() {
		s.SetWriteDeadline(time.Now().Add(10 * rt.Patience))
		for left := length + 1; left > 0; {
			n, err := s.Write(row[:min(left, len(row))])
			if err != nil {
				sent <- err
				return
			}
			left -= n
			clear(row[:11])
		}
		_, err := s.Write(append(rt.Complete("SELECT 1"), rt.Ready('I')...))
		sent <- err
	}()
	client.SetReadDeadline(time.Now().Add(10 * rt.Patience))
	if n, err := io.CopyN(io.Discard, client, length+1); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	client.Expect(rt.Complete("SELECT 1"), rt.Ready('I'))
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	grown := c.resident(t, "VmHWM") - before
	t.Logf("the router grew by %d bytes", grown)
	if bound := 16 << 20; grown > bound {
		t.Errorf("the router grew by %d bytes, at most %d", grown, bound)
	}
}
