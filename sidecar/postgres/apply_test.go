package postgres

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

// apply applies the member's configuration as its sidecar does.
func (m *member) apply(s Settings) {
	m.t.Helper()
	s.Config = m.config
	if err := m.Apply(m.t.Context(), s, func(context.Context) error { m.reload(); return nil }); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) compare(s Settings) Comparison {
	m.t.Helper()
	s.Config = m.config
	c, err := m.Compare(m.t.Context(), s, m.inspect().Control)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// settled waits until a comparison finds nothing to do, and returns what is refused.
func (m *member) settled(s Settings) string {
	m.t.Helper()
	var c Comparison
	m.until("a configuration that is in force", func() bool { c = m.compare(s); return !c.Differ })
	return strings.Join(c.Refused, "; ")
}

func TestApply(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	primary := Settings{Role: schema.RolePrimary}
	if refused := m.settled(primary); refused != "" {
		t.Errorf("refused: %s", refused)
	}
	show := func(name, want string) {
		t.Helper()
		m.until(name+" = "+want, func() bool { return m.server.Query("SHOW "+name) == want })
	}

	m.config.Parameters["work_mem"] = "7MB"
	if !m.compare(primary).Differ {
		t.Error("a changed parameter is no difference")
	}
	m.apply(primary)
	show("work_mem", "7MB")
	m.settled(primary)

	// One that waits for a restart is no mistake, and the others are heeded beside it.
	m.config.Parameters["max_connections"], m.config.Parameters["work_mem"] = "60", "8MB"
	m.apply(primary)
	show("work_mem", "8MB")
	if refused := m.settled(primary); refused != "" {
		t.Errorf("refused: %s", refused)
	}
	m.until("pending restart", func() bool { p := m.probe().PendingRestart; return len(p) == 1 && p[0] == "max_connections" })

	// An unknown name would keep PostgreSQL from heeding anything; bad values stay as they were.
	m.config.Parameters["no_such_setting"], m.config.Parameters["work_mem"], m.config.Parameters["maintenance_work_mem"] = "1", "lots", "65MB"
	m.config.Parameters["wal_buffers"] = "many"
	m.apply(primary)
	show("maintenance_work_mem", "65MB")
	show("work_mem", "8MB")
	refused := m.settled(primary)
	for _, want := range []string{"parameters.no_such_setting = 1 is not in force", "parameters.work_mem = lots is not in force", "it stays 8MB", "parameters.wal_buffers = many"} {
		if !strings.Contains(refused, want) {
			t.Errorf("want %q in %s", want, refused)
		}
	}
	// So does a start after it.
	m.server.Restart()
	show("max_connections", "60")
	show("work_mem", "8MB")
	delete(m.config.Parameters, "no_such_setting")
	delete(m.config.Parameters, "wal_buffers")
	m.config.Parameters["work_mem"] = "9MB"
	m.apply(primary)
	show("work_mem", "9MB")
	if refused := m.settled(primary); refused != "" {
		t.Errorf("refused: %s", refused)
	}
}

func TestApplyHBA(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	primary := Settings{Role: schema.RolePrimary}
	m.settled(primary)
	rules := func(user string) string {
		return m.server.Query("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NULL AND '" + user + "' = ANY(user_name)")
	}
	m.config.HBA = append(m.config.HBA, "host all visitor 10.0.0.0/8 reject")
	m.apply(primary)
	if m.settled(primary) != "" || rules("visitor") != "1" {
		t.Error("a new line is not there")
	}
	// howdah's own check does not read addresses; PostgreSQL does.
	m.config.HBA = append(m.config.HBA, "host all guest 10.0.0.0/99 scram-sha-256")
	m.apply(primary)
	if refused := m.settled(primary); !strings.Contains(refused, "the hba list is not in force: line 4") || rules("visitor") != "1" || rules("guest") != "0" {
		t.Errorf("refused: %q, visitor %s, guest %s", refused, rules("visitor"), rules("guest"))
	}
	m.server.Restart() // which a bad line would prevent

	// What somebody changed on disk is put back.
	path := filepath.Join(m.o.DataDir, "pg_hba.conf")
	if err := os.WriteFile(path, []byte("local all all trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !m.compare(primary).Differ {
		t.Error("a changed file is no difference")
	}
	m.apply(primary)
	m.settled(primary)
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "trust") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestAStartThatFailsFallsBack(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	s := Settings{Role: schema.RolePrimary}
	m.settled(s)
	m.config.Parameters["shared_preload_libraries"], m.config.Parameters["work_mem"] = "no_such_library", "7MB"
	m.apply(s)
	m.settled(s)
	m.server.Stop(postgrestest.Fast)
	s.Config = m.config
	blamed, err := m.NotStarted(s, `could not access file "no_such_library"`, []string{`FATAL:  could not access file "no_such_library": No such file or directory`})
	if err != nil || strings.Join(blamed, " ") != "parameters.shared_preload_libraries" {
		t.Errorf("blamed %v, %v", blamed, err)
	}
	m.configure(s)
	m.start()
	if err := m.Started(s); err != nil {
		t.Fatal(err)
	}
	if got := m.server.Query("SHOW work_mem"); got != "7MB" {
		t.Errorf("work_mem is %s", got)
	}
	if refused := m.settled(s); !strings.Contains(refused, "parameters.shared_preload_libraries = no_such_library is not in force: PostgreSQL did not start with it") {
		t.Errorf("refused: %s", refused)
	}
}

func TestBlame(t *testing.T) {
	with := func(hba string, params ...string) schema.ClusterConfig {
		c := schema.ClusterConfig{HBA: []string{hba}, Parameters: map[string]string{}}
		for i := 0; i < len(params); i += 2 {
			c.Parameters[params[i]] = params[i+1]
		}
		return c
	}
	before := with("a", "work_mem", "1MB", "port_x", "1")
	for _, c := range []struct {
		name, words string
		cfg         schema.ClusterConfig
		known       bool
		want        string
	}{
		{"nothing ran before", "", with("a", "work_mem", "2MB"), false, ""},
		{"nothing is new", "", before, true, ""},
		{"one is new", "out of memory", with("a", "work_mem", "1MB", "port_x", "2"), true, "parameters.port_x"},
		{"two are new and the log names one", `invalid value for parameter "work_mem"`, with("a", "work_mem", "2MB", "port_x", "2"), true, "parameters.work_mem"},
		{"everything is new and the log names the hba file", "could not load /data/pg_hba.conf", with("b", "work_mem", "2MB"), true, "hba"},
		{"everything is new and the log says nothing", "", with("b", "work_mem", "2MB", "new", "1"), true, "parameters.new parameters.work_mem hba"},
	} {
		var v proven
		if c.known {
			v.works(before, nil)
		}
		if got := strings.Join(v.blame(c.cfg, "why", c.words), " "); got != c.want {
			t.Errorf("%s: blamed %q, want %q", c.name, got, c.want)
		}
		// If it fails again without them, they were not the reason.
		if c.want != "" {
			if again := v.blame(c.cfg, "why", ""); c.name == "one is new" && (len(again) > 0 || len(v.Refused) > 0) {
				t.Errorf("%s: then blamed %v, refused %v", c.name, again, v.Refused)
			}
		}
	}
}
