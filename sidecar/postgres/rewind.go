package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// ErrCannotRewind says that a rewind is not possible and that the data directory is as whole as it was: at most
// it went through the crash recovery that a start would have brought too. Any other error of Rewind that leaves
// the directory DirIncomplete means that it must be cloned; one that leaves it DirValid may be gone another time.
var ErrCannotRewind = errors.New("pg_rewind cannot be used")

// RewindRequest says to what a data directory is rewound.
type RewindRequest struct {
	// From is a primary: the server whose history the directory is to join.
	From Upstream
	// SystemID is the cluster's system identifier; a source or a directory with another one is refused.
	SystemID string
	// Settings are written once the directory is rewound; their Role must be RoleStandby.
	Settings Settings
}

const (
	// sourcePatience is how long a source may take for the checkpoint that writes its timeline into its control
	// file: a primary's sidecar asks for one right after the promotion.
	sourcePatience = 30 * time.Second
	sourcePoll     = 200 * time.Millisecond
)

// CanRewind reports whether pg_rewind could bring this data directory onto another history, and if not, why. It
// says nothing about whether its WAL reaches back to where the histories part: only pg_rewind finds that out.
//
// Besides what pg_rewind asks for (sanityChecks in src/bin/pg_rewind/pg_rewind.c) the directory must have been
// consistent once. pg_rewind does not look: it has replay begin at the last checkpoint before the parting, and
// what a restored directory had yet to replay before that point would be lost without a word.
func CanRewind(d DataDir) (ok bool, why string) {
	c := d.Control
	switch {
	case d.State != DirValid:
		return false, fmt.Sprintf("the data directory is %s", d.State)
	case c.DataChecksums == 0 && !c.WALLogHints:
		return false, "it has neither data checksums nor wal_log_hints"
	case d.BackupLabel || c.BackupStartLSN != 0 || c.BackupEndRequired:
		return false, "it is a copy that was never consistent"
	case c.State == ControlShutDown || c.State == ControlShutDownInRecovery:
		return true, ""
	case c.State == ControlInArchiveRecovery || d.StandbySignal:
		// Only a primary recovers by itself, and pg_rewind wants a clean shutdown.
		return false, "it is a standby that was not shut down cleanly"
	}
	return true, ""
}

// Rewind brings the stopped server's data directory onto the history of r.From by pg_rewind and configures it as
// its standby. What it wrote after the histories parted is gone then: the caller decides that it may go (I7). A
// primary that crashed goes through crash recovery first, which pg_rewind does by itself.
//
// errors.Is tells ErrCannotRewind, ErrUnreachable, ErrNotReady and ErrPassword. A rewind that is cut short or
// fails half-way leaves DirIncomplete behind, for good: the next Clone replaces it.
func (p *Postgres) Rewind(ctx context.Context, r RewindRequest) error {
	if err := p.rewind(ctx, r); err != nil {
		return fmt.Errorf("rewind to %s: %w", r.From, err)
	}
	return nil
}

func (p *Postgres) rewind(ctx context.Context, r RewindRequest) error {
	if r.Settings.Role != schema.RoleStandby {
		return fmt.Errorf("role %q: what is rewound becomes a standby", r.Settings.Role)
	}
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	if err := p.checkRewind(ctx, r); err != nil {
		return err
	}
	if err := p.awaitSource(ctx, r.From); err != nil {
		return err
	}
	args := p.rewindArgs(r)
	if restores(r.Settings.Config) {
		args = append(args, "--restore-target-wal")
		// pg_rewind asks the target's configuration for the command.
		if _, err := p.writeConfig(ctx, p.o.DataDir, Settings{Role: schema.RolePrimary, Config: r.Settings.Config}); err != nil {
			return err
		}
	}
	// A runner that refuses shall do so before the directory is marked.
	if _, err := p.runTool(ctx, Command{Tool: "pg_rewind", Args: []string{"--version"}}); err != nil {
		return cannotIfFailed(err)
	}
	// Whatever WAL the replay after the rewind needs must not go away meanwhile.
	if _, err := p.ensureUpstreamSlot(ctx, r.From); err != nil {
		return err
	}
	s := p.swapper()
	if err := p.markRewind(s); err != nil {
		return err
	}
	p.log.Info("rewinding", zap.String("to", r.From.String()))
	out, err := p.runTool(ctx, Command{Tool: "pg_rewind", Args: args, Env: map[string]string{
		"PGPASSWORD": p.keys.candidates(RewindRole)[0], "PGAPPNAME": p.o.Name, "PGOPTIONS": "-c statement_timeout=0",
	}})
	if untouched(out, err) {
		return p.unmarkUntouched(s, out, err)
	}
	if err != nil {
		return fmt.Errorf("the data directory is half-way between two histories and must be cloned: %w", err)
	}
	if err := p.finishRewound(ctx, s, r); err != nil {
		return fmt.Errorf("the data directory was rewound but not made ready, and must be cloned: %w", err)
	}
	return nil
}

