package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/consul"
	"howdah/consul/consultest"
	"howdah/consul/schema"
)

// configured is a cluster in an embedded Consul with the default configuration.
func configured(t *testing.T, members ...string) (*cluster, *consul.Client, ConsulAccess) {
	c := newCluster(t, members...)
	address := consultest.StartEmbedded(t)
	client := register(t, c, address)
	if err := client.PutConfig(testContext(t), schema.DefaultClusterConfig(), 0); err != nil {
		t.Fatal(err)
	}
	return c, client, ConsulAccess{Cluster: "main", Consul: ConsulOptions{Addr: address}}
}

func readConfig(t *testing.T, client *consul.Client) schema.ClusterConfig {
	t.Helper()
	s, err := client.ReadState(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return s.Config.Value
}

func TestAssign(t *testing.T) {
	for name, c := range map[string]struct {
		words   []string
		changes []string
		says    string
	}{
		"a duration":            {words: []string{"lease=5s"}, changes: []string{"lease: 3s -> 5s"}},
		"a number":              {words: []string{"maximum_lag_on_failover=0"}, changes: []string{"maximum_lag_on_failover: 1048576 -> 0"}},
		"a parameter":           {words: []string{"parameters.work_mem=64MB", "parameters.jit=on"}, changes: []string{"parameters.jit: set to on", "parameters.work_mem: set to 64MB"}},
		"a parameter with =":    {words: []string{"parameters.log_line_prefix=a=%p b"}, changes: []string{"parameters.log_line_prefix: set to a=%p b"}},
		"taken away":            {words: []string{"parameters.old=null"}, changes: []string{"parameters.old: removed, was 1"}},
		"all parameters":        {words: []string{"parameters={work_mem: 4, jit: off}"}, changes: []string{"parameters.jit: set to false", "parameters.old: removed, was 1", "parameters.work_mem: set to 4"}},
		"default again":         {words: []string{"stop_timeout=null"}, changes: []string{"stop_timeout: 1m0s -> 30s"}},
		"all taken away":        {words: []string{"parameters=null"}, changes: []string{"parameters.old: removed, was 1"}},
		"a slot":                {words: []string{"slots.backup={type: physical}", "slots.feed={type: physical}", "slots.feed=null"}, changes: []string{`slots: set to {"backup":{"type":"physical"}}`}},
		"a slot that is wrong":  {words: []string{"slots.howdah_pg1={type: physical}"}, says: "members' own slots"},
		"a slot that is not":    {words: []string{"slots.backup=null"}, says: "nothing to take away"},
		"a slot without a type": {words: []string{"slots.backup=physical"}, says: "want {type: physical}"},
		"null of no key":        {words: []string{"leese=null"}, says: "leese: there is no such key"},
		"hba":                   {words: []string{`hba=["host all all samenet scram-sha-256"]`}, changes: []string{"hba: - host all all 0.0.0.0/0 scram-sha-256", "hba: - host all all ::/0 scram-sha-256", "hba: + host all all samenet scram-sha-256"}},
		"no such key":           {words: []string{"leese=5s"}, says: "leese: there is no such key; choose from "},
		"a setting at the root": {words: []string{"work_mem=64MB"}, says: "settings of PostgreSQL stand under parameters"},
		"not a duration":        {words: []string{"lease=5"}, says: "want a quoted number with a unit"},
		"not a number":          {words: []string{"max_staleness_bytes=16MB"}, says: `max_staleness_bytes: "16MB" is not allowed; want a whole number`},
		"out of bounds":         {words: []string{"lease=1ms"}, says: "lease: 1ms is not allowed; choose from 1s to 1m0s"},
		"ruled":                 {words: []string{"parameters.port=1"}, says: "port cannot be set here"},
		"ruled in postgres":     {words: []string{"parameters.recovery_target=immediate"}, says: "recovery_target cannot be set here"},
		"bad hba":               {words: []string{"hba=[nonsense]"}, says: "nonsense"},
		"not set":               {words: []string{"parameters.nothing=null"}, says: "is not set"},
		"a remote":              {words: []string{"follow={host: db1, port: 5432}"}, changes: []string{`follow: set to {"host":"db1","port":5432}`}},
		"a remote by its name":  {words: []string{"follow=db1"}, says: "want its keys in braces, such as {host: db1.example.com, port: 5432}"},
		"no such key of it":     {words: []string{"follow={host: db1, port: 5432, password: x}"}, says: "password"},
		"a remote without port": {words: []string{"follow={host: db1}"}, says: "follow: the port 0 is not allowed"},
		"no value":              {words: []string{"lease"}, says: "want KEY=VALUE"},
		"two mistakes":          {words: []string{"leese=1s", "lease=x"}, says: "leese: there is no such key"},
	} {
		t.Run(name, func(t *testing.T) {
			before := schema.DefaultClusterConfig()
			before.Parameters, before.StopTimeout = map[string]string{"old": "1"}, schema.Duration(60e9)
			kept := before.Changes(before)
			after, err := (&ConfigSet{Words: c.words}).changed(before)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "nothing was changed") {
					t.Errorf("want %q, got %v", c.says, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.changes, before.Changes(after)); diff != "" {
				t.Error(diff)
			}
			if len(kept) > 0 || before.Parameters["old"] != "1" {
				t.Error("the old configuration was written over")
			}
		})
	}
}

// What is not given of a remote is not kept, and without one the cluster follows nobody.
func TestAssignFollow(t *testing.T) {
	config := schema.DefaultClusterConfig()
	config.Follow = schema.Remote{Host: "db1", Port: 5432, Slot: "s"}
	after, err := (&ConfigSet{Words: []string{"follow={host: db2, port: 5433}"}}).changed(config)
	if want := (schema.Remote{Host: "db2", Port: 5433}); err != nil || after.Follow != want {
		t.Errorf("%+v, %v", after.Follow, err)
	}
	if after, err = (&ConfigSet{Words: []string{"follow=null"}}).changed(config); err != nil || after.Follow.Set() {
		t.Errorf("%+v, %v", after.Follow, err)
	}
}

func TestAClusterWithDataDoesNotBeginToFollow(t *testing.T) {
	_, client, access := configured(t, "a")
	stdio, _, _ := testStdio()
	set := NewConfigSet(stdio)
	set.ConsulAccess, set.Words = access, []string{"follow={host: db1, port: 5432}"}
	if err := set.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "has data of its own") || readConfig(t, client).Follow.Set() {
		t.Errorf("got %v", err)
	}
}

