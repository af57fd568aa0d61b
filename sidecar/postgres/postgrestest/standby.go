package postgrestest

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
)

// NewStandby clones the server, starts the clone as a streaming standby and returns once it streams.
// Its replication slot on this server is named after it.
func (s *Server) NewStandby(opts ...Option) *Server {
	t := s.t
	t.Helper()
	n := newServer(t, opts)
	slot := "standby_" + strconv.Itoa(n.Port)
	code, out, err := Tool{Name: "pg_basebackup", Env: map[string]string{"PGPASSWORD": Password}, Args: []string{
		"-D", n.DataDir, "-d", "host=" + s.Host + " port=" + strconv.Itoa(s.Port) + " user=postgres application_name=" + n.Name,
		"--write-recovery-conf", "--create-slot", "--slot=" + slot, "--checkpoint=fast", "--wal-method=stream", "--no-sync"}}.Run(t.Context())
	if err != nil || code != 0 {
		t.Fatalf("clone %s: exit code %d, %v\n%s", s.Name, code, err, out)
	}
	n.writeHBA()
	n.Start()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	Until(ctx, t, n.Name+" to stream from "+s.Name, func() bool {
		return s.Query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '"+n.Name+"'") == "1"
	})
	return n
}

// Promote promotes a standby and returns once it accepts writes.
func (s *Server) Promote() {
	s.t.Helper()
	if got := s.Query("SELECT pg_promote(true, 60)"); got != "t" {
		s.t.Fatalf("promote %s: pg_promote returned %s", s.Name, got)
	}
}

// CatchUp returns once the standby has replayed all that the upstream has flushed by now.
func (s *Server) CatchUp(upstream *Server) {
	s.t.Helper()
	lsn := upstream.Query("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END")
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	Until(ctx, s.t, s.Name+" to replay "+lsn, func() bool {
		return s.Query("SELECT pg_last_wal_replay_lsn() >= '"+lsn+"'::pg_lsn") == "t"
	})
}

// CreateRole makes a login role with Password, stored as SCRAM; attributes may add to it, for
// example "PASSWORD 'other'" or "SUPERUSER".
func (s *Server) CreateRole(name string, attributes ...string) {
	s.t.Helper()
	s.Exec("CREATE ROLE \"" + name + "\" LOGIN PASSWORD '" + Password + "'")
	if len(attributes) > 0 {
		s.Exec("ALTER ROLE \"" + name + "\" " + strings.Join(attributes, " "))
	}
}

// LogPath is where a server's own files stand that a test wants to read.
func (s *Server) LogPath(name string) string { return filepath.Join(s.DataDir, name) }
