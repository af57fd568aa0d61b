package split

import (
	"strings"
	"testing"

	"howdah/router/route"
	"howdah/router/route/statement"
	rt "howdah/router/routertest"
)

func functions() []statement.Function {
	var all []statement.Function
	for name, v := range map[string]byte{"now": 's', "lower": 'i', "nextval": 'v', "set_config": 'v', "random": 'v', "query_to_xml": 'v'} {
		all = append(all, statement.Function{Schema: "pg_catalog", Name: name, Volatility: v})
	}
	return append(all, statement.Function{Schema: "public", Name: "mine", Volatility: 'v'}, statement.Function{Schema: "public", Name: "calm", Volatility: 's'})
}

func newTracker() *Tracker {
	t := New(4096, nil, route.Consistencies{})
	all := functions()
	t.UseFunctions(statement.NewFunctions(all), statement.NewKeeping(all), statement.NewParting(all))
	t.Parameter([]byte("standard_conforming_strings"), []byte("on"))
	t.Parameter([]byte("client_encoding"), []byte("UTF8"))
	return t
}

// send shows the tracker a batch of an idle session and says where it goes; the answer is a success.
func send(t *testing.T, tr *Tracker, b []byte) string {
	t.Helper()
	idle := true
	for len(b) > 0 {
		switch o := tr.FromClient(b[:min(len(b), tr.Longest)], idle); o.Verb {
		case Read:
			if o.N != len(b) {
				t.Fatalf("%d of %d bytes", o.N, len(b))
			}
			tr.Done('I', false)
			return "standby"
		case Pass:
			idle = false
			b = b[o.N:]
		case Inject:
			tr.Injection()
		case Replace:
			idle = false
			b = b[o.N:]
		default:
			t.Fatal("more?")
		}
	}
	return "primary"
}

func query(sql string) []byte { return rt.Query(sql) }

func extended(sql string) []byte {
	return []byte(strings.Join([]string{string(rt.Parse("", sql)), string(rt.Bind("", "")), string(rt.Execute("")), string(rt.Message('S'))}, ""))
}

func TestDiscardAllUnpins(t *testing.T) {
	for _, sql := range []string{"CREATE TEMP TABLE a (n int)", "SELECT set_config('a', 'b', false)", "BEGIN; SET a = 1; COMMIT", "SELECT mine()", "DO ''", "CALL p()"} {
		for name, batch := range map[string]func(string) []byte{"query": query, "extended": extended} {
			if name == "extended" && strings.Contains(sql, ";") {
				continue
			}
			tr := newTracker()
			if got := send(t, tr, batch("SELECT 1")); got != "standby" {
				t.Fatalf("%s at first", got)
			}
			send(t, tr, batch(sql))
			if got := send(t, tr, batch("SELECT 1")); got != "primary" || tr.Pinned() == Unpinned {
				t.Errorf("%s after %s: %s", got, sql, tr.Pinned())
			}
			send(t, tr, batch("DISCARD ALL"))
			if got := send(t, tr, batch("SELECT 1")); got != "standby" {
				t.Errorf("%s after DISCARD ALL, %s: %s", got, sql, tr.Pinned())
			}
		}
	}
}

// SQL's EXECUTE runs what the protocol has prepared, whatever that does.
func TestExecuteOfAStatementOfTheProtocol(t *testing.T) {
	for sql, want := range map[string]string{
		"SET a.b = 1": "primary", "SELECT set_config('a.b', 'c', false)": "primary", "CREATE TEMP TABLE a (n int)": "primary", "SELECT mine()": "primary", "DISCARD ALL": "primary",
		"SELECT 1": "standby", "INSERT INTO t VALUES (1)": "standby",
	} {
		tr := newTracker()
		send(t, tr, join(rt.Parse("a", sql), rt.Message('S')))
		if got := send(t, tr, query("SELECT 1")); got != "standby" {
			t.Errorf("%s after a mere Parse of %s", got, sql)
		}
		send(t, tr, query("EXECUTE a"))
		if got := send(t, tr, query("SELECT 1")); got != want {
			t.Errorf("%s after EXECUTE of %s, want %s", got, sql, want)
		}
	}
}

