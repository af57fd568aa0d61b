package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	rt "howdah/router/routertest"
	"howdah/router/session"
	"howdah/router/wire"
)

// wireOf runs one direction of a session as a driver does: it shows what has come, carries out the
// order, and reads on when told to.
type wireOf struct {
	step func([]byte) session.Order
	held []byte
	out  []byte
	err  *wire.Error
	most int // the most bytes that had to be held
}

func (w *wireOf) feed(b []byte) {
	w.held = append(w.held, b...)
	for len(w.held) > 0 && w.err == nil {
		o := w.step(w.held)
		switch o.Verb {
		case session.Forward:
			w.out = append(w.out, w.held[:o.N]...)
			w.held = w.held[o.N:]
		case session.Skip:
			w.out = append(w.out, o.Insert...)
			w.held = w.held[o.N:]
		case session.Fetch:
			if o.N <= len(w.held) {
				panic(fmt.Sprintf("asked for %d bytes with %d there", o.N, len(w.held)))
			}
			w.most = max(w.most, o.N)
			return
		case session.Refuse:
			w.err = o.Err
		default:
			panic("no verb")
		}
	}
}

type both struct {
	*session.Session
	client, server wireOf
	keys           []wire.Key
	authenticated  int
	against        *wire.Error // what the hook says of the client
	errors         []string
	noKey          error
}

func newBoth() *both {
	b := &both{}
	b.Session = session.New(hooks{b})
	b.client.step, b.server.step = b.FromClient, b.FromServer
	return b
}

type hooks struct{ b *both }

func (h hooks) Key(k wire.Key) (wire.Key, error) {
	h.b.keys = append(h.b.keys, k)
	return wire.Key(strings.Repeat("x", len(k))), h.b.noKey
}

func (h hooks) Notices() []byte { return nil }

func (h hooks) Authenticated() *wire.Error {
	h.b.authenticated++
	return h.b.against
}

func (h hooks) Error(code string, _ bool) { h.b.errors = append(h.b.errors, code) }

// ready returns a session that has been logged in.
func ready() *both {
	b := newBoth()
	b.server.feed(slices.Concat(rt.AuthOK, rt.Ready('I')))
	return b
}

func join(m ...[]byte) []byte { return bytes.Join(m, nil) }

// A client that the hook is against never hears that the server has accepted it.
func TestLoginThatTheHookIsAgainst(t *testing.T) {
	b := newBoth()
	b.against = wire.Fatal(wire.CodeTooManyConnections, "too many")
	notice := rt.Notice("x")
	answer := join(notice, rt.AuthOK, rt.ParameterStatus("a", "b"))
	if o := b.FromServer(answer); o.Verb != session.Forward || o.N != len(notice) || b.authenticated != 0 {
		t.Fatalf("the notice: %+v, asked %d times", o, b.authenticated)
	}
	if o := b.FromServer(answer[len(notice):]); o.Verb != session.Refuse || o.Err != b.against || b.authenticated != 1 || b.Authenticated() || b.MidMessage() {
		t.Fatalf("%+v, asked %d times, accepted %v", o, b.authenticated, b.Authenticated())
	}
}

