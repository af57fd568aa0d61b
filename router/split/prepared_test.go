package split

import (
	"fmt"
	"testing"

	rt "howdah/router/routertest"
)

// A SET or a DISCARD ALL that is bound and not executed has not happened.
func TestBoundAndNotExecuted(t *testing.T) {
	bind := func(sql string) []byte { return join(rt.Parse("", sql), rt.Bind("", ""), rt.Sync) }
	tr := newTracker()
	send(t, tr, bind("SET search_path = a"))
	if got := send(t, tr, query("SELECT 1")); got != "standby" || len(tr.SettingsSince(0)) != 0 {
		t.Errorf("%s, pinned: %s, %q", got, tr.Pinned(), tr.SettingsSince(0))
	}
	send(t, tr, join(rt.Parse("", "SET a.b = 1"), rt.Bind("c", ""), rt.Execute("d"), rt.Sync))
	send(t, tr, join(rt.Parse("", "SET c.d = 1"), rt.Bind("c", ""), rt.Execute("c"), rt.Sync))
	send(t, tr, query("SELECT 1"))
	if got := tr.SettingsSince(0); len(got) != 1 || string(got[0]) != "SET c.d = 1" {
		t.Errorf("%q", got)
	}
	send(t, tr, query("CREATE TEMP TABLE x (n int)"))
	send(t, tr, bind("DISCARD ALL"))
	if got := send(t, tr, query("SELECT 1")); got != "primary" || tr.Pinned() != PinTemp || len(tr.SettingsSince(0)) != 1 {
		t.Errorf("%s, pinned: %s, %q", got, tr.Pinned(), tr.SettingsSince(0))
	}
	// Nor does an Execute of a later batch execute it.
	tr = newTracker()
	tr.FromClient(bind("SET search_path = a"), true)
	for b := join(bind("SET search_path = a"), rt.Execute(""), rt.Sync); len(b) > 0; {
		b = b[tr.FromClient(b, false).N:]
	}
	if tr.FromClient(query("SELECT 1"), true); len(tr.SettingsSince(0)) != 0 {
		t.Errorf("%q", tr.SettingsSince(0))
	}
}

// DEALLOCATE forgets the statement that it names, and no other.
func TestDeallocateOne(t *testing.T) {
	prepare := func(tr *Tracker, name string) { send(t, tr, join(rt.Parse(name, "SELECT 1"), rt.Sync)) }
	execute := func(name string) []byte { return join(rt.Bind("", name), rt.Execute(""), rt.Sync) }
	for sql, names := range map[string][2]string{
		"DEALLOCATE a": {"a", "b"}, "deallocate PREPARE A": {"a", "A"}, `DEALLOCATE "A b"`: {"A b", "a b"}, `DEALLOCATE "A"`: {"A", "a"},
	} {
		for name, batch := range map[string]func(string) []byte{"query": query, "extended": extended} {
			tr := newTracker()
			prepare(tr, names[0])
			prepare(tr, names[1])
			send(t, tr, batch(sql))
			if got := send(t, tr, execute(names[1])); got != "standby" {
				t.Errorf("%s, %s: %q goes to the %s", sql, name, names[1], got)
			}
			if movable := tr.Move(); movable != (name == "query") {
				t.Errorf("%s, %s: movable: %v", sql, name, movable)
			}
			if got := send(t, tr, execute(names[0])); got != "primary" {
				t.Errorf("%s, %s: %q goes to the %s", sql, name, names[0], got)
			}
		}
	}
	for _, sql := range []string{"DEALLOCATE ALL", "DEALLOCATE a; DEALLOCATE b", `DEALLOCATE "a""b"`, `DEALLOCATE U&"a"`, "DEALLOCATE ä"} {
		tr := newTracker()
		prepare(tr, "a")
		send(t, tr, query(sql))
		if got := send(t, tr, execute("a")); got != "primary" {
			t.Errorf("%s: a goes to the %s", sql, got)
		}
	}
	for name, batch := range map[string][]byte{"DEALLOCATE": query("DEALLOCATE a"), "Close": join(rt.Message('C', []byte("Sa\x00")), rt.Sync)} {
		tr := newTracker()
		prepare(tr, "a")
		send(t, tr, batch)
		if tr.ServerError(); tr.Move() {
			t.Errorf("%s that may have failed: the primary may have the statement still", name)
		}
	}
}

