package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"howdah/consul/schema"
)

// applyRounds is how often files are written until PostgreSQL finds nothing wrong with them. A name that it does not
// know keeps it from looking at any value (ProcessConfigFileInternal, src/backend/utils/misc/guc.c), so two are usual.
const applyRounds = 4

// Apply is Configure for a running server, and has it read what was written. PostgreSQL is asked first what it thinks of
// the files: one setting with an unknown name would keep it from heeding any other, a new
// primary_conninfo for example. What it refuses is put back to what ran before, and stands in Compare's Refused.
func (p *Postgres) Apply(ctx context.Context, s Settings, reload func(context.Context) error) error {
	for range applyRounds {
		change, err := p.Configure(ctx, s)
		if err != nil {
			return err
		}
		if p.readProven().isProven(s.Config) {
			if change == ChangeNone {
				return nil
			}
			return p.reloaded(ctx, reload)
		}
		refused, waiting, err := p.judge(ctx, s)
		if err != nil {
			// Not asked, so nothing is proven: whatever it heeds it heeds, and the next Apply asks again.
			p.log.Warn("PostgreSQL could not be asked about its new configuration", zap.Error(err))
			return reload(ctx)
		}
		if !refused {
			if err := p.reloaded(ctx, reload); err != nil {
				return err
			}
			return p.changeProven(func(v *proven) { v.works(s.Config, waiting) })
		}
	}
	return errors.New("PostgreSQL refuses the configuration files again and again; see pg_file_settings and pg_hba_file_rules")
}

// reloaded has the server read its files, and waits until it has: the signal arrives when it arrives. A server that
// does not say so in time has been told all the same.
func (p *Postgres) reloaded(ctx context.Context, reload func(context.Context) error) error {
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var before time.Time
	err := p.duties.do(ask, func(c *pgx.Conn) error { return c.QueryRow(ask, "SELECT clock_timestamp()").Scan(&before) })
	if rerr := reload(ctx); rerr != nil || err != nil {
		return rerr
	}
	for {
		if answer, err := p.askChange(ask, nil); err != nil || answer.loadedAt.After(before) {
			return nil
		}
		select {
		case <-ask.Done():
			return nil
		case <-time.After(reloadPoll):
		}
	}
}

// reloadPoll is how often a server is asked whether it has read its files.
const reloadPoll = 10 * time.Millisecond

// judge asks PostgreSQL what it thinks of the files as they are on disk (pg_file_settings and pg_hba_file_rules read them
// anew), and remembers what it refuses. waiting are the settings that it takes at the next start.
func (p *Postgres) judge(ctx context.Context, s Settings) (refused bool, waiting []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var bad map[string]string
	var hba string
	err = p.duties.do(ctx, func(c *pgx.Conn) (err error) {
		if bad, waiting, err = judgeSettings(ctx, c); err != nil {
			return err
		}
		hba, err = judgeHBA(ctx, c)
		return err
	})
	if err != nil {
		return false, nil, err
	}
	now, _ := p.readProven().effective(s.Config)
	err = p.changeProven(func(v *proven) {
		for name, value := range now.Parameters {
			low := strings.ToLower(name)
			if why, is := bad[low]; is {
				if v.Refused == nil {
					v.Refused = map[string]refusal{}
				}
				v.Refused[low] = refusal{Value: value, Why: why}
				refused = true
			}
		}
		if hba != "" && !s.Closed && !slices.Equal(now.HBA, v.HBA) {
			v.RefusedHBA = &refusedHBA{Lines: slices.Clone(now.HBA), Why: hba}
			refused = true
		}
	})
	return refused, waiting, err
}

