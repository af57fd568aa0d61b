package router_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// casesSchema has functions that write and are not known by their text: behind a view, an operator, a cast, a policy.
const casesSchema = `
CREATE TABLE t (n int PRIMARY KEY, s text);
INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10) g;
CREATE TABLE seen (n int);
CREATE SEQUENCE q;
CREATE SCHEMA other;
CREATE TABLE other.t (n int PRIMARY KEY, s text);
INSERT INTO other.t VALUES (1, 'other');
CREATE FUNCTION touch(n int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.seen VALUES (n) RETURNING n';
CREATE FUNCTION touch(s text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT s';
CREATE FUNCTION other.touch_there(n int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.seen VALUES (n) RETURNING n';
CREATE FUNCTION "Touch Me"(n int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.seen VALUES (n) RETURNING n';
CREATE FUNCTION calm(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n';
CREATE FUNCTION liar(n int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.touch(n); END';
CREATE FUNCTION sets(value text) RETURNS text LANGUAGE plpgsql VOLATILE AS 'BEGIN SET search_path = other; RETURN value; END';
CREATE FUNCTION own_length() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN length(current_setting(''my.own'')); END';
CREATE PROCEDURE p(n int) LANGUAGE sql AS 'INSERT INTO public.seen VALUES (n)';
CREATE VIEW touching AS SELECT touch(n) AS n FROM t WHERE n = 1;
CREATE OPERATOR !! (RIGHTARG = int, FUNCTION = touch);
CREATE TYPE touched AS (n int);
CREATE FUNCTION to_touched(n int) RETURNS touched LANGUAGE sql VOLATILE AS 'INSERT INTO public.seen VALUES (n) RETURNING ROW(n)::public.touched';
CREATE CAST (int AS touched) WITH FUNCTION to_touched(int);
CREATE TABLE guarded (n int);
INSERT INTO guarded VALUES (1);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY touching ON guarded USING (touch(n) > 0);
CREATE TABLE altered (n int);
INSERT INTO altered VALUES (1);
ALTER TABLE altered OWNER TO alice;
CREATE FUNCTION turning(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n';
ALTER FUNCTION turning OWNER TO alice;
GRANT USAGE ON SCHEMA other TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA public, other TO PUBLIC;
GRANT ALL ON SEQUENCE q TO PUBLIC;
`

// scriptCase is one of the cases in which other routers break; user is alice unless it says otherwise.
type scriptCase struct {
	name, user string
	turns      []turn
}

var (
	count    = query("SELECT count(*) FROM t")
	touches  = query("SELECT count(*) FROM seen")
	searched = query("SELECT s FROM t WHERE n = 1")
)

