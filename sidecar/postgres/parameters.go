package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
)

// Parameters returns what the running server says of its settings, without their values.
func (p *Postgres) Parameters(ctx context.Context) ([]schema.Parameter, error) {
	var all []schema.Parameter
	err := p.duties.do(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT name, vartype, coalesce(unit, ''), context, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(enumvals, '{}')
			FROM pg_settings ORDER BY name`)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[schema.Parameter])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	return all, nil
}