// Statements that the session has no more are closed on the standby, with the next batch there.
func TestClosedOnTheStandby(t *testing.T) {
	have := map[string]uint64{}
	tr := newTracker()
	closeOf := func(name string) []byte { return rt.Message('C', []byte("S"+name+"\x00")) }
	prepare := func(name, sql string) { send(t, tr, join(closeOf(name), rt.Parse(name, sql), rt.Sync)) }
	read := func(batch []byte, want []byte, hidden int) {
		t.Helper()
		if o := tr.FromClient(batch, true); o.Verb != Read {
			t.Fatalf("%+v", o)
		}
		if out, n := tr.Prepare(nil, have); string(out) != string(want) || n != hidden {
			t.Errorf("%d hidden: %q, want %d: %q", n, out, hidden, want)
		}
		tr.Done('I', false)
	}
	execute := func(name string) []byte { return join(rt.Bind("", name), rt.Execute(""), rt.Sync) }
	prepare("a", "SELECT 1")
	prepare("b", "SELECT 2")
	read(execute("a"), join(closeOf("a"), rt.Parse("a", "SELECT 1")), 2)
	send(t, tr, join(closeOf("a"), rt.Sync))
	send(t, tr, join(closeOf("b"), rt.Sync)) // the standby never had it
	read(query("SELECT 1"), closeOf("a"), 1)
	read(query("SELECT 1"), nil, 0)
	prepare("a", "SELECT 1")
	read(execute("a"), join(closeOf("a"), rt.Parse("a", "SELECT 1")), 2)
	prepare("a", "SELECT 3")
	read(execute("a"), join(closeOf("a"), closeOf("a"), rt.Parse("a", "SELECT 3")), 3)
	Doubt(have)
	send(t, tr, query("DEALLOCATE a"))
	read(query("SELECT 1"), closeOf("a"), 1)
	if len(have) != 0 {
		t.Errorf("%v", have)
	}
	for i := range 100 {
		name := fmt.Sprintf("s%d", i)
		prepare(name, "SELECT 1")
		read(execute(name), join(closeOf(name), rt.Parse(name, "SELECT 1")), 2)
	}
	send(t, tr, query("DEALLOCATE ALL"))
	for _, want := range []int{closesAtOnce, 100 - closesAtOnce, 0} {
		tr.FromClient(query("SELECT 1"), true)
		if _, n := tr.Prepare(nil, have); n != want {
			t.Errorf("%d closed, want %d", n, want)
		}
		tr.Done('I', false)
	}
}

// The primary's unnamed statement is the session's, or there is none.
func TestTheUnnamedStatementOfThePrimary(t *testing.T) {
	bind := join(rt.Bind("", ""), rt.Execute(""), rt.Sync)
	for name, sent := range map[string][]byte{"a Query": query("SELECT 1"), "a Parse": extended("SELECT 1")} {
		tr := newTracker()
		send(t, tr, extended("INSERT INTO t VALUES (1)"))
		if got := send(t, tr, sent); got != "standby" {
			t.Fatal(got)
		}
		if o := tr.FromClient(join(rt.Parse("a", "SET a.b = 1"), rt.Bind("", "a"), rt.Execute(""), rt.Sync), true); o.Verb != Inject || injection(tr) != string(rt.Message('C', []byte("S\x00"))) {
			t.Errorf("%s on the standby leaves the primary the statement that it had: %+v", name, o)
		}
		send(t, tr, join(rt.Parse("a", "SET a.b = 1"), rt.Bind("", "a"), rt.Execute(""), rt.Sync))
		if got := send(t, tr, query("SELECT 1")); got != "standby" || len(tr.SettingsSince(0)) != 1 {
			t.Errorf("%s, pinned: %s", got, tr.Pinned())
		}
		if o := tr.FromClient(bind, true); o.Verb != Pass {
			t.Errorf("%+v where neither has one", o)
		}
	}
	tr := newTracker() // one that fails takes the one before away
	send(t, tr, extended("SELECT 1"))
	send(t, tr, join(rt.Parse("", "SELEC 1"), rt.Sync))
	tr.ServerError()
	if o := tr.FromClient(bind, true); o.Verb != Pass {
		t.Errorf("%+v after a Parse that failed", o)
	}
}
