package router_test

import (
	"testing"

	rt "howdah/router/routertest"
)

// some executes a portal up to a number of rows.
func some(portal string, rows uint32) []byte { return rt.Message('E', rt.Text(portal), rt.Int32(rows)) }

func closeOf(kind, name string) []byte { return rt.Message('C', rt.Text(kind+name)) }

// ordered is a read whose rows are told apart.
const ordered = "SELECT n FROM t ORDER BY n"

// portals are cases about what is executed in parts, described and closed.
var portals = []scriptCase{
	{name: "a portal executed in parts", turns: []turn{
		standby(parse("", ordered), rt.Bind("", ""), rt.Describe(""), some("", 3), some("", 3), rt.Execute(""), some("", 1), rt.Sync),
		quiet(some("", 3), rt.Sync), standby(query("SELECT 1")),
		primary(parse("", ordered), rt.Bind("p", ""), some("p", 3), some("p", 100), some("p", 1), rt.Sync), quiet(some("p", 3), rt.Sync),
	}},
	{name: "portals in a transaction", turns: []turn{
		primary(query("BEGIN")), primary(parse("s", ordered), rt.Bind("p", "s"), some("p", 2), rt.Sync), primary(parse("", ordered+" DESC"), rt.Bind("", ""), some("", 2), rt.Sync),
		either(some("p", 2), some("", 2), some("p", 2), rt.Sync), primary(rt.Bind("q", "s"), some("q", 1), rt.Bind("p", "s"), rt.Sync), either(some("p", 2), rt.Sync), primary(query("ROLLBACK")), primary(query("DISCARD ALL")),
		quiet(prepare("s", ordered)),
		primary(query("BEGIN")), primary(rt.Bind("p", "s"), some("p", 2), rt.Sync), quiet(closeOf("P", "p"), closeOf("P", "p"), closeOf("P", "unknown"), rt.Sync), either(some("p", 2), rt.Sync), primary(query("ROLLBACK")),
		primary(query("BEGIN")), primary(rt.Bind("p", "s"), some("p", 2), rt.Sync), primary(query("COMMIT")), quiet(some("p", 2), rt.Sync), standby(execute("s")),
	}},
	{name: "portals in a READ ONLY block", turns: []turn{
		quiet(prepare("s", ordered)), standby(query("BEGIN READ ONLY")), {on: onStandby, sent: joined(execute("s"))}, primary(rt.Bind("", "s"), some("", 2), rt.Sync),
		either(some("", 2), rt.Sync), either(prepare("x", "SELECT 1")), either(some("", 2), rt.Sync), primary(query("COMMIT")),
		standby(parse("", "BEGIN READ ONLY"), use(""), rt.Sync), primary(parse("", ordered), rt.Bind("p", ""), some("p", 2), rt.Sync), either(some("p", 2), rt.Sync), primary(query("COMMIT")), quiet(some("p", 2), rt.Sync),
		standby(parse("", "BEGIN READ ONLY"), use(""), rt.Sync), {on: onStandby, sent: joined(parse("", ordered), rt.Bind("", ""), rt.Describe(""), rt.Execute(""), rt.Sync)},
		either(prepare("y", "SELECT 1")), primary(query("COMMIT")),
		primary(parse("", "BEGIN READ ONLY"), use(""), parse("", ordered), rt.Bind("", ""), some("", 2), rt.Sync), either(some("", 2), rt.Sync), primary(query("COMMIT")), standby(count),
	}},
	{name: "Describe and Close", turns: []turn{
		quiet(parse("a", "SELECT n, s FROM t WHERE n = $1"), describe("a"), rt.Describe("a"), rt.Sync), quiet(describe("unknown"), rt.Sync), quiet(rt.Describe("unknown"), rt.Sync), quiet(describe(""), rt.Sync),
		quiet(parse("", "SELECT s FROM t"), describe(""), rt.Bind("", ""), rt.Describe(""), rt.Sync), quiet(rt.Describe(""), rt.Sync), quiet(describe(""), rt.Sync),
		standby(parse("", "SELECT s FROM t WHERE n = 1"), describe(""), rt.Bind("", ""), rt.Describe(""), rt.Execute(""), rt.Sync),
		quiet(parse("b", "SELECT s FROM t WHERE n = 2"), rt.Sync), standby(describe("b"), rt.Bind("", "b"), rt.Execute(""), rt.Sync), standby(execute("b")),
		quiet(closeOf("S", "unknown"), closeOf("P", "unknown"), closeOf("P", ""), rt.Sync),
		quiet(closeOf("P", "b"), rt.Sync), standby(execute("b")), primary(closeOf("S", "b"), parse("b", "SELECT 'closed and made anew'"), use("b"), rt.Sync), standby(execute("b")),
		quiet(closeOf("S", "b"), use("b"), rt.Sync), quiet(execute("b")), quiet(describe("b"), rt.Sync), quiet(parse("", "SELECT 1"), closeOf("S", ""), use(""), rt.Sync), quiet(use(""), rt.Sync), primary(query("DISCARD ALL")), standby(count),
	}},
}