func TestLogin(t *testing.T) {
	b := newBoth()
	ask := rt.Message('R', rt.Int32(10), rt.Text("SCRAM-SHA-256", ""))
	b.server.feed(ask)
	if b.Authenticated() || b.Ready() {
		t.Fatal("too early")
	}
	first := rt.Message('p', rt.Text("SCRAM-SHA-256"), rt.Int32(3), []byte("n,,"))
	b.client.feed(first)
	b.server.feed(join(rt.Message('R', rt.Int32(11), []byte("r=")), rt.Message('R', rt.Int32(12), []byte("v=")), rt.AuthOK))
	if !b.Authenticated() || b.Ready() || b.authenticated != 1 {
		t.Fatal("not authenticated")
	}
	b.server.feed(join(rt.ParameterStatus("a", "b"), rt.KeyData(1, "abcd")))
	if len(b.keys) != 1 || b.keys[0] != wire.Key("\x00\x00\x00\x01abcd") {
		t.Fatalf("keys %q", b.keys)
	}
	if !bytes.HasSuffix(b.server.out, rt.Message('K', []byte("xxxxxxxx"))) {
		t.Fatalf("client gets %q", b.server.out)
	}
	b.server.feed(rt.Ready('I'))
	if !b.Ready() || !b.Idle() || b.Status() != 'I' {
		t.Fatal("not ready")
	}
	if !bytes.Equal(b.client.out, first) {
		t.Fatalf("server gets %q", b.client.out)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		before func() *both
		client []byte
		server []byte
	}{
		"password when logged in":    {before: ready, client: rt.Message('p', []byte("x"))},
		"huge password":              {before: newBoth, client: []byte{'p', 0, 2, 0, 0}},
		"unknown type":               {before: ready, client: []byte{'?', 0, 0, 0, 4}},
		"after a good message":       {before: ready, client: join(rt.Query("x"), []byte{'?', 0, 0, 0, 4})},
		"server length":              {before: ready, server: []byte{'D', 0, 0, 0, 3}},
		"server ready of two bytes":  {before: ready, server: rt.Message('Z', []byte("II"))},
		"server ready of none":       {before: ready, server: rt.Message('Z')},
		"server key too long":        {before: newBoth, server: []byte{'K', 0, 0, 2, 0}},
		"server key too short":       {before: newBoth, server: rt.Message('K', []byte("1234567"))},
		"server auth without a code": {before: newBoth, server: rt.Message('R', []byte("123"))},
	} {
		b := c.before()
		b.client.feed(c.client)
		b.server.feed(c.server)
		if b.client.err == nil && b.server.err == nil {
			t.Errorf("%s: not refused", name)
		}
		if name == "after a good message" && !bytes.Equal(b.client.out, rt.Query("x")) {
			t.Errorf("%s: forwarded %q", name, b.client.out)
		}
	}
	b := newBoth()
	b.noKey = errors.New("no")
	if o := b.FromServer(rt.KeyData(1, "abcd")); o.Verb != session.Refuse {
		t.Errorf("a key that cannot be made: %+v", o)
	}
}

// script is a conversation: what each side sends in turn. It contains every kind of message.
type turn struct {
	fromServer bool
	bytes      []byte
}

func conversation() []turn {
	client := func(m ...[]byte) turn { return turn{false, join(m...)} }
	server := func(m ...[]byte) turn { return turn{true, join(m...)} }
	return []turn{
		server(rt.Message('v', rt.Int32(3<<16), rt.Int32(0)), rt.Message('R', rt.Int32(5), []byte("salt"))),
		client(rt.Message('p', rt.Text("md5"))),
		server(rt.AuthOK, rt.ParameterStatus("server_version", "15"), rt.KeyData(1, "abcdefgh"), rt.Notice("hi"), rt.Ready('I')),
		client(rt.Query("SELECT 1")),
		server(rt.RowDescription("a"), rt.Row("1"), rt.Row(strings.Repeat("x", 3000)), rt.Complete("SELECT 2"), rt.Ready('I')),
		client(rt.Query("BEGIN"), rt.Query("INSERT INTO t VALUES ('"+strings.Repeat("y", 2000)+"')"), rt.Query("COMMIT")),
		server(rt.Complete("BEGIN"), rt.Ready('T'), rt.Complete("INSERT 0 1"), rt.Ready('T'), rt.Complete("COMMIT"), rt.Ready('I')),
		client(rt.Parse("s", "SELECT"), rt.Bind("", "s"), rt.Describe(""), rt.Execute(""), rt.Message('C', []byte{'S'}, rt.Text("s")), rt.Flush),
		server(rt.ParseComplete, rt.BindComplete, rt.NoData, rt.Empty, rt.CloseComplete),
		client(rt.Execute(""), rt.Sync, rt.Execute(""), rt.Sync),
		server(rt.Row("1"), rt.Suspended, rt.Ready('I'), rt.Error("42P01", "no"), rt.Ready('I')),
		client(rt.Query("COPY t FROM STDIN")),
		server(rt.CopyIn),
		client(rt.CopyData([]byte("a\n")), rt.Flush, rt.Sync, rt.CopyData(bytes.Repeat([]byte("z"), 5000)), rt.CopyDone),
		server(rt.Complete("COPY 1"), rt.Ready('I'), rt.Notification(4, "c", "p")),
		client(rt.Query("COPY t TO STDOUT")),
		server(rt.CopyOut, rt.CopyData([]byte("a\n")), rt.CopyDone, rt.Complete("COPY 1"), rt.Ready('I')),
		client(rt.Message('F', rt.Int32(1), rt.Int16(0), rt.Int16(0), rt.Int16(0))),
		server(rt.Message('V', rt.Int32(0xffffffff)), rt.Ready('I')),
		client(rt.Query("START_REPLICATION")),
		server(rt.CopyBoth, rt.CopyData([]byte("w"))),
		client(rt.CopyData([]byte("r"))),
		server(rt.CopyDone),
		client(rt.CopyDone),
		server(rt.Complete("START_STREAMING"), rt.Ready('I')),
		client(rt.Terminate),
	}
}