func join(m ...[]byte) []byte {
	var b []byte
	for _, one := range m {
		b = append(b, one...)
	}
	return b
}

// Where each batch of an idle session goes, one after the other; an answer that begins with ! is an error of the primary.
func TestWhereBatchesGo(t *testing.T) {
	sync := rt.Message('S')
	named := func(name, sql string) []byte {
		return join(rt.Parse(name, sql), rt.Message('D', []byte("S"+name+"\x00")), sync)
	}
	execute := func(name string) []byte { return join(rt.Bind("", name), rt.Execute(""), sync) }
	type step struct {
		batch []byte
		where string
	}
	p := func(b []byte) step { return step{b, "primary"} }
	s := func(b []byte) step { return step{b, "standby"} }
	for name, steps := range map[string][]step{
		"a write, then a read":                     {p(query("INSERT INTO t VALUES (1)")), s(query("SELECT 1"))},
		"a list of columns":                        {p(query("INSERT INTO t (n, s) VALUES (1, lower('x')) ON CONFLICT (n) DO UPDATE SET (n, s) = (1, 'x')")), s(query("SELECT 1"))},
		"a function named like a keyword":          {p(query("UPDATE t SET n = release(1)")), p(query("SELECT 1"))},
		"a table of what a function says":          {p(query("CREATE TABLE u AS SELECT mine()")), p(query("SELECT 1"))},
		"a table with functions":                   {p(query("CREATE TABLE u (n int DEFAULT mine())")), s(query("SELECT 1"))},
		"tables are temporary by search_path":      {p(query("SET search_path = pg_temp, public")), p(query("SELECT 1"))},
		"several statements, one writes":           {p(query("SELECT 1; INSERT INTO t VALUES (1)")), p(query("INSERT INTO t VALUES (1); SELECT 1")), s(query("SELECT 1; SELECT 2"))},
		"begin and end in one text":                {p(query("BEGIN; DELETE FROM t; END")), s(query("SELECT 1"))},
		"an INSERT and a SELECT before one Sync":   {p(join(rt.Parse("", "INSERT INTO t VALUES (1)"), rt.Bind("", ""), rt.Execute(""), rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Execute(""), sync))},
		"reads before one Sync":                    {s(join(rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Execute(""), rt.Parse("", "SELECT 2"), rt.Bind("", ""), rt.Execute(""), sync))},
		"a statement parsed long ago":              {p(named("a", "SELECT 1")), p(named("b", "INSERT INTO t VALUES (1)")), s(execute("a")), p(execute("b")), s(execute("a"))},
		"parsed in one Sync and bound in the next": {p(join(rt.Parse("", "SELECT 1"), rt.Message('D', []byte("S\x00")), sync)), s(execute(""))},
		"a Flush in the middle":                    {p(join(rt.Parse("", "SELECT 1"), rt.Message('H'), rt.Bind("", ""), rt.Execute(""), sync))},
		"a portal with a name":                     {p(join(rt.Parse("", "SELECT 1"), rt.Bind("c", ""), rt.Execute("c"), sync))},
		"a statement that does not parse":          {p(query("SELEC 1"))},
		"a name that was closed":                   {p(named("a", "SELECT 1")), s(execute("a")), p(join(rt.Message('C', []byte("Sa\x00")), sync)), p(execute("a")), p(query("SELECT 1"))},
		"a name that was given anew":               {p(named("a", "SELECT 1")), p(join(rt.Message('C', []byte("Sa\x00")), sync)), p(named("a", "DELETE FROM t")), p(execute("a"))},
		"a name of PREPARE":                        {p(query("PREPARE a AS SELECT 1")), p(execute("a")), p(query("SELECT 1"))},
		"names taken away":                         {p(named("a", "SELECT 1")), p(query("DEALLOCATE ALL")), p(execute("a"))},
		"set_config":                               {p(query("SELECT set_config('a', 'b', true)")), p(query("SELECT 1"))},
		"a sequence":                               {p(query("SELECT nextval('s')")), s(query("SELECT now()"))},
		"a function of the user's":                 {s(query("SELECT calm()")), p(query("SELECT mine()")), p(query("SELECT calm()"))},
		"a quoted function":                        {p(query(`SELECT "mine"()`)), p(query("SELECT 1"))},
		"with a schema":                            {p(query("SELECT public.mine()")), p(query("SELECT 1"))},
		"text run as a query":                      {p(query("SELECT query_to_xml('select 1', true, true, '')")), p(query("SELECT 1"))},
		"a temporary table":                        {p(query("SELECT 1 AS a INTO TEMP mine")), p(query("SELECT 1"))},
		"SET LOCAL":                                {p(query("SET LOCAL search_path = a")), s(query("SELECT 1"))},
		"standard_conforming_strings":              {p(query("SET standard_conforming_strings = off")), p(query("SELECT 1"))},
		"a function call":                          {p(rt.Message('F', []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0})), p(query("SELECT 1"))},
		"FOR UPDATE":                               {p(query("SELECT 1 FROM t FOR NO KEY UPDATE OF t SKIP LOCKED")), s(query("SELECT 1"))},
		"a cursor":                                 {p(query("DECLARE c CURSOR WITH HOLD FOR SELECT 1")), p(query("FETCH c")), s(query("SELECT 1"))},
		"COPY":                                     {s(query("COPY t TO STDOUT")), p(query("COPY (INSERT INTO t VALUES (1) RETURNING n) TO STDOUT")), p(query("COPY t FROM STDIN"))},
		"LISTEN":                                   {p(query("LISTEN a")), s(query("SELECT 1"))},
		"nothing":                                  {p(query("")), s(query("SELECT 1"))},
		"a big statement":                          {p(query("SELECT '" + strings.Repeat("x", 5000) + "'")), p(query("SELECT 1"))},
		"a hint":                                   {p(query("/* howdah: primary */ SELECT 1")), s(query("/* howdah: standby */ SELECT mine()"))},
	} {
		tr := newTracker()
		for i, one := range steps {
			if got := send(t, tr, one.batch); got != one.where {
				t.Errorf("%s, step %d: %s, want %s (pinned: %s)", name, i+1, got, one.where, tr.Pinned())
			}
		}
	}
}

