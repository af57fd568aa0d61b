package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The major versions that this package knows. The layouts it mirrors (the checkpoint record, the
// output of the tools) were compared with these and no others.
const (
	minMajor = 13
	maxMajor = 18
)

// features are what differs between major versions. Everything else this package uses is
// the same from 13 to 18, for example pg_stat_wal_receiver.flushed_lsn, pg_promote and
// recovery settings that a reload changes.
type features struct {
	// builtinLocale: initdb --locale-provider=builtin, whose order does not change with libc (17).
	builtinLocale bool
	// slotSync: sync_replication_slots, which wants a dbname in primary_conninfo (17).
	slotSync bool
	// idleSlotTimeout: idle_replication_slot_timeout, which must stay 0, because the slots that wait on
	// standbys for a failover are idle by design (18).
	idleSlotTimeout bool
}

func featuresOf(major int) (features, error) {
	if major < minMajor || major > maxMajor {
		return features{}, fmt.Errorf("PostgreSQL %d is not supported; use %d to %d", major, minMajor, maxMajor)
	}
	return features{
		builtinLocale:   major >= 17,
		slotSync:        major >= 17,
		idleSlotTimeout: major >= 18,
	}, nil
}

// readMajor reads PG_VERSION of a data directory.
func readMajor(dir string) (int, error) {
	path := filepath.Join(dir, "PG_VERSION")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || major < 1 {
		return 0, fmt.Errorf("%s holds %q, want a major version such as 15", path, b)
	}
	return major, nil
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ([0-9]{1,3})(?:\D|$)`)

// BinaryMajor returns the major version of the tools that the runner runs.
func (p *Postgres) BinaryMajor(ctx context.Context) (int, error) {
	out, err := p.runTool(ctx, Command{Tool: "pg_controldata", Args: []string{"--version"}})
	if err != nil {
		return 0, err
	}
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pg_controldata --version printed %q: no version found", clip(out))
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, err
	}
	if _, err := featuresOf(major); err != nil {
		return 0, err
	}
	return major, nil
}

// runTool runs a tool to its end with messages in English and returns its output; a failure is a *toolError.
func (p *Postgres) runTool(ctx context.Context, c Command) (string, error) {
	env := map[string]string{"LC_ALL": "C"}
	for k, v := range c.Env {
		env[k] = v
	}
	c.Env = env
	r, err := p.tools.Run(ctx, c)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", c.Tool, err)
	}
	if r.ExitCode != 0 {
		return r.Output, &toolError{tool: c.Tool, code: r.ExitCode, output: r.Output}
	}
	return r.Output, nil
}

// toolError is a tool that ran and failed.
type toolError struct {
	tool   string
	code   int
	output string
}

func (e *toolError) Error() string {
	return fmt.Sprintf("%s failed with exit code %d: %s", e.tool, e.code, clip(e.output))
}

// Is lets errors.Is find ErrDiskFull: the text of ENOSPC with LC_ALL=C.
func (e *toolError) Is(target error) bool {
	return target == ErrDiskFull && strings.Contains(e.output, "No space left on device")
}

// clip returns the end of a tool's output, on one line, for a message.
func clip(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	const most = 600
	if len(s) > most {
		s = "... " + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
}
