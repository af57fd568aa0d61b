package postgrestest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Password is the password of the superuser postgres, and of every role that CreateRole makes
// unless told otherwise.
const Password = "howdah-test-password"

// template is the data directory that servers are copied from. One process has one.
var template struct {
	sync.Mutex
	dir   string
	users int
	keep  bool
}

// Main runs the tests of a package and keeps the template data directory between them.
func Main(m *testing.M) {
	template.Lock()
	template.keep = true
	template.Unlock()
	code := m.Run()
	if template.dir != "" {
		if err := os.RemoveAll(template.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// NewDataDir makes dir a new data directory, stopped and configured as initdb leaves it. Its superuser is
// postgres with Password.
func NewDataDir(t testing.TB, dir string) {
	t.Helper()
	copyTemplate(t, dir)
}

// copyTemplate makes dir a new data directory.
func copyTemplate(t testing.TB, dir string) {
	t.Helper()
	template.Lock()
	defer template.Unlock()
	if template.dir == "" {
		parent, err := tempDir()
		if err != nil {
			t.Fatal(err)
		}
		template.dir = parent
		if err := initdb(filepath.Join(parent, "data")); err != nil {
			template.dir = ""
			_ = os.RemoveAll(parent)
			t.Fatal(err)
		}
	}
	template.users++
	t.Cleanup(releaseTemplate)
	copyDir(t, filepath.Join(template.dir, "data"), dir)
}

func releaseTemplate() {
	template.Lock()
	defer template.Unlock()
	template.users--
	if template.users == 0 && !template.keep {
		_ = os.RemoveAll(template.dir)
		template.dir = ""
	}
}

func initdb(dir string) error {
	pwfile := dir + ".pw"
	// Readable for PostgreSQL's user; what it holds is no secret.
	if err := os.WriteFile(pwfile, []byte(Password+"\n"), 0o644); err != nil {
		return err
	}
	defer os.Remove(pwfile)
	code, out, err := Tool{Name: "initdb", Args: []string{"-D", dir, "-U", "postgres", "--encoding=UTF8", "--locale=C",
		"--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--pwfile=" + pwfile, "--data-checksums", "--no-sync"}}.Run(context.Background())
	if err != nil || code != 0 {
		return fmt.Errorf("initdb: exit code %d, %v\n%s", code, err, out)
	}
	return nil
}