// writes are cases about statements that write, or lock, or take from a sequence, however they hide it.
var writes = []scriptCase{
	{name: "a write and then a read", turns: []turn{
		primary(query("INSERT INTO t VALUES (100, 'w')")), either(count), primary(extended("UPDATE t SET s = 'v' WHERE n = 100")), either(extended("SELECT s FROM t WHERE n = 100")),
		primary(query("DELETE FROM t WHERE n = 100")), either(count), standby(count), standby(extended("SELECT count(*) FROM t")),
	}},
	{name: "lists that look like calls", turns: []turn{
		primary(query("INSERT INTO t (n, s) VALUES (103, lower('C')) ON CONFLICT (n) DO UPDATE SET (n, s) = (103, 'd')")), standby(count),
		primary(extended("UPDATE t SET (n, s) = (SELECT a, b FROM (VALUES (103, 'e')) x(a, b)) WHERE n IN (103)")), primary(query("DELETE FROM t USING (VALUES (103)) x(a) WHERE n = x.a RETURNING (n), s")), standby(count),
	}},
	{name: "what a definition calls", turns: []turn{
		primary(query("CREATE TABLE made AS SELECT sets('a') AS s")), primary(searched), primary(query("DISCARD ALL")), primary(query("ALTER TABLE made ADD COLUMN n int DEFAULT length(sets('a'))")), primary(searched),
		primary(query("DISCARD ALL")), primary(query("DROP TABLE made")), standby(searched),
	}},
	{name: "a data-modifying CTE", turns: []turn{
		primary(query("WITH w AS (INSERT INTO t VALUES (101, 'w') RETURNING n) SELECT n FROM w")),
		primary(extended("WITH r AS (SELECT 1), w AS (UPDATE t SET s = 'v' WHERE n = 101 RETURNING s) SELECT s FROM w")),
		primary(query("WITH r AS (WITH w AS (DELETE FROM t RETURNING n) SELECT n FROM w) SELECT n FROM r")),
		primary(query("SELECT * FROM (WITH w AS (DELETE FROM t RETURNING n) SELECT n FROM w) AS r")),
		primary(query("WITH w AS (DELETE FROM t WHERE n = 101 RETURNING n) TABLE w")), either(count),
		primary(query("EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) INSERT INTO seen VALUES (1)")), either(touches),
	}},
	{name: "FOR UPDATE and its kin", turns: []turn{
		primary(query("SELECT n FROM t WHERE n = 1 FOR UPDATE")), primary(extended("SELECT n FROM t WHERE n = 1 FOR NO KEY UPDATE OF t")),
		primary(query("SELECT n FROM t WHERE n = 1 FOR SHARE SKIP LOCKED")), primary(query("SELECT n FROM t WHERE n = 1 FOR KEY SHARE OF t NOWAIT")),
		primary(query("SELECT * FROM (SELECT n FROM t WHERE n = 1 FOR UPDATE) AS r")), primary(query("WITH r AS (SELECT n FROM t WHERE n = 1 FOR UPDATE) TABLE r")), standby(count),
	}},
	{name: "SELECT INTO", turns: []turn{
		primary(query("SELECT n INTO made FROM t")), either(query("SELECT count(*) FROM made")), primary(extended("SELECT n INTO TABLE made FROM t")), primary(query("DROP TABLE made")), standby(count),
	}},
	{name: "SELECT INTO TEMP", turns: []turn{
		primary(query("SELECT n INTO TEMP made FROM t")), primary(query("SELECT count(*) FROM made")), primary(extended("SELECT count(*) FROM made")),
		primary(query("DISCARD ALL")), standby(count),
	}},
	{name: "COPY of an INSERT", turns: []turn{
		primary(query("COPY (INSERT INTO t VALUES (102, 'c') RETURNING n) TO STDOUT")), primary(query("DELETE FROM t WHERE n = 102")), standby(query("COPY (SELECT n FROM t ORDER BY n) TO STDOUT")),
	}},
	{name: "a volatile builtin", turns: []turn{
		primary(query("SELECT nextval('q')")), primary(extended("SELECT n FROM t WHERE n = nextval('q')")), primary(query("SELECT n FROM t ORDER BY nextval('q') - n")),
		primary(query("SELECT count(*) FROM t HAVING nextval('q') > 0")), primary(query("SELECT n FROM t ORDER BY n LIMIT nextval('q') - 12")),
		primary(query("SELECT a.n FROM t a JOIN t b ON a.n = b.n AND nextval('q') > 0 ORDER BY 1")), primary(query("SELECT n FROM t, LATERAL (SELECT nextval('q')) AS r ORDER BY n")),
		primary(query("VALUES (nextval('q'))")), primary(query(`SELECT "nextval"('q'), pg_catalog . nextval /* */ ('q'), U&"n\0065xtval"('q')`)), primary(query("SELECT txid_current() > 0")),
		primary(query("SELECT lo_create(4711)")), primary(query("SELECT lo_unlink(4711)")), primary(query("DISCARD ALL")), standby(count),
	}},
	{name: "a volatile function of the user's", turns: []turn{
		primary(query("SELECT touch(1)")), either(touches), primary(query("SELECT touch('text'::text)")), primary(query("DISCARD ALL")),
		primary(extended("SELECT other.touch_there(2)")), either(touches), primary(query("DISCARD ALL")),
		primary(query(`SELECT "Touch Me"(3)`)), either(touches), primary(query("DISCARD ALL")), standby(query("SELECT calm(1)")),
		primary(query("SELECT calm(touch(4))")), either(touches), primary(query("CALL p(5)")), primary(query("DO 'BEGIN PERFORM touch(6); END'")), either(touches),
	}},
	{name: "a volatile function that sets", turns: []turn{standby(searched), primary(query("SELECT sets('a')")), primary(searched), primary(query("DISCARD ALL")), standby(searched)}},
	{name: "volatile code behind a view", turns: []turn{repeated(query("SELECT n FROM touching")), either(touches), repeated(extended("SELECT n FROM touching AS r")), either(touches)}},
	{name: "volatile code behind an operator", turns: []turn{repeated(query("SELECT !! 7")), either(touches)}},
	{name: "volatile code behind a cast", turns: []turn{repeated(query("SELECT 8::touched")), either(touches), repeated(extended("SELECT CAST(9 AS touched)")), either(touches)}},
	{name: "volatile code behind a policy", turns: []turn{repeated(query("SELECT n FROM guarded")), either(touches)}},
	{name: "volatile code behind a stable function", turns: []turn{repeated(query("SELECT liar(1)")), either(touches)}},
	{name: "what is refused once", turns: []turn{repeated(query("SELECT n + 1 FROM touching")), {on: onPrimary, settled: true, sent: query("SELECT n + 1 FROM touching")}, either(touches)}},
	{name: "a function turns volatile", turns: []turn{
		standby(query("SELECT turning(1)")), primary(query("CREATE OR REPLACE FUNCTION turning(n int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.seen VALUES (n) RETURNING n'")),
		standby(query("SELECT 1")), {on: onPrimary, settled: true, sent: query("SELECT turning(2)")}, either(touches),
		primary(query("DISCARD ALL")), primary(query("CREATE OR REPLACE FUNCTION turning(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n'")),
		standby(query("SELECT 1")), standby(query("SELECT turning(3)")), quiet(prepare("turning", "SELECT turning(5)")), standby(execute("turning")),
		primary(query("ALTER FUNCTION turning VOLATILE")), standby(query("SELECT 1")), {on: onPrimary, settled: true, sent: query("SELECT turning(4)")},
		primary(query("DISCARD ALL")), quiet(prepare("turning", "SELECT turning(5)")), standby(query("SELECT 1")), {on: onPrimary, settled: true, sent: execute("turning")},
	}},
	{name: "a prepared statement whose function turns volatile", turns: []turn{
		primary(query("ALTER FUNCTION turning STABLE")), quiet(prepare("turning", "SELECT turning(6)")), standby(execute("turning")), primary(query("ALTER FUNCTION turning VOLATILE")), primary(query("SELECT turning(7)")),
		primary(execute("turning")), primary(query("ALTER FUNCTION turning STABLE")), primary(query("DISCARD ALL")), quiet(prepare("turning", "SELECT turning(8)")), standby(execute("turning")),
		primary(query("ALTER FUNCTION turning VOLATILE")), standby(query("SELECT 1")), {on: onPrimary, settled: true, sent: execute("turning")}, either(touches),
	}},
	{name: "advisory locks", turns: []turn{
		primary(query("SELECT pg_advisory_lock(1)")), primary(query("SELECT pg_try_advisory_lock(('x' || md5('a'))::bit(32)::int)")), primary(query("SELECT pg_advisory_lock(n) FROM t WHERE n = 3")),
		primary(extended("SELECT count(pg_advisory_lock_shared(n, n + 1)) FROM t")),
		primary(query("SELECT pg_advisory_unlock(1), pg_advisory_unlock(1)")), primary(query("SELECT pg_advisory_unlock(('x' || md5('a'))::bit(32)::int), pg_advisory_unlock(3)")),
		primary(query("SELECT pg_advisory_unlock_shared(4, 5)")), primary(query("SELECT pg_advisory_unlock_all()")), primary(query("SELECT pg_advisory_unlock_shared(5, 6)")),
		primary(query("BEGIN; SELECT pg_advisory_xact_lock(6)")), primary(query("COMMIT")), standby(count),
	}},
	{name: "LISTEN and NOTIFY", turns: []turn{
		primary(query("LISTEN news")), primary(query("SELECT pg_notify('news', 'a')")), primary(query("NOTIFY news, 'b'")), primary(extended("SELECT pg_notify('ne' || 'ws', 'c')")),
		primary(query("UNLISTEN *")), primary(query("SELECT pg_notify('news', 'd')")), standby(count),
	}},
}