func TestNotWhileTheSessionIsBusy(t *testing.T) {
	tr := newTracker()
	if o := tr.FromClient(query("SELECT 1"), false); o.Verb != Pass {
		t.Errorf("%+v in a transaction", o)
	}
	if o := tr.FromClient(query("SELECT 1")[:9], true); o.Verb != More {
		t.Errorf("%+v for a part of it", o)
	}
	both := join(query("SELECT 1"), query("INSERT INTO t VALUES (1)"))
	if o := tr.FromClient(both, true); o.Verb != Read || o.N != len(query("SELECT 1")) {
		t.Errorf("%+v with more behind it", o)
	}
	tr.Refuse()
	if o := tr.FromClient(both, true); o.Verb != Pass || o.N != len(query("SELECT 1")) {
		t.Errorf("%+v after a standby refused it", o)
	}
}

// An error of the primary: what was parsed may not be there, and a setting was not made.
func TestAfterAnError(t *testing.T) {
	tr := newTracker()
	execute := join(rt.Bind("", "a"), rt.Execute(""), rt.Message('S'))
	send(t, tr, join(rt.Parse("a", "SELECT 1"), rt.Message('S')))
	tr.ServerError()
	if got := send(t, tr, execute); got != "primary" {
		t.Errorf("a statement that may not be there goes to the %s", got)
	}
	tr = newTracker()
	send(t, tr, query("SET search_path = a"))
	tr.ServerError()
	send(t, tr, query("SET lock_timeout = 5"))
	if got := send(t, tr, query("SELECT 1")); got != "standby" {
		t.Errorf("%s, pinned: %s", got, tr.Pinned())
	}
	if got := tr.SettingsSince(0); len(got) != 1 || string(got[0]) != "SET lock_timeout = 5" {
		t.Errorf("%q", got)
	}
}

