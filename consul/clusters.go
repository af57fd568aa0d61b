package consul

import (
	"context"
	"slices"
	"strings"
)

// Clusters returns the names of the clusters that have keys under howdah/, sorted: what to show to somebody
// who named one that is not there. A token that may read only some sees only those.
func (c *Client) Clusters(ctx context.Context) ([]string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	// The embedded server lists no keys without their values.
	pairs, _, err := c.api.KV().List("howdah/", c.read(ctx))
	if err != nil {
		return nil, c.fail("list clusters", areaKeyRead, err)
	}
	var names []string
	for _, kv := range pairs {
		if name, _, inFolder := strings.Cut(strings.TrimPrefix(kv.Key, "howdah/"), "/"); inFolder {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
