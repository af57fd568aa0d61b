package session_test

import (
	"bytes"
	"testing"

	rt "howdah/router/routertest"
)

// What the router asks for itself while the client waits for nothing, in pieces of every size: the client gets of the answer only what the server says unasked.
func TestAHiddenBlock(t *testing.T) {
	told := rt.Notification(1, "a", "b")
	setting := rt.ParameterStatus("TimeZone", "UTC")
	answer := join(rt.Notice("x"), told, rt.Complete("BEGIN"), setting, rt.Error("3B001", "no such savepoint"), rt.Ready('E'))
	next := join(rt.Error("25P02", "aborted"), rt.Ready('E'))
	for size := 1; size <= len(answer)+len(next); size++ {
		b := ready()
		b.server.out = nil
		b.HideBlock()
		if b.Idle() || b.OutcomeUnknown() {
			t.Fatal("the block is not seen")
		}
		b.client.feed(rt.Query("SELECT 1"))
		if b.OutcomeUnknown() {
			t.Fatal("a read in a READ ONLY block commits nothing")
		}
		for all := join(answer, next); len(all) > 0; all = all[min(size, len(all)):] {
			b.server.feed(all[:min(size, len(all))])
		}
		if want := join(told, setting, next); !bytes.Equal(b.server.out, want) || b.server.err != nil {
			t.Fatalf("%d bytes at a time: %q, want %q; %v", size, b.server.out, want, b.server.err)
		}
		if b.Busy() || b.Status() != 'E' || b.MidMessage() {
			t.Errorf("busy %v, status %c, mid-message %v", b.Busy(), b.Status(), b.MidMessage())
		}
		if queries, _ := b.Counts(); queries != 1 {
			t.Errorf("%d queries are counted", queries)
		}
		if len(b.errors) != 1 || b.errors[0] != "25P02" {
			t.Errorf("errors %v", b.errors)
		}
	}
}

// The last word of a server reaches the client, whatever it was asked.
func TestAHiddenBlockEndsTheSession(t *testing.T) {
	b := ready()
	b.server.out = nil
	b.HideBlock()
	b.server.feed(rt.Fatal("57P01", "bye"))
	if !bytes.Equal(b.server.out, rt.Fatal("57P01", "bye")) || !b.Fatal() {
		t.Errorf("%q, fatal %v", b.server.out, b.Fatal())
	}
}

// The answers to a Close and a Parse of the router's own stay hidden, those to the client's do not; what a server would pass over is not sent.
func TestHiddenMessages(t *testing.T) {
	b := ready()
	b.server.out = nil
	if !b.Hide(2) {
		t.Fatal("not taken")
	}
	b.client.feed(join(rt.Bind("", "s"), rt.Message('C', []byte("Sx\x00")), rt.Sync))
	own := join(rt.BindComplete, rt.CloseComplete, rt.Ready('I'))
	b.server.feed(join(rt.CloseComplete, rt.ParseComplete, own))
	if !bytes.Equal(b.server.out, own) || !b.Idle() {
		t.Errorf("%q, idle %v", b.server.out, b.Idle())
	}
	b.client.feed(rt.Bind("", "s"))
	b.server.feed(rt.Error("26000", "no such statement"))
	if b.Hide(1) {
		t.Error("sent although the server passes over everything up to a Sync")
	}
}
