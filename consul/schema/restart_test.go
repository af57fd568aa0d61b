package schema_test

import (
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestRestartOrder(t *testing.T) {
	member := func(name string, role schema.Role, state schema.State, pending ...string) schema.Status {
		return schema.Status{Name: name, Role: role, State: state, PendingRestart: pending}
	}
	primary := func(name string, pending ...string) schema.Status {
		return member(name, schema.RolePrimary, schema.StateRunning, pending...)
	}
	standby := func(name string, pending ...string) schema.Status {
		return member(name, schema.RoleStandby, schema.StateStreaming, pending...)
	}
	for _, c := range []struct {
		what    string
		members []schema.Status
		want    string
	}{
		{"nobody", nil, ""},
		{"a primary alone", []schema.Status{primary("a", "shared_buffers")}, "a"},
		{"nothing is pending", []schema.Status{primary("a"), standby("c"), standby("b")}, "b c a"},
		{"raised: standbys first", []schema.Status{primary("a", "max_connections"), standby("b", "max_connections"), standby("c", "max_connections")}, "b c a"},
		{"lowered: standbys wait for nothing until the primary has restarted", []schema.Status{primary("a", "max_connections"), standby("b"), standby("c")}, "a b c"},
		{"lowered, after the primary", []schema.Status{primary("a"), standby("b", "max_connections"), standby("c", "max_connections")}, "b c a"},
		{"half-way through", []schema.Status{primary("a", "max_connections"), standby("b"), standby("c", "max_connections")}, "c a b"},
		{"one that does not stream goes first", []schema.Status{primary("a", "port"), standby("b", "port"), member("c", schema.RoleStandby, schema.StateRunning, "port")}, "c b a"},
		{"one of which nothing is known", []schema.Status{primary("a"), standby("c"), {Name: "b"}}, "b c a"},
	} {
		if got := strings.Join(schema.RestartOrder(c.members), " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
