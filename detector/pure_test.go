package detector

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"howdah/consul/schema"
)

func TestTimingSets(t *testing.T) {
	for name, tm := range map[string]Timing{"LAN": LAN(), "WAN": WAN(), "quick": quick()} {
		if err := tm.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := LAN().Silence(5); s != 800*time.Millisecond {
		t.Errorf("LAN silence %s", s)
	}
	if v := LAN().Verdict(5); v < 900*time.Millisecond || v > 1200*time.Millisecond {
		t.Errorf("LAN verdict %s, want about a second", v)
	}
	if s := WAN().Silence(5); s != 5*time.Second {
		t.Errorf("WAN silence %s", s)
	}
	bad := LAN()
	bad.ProbeTimeout, bad.SuspectAfter, bad.GossipNodes, bad.PacketBytes = 150*time.Millisecond, time.Millisecond, 0, 10
	for _, key := range []string{"ProbeTimeout", "SuspectAfter", "GossipNodes", "PacketBytes"} {
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
}

func fullMeta() meta {
	return meta{
		Leaving: true, Kind: KindRouter, Role: schema.RoleStandby, Epoch: 1 << 40, Generation: 1<<64 - 1, Cluster: "c", Instance: "i",
		Addresses: schema.Addresses{Postgres: "h:5432", API: "h:1", Gossip: "[::1]:2"},
	}
}

func TestMetaForm(t *testing.T) {
	for _, m := range []meta{fullMeta(), {Kind: KindMember, Cluster: "x"}} {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, later := range [][]byte{b, append(bytes.Clone(b), 1, 2, 3)} {
			if got, err := decodeMeta(later); err != nil || got != m {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		for cutAt := range b {
			if _, err := decodeMeta(b[:cutAt]); !errors.Is(err, errMeta) {
				t.Errorf("cut at %d: %v", cutAt, err)
			}
		}
	}
	m := fullMeta()
	m.Addresses.API = strings.Repeat("a", 500)
	if _, err := m.encode(); !errors.Is(err, errMeta) || !strings.Contains(err.Error(), "api address 500") {
		t.Errorf("too long: %v", err)
	}
	m = fullMeta()
	m.Kind = "spy"
	if _, err := m.encode(); !errors.Is(err, errMeta) {
		t.Errorf("unknown kind: %v", err)
	}
}

func FuzzMeta(f *testing.F) {
	b, err := fullMeta().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 0, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80})
	f.Add([]byte{1, 0, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if back, err := decodeMeta(again); err != nil || back != m {
			t.Fatalf("%+v became %+v, %v", m, back, err)
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(encodeJSON(message{Version: 1, Kind: messageStatus, Cluster: "test", From: "a", Status: &schema.Status{Name: "a", Cluster: "test"}}))
	f.Add(encodeJSON(message{Version: 1, Kind: messageAsk, Cluster: "test", From: "a", To: "b", ReplyTo: "x", Ask: &schema.PromiseRequest{}}))
	f.Add(encodeJSON(fullState{Version: 1, Cluster: "test", Statuses: []held{{Status: schema.Status{Name: "a", Cluster: "test"}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage(b, "test"); err == nil {
			if back, err := decodeMessage(encodeJSON(m), "test"); err != nil || !cmp.Equal(m, back) {
				t.Fatalf("%+v became %+v, %v", m, back, err)
			}
		}
		if s, err := decodeState(b, "test"); err == nil {
			tb := newTable("self", "test", LAN())
			for _, h := range s.Statuses {
				tb.relayed(h, 1)
			}
		}
	})
}

func TestMessagesRefused(t *testing.T) {
	good := message{Version: 1, Kind: messageStatus, Cluster: "test", From: "a", Status: &schema.Status{Name: "a", Cluster: "test"}}
	if _, err := decodeMessage(encodeJSON(good), "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeMessage(encodeJSON(good), "other"); !errors.Is(err, errForeign) {
		t.Errorf("other cluster: %v", err)
	}
	for name, change := range map[string]func(*message){
		"version":     func(m *message) { m.Version = 2 },
		"no status":   func(m *message) { m.Status = nil },
		"other name":  func(m *message) { m.From = "b" },
		"kind":        func(m *message) { m.Kind = "shout" },
		"empty ask":   func(m *message) { m.Kind = messageAsk },
		"no answer":   func(m *message) { m.Kind = messageAnswer },
		"no key":      func(m *message) { m.Kind, m.To, m.ReplyTo = messageCancel, "b", "127.0.0.1:1" },
		"no way back": func(m *message) { m.Kind, m.To, m.Key = messageCancel, "b", []byte{1} },
		"other's own": func(m *message) { m.Status = &schema.Status{Name: "a", Cluster: "other"} },
	} {
		m := good
		change(&m)
		if _, err := decodeMessage(encodeJSON(m), "test"); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range []string{"", "{", "null", `{"v":1,"c":"test","s":[{"s":{"name":""}}]}`} {
		if _, err := decodeState([]byte(b), "test"); err == nil {
			t.Errorf("state %q was taken", b)
		}
	}
}

func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		got := make(chan mail)
		go func() {
			<-b.signal
			got <- b.take()
		}()
		n := &memberlist.Node{Name: "a", Addr: []byte{127, 0, 0, 1}, Meta: []byte("m")}
		for i := range 3 * maxMessages {
			b.event(n, i%2 == 0)
		}
		n.Meta[0] = 'x'
		synctest.Wait()
		m := <-got
		if len(m.events) != 1 {
			t.Fatalf("%d events of one node", len(m.events))
		}
		// The reader may have been woken by the first event; what came later has a signal of its own.
		for len(b.signal) > 0 {
			<-b.signal
			for name, ev := range b.take().events {
				m.events[name] = ev
			}
		}
		if ev := m.events["a"]; ev.gone || string(ev.node.Meta) != "m" {
			t.Errorf("the last event was %+v, want a copy of the latest", ev)
		}

		p := []byte("hello")
		for range maxMessages + 7 {
			b.message(p)
		}
		p[0] = 'x'
		for range maxStates + 1 {
			b.state(p)
		}
		for range maxConflicts + 1 {
			b.conflict(n, n)
		}
		m = b.take()
		if len(m.messages) != maxMessages || len(m.states) != maxStates || len(m.conflicts) != maxConflicts {
			t.Errorf("held %d, %d, %d", len(m.messages), len(m.states), len(m.conflicts))
		}
		if string(m.messages[0]) != "hello" {
			t.Errorf("the message was not copied: %q", m.messages[0])
		}
		if b.drops() != 9 {
			t.Errorf("%d drops were counted, want 9", b.drops())
		}
		if m := b.take(); len(m.messages)+len(m.events)+len(m.states)+len(m.conflicts) != 0 {
			t.Errorf("something was given twice: %+v", m)
		}
	})
}

func TestLogsAreSifted(t *testing.T) {
	core, seen := observer.New(zap.DebugLevel)
	clock := at(0)
	l := newLogs(zap.New(core), func() schema.Instant { return clock })
	for i := range 100 {
		l.pass(fmt.Sprintf("[ERR] memberlist: Push/pull broke with 10.0.0.%d\n", i))
	}
	l.pass("[INFO] memberlist: Suspect a has failed, no acks received\n")
	l.pass("[WARN] memberlist: Refuting a suspect message (from: b)\n")
	for range 5 {
		l.pass("[ERR] memberlist: discarding packet with unacceptable label \"howdah/other\": from=1.2.3.4:5\n")
	}
	warns := seen.FilterLevelExact(zap.WarnLevel).All()
	if len(warns) != 2 || !strings.Contains(warns[1].Message, "another cluster") || warns[1].ContextMap()["label"] != `"howdah/other"` {
		t.Fatalf("%+v", warns)
	}
	if l.foreign.Load() != 5 {
		t.Errorf("%d foreign", l.foreign.Load())
	}
	clock = clock.Add(logEvery)
	l.pass("[ERR] memberlist: Push/pull broke with 10.0.0.7\n")
	warns = seen.FilterLevelExact(zap.WarnLevel).All()
	if len(warns) != 3 || warns[2].ContextMap()["similar"] != int64(99) {
		t.Errorf("%+v", warns)
	}
	for range logQueue + 3 {
		fmt.Fprint(l, "x")
	}
	if l.dropped.Load() != 3 {
		t.Errorf("%d lines dropped", l.dropped.Load())
	}
}

func TestConfigRefused(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"name":                func(c *Config) { c.Name = strings.Repeat("n", 200) },
		"cluster":             func(c *Config) { c.Cluster = "" },
		"kind":                func(c *Config) { c.Kind = "spy" },
		"api address 600":     func(c *Config) { c.Addresses.API = strings.Repeat("a", 600) },
		"want host:port":      func(c *Config) { c.Bind = "localhost" },
		"from 0 to 65535":     func(c *Config) { c.Join = []string{"h:99999"} },
		"base64":              func(c *Config) { c.Keys = nil },
		"ProbeTimeout":        func(c *Config) { c.Timing.ProbeTimeout = time.Second },
		"cannot reach it":     func(c *Config) { c.Advertise = "0.0.0.0:0" },
		"must be given":       func(c *Config) { c.Bind = "[::]:0" },
		"no-such.invalid":     func(c *Config) { c.Advertise = "no-such.invalid:1" },
		"cannot listen on 19": func(c *Config) { c.Bind = "192.0.2.1:0" },
	} {
		c := config("a")
		change(&c)
		d, err := Start(c, now, zap.NewNop())
		if err == nil {
			stop(t, d)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	a := start(t, config("a"))
	c := config("b")
	c.Bind = a.Addr()
	if _, err := Start(c, now, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("port in use: %v", err)
	}
	c.Bind, c.Advertise = "localhost:0", "localhost:0"
	if b := start(t, c); !strings.HasPrefix(b.Addr(), "127.0.0.1:") || strings.HasSuffix(b.Addr(), ":0") {
		t.Errorf("advertises %s", b.Addr())
	}
}

func TestAnswersAreGivenOnce(t *testing.T) {
	p := newPromises()
	q := question{"a", 1, 2}
	if _, s := p.begin(q, at(0)); s != questionNew {
		t.Fatal(s)
	}
	if _, s := p.begin(q, at(1)); s != questionBusy {
		t.Fatal(s)
	}
	p.finish(q, schema.PromiseReply{Given: true}, at(2))
	if r, s := p.begin(q, at(3)); s != questionOld || !r.Given {
		t.Fatal(s, r)
	}
	for i := range maxHandlers {
		p.begin(question{"a", 1, uint64(100 + i)}, at(4))
	}
	if _, s := p.begin(question{"a", 1, 999}, at(5)); s != questionFull {
		t.Fatal(s)
	}
	for i := range maxHandlers {
		p.finish(question{"a", 1, uint64(100 + i)}, schema.PromiseReply{}, at(6))
	}
	for i := range 10 * answersKept {
		q := question{"b", 1, uint64(i)}
		p.begin(q, at(10+i))
		p.finish(q, schema.PromiseReply{}, at(10+i))
	}
	if len(p.given) > answersKept+1 {
		t.Errorf("%d answers are kept", len(p.given))
	}
}
