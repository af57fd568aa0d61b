package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// foreignFiles are what PostgreSQL, Patroni and stolon keep in a data directory and what howdah replaces, removes or
// makes void. They are copied to D.before-howdah before the first of them is touched.
var foreignFiles = []string{
	"postgresql.conf", "postgresql.base.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf", "standby.signal", "recovery.signal",
	"recovery.conf", "recovery.done", "patroni.dynamic.json", "stolon-temp-postgresql.conf",
}

func (p *Postgres) keptDir() string { return p.o.DataDir + ".before-howdah" }

// keepForeign copies what was there before howdah configured this directory for the first time. A copy that exists
// already is left as it is.
func (p *Postgres) keepForeign() error {
	var kept []string
	for _, name := range foreignFiles {
		text, err := os.ReadFile(filepath.Join(p.o.DataDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		to := filepath.Join(p.keptDir(), name)
		if there, err := exists(to); err != nil || there {
			if err != nil {
				return err
			}
			continue
		}
		if err := p.makeKeptDir(); err != nil {
			return err
		}
		if _, err := writeFile(to, text, 0o600); err != nil {
			return fmt.Errorf("keep a copy of %s: %w", name, err)
		}
		kept = append(kept, name)
	}
	if len(kept) > 0 {
		p.log.Info("the files that were here before howdah are kept as copies", zap.String("in", p.keptDir()), zap.Strings("files", kept))
	}
	// PostgreSQL 12 and newer refuse to start with it (readRecoverySignalFile, src/backend/access/transam/xlogrecovery.c).
	if err := removeFile(filepath.Join(p.o.DataDir, "recovery.conf")); err != nil {
		return err
	}
	return p.plainAutoConf()
}

func (p *Postgres) makeKeptDir() error {
	if err := os.Mkdir(p.keptDir(), 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return giveToOwnerOf(filepath.Dir(p.keptDir()), p.keptDir())
}

// plainAutoConf makes postgresql.auto.conf a file again where it is a link, as stolon's is, to /dev/null: a base
// backup leaves links out.
func (p *Postgres) plainAutoConf() error {
	path := filepath.Join(p.o.DataDir, autoConfName)
	if to, err := os.Readlink(path); err != nil || to != os.DevNull {
		return nil // a file, or none
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	_, err := writeFile(path, nil, 0o600)
	return err
}

// Existing returns cfg with what the stopped server's own configuration says about the whole cluster and what howdah's
// defaults would take away: WAL level, room for senders and slots, feedback of standbys, how much WAL slots may hold, and,
// unless cfg has HBA lines other than the defaults, the lines of its pg_hba.conf. Everything else stays in
// postgresql.conf, which goes on being read. To be called before Adopt.
func (p *Postgres) Existing(ctx context.Context, cfg schema.ClusterConfig) (schema.ClusterConfig, error) {
	if _, err := p.adoptable(ctx); err != nil {
		return cfg, fmt.Errorf("adopt %s: %w", p.o.DataDir, err)
	}
	cfg, err := p.existing(ctx, cfg)
	if err == nil {
		err = CheckConfig(cfg)
	}
	if err != nil {
		return cfg, fmt.Errorf("configuration of the server to be adopted: %w", err)
	}
	return cfg, nil
}

func (p *Postgres) existing(ctx context.Context, cfg schema.ClusterConfig) (schema.ClusterConfig, error) {
	own := map[string]string{}
	for _, s := range []struct {
		name    string
		matters func(string) bool
	}{
		{"wal_level", func(v string) bool { return v == "logical" }},
		{"max_wal_senders", moreThanDefault("max_wal_senders")},
		{"max_replication_slots", moreThanDefault("max_replication_slots")},
		{"hot_standby_feedback", func(v string) bool { return v == "on" }},
		{"max_slot_wal_keep_size", func(v string) bool { return v != "-1" }},
	} {
		v, err := p.ask(ctx, p.o.DataDir, s.name)
		if err != nil {
			return cfg, err
		}
		if s.matters(v) {
			own[s.name] = v
		}
	}
	maps.Copy(own, cfg.Parameters)
	if len(own) > 0 {
		cfg.Parameters = own
	}
	if slices.Equal(cfg.HBA, schema.DefaultClusterConfig().HBA) {
		path, err := p.ask(ctx, p.o.DataDir, "hba_file")
		if err != nil {
			return cfg, err
		}
		if cfg.HBA, err = readHBA(path); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// moreThanDefault reports a value that howdah's default would lower.
func moreThanDefault(name string) func(string) bool {
	return func(v string) bool {
		i := slices.IndexFunc(defaults, func(s setting) bool { return s.name == name })
		n, err := strconv.Atoi(v)
		least, _ := strconv.Atoi(defaults[i].value)
		return err == nil && n > least
	}
}

// ask returns a setting as the configuration files in dir give it.
func (p *Postgres) ask(ctx context.Context, dir, name string) (string, error) {
	out, err := p.runTool(ctx, Command{Tool: "postgres", Args: []string{"-C", name, "-D", dir}})
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.TrimSpace(lines[len(lines)-1]), nil // what is logged comes before
}

// readHBA returns the lines of a pg_hba.conf that say something, without howdah's own.
func readHBA(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := []string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || slices.Contains(ownHBA, line) {
			continue
		}
		if err := checkHBALine(line); err != nil {
			return nil, fmt.Errorf("%s: %q: %w; write the hba lines that the cluster is to have into the --bootstrap-config", path, line, err)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// Adopt makes a primary's data directory that howdah did not make its own, in place: its files are kept as copies
// (D.before-howdah), howdah's configuration is added after what postgresql.conf says, and the role postgres, made
// if there is none, gets the password of the secrets. Roles, data and timeline stay. No server may run on the
// directory. It may be called again after a failure.
func (p *Postgres) Adopt(ctx context.Context, cfg schema.ClusterConfig) error {
	if err := p.adopt(ctx, cfg); err != nil {
		return fmt.Errorf("adopt %s: %w", p.o.DataDir, err)
	}
	return nil
}

func (p *Postgres) adopt(ctx context.Context, cfg schema.ClusterConfig) error {
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	if _, err := p.adoptable(ctx); err != nil {
		return err
	}
	if _, err := p.writeConfig(ctx, p.o.DataDir, Settings{Role: schema.RolePrimary, Config: cfg}); err != nil {
		return err
	}
	if err := p.claimSuperuser(ctx); err != nil {
		return err
	}
	p.log.Info("the data directory is adopted", zap.String("data_dir", p.o.DataDir), zap.String("former_files", p.keptDir()))
	return nil
}

// adoptable refuses a directory that is not a stopped primary's.
func (p *Postgres) adoptable(ctx context.Context) (DataDir, error) {
	d, err := p.Inspect(ctx)
	if err != nil {
		return d, err
	}
	if d.State != DirValid {
		return d, fmt.Errorf("it is no PostgreSQL data directory (%s): %w", d.State, ErrNotOurs)
	}
	if d.StandbySignal {
		return d, errors.New("it is a standby's (standby.signal)")
	}
	if recovering, err := exists(filepath.Join(p.o.DataDir, "recovery.signal")); err != nil || recovering {
		return d, errors.Join(err, errors.New("it is in the middle of a recovery (recovery.signal): let the old server end it first"))
	}
	return d, p.checkStopped(ctx)
}

// claimSuperuser sets the password of the role postgres by the single-user mode, which needs no password and lets nobody
// else in. A server that crashed goes through crash recovery on the way.
func (p *Postgres) claimSuperuser(ctx context.Context) error {
	v, err := newVerifier(p.keys.present().Superuser)
	if err != nil {
		return err
	}
	// One statement for each line. A verifier is base64 and punctuation: nothing in it needs to be escaped.
	sql := "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '" + SuperuserRole + "') THEN CREATE ROLE " + SuperuserRole + " SUPERUSER LOGIN; " +
		"ELSIF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = '" + SuperuserRole + "') THEN " +
		"RAISE EXCEPTION 'the role " + SuperuserRole + " is no superuser: make it one, or rename it, howdah needs it'; END IF; END $$\n" +
		"ALTER ROLE " + SuperuserRole + " LOGIN PASSWORD '" + v + "' VALID UNTIL 'infinity'\n"
	_, err = p.runTool(ctx, Command{
		Tool: "postgres", Stdin: sql,
		Args: []string{"--single", "-D", p.o.DataDir, "-c", "exit_on_error=on", "-c", "log_statement=none", "-c", "log_min_duration_statement=-1",
			"-c", "log_min_error_statement=panic", "-c", "default_transaction_read_only=off", "-c", "logging_collector=off", "-c", "log_destination=stderr", "postgres"},
	})
	if err != nil {
		return fmt.Errorf("set the password of %s: %w", SuperuserRole, err)
	}
	d, err := p.Inspect(ctx)
	if err == nil && !d.Control.CleanShutdown() {
		err = fmt.Errorf("the single-user server left the directory %s", d.Control.State)
	}
	return err
}
