package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"howdah/consul/schema"
)

// Identify asks another server who it is, as howdah_replication on a replication connection. errors.Is
// tells ErrUnreachable, ErrNotReady and ErrPassword.
func (p *Postgres) Identify(ctx context.Context, u Upstream) (Identity, error) {
	var id Identity
	err := p.onReplication(ctx, u, func(c *pgconn.PgConn) (err error) {
		id, err = identify(ctx, c)
		return err
	})
	return id, err
}

// UpstreamHistory asks another server for its current timeline's history.
func (p *Postgres) UpstreamHistory(ctx context.Context, u Upstream) (History, error) {
	var h History
	err := p.onReplication(ctx, u, func(c *pgconn.PgConn) error {
		id, err := identify(ctx, c)
		if err != nil {
			return err
		}
		if id.Timeline == 1 {
			h = History{Current: 1}
			return nil
		}
		r, err := pglogrepl.TimelineHistory(ctx, c, int32(id.Timeline))
		if err != nil {
			return err
		}
		h, err = ParseHistory(id.Timeline, string(r.Content))
		return err
	})
	return h, err
}

// onReplication runs f on a physical replication connection to another server.
func (p *Postgres) onReplication(ctx context.Context, u Upstream, f func(*pgconn.PgConn) error) error {
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=replication sslmode=%s", quoteConninfo(u.Host), u.Port, ReplicationRole, cmp.Or(u.SSLMode, "prefer")))
	if err != nil {
		return fmt.Errorf("%s: %w", u, err)
	}
	cfg.RuntimeParams = map[string]string{"replication": "true", "application_name": p.o.Name}
	var c *pgconn.PgConn
	err = p.withPassword(ReplicationRole, func(password string) error {
		cfg.Password = password
		c, err = pgconn.ConnectConfig(ctx, cfg)
		return err
	})
	if err != nil {
		return remoteError(u, ReplicationRole, "replication", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = c.Close(ctx)
	}()
	if err := f(c); err != nil {
		return remoteError(u, ReplicationRole, "replication", err)
	}
	return nil
}

func identify(ctx context.Context, c *pgconn.PgConn) (Identity, error) {
	r, err := pglogrepl.IdentifySystem(ctx, c)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{SystemID: r.SystemID, Timeline: schema.Timeline(r.Timeline), LSN: schema.LSN(r.XLogPos)}
	id.ServerVersionNum, err = showVersion(ctx, c)
	return id, err
}

// showVersion reads server_version_num: SHOW works on replication connections too.
func showVersion(ctx context.Context, c *pgconn.PgConn) (int, error) {
	results, err := c.Exec(ctx, "SHOW server_version_num").ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return 0, errors.New("SHOW server_version_num: want one row of one column")
	}
	n, err := strconv.Atoi(string(results[0].Rows[0][0]))
	if err != nil {
		return 0, fmt.Errorf("server_version_num: %w", err)
	}
	return n, nil
}

// ensureUpstreamSlot makes this member's slot on the server it clones from, so that no WAL goes away between the
// copy and the first start. It reports whether the slot is new. CREATE_REPLICATION_SLOT is how a role with just
// REPLICATION finds out, in every version, whether a slot exists. A remote's slots are the remote's.
func (p *Postgres) ensureUpstreamSlot(ctx context.Context, u Upstream) (made bool, err error) {
	if u.Remote {
		return false, nil
	}
	slot := SlotName(p.o.Name)
	err = p.onReplication(ctx, u, func(c *pgconn.PgConn) error {
		_, err := c.Exec(ctx, "CREATE_REPLICATION_SLOT "+slot+" PHYSICAL RESERVE_WAL").ReadAll()
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && pgErr.Code == "42710" { // ERRCODE_DUPLICATE_OBJECT
			return nil
		}
		made = err == nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("replication slot %s: %w", slot, err)
	}
	return made, nil
}

// dropUpstreamSlot takes a slot back that ensureUpstreamSlot made.
func (p *Postgres) dropUpstreamSlot(ctx context.Context, u Upstream) error {
	return p.onReplication(ctx, u, func(c *pgconn.PgConn) error {
		_, err := c.Exec(ctx, "DROP_REPLICATION_SLOT "+SlotName(p.o.Name)).ReadAll()
		return err
	})
}
