package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// askTimeout bounds the questions that Configure has for a running server; without an answer it assumes the heavier change.
const askTimeout = 2 * time.Second

const (
	confName     = "howdah.conf"
	autoConfName = "postgresql.auto.conf"
	// savedAutoConfName keeps what was removed from postgresql.auto.conf, as it was before the last removal.
	savedAutoConfName = "postgresql.auto.conf.before-howdah"
)

// Configure writes howdah.conf (and its include), pg_hba.conf, the passfile and, for a standby,
// standby.signal, each in one step and only where something changes. It says what a running server
// needs to heed what it has not heeded yet; where no server answers, what it would need at most.
//
// For a standby it also takes back what ReserveTimeline did, without which it would not start again; so it is to be
// called before every start of a standby, and not between ReserveTimeline and Promote.
//
// A setting that was changed earlier and still waits for a restart is in Probe.PendingRestart.
func (p *Postgres) Configure(ctx context.Context, s Settings) (Change, error) {
	change, err := p.configure(ctx, s)
	if err != nil {
		return ChangeNone, fmt.Errorf("configure: %w", err)
	}
	return change, nil
}

func (p *Postgres) configure(ctx context.Context, s Settings) (Change, error) {
	w, err := p.writeConfig(ctx, p.o.DataDir, s)
	if err != nil {
		return ChangeNone, err
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := p.askChange(ask, w.names)
	if err != nil {
		if !errors.Is(err, ErrNotListening) {
			p.log.Debug("server did not say what a change needs", zap.Error(err))
		}
		return w.staticChange(), nil
	}
	change := answer.change
	if w.files || answer.loadedAt.Before(w.newest) {
		change = max(change, ChangeReload)
	}
	if s.Role == schema.RoleStandby && !answer.inRecovery {
		change = ChangeRestart
	}
	return change, nil
}

// written is what writeConfig did.
type written struct {
	names  []string // settings that changed
	files  bool     // another file changed, which a reload reads
	signal bool     // standby.signal is new
	newest time.Time
}

// staticChange judges without the server's help.
func (w written) staticChange() Change {
	change := ChangeNone
	if w.files {
		change = ChangeReload
	}
	for _, n := range w.names {
		c, known := settingContext[n]
		if !known {
			c = ChangeRestart
		}
		change = max(change, c)
	}
	if w.signal {
		change = ChangeRestart
	}
	return change
}

// writeConfig writes all files into dir, which is the data directory or will become it.
func (p *Postgres) writeConfig(ctx context.Context, dir string, s Settings) (w written, err error) {
	if s.Role != schema.RolePrimary && s.Role != schema.RoleStandby {
		return w, fmt.Errorf("role %q: want primary or standby", s.Role)
	}
	f := facts{}
	if f.major, err = readMajor(dir); err != nil {
		return w, err
	}
	if s.Role == schema.RoleStandby {
		if f.control, err = p.controlData(ctx, dir); err != nil {
			return w, err
		}
	}
	s.Config, _ = p.readProven().effective(s.Config)
	conf, hba, err := p.texts(s, f)
	if err != nil {
		return w, err
	}
	if err := p.writePassfile(); err != nil {
		return w, err
	}
	before, err := readOrEmpty(filepath.Join(dir, confName))
	if err != nil {
		return w, err
	}
	if before == "" && dir == p.o.DataDir {
		if err := p.keepForeign(); err != nil {
			return w, err
		}
	}
	w.names = changedSettings(before, conf)
	if err := w.put(dir, confName, conf); err != nil {
		return w, err
	}
	w.files = false // howdah.conf is accounted for by name
	if err := w.put(dir, "pg_hba.conf", hba); err != nil {
		return w, err
	}
	if err := w.include(dir); err != nil {
		return w, err
	}
	if err := p.cleanAutoConf(dir, &w); err != nil {
		return w, err
	}
	if s.Role == schema.RoleStandby {
		if err := dropReservations(dir); err != nil {
			return w, err
		}
		if w.signal, err = writeFile(filepath.Join(dir, "standby.signal"), nil, 0o600); err != nil {
			return w, err
		}
	}
	return w, nil
}

// texts are the texts of howdah.conf and pg_hba.conf.
func (p *Postgres) texts(s Settings, f facts) (conf, hba string, err error) {
	all, refused, err := p.o.settings(s, f)
	if err != nil {
		return "", "", err
	}
	for _, name := range refused {
		why, _ := ruled(name)
		p.log.Debug("parameter of the cluster's configuration is left out", zap.String("parameter", name), zap.String("why", why))
	}
	if conf, err = renderSettings(all); err != nil {
		return "", "", err
	}
	lines := s.Config.HBA
	if s.Closed {
		lines = nil
	}
	hba, err = renderHBA(lines)
	return conf, hba, err
}

// render is what the files of a configured server in dir hold, by path.
func (p *Postgres) render(dir string, s Settings, control ControlData) (map[string]string, error) {
	f := facts{control: control}
	var err error
	if f.major, err = readMajor(dir); err != nil {
		return nil, err
	}
	conf, hba, err := p.texts(s, f)
	if err != nil {
		return nil, err
	}
	main, err := os.ReadFile(filepath.Join(dir, "postgresql.conf"))
	if err != nil {
		return nil, err
	}
	auto, err := readOrEmpty(filepath.Join(dir, autoConfName))
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		filepath.Join(dir, confName): conf, filepath.Join(dir, "pg_hba.conf"): hba,
		filepath.Join(dir, "postgresql.conf"): includeLast(string(main)), p.passfile(): p.passText(),
	}
	if rest, removed := withoutRuled(auto); len(removed) > 0 {
		files[filepath.Join(dir, autoConfName)] = rest
	}
	return files, nil
}