// checkRewind refuses what can be refused before anything is touched.
func (p *Postgres) checkRewind(ctx context.Context, r RewindRequest) error {
	p.swap.RLock()
	d, err := p.look(p.o.DataDir)
	p.swap.RUnlock()
	if err == nil && d.State == DirValid {
		d, err = p.readControl(ctx, p.o.DataDir, d)
	}
	if err != nil {
		return err
	}
	if ok, why := CanRewind(d); !ok {
		return fmt.Errorf("%w: %s", ErrCannotRewind, why)
	}
	if d.SystemID() != r.SystemID {
		return fmt.Errorf("%w: the data directory has the system identifier %s, this cluster has %q", ErrCannotRewind, d.SystemID(), r.SystemID)
	}
	if err := p.checkSource(ctx, CloneRequest{From: r.From, SystemID: r.SystemID}); err != nil {
		return err
	}
	return p.checkStopped(ctx)
}

// sourceSQL asks whether the source is a primary whose control file has its present timeline. The checkpoint that
// follows a promotion writes it there; until then pg_rewind before version 16 takes the old timeline for the
// source's, and finds that "no rewind is required" or a parting that is not the true one.
const sourceSQL = `SELECT r.rec, NOT r.rec AND ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint = c.timeline_id
FROM (SELECT pg_is_in_recovery() AS rec OFFSET 0) r CROSS JOIN pg_control_checkpoint() c`

// awaitSource waits, as the role that pg_rewind will use, until the source can be rewound to.
func (p *Postgres) awaitSource(ctx context.Context, u Upstream) error {
	ctx, cancel := context.WithTimeout(ctx, sourcePatience)
	defer cancel()
	conn, err := p.connectSource(ctx, u)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	tick := time.NewTicker(sourcePoll)
	defer tick.Stop()
	for {
		var recovering, ready bool
		if err := conn.QueryRow(ctx, sourceSQL).Scan(&recovering, &ready); err != nil {
			return remoteError(u, RewindRole, "rewind", err)
		}
		switch {
		case ready:
			return nil
		case recovering:
			return fmt.Errorf("it is a standby: %w", ErrNotReady)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: it has had no checkpoint since its promotion", ErrNotReady)
		}
	}
}

// connectSource connects to the database postgres of another server, where howdah_rewind may ask what anybody may.
func (p *Postgres) connectSource(ctx context.Context, u Upstream) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=%s connect_timeout=5", quoteConninfo(u.Host), u.Port, RewindRole, cmp.Or(u.SSLMode, "prefer")))
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams = map[string]string{"application_name": p.o.Name, "search_path": "pg_catalog"}
	var conn *pgx.Conn
	err = p.withPassword(RewindRole, func(password string) error {
		cfg.Password = password
		conn, err = pgx.ConnectConfig(ctx, cfg)
		return err
	})
	if err != nil {
		return nil, remoteError(u, RewindRole, "rewind", err)
	}
	return conn, nil
}

func (p *Postgres) rewindArgs(r RewindRequest) []string {
	conninfo := []string{"host=" + quoteConninfo(r.From.Host), "port=" + strconv.Itoa(r.From.Port), "user=" + RewindRole, "dbname=postgres",
		"target_session_attrs=read-write", "connect_timeout=5", "keepalives_idle=5", "keepalives_interval=2", "keepalives_count=5"}
	if r.From.SSLMode != "" {
		conninfo = append(conninfo, "sslmode="+r.From.SSLMode)
	}
	// --progress makes it say when it begins to write; see untouched.
	return []string{"--target-pgdata=" + p.o.DataDir, "--source-server=" + strings.Join(conninfo, " "), "--progress"}
}

