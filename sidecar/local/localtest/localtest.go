// Package localtest builds howdah for tests that run it, and looks at what they leave behind.
package localtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// buildTimeout is for a cold cache on a busy machine.
const buildTimeout = 10 * time.Minute

// Binary builds howdah and returns its path; with the race detector where the test has it too.
func Binary(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "howdah")
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, "howdah")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// Dir returns a new directory that every user of the machine may get into, with a short path (a unix socket's may
// have 107 bytes at most). At the end of the test it is removed, unless the test has failed: then it is named.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "howdah-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		CheckLogs(t, dir)
		if left := Left(dir); len(left) > 0 {
			t.Errorf("processes are left: %s", strings.Join(left, "; "))
		}
		if t.Failed() {
			t.Logf("the logs are in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// CheckLogs fails the test if a log below dir shows a data race or a panic.
func CheckLogs(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".log" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, mark := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if i := bytes.Index(b, []byte(mark)); i >= 0 {
				t.Errorf("%s:\n%s", path, b[i:min(len(b), i+6000)])
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("the logs cannot be read: %v", err)
	}
}

// Left returns the processes that have dir in their command line or that run a program below it.
func Left(dir string) []string {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var left []string
	for _, name := range found {
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			continue // gone, a zombie, or a thread of the kernel
		}
		pid := filepath.Base(filepath.Dir(name))
		if pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		words := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, dir+"/") }) {
			left = append(left, pid+" "+strings.Join(words, " "))
		}
	}
	return left
}
