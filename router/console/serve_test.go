package console

import (
	"bytes"
	"strings"
	"testing"
)

// finishing is a Router that is only told to shut down.
type finishing struct {
	Router
	told func()
}

func (f finishing) View() View { return View{} }
func (f finishing) Shutdown()  { f.told() }

// both is what a console reads from and writes to.
type both struct {
	*strings.Reader
	*bytes.Buffer
}

func (b both) Read(p []byte) (int, error) { return b.Reader.Read(p) }

func (b both) Write(p []byte) (int, error) { return b.Buffer.Write(p) }

// A shutdown ends the session that asks for it too, so it begins only after the answer is written.
func TestShutdownIsAnsweredFirst(t *testing.T) {
	conn := both{strings.NewReader(string(message(nil, 'Q', []byte("SHUTDOWN\x00")...))), new(bytes.Buffer)}
	begun := 0
	s := Session{Conn: conn, Admin: true, Router: finishing{told: func() {
		begun++
		if !strings.Contains(conn.Buffer.String(), "SHUTDOWN\x00Z") {
			t.Errorf("begun before the answer was written: %q", conn.Buffer)
		}
	}}}
	if err := s.Run(t.Context()); err != nil || begun != 1 {
		t.Errorf("begun %d times: %v", begun, err)
	}
	s.Admin, s.Conn = false, both{strings.NewReader(string(message(nil, 'Q', []byte("SHUTDOWN\x00")...))), new(bytes.Buffer)}
	if err := s.Run(t.Context()); err != nil || begun != 1 {
		t.Errorf("who is no admin began it: %d, %v", begun, err)
	}
}