// restores reports whether the cluster fetches WAL from an archive.
func restores(c schema.ClusterConfig) bool {
	for name, v := range c.Parameters {
		if strings.EqualFold(name, "restore_command") && v != "" {
			return true
		}
	}
	return false
}

// cannotIfFailed makes a tool's own failure, as against one to run it, an ErrCannotRewind.
func cannotIfFailed(err error) error {
	if failed := (*toolError)(nil); errors.As(err, &failed) {
		return fmt.Errorf("%w: %w", ErrCannotRewind, err)
	}
	return err
}

// writing is what pg_rewind --progress prints right before it changes the first file, and from then on (main,
// perform_rewind and progress_report in src/bin/pg_rewind/pg_rewind.c).
var writing = regexp.MustCompile(`need to copy \d+ MB|kB \(\d+%\) copied|creating backup label|syncing target data directory`)

// notNeeded is what it prints where it finds nothing to do.
const notNeeded = "no rewind required"

// wholeOutput is how much output every runner keeps; of more, the beginning may be missing.
const wholeOutput = 64 << 10

// untouched reports whether it is certain that pg_rewind ended before it changed a file of the directory.
func untouched(out string, err error) bool {
	failed := (*toolError)(nil)
	if err != nil && (!errors.As(err, &failed) || failed.code < 0 || failed.code >= 128) {
		return false // killed, or not known how it ended
	}
	return len(out) < wholeOutput && !writing.MatchString(out) && (err != nil || strings.Contains(out, notNeeded))
}

// markRewind puts the marker there: from now on the directory is worth nothing until finishRewound.
func (p *Postgres) markRewind(s dirSwap) error {
	p.swap.Lock()
	defer p.swap.Unlock()
	return s.markRewind()
}

// unmarkUntouched takes the marker back. Crash recovery by pg_rewind runs without fsync, which is made up for here.
func (p *Postgres) unmarkUntouched(s dirSwap, out string, err error) error {
	if err == nil {
		err = errors.New(notNeeded + ", it says, yet the histories part: " + clip(out))
	}
	p.swap.Lock()
	defer p.swap.Unlock()
	if syncErr := syncTree(p.o.DataDir); syncErr != nil {
		return errors.Join(err, fmt.Errorf("the data directory must be cloned: %w", syncErr))
	}
	if markErr := s.unmarkRewind(); markErr != nil {
		return errors.Join(err, markErr)
	}
	return fmt.Errorf("%w: %w", ErrCannotRewind, err)
}

// finishRewound checks what pg_rewind left, and makes it this member's standby: pg_rewind took over all of the source's
// configuration. The marker goes last.
func (p *Postgres) finishRewound(ctx context.Context, s dirSwap, r RewindRequest) error {
	dir := p.o.DataDir
	c, err := p.controlData(ctx, dir)
	if err != nil {
		return err
	}
	if c.SystemID != r.SystemID || c.State != ControlInArchiveRecovery {
		return fmt.Errorf("pg_rewind left a control file of system %s, %s", c.SystemID, c.State)
	}
	if there, err := exists(filepath.Join(dir, "backup_label")); err != nil || !there {
		return errors.Join(err, errors.New("pg_rewind left no backup_label"))
	}
	for _, name := range []string{nonceFile, savedAutoConfName} { // the source's
		if err := removeFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if _, err := p.writeConfig(ctx, dir, r.Settings); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	p.swap.Lock()
	defer p.swap.Unlock()
	return s.unmarkRewind()
}

// treeRoots are the places on which a data directory's files may lie: other file systems, by symbolic links.
func treeRoots(dir string) ([]string, error) {
	roots := []string{dir, filepath.Join(dir, "pg_wal")}
	spaces := filepath.Join(dir, "pg_tblspc")
	entries, err := os.ReadDir(spaces)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		roots = append(roots, filepath.Join(spaces, e.Name()))
	}
	return roots, nil
}