// judgeSettings returns, by name in lower case, what is wrong with lines of howdah.conf, and which are heeded by a start only.
func judgeSettings(ctx context.Context, c *pgx.Conn) (bad map[string]string, waiting []string, err error) {
	rows, err := c.Query(ctx, `SELECT lower(f.name), f.setting, f.error, coalesce(s.vartype, ''), coalesce(s.unit, ''), coalesce(s.context, ''),
		coalesce(s.min_val, ''), coalesce(s.max_val, ''), coalesce(s.enumvals, '{}')
		FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
		WHERE f.error IS NOT NULL AND f.sourcefile LIKE '%/howdah.conf'`)
	if err != nil {
		return nil, nil, err
	}
	bad = map[string]string{}
	var name, value, message string
	var q schema.Parameter
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &message, &q.Type, &q.Unit, &q.Context, &q.Min, &q.Max, &q.Values}, func() error {
		// For both a value that waits for a restart and one that is wrong the view says "setting could not be applied".
		allowed := q.Refuses(value)
		switch {
		case q.Context == "postmaster" && allowed == "":
			waiting = append(waiting, name)
		case allowed != "":
			bad[name] = allowed
		default:
			bad[name] = "PostgreSQL says: " + message
		}
		return nil
	})
	return bad, waiting, err
}

func judgeHBA(ctx context.Context, c *pgx.Conn) (string, error) {
	var line int
	var message string
	err := c.QueryRow(ctx, "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number LIMIT 1").Scan(&line, &message)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	// howdah's own lines and the comment above them come first.
	return fmt.Sprintf("line %d: PostgreSQL says: %s", line-len(ownHBA)-1, message), err
}

// Started takes in that a server accepts connections with what Configure wrote for s.
func (p *Postgres) Started(s Settings) error {
	return p.changeProven(func(v *proven) {
		hba := v.HBA
		v.works(s.Config, nil)
		if s.Closed { // the operator's lines were not in the file
			v.HBA = hba
		}
	})
}

// NotStarted takes in that a server went away again before it accepted connections, and why; log are its last lines. What was
// new in the cluster's configuration is blamed, and left out by the next Configure. It names what.
func (p *Postgres) NotStarted(s Settings, why string, log []string) (blamed []string, err error) {
	err = p.changeProven(func(v *proven) { blamed = v.blame(s.Config, why, strings.Join(log, "\n")) })
	return blamed, err
}

// Comparison is what became of a look at the configuration files of a running server.
type Comparison struct {
	// Differ says that the files are not as Configure would write them, or that the server has not read them since.
	Differ bool
	// Refused says in words what of the cluster's configuration PostgreSQL refused.
	Refused []string
}

// Compare says whether Apply has anything to do. control is what the last Inspect found. No file that PostgreSQL reads is
// changed.
func (p *Postgres) Compare(ctx context.Context, s Settings, control ControlData) (Comparison, error) {
	var c Comparison
	asked := s
	v := p.readProven()
	s.Config, c.Refused = v.effective(s.Config)
	files, err := p.render(p.o.DataDir, s, control)
	if err != nil {
		return c, fmt.Errorf("compare: %w", err)
	}
	var newest time.Time
	for _, path := range slices.Sorted(maps.Keys(files)) {
		same, at, err := sameFile(path, files[path])
		if err != nil {
			return c, fmt.Errorf("compare: %w", err)
		}
		c.Differ = c.Differ || !same
		if at.After(newest) && path != p.passfile() {
			newest = at
		}
	}
	if c.Differ {
		return c, nil
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := p.askChange(ask, nil)
	if err != nil {
		return c, fmt.Errorf("compare: %w", err)
	}
	c.Differ = answer.loadedAt.Before(newest)
	if c.Differ || v.isProven(asked.Config) || asked.Closed {
		return c, nil
	}
	// It runs with these files, perhaps from before anything was remembered of them.
	refused, waiting, err := p.judge(ctx, asked)
	if err != nil {
		return c, fmt.Errorf("compare: %w", err)
	}
	if c.Differ = refused; !refused {
		err = p.changeProven(func(v *proven) { v.works(asked.Config, waiting) })
	}
	return c, err
}
