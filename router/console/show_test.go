package console

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var view = View{
	Version: "1", Cluster: "main", Router: "r1", MaxClients: 10, Epoch: 4, Phase: "serving", Primary: "one", Address: "10.0.0.1:5432",
	Clients: []Client{
		{ID: 2, User: "bob", Database: "shop", Route: "rw", State: StateWaiting, Addr: "10.0.0.9:4000", Waiting: 2500 * time.Millisecond, Held: true},
		{ID: 1, User: "alice", Database: "shop", Route: "rw", State: "idle", Addr: "[::1]:4001", Member: "one", Role: "primary", Epoch: 4, ServerAddr: "10.0.0.1:5432", ServerState: "idle", Application: "a\xff\x00b"},
		{ID: 3, User: "alice", Database: "shop", Route: "ro", State: StateLogin, Addr: "10.0.0.9:4002", Member: "two", Role: "standby", ServerAddr: "10.0.0.2:5432"},
		{
			ID: 4, User: "carol", Database: "books", Route: "auto", State: "active", Member: "one", Role: "primary", Epoch: 4, ServerAddr: "10.0.0.1:5432", ServerState: "idle",
			Reader: &Reader{Member: "two", State: "active", Addr: "10.0.0.2:5432", OwnAddr: "10.0.0.8:77", ConnectedAt: time.Unix(7200, 0).UTC()},
			Pinned: "temp", PinnedAt: time.Unix(3600, 0).UTC(), RouteFrom: "role", Consistency: "strict", ConsistencyFrom: "set",
		},
	},
	Totals:   []Totals{{Database: "shop", Sessions: 5, Queries: 7, Transactions: 6, FromClients: 100, FromServers: 200, US: 9}},
	Members:  []Member{{Name: "one", Role: "primary", Address: "10.0.0.1:5432", Serves: true, Sessions: 1}, {Name: "two", Role: "standby", ReplayLSN: "0/10", LagBytes: 5, LagTime: time.Second}, {Name: "three", Reason: "clones"}},
	Limits:   []Limit{{"user", "carol", 1, 5}, {"database", "shop", 2, 20}, {"address", "10.0.0.9", 2, 0}, {"database", "books", 1, 0}},
	Settings: []Setting{{"max-clients", "10", "1000", true}},
	Routes:   []Route{{Name: "rw", Listen: "127.0.0.1:1", Member: "one", Sessions: 2, Waiting: 1}, {Name: "auto", Member: "one", Reading: 3, Reader: "two", Set: 4, Eventual: 5, Session: 6, Strict: 7}},
}

// row is the row number i with the names of its columns.
func row(t *testing.T, table Table, i int) map[string]string {
	t.Helper()
	if i >= len(table.rows) {
		t.Fatalf("%d rows", len(table.rows))
	}
	m := map[string]string{}
	for j, c := range table.columns {
		m[c.name] = "NULL"
		if v := table.rows[i][j]; v != nil {
			m[c.name] = format(v)
		}
	}
	return m
}

