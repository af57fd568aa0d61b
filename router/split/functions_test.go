package split

import (
	"strings"
	"testing"

	"howdah/router/route/statement"
	rt "howdah/router/routertest"
)

// useFunctions tells the tracker a new list, in which calm is as volatile as said.
func useFunctions(tr *Tracker, calm byte) {
	all := functions()
	for i := range all {
		if all[i].Name == "calm" {
			all[i].Volatility = calm
		}
	}
	tr.UseFunctions(statement.NewFunctions(all), statement.NewKeeping(all), statement.NewParting(all))
}

// A statement is judged by the newest list, whenever it was prepared.
func TestPreparedStatementsAreJudgedAnew(t *testing.T) {
	for name, prepare := range map[string][]byte{"named": join(rt.Parse("a", "SELECT calm()"), rt.Sync), "unnamed": join(rt.Parse("", "SELECT calm()"), rt.Message('D', []byte("S\x00")), rt.Sync)} {
		execute := join(rt.Bind("", strings.Trim(string(prepare[5:6]), "\x00")), rt.Execute(""), rt.Sync)
		tr := newTracker()
		send(t, tr, prepare)
		if got := send(t, tr, execute); got != "standby" {
			t.Fatalf("%s: %s at first", name, got)
		}
		useFunctions(tr, 'v')
		if got := send(t, tr, execute); got != "primary" || tr.Pinned() != PinCall || !tr.TakeWrote() {
			t.Errorf("%s: %s with a function that is volatile now, pinned: %s", name, got, tr.Pinned())
		}
		send(t, tr, query("DISCARD ALL"))
		send(t, tr, prepare)
		useFunctions(tr, 's')
		if got := send(t, tr, execute); got != "standby" {
			t.Errorf("%s: %s with a function that is stable again", name, got)
		}
	}
}

// What was taken for a read before the list was read anew is looked at again.
func TestABatchIsJudgedAnew(t *testing.T) {
	for name, batch := range map[string][]byte{"query": query("SELECT calm()"), "extended": extended("SELECT calm()"), "prepared": join(rt.Bind("", "a"), rt.Execute(""), rt.Sync)} {
		for volatility, want := range map[byte]bool{'v': false, 's': true} {
			tr := newTracker()
			send(t, tr, join(rt.Parse("a", "SELECT calm()"), rt.Sync))
			if o := tr.FromClient(batch, true); o.Verb != Read || !tr.StillRead(batch) {
				t.Fatalf("%s: %v", name, o)
			}
			if useFunctions(tr, volatility); tr.StillRead(batch) != want {
				t.Errorf("%s, %c: still a read: %v", name, volatility, !want)
			}
			if tr.Refuse(); want {
				continue
			}
			if o := tr.FromClient(batch, true); o.Verb != Pass {
				t.Errorf("%s: %v", name, o)
			}
		}
	}
}

// What a session calls after it has changed functions counts as what the next list says.
func TestCallsBeforeTheNextList(t *testing.T) {
	for _, change := range []string{"ALTER FUNCTION calm VOLATILE", "CREATE OR REPLACE FUNCTION calm() RETURNS int LANGUAGE sql AS ''", "CREATE EXTENSION x"} {
		for volatility, want := range map[byte]Pin{'v': PinCall, 's': Unpinned} {
			for name, batch := range map[string]func(string) []byte{"query": query, "extended": extended} {
				tr := newTracker()
				send(t, tr, batch(change))
				if !tr.TakeDefined() || !tr.Defines() {
					t.Fatalf("%s is not seen", change)
				}
				tr.TakeWrote()
				if o := tr.FromClient(batch("SELECT calm()"), true); o.Verb != Read || tr.StillRead(batch("SELECT calm()")) {
					t.Fatalf("%s: %v: a read by a list that may be old", name, o)
				}
				tr.Refuse()
				send(t, tr, batch("SELECT calm()"))
				if !tr.TakeWrote() || tr.Move() || tr.Pinned() != Unpinned {
					t.Errorf("%s, %s: it may have written and set, pinned: %s", change, name, tr.Pinned())
				}
				useFunctions(tr, volatility)
				if tr.Pinned() != want || tr.Movable() != (want == Unpinned) || tr.Defines() {
					t.Errorf("%s, %s, %c: pinned: %s, movable: %v", change, name, volatility, tr.Pinned(), tr.Movable())
				}
			}
		}
	}
	tr := newTracker()
	send(t, tr, query("ALTER FUNCTION calm VOLATILE"))
	tr.FromClient(query("SELECT calm()"), false)
	send(t, tr, query("DISCARD ALL"))
	tr.FromClient(query("SELECT 1"), true)
	if useFunctions(tr, 'v'); tr.Pinned() != Unpinned {
		t.Errorf("pinned by %s for what was discarded", tr.Pinned())
	}
	tr = newTracker()
	send(t, tr, query("ALTER FUNCTION calm VOLATILE"))
	tr.FromClient(query("DISCARD ALL"), true)
	tr.FromClient(query("SELECT calm()"), false)
	tr.FromClient(query("SELECT 1"), true)
	if useFunctions(tr, 'v'); tr.Pinned() != PinCall {
		t.Errorf("pinned by %s for what was not discarded", tr.Pinned())
	}
}
