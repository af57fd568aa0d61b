package session_test

import (
	"bytes"
	"strings"
	"testing"

	rt "howdah/router/routertest"
	"howdah/router/session"
)

// cancelled is the warning of PostgreSQL 15 about a commit whose wait was cancelled, with this text for a message.
func cancelled(message string) []byte {
	return rt.Message('N', []byte("SWARNING\x00VWARNING\x00C01000\x00M"+message+"\x00DThe transaction has already committed locally, "+
		"but might not have been replicated to the standby.\x00Fsyncrep.c\x00L293\x00RSyncRepWaitForLSN\x00\x00"))
}

// types are the types of the messages in b, and with them the SQLSTATEs of the errors.
func types(t *testing.T, b []byte) string {
	t.Helper()
	var s strings.Builder
	for len(b) > 0 {
		n := 1 + int(b[1])<<24 + int(b[2])<<16 + int(b[3])<<8 + int(b[4])
		s.WriteByte(b[0])
		if b[0] == 'E' {
			_, code, _ := bytes.Cut(b[:n], []byte("\x00C"))
			s.WriteString("(" + string(code[:5]) + ")")
		}
		b = b[n:]
	}
	return s.String()
}

// A commit that no standby has confirmed is not reported as done: a failover may undo it.
func TestACancelledWaitIsNoCommit(t *testing.T) {
	warning := cancelled("canceling wait for synchronous replication due to user request")
	german := cancelled("Warten auf synchrone Replikation wird storniert wegen Benutzeraufforderung")
	insert, row := rt.Complete("INSERT 0 1"), join(rt.RowDescription("n"), rt.Row("1"))
	parsed := join(rt.Message('1'), rt.Message('2'))
	for name, c := range map[string]struct {
		asked, answer []byte
		told          string // the client, after the login
		refused       string // the SQLSTATE, if the session ends
	}{
		"a simple statement":          {rt.Query("INSERT"), join(warning, insert, rt.Ready('I')), "NE(08007)Z", ""},
		"in another language":         {rt.Query("INSERT"), join(german, insert, rt.Ready('I')), "NE(08007)Z", ""},
		"any other warning":           {rt.Query("INSERT"), join(rt.Notice("canceling wait for synchronous replication"), insert, rt.Ready('I')), "NCZ", ""},
		"rows before it":              {rt.Query("INSERT RETURNING"), join(row, warning, insert, rt.Ready('I')), "TDNE(08007)Z", ""},
		"statements after it":         {rt.Query("COMMIT; SELECT 1"), join(warning, rt.Complete("COMMIT"), row, rt.Complete("SELECT 1"), rt.Ready('I')), "NE(08007)Z", ""},
		"an error after it":           {rt.Query("COMMIT; SELECT 1/0"), join(warning, rt.Complete("COMMIT"), rt.Error("22012", "division by zero"), rt.Ready('I')), "NE(08007)Z", ""},
		"an error before its answer":  {rt.Query("CALL p()"), join(warning, rt.Error("22012", "division by zero"), rt.Ready('I')), "NE(22012)Z", ""},
		"what may come at any time":   {rt.Query("COMMIT; SET a = b"), join(warning, rt.Complete("COMMIT"), rt.ParameterStatus("a", "b"), rt.Notification(1, "c", ""), rt.Notice("x"), rt.Complete("SET"), rt.Ready('I')), "NE(08007)SANZ", ""},
		"at the Sync":                 {join(rt.Parse("", "INSERT"), rt.Bind("", ""), rt.Execute(""), rt.Message('S')), join(parsed, insert, warning, rt.Ready('I')), "12CNE(08007)Z", ""},
		"a COMMIT executed":           {join(rt.Parse("", "COMMIT"), rt.Bind("", ""), rt.Execute(""), rt.Message('S')), join(parsed, warning, rt.Complete("COMMIT"), rt.Ready('I')), "12NE(08007)Z", ""},
		"more in the same batch":      {join(rt.Bind("", "c"), rt.Execute(""), rt.Bind("", "s"), rt.Execute(""), rt.Message('S')), join(rt.Message('2'), warning, rt.Complete("COMMIT"), rt.Message('2'), rt.Row("1"), rt.Complete("SELECT 1"), rt.Ready('I')), "2NE(08007)Z", ""},
		"the next one is well again":  {join(rt.Query("INSERT"), rt.Query("INSERT")), join(warning, insert, rt.Ready('I'), insert, rt.Ready('I')), "NE(08007)ZCZ", ""},
		"two of them":                 {join(rt.Query("INSERT"), rt.Query("INSERT")), join(warning, insert, rt.Ready('I'), warning, insert, rt.Ready('I')), "NE(08007)ZNE(08007)Z", ""},
		"a copy after it in one text": {rt.Query("COMMIT; COPY t FROM STDIN"), join(warning, rt.Complete("COMMIT"), rt.Message('G', []byte{0, 0, 0})), "NE(08007)", "08007"},
		"a big row after it":          {rt.Query("COMMIT; SELECT"), join(warning, rt.Complete("COMMIT"), rt.Row(strings.Repeat("x", 100_000)), rt.Complete("SELECT 1"), rt.Ready('I')), "NE(08007)Z", ""},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			s := ready()
			s.server.out = nil
			s.client.feed(c.asked)
			for i := 0; i < len(c.answer); i += size {
				s.server.feed(c.answer[i:min(i+size, len(c.answer))])
				if mid := whole(s.server.out) != len(s.server.out); s.MidMessage() != mid {
					t.Fatalf("%s: in the middle of a message: %t, want %t", name, s.MidMessage(), mid)
				}
			}
			if got := types(t, s.server.out); got != c.told {
				t.Errorf("%s, %d bytes at a time: the client is told %s, want %s", name, size, got, c.told)
			}
			if got := s.server.err; (got == nil) != (c.refused == "") || got != nil && got.Code != c.refused {
				t.Errorf("%s: refused %v, want %q", name, got, c.refused)
			}
			if c.refused == "" && s.Busy() {
				t.Errorf("%s: busy after the last answer", name)
			}
		}
	}
}

// whole is how many of the bytes are whole messages.
func whole(b []byte) int {
	n := 0
	for len(b)-n >= 5 {
		size := 1 + int(b[n+1])<<24 + int(b[n+2])<<16 + int(b[n+3])<<8 + int(b[n+4])
		if len(b)-n < size {
			break
		}
		n += size
	}
	return n
}

// follower counts what it is told of.
type follower struct {
	hooks
	told *int
}

func (follower) Parameter([]byte, []byte) {}
func (f follower) Notified()              { *f.told++ }
func (follower) Leaving(bool) bool        { return false }
func (follower) Unhidden()                {}

func TestNotificationsAreTold(t *testing.T) {
	told := 0
	s := session.New(follower{hooks{newBoth()}, &told})
	w := wireOf{step: s.FromServer}
	w.feed(join(rt.AuthOK, rt.Ready('I'), rt.Notification(1, "jobs", "x"), rt.Notice("n"), rt.Notification(1, "jobs", "y")))
	if told != 2 {
		t.Errorf("told of %d notifications, want 2", told)
	}
}
