package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// BinDir returns the directory of PostgreSQL's binaries: $HOWDAH_POSTGRES_BIN_DIR, else that of
// the newest version under /usr/lib/postgresql. It fails the test if there is none.
func BinDir(t testing.TB) string {
	t.Helper()
	dir, err := binDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func binDir() (string, error) {
	if d := os.Getenv("HOWDAH_POSTGRES_BIN_DIR"); d != "" {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err != nil {
			return "", fmt.Errorf("HOWDAH_POSTGRES_BIN_DIR: %w", err)
		}
		return d, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	best, bestMajor := "", 0
	for _, f := range found {
		major, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(f))))
		if err == nil && major > bestMajor {
			best, bestMajor = filepath.Dir(f), major
		}
	}
	if best == "" {
		return "", errors.New("no PostgreSQL found: install one (apt-get install postgresql), or set HOWDAH_POSTGRES_BIN_DIR")
	}
	return best, nil
}

// Credential returns the user that PostgreSQL's programs must run as: nil for the present one, the
// user postgres if the present one is root, which PostgreSQL refuses.
func Credential(t testing.TB) *syscall.Credential {
	t.Helper()
	c, err := credential()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root and there is no user postgres: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// TempDir returns a new directory that PostgreSQL's user owns and can reach, with a short path
// (a unix socket's path may have 107 bytes at most). It is removed at the test's end.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

func tempDir() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "howdahpg")
	if err != nil {
		return "", err
	}
	c, err := credential()
	if err == nil && c != nil {
		err = os.Chown(dir, int(c.Uid), int(c.Gid))
	}
	return dir, err
}

// Tool is one of PostgreSQL's programs, or any by its absolute path, to be run to its end as PostgreSQL's user.
type Tool struct {
	Name string
	Args []string
	Env  map[string]string // added to the test's own environment; LC_ALL is C unless given
	Dir  string            // working directory; "/" if empty
}

// Run runs the tool and returns its exit code, and its stdout and stderr together. The error is
// about running it at all, or ctx's.
func (tool Tool) Run(ctx context.Context) (exitCode int, output string, err error) {
	dir, err := binDir()
	if err != nil {
		return -1, "", err
	}
	c, err := credential()
	if err != nil {
		return -1, "", err
	}
	path := tool.Name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	cmd := exec.CommandContext(ctx, path, tool.Args...)
	cmd.Dir = tool.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	for k, v := range tool.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// pg_basebackup has a child that receives WAL: the whole group must go.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		return -1, out.String(), ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), out.String(), nil
	}
	return cmd.ProcessState.ExitCode(), out.String(), err
}

// MustRun runs a tool and fails the test unless it succeeds. It returns what it printed.
func MustRun(t testing.TB, name string, args ...string) string {
	t.Helper()
	code, out, err := Tool{Name: name, Args: args}.Run(t.Context())
	if err != nil || code != 0 {
		t.Fatalf("%s %s: exit code %d, %v\n%s", name, strings.Join(args, " "), code, err, out)
	}
	return out
}
