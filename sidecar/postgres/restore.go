package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// RestoreOptions say how the first data directory of a cluster comes from a backup.
type RestoreOptions struct {
	// Command is a line for the shell that fills the directory %d, which is there and empty, with a base backup. %% is a
	// percent sign. It runs as the user of the server.
	Command string
	// Fetch is PostgreSQL's restore_command; empty leaves that to what the backup's own configuration says, and if
	// it says nothing only the WAL in the backup itself is replayed.
	Fetch string
	// Target is where recovery ends: latest (also if empty), immediate, or name=X, time=X, xid=X, lsn=X.
	Target string
	// Timeline is PostgreSQL's recovery_target_timeline: latest (also if empty), current or a number.
	Timeline string
	// Exclusive ends recovery just before the target; only for time, xid and lsn.
	Exclusive bool
}

// recoveryTargets are PostgreSQL's settings of which at most one may be set. All are given, because a backup's own configuration may
// hold another; the empty ones come first (assign_recovery_target and its like in src/backend/access/transam/xlogrecovery.c).
var recoveryTargets = []string{"recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn"}

// Validate returns every mistake, each beginning with the name of the sidecar's option.
func (o RestoreOptions) Validate() error {
	var errs []error
	line, err := o.line("D")
	switch {
	case o.Command == "":
		errs = append(errs, errors.New("restore-command: is required with --init restore: the command that fills the directory %d with a base backup, "+
			"for example pgbackrest --stanza=main --pg1-path=%d restore"))
	case err != nil && strings.Contains(o.Command, "%f"):
		errs = append(errs, errors.New("restore-command: fills the directory %d with a base backup; PostgreSQL's restore_command, with %f and %p, is --restore-fetch here"))
	case err != nil:
		errs = append(errs, fmt.Errorf("restore-command: %w", err))
	case line == strings.ReplaceAll(o.Command, "%%", "%"):
		errs = append(errs, errors.New("restore-command: does not say %d, the directory that it is to fill"))
	}
	if o.Fetch != "" && !(strings.Contains(o.Fetch, "%f") && strings.Contains(o.Fetch, "%p")) {
		errs = append(errs, errors.New("restore-fetch: want PostgreSQL's restore_command, which says %f, the file in the archive, and %p, where it goes"))
	}
	if o.Timeline != "" && o.Timeline != "latest" && o.Timeline != "current" {
		if n, err := strconv.ParseUint(o.Timeline, 10, 32); err != nil || n == 0 {
			errs = append(errs, errors.New("restore-target-timeline: choose latest, current or the number of a timeline"))
		}
	}
	name, value := o.target()
	if err := checkTarget(name, value); err != nil {
		errs = append(errs, fmt.Errorf("restore-target: %w", err))
	} else if o.Exclusive && name != "recovery_target_time" && name != "recovery_target_xid" && name != "recovery_target_lsn" {
		errs = append(errs, errors.New("restore-target-inclusive: false goes with a --restore-target of time=, xid= or lsn= only"))
	}
	return errors.Join(errs...)
}

// target is PostgreSQL's setting for Target and its value; neither for the end of the WAL.
func (o RestoreOptions) target() (name, value string) {
	switch kind, value, given := strings.Cut(o.Target, "="); {
	case o.Target == "" || o.Target == "latest":
		return "", ""
	case given:
		return "recovery_target_" + kind, value
	default:
		return "recovery_target", o.Target
	}
}

// offsets are the forms of a time that PostgreSQL reads and that mean the same everywhere.
var offsets = []string{"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05-07", "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05-07"}

var xid = regexp.MustCompile(`^[0-9]{1,20}$`)

func checkTarget(name, value string) error {
	switch name {
	case "":
		return nil
	case "recovery_target":
		if value == "immediate" {
			return nil
		}
	case "recovery_target_name":
		if len(value) > 0 && len(value) < 64 { // MAXFNAMELEN
			return nil
		}
		return errors.New("name: give the name of pg_create_restore_point, at most 63 bytes")
	case "recovery_target_time":
		for _, form := range offsets {
			if _, err := time.Parse(form, value); err == nil {
				return nil
			}
		}
		return errors.New("time: give date, time and offset from UTC, for example time=2026-11-27 05:30:00+00")
	case "recovery_target_xid":
		if xid.MatchString(value) {
			return nil
		}
		return errors.New("xid: give the number of a transaction")
	case "recovery_target_lsn":
		if _, err := schema.ParseLSN(value); err == nil {
			return nil
		}
		return errors.New("lsn: give a place in the WAL, for example lsn=0/3000150")
	}
	return errors.New("choose latest, immediate, name=X, time=X, xid=X or lsn=X")
}

// line is Command for the directory dir, which is put in as it is, as PostgreSQL does with %p.
func (o RestoreOptions) line(dir string) (string, error) {
	var b strings.Builder
	for rest := o.Command; ; {
		before, after, found := strings.Cut(rest, "%")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "d"):
			b.WriteString(dir)
		case strings.HasPrefix(after, "%"):
			b.WriteString("%")
		default:
			return "", errors.New("knows only %d, the directory to fill, and %%, a percent sign")
		}
		rest = after[1:]
	}
}

// settings are PostgreSQL's for the recovery, in the order in which they must be given.
func (o RestoreOptions) settings() []setting {
	var all []setting
	for _, name := range recoveryTargets {
		all = append(all, setting{name, ""})
	}
	timeline := o.Timeline
	if timeline == "" {
		timeline = "latest"
	}
	inclusive := "on"
	if o.Exclusive {
		inclusive = "off"
	}
	all = append(all, setting{"recovery_target_timeline", timeline}, setting{"recovery_target_inclusive", inclusive}, setting{"recovery_target_action", "promote"})
	if name, value := o.target(); name != "" {
		all = append(all, setting{name, value})
	}
	return all
}

