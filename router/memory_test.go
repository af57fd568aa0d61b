package router_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	rt "howdah/router/routertest"
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
