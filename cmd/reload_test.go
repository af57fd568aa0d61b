package cmd

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestReload(t *testing.T) {
	for name, c := range map[string]struct {
		members []string
		reports map[string]schema.ReloadReport
		token   string
		asked   string
		says    []string // in what is printed
		fails   string   // in the error
	}{
		"all":    {asked: "reload a, reload b, reload c", says: []string{"a: reloaded\nb: reloaded\nc: reloaded\n"}},
		"one":    {members: []string{"b"}, asked: "reload b", says: []string{"b: reloaded\n"}},
		"nobody": {members: []string{"b", "x"}, fails: `no member "x"`},
		"a mistake in a file": {reports: map[string]schema.ReloadReport{"b": {Mistakes: []schema.FileMistake{
			{File: "/data/postgresql.conf", Line: 7, Setting: "work_mem", Error: "setting could not be applied"}, {File: "/data/pg_hba.conf", Line: 9, Error: "invalid method"}}}},
			asked: "reload a, reload b, reload c", fails: "on: b",
			says: []string{"b: /data/postgresql.conf, line 7, work_mem: setting could not be applied\n", "b: /data/pg_hba.conf, line 9: invalid method\n", "c: reloaded"}},
		"a restart that is due is no failure": {members: []string{"a"}, reports: map[string]schema.ReloadReport{"a": {PendingRestart: []string{"max_connections", "port"}}},
			asked: "reload a", says: []string{"a: reloaded\na: waits for a restart (howdah restart --pending): max_connections, port\n"}},
		"options that are wrong": {members: []string{"a"}, reports: map[string]schema.ReloadReport{"a": {Options: "priority: no number"}},
			asked: "reload a", fails: "on: a", says: []string{"a: its options stay as they were: priority: no number\na: reloaded\n"}},
		"postgres is not there": {members: []string{"a"}, reports: map[string]schema.ReloadReport{"a": {Postgres: "no postgres runs"}},
			asked: "reload a", fails: "on: a", says: []string{"a: postgres: no postgres runs\n"}},
		"a wrong token": {members: []string{"a"}, token: "other", fails: "on: a", says: []string{"a: not reloaded: the token is not this cluster's; that is the file api.token"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			members := newCluster(t, "a", "b", "c")
			members.reports = c.reports
			stdio, out, _ := testStdio()
			r := NewReload(stdio)
			r.API, r.APIToken = []string{members.addresses["c"]}, apiToken
			if c.token != "" {
				r.APIToken = "other"
			}
			if err := r.Arguments(c.members); err != nil {
				t.Fatal(err)
			}
			err := r.Run(testContext(t))
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("error %v, want %q", err, c.fails)
			}
			slices.Sort(members.ordered) // all are asked at the same time
			if got := strings.Join(members.ordered, ", "); got != c.asked {
				t.Errorf("asked %s, want %s", got, c.asked)
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("want %q in\n%s", want, out)
				}
			}
		})
	}
	members := newCluster(t, "a", "b")
	members.reports = map[string]schema.ReloadReport{"b": {Mistakes: []schema.FileMistake{{File: "/data/pg_hba.conf", Line: 9, Error: "invalid method"}}}}
	stdio, out, _ := testStdio()
	r := NewReload(stdio)
	r.API, r.APIToken, r.Output = []string{members.addresses["a"]}, apiToken, "json"
	if err := r.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "on: b") {
		t.Errorf("a mistake is no error: %v", err)
	}
	var all []reloaded
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil || len(all) != 2 || all[0].Member != "a" || all[0].Failed() || !reflect.DeepEqual(all[1], reloaded{Member: "b", ReloadReport: members.reports["b"]}) {
		t.Errorf("%v: %+v in %s", err, all, out)
	}
	if err := NewReload(Stdio{}).Arguments([]string{"../x"}); err == nil {
		t.Error("../x is taken for a name")
	}
}
