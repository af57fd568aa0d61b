package rule

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	var rules []Rule
	for _, line := range []string{
		"host replication walker 10.0.0.0/8 pass-through",
		"hostnossl all all 192.168.0.0/16 reject   # in clear only from nearby",
		`host app,"all" alice, bob all scram-sha-256`,
		"host sameuser all fd00::/8 scram-sha-256",
		"hostssl all all 10.1.2.3 pass-through",
		"host all \"Ödön x\" all reject",
	} {
		r, err := Parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rules = append(rules, r)
	}
	for _, c := range []struct {
		address        string
		tls            bool
		user, database string
		replication    bool
		want           Method
	}{
		{"10.9.9.9", false, "walker", "", true, PassThrough},
		{"10.9.9.9", false, "walker", "replication", false, ""}, // a database of that name is not meant
		{"11.9.9.9", false, "walker", "", true, ""},
		{"192.168.3.4", false, "alice", "app", false, Reject},
		{"192.168.3.4", true, "alice", "app", false, SCRAM},
		{"::ffff:192.168.3.4", false, "alice", "app", false, Reject},
		{"127.0.0.1", false, "alice", "app", false, SCRAM},
		{"127.0.0.1", false, "bob", "all", false, SCRAM}, // quoted, a name
		{"127.0.0.1", false, "bob", "other", false, ""},
		{"127.0.0.1", false, "alice", "", true, ""},
		{"fd00::1", false, "carol", "carol", false, SCRAM},
		{"fd00::1", false, "carol", "sameuser", false, ""},
		{"10.1.2.3", true, "carol", "x", false, PassThrough},
		{"10.1.2.3", false, "carol", "x", false, ""},
		{"10.1.2.4", true, "carol", "x", false, ""},
		{"127.0.0.1", true, "Ödön x", "x", false, Reject},
		{"127.0.0.1", true, "ödön x", "x", false, ""},
	} {
		got, ok := Find(rules, Client{Address: netip.MustParseAddr(c.address), TLS: c.tls, User: c.user, Database: c.database, Replication: c.replication})
		if got.Method != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q", c, got.Method)
		}
	}
	for _, c := range []struct {
		user  string
		local bool
		want  Method
	}{{"alice", true, Peer}, {"bob", true, ""}, {"alice", false, SCRAM}, {"bob", false, SCRAM}} {
		var rules []Rule
		for _, line := range []string{"local all alice peer", "host all all all scram-sha-256"} {
			r, err := Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, r)
		}
		if got, _ := Find(rules, Client{Local: c.local, User: c.user, Database: "x", Address: netip.MustParseAddr("10.1.1.1")}); got.Method != c.want {
			t.Errorf("%+v: %q", c, got.Method)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                               "0 fields",
		"# host all all all reject":      "0 fields",
		"host all all reject":            "4 fields",
		"host all all all reject map=x":  "for the methods cert and peer only",
		"hostssl all all all reject x":   "choose clientcert=verify-ca",
		"hostssl all all all reject x=y": "choose clientcert=verify-ca",

		"host all all all cert":                                      "begin with hostssl",
		"hostnossl all all all cert":                                 "begin with hostssl",
		"host all all all scram-sha-256 clientcert=verify-ca":        "begin with hostssl",
		"host all all all scram-sha-256 clientname=CN":               "begin with hostssl",
		"hostssl all all all scram-sha-256 map=x":                    "for the methods cert and peer only",
		"hostssl all all all scram-sha-256 clientcert=verify-full,1": "choose clientcert",
		"hostssl all all all scram-sha-256 clientcert=1":             "choose verify-ca or verify-full",
		"hostssl all all all cert clientcert=verify-ca":              "verify-full always",
		"hostssl all all all cert clientname=cn":                     "choose CN or DN",
		"local all all all reject":                                   "has the method \"all\"",
		"host all all all peer":                                      "must begin with local",
		"local all all all scram-sha-256":                            "has the method \"all\"",
		"local all all cert":                                         "must begin with hostssl",
		"local all all scram-sha-256 clientcert=verify-ca":           "must begin with hostssl",
		"host all all all ldap":                                      `choose one of ["scram-sha-256"`,
		"host all all all reject,reject":                             "lists are for databases and users",
		"host all all 10.0.0.1/8 reject":                             "did you mean 10.0.0.0/8",
		"host all all 10.0.0.0/33 reject":                            "want all, an address",
		"host all all samehost reject":                               "want all, an address",
		"host all all ::ffff:1.2.3.4/96 reject":                      "want all, an address",
		"host all all fe80::1%eth0 reject":                           "want all, an address",
		"host all all all password":                                  "must begin with hostssl",
		"hostnossl all all all password":                             "must begin with hostssl",
		"host samerole all all reject":                               "cannot know",
		"host all +staff all reject":                                 "cannot know",
		"host @file all all reject":                                  "cannot know",
		"host all \"x all reject":                                    "without its pair",
		"host all all\nall reject":                                   "one line",
		"host all \xff all reject":                                   "one line",
	} {
		if r, err := Parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", line, r, err, want)
		}
	}
}

func TestCertificateOptions(t *testing.T) {
	for line, want := range map[string]Certificate{
		"hostssl all all all scram-sha-256":                                             {},
		"hostssl all all all scram-sha-256 clientcert=verify-ca":                        {Wanted: true},
		"hostssl all all all pass-through clientcert=verify-full":                       {Wanted: true, Named: true},
		"hostssl all all all scram-sha-256 clientcert=verify-ca clientcert=verify-full": {Wanted: true, Named: true},
		"hostssl all all all scram-sha-256 clientcert=verify-full clientcert=verify-ca": {Wanted: true},
		"hostssl all all all scram-sha-256 clientcert=verify-full, clientname=DN":       {Wanted: true, Named: true, DN: true},
		"hostssl all all all password clientcert=verify-ca":                             {Wanted: true},
		"hostssl all all all trust clientcert=verify-full":                              {Wanted: true, Named: true},
		"host all all all md5":     {},
		"hostssl all all all cert": {Wanted: true, Named: true},
		`hostssl all all all cert map="the map" clientname=DN clientcert=verify-full # so`: {Wanted: true, Named: true, DN: true, Map: "the map"},
		"hostssl all all all cert clientname=DN map=":                                      {Wanted: true, Named: true, DN: true},
		"hostssl all all all cert clientname=DN clientname=CN map=a map=b":                 {Wanted: true, Named: true, Map: "b"},
	} {
		if r, err := Parse(line); err != nil || r.Certificate != want {
			t.Errorf("%s: %+v, %v, want %+v", line, r.Certificate, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`hostssl all,"a b" alice, bob 10.0.0.0/8 scram-sha-256 # so`)
	f.Fuzz(func(t *testing.T, line string) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		if len(r.databases) == 0 || len(r.users) == 0 {
			t.Fatalf("%q matches nobody: %+v", line, r)
		}
		if again, err := Parse(line + " # x"); err != nil || again.Method != r.Method {
			t.Fatalf("%q with a comment: %v", line, err)
		}
	})
}