func TestShow(t *testing.T) {
	for _, c := range []struct {
		topic Topic
		row   int
		want  map[string]string
	}{
		{"VERSION", 0, map[string]string{"version": "howdah 1"}},
		{"STATE", 0, map[string]string{"key": "active", "value": "yes"}},
		{"POOLS", 0, map[string]string{"database": "books", "user": "carol", "cl_active": "1", "sv_active": "2"}},
		{"POOLS", 1, map[string]string{"database": "shop", "user": "alice", "cl_active": "2", "cl_waiting": "0", "sv_active": "1", "sv_login": "1", "maxwait": "0", "pool_mode": "session"}},
		{"POOLS", 2, map[string]string{"user": "bob", "cl_active": "0", "cl_waiting": "1", "maxwait": "2", "maxwait_us": "500000"}},
		{"CLIENTS", 0, map[string]string{"type": "C", "id": "1", "addr": "::1", "port": "4001", "state": "idle", "link": "s1", "member": "one", "application_name": "a??b"}},
		{"CLIENTS", 1, map[string]string{"id": "2", "state": "waiting", "link": "", "wait": "2", "wait_us": "500000", "held": "1", "local_port": "NULL"}},
		{"SERVERS", 0, map[string]string{"type": "S", "id": "1", "addr": "10.0.0.1", "port": "5432", "role": "primary", "epoch": "4", "link": "c1"}},
		{"CLIENTS", 2, map[string]string{"id": "3", "reads_from": "NULL", "pinned": "", "pinned_since": "NULL"}},
		{"CLIENTS", 3, map[string]string{"id": "4", "link": "s4", "reads_from": "two", "pinned": "temp", "pinned_since": "1970-01-01 01:00:00 UTC", "route_from": "role", "consistency": "strict", "consistency_from": "set"}},
		{"SERVERS", 1, map[string]string{"id": "3", "role": "standby", "epoch": "NULL"}},
		{"SERVERS", 2, map[string]string{"id": "4", "state": "idle", "ptr": "s4", "link": "c4", "member": "one"}},
		{"SERVERS", 3, map[string]string{"id": "4", "state": "active", "ptr": "r4", "link": "c4", "member": "two", "role": "standby", "epoch": "NULL",
			"addr": "10.0.0.2", "port": "5432", "local_addr": "10.0.0.8", "local_port": "77", "connect_time": "1970-01-01 02:00:00 UTC", "user": "carol", "database": "books"}},
		{"DATABASES", 0, map[string]string{"name": "books", "current_connections": "2", "max_client_connections": "0", "current_client_connections": "1"}},
		{"DATABASES", 1, map[string]string{"max_client_connections": "20", "current_client_connections": "2", "name": "shop", "host": "10.0.0.1", "port": "5432", "force_user": "NULL", "current_connections": "2", "paused": "0"}},
		{"LIMITS", 0, map[string]string{"kind": "address", "name": "10.0.0.9", "clients": "2", "max_clients": "NULL"}},
		{"LIMITS", 1, map[string]string{"kind": "database", "name": "books", "clients": "1", "max_clients": "NULL"}},
		{"LIMITS", 2, map[string]string{"kind": "database", "name": "shop", "clients": "2", "max_clients": "20"}},
		{"LIMITS", 3, map[string]string{"kind": "user", "name": "carol", "clients": "1", "max_clients": "5"}},
		{"LISTS", 3, map[string]string{"list": "free_clients", "items": "6"}},
		{"LISTS", 5, map[string]string{"list": "login_clients", "items": "1"}},
		{"LISTS", 7, map[string]string{"list": "used_servers", "items": "4"}},
		{"STATS", 0, map[string]string{"database": "shop", "total_query_count": "7", "total_xact_count": "6", "total_received": "100", "total_sent": "200", "total_wait_time": "9", "total_server_assignment_count": "5"}},
		{"STATS_TOTALS", 0, map[string]string{"database": "shop", "query_count": "7", "bytes_sent": "200"}},
		{"CONFIG", 0, map[string]string{"key": "max-clients", "value": "10", "default": "1000", "changeable": "yes"}},
		{"ROUTES", 0, map[string]string{"route": "rw", "sessions": "2", "waiting": "1", "member": "one"}},
		{"ROUTES", 1, map[string]string{"route": "auto", "member": "one", "reading": "3", "reader": "two", "set": "4", "eventual": "5", "session": "6", "strict": "7"}},
		{"TOPOLOGY", 0, map[string]string{"member": "one", "role": "primary", "serves": "1", "lag_bytes": "NULL", "epoch": "4"}},
		{"TOPOLOGY", 1, map[string]string{"member": "two", "lag_bytes": "5", "lag_us": "1000000", "replay_lsn": "0/10"}},
		{"TOPOLOGY", 2, map[string]string{"member": "three", "reason": "clones", "serves": "0"}},
	} {
		got := row(t, shown[c.topic](view), c.row)
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("SHOW %s, row %d: %s is %q, want %q", c.topic, c.row, k, got[k], v)
			}
		}
	}
}

// The columns that pgbouncer_exporter reads, for what this router has; the names are those of pgbouncer's documentation.
func TestColumnsThatExportersRead(t *testing.T) {
	for topic, want := range map[Topic]string{
		"POOLS":        "database user cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait",
		"DATABASES":    "name host port database force_user pool_size reserve_pool pool_mode max_connections current_connections max_client_connections current_client_connections paused disabled",
		"STATS_TOTALS": "database query_count bytes_received bytes_sent wait_time xact_count",
		"LISTS":        "list items",
		"CONFIG":       "key value default changeable",
	} {
		var names []string
		for _, c := range shown[topic](view).columns {
			names = append(names, c.name)
		}
		for _, name := range strings.Fields(want) {
			if !slices.Contains(names, name) {
				t.Errorf("SHOW %s has no column %s", topic, name)
			}
		}
	}
}

// Every row has as many values as there are columns, and numbers are numbers.
func TestTablesAreWhole(t *testing.T) {
	for topic, show := range shown {
		for _, v := range []View{view, {}} {
			table := show(v)
			for i, row := range table.rows {
				if len(row) != len(table.columns) {
					t.Errorf("SHOW %s: %d values for %d columns", topic, len(row), len(table.columns))
					continue
				}
				for j, c := range table.columns {
					if c.kind == number && row[j] != nil {
						var n int64
						if _, err := fmt.Sscanf(format(row[j]), "%d", &n); err != nil {
							t.Errorf("SHOW %s: %s is %q in row %d", topic, c.name, format(row[j]), i)
						}
					}
				}
			}
			b := table.Append(nil)
			for len(b) > 0 {
				n := int(binary.BigEndian.Uint32(b[1:])) + 1
				if b[0] != 'T' && b[0] != 'D' || n > len(b) {
					t.Fatalf("SHOW %s: %q", topic, b)
				}
				b = b[n:]
			}
		}
	}
	if b := (Table{columns: columns("a", "b#")}).Append(nil); !bytes.Equal(b, []byte("T\x00\x00\x00\x2e\x00\x02a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x00")) {
		t.Errorf("%q", b)
	}
}
