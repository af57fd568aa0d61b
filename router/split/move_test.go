package split

import (
	"testing"

	rt "howdah/router/routertest"
)

// Whether a session can go on with another server connection is decided by what it has left on the one that it has.
func TestWhatBindsASession(t *testing.T) {
	for sql, want := range map[string]bool{
		"INSERT INTO t VALUES (1)": true, "SELECT nextval('q')": true, "SET search_path = a": true, "SELECT random()": true,
		"DECLARE c CURSOR FOR SELECT 1": true, "BEGIN": true, "NOTIFY x": true, "UNLISTEN x": true, "COPY t FROM STDIN": true, "/* howdah: primary */ SELECT 1": true,
		"LISTEN x": false, "PREPARE p AS SELECT 1": false, "EXECUTE p": false, "DEALLOCATE p": true, "DECLARE c CURSOR WITH HOLD FOR SELECT 1": false,
		"SELECT pg_advisory_lock(1)": false, "SELECT pg_try_advisory_lock_shared(1)": false, "SELECT mine()": false, "SELECT currval('q')": false, "SELECT pg_backup_start('x')": false,
		"CREATE TEMP TABLE a (n int)": false, "DO ''": false, "BEGIN; SET a = 1; COMMIT": false, "INSERT INTO t VALUES ('x": false,
	} {
		for name, batch := range map[string]func(string) []byte{"query": query, "extended": extended} {
			tr := newTracker()
			send(t, tr, batch(sql))
			if got := tr.Move(); got != want {
				t.Errorf("%s, %s: movable %v, want %v (pinned by %s)", sql, name, got, want, tr.Pinned())
			}
			if send(t, tr, query("DISCARD ALL")); !tr.Move() {
				t.Errorf("%s, %s: bound after DISCARD ALL", sql, name)
			}
		}
	}
	tr := newTracker()
	tr.FromClient(query("DISCARD ALL"), true)
	tr.FromClient(query("LISTEN x"), false)
	if tr.Move() {
		t.Error("what follows DISCARD ALL before its answer binds nothing")
	}
}

// A statement whose Parse may or may not have been carried out cannot be made anew.
func TestDoubtfulStatementsBind(t *testing.T) {
	tr := newTracker()
	b := join(rt.Parse("s", "INSERT INTO t VALUES (1)"), rt.Bind("", "s"), rt.Execute(""), rt.Sync)
	send(t, tr, b)
	tr.ServerError()
	if tr.Move() {
		t.Error("movable")
	}
	tr = newTracker()
	tr.FromClient(rt.Parse("s", "INSERT INTO t VALUES (1)"), true)
	if tr.Movable() {
		t.Error("movable in the middle of a batch")
	}
}

// After a move each statement is made once where it is used, in each batch until one has gone well.
func TestInjectionsAfterAMove(t *testing.T) {
	tr := newTracker()
	send(t, tr, join(rt.Parse("s", "INSERT INTO t VALUES (1)"), rt.Sync))
	if !tr.Move() {
		t.Fatal("bound")
	}
	use := func(idle bool) (injected int) {
		for b := join(rt.Bind("", "s"), rt.Execute(""), rt.Bind("", "s"), rt.Execute(""), rt.Sync); len(b) > 0; {
			o := tr.FromClient(b, idle)
			if o.Verb == Inject {
				injected++
				m, answers := tr.Injection()
				if want := join(rt.Message('C', []byte("Ss\x00")), rt.Parse("s", "INSERT INTO t VALUES (1)")); string(m) != string(want) || answers != 2 {
					t.Fatalf("%q, %d answers", m, answers)
				}
			}
			b, idle = b[o.N:], false
		}
		return injected
	}
	if n := use(true); n != 1 {
		t.Errorf("%d injections at first", n)
	}
	tr.ServerError()
	if n := use(true); n != 1 {
		t.Errorf("%d injections after an error", n)
	}
	if n := use(false); n != 1 {
		t.Errorf("%d injections while the last batch is not answered", n)
	}
	if n := use(true); n != 0 {
		t.Errorf("%d injections once it is there", n)
	}
}

// What is injected in front of a message belongs to it: until that follows, the primary has a part of the batch.
func TestInjectedInFrontOfAMessage(t *testing.T) {
	tr := newTracker()
	if o := tr.FromClient(join(rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Execute(""), rt.Sync), true); o.Verb != Read {
		t.Fatal(o)
	}
	tr.Done('I', false)
	bind := join(rt.Bind("c", ""), rt.Execute("c"), rt.Sync) // a portal with a name is the primary's
	if o := tr.FromClient(bind, true); o.Verb != Inject || !tr.Injected() {
		t.Fatal(o)
	}
	tr.Injection()
	if o := tr.FromClient(bind, false); o.Verb != Pass || tr.Injected() {
		t.Error(o)
	}
	tr = newTracker()
	tr.FromClient(join(rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Execute(""), rt.Sync), true)
	tr.Done('I', false)
	if o := tr.FromClient(bind, true); o.Verb != Inject || !tr.Move() || tr.Injected() {
		t.Error("what was injected is taken to be at the next primary")
	}
}

// A batch that a standby refused goes to the primary; where its client cancels it before, what comes next does not.
func TestRecalledBehindARefusal(t *testing.T) {
	tr := newTracker()
	for _, cancels := range []bool{true, false} {
		if o := tr.FromClient(query("SELECT 1"), true); o.Verb != Read {
			t.Fatal(o)
		}
		tr.Refuse()
		want := Pass
		if cancels {
			tr.Recalled()
			want = Read
		}
		if o := tr.FromClient(query("SELECT 1"), true); o.Verb != want {
			t.Errorf("cancelled %t: %v", cancels, o)
		}
		tr.Done('I', false)
	}
}