// batches are cases about what is sent together, or apart.
var batches = []scriptCase{
	{name: "a read and a write in one Query", turns: []turn{
		primary(query("SELECT 1; INSERT INTO t VALUES (110, 'm')")), either(count), primary(query("DELETE FROM t WHERE n = 110; SELECT count(*) FROM t")), standby(query("SELECT 1; SELECT count(*) FROM t")),
		primary(query("SELECT 1; SELECT nextval('q')")), primary(query("INSERT INTO t VALUES (111, 'm'); SELECT 1/0")), standby(count),
	}},
	{name: "a whole transaction in one Query", turns: []turn{
		primary(query("INSERT INTO t VALUES (112, 'm')")), primary(query("BEGIN; DELETE FROM t WHERE n = 112; END")), either(count), standby(count),
		primary(query("BEGIN; SELECT 1")), primary(count), primary(query("ROLLBACK; SELECT 1")), standby(count),
	}},
	{name: "INSERT and SELECT before one Sync", turns: []turn{
		primary(parse("", "INSERT INTO t VALUES (113, 'm')"), use(""), parse("", "SELECT count(*) FROM t"), use(""), rt.Sync),
		primary(parse("", "SELECT count(*) FROM t"), use(""), parse("", "DELETE FROM t WHERE n = 113"), use(""), rt.Sync), either(count),
		standby(parse("", "SELECT count(*) FROM t"), use(""), parse("", "SELECT s FROM t WHERE n = 2"), use(""), rt.Sync),
		primary(parse("", "INSERT INTO t VALUES (114, 'm')"), use(""), parse("", "SELECT 1/0"), use(""), parse("", "SELECT 2"), use(""), rt.Sync), either(count),
	}},
	{name: "batches without waiting", turns: []turn{
		{on: refused, settled: true, sent: joined(extended("SELECT count(*) FROM t"), extended("INSERT INTO t VALUES (115, 'm')"), extended("SELECT count(*) FROM t"), query("SELECT s FROM t WHERE n = 115"))},
		{on: anywhere, sent: joined(query("DELETE FROM t WHERE n = 115"), count, extended("SELECT count(*) FROM t"), query("SELEC"), count)},
	}},
	{name: "a statement parsed long ago", turns: []turn{
		quiet(prepare("read", "SELECT count(*) FROM t WHERE n < 100")), quiet(prepare("write", "INSERT INTO seen VALUES (20) RETURNING n")), quiet(prepare("later", "SELECT s FROM t WHERE n = 1")),
		standby(execute("read")), primary(execute("write")), standby(execute("later")), either(touches), standby(execute("read")), standby(count), primary(execute("write")), either(execute("read")),
		standby(use("read"), use("later"), use("read"), rt.Sync), primary(use("read"), use("write"), rt.Sync),
		quiet(rt.Message('C', []byte("Sread\x00")), rt.Sync), quiet(prepare("read", "SELECT 'anew'")), standby(execute("read")), primary(prepare("read", "SELECT 'again'")), either(execute("read")),
		primary(query("DEALLOCATE read")), quiet(execute("read")), quiet(prepare("read", "SELECT 'last'")), primary(execute("read")),
	}},
	{name: "a prepared statement whose result changes", turns: []turn{
		quiet(prepare("all", "SELECT * FROM altered")), standby(execute("all")), primary(query("ALTER TABLE altered ADD b int")), {on: refused, settled: true, sent: execute("all")},
		quiet(closeOf("S", "all"), rt.Sync), quiet(prepare("all", "SELECT * FROM altered")), standby(execute("all")), primary(query("ALTER TABLE altered ALTER b TYPE text")), either(execute("all")), primary(query("DISCARD ALL")), standby(count),
	}},
	{name: "an error in a transaction behind a Parse", turns: []turn{
		primary(query("BEGIN")), quiet(prepare("w", "INSERT INTO t VALUES (1, 'again')")), primary(execute("w")), primary(query("ROLLBACK")), standby(count),
		primary(query("BEGIN")), quiet(parse("", "INSERT INTO t VALUES (1, 'again')"), describe(""), rt.Sync), primary(execute("")), primary(parse("late", "SELECT 1"), rt.Sync), primary(query("ROLLBACK")), standby(count),
		standby(query("BEGIN READ ONLY")), primary(parse("", "INSERT INTO t VALUES (1, 'again')"), describe(""), rt.Sync), primary(execute("")), primary(query("ROLLBACK")), standby(count), primary(execute("w")), standby(count), quiet(execute("late")),
	}},
	{name: "a function that is called by its number", turns: []turn{
		quiet(functionCall(loCreate, "4712")), either(query("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4712")), quiet(functionCall(loUnlink, "4712")), quiet(functionCall(loUnlink, "4712")),
		either(query("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4712")), primary(query("DISCARD ALL")), standby(searched), quiet(functionCall(setConfig, "search_path", "other", "false")), primary(searched), primary(query("DISCARD ALL")), standby(searched),
		quiet(functionCall(1, "1")), primary(query("DISCARD ALL")), primary(query("BEGIN")), quiet(functionCall(loCreate, "4713")), primary(query("ROLLBACK; DISCARD ALL")), either(query("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4713")),
	}},
	{name: "DEALLOCATE of one name", turns: []turn{
		quiet(prepare("one", "SELECT count(*) FROM t")), quiet(prepare("Two", "SELECT s FROM t WHERE n = 1")), standby(execute("one")), standby(execute("Two")), primary(query("DEALLOCATE one")), quiet(execute("one")),
		primary(query("DISCARD ALL")), quiet(prepare("one", "SELECT count(*) FROM t")), quiet(prepare("Two", "SELECT s FROM t WHERE n = 1")), primary(query("DEALLOCATE PREPARE ONE")), standby(execute("Two")),
		primary(extended(`DEALLOCATE "Two"`)), quiet(execute("Two")),
	}},
	{name: "statements are closed on the standby", turns: []turn{
		quiet(prepare("one", "SELECT count(*) FROM t")), quiet(prepare("two", "SELECT s FROM t WHERE n = 1")), quiet(prepare("three", "SELECT 3")), standby(execute("one")), standby(execute("two")), standby(execute("three")),
		quiet(rt.Message('C', []byte("Sone\x00")), rt.Sync), primary(query("DEALLOCATE two")), standby(query("/* howdah: standby */ SELECT name FROM pg_prepared_statements ORDER BY 1")),
		{on: refused, settled: true, sent: query("SELECT 1/0")}, quiet(rt.Message('C', []byte("Sthree\x00")), rt.Sync), standby(extended("/* howdah: standby */ SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")),
	}},
	{name: "names and transactions", turns: []turn{
		primary(query("BEGIN")), quiet(prepare("read", "SELECT count(*) FROM t")), primary(query("ROLLBACK")), standby(execute("read")),
		primary(parse("lost", "SELECT 1"), parse("bad", "SELEC"), parse("skipped", "SELECT 2"), rt.Sync), either(execute("lost")), quiet(execute("skipped")),
		primary(query("PREPARE sql AS SELECT count(*) FROM t")), primary(execute("sql")), primary(query("EXECUTE sql")), primary(query("DISCARD ALL")), quiet(execute("read")),
	}},
	{name: "the unnamed statement over a Sync", turns: []turn{
		quiet(parse("", "SELECT count(*) FROM t"), describe(""), rt.Sync), standby(count),
		quiet(parse("", "SELECT count(*) FROM t"), describe(""), rt.Sync), either(execute("")), either(execute("")),
		quiet(parse("", "INSERT INTO seen VALUES (21) RETURNING n"), describe(""), rt.Sync), primary(execute("")), primary(execute("")), either(extended("SELECT count(*) FROM seen")), either(execute("")),
		standby(extended("SELECT count(*) FROM t")), either(execute("")),
		standby(extended("SELECT s FROM t WHERE n = 1")), primary(extended("UPDATE t SET s = 'x' WHERE n = 1")), primary(execute("")), primary(rt.Query("BEGIN" + markPlace)), primary(query("COMMIT")),
	}},
	{name: "the unnamed statement after a Parse that failed", turns: []turn{
		standby(extended("SELECT count(*) FROM t")), primary(parse("", "SELEC"), rt.Sync), quiet(execute("")), primary(extended("INSERT INTO seen VALUES (22) RETURNING n")), primary(parse("", "SELEC"), rt.Sync), quiet(execute("")),
	}},
	{name: "the unnamed statement after a Query", turns: []turn{
		primary(extended("INSERT INTO seen VALUES (23) RETURNING n")), standby(count), quiet(execute("")), primary(query("DISCARD ALL")), primary(extended("INSERT INTO seen VALUES (24) RETURNING n")), standby(count),
		quiet(prepare("read", "SELECT 1")), quiet(execute("")), either(touches),
	}},
	{name: "an unnamed read used in a transaction", turns: []turn{
		standby(extended("SELECT count(*) FROM t")), primary(parse("b", "BEGIN"), use("b"), rt.Sync), primary(use(""), rt.Sync), primary(extended("COMMIT")), either(count),
	}},
	{name: "a Flush in the middle", turns: []turn{
		quiet(parse("", "SELECT count(*) FROM t"), rt.Flush), primary(use(""), rt.Sync), primary(parse("", "SELECT count(*) FROM t"), rt.Flush, use(""), rt.Flush),
		quiet(rt.Sync), primary(parse("", "SELEC"), rt.Flush), quiet(use(""), rt.Sync), primary(query("DISCARD ALL")), standby(count),
	}},
	{name: "what does not parse", turns: []turn{
		primary(query("SELEC 1")), primary(extended("SELEC 1")), primary(query("SELECT 'open")), primary(query(`SELECT "open`)), primary(query("SELECT $a$ open")), primary(query("DISCARD ALL")),
		{on: refused, settled: true, sent: query("SELECT 1 FROM")}, {on: refused, settled: true, sent: extended("SELECT FROM WHERE")}, {on: refused, settled: true, sent: query("SELECT 1; SELECT FROM WHERE")},
		{on: anywhere, sent: query("")}, {on: anywhere, sent: query(";;")}, {on: anywhere, sent: extended("")}, {on: anywhere, sent: rt.Query("")},
		{on: refused, settled: true, sent: query("SELECT nothing FROM nowhere")}, {on: refused, settled: true, sent: extended("SELECT 1/0")}, standby(count),
	}},
	{name: "WITH HOLD cursors", turns: []turn{
		primary(query("DECLARE c CURSOR WITH HOLD FOR SELECT n FROM t ORDER BY n")), primary(query("FETCH 2 c")), standby(count), primary(extended("FETCH 2 c")), primary(query("CLOSE c")), primary(query("FETCH c")),
		primary(query("BEGIN; DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n")), primary(query("FETCH 3 c")), primary(query("COMMIT")), primary(query("FETCH c")), standby(count),
	}},
}