// pipelines are cases in which answers to the router's own messages stand among those to the client's, or must not.
var pipelines = []scriptCase{
	{name: "statements that a standby lacks", turns: []turn{
		quiet(prepare("a", "SELECT count(*) FROM t")), quiet(prepare("b", "SELECT s FROM t WHERE n = 1")), quiet(prepare("w", "INSERT INTO seen VALUES (30) RETURNING n")),
		standby(use("a"), use("b"), use("a"), rt.Sync),
		{on: anywhere, sent: joined(execute("a"), execute("w"), execute("b"), query("SELECT 2"), execute("a"), use("b"), rt.Flush, use("w"), rt.Sync, execute("b"))},
		quiet(parse("c", "SELECT s FROM t WHERE n = 3"), parse("d", "SELECT s FROM t WHERE n = 4"), rt.Sync), standby(use("d"), use("c"), use("b"), rt.Sync),
		quiet(closeOf("S", "c"), closeOf("S", "d"), rt.Sync), {on: anywhere, sent: joined(execute("c"), execute("a"), execute("d"))},
	}},
	{name: "the unnamed statement that the primary lacks", turns: []turn{
		quiet(prepare("w", "INSERT INTO seen VALUES (31) RETURNING n")),
		standby(extended(ordered)), primary(use("w"), use(""), use("w"), use(""), rt.Sync), either(touches),
		standby(extended(ordered)), either(parse("bad", "SELEC"), use(""), use("w"), rt.Sync), either(execute("")),
		standby(extended(ordered)), primary(use("w"), parse("bad", "SELEC"), use(""), rt.Sync), either(execute("")), either(touches),
		standby(extended(ordered)), {on: anywhere, sent: joined(execute("w"), execute(""), execute("w"), describe(""), rt.Sync, execute(""), query("SELECT 1"), execute(""))},
	}},
	{name: "a Query and Syncs in a batch", turns: []turn{
		{on: anywhere, sent: joined(parse("", ordered), use(""), query("SELECT 1"), parse("", "SELECT 2"), use(""), rt.Sync)},
		{on: anywhere, sent: joined(rt.Sync, rt.Sync, parse("", "SELECT 3"), rt.Sync, use(""), rt.Sync, rt.Sync)},
		{on: anywhere, sent: joined(parse("bad", "SELEC"), use("bad"), rt.Flush, rt.Sync, query("SELECT 5"))},
		{on: anywhere, sent: joined(parse("", ordered), use(""), query("SELEC"), parse("", "SELECT 6"), use(""), rt.Sync, rt.Query(""), rt.Sync)}, standby(count),
	}},
}

// What PostgreSQL answers, in which order, is what the client is told, wherever a part of it was carried out.
func TestPortalsAndPipelines(t *testing.T) {
	o := startOracle(t, casesSchema)
	for _, cases := range [][]scriptCase{portals, pipelines} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { o.compare(t, "alice", c.turns) })
		}
	}
}