// Drivers parse and describe a statement, wait, and then use it, also in a transaction: an error there casts no doubt on what it is.
func TestAnErrorInATransaction(t *testing.T) {
	sync := rt.Message('S')
	for name, statement := range map[string]string{"a named statement": "a", "the unnamed statement": ""} {
		tr := newTracker()
		pass := func(batch []byte) {
			for tr.Answered(); len(batch) > 0; {
				batch = batch[tr.FromClient(batch, false).N:]
			}
		}
		send(t, tr, query("BEGIN"))
		pass(join(rt.Parse(statement, "INSERT INTO t VALUES (1)"), rt.Message('D', []byte("S"+statement+"\x00")), sync))
		pass(join(rt.Bind("", statement), rt.Execute(""), sync))
		tr.ServerError()
		pass(join(rt.Parse("b", "SELECT 1"), sync))
		tr.ServerError()
		pass(query("ROLLBACK"))
		if got := send(t, tr, query("SELECT 1")); got != "standby" {
			t.Errorf("%s: reads go to the %s, pinned: %s", name, got, tr.Pinned())
		}
		if got := send(t, tr, join(rt.Bind("", "b"), rt.Execute(""), sync)); got != "primary" {
			t.Errorf("a statement that is not there goes to the %s", got)
		}
	}
}

// What was sent behind an error was skipped, and what a name stands for is known only once that is.
func TestWhatTheServerSkipped(t *testing.T) {
	pass := func(tr *Tracker, batches ...[]byte) (injected int) {
		for b := join(batches...); len(b) > 0; {
			if o := tr.FromClient(b, false); o.Verb == Inject {
				tr.Injection()
				injected++
			} else {
				b = b[o.N:]
			}
		}
		return injected
	}
	sync := rt.Message('S')
	bind := func(name string) []byte { return join(rt.Bind("", name), rt.Execute(""), sync) }

	tr := newTracker() // the second Parse fails, for there is one of that name, and the first is executed
	pass(tr, join(rt.Parse("a", "CREATE TEMP TABLE x (n int)"), sync), join(rt.Parse("a", "SELECT 1"), sync), bind("a"))
	tr.ServerError()
	if got := send(t, tr, query("SELECT 1")); got != "primary" {
		t.Error("a temporary table is not seen")
	}

	tr = newTracker() // the Parse that was injected is skipped, so the next batch needs one of its own
	send(t, tr, extended("SELECT 1"))
	if n := pass(tr, join(rt.Message('D', []byte("Sno\x00")), rt.Bind("", ""), rt.Execute(""), sync), bind(""), bind("")); n != 3 {
		t.Errorf("%d are injected for three batches", n)
	}

	tr = newTracker() // the server has skipped the second, without another error
	pass(tr, join(rt.Parse("a", "SELEC 1")))
	tr.ServerError()
	pass(tr, join(rt.Parse("b", "SELECT 1"), sync))
	if got := send(t, tr, bind("b")); got != "primary" {
		t.Errorf("a statement that is not there goes to the %s", got)
	}

	tr = newTracker() // a Close in two pieces
	send(t, tr, join(rt.Parse("a", "SELECT 1"), sync))
	b := join(rt.Message('C', []byte("Sa\x00")), sync)
	if o := tr.FromClient(b[:6], true); o.Verb == Pass {
		b = b[o.N:]
	}
	pass(tr, b)
	if got := send(t, tr, bind("a")); got != "primary" {
		t.Errorf("a statement that was closed goes to the %s", got)
	}
}

