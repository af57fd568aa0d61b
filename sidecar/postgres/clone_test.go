package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"howdah/consul/schema"
	"howdah/sidecar/postgres/postgrestest"
)

// failTool makes one tool fail with a message and lets the others run.
func failTool(tool, message string) func(context.Context, Command) (Result, bool, error) {
	return func(_ context.Context, c Command) (Result, bool, error) {
		return Result{ExitCode: 1, Output: message + "\n"}, c.Tool == tool && !strings.Contains(strings.Join(c.Args, " "), "--version"), nil
	}
}

func TestCloneFollowPromote(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	two.cloneOf(one)
	if left := two.beside(); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if pw, err := os.ReadFile(filepath.Join(two.o.DataDir, "howdah.conf")); err != nil || strings.Contains(string(pw), "pl:i") {
		t.Fatalf("howdah.conf holds the password, or %v", err)
	}
	p := one.probe()
	if len(p.Replicas) != 1 || p.Replicas[0].Name != "two" || p.Replicas[0].State != "streaming" {
		t.Fatalf("%+v", p.Replicas)
	}
	two.waitReplayed(p.LSN)
	s := two.probe()
	if !s.InRecovery || s.Timeline != 1 || s.SystemID != p.SystemID || s.Receiver.Host != "127.0.0.1" || s.Receiver.Port != one.o.Port || s.LSN < p.LSN {
		t.Fatalf("%+v", s)
	}
	if got := one.server.Query("SELECT active::text FROM pg_replication_slots WHERE slot_name = 'howdah_two'"); got != "true" {
		t.Fatalf("the slot is not used: %q", got)
	}

	// A planned switchover: all bytes of the shutdown are on the standby, and the old primary follows without more ado.
	one.server.Stop(postgrestest.Fast)
	old := one.inspect()
	if got := two.probe(); got.LSN < old.Control.ShutdownEnd() || got.LSN < old.Control.CheckpointLSN+1 {
		t.Fatalf("the standby has %s, the shutdown ends at %s", got.LSN, old.Control.ShutdownEnd())
	}
	promoteAndCheck(t, two, 2)
	follow(t, one, two, true)
	// Once again, and no harm.
	if err := two.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}

	// The primary crashes with nothing that its standby lacks: it can follow after crash recovery.
	two.server.Exec("INSERT INTO t VALUES (2)")
	one.waitReplayed(two.probe().LSN)
	two.server.Kill()
	promoteAndCheck(t, one, 3)
	follow(t, two, one, true)

	// The primary crashes with a write that its standby never got: it cannot follow.
	two.server.Stop(postgrestest.Fast)
	one.server.Exec("INSERT INTO t VALUES (666)")
	one.server.Kill()
	if c := two.configure(Settings{Role: schema.RoleStandby}); c == ChangeNone {
		t.Fatal("no change")
	}
	two.start()
	promoteAndCheck(t, two, 4)
	follow(t, one, two, false)
	// Clone it again, over what it has.
	one.cloneOf(two)
	two.server.Exec("INSERT INTO t VALUES (3)")
	one.waitReplayed(two.probe().LSN)
	if got := one.server.Query("SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); got != "1,2,3" {
		t.Fatalf("rows %s", got)
	}
	if h, err := one.TimelineHistory(t.Context(), 4); err != nil || len(h.Switches) != 3 {
		t.Fatalf("%+v, %v", h, err)
	}
}

func promoteAndCheck(t *testing.T, m *member, timeline schema.Timeline) {
	t.Helper()
	if err := m.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	// At once, long before the checkpoint that writes it to the control file.
	if p := m.probe(); p.InRecovery || p.Timeline != timeline {
		t.Fatalf("%+v, want timeline %d", p, timeline)
	}
	m.configure(Settings{Role: schema.RolePrimary})
	m.reload()
}

