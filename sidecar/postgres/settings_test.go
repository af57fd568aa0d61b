package postgres

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"howdah/consul/schema"
)

func testOptions() Options {
	return Options{Name: "node-1", DataDir: "/data/pg", SocketDir: "/run/it's", Port: 5433, ListenAddresses: "127.0.0.1",
		Secrets: Secrets{Superuser: "s1", Replication: "r:2\\", Rewind: "w3", Router: "o4"}}
}

func rendered(t *testing.T, s Settings, f facts) (map[string]string, []string) {
	t.Helper()
	all, refused, err := testOptions().settings(s, f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := renderSettings(all)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for name, q := range readRendered(text) {
		v, err := unquoteSetting(q)
		if err != nil {
			t.Fatalf("%s = %s: %v", name, q, err)
		}
		m[name] = v
	}
	return m, refused
}

func TestSettingsOfAStandby(t *testing.T) {
	s := Settings{Role: schema.RoleStandby, Upstream: &Upstream{Member: "node-2", Host: "db o'2", Port: 5434}}
	got, _ := rendered(t, s, facts{major: 15})
	for name, want := range map[string]string{
		"port": "5433", "listen_addresses": "127.0.0.1", "cluster_name": "node-1", "wal_level": "replica", "hot_standby": "on",
		"restart_after_crash": "off", "recovery_target_timeline": "latest", "primary_slot_name": "howdah_node_1",
		"hba_file": "/data/pg/pg_hba.conf", "unix_socket_directories": `/run/it's`, "synchronous_standby_names": "",
		"wal_retrieve_retry_interval": "500ms", "hot_standby_feedback": "off",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	c := got["primary_conninfo"]
	for _, want := range []string{`host='db o\'2'`, "port='5434'", "user='howdah_replication'", "passfile='/data/pg.pgpass'", "application_name='node-1'", "tcp_user_timeout='5000'"} {
		if !strings.Contains(c, want) {
			t.Errorf("primary_conninfo lacks %s: %s", want, c)
		}
	}
	for _, secret := range []string{"s1", "r:2", "w3", "o4"} {
		for name, v := range got {
			if strings.Contains(v, secret) {
				t.Errorf("%s holds a password: %s", name, v)
			}
		}
	}
	if strings.Contains(c, "dbname") {
		t.Error("dbname is for 17 and newer")
	}
	got, _ = rendered(t, s, facts{major: 18})
	if !strings.Contains(got["primary_conninfo"], "dbname='postgres'") || got["idle_replication_slot_timeout"] != "0" {
		t.Errorf("18: %v", got)
	}

	// Logical slots follow the primary from 17 on, where there are any.
	s.Config.Parameters = map[string]string{"wal_level": "logical"}
	s.Config.Slots = map[string]schema.PermanentSlot{"feed": {Type: "logical", Database: "shop", Plugin: "pgoutput"}}
	for major, want := range map[int][2]string{16: {"", "off"}, 17: {"on", "on"}} {
		got, _ := rendered(t, s, facts{major: major})
		if got["sync_replication_slots"] != want[0] || got["hot_standby_feedback"] != want[1] {
			t.Errorf("%d: sync_replication_slots %q, hot_standby_feedback %q", major, got["sync_replication_slots"], got["hot_standby_feedback"])
		}
	}
}

// A remote's slot is the one that exists there, or none; a member's own is not looked for there.
func TestSettingsOfAStandbyOfARemote(t *testing.T) {
	for _, slot := range []string{"", "theirs"} {
		s := Settings{Role: schema.RoleStandby, Upstream: &Upstream{Member: "the remote", Host: "db1", Port: 5432, Remote: true, Slot: slot, SSLMode: "require"}}
		got, _ := rendered(t, s, facts{major: 15})
		if got["primary_slot_name"] != slot || !strings.Contains(got["primary_conninfo"], "sslmode='require'") {
			t.Errorf("%q: slot %q, %s", slot, got["primary_slot_name"], got["primary_conninfo"])
		}
	}
}

func TestSettingsOfAPrimary(t *testing.T) {
	s := Settings{Role: schema.RolePrimary, Upstream: &Upstream{Host: "x", Port: 1}, SynchronousStandbyNames: `ANY 1 ("a")`}
	got, _ := rendered(t, s, facts{major: 13})
	if got["primary_conninfo"] != "" || got["primary_slot_name"] != "" || got["synchronous_standby_names"] != `ANY 1 ("a")` {
		t.Errorf("%v", got)
	}
	if _, _, err := testOptions().settings(s, facts{major: 12}); err == nil {
		t.Error("12 accepted")
	}
	if _, _, err := testOptions().settings(s, facts{major: 19}); err == nil {
		t.Error("19 accepted")
	}
}

func TestParameters(t *testing.T) {
	cfg := schema.ClusterConfig{Parameters: map[string]string{
		"Work_Mem": "5MB", "max_wal_senders": "7", "howdah.test": "it's\n\\",
		"Primary_Conninfo": "host=evil", "port": "1", "recovery_target_lsn": "0/1", "WAL_LEVEL": "minimal", "include": "/etc/x",
	}}
	got, refused := rendered(t, Settings{Role: schema.RolePrimary, Config: cfg}, facts{major: 15})
	if got["work_mem"] != "5MB" || got["max_wal_senders"] != "7" || got["howdah.test"] != "it's\n\\" {
		t.Errorf("%v", got)
	}
	if got["port"] != "5433" || got["primary_conninfo"] != "" || got["wal_level"] != "replica" {
		t.Errorf("ruled settings got through: %v", got)
	}
	if want := []string{"Primary_Conninfo", "WAL_LEVEL", "include", "port", "recovery_target_lsn"}; !slices.Equal(refused, want) {
		t.Errorf("refused %v, want %v", refused, want)
	}
	cfg.Parameters = map[string]string{"wal_level": "logical"}
	if got, refused := rendered(t, Settings{Role: schema.RolePrimary, Config: cfg}, facts{major: 15}); got["wal_level"] != "logical" || refused != nil {
		t.Errorf("wal_level %s, refused %v", got["wal_level"], refused)
	}
	for name, p := range map[string]map[string]string{
		"line break in a name": {"a\nb": "1"}, "blank": {"a b": "1"}, "empty": {"": "1"}, "equals": {"a=b": "1"}, "comment": {"#a": "1"},
		"zero byte": {"a": "\x00"}, "twice": {"work_mem": "1MB", "WORK_MEM": "2MB"}, "ruled": {"PORT": "1"},
	} {
		if err := CheckConfig(schema.ClusterConfig{Parameters: p}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := CheckConfig(schema.DefaultClusterConfig()); err != nil {
		t.Error(err)
	}
}

func TestStandbyIsNeverBelowItsPrimary(t *testing.T) {
	f := facts{major: 15, control: ControlData{MaxConnections: 500, MaxWorkerProcesses: 8, MaxWalSenders: 30, MaxLocksPerXact: 64}}
	s := Settings{Role: schema.RoleStandby, Config: schema.ClusterConfig{Parameters: map[string]string{"max_connections": "200", "max_worker_processes": "4"}}}
	got, _ := rendered(t, s, f)
	if got["max_connections"] != "500" || got["max_worker_processes"] != "8" || got["max_wal_senders"] != "30" {
		t.Errorf("%v", got)
	}
	if _, set := got["max_locks_per_transaction"]; set {
		t.Error("a default was written down")
	}
	s.Config.Parameters["max_connections"] = "600"
	if got, _ = rendered(t, s, f); got["max_connections"] != "600" {
		t.Error("raising was undone")
	}
	delete(s.Config.Parameters, "max_connections")
	if got, _ = rendered(t, s, f); got["max_connections"] != "500" {
		t.Error("a parameter that was dropped from the configuration must wait for the primary")
	}
	s.Role = schema.RolePrimary
	if got, _ = rendered(t, s, f); got["max_worker_processes"] != "4" {
		t.Error("a primary follows the configuration")
	}
}

func TestIncludeLast(t *testing.T) {
	for _, c := range []struct{ name, in, out string }{
		{"empty", "", "include 'howdah.conf'\n"},
		{"added", "a = 1\n", "a = 1\ninclude 'howdah.conf'\n"},
		{"no line break at the end", "a = 1", "a = 1\ninclude 'howdah.conf'\n"},
		{"there already", "a = 1\ninclude 'howdah.conf'\n# end\n", "a = 1\ninclude 'howdah.conf'\n# end\n"},
		{"not last", "include 'howdah.conf'\na = 1\n", "a = 1\ninclude 'howdah.conf'\n"},
		{"twice", "include 'howdah.conf'\ninclude 'howdah.conf'\n", "include 'howdah.conf'\n"},
		{"other includes", "include_dir 'conf.d'\n#include 'howdah.conf'\n", "include_dir 'conf.d'\n#include 'howdah.conf'\ninclude 'howdah.conf'\n"},
	} {
		got := includeLast(c.in)
		if got != c.out {
			t.Errorf("%s: %q, want %q", c.name, got, c.out)
		}
		if again := includeLast(got); again != got {
			t.Errorf("%s: not stable: %q", c.name, again)
		}
	}
}

func TestWithoutRuled(t *testing.T) {
	const in = "# Do not edit this file manually!\nwork_mem = '5MB'\nprimary_conninfo = 'host=''old'''\n  PORT 1\nrecovery_target_lsn='0/1'\n# port = 2\n"
	rest, removed := withoutRuled(in)
	if want := "# Do not edit this file manually!\nwork_mem = '5MB'\n# port = 2\n"; rest != want {
		t.Errorf("%q", rest)
	}
	if !slices.Equal(removed, []string{"primary_conninfo", "port", "recovery_target_lsn"}) {
		t.Errorf("%v", removed)
	}
}

func TestChangedSettings(t *testing.T) {
	got := changedSettings("# x\na = '1'\nb = '2'\nc = '3'\n", "a = '1'\nb = '3'\nd = ''\n")
	if !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Fatal(got)
	}
	if c := (written{names: []string{"primary_conninfo"}}).staticChange(); c != ChangeReload {
		t.Error(c)
	}
	if c := (written{names: []string{"who_knows"}}).staticChange(); c != ChangeRestart {
		t.Error(c)
	}
	if c := (written{}).staticChange(); c != ChangeNone || c.String() != "none" {
		t.Error(c)
	}
}

func TestCheckHBA(t *testing.T) {
	good := []string{
		"", "# comment", "host all all 0.0.0.0/0 scram-sha-256", "local all all peer map=x", "hostssl all +admins samenet cert clientcert=verify-full",
		`host "my db",other "all" 10.0.0.1 255.255.255.255 md5`, "host all all ::1/128 reject # why", "hostnossl\tall\tall\t.example.com\treject",
		"host a, b all all trust", "host all all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust",
	}
	if err := checkHBA(good); err != nil {
		t.Error(err)
	}
	for _, line := range []string{
		"host all all 0.0.0.0/0 trust\nhost all all all trust", "host all all all reject\r", "host all all all reject \\", "# goes on \\",
		"host all all scram-sha-256", "local all all", "hosts all all all trust", "include other.conf", "host all all 10.0.0.1 md5",
		"host all all all trusted", `host all "all all trust`, "host all all all trust now", "host all all all scram-sha-256\x00", `"`, "host all all all \xff",
	} {
		if err := checkHBALine(line); err == nil {
			t.Errorf("%q accepted", line)
		}
	}
}

func FuzzHBA(f *testing.F) {
	f.Add("host all all 0.0.0.0/0 scram-sha-256")
	f.Add("local all all peer map=x # y")
	f.Fuzz(func(t *testing.T, line string) {
		text, err := renderHBA([]string{line})
		if err != nil {
			return
		}
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) != len(ownHBA)+2 || lines[len(lines)-1] != line || strings.HasSuffix(line, `\`) {
			t.Fatalf("%q became %q", line, lines)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := testOptions()
	if _, err := New(good, nil); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"relative data directory": func(o *Options) { o.DataDir = "data" },
		"slash at the end":        func(o *Options) { o.DataDir = "/data/" },
		"root":                    func(o *Options) { o.DataDir = "/" },
		"line break":              func(o *Options) { o.SocketDir = "/a\nb" },
		"no name":                 func(o *Options) { o.Name = "" },
		"port":                    func(o *Options) { o.Port = 70000 },
		"empty password":          func(o *Options) { o.Secrets.Router = "" },
		"line in a password":      func(o *Options) { o.Secrets.Rewind = "x\n" },
		"password not ASCII":      func(o *Options) { o.Secrets.Superuser = "pässword" },
	} {
		o := good
		change(&o)
		_, err := New(o, nil)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "pässword") {
			t.Errorf("%s: the error holds the password", name)
		}
	}
}

func TestSlotName(t *testing.T) {
	for in, want := range map[string]string{"a": "howdah_a", "Node-1.x": "howdah_node_1_x", strings.Repeat("n", 90): "howdah_" + strings.Repeat("n", 56)} {
		if got := SlotName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestVersionLine(t *testing.T) {
	for in, want := range map[string]string{
		"pg_controldata (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": "15", "pg_controldata (PostgreSQL) 18beta1\n": "18", "pg_controldata (PostgreSQL) 17\n": "17",
	} {
		if m := versionLine.FindStringSubmatch(in); m == nil || m[1] != want {
			t.Errorf("%q: %v", in, m)
		}
	}
}

func TestToolErrorTellsAFullDisk(t *testing.T) {
	err := error(&toolError{tool: "pg_basebackup", code: 1, output: "pg_basebackup: error: could not write to file \"x\": No space left on device\n"})
	if !errors.Is(err, ErrDiskFull) || errors.Is(&toolError{output: "x"}, ErrDiskFull) {
		t.Fatal(err)
	}
}

func TestPlanSlots(t *testing.T) {
	have := []slotRow{
		{name: "howdah_a", restart: 0x100}, {name: "howdah_gone", restart: 0x100}, {name: "howdah_gone_but_used", active: true, restart: 0x100},
		{name: "somebody_elses"}, {name: "howdah_lost", lost: true}, {name: "howdah_used", active: true, restart: 0x100},
	}
	want := []Slot{{"howdah_a", 0x900}, {"howdah_new", 0x900}, {"howdah_lost", 0}, {"howdah_used", 0x900}}
	steps, err := planSlots(have, want, 0x800)
	if err != nil {
		t.Fatal(err)
	}
	expect := []slotStep{{"drop", "howdah_gone", 0}, {"drop", "howdah_lost", 0}, {"advance", "howdah_a", 0x800}, {"create", "howdah_new", 0}, {"create", "howdah_lost", 0}}
	if !slices.Equal(steps, expect) {
		t.Errorf("%v\nwant %v", steps, expect)
	}
	if steps, err := planSlots(have[:1], want[:1], 0); err != nil || len(steps) != 0 {
		t.Errorf("a primary advances nothing: %v, %v", steps, err)
	}
	if steps, _ := planSlots(have[:1], []Slot{{"howdah_a", 0x90}}, 0x800); len(steps) != 0 {
		t.Errorf("moved backwards: %v", steps)
	}
	if _, err := planSlots(nil, []Slot{{"howdah_a", 0}, {"howdah_a", 0}}, 0); err == nil {
		t.Error("the same slot twice")
	}
	if _, err := planSlots(nil, []Slot{{"other", 0}}, 0); err == nil {
		t.Error("a slot that is not ours")
	}
}

func TestParseProbe(t *testing.T) {
	p, err := parseProbe([]byte(`{"in_recovery": true, "system_id": "7", "version": 150018, "timeline": 3, "flush": null, "receive": "0/300", "replay": "0/2FF",
		"paused": false, "redo": "0/28", "receiver": {"status": "streaming", "host": "h", "port": 5432, "timeline": 3, "flushed": "0/300", "latest_end": null, "silence": 0.25},
		"replicas": [{"name": "b", "state": "streaming", "sync": "async", "sent": "0/1", "flush": "0/2", "replay": null, "silence": null}, {"name": "a", "flush": "0/1"}, {"name": "a", "flush": "0/5"}],
		"waiting": 0, "pending_restart": null}`))
	if err != nil || p.LSN != 0x300 || p.ReplayLSN != 0x2ff || !p.Streaming() || p.Receiver.Silence.Milliseconds() != 250 || p.Timeline != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	if len(p.Replicas) != 3 || p.Replicas[0].FlushLSN != 5 || p.Replicas[1].FlushLSN != 1 || p.Replicas[2].Name != "b" {
		t.Fatalf("%+v", p.Replicas)
	}
	for _, bad := range []string{"", "{", `{"flush": "zz"}`} {
		if _, err := parseProbe([]byte(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