// expected is what the other side must receive: every byte as it was, but for the cancel key.
func expected(ts []turn, fromServer bool) []byte {
	var b []byte
	for _, t := range ts {
		if t.fromServer == fromServer {
			b = append(b, t.bytes...)
		}
	}
	return bytes.Replace(b, rt.KeyData(1, "abcdefgh"), rt.Message('K', []byte("xxxxxxxxxxxx")), 1)
}

func play(ts []turn, cut func([]byte) [][]byte) *both {
	b := newBoth()
	for _, t := range ts {
		w := &b.client
		if t.fromServer {
			w = &b.server
		}
		for _, part := range cut(t.bytes) {
			w.feed(part)
		}
	}
	return b
}

func check(t *testing.T, b *both, ts []turn) {
	t.Helper()
	for _, side := range []struct {
		w          *wireOf
		fromServer bool
	}{{&b.client, false}, {&b.server, true}} {
		if side.w.err != nil {
			t.Fatalf("refused: %v", side.w.err)
		}
		if want := expected(ts, side.fromServer); !bytes.Equal(side.w.out, want) {
			t.Fatalf("forwarded %d bytes, want %d", len(side.w.out), len(want))
		}
		if side.w.most > session.MaxFetch {
			t.Fatalf("had to hold %d bytes", side.w.most)
		}
	}
	if !b.Idle() || b.MidMessage() || !b.Terminated() || b.Fatal() {
		t.Fatalf("in the end: idle %v, in a message %v, terminated %v, fatal %v", b.Idle(), b.MidMessage(), b.Terminated(), b.Fatal())
	}
	if !slices.Equal(b.errors, []string{"42P01"}) {
		t.Fatalf("errors %v", b.errors)
	}
}

func TestEveryByteArrives(t *testing.T) {
	ts := conversation()
	check(t, play(ts, func(b []byte) [][]byte { return [][]byte{b} }), ts)
	for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 11, 64, 1000} {
		check(t, play(ts, func(b []byte) [][]byte { return slices.Collect(slices.Chunk(b, size)) }), ts)
	}
}

// Every place where a stream can be cut in two.
func TestEverySplit(t *testing.T) {
	ts := conversation()
	for i, turn := range ts {
		for at := range len(turn.bytes) {
			n := -1
			check(t, play(ts, func(b []byte) [][]byte {
				if n++; n == i {
					return [][]byte{b[:at], b[at:]}
				}
				return [][]byte{b}
			}), ts)
		}
	}
}

func TestMidMessage(t *testing.T) {
	b := ready()
	b.client.feed(rt.Query("SELECT"))
	row := rt.Row("value")
	for i := range row {
		b.server.feed(row[i : i+1])
		// The first four bytes of a header are held back, so nothing has begun yet.
		if want := i >= 4 && i < len(row)-1; b.MidMessage() != want {
			t.Fatalf("after %d bytes: %v, want %v", i+1, b.MidMessage(), want)
		}
	}
}

func TestAHugeRowIsNotHeld(t *testing.T) {
	b := ready()
	b.client.feed(rt.Query("SELECT"))
	const size = 1 << 30
	head := append([]byte{'D'}, rt.Int32(size-1)...)
	b.server.feed(head)
	piece := make([]byte, 1<<20)
	for left := size - len(head); left > 0; left -= min(left, len(piece)) {
		if o := b.FromServer(piece[:min(left, len(piece))]); o.Verb != session.Forward || o.N != min(left, len(piece)) {
			t.Fatalf("order %+v with %d left", o, left)
		}
	}
	if b.MidMessage() {
		t.Fatal("the row has not ended")
	}
	b.server.feed(join(rt.Complete("SELECT 1"), rt.Ready('I')))
	if !b.Idle() {
		t.Fatal("not idle")
	}
}

