package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// cleanupTimeout bounds what is undone on another server after a clone has failed.
const cleanupTimeout = 5 * time.Second

// Initdb makes a new cluster's data directory, configured as a primary's, with checksums and SCRAM. Refused
// unless the path is free or an empty directory. The directory appears whole or not at all.
func (p *Postgres) Initdb(ctx context.Context, cfg schema.ClusterConfig) error {
	if err := p.initdb(ctx, cfg); err != nil {
		return fmt.Errorf("initdb of %s: %w", p.o.DataDir, err)
	}
	return nil
}

func (p *Postgres) initdb(ctx context.Context, cfg schema.ClusterConfig) error {
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	major, err := p.BinaryMajor(ctx)
	if err != nil {
		return err
	}
	feat, err := featuresOf(major)
	if err != nil {
		return err
	}
	s := p.swapper()
	m, err := p.beginSwap(ctx, workInit, func(found DirState) error {
		if found != DirAbsent && found != DirEmpty {
			return fmt.Errorf("the directory is not empty (%s): %w", found, ErrNotOurs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = p.fillByInitdb(ctx, s, feat, Settings{Role: schema.RolePrimary, Config: cfg})
	return p.endSwap(s, m, err)
}

func (p *Postgres) fillByInitdb(ctx context.Context, s dirSwap, feat features, settings Settings) error {
	dir := s.newPath(workInit)
	// A file, because an argument shows in ps and the standard input of another user's process cannot be opened by path.
	if _, err := writeFile(s.pwfile(), []byte(p.keys.present().Superuser+"\n"), 0o600); err != nil {
		return err
	}
	args := []string{"--pgdata=" + dir, "--username=" + SuperuserRole, "--pwfile=" + s.pwfile(),
		"--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"}
	if feat.builtinLocale {
		args = append(args, "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
	}
	if _, err := p.runTool(ctx, Command{Tool: "initdb", Args: args}); err != nil {
		return err
	}
	if err := removeFile(s.pwfile()); err != nil {
		return err
	}
	_, err := p.writeConfig(ctx, dir, settings)
	return err
}

// Clone replaces the data directory by a copy of another server's, configured as its standby. The
// present contents stay until the copy is whole, or, with r.RemoveFirst, where both have no room, go before; see dirSwap. The caller decides that they may go (I7), and
// that no server runs on them. errors.Is tells ErrUnreachable, ErrNotReady,
// ErrPassword, ErrOtherCluster, ErrDiskFull and ErrNotOurs; errors.As a *MajorError.
func (p *Postgres) Clone(ctx context.Context, r CloneRequest) error {
	if err := p.clone(ctx, r); err != nil {
		return fmt.Errorf("clone of %s: %w", r.From, err)
	}
	return nil
}

func (p *Postgres) clone(ctx context.Context, r CloneRequest) error {
	if r.Settings.Role != schema.RoleStandby {
		return fmt.Errorf("role %q: a clone is a standby", r.Settings.Role)
	}
	if !p.working.TryLock() {
		return errWorking
	}
	defer p.working.Unlock()
	// Everything that can be refused is refused before anything is touched.
	if err := p.checkSource(ctx, r); err != nil {
		return err
	}
	if err := p.checkHolder(ctx, r); err != nil {
		return err
	}
	if err := p.checkStopped(ctx); err != nil {
		return err
	}
	if err := p.writePassfile(); err != nil {
		return err
	}
	s := p.swapper()
	m, err := p.beginSwap(ctx, workClone, func(found DirState) error {
		if found == DirForeign {
			return fmt.Errorf("%s holds something that is not PostgreSQL's: %w", p.o.DataDir, ErrNotOurs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	madeSlot, err := p.ensureUpstreamSlot(ctx, r.From)
	if err == nil && r.fromStandby() { // what follows the copy's last record must not go away at the one it will follow
		_, err = p.ensureUpstreamSlot(ctx, *r.Settings.Upstream)
	}
	if err == nil && r.RemoveFirst != nil && !m.Gone {
		err = p.removeFirst(ctx, s, &m, r)
	}
	if err == nil {
		p.cloning.Store(true)
		err = p.withoutSpace(p.fillByClone(ctx, s, r), m.Gone)
		p.cloning.Store(false)
	}
	err = p.endSwap(s, m, err)
	if err != nil && madeSlot {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if dropErr := p.dropUpstreamSlot(cleanup, r.From); dropErr != nil {
			p.log.Warn("slot of a failed clone is left to the primary to drop", zap.Error(dropErr))
		}
	}
	return err
}

// checkSource refuses a source of another cluster or major version.
func (p *Postgres) checkSource(ctx context.Context, r CloneRequest) error {
	major, err := p.BinaryMajor(ctx)
	if err != nil {
		return err
	}
	id, err := p.Identify(ctx, r.From)
	if err != nil {
		return err
	}
	if r.SystemID == "" || id.SystemID != r.SystemID {
		return fmt.Errorf("it has the system identifier %s, this cluster has %q: %w", id.SystemID, r.SystemID, ErrOtherCluster)
	}
	if source := id.ServerVersionNum / 10000; source != major {
		return &MajorError{What: r.From.String(), Have: source, Want: major}
	}
	return nil
}

// fromStandby reports a copy that will follow another server than the one that it is taken from.
func (r CloneRequest) fromStandby() bool {
	return r.Settings.Upstream != nil && *r.Settings.Upstream != r.From
}

// checkHolder refuses a standby as the source unless it is one of the server that the copy will follow: both are
// of this cluster and on one timeline, and the standby is not ahead (I7).
func (p *Postgres) checkHolder(ctx context.Context, r CloneRequest) error {
	if !r.fromStandby() {
		return nil
	}
	// The standby first: what it has by now the other one has later.
	source, err := p.Identify(ctx, r.From)
	if err != nil {
		return err
	}
	up := *r.Settings.Upstream
	holder, err := p.Identify(ctx, up)
	if err != nil {
		return err
	}
	switch {
	case holder.SystemID != r.SystemID:
		return fmt.Errorf("%s, which it is to follow, has the system identifier %s, this cluster has %s: %w", up, holder.SystemID, r.SystemID, ErrOtherCluster)
	case source.Timeline != holder.Timeline:
		return fmt.Errorf("it is on timeline %d and %s on %d: %w", source.Timeline, up, holder.Timeline, ErrNotReady)
	case source.LSN > holder.LSN:
		return fmt.Errorf("it has WAL up to %s and %s up to %s: one is not a standby of the other: %w", source.LSN, up, holder.LSN, ErrOtherCluster)
	}
	return nil
}

// checkStopped refuses to replace a data directory unless it is certain that no server listens on the
// socket: one that does not answer in time may be frozen (I5).
func (p *Postgres) checkStopped(ctx context.Context) error {
	p.swap.RLock()
	d, err := p.look(p.o.DataDir)
	p.swap.RUnlock()
	if err != nil || d.State != DirValid {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := p.connectLocal(ask)
	if errors.Is(err, ErrNotListening) {
		return nil
	}
	if err == nil {
		_ = conn.Close(ask)
		return errors.New("a server runs on the data directory; stop it first")
	}
	return fmt.Errorf("a server may run on the data directory; stop it first: %w", err)
}

func (p *Postgres) fillByClone(ctx context.Context, s dirSwap, r CloneRequest) error {
	dir := s.newPath(workClone)
	// Not by the member's name: with a slot pg_basebackup reports what it has flushed (ReceiveXlogStream, receivelog.c), which makes it a
	// synchronous standby if it has the name of one. It would hold commits up, and acknowledge them into a copy that may yet be thrown away.
	conninfo := []string{"host=" + quoteConninfo(r.From.Host), "port=" + strconv.Itoa(r.From.Port), "user=" + ReplicationRole,
		"application_name=" + quoteConninfo("howdah clone for "+p.o.Name), "connect_timeout=5", "keepalives_idle=5", "keepalives_interval=2", "keepalives_count=5"}
	if r.From.SSLMode != "" {
		conninfo = append(conninfo, "sslmode="+r.From.SSLMode)
	}
	args := []string{"--pgdata=" + dir, "--dbname=" + strings.Join(conninfo, " "), "--format=plain", "--wal-method=stream", "--checkpoint=fast", "--no-password"}
	if slot := p.o.slot(r.From); slot != "" { // without one it makes a temporary one
		args = append(args, "--slot="+slot)
	}
	_, err := p.runTool(ctx, Command{
		Tool: "pg_basebackup", Args: args,
		Env: map[string]string{"PGPASSFILE": p.passfile()},
	})
	if err != nil {
		return err
	}
	// Believe nothing: look at what was written before it takes the place of anything.
	d, err := p.look(dir)
	if err != nil {
		return err
	}
	if d.State != DirValid {
		return fmt.Errorf("pg_basebackup left no data directory in %s (%s)", dir, d.State)
	}
	if d, err = p.readControl(ctx, dir, d); err != nil {
		return err
	}
	if d.SystemID() != r.SystemID {
		return fmt.Errorf("the copy has the system identifier %s, this cluster has %s: %w", d.SystemID(), r.SystemID, ErrOtherCluster)
	}
	_, err = p.writeConfig(ctx, dir, r.Settings)
	return err
}

// withoutSpace words an error about a full disk for an operator; gone says that there is no old directory any more.
func (p *Postgres) withoutSpace(err error, gone bool) error {
	if err == nil || !errors.Is(err, ErrDiskFull) && !isNoSpace(err) {
		return err
	}
	if gone {
		return fmt.Errorf("%w below %s: the copy was removed, and this member has none of its own any more; make room for it: %w", ErrDiskFull, filepath.Dir(p.o.DataDir), err)
	}
	return fmt.Errorf("%w below %s: the copy was removed, what stood in %s is as it was; make room (the copy needs it beside the old contents): %w",
		ErrDiskFull, filepath.Dir(p.o.DataDir), p.o.DataDir, err)
}

// beginSwap tidies up what an earlier run left, asks allow about what is there now, and takes the names.
func (p *Postgres) beginSwap(ctx context.Context, w work, allow func(DirState) error) (marker, error) {
	p.swap.Lock()
	defer p.swap.Unlock()
	if err := ctx.Err(); err != nil {
		return marker{}, err
	}
	s := p.swapper()
	if err := s.finish(); err != nil {
		return marker{}, err
	}
	d, err := p.look(p.o.DataDir)
	if err != nil {
		return marker{}, err
	}
	if err := allow(d.State); err != nil {
		return marker{}, err
	}
	return s.begin(w)
}

// endSwap puts the new directory in place, or removes it if filling it failed.
func (p *Postgres) endSwap(s dirSwap, m marker, failed error) error {
	p.swap.Lock()
	defer p.swap.Unlock()
	if failed == nil {
		failed = s.place(m)
	}
	if failed == nil {
		return nil
	}
	// finish knows from what is on disk how far it came.
	if err := s.finish(); err != nil {
		return errors.Join(failed, fmt.Errorf("tidy up: %w", err))
	}
	return failed
}

// CloneBytes returns how many bytes a running clone has written so far; 0 if none runs.
func (p *Postgres) CloneBytes() uint64 {
	if !p.cloning.Load() {
		return 0
	}
	return treeBytes(p.swapper().newPath(workClone))
}