// follow makes a stopped member follow up, if it can, and checks whether it can.
func follow(t *testing.T, m, up *member, can bool) {
	t.Helper()
	d := m.inspect()
	end, err := m.LocalEnd(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	h, err := m.UpstreamHistory(t.Context(), *up.upstream())
	if err != nil {
		t.Fatal(err)
	}
	ok, why := CanFollow(d.Timeline, end, h)
	if ok != can {
		t.Fatalf("timeline %d up to %s, %+v: %v, %s", d.Timeline, end, h, ok, why)
	}
	if !can {
		return
	}
	if err := up.EnsureSlots(t.Context(), []Slot{{Name: SlotName(m.o.Name)}}); err != nil {
		t.Fatal(err)
	}
	m.configure(Settings{Role: schema.RoleStandby, Upstream: up.upstream()})
	m.start()
	m.waitStreaming()
	m.until("the new timeline", func() bool { return m.probe().Timeline == h.Current })
}

// TestFollowByReload points a running standby at another upstream.
func TestFollowByReload(t *testing.T) {
	t.Parallel()
	one, two, three := newPrimary(t, "one"), newMember(t, "two"), newMember(t, "three")
	two.cloneOf(one)
	three.cloneOf(one)
	one.server.Kill()
	promoteAndCheck(t, two, 2)
	if err := two.EnsureSlots(t.Context(), []Slot{{Name: "howdah_three"}, {Name: "howdah_one"}}); err != nil {
		t.Fatal(err)
	}
	if c := three.configure(Settings{Role: schema.RoleStandby, Upstream: two.upstream()}); c != ChangeReload {
		t.Fatal(c)
	}
	three.reload()
	three.until("streaming from two", func() bool {
		p := three.probe()
		return p.Streaming() && p.Receiver.Port == two.o.Port && p.Timeline == 2
	})

	// Slots on a standby advance with what the other members have, and go when a member goes.
	if err := three.EnsureSlots(t.Context(), []Slot{{Name: "howdah_one"}, {Name: "howdah_two"}}); err != nil {
		t.Fatal(err)
	}
	const restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'howdah_one'"
	was := three.server.Query(restart)
	two.server.Exec("CREATE TABLE t AS SELECT generate_series(1, 10000)")
	at := two.probe().LSN
	three.waitReplayed(at)
	if err := three.EnsureSlots(t.Context(), []Slot{{Name: "howdah_one", AdvanceTo: at + 1<<30}}); err != nil {
		t.Fatal(err)
	}
	now, err := parseLSN(three.server.Query(restart))
	if err != nil || now < at || now > three.probe().ReplayLSN {
		t.Fatalf("the slot went from %s to %s, %v; replay is at %s", was, now, err, three.probe().ReplayLSN)
	}
	if got := three.server.Query("SELECT count(*) FROM pg_replication_slots"); got != "1" {
		t.Fatalf("%s slots", got)
	}
	// In use: kept, although nobody asks for it.
	if err := two.EnsureSlots(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := two.server.Query("SELECT string_agg(slot_name, ',') FROM pg_replication_slots"); got != "howdah_three" {
		t.Fatal(got)
	}
}

// TestReserveTimeline skips numbers that other reigns took, also with a restart in between.
func TestReserveTimeline(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	two.cloneOf(one)
	if err := two.ReserveTimeline(5); err != nil {
		t.Fatal(err)
	}
	// The promotion did not come about: the standby must come up as if nothing had been.
	two.server.Stop(postgrestest.Fast)
	two.configure(Settings{Role: schema.RoleStandby, Upstream: one.upstream()})
	two.start()
	two.waitStreaming()
	if err := two.ReserveTimeline(4); err != nil {
		t.Fatal(err)
	}
	one.server.Stop(postgrestest.Fast)
	promoteAndCheck(t, two, 4)
	follow(t, one, two, true)
	// And the follower, which fetched all of that, restarts.
	one.server.Stop(postgrestest.Fast)
	one.configure(Settings{Role: schema.RoleStandby, Upstream: two.upstream()})
	one.start()
	one.waitStreaming()
}

// The primary sees a copy in the making under a name that no synchronous set has.
func TestACloneIsNoSynchronousStandby(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	var connects string
	two.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		if c.Tool != "pg_basebackup" || strings.Contains(strings.Join(c.Args, " "), "--version") {
			return Result{}, false, nil
		}
		for _, a := range c.Args {
			if strings.HasPrefix(a, "--dbname=") {
				connects = a
			}
		}
		return Result{}, false, nil
	}}
	if err := two.Clone(t.Context(), two.cloneRequest(one)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(connects, "howdah clone for two") || strings.Contains(connects, "application_name=two") {
		t.Errorf("it connects with %q", connects)
	}
}

func TestCloneRefuses(t *testing.T) {
	t.Parallel()
	one, two := newPrimary(t, "one"), newMember(t, "two")
	good := two.cloneRequest(one)
	try := func(name string, r CloneRequest, want error, words ...string) {
		t.Helper()
		err := two.Clone(t.Context(), r)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", name, err, w)
			}
		}
		if left := two.beside(); len(left) != 0 || two.inspect().State != DirAbsent {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	r := good
	r.SystemID = "42"
	try("another cluster", r, ErrOtherCluster, "42", good.SystemID)
	r = good
	r.From.Port = postgrestest.FreePort(t)
	try("unreachable", r, ErrUnreachable, "one at 127.0.0.1")
	password := two.keys.present().Replication
	two.knows(func(s *Secrets) { s.Replication = "wrong" })
	try("wrong password", good, ErrPassword, ReplicationRole, `"replication"`)
	two.knows(func(s *Secrets) { s.Replication = password })

	two.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		return Result{Output: "pg_controldata (PostgreSQL) 14.3\n"}, strings.Contains(strings.Join(c.Args, " "), "--version"), nil
	}}
	var major *MajorError
	if err := two.Clone(t.Context(), good); !errors.As(err, &major) || major.Want != 14 || !strings.Contains(err.Error(), "PostgreSQL 14") {
		t.Errorf("wrong major version: %v", err)
	}
	two.tools = tools{before: failTool("pg_basebackup", "pg_basebackup: error: could not write to file: No space left on device")}
	try("full disk", good, ErrDiskFull, "as it was")
	if got := one.server.Query("SELECT count(*) FROM pg_replication_slots"); got != "0" {
		t.Error("a failed clone leaves its slot")
	}

	// Cancelled half-way.
	ctx, cancel := context.WithCancel(t.Context())
	two.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		if c.Tool == "pg_basebackup" {
			if err := os.Mkdir(two.o.DataDir+".clone", 0o700); err != nil {
				return Result{}, false, err
			}
			cancel()
			return Result{}, false, ctx.Err()
		}
		return Result{}, false, nil
	}}
	if err := two.Clone(ctx, good); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := two.beside(); len(left) != 0 {
		t.Errorf("cancelled: left behind %v", left)
	}

	two.tools = tools{}
	if err := os.Mkdir(two.o.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(two.o.DataDir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := two.Clone(t.Context(), good); !errors.Is(err, ErrNotOurs) {
		t.Errorf("foreign directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(two.o.DataDir, "thesis.tex")); err != nil {
		t.Error(err)
	}

	// A server that runs keeps its directory.
	if err := one.Clone(t.Context(), one.cloneRequest(one)); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("running server: %v", err)
	}
	// Nor does one that does not answer: it may be frozen.
	three := newMember(t, "three")
	three.cloneOf(one)
	three.server.Freeze()
	if err := three.Clone(t.Context(), three.cloneRequest(one)); err == nil || !strings.Contains(err.Error(), "may run") {
		t.Errorf("frozen server: %v", err)
	}
	three.server.Thaw()
}

// TestCloneFillsTheDisk clones onto a file system that is too small, which only root can make.
func TestCloneFillsTheDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root: TestCloneRefuses has the case with a tool that reports a full disk")
		return
	}
	one, two := newPrimary(t, "one"), newMember(t, "two")
	small := postgrestest.TempDir(t)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=30m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	c := postgrestest.Credential(t)
	if err := os.Chown(small, int(c.Uid), int(c.Gid)); err != nil {
		t.Fatal(err)
	}
	two.o.DataDir = filepath.Join(small, "data")
	r := two.cloneRequest(one)
	fill(t, two.o.DataDir, "15\n")
	err := two.Clone(t.Context(), r)
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), small) {
		t.Fatal(err)
	}
	if contents(two.o.DataDir) != "15\n" {
		t.Fatal("the old directory is gone")
	}
	if left := two.beside(); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if got := one.server.Query("SELECT count(*) FROM pg_replication_slots"); got != "0" {
		t.Fatal("the slot is left")
	}

	// A mount point cannot be renamed: better said before the copy than after it.
	two.o.DataDir = small
	if err := os.RemoveAll(filepath.Join(small, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(small, "data.pgpass")); err != nil {
		t.Fatal(err)
	}
	if err := two.Clone(t.Context(), r); err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Fatal(err)
	}
	if err := os.Remove(small + ".pgpass"); err != nil {
		t.Fatal(err)
	}
}

