package rule

import (
	"net/netip"
	"strings"
	"testing"
)

func parseLimits(t *testing.T, lines ...string) []Limit {
	t.Helper()
	var limits []Limit
	for _, line := range lines {
		l, err := ParseLimit(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		limits = append(limits, l)
	}
	return limits
}

func TestLimits(t *testing.T) {
	limits := parseLimits(t,
		"user alice, bob 20   # each of them",
		`user "all","Ödön x" 3`,
		"user monitor unlimited",
		"address 10.1.2.3 7",
		"address 10.0.0.0/8,fd00::/8 50",
		"database app 100",
		"user all 5",
		"database all,x 10",
	)
	for _, c := range []struct {
		kind LimitKind
		name string
		want int
	}{
		{LimitUser, "alice", 20},
		{LimitUser, "bob", 20},
		{LimitUser, "all", 3}, // quoted, a name
		{LimitUser, "Ödön x", 3},
		{LimitUser, "ödön x", 5},
		{LimitUser, "monitor", 0},
		{LimitUser, "app", 5},
		{LimitDatabase, "app", 100},
		{LimitDatabase, "alice", 10},
		{LimitDatabase, "x", 10},
	} {
		if got := MaxOf(limits, c.kind, c.name); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.kind, c.name, got, c.want)
		}
	}
	for address, want := range map[string]int{
		"10.1.2.3": 7, "::ffff:10.1.2.3": 7, "10.1.2.4": 50, "11.1.2.3": 0, "fd00::1": 50, "fd00::1%eth0": 50, "fe80::1": 0,
	} {
		if got := MaxOfAddress(limits, netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %d, want %d", address, got, want)
		}
	}
	if got := MaxOfAddress(parseLimits(t, "address all 9"), netip.Addr{}); got != 0 {
		t.Errorf("a client without an address: %d", got)
	}
	if got := MaxOf(nil, LimitUser, "alice"); got != 0 {
		t.Errorf("no lines at all: %d", got)
	}
}

func TestParseLimitRefuses(t *testing.T) {
	long := strings.Repeat("a", MaxName+1)
	for line, want := range map[string]string{
		"":                        "0 fields",
		"# user alice 5":          "0 fields",
		"user alice":              "2 fields",
		"user alice 5 6":          "4 fields",
		"user alice 5,6":          "a list where one word belongs",
		"user,database alice 5":   "a list where one word belongs",
		"role alice 5":            "choose user, database or address",
		"user alice 0":            "choose from 1 to 1000000, or unlimited",
		"user alice -1":           "choose from 1 to 1000000",
		"user alice 1000001":      "choose from 1 to 1000000",
		"user alice many":         "choose from 1 to 1000000",
		"user +staff 5":           "which is no name",
		"user /^a 5":              "which is no name",
		"user @file 5":            "which is no name",
		"database sameuser 5":     "which is no name",
		"database replication 5":  "which is no name",
		"database " + long + " 5": "longer than any name",
		"address 10.0.0.1/8 5":    "did you mean 10.0.0.0/8",
		"address localhost 5":     "want all, an address",
		"address 10.0.0.0/33 5":   "want all, an address",
		`user "alice 5`:           "without its pair",
		"user alice\n5":           "one line",
	} {
		if l, err := ParseLimit(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", line, l, err, want)
		}
	}
	parseLimits(t, "user "+long[1:]+" 5", `database "replication" 1000000`, `user "+staff" 1`)
}

func FuzzParseLimit(f *testing.F) {
	f.Add(`user "a b",alice, all 10 # so`)
	f.Add("address 10.0.0.0/8,fd00::1 unlimited")
	f.Fuzz(func(t *testing.T, line string) {
		l, err := ParseLimit(line)
		if err != nil {
			return
		}
		if l.Max < 0 || l.Max > maxClients || !l.All && len(l.names)+len(l.networks) == 0 || l.Kind == LimitAddress && len(l.names) > 0 {
			t.Fatalf("%q: %+v", line, l)
		}
		for _, w := range l.names {
			if MaxOf([]Limit{l}, l.Kind, w.text) != l.Max {
				t.Fatalf("%q is not for %q", line, w.text)
			}
		}
		for _, p := range l.networks {
			if MaxOfAddress([]Limit{l}, p.Addr()) != l.Max {
				t.Fatalf("%q is not for %s", line, p)
			}
		}
		if again, err := ParseLimit(line + " # x"); err != nil || again.Kind != l.Kind || again.Max != l.Max {
			t.Fatalf("%q with a comment: %v", line, err)
		}
	})
}