func TestQueue(t *testing.T) {
	many := func(n int, m ...[]byte) []byte { return bytes.Repeat(join(m...), n) }
	batch := join(rt.Parse("", "INSERT"), rt.Bind("", ""), rt.Execute(""))
	for name, c := range map[string]struct {
		turns []turn
		busy  bool
	}{
		"pipelined queries": {[]turn{
			{false, many(100, rt.Query("SELECT"))},
			{true, many(99, rt.Complete("SELECT 0"), rt.Ready('I'))}}, true},
		"and all answered": {[]turn{
			{false, many(5000, rt.Query("SELECT"))},
			{true, many(5000, rt.Complete("SELECT 0"), rt.Ready('I'))}}, false},
		"an error skips to Sync": {[]turn{
			{false, join(batch, batch, rt.Sync, rt.Query("SELECT"))},
			{true, join(rt.Error("42601", "no"), rt.Ready('I'))}}, true},
		"an error skips a Query before Sync": {[]turn{
			{false, join(batch, rt.Query("SELECT"), rt.Sync)},
			{true, join(rt.Error("42601", "no"), rt.Ready('I'))}}, false},
		"an error before Sync was sent": {[]turn{
			{false, join(batch, rt.Flush)},
			{true, rt.Error("42601", "no")},
			{false, join(batch, rt.Query("SELECT"))},
			{false, rt.Sync},
			{true, rt.Ready('I')}}, false},
		"a Query in the middle of a batch": {[]turn{
			{false, join(batch, rt.Query("SELECT"), batch, rt.Sync)},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Complete("SELECT 1"), rt.Ready('I'))},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Ready('I'))}}, false},
		"an error in that Query does not skip": {[]turn{
			{false, join(batch, rt.Query("SELECT"), batch, rt.Sync)},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"), rt.Error("42601", "no"), rt.Ready('I'))}}, true},
		"copy whose Sync was sent ahead (libpq)": {[]turn{
			{false, join(batch, rt.Sync)},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.CopyIn)},
			{false, join(rt.CopyData([]byte("x")), rt.CopyDone, rt.Sync)},
			{true, join(rt.Complete("COPY 1"), rt.Ready('I'))}}, false},
		"copy sent whole without waiting": {[]turn{
			{false, join(batch, rt.Sync, rt.CopyData([]byte("x")), rt.CopyDone, rt.Sync, rt.Query("SELECT"))},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.CopyIn, rt.Complete("COPY 1"), rt.Ready('I'))}}, true},
		"copy that the server breaks off": {[]turn{
			{false, join(batch, rt.Sync)},
			{true, join(rt.ParseComplete, rt.BindComplete, rt.CopyIn)},
			{false, rt.CopyData([]byte("x"))},
			{true, rt.Error("22P02", "bad")},
			{false, join(rt.CopyData([]byte("x")), rt.CopyDone, rt.Sync)},
			{true, rt.Ready('I')}}, false},
		"copy of a Query broken off": {[]turn{
			{false, rt.Query("COPY")},
			{true, rt.CopyIn},
			{false, rt.CopyData([]byte("x"))},
			{true, join(rt.Error("22P02", "bad"), rt.Ready('I'))},
			{false, rt.CopyDone}}, false},
		"copy that the client breaks off": {[]turn{
			{false, rt.Query("COPY")},
			{true, rt.CopyIn},
			{false, rt.CopyFail("enough")},
			{true, join(rt.Error("57014", "enough"), rt.Ready('I'))}}, false},
		"notices answer nothing": {[]turn{
			{false, rt.Query("SELECT")},
			{true, join(rt.Notice("a"), rt.Notification(1, "a", "b"), rt.ParameterStatus("a", "b"))}}, true},
	} {
		b := ready()
		for _, turn := range c.turns {
			w := &b.client
			if turn.fromServer {
				w = &b.server
			}
			w.feed(turn.bytes)
		}
		if b.Busy() != c.busy {
			t.Errorf("%s: busy %v", name, b.Busy())
		}
	}
}

