package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// promotePoll is how often Promote asks whether recovery has ended: a failover waits for it.
const promotePoll = 10 * time.Millisecond

// Promote promotes a standby and returns once it accepts writes; nil at once if it does already. When ctx ends
// first the promotion may still come about: there is no way to take it back but to stop the server.
func (p *Postgres) Promote(ctx context.Context) error {
	err := p.onOwn(ctx, func(c *pgx.Conn) error {
		recovering, err := inRecovery(ctx, c)
		if err != nil || !recovering {
			return err
		}
		if err := askPromotion(ctx, c); err != nil {
			return err
		}
		tick := time.NewTicker(promotePoll)
		defer tick.Stop()
		for {
			recovering, err := inRecovery(ctx, c)
			if err != nil || !recovering {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return nil
}

func askPromotion(ctx context.Context, c *pgx.Conn) error {
	var sent bool
	err := c.QueryRow(ctx, "SELECT pg_promote(wait => false)").Scan(&sent)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "55000" {
		return nil // recovery ended just now
	}
	if err == nil && !sent {
		return errors.New("the server could not signal its postmaster")
	}
	return err
}

func inRecovery(ctx context.Context, c *pgx.Conn) (bool, error) {
	var r bool
	err := c.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&r)
	return r, err
}

// Checkpoint runs CHECKPOINT (on a standby a restartpoint), which may take long, and returns once it is done.
func (p *Postgres) Checkpoint(ctx context.Context) error {
	err := p.onOwn(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "CHECKPOINT")
		return err
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