// Restore makes the first data directory of a cluster from a backup: Options.Restore.Command fills a directory beside it, recovery
// runs there to the target and ends on a timeline of its own, and then it takes the place of the data directory, which must be free
// or empty. It is there whole, stopped and without any setting of the recovery, or not at all. It is not howdah's own yet: see Adopt.
func (p *Postgres) Restore(ctx context.Context) error {
	if err := p.restore(ctx); err != nil {
		return fmt.Errorf("restore of %s: %w", p.o.DataDir, err)
	}
	return nil
}

func (p *Postgres) restore(ctx context.Context) error {
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	if err := p.o.Restore.Validate(); err != nil {
		return err
	}
	s := p.swapper()
	m, err := p.beginSwap(ctx, workRestore, func(found DirState) error {
		if found != DirAbsent && found != DirEmpty {
			return fmt.Errorf("the directory is not empty (%s): %w", found, ErrNotOurs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	dir := s.newPath(workRestore)
	if err = p.fetchBackup(ctx, dir); err == nil {
		err = p.recover(ctx, dir)
	}
	if err == nil {
		err = syncTree(dir) // PostgreSQL syncs what it writes itself, not what a command has copied
	}
	return p.endSwap(s, m, p.withoutSpace(err, false))
}

// fetchBackup has the command fill dir, and looks at what it left there.
func (p *Postgres) fetchBackup(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := giveToOwnerOf(filepath.Dir(dir), dir); err != nil {
		return err
	}
	line, err := p.o.Restore.line(dir)
	if err != nil {
		return err
	}
	p.log.Info("the command that fetches the backup begins", zap.String("into", dir))
	if _, err := p.runTool(ctx, Command{Tool: "restore", Args: []string{line}}); err != nil {
		return fmt.Errorf("the command that fetches the backup: %w", err)
	}
	d, err := p.look(dir)
	if err != nil {
		return err
	}
	if d.State != DirValid {
		return fmt.Errorf("the command that fetches the backup ended well and left no data directory in %s (%s)", dir, d.State)
	}
	if _, err := p.readControl(ctx, dir, d); err != nil {
		return err
	}
	return checkSelfContained(dir)
}

// checkSelfContained refuses a directory with parts elsewhere: recovery would write into them, and they may be those of the server
// that the backup was taken from.
func checkSelfContained(dir string) error {
	tablespaces, err := filepath.Glob(filepath.Join(dir, "pg_tblspc", "*"))
	if err != nil {
		return err
	}
	for _, path := range append(tablespaces, dir, filepath.Join(dir, "pg_wal")) {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link, which a restore does not follow: restore it by hand and start the sidecar with --init existing, "+
				"or have the command put WAL and tablespaces into the directory itself", path)
		}
	}
	if there, err := exists(filepath.Join(dir, "postgresql.conf")); err != nil || !there {
		return errors.Join(err, fmt.Errorf("%s has no postgresql.conf: Debian's packages keep it below /etc/postgresql; have --restore-command put postgresql.conf, "+
			"pg_hba.conf, pg_ident.conf and conf.d into %%d, too", dir))
	}
	return nil
}

// recover runs archive recovery in dir up to the target. It is the single-user mode that does it, to which nobody can connect; it
// refuses standby.signal alone (readRecoverySignalFile, src/backend/access/transam/xlogrecovery.c). At the end PostgreSQL
// removes recovery.signal, and with the end of standard input it shuts down.
func (p *Postgres) recover(ctx context.Context, dir string) error {
	for _, name := range []string{"standby.signal", "recovery.conf", "postmaster.pid", "postmaster.opts", nonceFile} {
		if err := removeFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	fetch := p.o.Restore.Fetch
	if fetch == "" {
		own, err := p.ask(ctx, dir, "restore_command")
		if err != nil {
			return err
		}
		if fetch = own; own == "" {
			fetch = "false" // there is no archive; PostgreSQL wants a command, and this one finds nothing
		}
	}
	signal := filepath.Join(dir, "recovery.signal")
	if _, err := writeFile(signal, nil, 0o600); err != nil {
		return err
	}
	args := []string{"--single", "-D", dir}
	// No hot standby: nobody reads meanwhile, and limits smaller than those of the old server do not matter then.
	for _, s := range append(p.o.Restore.settings(), setting{"restore_command", fetch}, setting{"hot_standby", "off"}, setting{"logging_collector", "off"},
		setting{"log_destination", "stderr"}, setting{"log_min_messages", "warning"}) {
		args = append(args, "-c", s.name+"="+s.value)
	}
	p.log.Info("recovery of the backup begins", zap.String("target", p.o.Restore.Target), zap.String("timeline", p.o.Restore.Timeline))
	if _, err := p.runTool(ctx, Command{Tool: "postgres", Args: append(args, "template1")}); err != nil {
		return fmt.Errorf("recovery of the backup: %w", err)
	}
	d, err := p.look(dir)
	if err == nil {
		d, err = p.readControl(ctx, dir, d)
	}
	if err != nil {
		return err
	}
	if there, err := exists(signal); err != nil || there || !d.Control.CleanShutdown() {
		return errors.Join(err, fmt.Errorf("recovery of the backup did not end: the server left the directory %s", d.Control.State))
	}
	p.log.Info("the backup is recovered", zap.String("system_id", d.SystemID()), zap.Uint32("timeline", uint32(d.Timeline)))
	return nil
}