// A block that the primary takes over begins there with a Query, which takes the unnamed statement away.
func TestTheUnnamedStatementAfterATakeOver(t *testing.T) {
	tr := newTracker()
	sync := rt.Message('S')
	send(t, tr, join(rt.Parse("a", "BEGIN READ ONLY"), rt.Parse("", "SELECT 1"), sync))
	if o := tr.FromClient(join(rt.Bind("", "a"), rt.Execute(""), sync), true); o.Verb != Read {
		t.Fatalf("%+v", o)
	}
	tr.Done('T', false)
	b := join(rt.Message('D', []byte("Sa\x00")), rt.Bind("", ""), rt.Execute(""), rt.Flush)
	if o := tr.FromClient(b, true); o.Verb != TakeOver {
		t.Fatalf("%+v", o)
	}
	tr.TakeOver()
	b = b[tr.FromClient(b, false).N:]
	if o := tr.FromClient(b, false); o.Verb != Inject {
		t.Errorf("%+v where the primary has no unnamed statement", o)
	}
}

func TestSettingsFollow(t *testing.T) {
	for name, c := range map[string]struct {
		sent []string
		want string
		pin  Pin
	}{
		"in order":              {[]string{"SET a.b = 1", "SET search_path = x", "SET a.b = 2"}, "SET search_path = x|SET a.b = 2", Unpinned},
		"one name, two forms":   {[]string{"SET TIME ZONE 'utc'", "set timezone to 'cet'"}, "set timezone to 'cet'", Unpinned},
		"a role after its user": {[]string{"SET ROLE r", "SET SESSION AUTHORIZATION u", "SET ROLE s"}, "SET SESSION AUTHORIZATION u|SET ROLE s", Unpinned},
		"RESET":                 {[]string{"SET a.b = 1", "RESET a.b"}, "RESET a.b", Unpinned},
		"DateStyle in parts":    {[]string{"SET DateStyle = German", "SET a.b = 1", "SET datestyle = 'MDY'", "SET DateStyle = German"}, "SET a.b = 1|SET datestyle = 'MDY'|SET DateStyle = German", Unpinned},
		"RESET DateStyle":       {[]string{"SET DateStyle = German", "SET datestyle = 'MDY'", "RESET DateStyle"}, "RESET DateStyle", Unpinned},
		"encodings of texts":    {[]string{"SET NAMES 'LATIN2'", "SET NAMES 'LATIN1'", "SET a.b = '\xe4'", "SET client_encoding = 'UTF8'"}, "SET NAMES 'LATIN1'|SET a.b = '\xe4'|SET client_encoding = 'UTF8'", Unpinned},
		"RESET ALL":             {[]string{"SET a.b = 1", "SET ROLE r", "RESET ALL", "SET c.d = 1"}, "SET ROLE r|SET c.d = 1", Unpinned},
		"DISCARD ALL":           {[]string{"SET a.b = 1", "SET ROLE r", "DISCARD ALL"}, "", Unpinned},
		"two in one text":       {[]string{"SET a.b = 1; SET c.d = 1"}, "", PinSettings},
		"characteristics":       {[]string{"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"}, "", PinSettings},
		"too many": {func() []string {
			var all []string
			for i := range 65 {
				all = append(all, "SET a.n"+strings.Repeat("x", i)+" = 1")
			}
			return all
		}(), "-", PinSettings},
	} {
		for kind, batch := range map[string]func(string) []byte{"query": query, "extended": extended} {
			if kind == "extended" && strings.Contains(strings.Join(c.sent, ""), ";") {
				continue
			}
			tr := newTracker()
			for _, sql := range c.sent {
				send(t, tr, batch(sql))
			}
			send(t, tr, batch("SELECT 1"))
			var got []string
			for _, text := range tr.SettingsSince(0) {
				got = append(got, string(text))
			}
			if strings.Join(got, "|") != c.want && c.want != "-" || tr.Pinned() != c.pin {
				t.Errorf("%s, %s: %q, pinned %s", name, kind, got, tr.Pinned())
			}
		}
	}
}

