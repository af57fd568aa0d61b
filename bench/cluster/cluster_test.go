package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"howdah/sidecar/local"
)

// twoHosts makes a network of two hosts, where this may be done: otherwise it says so and returns false.
func twoHosts(t *testing.T) (n *network, a, b *Host, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("not root: network namespaces cannot be made, so nothing is tested here")
		return nil, nil, nil, false
	}
	ctx := t.Context()
	if err := prerequisites(ctx); err != nil {
		t.Fatal(err)
	}
	root, err := cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	id, _, lock, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, h := range n.hosts {
			h.close()
		}
		if err := errors.Join(remove(context.Background(), id, root), lock.Close()); err != nil {
			t.Error(err)
		}
		names, err := namespaces()
		for _, name := range names {
			if err != nil || strings.HasPrefix(name, "howdah-"+id) {
				t.Errorf("%s is left (%v)", name, err)
			}
		}
	})
	if n, err = newNetwork(ctx, id, root); err != nil {
		t.Fatal(err)
	}
	a, err = n.add(ctx, "a", 11)
	if err == nil {
		b, err = n.add(ctx, "b", 12)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n, a, b, true
}

// hear lets h answer what it gets by UDP, and counts what arrived.
func hear(t *testing.T, h *Host) (address string, arrived chan struct{}) {
	t.Helper()
	listening := make(chan net.PacketConn, 1)
	h.starts <- func() {
		l, err := net.ListenPacket("udp4", h.Address+":9999")
		if err != nil {
			t.Error(err)
		}
		listening <- l
	}
	l := <-listening
	t.Cleanup(func() { _ = l.Close() })
	arrived = make(chan struct{}, 100)
	go func() {
		for b := make([]byte, 10); ; {
			_, from, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			arrived <- struct{}{}
			_, _ = l.WriteTo([]byte("back"), from)
		}
	}()
	return h.Address + ":9999", arrived
}

// asks sends one datagram from h, and says whether it arrived and whether the answer came back.
func asks(t *testing.T, h *Host, address string, arrived chan struct{}) (there, back bool) {
	t.Helper()
	conn, err := h.Dial(t.Context(), "udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("there")); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 10))
	select {
	case <-arrived:
		there = true
	default:
	}
	return there, err == nil
}

func TestCuts(t *testing.T) {
	n, a, b, ok := twoHosts(t)
	if !ok {
		return
	}
	address, arrived := hear(t, b)
	for _, c := range []struct {
		name        string
		pairs       []pair
		there, back bool
	}{
		{"nothing is cut", nil, true, true},
		{"the way there", []pair{{a, b}}, false, false},
		{"the way back", []pair{{b, a}}, true, false},
		{"both ways", []pair{{a, b}, {b, a}}, false, false},
		{"healed", nil, true, true},
	} {
		if err := n.cut(t.Context(), c.pairs); err != nil {
			t.Fatal(err)
		}
		if there, back := asks(t, a, address, arrived); there != c.there || back != c.back {
			t.Errorf("%s: there %t, back %t", c.name, there, back)
		}
		if err := n.heal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A process of a killed host ends, frozen or not, and another can be started after it.
func TestHostIsKilledAndStartsAgain(t *testing.T) {
	_, a, _, ok := twoHosts(t)
	if !ok {
		return
	}
	for range 3 {
		cmd := exec.Command("sleep", "1000")
		if err := a.start(cmd, nil, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		home, err := a.netns.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if its, err := os.Stat("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/net"); err != nil || !os.SameFile(home, its) {
			t.Errorf("the process is not in the namespace of its host (%v)", err)
		}
		if err := a.setFrozen(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := a.kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("the process ended by %v", err)
		}
	}
}

// On a frozen host nothing starts, and what is wanted starts once it is thawed.
func TestFrozenHostStartsNothing(t *testing.T) {
	_, a, _, ok := twoHosts(t)
	if !ok {
		return
	}
	if err := a.setFrozen(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	u := &unit{name: "sleep", log: filepath.Join(t.TempDir(), "log"), host: a, orphan: syscall.SIGKILL, args: []string{"sleep", "1000"}}
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.kill(); err != nil {
			t.Error(err)
		}
	})
	if err := u.signal(syscall.SIGKILL); err != nil || u.generation() != 0 {
		t.Errorf("%d starts on a frozen host, and signalling it said %v", u.generation(), err)
	}
	if err := a.setFrozen(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := local.Poll(t.Context(), 10*time.Millisecond, func() bool { return u.generation() == 1 }); err != nil {
		t.Errorf("it did not start after the thaw: %v", err)
	}
}

// What a crashed run has left is removed by the next, and a run that lives is left alone.
func TestSweep(t *testing.T) {
	n, _, _, ok := twoHosts(t)
	if !ok {
		return
	}
	id, dir, lock, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	root, err := cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	crashed, err := newNetwork(t.Context(), id, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil { // as the kernel does when the process ends
		t.Fatal(err)
	}
	if _, err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if _, err := os.Stat("/run/netns/" + crashed.namespace); err == nil {
		t.Errorf("%s is left", crashed.namespace)
	}
	if _, err := os.Stat("/run/netns/" + n.namespace); err != nil {
		t.Errorf("a run that lives was removed: %v", err)
	}
}