// OIDs of functions of PostgreSQL that are volatile: their number is in pg_proc.dat.
const loCreate, loUnlink, setConfig = 715, 964, 2077

// functionCall calls a function with arguments and a result in text.
func functionCall(oid uint32, arguments ...string) []byte {
	parts := [][]byte{rt.Int32(oid), rt.Int16(0), rt.Int16(uint16(len(arguments)))}
	for _, a := range arguments {
		parts = append(parts, rt.Int32(uint32(len(a))), []byte(a))
	}
	return rt.Message('F', append(parts, rt.Int16(0))...)
}

func joined(parts ...[]byte) []byte { return primary(parts...).sent }

// states are cases about what a session has set, and about transactions.
var states = []scriptCase{
	{name: "a temporary table shadows another", turns: []turn{
		standby(searched), primary(query("CREATE TEMP TABLE t AS SELECT 1 AS n, 'mine' AS s")), primary(searched), primary(extended("SELECT s FROM t WHERE n = 1")), primary(query("DROP TABLE t")), primary(searched),
		primary(query("DISCARD ALL")), standby(searched), primary(query("BEGIN; CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")), primary(searched), primary(query("COMMIT")), primary(searched),
	}},
	{name: "search_path begins with pg_temp", turns: []turn{
		primary(query("SET search_path = pg_temp, public")), primary(query("CREATE TABLE mine AS SELECT 1 AS n")), primary(query("SELECT n FROM mine")), primary(extended("SELECT n FROM pg_temp.mine")), primary(query("DISCARD ALL")),
		standby(count),
	}},
	{name: "SET", turns: []turn{
		standby(searched), primary(query("SET search_path = other")), standby(searched), either(extended("SELECT current_setting('search_path')")), primary(extended("SET search_path TO public, other")), standby(searched),
		primary(query("SET search_path = 'a' 'b'")), standby(searched), primary(query("SET work_mem = '7MB'")), primary(query("SET my.own = 'x'")),
		either(query("SELECT current_setting('work_mem'), current_setting('my.own'), current_setting('search_path')")), primary(query("RESET work_mem")), primary(query("SET search_path TO DEFAULT")), standby(searched),
		either(query("SELECT current_setting('work_mem'), current_setting('my.own'), current_setting('search_path')")), primary(query("SHOW search_path")),
		primary(query("SET TIME ZONE 'Asia/Tokyo'")), primary(query("SET DateStyle = German")), standby(query("SELECT timestamptz '2020-01-01 00:00+00'")), primary(query("SET bytea_output = escape")),
		standby(query("SELECT '\\x41ff'::bytea")),
	}},
	{name: "SET that is bound and not executed", turns: []turn{
		quiet(parse("", "SET search_path = other"), rt.Bind("", ""), rt.Sync), standby(searched), primary(query("SET search_path = other")), quiet(parse("", "DISCARD ALL"), rt.Bind("", ""), rt.Sync), standby(searched),
		primary(query("DISCARD ALL")), primary(query("CREATE TEMP TABLE t AS SELECT 1 AS n, 'mine' AS s")), quiet(parse("", "DISCARD ALL"), rt.Bind("", ""), rt.Sync), primary(searched),
	}},
	{name: "SET LOCAL", turns: []turn{
		primary(query("SET LOCAL search_path = other")), standby(searched), primary(query("BEGIN")), primary(query("SET LOCAL search_path = other")), primary(searched), primary(query("COMMIT")), standby(searched),
		primary(query("BEGIN; SET LOCAL search_path = other; SELECT s FROM t WHERE n = 1; COMMIT")), either(searched),
	}},
	{name: "SET of what a SET before it has set in part", turns: []turn{
		standby(searched), primary(query("SET DateStyle = German")), primary(query("SET datestyle = MDY")), standby(query("SELECT date '2020-03-01', '04/05/2020'::date")), primary(query("RESET DateStyle")), standby(query("SELECT date '2020-03-01'")),
		primary(query("SET client_encoding = LATIN1")), primary(query("SET my.own = '\xc3\xa4'")), primary(query("SET client_encoding = UTF8")), standby(query("SELECT own_length()")),
	}},
	{name: "set_config", turns: []turn{
		standby(searched), primary(query("SELECT set_config('search_path', 'other', true)")), either(searched), primary(query("SELECT set_config('search_path', 'other', false)")), primary(searched),
		primary(query("DISCARD ALL")), standby(searched), primary(extended("SELECT s, set_config('search_path', 'other', false) FROM t WHERE n = 1")), primary(extended("SELECT s FROM t WHERE n = 1")),
	}},
	{name: "SET in a transaction that is rolled back", turns: []turn{
		primary(query("BEGIN")), primary(query("SET search_path = other")), primary(searched), primary(query("ROLLBACK")), either(searched), primary(query("DISCARD ALL")),
		primary(query("BEGIN; SET search_path = other; ROLLBACK")), either(searched), primary(query("DISCARD ALL")),
		primary(query("BEGIN")), primary(query("SAVEPOINT a")), primary(query("SET search_path = other")), primary(query("ROLLBACK TO a")), primary(query("COMMIT")), either(searched), primary(query("DISCARD ALL")),
		primary(query("SET search_path = other; SELECT 1/0")), either(searched), primary(query("DISCARD ALL")),
		primary(parse("", "SET search_path = other"), use(""), parse("", "SELECT 1/0"), use(""), rt.Sync), either(searched), primary(query("DISCARD ALL")), standby(searched),
	}},
	{name: "SET in a transaction that commits", turns: []turn{
		primary(query("BEGIN")), primary(query("SET search_path = other")), primary(query("COMMIT")), either(searched), primary(query("DISCARD ALL")),
		primary(query("SET search_path = other; SELECT 1")), either(searched), primary(query("DISCARD ALL")), primary(parse("", "SELECT 1"), use(""), parse("", "SET search_path = other"), use(""), rt.Sync), either(searched),
	}},
	{name: "RESET ALL", turns: []turn{
		primary(query("SET search_path = other")), primary(query("SET my.own = 'x'")), primary(query("SET ROLE bob")), primary(query("RESET ALL")), standby(searched), standby(query("SELECT current_user")),
		either(query("SELECT current_setting('my.own', true)")), primary(query("SET search_path = other")), standby(searched),
	}},
	{name: "DISCARD ALL", turns: []turn{
		primary(query("SET search_path = other")), primary(query("SET ROLE bob")), standby(query("SELECT current_user, s FROM t WHERE n = 1")), primary(query("DISCARD ALL")), standby(query("SELECT current_user, s FROM t WHERE n = 1")),
		primary(query("CREATE TEMP TABLE own (n int)")), primary(query("SET search_path = other")), {on: onPrimary, sent: joined(query("DISCARD ALL"), query("SET search_path = other"), searched)}, either(searched),
		primary(query("BEGIN; DISCARD ALL")), primary(query("ROLLBACK")), either(searched),
	}},
	{name: "SET ROLE", turns: []turn{
		primary(query("SET ROLE bob")), standby(query("SELECT current_user, session_user")), primary(query("SET ROLE carol")), standby(query("SELECT current_user")), primary(extended("RESET ROLE")), standby(query("SELECT current_user")),
		primary(query("SET ROLE bob")), primary(query("SET ROLE NONE")), standby(extended("SELECT current_user")),
	}},
	{name: "SET SESSION AUTHORIZATION", user: "carol", turns: []turn{
		standby(query("SELECT n FROM guarded WHERE n = 1 AND false")), primary(query("SET SESSION AUTHORIZATION alice")), standby(query("SELECT current_user, session_user")), primary(query("SET ROLE bob")),
		standby(query("SELECT current_user, session_user")), primary(query("RESET SESSION AUTHORIZATION")), standby(query("SELECT current_user, session_user")),
		primary(query("SET SESSION AUTHORIZATION nobody")), standby(query("SELECT current_user, session_user")),
	}},
	{name: "a REPEATABLE READ transaction", turns: []turn{
		primary(query("BEGIN ISOLATION LEVEL REPEATABLE READ")), primary(count), beside("INSERT INTO t VALUES (120, 'b')"), primary(count), primary(query("COMMIT")), either(query("SELECT 1")),
		primary(query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")), primary(count), beside("DELETE FROM t WHERE n = 120"), primary(count), primary(query("INSERT INTO t VALUES (121, 'b')")), primary(query("COMMIT")),
	}},
	{name: "a REPEATABLE READ transaction in one batch", turns: []turn{
		standby(parse("", "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), use(""), parse("", "SELECT count(*) FROM t"), use(""), parse("", "COMMIT"), use(""), rt.Sync),
		primary(query("INSERT INTO t VALUES (122, 'b')")),
		standby(parse("", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"), use(""), parse("", "SELECT count(*) FROM t"), use(""), parse("", "ROLLBACK"), use(""), rt.Sync), standby(count),
		repeated(parse("", "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), use(""), parse("", "SELECT 1/0"), use(""), parse("", "COMMIT"), use(""), rt.Sync), primary(count), primary(query("ROLLBACK")), standby(count),
		{on: onStandby, sent: slices.Concat(parse("", "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), use(""), parse("", "SELECT 1 / (20000 - g) FROM generate_series(1, 30000) g"), use(""), parse("", "COMMIT"), use(""), rt.Sync)},
		primary(query("SAVEPOINT a")), primary(query("ROLLBACK")), standby(count),
		primary(parse("", "BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE"), use(""), parse("", "SELECT count(*) FROM t"), use(""), parse("", "COMMIT"), use(""), rt.Sync),
		primary(query("SET default_transaction_isolation = 'repeatable read'")), either(count),
		standby(parse("", "BEGIN READ ONLY"), use(""), parse("", "SELECT count(*) FROM t"), use(""), parse("", "COMMIT"), use(""), rt.Sync), primary(query("BEGIN READ ONLY")), primary(query("COMMIT")),
	}},
	{name: "SERIALIZABLE READ ONLY", turns: []turn{
		primary(query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")), primary(count), primary(query("COMMIT")), primary(query("BEGIN TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE")), primary(count), primary(query("ROLLBACK")),
		standby(query("BEGIN READ ONLY")), primary(query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")), primary(count), primary(query("COMMIT")), standby(count),
	}},
	{name: "default_transaction_isolation", turns: []turn{
		primary(query("SET default_transaction_isolation = 'serializable'")), either(count), either(extended("SELECT current_setting('transaction_isolation')")), primary(query("BEGIN READ ONLY")), primary(query("SHOW transaction_isolation")), primary(query("COMMIT")),
		primary(query("SET default_transaction_isolation = 'repeatable read'")), either(count), primary(query("BEGIN READ ONLY")), primary(count), primary(query("SHOW transaction_isolation")), primary(query("COMMIT")),
		primary(query("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE")), either(count), primary(query("BEGIN READ ONLY")), primary(query("SHOW transaction_isolation")), primary(query("COMMIT")),
	}},
	{name: "default_transaction_read_only", turns: []turn{
		primary(query("SET default_transaction_read_only = on")), standby(count), primary(query("INSERT INTO t VALUES (130, 'r')")), repeated(query("SELECT n + 2 FROM touching")), primary(query("BEGIN READ WRITE; INSERT INTO seen VALUES (1); COMMIT")), either(touches),
		primary(query("RESET default_transaction_read_only")), primary(query("INSERT INTO seen VALUES (1)")), either(touches),
	}},
	{name: "SET TRANSACTION behind a query of a READ ONLY block", turns: []turn{
		standby(query("BEGIN READ ONLY")), {on: onStandby, sent: count}, primary(query("SET TRANSACTION READ WRITE")), primary(query("INSERT INTO t VALUES (132, 'r')")), primary(query("ROLLBACK")), either(count),
		standby(parse("", "BEGIN READ ONLY"), use(""), parse("", "SELECT count(*) FROM t"), use(""), rt.Sync), primary(query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")), primary(query("ROLLBACK")),
		standby(query("BEGIN READ ONLY")), {on: onStandby, sent: query("SHOW server_encoding")}, primary(query("SET TRANSACTION READ WRITE")), primary(query("INSERT INTO seen VALUES (1)")), primary(query("COMMIT")), either(touches),
	}},
	{name: "a portal that lasts over a Sync of a READ ONLY block", turns: []turn{
		standby(query("BEGIN READ ONLY")), primary(parse("", "SELECT n FROM t ORDER BY n"), rt.Bind("", ""), rt.Message('E', rt.Text(""), rt.Int32(2)), rt.Sync), primary(rt.Message('E', rt.Text(""), rt.Int32(3)), rt.Flush, rt.Execute(""), rt.Sync), primary(query("COMMIT")),
		standby(query("BEGIN READ ONLY")), primary(parse("", "SELECT 1"), use(""), parse("", "SELECT n FROM t ORDER BY n"), rt.Bind("", ""), rt.Sync), primary(rt.Execute(""), rt.Flush, rt.Sync), primary(query("COMMIT")),
	}},
	{name: "a READ ONLY block", turns: []turn{
		standby(query("BEGIN READ ONLY")), {on: onStandby, sent: searched}, primary(query("SET LOCAL search_path = other")), primary(searched), primary(query("COMMIT")), standby(searched),
		standby(query("BEGIN READ ONLY")), {on: onStandby, sent: searched}, {on: refused, sent: query("SELECT 1/0")}, primary(searched), primary(query("COMMIT")), standby(searched),
		standby(query("BEGIN READ ONLY")), primary(query("INSERT INTO t VALUES (131, 'r')")), primary(query("ROLLBACK")), standby(searched),
	}},
}

// losses are cases in which the standby goes away. Each starts it again.
var losses = []scriptCase{
	{name: "the standby is lost between Parse and Bind", turns: []turn{
		quiet(prepare("read", "SELECT count(*) FROM t")), standby(execute("read")), happens(loseStandby), primary(execute("read")), primary(execute("read")), happens(startStandby), standby(execute("read")),
	}},
	{name: "the standby is lost between the Parse and the Bind of the unnamed statement", turns: []turn{
		standby(extended("SELECT count(*) FROM t")), happens(loseStandby), primary(execute("")), quiet(parse("", "SELECT s FROM t WHERE n = 1"), describe(""), rt.Sync), primary(execute("")), happens(startStandby), standby(count),
	}},
	{name: "the standby is lost in a block", turns: []turn{
		standby(query("BEGIN READ ONLY")), {on: onStandby, sent: count}, happens(loseStandby), primary(count), primary(query("COMMIT")), happens(startStandby), standby(count),
	}},
}

func loseStandby(o *oracle) {
	o.watch[1].Close(context.Background())
	o.two.Stop(postgrestest.Immediate)
}

func startStandby(o *oracle) {
	o.two.Start()
	o.two.CatchUp(o.primary)
}

func TestCasesWhereOthersBreak(t *testing.T) {
	o := startOracle(t, casesSchema)
	for _, cases := range [][]scriptCase{writes, batches, states, losses} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				user := c.user
				if user == "" {
					user = "alice"
				}
				o.compare(t, user, c.turns)
			})
		}
	}
}

// TestAnOldPrimaryComesBackAsAStandby: a session at rest outlives its reign, and a new one writes on the new primary and reads on the old one what it wrote.
func TestAnOldPrimaryComesBackAsAStandby(t *testing.T) {
	s := startSplit(t)
	b := s.block(t)
	b.on("one", "INSERT INTO t VALUES (3000)", "")
	s.primary.Exec(fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=%s port=%d user=postgres password=%s'", s.two.Host, s.two.Port, postgrestest.Password))
	s.primary.Exec(fmt.Sprintf("COPY (SELECT 1) TO '%s'", s.primary.LogPath("standby.signal")))
	s.primary.Stop(postgrestest.Fast)
	s.two.Promote()
	s.know.Hear(rt.Standby("one", s.primary.Addr(), 1), rt.Primary("two", s.two.Addr(), 2))
	if err := s.exec(b.conn, pgx.QueryExecModeSimpleProtocol, "SELECT 1"); err != nil {
		t.Errorf("a session at rest did not outlive its primary: %v", err)
	}
	s.primary.Start()
	s.know.Hear(rt.Standby("one", s.primary.Addr(), 2), rt.Primary("two", s.two.Addr(), 2))
	b.conn = s.connect(t, route.Auto, "")
	for i, write := range []string{"INSERT INTO t VALUES (3001)", "INSERT INTO t VALUES (3002)"} {
		b.on("two", write, "")
		until(t, "reads on the old primary", func() bool {
			s.two.Exec("SELECT pg_logical_emit_message(true, '', '')") // a commit, so that all WAL is flushed
			mark, rows := s.mark(), 0
			err := b.conn.QueryRow(t.Context(), "SELECT count(*) FROM t WHERE n >= 3000 "+mark, pgx.QueryExecModeSimpleProtocol).Scan(&rows)
			if err != nil || rows != i+2 {
				t.Fatalf("%d rows are seen after %s: %v", rows, write, err)
			}
			return s.ran(mark) == "one"
		})
	}
}