func TestConfigSetKeepsAHistory(t *testing.T) {
	_, client, access := configured(t, "a")
	stdio, out, _ := testStdio()
	for _, words := range [][]string{{"lease=5s", "parameters.work_mem=64MB"}, {"lease=5s"}, {"parameters.work_mem=null"}} {
		set := NewConfigSet(stdio)
		set.ConsulAccess, set.Words = access, words
		if err := set.Run(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if got := readConfig(t, client); got.Lease.String() != "5s" || len(got.Parameters) != 0 {
		t.Errorf("got %+v", got)
	}
	if !strings.Contains(out.String(), "lease: 3s -> 5s\n") || !strings.Contains(out.String(), "it is so already") {
		t.Error(out)
	}
	show := NewConfigShow(stdio)
	show.ConsulAccess, show.History = access, true
	out.Reset()
	if err := show.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "@") != 2 || !strings.Contains(out.String(), "parameters.work_mem: removed, was 64MB") {
		t.Error(out)
	}
	show.History = false
	out.Reset()
	if err := show.Run(testContext(t)); err != nil || !strings.HasPrefix(out.String(), "lease: 5s\nsession_ttl: 10s\n") {
		t.Errorf("%v\n%s", err, out)
	}
	// What show prints is what edit and --bootstrap-config read.
	again := schema.ClusterConfig{}
	if err := readClusterConfig([]byte(out.String()), &again); err != nil || len(again.Changes(readConfig(t, client))) > 0 {
		t.Errorf("%v, %v", err, again.Changes(readConfig(t, client)))
	}
}

func TestConfigChangeIsConditional(t *testing.T) {
	_, client, access := configured(t, "a")
	_, stale, err := access.open(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	stdio, _, _ := testStdio()
	set := NewConfigSet(stdio)
	set.ConsulAccess, set.Words = access, []string{"lease=5s"}
	if err := set.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	after := stale.Config.Value
	after.Lease = schema.Duration(7e9)
	if err := changeConfig(testContext(t), stdio, client, stale, after); !errors.Is(err, consul.ErrConflict) {
		t.Errorf("got %v", err)
	}
	h, err := client.ReadConfigHistory(testContext(t))
	if err != nil || len(h.Value.Changes) != 1 {
		t.Errorf("a change that was refused stands in the history: %+v, %v", h, err)
	}
}

// editor writes a script that stands for an editor: at its n-th call it runs the n-th line on the file "$1".
func editor(t *testing.T, calls ...string) string {
	dir := t.TempDir()
	script := "n=$(cat " + dir + "/n 2>/dev/null || echo 0); n=$((n+1)); echo $n >" + dir + "/n; cp \"$1\" " + dir + "/seen$n\ncase $n in\n"
	for i, c := range calls {
		script += string(rune('1'+i)) + ") " + c + ";;\n"
	}
	file := filepath.Join(dir, "editor.sh")
	if err := os.WriteFile(file, []byte(script+"esac\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "/bin/sh " + file
}

func TestConfigEdit(t *testing.T) {
	for name, c := range map[string]struct {
		calls    []string
		in       string
		want     string // of the lease
		out, err string
		kept     string // in the file that is left
	}{
		"changed":             {calls: []string{`sed -i 's/^lease: .*/lease: 5s/' "$1"`}, want: "5s", out: "lease: 3s -> 5s"},
		"unchanged":           {calls: []string{"true"}, want: "3s", out: "nothing was changed"},
		"emptied":             {calls: []string{`: >"$1"`}, want: "3s", out: "nothing was changed"},
		"editor fails":        {calls: []string{"exit 1"}, want: "3s", err: "the editor (", kept: "lease: 3s"},
		"mistake, then right": {calls: []string{`sed -i 's/^lease: .*/leese: 5s/' "$1"`, `grep -q '^# ! leese: there is no such key' "$1" && sed -i 's/^leese/lease/' "$1"`}, in: "\n", want: "5s", out: "lease: 3s -> 5s"},
		"mistake, given up":   {calls: []string{`sed -i 's/^lease: .*/lease: 5 parsecs/' "$1"`}, in: "n\n", want: "3s", err: "nothing was changed; what you wrote is in ", kept: "lease: 5 parsecs"},
		"no keyboard":         {calls: []string{`echo 'parameters: {port: 1}' >"$1"`}, want: "3s", err: "what you wrote is in ", kept: "port: 1"},
		"a key taken out":     {calls: []string{`sed -i '/^stop_timeout/d; s/^lease: .*/lease: 4s/' "$1"`}, want: "4s", out: "lease: 3s -> 4s\nwritten"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			_, client, access := configured(t, "a")
			stdio, out, stderr := testStdio()
			stdio.In = strings.NewReader(c.in)
			e := NewConfigEdit(stdio)
			e.ConsulAccess, e.Editor = access, editor(t, c.calls...)
			err := e.Run(testContext(t))
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(out.String(), c.out) {
				t.Errorf("got %v\n%s\n%s", err, out, stderr)
			}
			if got := readConfig(t, client).Lease.String(); got != c.want {
				t.Errorf("the lease is %s", got)
			}
			left, globErr := filepath.Glob(filepath.Join(tmp, "howdah-main-*.yaml"))
			if globErr != nil || (len(left) > 0) != (c.kept != "") {
				t.Fatalf("left %v, %v", left, globErr)
			}
			if c.kept != "" {
				text, readErr := os.ReadFile(left[0])
				if readErr != nil || !strings.Contains(string(text), c.kept) || !strings.Contains(err.Error(), left[0]) {
					t.Errorf("%v\n%s\n%v", readErr, text, err)
				}
			}
		})
	}
}

func TestConfigEditWhileSomebodyElseChanges(t *testing.T) {
	_, client, access := configured(t, "a")
	stdio, out, _ := testStdio()
	stdio.In = strings.NewReader("y\n")
	e := NewConfigEdit(stdio)
	e.ConsulAccess = access
	// The first call of the editor lets the other one in; what it changed is shown at the second.
	gate := filepath.Join(t.TempDir(), "gate")
	e.Editor = editor(t, `sed -i 's/^lease: .*/lease: 5s/' "$1"; touch `+gate+`; while [ -e `+gate+` ]; do sleep 0.02; done`,
		`grep -q '^# ! stop_timeout: 30s -> 40s' "$1" && sed -i 's/^stop_timeout: .*/stop_timeout: 40s/' "$1"`)
	done := make(chan error, 1)
	go func() { done <- e.Run(testContext(t)) }()
	eventually(t, func() bool { _, err := os.Stat(gate); return err == nil })
	other, _, _ := testStdio()
	set := NewConfigSet(other)
	set.ConsulAccess, set.Words = access, []string{"stop_timeout=40s"}
	if err := set.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := readConfig(t, client); got.Lease.String() != "5s" || got.StopTimeout.String() != "40s" {
		t.Errorf("got %+v", got)
	}
}

func TestConfigCommands(t *testing.T) {
	_, client, access := configured(t, "a")
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"show":              {[]string{"config", "--cluster=main"}, 0, "lease: 3s"},
		"show by name":      {[]string{"config", "show", "--cluster=main", "-o=json"}, 0, `"lease": "3s"`},
		"set":               {[]string{"config", "set", "--cluster=main", "max_staleness_time=20s"}, 0, "max_staleness_time: 10s -> 20s"},
		"set nothing":       {[]string{"config", "set", "--cluster=main"}, 2, "howdah config set: name what to change"},
		"help":              {[]string{"config", "--help"}, 0, "set KEY=VALUE... [options]"},
		"help of set":       {[]string{"config", "set", "--help"}, 0, "howdah config set KEY=VALUE... [options]"},
		"no such word":      {[]string{"config", "shwo", "--cluster=main"}, 2, `"shwo" is not wanted here`},
		"no such cluster":   {[]string{"config", "show", "--cluster=other"}, 1, `cluster "other" is not known to Consul`},
		"history of reigns": {[]string{"history", "--cluster=main"}, 0, "no reign is noted yet"},
		"remove nobody":     {[]string{"remove", "--cluster=main"}, 2, "howdah remove: name one member"},
	} {
		t.Run(name, func(t *testing.T) {
			stdio, out, stderr := testStdio()
			if code := Main(c.args, []string{"HOWDAH_CONSUL_ADDR=" + access.Consul.Addr}, stdio); code != c.code {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(out.String()+stderr.String(), c.says) {
				t.Errorf("want %q, got\n%s\n%s", c.says, out, stderr)
			}
		})
	}
	if got := readConfig(t, client).MaxStalenessTime.String(); got != "20s" {
		t.Errorf("got %s", got)
	}
}

func TestHistoryOfReigns(t *testing.T) {
	_, client, access := configured(t, "a")
	h := schema.History{Reigns: []schema.Reign{{Epoch: 1, Member: "a", Timeline: 1, LSN: 0x1000000, Why: "bootstrap"}, {Epoch: 3, Member: "b", Timeline: 2, LSN: 0x2000000, Why: "the lease of a ran out"}}}
	if err := client.PutHistory(testContext(t), h, 0); err != nil {
		t.Fatal(err)
	}
	stdio, out, _ := testStdio()
	c := NewHistory(stdio)
	c.ConsulAccess = access
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "EPOCH   PRIMARY") || !strings.HasPrefix(lines[2], "3       b         2          0/2000000") || !strings.HasSuffix(lines[2], "the lease of a ran out") {
		t.Error(out)
	}
}

func TestRemove(t *testing.T) {
	c, client, access := configured(t, "a", "b", "c")
	gone := schema.Member{Name: "d", Instance: "d1", Version: "test", Addresses: schema.Addresses{API: "127.0.0.1:1", Postgres: "127.0.0.1:1"}}
	if err := client.PutMember(testContext(t), gone, 0); err != nil {
		t.Fatal(err)
	}
	delete(c.addresses, "c") // nobody speaks of c, but it answers itself
	for _, step := range []struct {
		name  string
		force bool
		says  string
	}{
		{"x", false, `cluster main has no member "x"; it has a, b, c, d`},
		{"b", false, "b is not removed: its sidecar answers at "},
		{"c", false, "c is not removed: its sidecar answers at "},
		{"d", false, ""},
		{"b", true, ""},
	} {
		stdio, out, _ := testStdio()
		r := NewRemove(stdio)
		r.ConsulAccess, r.Name, r.Force = access, step.name, step.force
		err := r.Run(testContext(t))
		if (err != nil) != (step.says != "") || err != nil && !strings.Contains(err.Error(), step.says) {
			t.Errorf("%s: got %v, %s", step.name, err, out)
		}
	}
	s, err := client.ReadState(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c"}, memberNames(s)); diff != "" {
		t.Error(diff)
	}
}

// eventually looks until ok holds.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(t); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-tick.C:
		}
	}
}

// Not parallel: it is about the environment.
func TestConfigEditWantsATerminalForVi(t *testing.T) {
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "")
	stdio, _, _ := testStdio()
	if err := NewConfigEdit(stdio).Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "howdah config set") {
		t.Error(err)
	}
}
