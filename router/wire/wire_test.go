package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgproto3/v2"

	rt "howdah/router/routertest"
	"howdah/router/wire"
)

func TestCheckClient(t *testing.T) {
	for _, c := range []struct {
		typ            byte
		length         uint32
		authenticating bool
		ok             bool
	}{
		{'Q', 4, false, true}, {'Q', 3, false, false}, {'Q', 0, false, false},
		{'Q', wire.LargeMessageLimit, false, true}, {'Q', wire.LargeMessageLimit + 1, false, false},
		{'Q', 0x80000000, false, false}, {'Q', 0xffffffff, false, false},
		{'B', 1 << 29, false, true}, {'d', 1 << 29, false, true},
		{'S', 4, false, true}, {'S', wire.SmallMessageLimit, false, true}, {'S', wire.SmallMessageLimit + 1, false, false},
		{'E', 10001, false, false}, {'D', 10001, false, false}, {'C', 10001, false, false}, {'X', 10001, false, false},
		{'p', 100, false, false}, {'p', 100, true, true}, {'p', wire.AuthMessageLimit, true, true}, {'p', wire.AuthMessageLimit + 1, true, false},
		{0, 4, false, false}, {'!', 4, true, false}, {'Z', 5, false, false}, {'R', 8, true, false},
	} {
		err := wire.Header{Type: c.typ, Length: c.length}.CheckClient(c.authenticating)
		if (err == nil) != c.ok {
			t.Errorf("%q of %d, authenticating %v: %v", c.typ, c.length, c.authenticating, err)
		}
	}
	if err := (wire.Header{Type: 'D', Length: wire.ServerMessageLimit}).CheckServer(); err != nil {
		t.Error(err)
	}
	for _, l := range []uint32{0, 3, wire.ServerMessageLimit + 1, 0xffffffff} {
		if (wire.Header{Type: 'D', Length: l}).CheckServer() == nil {
			t.Errorf("a server message of %d was believed", l)
		}
	}
}