func TestOutcomeUnknown(t *testing.T) {
	begin := []turn{{false, rt.Query("BEGIN")}, {true, join(rt.Complete("BEGIN"), rt.Ready('T'))}}
	failed := []turn{{false, rt.Query("x")}, {true, join(rt.Error("42601", "no"), rt.Ready('E'))}}
	one := func(m ...[]byte) []turn { return []turn{{false, join(m...)}} }
	ext := func(sql string) []byte { return join(rt.Parse("", sql), rt.Bind("", ""), rt.Execute("")) }
	long := strings.Repeat("x", 1000)
	for name, c := range map[string]struct {
		turns   []turn
		unknown bool
	}{
		"nothing asked":                     {nil, false},
		"in a transaction":                  {begin, false},
		"autocommit":                        {one(rt.Query("UPDATE t SET a = 1")), true},
		"autocommit read may still write":   {one(rt.Query("SELECT f()")), true},
		"SHOW":                              {one(rt.Query(" show all;")), false},
		"BEGIN":                             {one(rt.Query("BEGIN ISOLATION LEVEL SERIALIZABLE;")), false},
		"start transaction":                 {one(rt.Query("start transaction")), false},
		"statement in a transaction":        {append(begin, one(rt.Query("UPDATE t SET a = 1"))...), false},
		"COMMIT":                            {append(begin, one(rt.Query("COMMIT"))...), true},
		"end":                               {append(begin, one(rt.Query(" \n end ; "))...), true},
		"PREPARE TRANSACTION":               {append(begin, one(rt.Query("PREPARE TRANSACTION 'x'"))...), true},
		"COMMIT after a comment":            {append(begin, one(rt.Query("/* x */ COMMIT"))...), true},
		"COMMIT among others":               {append(begin, one(rt.Query("SELECT 1; COMMIT"))...), true},
		"COMMIT at the end of a long text":  {append(begin, one(rt.Query("SELECT '"+long+"'; COMMIT"))...), true},
		"long text, may hide one":           {append(begin, one(rt.Query("SELECT '"+long+"'"))...), true},
		"ROLLBACK":                          {append(begin, one(rt.Query("ROLLBACK"))...), false},
		"COMMIT of a failed transaction":    {append(failed, one(rt.Query("COMMIT"))...), false},
		"BEGIN and INSERT pipelined":        {one(rt.Query("BEGIN"), rt.Query("INSERT")), true}, /* BEGIN may fail */
		"BEGIN, INSERT, COMMIT pipelined":   {one(rt.Query("BEGIN"), rt.Query("INSERT"), rt.Query("COMMIT")), true},
		"ROLLBACK and INSERT pipelined":     {append(begin, one(rt.Query("ROLLBACK"), rt.Query("INSERT"))...), true},
		"batch without Sync":                {one(ext("INSERT")), false},
		"batch with Sync":                   {one(ext("INSERT"), rt.Sync), true},
		"batch that only parses":            {one(rt.Parse("", "INSERT"), rt.Describe(""), rt.Sync), false},
		"batch in a transaction":            {append(begin, one(ext("INSERT"), rt.Sync)...), false},
		"COMMIT by batch, not synced":       {append(begin, one(ext("COMMIT"))...), true},
		"batch: BEGIN, INSERT":              {one(ext("BEGIN"), ext("INSERT"), rt.Sync), true},
		"batch: BEGIN, INSERT, COMMIT":      {one(ext("BEGIN"), ext("INSERT"), ext("COMMIT"), rt.Sync), true},
		"batch without Sync, then a Query":  {one(ext("INSERT"), rt.Query("SHOW all")), true},
		"named portal":                      {append(begin, one(rt.Parse("", "INSERT"), rt.Bind("p", ""), rt.Execute("p"))...), true},
		"function call":                     {one(rt.Message('F', rt.Int32(1))), true},
		"function call in a transaction":    {append(begin, one(rt.Message('F', rt.Int32(1)))...), false},
		"copy in progress":                  {append(one(rt.Query("COPY t FROM STDIN")), turn{true, rt.CopyIn}, turn{false, rt.CopyData([]byte("x"))}), false},
		"copy ended":                        {append(one(rt.Query("COPY t FROM STDIN")), turn{true, rt.CopyIn}, turn{false, rt.CopyDone}), true},
		"replication":                       {append(one(rt.Query("START_REPLICATION")), turn{true, rt.CopyBoth}), false},
		"executed, its Sync not answered":   {append(one(ext("INSERT"), rt.Sync), turn{true, join(rt.ParseComplete, rt.BindComplete, rt.Complete("INSERT 0 1"))}), true},
		"answered":                          {append(one(rt.Query("INSERT")), turn{true, join(rt.Complete("INSERT 0 1"), rt.Ready('I'))}), false},
		"prepared COMMIT, bound later":      {append(begin, one(rt.Parse("c", "COMMIT"), rt.Sync, rt.Bind("", "c"), rt.Execute(""), rt.Sync)...), true},
		"prepared INSERT, bound later":      {append(begin, one(rt.Parse("c", "COMMIT"), rt.Parse("i", "INSERT"), rt.Sync, rt.Bind("", "i"), rt.Execute(""), rt.Sync)...), false},
		"a name used again":                 {append(begin, one(rt.Parse("c", "COMMIT"), rt.Parse("c", "INSERT"), rt.Bind("", "c"), rt.Execute(""), rt.Sync)...), true},
		"SET, executed without transaction": {one(ext("SET a = 1"), rt.Sync), false},
	} {
		b := ready()
		for _, turn := range c.turns {
			w := &b.client
			if turn.fromServer {
				w = &b.server
			}
			w.feed(turn.bytes)
		}
		if got := b.OutcomeUnknown(); got != c.unknown {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFatalIsNoticed(t *testing.T) {
	b := ready()
	b.server.feed(rt.Error("42601", "no"))
	if b.Fatal() {
		t.Fatal("an error is not fatal")
	}
	b.server.feed(rt.Fatal("57P01", "bye"))
	if !b.Fatal() || !slices.Equal(b.errors, []string{"42601", "57P01"}) {
		t.Fatalf("fatal %v, errors %v", b.Fatal(), b.errors)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := ready()
	s := b.Session
	query := join(rt.Parse("s", "SELECT"), rt.Bind("", "s"), rt.Describe(""), rt.Execute(""), rt.Sync, rt.Query("SELECT 1"))
	reply := join(rt.ParseComplete, rt.BindComplete, rt.RowDescription("a"), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'),
		rt.RowDescription("a"), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I'))
	if n := testing.AllocsPerRun(1000, func() {
		if o := s.FromClient(query); o.N != len(query) {
			t.Fatal(o)
		}
		if o := s.FromServer(reply); o.N != len(reply) {
			t.Fatal(o)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each exchange", n)
	}
	if s.Busy() {
		t.Error("busy")
	}
}

func FuzzStreams(f *testing.F) {
	var client, server []byte
	for _, t := range conversation() {
		if t.fromServer {
			server = append(server, t.bytes...)
		} else {
			client = append(client, t.bytes...)
		}
	}
	f.Add(client, server, uint8(3))
	f.Add([]byte{'Q', 0, 0, 0, 4}, rt.KeyData(1, "abcd"), uint8(1))
	f.Fuzz(func(t *testing.T, client, server []byte, size uint8) {
		n := int(size)%64 + 1
		whole, cut := newBoth(), newBoth()
		whole.client.feed(client)
		whole.server.feed(server)
		for c := range slices.Chunk(client, n) {
			cut.client.feed(c)
		}
		for c := range slices.Chunk(server, n) {
			cut.server.feed(c)
		}
		for _, w := range []*both{whole, cut} {
			if !bytes.HasPrefix(client, w.client.out) {
				t.Fatal("the client's bytes were changed")
			}
			w.OutcomeUnknown()
		}
		if !bytes.Equal(whole.client.out, cut.client.out) || !bytes.Equal(whole.server.out, cut.server.out) {
			t.Fatal("what is forwarded depends on how the stream was cut")
		}
		if (whole.client.err == nil) != (cut.client.err == nil) || (whole.server.err == nil) != (cut.server.err == nil) {
			t.Fatal("what is refused depends on how the stream was cut")
		}
	})
}
