package route_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/router/route"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		params   map[string]string
		listener route.Route
		want     route.Route
	}{
		{nil, route.Auto, route.Auto},
		{nil, route.RW, route.RW},
		{nil, route.RO, route.RO},
		{map[string]string{"howdah.route": "ro"}, route.RW, route.RO},
		{map[string]string{"howdah.route": "AUTO"}, route.RO, route.Auto},
		{map[string]string{"HowDah.Route": "Master"}, route.RO, route.RW},
		{map[string]string{"howdah.route": "primary"}, route.RO, route.RW},
		{map[string]string{"howdah.route": "standby"}, route.RW, route.RO},
		{map[string]string{"howdah.route": "replica"}, route.RW, route.RO},
		{map[string]string{"options": "-c howdah.route=ro"}, route.Auto, route.RO},
		{map[string]string{"options": "-chowdah.route=ro"}, route.Auto, route.RO},
		{map[string]string{"options": "--howdah.route=ro"}, route.Auto, route.RO},
		{map[string]string{"options": `-c\ howdah.route=ro`}, route.Auto, route.Auto}, // the name begins with a space
		{map[string]string{"options": `-c howd\ah.route=r\o`}, route.Auto, route.RO},
		{map[string]string{"options": "-c howdah.route=ro -c howdah.route=rw"}, route.Auto, route.RW},
		{map[string]string{"options": "-c howdah.route=ro", "howdah.route": "rw"}, route.Auto, route.RW},
		{map[string]string{"options": "-c geqo=off"}, route.RO, route.RO},
		{map[string]string{"default_transaction_read_only": "on"}, route.Auto, route.RO},
		{map[string]string{"default_transaction_read_only": "tr"}, route.Auto, route.RO},
		{map[string]string{"default_transaction_read_only": "off"}, route.Auto, route.Auto},
		{map[string]string{"default_transaction_read_only": "nonsense"}, route.Auto, route.Auto}, // the server refuses it
		{map[string]string{"default_transaction_read_only": "on"}, route.RW, route.RW},
		{map[string]string{"default_transaction_read_only": "on", "howdah.route": "rw"}, route.Auto, route.RW},
		{map[string]string{"options": "-c default_transaction_read_only=1"}, route.Auto, route.RO},
		{map[string]string{"options": "--default-transaction-read-only=YES"}, route.Auto, route.RO},
		{map[string]string{"options": "-c Default_Transaction_Read_Only=on", "default_transaction_read_only": "no"}, route.Auto, route.Auto},
	} {
		got, _, err := route.Of(c.params, c.listener)
		if err != nil || got != c.want {
			t.Errorf("%v on %s: %q, %v; want %q", c.params, c.listener, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "both", "ro ", "read-only"} {
		_, _, err := route.Of(map[string]string{"howdah.route": bad}, route.RW)
		var e *route.ErrRoute
		if !errors.As(err, &e) || e.Value != bad || !strings.Contains(e.Hint(), "standby") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSettings(t *testing.T) {
	for options, want := range map[string]map[string]string{
		"":                               nil,
		"   ":                            {},
		"-c a=b":                         {"a": "b"},
		"-c a=b=c --d-e=f":               {"a": "b=c", "d_e": "f"},
		"-ca=b":                          {"a": "b"},
		"-n -E -c a=b":                   {"a": "b"},
		"-nEc a=b":                       {"a": "b"},
		"-S 64 -c a=b":                   {"a": "b"},
		"-S64 -c a=b":                    {"a": "b"},
		"-d -c -c a=b":                   {"a": "b"}, // -c is the argument of -d
		"-c a":                           {},
		"-c":                             {},
		"-c a=b stray -c c=d":            {"a": "b"},
		"-- -c a=b":                      {},
		`-c a=b\ c`:                      {"a": "b c"},
		`-c a=b\\c`:                      {"a": `b\c`},
		"-c\ta=b\n-c\vc=d\r\f-c e=f":     {"a": "b", "c": "d", "e": "f"},
		"-c search_path=x,y -c A-B=1":    {"search_path": "x,y", "a_b": "1"},
		"-c a= ":                         {"a": ""},
		`-c a=trailing\`:                 {"a": "trailing"},
		"-c work_mem=1MB -c work_mem=2M": {"work_mem": "2M"},
	} {
		if d := cmp.Diff(want, route.Settings(options)); d != "" {
			t.Errorf("%q: %s", options, d)
		}
	}
}

func TestParseBool(t *testing.T) {
	for s, want := range map[string]string{
		"on": "true", "ON": "true", "off": "false", "of": "false", "o": "", "true": "true", "t": "true", "TrU": "true",
		"truex": "", "false": "false", "f": "false", "yes": "true", "y": "true", "no": "false", "n": "false", "1": "true",
		"0": "false", "10": "", "": "", "2": "", "onn": "", "maybe": "",
	} {
		v, ok := route.ParseBool(s)
		got := ""
		if ok {
			got = map[bool]string{true: "true", false: "false"}[v]
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestPick(t *testing.T) {
	b := route.Bound{Bytes: 100, Time: time.Second}
	for name, c := range map[string]struct {
		candidates []route.Candidate
		want       string
	}{
		"nobody":              {nil, ""},
		"fewest sessions":     {[]route.Candidate{{Member: "a", Sessions: 2}, {Member: "b", Sessions: 1}}, "b"},
		"then least stale":    {[]route.Candidate{{Member: "a", LagBytes: 10}, {Member: "b", LagBytes: 5}}, "b"},
		"then by name":        {[]route.Candidate{{Member: "b"}, {Member: "a"}}, "a"},
		"too many bytes":      {[]route.Candidate{{Member: "a", LagBytes: 101}, {Member: "b", Sessions: 9, LagBytes: 100}}, "b"},
		"too long":            {[]route.Candidate{{Member: "a", LagTime: 1001 * time.Millisecond}, {Member: "b", Sessions: 9, LagTime: time.Second}}, "b"},
		"no load balance":     {[]route.Candidate{{Member: "a", NoLoadBalance: true}}, ""},
		"all of them too old": {[]route.Candidate{{Member: "a", LagBytes: 1 << 40}, {Member: "b", LagTime: time.Hour}}, ""},
	} {
		got := ""
		if i := route.Pick(c.candidates, b); i >= 0 {
			got = c.candidates[i].Member
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The order in which candidates are listed must not matter, and sessions must spread evenly.
func TestPickSpreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		cs := make([]route.Candidate, 1+rng.IntN(5))
		for i := range cs {
			cs[i] = route.Candidate{Member: string(rune('a' + i)), LagBytes: rng.Uint64N(3)}
		}
		for range 50 {
			i := route.Pick(cs, route.Bound{})
			shuffled := slices.Clone(cs)
			rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if j := route.Pick(shuffled, route.Bound{}); shuffled[j].Member != cs[i].Member {
				t.Fatalf("%v picks %s or %s", cs, cs[i].Member, shuffled[j].Member)
			}
			cs[i].Sessions++
		}
		lo, hi := cs[0].Sessions, cs[0].Sessions
		for _, c := range cs {
			lo, hi = min(lo, c.Sessions), max(hi, c.Sessions)
		}
		if hi-lo > 1 {
			t.Fatalf("uneven: %v", cs)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("-c howdah.route=ro --a-b=c")
	f.Add(`-d\ x -c a\=b -nEc q=1`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range route.SplitOptions(s) {
			if len(a) > len(s) {
				t.Fatalf("%q is longer than %q", a, s)
			}
		}
		for k := range route.Settings(s) {
			if strings.ContainsAny(k, "-=") {
				t.Fatalf("name %q from %q", k, s)
			}
		}
		route.Of(map[string]string{"options": s}, route.Auto)
	})
}
