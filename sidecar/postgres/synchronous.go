package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// nobodyYet is the synchronous_standby_names of a standby of a cluster that is not asynchronous. A standby does not heed it. Should it be
// promoted, its checkpointer knows from the beginning that commits wait, see AwaitSynchronous; and a walsender that has
// not read the set that holds from then on releases none, because no standby has such a name.
const nobodyYet = `ANY 1 ("howdah: not promoted yet")`

// synchronousPoll is how often AwaitSynchronous asks.
const synchronousPoll = 10 * time.Millisecond

// SetSynchronousStandbys writes synchronous_standby_names into howdah.conf and nothing else anywhere, whatever role the server has or is
// about to get. A running server heeds it after a reload.
func (p *Postgres) SetSynchronousStandbys(names string) error {
	path := filepath.Join(p.o.DataDir, confName)
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("synchronous_standby_names: %w", err)
	}
	quoted, err := quoteSetting(names)
	if err != nil {
		return fmt.Errorf("synchronous_standby_names: %w", err)
	}
	var text strings.Builder
	found := false
	for line := range strings.Lines(string(b)) {
		if name, _, _ := strings.Cut(line, " = "); name == "synchronous_standby_names" {
			line, found = "synchronous_standby_names = "+quoted+"\n", true
		}
		text.WriteString(line)
	}
	if !found {
		return fmt.Errorf("synchronous_standby_names: %s has no such line; it is not as Configure wrote it", path)
	}
	if _, err := writeFile(path, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("synchronous_standby_names: %w", err)
	}
	return nil
}

// Whether commits wait at all is a flag in shared memory that the checkpointer sets when it reads the configuration again
// (SyncRepUpdateSyncStandbysDefined, src/backend/replication/syncrep.c), and a checkpointer in the middle of a checkpoint may
// take long to come to that. It has when it is seen idle some time after the postmaster read the configuration; one that delays its
// writes reads it, too (CheckpointWriteDelay, src/backend/postmaster/checkpointer.c). A new connection has the postmaster's.
const synchronousSQL = `SELECT current_setting('synchronous_standby_names') <> '' AND (
  l.age > interval '30 s' OR l.age > interval '50 ms' AND EXISTS (SELECT FROM pg_stat_activity
    WHERE backend_type = 'checkpointer' AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')))
FROM (SELECT clock_timestamp() - pg_conf_load_time() AS age) l`

// Synchronous reports whether commits of the running server surely wait for standbys; before a promotion, whether they will.
func (p *Postgres) Synchronous(ctx context.Context) (bool, error) {
	var yes bool
	err := p.onOwn(ctx, func(c *pgx.Conn) error { return c.QueryRow(ctx, synchronousSQL).Scan(&yes) })
	if err != nil {
		return false, fmt.Errorf("asking whether commits wait for standbys: %w", err)
	}
	return yes, nil
}

// AwaitSynchronous returns once commits of the running server surely wait for standbys. It is called after the reload by which
// synchronous_standby_names got its first value, and before anybody is told that they do.
func (p *Postgres) AwaitSynchronous(ctx context.Context) error {
	tick := time.NewTicker(synchronousPoll)
	defer tick.Stop()
	for {
		yes, err := p.Synchronous(ctx)
		if err != nil || yes {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("commits do not surely wait for standbys yet; the checkpointer may be in a checkpoint: %w", ctx.Err())
		}
	}
}