func TestReadStartup(t *testing.T) {
	packet := rt.Startup("user", "alice", "database", "db", "user", "bob", "options", "")
	s, err := wire.ReadStartup(iotest.OneByteReader(bytes.NewReader(append(packet, "more"...))))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Raw, packet) || s.Kind != wire.KindStartup || s.Major != 3 || s.Minor != 0 {
		t.Errorf("startup %+v", s)
	}
	if s.Parameters["user"] != "bob" || s.Parameters["database"] != "db" || len(s.Parameters) != 3 {
		t.Errorf("parameters %v", s.Parameters)
	}
	rest := bytes.NewReader(append(packet, "more"...))
	if _, err := wire.ReadStartup(rest); err != nil || rest.Len() != 4 {
		t.Errorf("read %d bytes too many (%v)", 4-rest.Len(), err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":       {nil, io.EOF},
		"three bytes":   {packet[:3], io.ErrUnexpectedEOF},
		"only a header": {packet[:8], io.ErrUnexpectedEOF},
		"half":          {packet[:20], io.ErrUnexpectedEOF},
		"TLS":           {[]byte{0x16, 3, 1, 0, 100, 1, 0, 0, 96}, wire.ErrDirectTLS},
	} {
		if _, err := wire.ReadStartup(bytes.NewReader(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, minor := range []uint32{0, 2, 9999} {
		s, err := wire.ReadStartup(bytes.NewReader(rt.StartupOf(3<<16|minor, "user", "alice", "_pq_.x", "1")))
		if err != nil || uint32(s.Minor) != minor || s.Parameters["_pq_.x"] != "1" {
			t.Errorf("3.%d: %+v, %v", minor, s, err)
		}
	}
	if s, err := wire.ReadStartup(bytes.NewReader(rt.Startup())); err != nil || len(s.Parameters) != 0 {
		t.Errorf("no parameters: %+v, %v", s, err)
	}
}

func TestHostileLengthsCostNothing(t *testing.T) {
	lengths := []uint32{0, 7, 10001, 1 << 20, 1 << 30, 0x7fffffff, 0x80000000, 0xffffffff}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		for _, l := range lengths {
			b := binary.BigEndian.AppendUint32(nil, l)
			b = append(b, 0, 3, 0, 0)
			if _, err := wire.ReadStartup(bytes.NewReader(b)); err == nil {
				t.Fatalf("length %d accepted", l)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated for %d refusals", n, 100*len(lengths))
	}
}

func TestLayouts(t *testing.T) {
	for name, body := range map[string]string{
		"empty":                    "",
		"value missing":            "user\x00",
		"value without end":        "user\x00alice",
		"list without terminator":  "user\x00alice\x00",
		"bytes after terminator":   "user\x00alice\x00\x00x",
		"terminator in the middle": "user\x00alice\x00\x00database\x00d\x00\x00",
	} {
		b := append(binary.BigEndian.AppendUint32(nil, uint32(8+len(body))), 0, 3, 0, 0)
		if _, err := wire.ParseStartup(append(b, body...)); err == nil || err.Code != wire.CodeProtocolViolation {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err := wire.ParseStartup(rt.Startup("user", "")); err != nil || s.Parameters["user"] != "" {
		t.Errorf("an empty value: %v", err)
	}
}

func TestKeys(t *testing.T) {
	for _, n := range []int{0, 4, 7, 261, 1000} {
		if _, err := wire.ParseKey(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes accepted", n)
		}
	}
	seen := map[wire.Key]bool{}
	random := strings.NewReader(strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", 100))
	for _, n := range []int{8, 36, 260} {
		like, err := wire.ParseKey(make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		k, err := wire.NewKey(like, 0xffff, random)
		if err != nil || len(k) != n || k.Instance() != 0x7fff || seen[k] {
			t.Errorf("key of %d: %d bytes, instance %x, %v", n, len(k), k.Instance(), err)
		}
		seen[k] = true
		s, perr := wire.ParseStartup(k.CancelRequest())
		if perr != nil || s.Kind != wire.KindCancel || s.Key != k {
			t.Errorf("cancel request of %d bytes: %v", n, perr)
		}
		data := k.AppendKeyData(nil)
		if got, err := wire.ParseKey(data[wire.HeaderSize:]); err != nil || got != k || wire.ParseHeader(data).Size() != len(data) {
			t.Errorf("key data of %d bytes: %v", n, err)
		}
	}
	if _, err := wire.NewKey(wire.Key(make([]byte, 8)), 1, strings.NewReader("")); err == nil {
		t.Error("a key without randomness")
	}
	if wire.Instance("one") == wire.Instance("two") || wire.Instance("one") > 0x7fff {
		t.Error("instances")
	}
	if s := wire.Key("secret").String(); strings.Contains(s, "secret") {
		t.Error(s)
	}
}

func TestError(t *testing.T) {
	e := wire.Fatal("57P01", "gone: %d", 7).WithHint("do %s", "this").WithDetail("nul\x00nul")
	b := e.Append([]byte("x"))[1:]
	var decoded pgproto3.ErrorResponse
	if err := decoded.Decode(b[5:]); err != nil {
		t.Fatal(err)
	}
	if decoded.Severity != "FATAL" || decoded.SeverityUnlocalized != "FATAL" || decoded.Code != "57P01" || decoded.Message != "gone: 7" || decoded.Hint != "do this" || decoded.Detail != "nul nul" {
		t.Errorf("decoded %+v", decoded)
	}
	if code, fatal := wire.PeekError(b[5:]); code != "57P01" || !fatal {
		t.Errorf("peeked %q %v", code, fatal)
	}
	if code, fatal := wire.PeekError(b[5:30]); code != "57P01" || !fatal {
		t.Errorf("peeked at the beginning: %q %v", code, fatal)
	}
	for _, bad := range []string{"", "S", "SFATAL", "SFATAL\x00", "C1\x00", "\x00more"} {
		wire.PeekError([]byte(bad))
		if _, err := wire.ParseError([]byte(bad)); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}

func FuzzStartup(f *testing.F) {
	f.Add(rt.Startup("user", "alice", "options", "-c a=b"))
	f.Add(rt.StartupOf(3<<16|9999, "_pq_.x", "y"))
	f.Add(rt.SSLRequest)
	f.Add(wire.Key("12345678").CancelRequest())
	f.Add([]byte{0x16, 3, 1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := wire.ReadStartup(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(s.Raw) > wire.MaxStartup || !bytes.HasPrefix(b, s.Raw) {
			t.Fatalf("raw %q of %q", s.Raw, b)
		}
		for k, v := range s.Parameters {
			if !bytes.Contains(s.Raw, rt.Text(k, v)) {
				t.Fatalf("%q=%q is not in %q", k, v, s.Raw)
			}
		}
		if s.Kind == wire.KindCancel && !bytes.Equal(s.Key.CancelRequest(), s.Raw) {
			t.Fatalf("cancel key %q of %q", string(s.Key), s.Raw)
		}
	})
}

func FuzzError(f *testing.F) {
	f.Add(wire.Fatal("57P01", "m").Append(nil)[5:])
	f.Add([]byte("SERROR\x00C4"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, fatal := wire.PeekError(b)
		e, err := wire.ParseError(b)
		if err != nil {
			return
		}
		if len(e.Code) == 5 && e.Code != code {
			t.Fatalf("%q and %q from %q", code, e.Code, b)
		}
		_ = fatal
		if again, err := wire.ParseError(e.Append(nil)[5:]); err != nil || again != e {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
