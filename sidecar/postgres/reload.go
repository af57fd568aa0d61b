package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
)

// ReloadFiles has a running server read its configuration files, whoever wrote them, and reports what it thinks of them. reload
// signals the postmaster. The error says that it could not be told, or not be asked, or has not read them. The connection is a new
// one: only a postmaster that runs answers it, and a server that hangs keeps no other duty waiting.
func (p *Postgres) ReloadFiles(ctx context.Context, reload func(context.Context) error) (schema.ReloadReport, error) {
	var r schema.ReloadReport
	err := p.onOwn(ctx, func(c *pgx.Conn) error {
		for _, ask := range []func(context.Context, *pgx.Conn) ([]schema.FileMistake, error){settingMistakes, hbaMistakes, identMistakes} {
			found, err := ask(ctx, c)
			if err != nil {
				return err
			}
			r.Mistakes = append(r.Mistakes, found...)
		}
		read, err := hasRead(ctx, c, reload)
		switch {
		case err != nil:
			return err
		case !read && len(r.Mistakes) > 0:
			r.Postgres = "it took nothing from its configuration files; correct the lines and reload again"
		case !read:
			return fmt.Errorf("it was told, and has not read its files within %s; see its log", loadWait)
		}
		return c.QueryRow(ctx, "SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM pg_settings WHERE pending_restart").Scan(&r.PendingRestart)
	})
	if err != nil {
		return schema.ReloadReport{}, fmt.Errorf("reload: %w", err)
	}
	return r, nil
}

// loadWait is how long a server may take to heed the signal. A file with a line that cannot be read, or with an unknown
// name, it does not take at all: then pg_conf_load_time stays (ProcessConfigFileInternal, src/backend/utils/misc/guc.c).
const loadWait = 2 * time.Second

// hasRead has the server signalled, and reports whether this session has read the files since.
func hasRead(ctx context.Context, c *pgx.Conn, reload func(context.Context) error) (bool, error) {
	loadedAt := func() (at time.Time, err error) {
		err = c.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&at)
		return at, err
	}
	before, err := loadedAt()
	if err == nil {
		err = reload(ctx)
	}
	if err != nil {
		return false, err
	}
	wait := time.NewTimer(loadWait)
	defer wait.Stop()
	for {
		at, err := loadedAt()
		if err != nil || !at.Equal(before) {
			return err == nil, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-wait.C:
			return false, nil
		case <-time.After(reloadPoll):
		}
	}
}

// settingMistakes leaves out what is right and only waits for a restart, for which the view says the same.
func settingMistakes(ctx context.Context, c *pgx.Conn) ([]schema.FileMistake, error) {
	rows, err := c.Query(ctx, `SELECT coalesce(f.sourcefile, ''), coalesce(f.sourceline, 0), coalesce(f.name, ''), coalesce(f.setting, ''), f.error,
		coalesce(s.vartype, ''), coalesce(s.unit, ''), coalesce(s.context, ''), coalesce(s.min_val, ''), coalesce(s.max_val, ''), coalesce(s.enumvals, '{}')
		FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name) WHERE f.error IS NOT NULL ORDER BY f.seqno`)
	if err != nil {
		return nil, err
	}
	var all []schema.FileMistake
	var m schema.FileMistake
	var value string
	var q schema.Parameter
	_, err = pgx.ForEachRow(rows, []any{&m.File, &m.Line, &m.Setting, &value, &m.Error, &q.Type, &q.Unit, &q.Context, &q.Min, &q.Max, &q.Values}, func() error {
		mistake, allowed := m, ""
		if q.Context != "" {
			allowed = q.Refuses(value)
		}
		if q.Context == "postmaster" && allowed == "" {
			return nil
		}
		if allowed != "" {
			mistake.Error += ": " + allowed
		}
		all = append(all, mistake)
		return nil
	})
	return all, err
}

func hbaMistakes(ctx context.Context, c *pgx.Conn) ([]schema.FileMistake, error) {
	return lineMistakes(ctx, c, "SELECT current_setting('hba_file'), coalesce(line_number, 0), error FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number")
}

// identMistakes finds none before PostgreSQL 15, which has no view for them.
func identMistakes(ctx context.Context, c *pgx.Conn) ([]schema.FileMistake, error) {
	var there bool
	if err := c.QueryRow(ctx, "SELECT to_regclass('pg_catalog.pg_ident_file_mappings') IS NOT NULL").Scan(&there); err != nil || !there {
		return nil, err
	}
	return lineMistakes(ctx, c, "SELECT current_setting('ident_file'), coalesce(line_number, 0), error FROM pg_ident_file_mappings WHERE error IS NOT NULL ORDER BY line_number")
}

func lineMistakes(ctx context.Context, c *pgx.Conn, query string) ([]schema.FileMistake, error) {
	rows, err := c.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	var all []schema.FileMistake
	var m schema.FileMistake
	_, err = pgx.ForEachRow(rows, []any{&m.File, &m.Line, &m.Error}, func() error {
		all = append(all, m)
		return nil
	})
	return all, err
}
