package local

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// programs are what a member needs.
var programs = []string{"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata"}

const installHint = "install it, on Debian or Ubuntu by `sudo apt-get install postgresql`, or name the directory of initdb and postgres"

// FindBinDir returns the directory of PostgreSQL's programs: the newest under /usr/lib/postgresql, else the one that
// pg_config names, else that of postgres in PATH. The error says what to install.
func FindBinDir(ctx context.Context) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return major(b) - major(a) })
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		found = append(found, filepath.Dir(postgres))
	}
	var errs []error
	for _, dir := range found {
		err := CheckBinDir(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	return "", errors.New("PostgreSQL is not installed: " + installHint)
}

// CheckBinDir says which program is missing in dir.
func CheckBinDir(dir string) error {
	for _, name := range programs {
		if err := unix.Access(filepath.Join(dir, name), unix.X_OK); err != nil {
			return fmt.Errorf("%s holds no %s that can be executed, so it is not a PostgreSQL server's: %s: %w", dir, name, installHint, err)
		}
	}
	return nil
}

// major is the version in a path such as /usr/lib/postgresql/15/bin; 0 if there is none.
func major(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return n
}