// The unnamed statement that only a standby has is given to the primary before it is used there.
func TestTheUnnamedStatementIsWhereItIsUsed(t *testing.T) {
	tr := newTracker()
	if got := send(t, tr, extended("SELECT 1")); got != "standby" {
		t.Fatal(got)
	}
	bind := join(rt.Bind("", ""), rt.Execute(""), rt.Message('S'))
	o := tr.FromClient(bind, false)
	if o.Verb != Inject || injection(tr) != string(rt.Parse("", "SELECT 1")) {
		t.Errorf("%+v", o)
	}
	if o := tr.FromClient(bind, false); o.Verb != Pass {
		t.Errorf("%+v the second time", o)
	}
	// And the other way: what the primary has is made on the standby.
	tr = newTracker()
	send(t, tr, join(rt.Parse("a", "SELECT 1"), rt.Message('S')))
	have := map[string]uint64{}
	for _, want := range []int{2, 0} {
		if o := tr.FromClient(join(rt.Bind("", "a"), rt.Execute(""), rt.Message('S')), true); o.Verb != Read {
			t.Fatalf("%+v", o)
		}
		out, hidden := tr.Prepare(nil, have)
		if hidden != want || want > 0 && string(out) != string(join(rt.Message('C', []byte("Sa\x00")), rt.Parse("a", "SELECT 1"))) {
			t.Errorf("%d hidden: %q", hidden, out)
		}
		tr.Done('I', false)
	}
}

// What is pipelined behind a DISCARD ALL is not discarded by it.
func TestBehindDiscardAll(t *testing.T) {
	for _, sql := range []string{"SET app.tenant = 1", "SET ROLE r", "SELECT set_config('a.b', 'c', false)", "CREATE TEMP TABLE a (n int)", "DO ''", "SELECT mine()"} {
		for _, batch := range []func(string) []byte{query, extended} {
			tr := newTracker()
			idle := true
			for b := join(batch("DISCARD ALL"), batch(sql)); len(b) > 0; idle = false {
				o := tr.FromClient(b, idle)
				if o.Verb != Pass {
					t.Fatalf("%+v", o)
				}
				b = b[o.N:]
			}
			if got := send(t, tr, query("SELECT 1")); got != "primary" {
				t.Errorf("after %s: %s", sql, got)
			}
			send(t, tr, query("DISCARD ALL"))
			if got := send(t, tr, query("SELECT 1")); got != "standby" {
				t.Errorf("after %s and another DISCARD ALL: %s, pinned: %s", sql, got, tr.Pinned())
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	tr := newTracker()
	read, write := extended("SELECT s FROM t WHERE n = $1"), query("UPDATE t SET n = 1 WHERE n = 2")
	if n := testing.AllocsPerRun(100, func() {
		tr.FromClient(read, true)
		tr.Done('I', false)
		tr.FromClient(write, true)
	}); n != 0 {
		t.Errorf("%v allocations for a read and a write", n)
	}
}

func FuzzTracker(f *testing.F) {
	f.Add(join(query("SELECT 1"), extended("SELECT 2"), query("SET a.b = 1")), uint8(3))
	f.Add(join(rt.Parse("a", "SELECT 1"), rt.Bind("", "a"), rt.Message('S')), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		tr := newTracker()
		var held []byte
		passed := 0
		for len(b) > 0 {
			n := min(int(size)%64+1, len(b))
			held, b = append(held, b[:n]...), b[n:]
			for i := 0; len(held) > 0; i++ {
				o := tr.FromClient(held, !tr.open && tr.left == 0)
				if o.Verb == More {
					if len(held) >= tr.Longest {
						t.Fatal("wants more than it may hold")
					}
					break
				}
				if o.Verb == Inject {
					tr.Injection()
					continue
				}
				if o.N <= 0 || o.N > len(held) {
					t.Fatalf("%+v of %d bytes", o, len(held))
				}
				if o.Verb == Read && i%2 == 0 {
					tr.Refuse()
					continue
				} else if o.Verb == Read {
					tr.Prepare(nil, map[string]uint64{})
					tr.Done('I', false)
				}
				passed += o.N
				held = append([]byte(nil), held[o.N:]...)
			}
		}
	})
}

func injection(tr *Tracker) string {
	messages, _ := tr.Injection()
	return string(messages)
}
