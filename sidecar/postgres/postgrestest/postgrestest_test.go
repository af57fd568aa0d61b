package postgrestest_test

import (
	"strconv"
	"testing"

	"howdah/sidecar/postgres/postgrestest"
)

func TestMain(m *testing.M) { postgrestest.Main(m) }

func TestServerAndStandby(t *testing.T) {
	t.Parallel()
	p := postgrestest.Start(t, postgrestest.WithName("one"))
	p.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	p.CreateRole("alice")
	s := p.NewStandby(postgrestest.WithName("two"))
	s.CatchUp(p)
	if got := s.Query("SELECT n FROM t"); got != "1" {
		t.Fatalf("standby has %q, want 1", got)
	}
	var user string
	if err := p.Connect("alice", "postgres").QueryRow(t.Context(), "SELECT current_user").Scan(&user); err != nil || user != "alice" {
		t.Fatalf("connected as %q, %v", user, err)
	}

	p.Kill()
	if p.Running() {
		t.Fatal("runs after Kill")
	}
	s.Promote()
	s.Exec("INSERT INTO t VALUES (2)")
	p.Start()
	p.Restart()
	p.Stop(postgrestest.Immediate)
	if _, err := p.Try("SELECT 1"); err == nil {
		t.Fatal("a stopped server answered")
	}
	if !p.LogContains("immediate shutdown") {
		t.Fatalf("log: %s", p.Log())
	}
}

func TestSystemIDs(t *testing.T) {
	t.Parallel()
	const sql = "SELECT system_identifier FROM pg_control_system()"
	a, b := postgrestest.Start(t), postgrestest.Start(t)
	c := postgrestest.Start(t, postgrestest.WithOwnSystemID(), postgrestest.WithHBA("host all postgres all trust"), postgrestest.WithParameter("work_mem", "5MB"))
	if a.Query(sql) != b.Query(sql) || a.Query(sql) == c.Query(sql) {
		t.Fatalf("system identifiers %s, %s, %s", a.Query(sql), b.Query(sql), c.Query(sql))
	}
	if got := c.Query("SHOW work_mem"); got != "5MB" {
		t.Fatalf("work_mem %s", got)
	}
	if got := a.Query("SHOW port"); got != strconv.Itoa(a.Port) {
		t.Fatalf("port %s", got)
	}
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	p := postgrestest.Start(t)
	p.Freeze()
	p.Thaw()
	if got := p.Query("SELECT 1"); got != "1" {
		t.Fatal(got)
	}
}
