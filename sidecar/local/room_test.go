package local

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// slowBackups makes the members' pg_basebackup wait until the file go stands in dir, and returns go's path.
func (r *rig) slowBackups(dir string) string {
	r.Helper()
	tools, err := os.ReadDir(r.o.BinDir)
	must(r.T, err)
	must(r.T, r.User().own(dir))
	must(r.T, os.Chmod(dir, 0o755))
	for _, tool := range tools {
		if tool.Name() != "pg_basebackup" {
			must(r.T, os.Symlink(filepath.Join(r.o.BinDir, tool.Name()), filepath.Join(dir, tool.Name())))
		}
	}
	goes := filepath.Join(dir, "go")
	script := fmt.Sprintf("#!/bin/sh\nuntil [ -e %s ]; do sleep 0.1; done\nexec %s \"$@\"\n", goes, filepath.Join(r.o.BinDir, "pg_basebackup"))
	must(r.T, os.WriteFile(filepath.Join(dir, "pg_basebackup"), []byte(script), 0o755))
	r.o.BinDir = dir
	return goes
}

// TestCloneWithoutRoom has a standby cloned anew on a disk that has no room for two copies, and its sidecar killed while there is none.
func TestCloneWithoutRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: no file system of its own can be mounted; sidecar/postgres has the steps on any disk")
		return
	}
	r := newRig(t, Options{Members: []string{"pg1", "pg2"}, MemberFlags: []string{"--clone-without-room", "remove-first"}})
	goes := r.slowBackups(filepath.Join(r.Dir(), "bin"))
	must(t, os.WriteFile(goes, nil, 0o644))
	pg1, pg2 := r.Member("pg1"), r.Member("pg2")
	mount := filepath.Dir(pg2.DataDir)
	must(t, unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() {
		must(t, r.Kill())
		must(t, unix.Unmount(mount, 0))
	})
	for _, dir := range []string{mount, pg2.runDir()} {
		must(t, r.User().own(dir))
	}
	must(t, pg1.Start())
	r.await(t, "pg1 serving", func(l Look) bool { return l.Primary() == pg1 })
	must(t, pg2.Start())
	r.await(t, "both healthy", Look.Healthy)

	// Room for half a copy besides what is there, some of which a clone does not have.
	old := filepath.Join(pg2.DataDir, "of old")
	must(t, os.WriteFile(old, make([]byte, 96<<20), 0o644))
	var st unix.Statfs_t
	must(t, unix.Statfs(mount, &st))
	used := (st.Blocks - st.Bfree) * uint64(st.Bsize)
	must(t, unix.Mount("tmpfs", mount, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+20<<20)))
	must(t, os.Remove(goes))

	ordered := make(chan struct{})
	go func() {
		defer close(ordered)
		_, _ = r.howdah(t, append([]string{"reinit", "pg2", "--yes"}, r.token()...)...) // its order ends with the sidecar below
	}()
	const removed = "its own copy was removed"
	r.says(t, pg2, "cloning from pg1", removed)
	if _, err := os.Stat(pg2.DataDir); !os.IsNotExist(err) {
		t.Errorf("the old directory is there: %v", err)
	}
	if out := r.does(t, "why", "pg2"); !strings.Contains(out, removed) {
		t.Error("howdah why does not say so")
	}
	must(t, pg2.KillSidecar(true))
	r.says(t, pg2, removed)
	<-ordered
	if pid, err := pg2.Postmaster(); err == nil {
		t.Errorf("a Postgres runs on nothing: %d", pid)
	}
	r.serves(t, pg1)
	must(t, os.WriteFile(goes, nil, 0o644))
	r.streams(t, pg2)
	r.await(t, "both healthy again", Look.Healthy)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("it is the old directory still: %v", err)
	}
	if _, err := os.Stat(pg2.DataDir + ".howdah"); !os.IsNotExist(err) {
		t.Errorf("the marker is left: %v", err)
	}
	events, err := pg2.Events(t.Context())
	must(t, err)
	for _, k := range []schema.EventKind{schema.EventRemoved, schema.EventCloned} {
		if !slices.ContainsFunc(events, func(e schema.Event) bool { return e.Kind == k }) {
			t.Errorf("no event %q", k)
		}
	}
	if log := read(t, pg2.SidecarLog); !strings.Contains(log, "removing the old data directory before it is cloned") {
		t.Error("the log does not say so")
	}
}
