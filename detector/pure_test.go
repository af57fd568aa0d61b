package detector

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func TestParseKeys(t *testing.T) {
	one, two := base64.StdEncoding.EncodeToString(key(1)), base64.StdEncoding.EncodeToString(key(2))
	keys, err := ParseKeys([]byte("# the new one\n" + one + "\r\n\n  " + two + "\n"))
	if err != nil || !cmp.Equal(keys, [][]byte{key(1), key(2)}) {
		t.Fatalf("%v, %v", keys, err)
	}
	short := base64.StdEncoding.EncodeToString(key(9)[:16])
	for text, want := range map[string]string{
		"":                 "there is none",
		"# nothing\n":      "head -c 32 /dev/urandom | base64",
		"!!secret!!":       "line 1 is not base64",
		one + "\n" + short: "line 2 holds 16 bytes, want 32",
		one + "\n" + one:   "twice",
	} {
		_, err := ParseKeys([]byte(text))
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), short)) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
	path := filepath.Join(t.TempDir(), "gossip.key")
	if _, err := ReadKeyFile(path); err == nil || !strings.Contains(err.Error(), "/dev/urandom") {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte(one+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeyFile(path); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
}

// Readers go over the ring as memberlist does, which the race detector watches.
func TestRotateKeepsReadersWhole(t *testing.T) {
	ring, err := memberlist.NewKeyring(nil, key(1))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, k := range ring.GetKeys() {
					if len(k) != KeyBytes {
						panic("torn key")
					}
				}
			}
		})
	}
	sets := [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}, {key(3), key(2), key(4)}, {key(4)}, {key(1)}}
	for range 20 {
		for _, want := range sets {
			if err := rotate(ring, want); err != nil {
				t.Fatal(err)
			}
			if got := ring.GetKeys(); !cmp.Equal(got, want) {
				t.Fatalf("ring holds %v, want %v", got, want)
			}
		}
	}
	close(done)
	wg.Wait()
	if err := rotate(ring, nil); !errors.Is(err, ErrKey) {
		t.Errorf("no key: %v", err)
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

// at returns an instant so many milliseconds from some beginning.
func at(ms int) schema.Instant {
	return schema.Instant(time.Hour).Add(time.Duration(ms) * time.Millisecond)
}

func word(name string, generation, number uint64) held {
	return held{Generation: generation, Number: number, Status: schema.Status{Name: name, Cluster: "test", Seq: number, Instance: fmt.Sprint(generation)}}
}

func nodeWith(t *testing.T, name string, m meta) memberlist.Node {
	t.Helper()
	m.Kind, m.Cluster = KindMember, "test"
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return memberlist.Node{Name: name, Addr: []byte{127, 0, 0, 1}, Port: 1, Meta: b}
}

func TestOrderOfStatuses(t *testing.T) {
	tb := newTable("self", "test", LAN())
	shown := func() string {
		s := tb.snapshot()[0].Status
		return fmt.Sprintf("%s/%d", s.Instance, s.Seq)
	}
	for i, c := range []struct {
		h        held
		direct   bool
		at       int
		taken    bool
		conflict bool
		shown    string
	}{
		{word("a", 10, 5), true, 0, true, false, "10/5"},
		{word("a", 10, 4), true, 10, false, false, "10/5"},
		{word("a", 10, 5), true, 20, false, false, "10/5"},
		{word("a", 10, 6), false, 30, true, false, "10/6"},
		{word("a", 12, 1), false, 40, true, false, "12/1"},
		{word("a", 10, 7), true, 50, false, false, "12/1"},
		{word("a", 10, 999), false, 60, false, false, "12/1"},
		{word("a", 12, 2), true, 70, true, false, "12/2"},
		{word("a", 10, 1000), true, 1900, false, false, "12/2"},
		{word("a", 10, 1001), true, 2100, false, true, "12/2"},
	} {
		var taken, conflict bool
		if c.direct {
			taken, conflict = tb.direct(c.h, at(c.at))
		} else {
			taken = tb.relayed(c.h, at(c.at))
		}
		if taken != c.taken || conflict != c.conflict || shown() != c.shown {
			t.Errorf("step %d: taken %t, conflict %t, shows %s; want %+v", i, taken, conflict, shown(), c)
		}
	}
}

func TestAgeOfStatuses(t *testing.T) {
	tb := newTable("self", "test", LAN())
	h := word("a", 1, 1)
	h.Age = schema.Duration(700 * time.Millisecond)
	tb.relayed(h, at(0))
	if p := tb.snapshot()[0]; p.HeardAt != at(-700) || p.Liveness != schema.LivenessUnknown {
		t.Errorf("relayed: %+v", p)
	}
	if out := tb.statuses(at(300)); out[0].Age.D() != time.Second {
		t.Errorf("passed on with age %s", out[0].Age)
	}
	// The same word once more makes it no younger.
	tb.direct(word("a", 1, 1), at(500))
	if p := tb.snapshot()[0]; p.HeardAt != at(-700) {
		t.Errorf("heard at %d", p.HeardAt)
	}
	h = word("b", 1, 1)
	h.Age = schema.Duration(LAN().ForgetAfter + 1)
	if tb.relayed(h, at(0)) || len(tb.peers) != 1 {
		t.Error("what was forgotten came back")
	}
}

func TestMetaStandsInForAStatus(t *testing.T) {
	tb := newTable("self", "test", LAN())
	m := meta{Role: schema.RolePrimary, Epoch: 4, Generation: 7, Addresses: schema.Addresses{Postgres: "h:1"}}
	event := func(m meta, ms int) {
		t.Helper()
		if err := tb.event(nodeEvent{node: nodeWith(t, "a", m)}, at(ms)); err != nil {
			t.Fatal(err)
		}
	}
	event(m, 0)
	p := tb.snapshot()[0]
	if p.Status.Role != schema.RolePrimary || p.Status.Epoch != 4 || p.Status.State != schema.StateUnknown || p.HeardAt != at(0) || p.Liveness != schema.LivenessAlive {
		t.Errorf("%+v", p)
	}
	if len(tb.statuses(at(1))) != 0 {
		t.Error("metadata was passed on as a status")
	}
	tb.direct(word("a", 7, 1), at(10))
	m.Epoch = 5
	event(m, 20)
	if p := tb.snapshot()[0]; p.Status.Seq != 1 || p.Status.Epoch != 0 {
		t.Errorf("metadata replaced a status: %+v", p.Status)
	}
	m.Generation = 8
	event(m, 30)
	if p := tb.snapshot()[0]; p.Status.Epoch != 5 || p.Status.Seq != 0 {
		t.Errorf("metadata of a newer process did not: %+v", p.Status)
	}
	if err := tb.event(nodeEvent{node: memberlist.Node{Name: "x", Meta: []byte{0}}}, at(40)); !errors.Is(err, errMeta) {
		t.Errorf("%v", err)
	}
}

func TestLivenessInTheTable(t *testing.T) {
	tm := LAN()
	tb := newTable("self", "test", tm)
	n := nodeWith(t, "a", meta{Generation: 1})
	is := func(want schema.Liveness, ms int) {
		t.Helper()
		tb.wake(at(ms))
		tb.tick(at(ms))
		if got := tb.snapshot()[0].Liveness; got != want {
			t.Errorf("at %d: %s, want %s", ms, got, want)
		}
	}
	steps := func(from, to int) {
		for ms := from; ms <= to; ms += 100 {
			tb.wake(at(ms))
		}
	}
	tb.wake(at(0))
	tb.event(nodeEvent{node: n}, at(0))
	is(schema.LivenessAlive, 400)
	steps(400, 600)
	is(schema.LivenessSuspect, 600)
	tb.direct(word("a", 1, 1), at(700))
	is(schema.LivenessAlive, 700)

	// This process sleeps: the others' silence, and a death found on waking, are not believed at once.
	tb.wake(at(5000))
	tb.event(nodeEvent{node: n, gone: true}, at(5000))
	is(schema.LivenessSuspect, 5000)
	steps(5000, 5800)
	is(schema.LivenessSuspect, 5800)
	steps(5800, 6000)
	is(schema.LivenessDead, 6000)
	if len(tb.targets()) != 0 {
		t.Error("a dead node is a target")
	}

	tb.event(nodeEvent{node: n}, at(6100))
	is(schema.LivenessAlive, 6100)
	tb.event(nodeEvent{node: nodeWith(t, "a", meta{Generation: 1, Leaving: true}), gone: true}, at(6200))
	is(schema.LivenessLeft, 6200)

	var path []string
	for _, tr := range tb.takeTransitions() {
		path = append(path, string(tr.to))
	}
	if diff := cmp.Diff([]string{"alive", "suspect", "alive", "suspect", "dead", "alive", "left"}, path); diff != "" {
		t.Error(diff)
	}
	tb.tick(at(6201).Add(tm.ForgetAfter))
	if len(tb.snapshot()) != 0 {
		t.Error("it was not forgotten")
	}
}

func TestConflictsNeedRepetition(t *testing.T) {
	c := newConflicts(LAN())
	if c.note("a", false, at(0)) || c.note("a", false, at(500)) || len(c.names(at(600))) != 0 {
		t.Error("a restart on another address was called a conflict")
	}
	if !c.note("a", false, at(2500)) || c.note("a", false, at(2600)) {
		t.Error("a conflict must become certain once")
	}
	if !c.note("b", true, at(2600)) || !cmp.Equal(c.names(at(2700)), []string{"a", "b"}) {
		t.Errorf("%v", c.names(at(2700)))
	}
	if names := c.names(at(2700).Add(3 * LAN().PushPullInterval)); len(names) != 0 {
		t.Errorf("%v did not end", names)
	}
	if c.note("a", false, at(60000)) {
		t.Error("an old sign counted")
	}
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
