package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/decide"
)

// remoteRoles are what the README has an operator make on the remote.
const remoteRoles = `
CREATE ROLE howdah_replication LOGIN REPLICATION PASSWORD 'pw-replication';
CREATE ROLE howdah_rewind LOGIN PASSWORD 'pw-rewind';
CREATE ROLE howdah_router LOGIN PASSWORD 'pw-router';
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
  pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO howdah_rewind;
SELECT pg_create_physical_replication_slot('standby_cluster');
CREATE TABLE kept (id bigint PRIMARY KEY)`

// leads returns the member that leads a standby cluster whose members are all well; nil if there is none.
func leads(l Look) *Member {
	var leader *Member
	for _, a := range l {
		if s := a.Status; a.Err == nil && s.Leader != nil && s.Leader.Member == a.Member.Name && s.Leader.Phase == schema.PhaseFollowing &&
			s.Self.State == schema.StateStreaming && s.Self.Upstream == decide.RemotePrimary {
			leader = a.Member
		}
	}
	for _, a := range l {
		if leader == nil || a.Err == nil && a.Member != leader && (a.Status.Self.State != schema.StateStreaming || a.Status.Self.Upstream != leader.Name) {
			return nil
		}
	}
	return leader
}

// count waits until a server shows so many rows.
func (r *rig) count(address string, want int) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	got := -1
	if err := Poll(ctx, 50*time.Millisecond, func() bool {
		conn, err := r.connect(ctx, address)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close(ctx) }()
		return conn.QueryRow(ctx, "SELECT count(*) FROM kept").Scan(&got) == nil && got == want
	}); err != nil {
		r.Fatalf("%s: %d rows, want %d\n%s", address, got, want, r.Look(r.Context()))
	}
}

// newStandbyCluster starts a plain server and a standby cluster of it.
func newStandbyCluster(t *testing.T) (r *rig, remote string) {
	t.Helper()
	p := &picker{taken: map[string]bool{}}
	remote, err := p.free("")
	must(t, err)
	_, port, _ := strings.Cut(remote, ":")
	config := schema.DefaultClusterConfig()
	number, err := strconv.Atoi(port)
	must(t, err)
	config.Follow = schema.Remote{Host: "127.0.0.1", Port: number, Slot: "standby_cluster", SSLMode: "disable"}
	r = newRig(t, Options{Members: []string{"pg1", "pg2", "pg3"}, Bootstrap: &config})
	for _, name := range []string{"superuser", "replication", "rewind", "router"} {
		write(t, r.SecretFile(name), "pw-"+name+"\n")
		must(t, os.Chmod(r.SecretFile(name), 0o600))
		must(t, os.Chown(r.SecretFile(name), int(r.user.UID), int(r.user.GID)))
	}
	dir := r.path("remote")
	must(t, r.user.own(dir))
	server := former{t, r, r.Member("pg1"), filepath.Join(dir, "data")}
	server.run("initdb", "-D", server.dir, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", r.SecretFile("superuser"), "--no-sync", "--no-locale", "-E", "UTF8")
	server.write("postgresql.conf", read(t, filepath.Join(server.dir, "postgresql.conf"))+
		"\nlisten_addresses = '127.0.0.1'\nport = "+port+"\nunix_socket_directories = '"+dir+"'\nfsync = off\nmax_connections = 123\nshared_buffers = 16MB\n")
	server.run("pg_ctl", "-D", server.dir, "-w", "-l", server.dir+".log", "start")
	t.Cleanup(func() {
		pid, _, _ := strings.Cut(read(t, filepath.Join(server.dir, "postmaster.pid")), "\n")
		n, err := strconv.Atoi(pid)
		must(t, err)
		must(t, syscall.Kill(n, syscall.SIGQUIT))
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // that of the test is over
		defer cancel()
		must(t, Poll(ctx, 5*time.Millisecond, func() bool { return syscall.Kill(n, 0) != nil }))
	})
	r.run(t, remote, remoteRoles)
	return r, remote
}

// A standby cluster of a plain server: cloned from it, cascading, through the death of the member that leads, to its promotion.
func TestStandbyCluster(t *testing.T) {
	r, remote := newStandbyCluster(t)
	must(t, r.Start(t.Context()))
	look := r.await(t, "a standby cluster", func(l Look) bool { return leads(l) != nil })
	first := leads(look)
	r.run(t, remote, "INSERT INTO kept SELECT generate_series(1, 100)")
	for _, m := range r.Members() {
		r.count(m.Addresses.Postgres, 100)
		if s := look.Of(m).Status.Self; s.Role != schema.RoleStandby || s.Timeline != 1 {
			t.Errorf("%s is %s on timeline %d", m.Name, s.Role, s.Timeline)
		}
	}
	r.says(t, first, "leads a standby cluster of "+remote)
	r.count(r.Router().ReadOnly, 100)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if conn, err := r.connect(ctx, r.Router().Listen); err == nil || !strings.Contains(err.Error(), "57P03") || !strings.Contains(err.Error(), "standby cluster") {
		t.Errorf("a session to write: %v, %v", conn, err)
	}

	must(t, first.Kill())
	look = r.await(t, "another one leading", func(l Look) bool { m := leads(l); return m != nil && m != first })
	second := leads(look)
	r.run(t, remote, "INSERT INTO kept SELECT generate_series(101, 200)")
	for _, m := range r.Members() {
		if m != first {
			r.count(m.Addresses.Postgres, 200)
		}
	}
	must(t, first.Start())
	r.await(t, "the first one following", func(l Look) bool {
		return leads(l) == second && l.Of(first).Err == nil && l.Of(first).Status.Self.Upstream == second.Name
	})
	r.count(first.Addresses.Postgres, 200)

	r.promotes(second)
	r.count(remote, 200)
}

// promotes ends the following: writes go on here, and a failover is one of any cluster.
func (r *rig) promotes(leader *Member) {
	t := r.T
	cr := configRig{t: t, ctx: t.Context(), c: r.Cluster, consul: r.Consul()}
	if out, err := cr.set("follow=null"); err != nil {
		t.Fatalf("config set: %v: %s", err, out)
	}
	look := r.await(t, "a primary and its standbys", Look.Healthy)
	if look.Primary() != leader || look.Of(leader).Status.Self.Timeline < 2 {
		t.Errorf("not promoted in its reign:\n%s", look)
	}
	stop := r.write(t)
	r.run(t, r.Router().Listen, "INSERT INTO kept SELECT generate_series(201, 300)")
	for _, m := range r.Members() {
		r.count(m.Addresses.Postgres, 300)
	}
	must(t, leader.Kill())
	r.await(t, "a failover", func(l Look) bool { p := l.Primary(); return p != nil && p != leader })
	r.run(t, r.Router().Listen, "INSERT INTO kept VALUES (301)")
	stop()
	r.count(r.Router().Listen, 301)
	if out, err := cr.set(fmt.Sprintf("follow={host: 127.0.0.1, port: %d}", 5432)); err == nil || !strings.Contains(out, "has data of its own") {
		t.Errorf("a cluster with data of its own was made to follow: %v: %s", err, out)
	}
}