func TestCloneOfAStandbyFollowsThePrimary(t *testing.T) {
	t.Parallel()
	one, two, three := newPrimary(t, "one"), newMember(t, "two"), newMember(t, "three")
	one.server.Exec("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	two.cloneOf(one)
	two.waitReplayed(one.probe().LSN)
	request := func(from, holder *member) CloneRequest {
		return CloneRequest{From: *from.upstream(), SystemID: one.probe().SystemID, Settings: Settings{Role: schema.RoleStandby, Config: one.config, Upstream: holder.upstream()}}
	}
	// One that is no standby of the server that the copy is to follow is refused, before anything is touched.
	stranger := newPrimary(t, "stranger")
	if err := three.Clone(t.Context(), request(two, stranger)); !errors.Is(err, ErrOtherCluster) {
		t.Fatalf("%v", err)
	}
	if d := three.inspect(); d.State != DirAbsent || len(three.beside()) != 0 {
		t.Fatalf("%+v, left behind %v", d, three.beside())
	}

	var source string
	three.tools = tools{before: func(_ context.Context, c Command) (Result, bool, error) {
		if c.Tool == "pg_basebackup" && len(c.Args) > 1 {
			source = strings.Join(c.Args, " ")
		}
		return Result{}, false, nil
	}}
	if err := three.Clone(t.Context(), request(two, one)); err != nil {
		t.Fatal(err)
	}
	if want := "port=" + strconv.Itoa(two.o.Port) + " "; !strings.Contains(source, want) {
		t.Fatalf("copied with %s, want %s", source, want)
	}
	// What was written since, and no longer lies in the segment that the copy ends in.
	one.server.Exec("INSERT INTO t VALUES (2); SELECT pg_switch_wal(); CHECKPOINT; INSERT INTO t VALUES (3); SELECT pg_switch_wal(); CHECKPOINT")
	three.start()
	three.waitReplayed(one.probe().LSN)
	if r := three.probe().Receiver; r.Port != one.o.Port {
		t.Fatalf("receives from port %d, the primary is at %d", r.Port, one.o.Port)
	}
	if got := three.server.Query("SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); got != "1,2,3" {
		t.Fatalf("rows %s", got)
	}

	// A standby that was promoted meanwhile is not one of the holder's any more.
	if err := two.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	four := newMember(t, "four")
	if err := four.Clone(t.Context(), request(two, one)); !errors.Is(err, ErrNotReady) {
		t.Fatalf("%v", err)
	}
}
