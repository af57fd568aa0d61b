package router

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/router/route/statement"
)

// The functions of a database are asked for again once what is known is 30 s old, before that only where a session has changed them, and kept where they
// cannot be asked for.
func TestFunctionsGrowOld(t *testing.T) {
	var c catalogs
	begun, asked := schema.Instant(time.Hour), 0
	volatility := byte('s')
	read := func() ([]statement.Function, error) {
		asked++
		return []statement.Function{{Schema: "public", Name: "f", Volatility: volatility}}, nil
	}
	after := func(age time.Duration, changed bool, want int, harmless bool) {
		t.Helper()
		known, err := c.of(begun.Add(age), "shop", changed, read)
		if err != nil || asked != want {
			t.Fatalf("%s: asked %d times, want %d (%v)", age, asked, want, err)
		}
		settings := statement.Settings{Whole: true, SafeEncoding: true, Functions: known.harmless}
		if v := statement.Classify([]byte("SELECT f()"), &settings); v.Read != harmless {
			t.Errorf("%s: a read is %v", age, v.Read)
		}
	}
	after(0, false, 1, true)
	volatility = 'v' // by another session
	after(functionsFor-1, false, 1, true)
	after(functionsFor, false, 2, false)
	after(functionsFor+1, false, 2, false)
	volatility = 's'
	after(functionsFor+1, true, 3, true)
	no := errors.New("no")
	if _, err := c.of(begun.Add(3*functionsFor), "shop", false, func() ([]statement.Function, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	if known := c.known("shop"); known == nil || known.loading {
		t.Errorf("%+v", known)
	}
	after(3*functionsFor, false, 4, true)
}

// A session that may have changed functions has a list of its own, which grows old as well.
func TestOwnFunctionsGrowOld(t *testing.T) {
	now := schema.Instant(time.Hour)
	server, conn := net.Pipe()
	server.Close()
	rd := &reader{conn: &link{Conn: conn}} // whoever asks it is told of an error
	c := &client{r: &Router{now: func() schema.Instant { return now }}}
	a := &auto{c: c, definer: true, list: &catalog{at: now}}
	now = now.Add(functionsFor - 1)
	if list, err := a.functions(rd); err != nil || list != a.list {
		t.Errorf("young: %v", err)
	}
	now = now.Add(1)
	if _, err := a.functions(rd); err == nil {
		t.Error("old: not asked for again")
	}
}

// functionRow is a row of three values.
func functionRow(values ...string) []byte {
	row := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(v))), v...)
	}
	return row
}

// What a server says of its functions may be anything; what is taken is what it says.
func FuzzFunctionOf(f *testing.F) {
	f.Add(functionRow("public", "f", "v"))
	f.Add(functionRow("", "", "s"))
	f.Add(functionRow("public", "f"))
	f.Add(functionRow("public", "f", "iv"))
	f.Add([]byte("\x00\x03\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x01v"))
	f.Add([]byte("\x00\x03\x7f\xff\xff\xffx"))
	f.Add(append(functionRow("public", "f", "v"), 0))
	f.Fuzz(func(t *testing.T, row []byte) {
		got, err := functionOf(row)
		if err != nil {
			if got != (statement.Function{}) {
				t.Errorf("%q: %+v with an error", row, got)
			}
			return
		}
		if again := functionRow(got.Schema, got.Name, string([]byte{got.Volatility})); string(again) != string(row) {
			t.Errorf("%q was read as %+v", row, got)
		}
	})
}
