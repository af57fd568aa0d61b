package router_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
)

// of returns the rows that have these values.
func of(list []map[string]any, column string, value any) []map[string]any {
	var found []map[string]any
	for _, row := range list {
		if row[column] == value {
			found = append(found, row)
		}
	}
	return found
}

// metric is the value of one line of /metrics; empty if it is not there.
func (s *splitCluster) metric(name string) string { return s.figure(s.t, name) }

// figure is the value of one line of /metrics; empty if it is not there.
func (g *rig) figure(t *testing.T, name string) string {
	t.Helper()
	_, body := g.get(t, "/metrics")
	for line := range strings.Lines(body) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func port(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return port
}

// What a standby carries out counts as what the primary does, and the session's connection to it is shown.
func TestReadsOnStandbysAreCounted(t *testing.T) {
	s := startSplit(t, withConsole)
	root := s.console(t, "root")
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	session := of(rows(t, root, "SHOW CLIENTS"), "application_name", "")[0]
	if session["reads_from"] != "two" || session["member"] != "one" || session["pinned"] != "" || session["pinned_since"] != nil {
		t.Errorf("%v", session)
	}
	id := session["id"]
	// A client has its answer a moment before the router has counted it; then its connections are idle.
	var servers []map[string]any
	settled := func() bool {
		servers = of(rows(t, root, "SHOW SERVERS"), "id", id)
		return len(servers) == 2 && servers[0]["state"] == "idle" && servers[1]["state"] == "idle"
	}
	until(t, "the session to be at rest", settled)
	if len(servers) != 2 || servers[0]["member"] != "one" || servers[1]["member"] != "two" || servers[1]["role"] != "standby" || servers[1]["link"] != session["ptr"] ||
		servers[0]["ptr"] == servers[1]["ptr"] || servers[1]["state"] != "idle" || fmt.Sprint(servers[1]["port"]) != port(s.two.Addr()) {
		t.Errorf("%v", servers)
	}
	if pool := rows(t, root, "SHOW POOLS"); len(pool) != 1 || pool[0]["cl_active"] != int64(1) || pool[0]["sv_active"] != int64(2) {
		t.Errorf("%v", pool)
	}
	if auto := of(rows(t, root, "SHOW ROUTES"), "route", "auto"); len(auto) != 1 || auto[0]["sessions"] != int64(1) || auto[0]["reading"] != int64(1) ||
		auto[0]["member"] != "one" || auto[0]["reader"] != "two" || auto[0]["listen"] != s.Address(route.Auto).String() {
		t.Errorf("%v", auto)
	}

	// Ten reads on the standby and a block of three there: each query is counted once, with its bytes.
	before, reads := rows(t, root, "SHOW STATS")[0], s.metric(`howdah_router_reads_total{by="standby"}`)
	sent := s.metric(`howdah_router_bytes_total{from="server"}`)
	var bytes int64
	exec := func(sql string) {
		t.Helper()
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
			t.Fatal(err)
		}
		bytes += int64(len(sql) + 6)
	}
	for range 10 {
		exec("SELECT repeat('x', 1000)")
	}
	exec("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
	until(t, "the block to be shown", func() bool {
		inBlock := of(rows(t, root, "SHOW SERVERS"), "id", id)
		return len(inBlock) == 2 && inBlock[0]["state"] == "idle" && inBlock[1]["state"] == "transaction"
	})
	exec("SELECT 1")
	exec("COMMIT")
	until(t, "the session to be at rest again", settled)
	after := rows(t, root, "SHOW STATS")[0]
	if now := s.metric(`howdah_router_reads_total{by="standby"}`); fmt.Sprint(number(t, now)-number(t, reads)) != "13" {
		t.Errorf("the standby was to do all: %s, then %s", reads, now)
	}
	grown := func(column string) int64 { return after[column].(int64) - before[column].(int64) }
	if q, x, in, out := grown("total_query_count"), grown("total_xact_count"), grown("total_received"), grown("total_sent"); q != 13 || x != 11 || in != bytes || out < 10_000 {
		t.Errorf("%d queries, %d transactions, %d bytes of %d, %d bytes back", q, x, in, bytes, out)
	}
	if n := number(t, s.metric(`howdah_router_bytes_total{from="server"}`)) - number(t, sent); n < 10_000 {
		t.Errorf("%v bytes more", n)
	}

	if n := number(t, s.metric(`howdah_router_read_wait_seconds_count{by="standby",consistency="session"}`)); n < 13 {
		t.Errorf("%v reads had to see something", n)
	}
	exec("SET howdah.consistency = 'strict'")
	exec("SELECT 1")
	if n := number(t, s.metric(`howdah_router_read_wait_seconds_count{by="standby",consistency="strict"}`)) + number(t, s.metric(`howdah_router_read_wait_seconds_count{by="primary",consistency="strict"}`)); n == 0 {
		t.Error("no strict read is counted")
	}
	if ok, failed := number(t, s.metric(`howdah_router_own_connects_total{result="ok"}`)), s.metric(`howdah_router_own_connects_total{result="failed"}`); ok < 2 || failed != "0" {
		t.Errorf("%v connections of the router's own, %s failed", ok, failed)
	}

	// A session that ends leaves the same figures behind.
	conn.Close(context.Background())
	until(t, "the session to be forgotten", func() bool { return s.count("") == 0 })
	if left := rows(t, root, "SHOW STATS")[0]; left["total_query_count"].(int64) != after["total_query_count"].(int64)+2 {
		t.Errorf("%v, then %v", after, left)
	}
	if servers := of(rows(t, root, "SHOW SERVERS"), "id", id); len(servers) != 0 {
		t.Errorf("%v", servers)
	}
}

// Why a session stays on the primary is shown for as long as it does.
func TestPinsAreShown(t *testing.T) {
	s := startSplit(t, withConsole)
	root := s.console(t, "root")
	conn := s.connect(t, route.Auto, "")
	s.caughtUp(conn)
	for sql, why := range map[string]string{"CREATE TEMP TABLE mine (n int)": "temp", "SELECT set_config('search_path', 'public', false)": "settings", "DO 'BEGIN END'": "code"} {
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, sql); err != nil {
			t.Fatal(err)
		}
		if c := rows(t, root, "SHOW CLIENTS")[0]; c["pinned"] != why || c["pinned_since"] == nil {
			t.Errorf("%s: %v", sql, c)
		}
		if n := s.metric(`howdah_router_pinned_sessions{reason="` + why + `"}`); n != "1" {
			t.Errorf("%s: %q pinned", sql, n)
		}
		if err := s.exec(conn, pgx.QueryExecModeSimpleProtocol, "DISCARD ALL"); err != nil {
			t.Fatal(err)
		}
		s.caughtUp(conn)
		if c := rows(t, root, "SHOW CLIENTS")[0]; c["pinned"] != "" || c["pinned_since"] != nil {
			t.Errorf("after DISCARD ALL: %v", c)
		}
		if n := s.metric(`howdah_router_pinned_sessions{reason="` + why + `"}`); n != "0" {
			t.Errorf("after DISCARD ALL: %q pinned", n)
		}
	}
}
