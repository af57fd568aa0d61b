package session_test

import (
	"bytes"
	"strings"
	"testing"

	rt "howdah/router/routertest"
	"howdah/router/session"
)

// recalling shows a session, piece by piece, what its client sent while a request of it was recalled, and returns what the client is answered and what goes on.
func recalling(t *testing.T, s *session.Session, pieces ...[]byte) (answered, forwarded []byte, told int) {
	t.Helper()
	var held []byte
	for _, piece := range pieces {
		held = append(held, piece...)
		for len(held) > 0 {
			o, recalled := s.Recalled(held)
			if !recalled {
				o = s.FromClient(held)
			}
			if o.Verb == session.Fetch {
				break
			}
			switch o.Verb {
			case session.Answer:
				if answered = append(answered, o.Insert...); o.Err != nil {
					told++
				}
			case session.Forward:
				forwarded = append(forwarded, held[:o.N]...)
			default:
				t.Fatalf("verb %d", o.Verb)
			}
			held = held[o.N:]
		}
	}
	return answered, forwarded, told
}

// What was recalled is answered as PostgreSQL answers what it cancels, and what is behind it goes on, wherever what comes is cut in two.
func TestRecalled(t *testing.T) {
	told := rt.Error("57014", "canceling statement due to user request")
	batch := join(rt.Parse("", "x"), rt.Bind("", ""), rt.Describe(""), rt.Execute(""))
	for name, c := range map[string]struct{ sent, behind, answered []byte }{
		"a query":               {rt.Query("SELECT 'X'"), nil, join(told, rt.Ready('I'))},
		"a long query":          {rt.Query(strings.Repeat("X", 2000)), nil, join(told, rt.Ready('I'))},
		"a function call":       {rt.Message('F', rt.Int32(1)), nil, join(told, rt.Ready('I'))},
		"a batch":               {join(batch, rt.Sync), nil, join(told, rt.Ready('I'))},
		"a batch with a Flush":  {join(batch, rt.Flush, batch, rt.Sync), nil, join(told, rt.Ready('I'))},
		"a batch without Sync":  {batch, nil, told},
		"a Query in a batch":    {join(batch, rt.Query("x"), rt.Sync), nil, join(told, rt.Ready('I'))},
		"Close":                 {join(rt.Message('C', []byte("Sx\x00")), rt.Sync), nil, join(told, rt.Ready('I'))},
		"a query behind it":     {rt.Query("x"), rt.Query("y"), join(told, rt.Ready('I'))},
		"a batch behind it":     {join(batch, rt.Sync), join(batch, rt.Sync), join(told, rt.Ready('I'))},
		"Terminate":             {nil, rt.Terminate, nil},
		"Terminate in a batch":  {batch, rt.Terminate, told},
		"a query behind a Sync": {join(rt.Sync, rt.Query("x")), nil, join(rt.Ready('I'), told, rt.Ready('I'))},
		"what a copy left":      {join(rt.CopyData([]byte("x")), rt.CopyDone, rt.Flush, rt.Query("x")), rt.Query("y"), join(told, rt.Ready('I'))},
	} {
		all := join(c.sent, c.behind)
		for cut := 1; cut <= len(all); cut++ {
			if (name == "what a copy left" || name == "a query behind a Sync") && cut < len(c.sent) {
				continue // nothing that can be recalled has come
			}
			s := ready().Session
			s.Recall()
			answered, forwarded, errors := recalling(t, s, all[:cut], all[cut:])
			if !bytes.Equal(answered, c.answered) || !bytes.Equal(forwarded, c.behind) || errors != bytes.Count(c.answered, []byte("57014")) {
				t.Errorf("%s, cut at %d: answered %q, forwarded %q", name, cut, answered, forwarded)
			}
		}
	}
}

// A recall is for what is there: one that finds no request is spent.
func TestRecallOfNothing(t *testing.T) {
	for name, sent := range map[string][]byte{"Sync": rt.Sync, "Flush": rt.Flush, "what a copy left": join(rt.CopyData([]byte("x")), rt.CopyDone)} {
		s := ready().Session
		s.Recall()
		answered, forwarded, told := recalling(t, s, sent, rt.Query("x"))
		if want := map[string][]byte{"Sync": rt.Ready('I')}[name]; !bytes.Equal(answered, want) || told != 0 || !bytes.Equal(forwarded, rt.Query("x")) {
			t.Errorf("%s: answered %q, forwarded %q", name, answered, forwarded)
		}
	}
}

// While what is left of a batch is dropped the session is idle for the server, and whoever is told something in the meantime is told it.
func TestARecalledSessionIsIdle(t *testing.T) {
	s := ready().Session
	s.Recall()
	if _, recalled := s.Recalled(rt.Parse("", "x")); !recalled || !s.Recalling() || !s.Idle() || s.Busy() || s.OutcomeUnknown() {
		t.Error("a session of which a batch was recalled is not idle")
	}
	if o := s.FromServer(rt.Notice("careful")); o.Verb != session.Forward {
		t.Errorf("a notice: verb %d", o.Verb)
	}
	s.Recalled([]byte{'?', 0, 0, 0, 4})
	if o := s.FromClient([]byte{'?', 0, 0, 0, 4}); s.Recalling() || o.Verb != session.Refuse {
		t.Error("what is no message is not refused")
	}
}
