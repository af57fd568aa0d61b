package split

import (
	"bytes"
	"strings"
	"testing"

	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// follow shows a Reply the standby's answer in pieces of size bytes, and returns what the client gets and how it ends.
func follow(t *testing.T, r *Reply, answer []byte, size int) (told []byte, end ReplyVerb, code string) {
	t.Helper()
	var held []byte
	for len(answer) > 0 {
		n := min(size, len(answer), r.Longest-len(held))
		held, answer = append(held, answer[:n]...), answer[n:]
		for more := true; more; {
			o := r.FromServer(held)
			switch o.Verb {
			case Send, Finished:
				told = append(told, held[:o.N]...)
				held = append([]byte(nil), held[o.N:]...)
			case Drop:
				held = append(append([]byte(nil), held[:o.At]...), held[o.At+o.N:]...)
			}
			if o.Verb == Finished || o.Verb == Repeat || o.Verb == Lost {
				return told, o.Verb, o.Code
			}
			more = o.Verb != Need
			if !more && len(held) >= r.Longest && r.left == 0 {
				t.Fatal("wants more than it may hold")
			}
		}
	}
	return told, Need, ""
}

func TestReply(t *testing.T) {
	row := rt.Row("1")
	done := bytes.Join([][]byte{rt.Complete("SELECT 1"), rt.Ready('I')}, nil)
	described := bytes.Join([][]byte{rt.Message('1'), rt.Message('2'), rt.RowDescription("n")}, nil)
	for name, c := range map[string]struct {
		hidden int
		answer [][]byte
		told   [][]byte
		end    ReplyVerb
		code   string
	}{
		"a query":              {0, [][]byte{rt.RowDescription("n"), row, done}, [][]byte{rt.RowDescription("n"), row, done}, Finished, ""},
		"a batch":              {0, [][]byte{described, row, done}, [][]byte{described, row, done}, Finished, ""},
		"made there first":     {2, [][]byte{rt.Message('3'), rt.Message('1'), rt.Message('2'), row, done}, [][]byte{rt.Message('2'), row, done}, Finished, ""},
		"no rows":              {0, [][]byte{described, done}, [][]byte{described, done}, Finished, ""},
		"it writes":            {0, [][]byte{described, rt.Error("25006", "read only"), rt.Ready('I')}, nil, Repeat, "25006"},
		"a conflict":           {0, [][]byte{described, rt.Error("40001", "conflict with recovery"), rt.Ready('I')}, nil, Repeat, "40001"},
		"made there in vain":   {2, [][]byte{rt.Message('3'), rt.Error("42P01", "no table"), rt.Ready('I')}, nil, Repeat, "42P01"},
		"it stops":             {0, [][]byte{rt.Fatal("57P01", "stopping")}, nil, Repeat, "57P01"},
		"cancelled":            {0, [][]byte{described, rt.Error("57014", "canceled"), rt.Ready('I')}, [][]byte{described, rt.Error("57014", "canceled"), rt.Ready('I')}, Finished, ""},
		"an error after a row": {0, [][]byte{described, row, rt.Error("22012", "division by zero"), rt.Ready('I')}, [][]byte{described, row, rt.Error("22012", "division by zero"), rt.Ready('I')}, Finished, ""},
		"it stops after a row": {0, [][]byte{described, row, rt.Fatal("57P01", "stopping")}, [][]byte{described, row}, Lost, "57P01"},
		"its own settings":     {0, [][]byte{rt.ParameterStatus("in_hot_standby", "on"), described, rt.ParameterStatus("a", "b"), row, rt.ParameterStatus("c", "d"), done}, [][]byte{described, row, done}, Finished, ""},
		"notices":              {0, [][]byte{rt.Notice("careful"), described, row, done}, [][]byte{rt.Notice("careful"), described, row, done}, Finished, ""},
		"a copy out":           {0, [][]byte{rt.Message('H', []byte{0, 0, 0}), rt.CopyData([]byte("x\n")), rt.Message('c'), done}, [][]byte{rt.Message('H', []byte{0, 0, 0}), rt.CopyData([]byte("x\n")), rt.Message('c'), done}, Finished, ""},
		"a big row":            {0, [][]byte{described, rt.Row(strings.Repeat("x", 20000)), done}, [][]byte{described, rt.Row(strings.Repeat("x", 20000)), done}, Finished, ""},
		"more descriptions than can be held": {0, [][]byte{bytes.Repeat(described, 40), rt.Error("25006", "read only"), rt.Ready('I')},
			[][]byte{bytes.Repeat(described, 40), rt.Error("25006", "read only"), rt.Ready('I')}, Finished, ""},
		"not the protocol": {0, [][]byte{{'T', 0xff, 0xff, 0xff, 0xff, 0}}, nil, Repeat, wire.CodeProtocolViolation},
		"two answers":      {0, [][]byte{described, row, rt.Complete("SELECT 1"), rt.RowDescription("m"), row, done}, [][]byte{described, row, rt.Complete("SELECT 1"), rt.RowDescription("m"), row, done}, Finished, ""},
	} {
		for _, size := range []int{1, 3, 50, 1 << 20} {
			r := &Reply{Hidden: c.hidden, Longest: 1024}
			told, end, code := follow(t, r, bytes.Join(c.answer, nil), size)
			if passed := bytes.Contains(told, []byte("SERROR\x00")); r.Failed() != passed {
				t.Errorf("%s: failed: %t, an error went to the client: %t", name, r.Failed(), passed)
			}
			if want := bytes.Join(c.told, nil); !bytes.Equal(told, want) || end != c.end || code != c.code {
				t.Errorf("%s, %d bytes at a time: %q, end %d %s; want %q, %d %s", name, size, told, end, code, want, c.end, c.code)
			}
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(append(append(rt.RowDescription("n"), rt.Row("1")...), append(rt.Complete("SELECT 1"), rt.Ready('I')...)...), uint8(3), uint8(0))
	f.Add(append(rt.Message('1'), rt.Error("25006", "x")...), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, answer []byte, size, hidden uint8) {
		n := int(size)%64 + 1
		a, b := &Reply{Hidden: int(hidden % 4), Longest: 1024}, &Reply{Hidden: int(hidden % 4), Longest: 1024}
		told, end, _ := follow(t, a, answer, n)
		again, end2, _ := follow(t, b, answer, n+7)
		if end != Need && end2 != Need && len(answer) < 1000 && (!bytes.Equal(told, again) || end != end2) {
			t.Fatalf("%q %d, or %q %d", told, end, again, end2)
		}
		if end == Repeat && len(told) > 0 {
			t.Fatal("repeated after the client was told something")
		}
	})
}