// sameFile reports whether a file holds text, and when it was changed last.
func sameFile(path, text string) (same bool, at time.Time, err error) {
	b, err := readOrEmpty(path)
	if err != nil {
		return false, at, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, at, nil
	}
	if err != nil {
		return false, at, err
	}
	return b == text, info.ModTime(), nil
}

// put writes one file that a reload reads.
func (w *written) put(dir, name, text string) error {
	path := filepath.Join(dir, name)
	changed, err := writeFile(path, []byte(text), 0o600)
	if err != nil {
		return err
	}
	w.files = w.files || changed
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.ModTime().After(w.newest) {
		w.newest = info.ModTime()
	}
	return nil
}

func (w *written) include(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "postgresql.conf"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: Debian's packages keep it below /etc/postgresql; copy postgresql.conf, pg_hba.conf, pg_ident.conf and conf.d from there into the data directory", err)
	}
	if err != nil {
		return err
	}
	return w.put(dir, "postgresql.conf", includeLast(string(b)))
}

func (p *Postgres) cleanAutoConf(dir string, w *written) error {
	text, err := readOrEmpty(filepath.Join(dir, autoConfName))
	if err != nil {
		return err
	}
	rest, removed := withoutRuled(text)
	if len(removed) == 0 {
		return nil
	}
	if _, err := writeFile(filepath.Join(dir, savedAutoConfName), []byte(text), 0o600); err != nil {
		return err
	}
	p.log.Warn("removing settings that howdah rules from "+autoConfName, zap.Strings("settings", removed), zap.String("copy", savedAutoConfName))
	for _, name := range removed {
		if !slices.Contains(w.names, name) {
			w.names = append(w.names, name)
		}
	}
	return w.put(dir, autoConfName, rest)
}

// writePassfile writes D.pgpass. Any host and port, because the primary changes. The WAL receiver reads it at each
// connection, so a change needs no reload.
func (p *Postgres) writePassfile() error {
	p.passfileLock.Lock()
	defer p.passfileLock.Unlock()
	_, err := writeFile(p.passfile(), []byte(p.passText()), 0o600)
	return err
}

// passText holds the replication password that is in force, as far as is known: libpq tries one only.
func (p *Postgres) passText() string {
	return strings.Join([]string{"*", "*", "*", ReplicationRole, quotePassfile(p.keys.candidates(ReplicationRole)[0])}, ":") + "\n"
}

func (p *Postgres) passfile() string { return p.o.DataDir + ".pgpass" }

func readOrEmpty(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// changeAnswer is what the running server says.
type changeAnswer struct {
	change     Change
	loadedAt   time.Time // when it read its files last
	inRecovery bool
}

// askChange asks the server what a change of these settings needs, and what it has read so far.
func (p *Postgres) askChange(ctx context.Context, names []string) (changeAnswer, error) {
	var a changeAnswer
	var restart int
	err := p.duties.do(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT pg_conf_load_time(), pg_is_in_recovery(),
			count(*) FILTER (WHERE context = 'postmaster')
			FROM pg_settings WHERE name = ANY($1::text[])`, names).Scan(&a.loadedAt, &a.inRecovery, &restart)
	})
	switch {
	case restart > 0:
		a.change = ChangeRestart
	case len(names) > 0:
		a.change = ChangeReload
	}
	return a, err
}
