package statement

import "testing"

// hazards are the cases in which other routers send a write to a standby, or a read to the wrong one, as far as a text shows
// them. What no text shows (code behind an operator, a cast, a view or a policy, a temporary table that shadows another,
// a standby lost in between) is the session's affair.
var hazards = map[string]struct {
	text string
	want Reason
}{
	"a plain read":                                {"SELECT * FROM t WHERE a = $1 ORDER BY lower(b) LIMIT 10", 0},
	"data-modifying CTE":                          {"WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", ReasonModifying},
	"data-modifying CTE, the second":              {"WITH x AS (SELECT 1), y AS (INSERT INTO t SELECT 1 RETURNING 1) SELECT * FROM x", ReasonModifying},
	"data-modifying CTE, MERGE":                   {"WITH x AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING 1) SELECT 1", ReasonModifying},
	"data-modifying CTE, nested":                  {"SELECT * FROM (WITH x AS (UPDATE t SET a=1 RETURNING 1) SELECT 1) y", ReasonModifying},
	"data-modifying CTE in a CTE":                 {"WITH x AS (WITH y AS (DELETE FROM t RETURNING 1) SELECT * FROM y) TABLE x", ReasonModifying},
	"data-modifying CTE in a list of expressions": {"SELECT 1, (WITH y AS (DELETE FROM t RETURNING 1) SELECT * FROM y)", ReasonModifying},
	"WITH in front of an INSERT":                  {"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", ReasonModifying},
	"UPDATE behind a column named key":            {"WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT 1) SEARCH DEPTH FIRST BY a SET key UPDATE t SET a = 1", ReasonModifying},
	"FOR UPDATE":                                  {"SELECT 1 FROM t FOR/**/UPDATE", ReasonLocking},
	"FOR NO KEY UPDATE OF SKIP LOCKED":            {"SELECT 1 FROM t FOR NO KEY UPDATE OF t SKIP LOCKED", ReasonLocking},
	"FOR SHARE NOWAIT":                            {"SELECT 1 FROM t FOR SHARE NOWAIT", ReasonLocking},
	"FOR KEY SHARE":                               {"SELECT 1 FROM t FOR KEY SHARE", ReasonLocking},
	"FOR UPDATE in a subquery":                    {"SELECT * FROM (SELECT 1 FROM t FOR UPDATE) x", ReasonLocking},
	"FOR UPDATE in a CTE":                         {"WITH x AS (SELECT 1 FROM t FOR UPDATE) SELECT 1", ReasonLocking},
	"FOR UPDATE behind VALUES":                    {"(VALUES (1)) FOR UPDATE", ReasonLocking},
	"SELECT INTO":                                 {"SELECT 1 INTO x FROM t", ReasonInto},
	"SELECT INTO TEMP":                            {"SELECT 1 INTO TEMP x", ReasonInto},
	"EXPLAIN ANALYZE of a write":                  {"EXPLAIN ANALYZE DELETE FROM t", ReasonModifying},
	"EXPLAIN (ANALYZE) of a write in a CTE":       {"EXPLAIN (ANALYZE, COSTS off) WITH x AS (DELETE FROM t RETURNING 1) SELECT 1", ReasonModifying},
	"EXPLAIN ANALYZE of a read":                   {"EXPLAIN (ANALYZE) SELECT 1", 0},
	"EXPLAIN of EXECUTE":                          {"EXPLAIN ANALYZE EXECUTE p", ReasonStatement},
	"EXPLAIN with an option named VALUES":         {"EXPLAIN (VALUES 1) CREATE TABLE x AS SELECT 1", ReasonStatement},
	"COPY of an INSERT":                           {"COPY (INSERT INTO t VALUES (1) RETURNING 1) TO STDOUT", ReasonModifying},
	"COPY of a CTE that writes":                   {"COPY (WITH x AS (DELETE FROM t RETURNING 1) TABLE x) TO STDOUT", ReasonModifying},
	"COPY of a query":                             {"COPY (SELECT 1) TO STDOUT", 0},
	"COPY FROM":                                   {"COPY t FROM STDIN", ReasonModifying},
	"COPY to a program":                           {"COPY t TO PROGRAM 'x'", ReasonCopy},
	"volatile in the target list":                 {"SELECT nextval('s')", ReasonFunction},
	"volatile in WHERE":                           {"SELECT 1 FROM t WHERE random() < 1", ReasonFunction},
	"volatile in ORDER BY":                        {"SELECT 1 FROM t ORDER BY random()", ReasonFunction},
	"volatile in HAVING":                          {"SELECT 1 FROM t HAVING nextval('s') > 1", ReasonFunction},
	"volatile in LIMIT":                           {"SELECT 1 LIMIT nextval('s')", ReasonFunction},
	"volatile in OFFSET":                          {"SELECT 1 OFFSET (nextval('s'))", ReasonFunction},
	"volatile in a join condition":                {"SELECT 1 FROM a JOIN b ON nextval('s') = 1", ReasonFunction},
	"volatile in FROM":                            {"SELECT * FROM a, nextval('s')", ReasonFunction},
	"volatile in VALUES":                          {"VALUES (1, nextval('s'))", ReasonFunction},
	"volatile in GROUP BY":                        {"SELECT 1 GROUP BY nextval('s')", ReasonFunction},
	"volatile in FILTER":                          {"SELECT count(*) FILTER (WHERE nextval('s') > 1)", ReasonFunction},
	"volatile in a window":                        {"SELECT rank() OVER (ORDER BY nextval('s'))", ReasonFunction},
	"volatile in DISTINCT ON":                     {"SELECT DISTINCT ON (nextval('s')) 1", ReasonFunction},
	"volatile in an array's subscript":            {"SELECT a[nextval('s')] FROM t", ReasonFunction},
	"volatile in EXTRACT":                         {"SELECT extract(year FROM my_clock())", ReasonFunction},
	"volatile behind a comment":                   {"SELECT nextval/**/-- x\n('s')", ReasonFunction},
	"volatile, quoted":                            {`SELECT "nextval"('s')`, ReasonFunction},
	"volatile, in escapes":                        {`SELECT U&"\006eextval"('s')`, ReasonFunction},
	"volatile, qualified":                         {"SELECT pg_catalog . nextval('s')", ReasonFunction},
	"volatile, named by TREAT":                    {"SELECT treat('s' AS nextval)", ReasonFunction},
	"volatile user function, overloaded":          {"SELECT mixed(1)", ReasonFunction},
	"volatile user function, in another schema":   {"SELECT a.mixed(1)", ReasonFunction},
	"volatile user function shadows a builtin":    {"SELECT upper(1)", ReasonFunction},
	"volatile user function named like a keyword": {`SELECT filter(1)`, ReasonFunction},
	"function that nobody knows":                  {"SELECT made_just_now(1)", ReasonFunction},
	"stable user function":                        {`SELECT Stable(1), "Quoted"()`, 0},
	"quoted in another case":                      {`SELECT "STABLE"(1)`, ReasonFunction},
	"read; write":                                 {"SELECT 1; INSERT INTO t VALUES (1)", ReasonModifying},
	"write; read":                                 {"INSERT INTO t VALUES (1); SELECT 1", ReasonModifying},
	"read; read":                                  {"SELECT 1;; SELECT 2;", 0},
	"read; call":                                  {"SELECT 1; CALL p()", ReasonStatement},
	"a block in one Query":                        {"BEGIN; DELETE FROM t; END", ReasonModifying},
	"a block of reads in one Query":               {"BEGIN; SELECT 1; END", ReasonSession},
	"does not parse: unterminated":                {"SELECT 'a", ReasonUnterminated},
	"does not parse: no such statement":           {"SELEC 1", ReasonStatement},
	"does not parse: parentheses":                 {"SELECT (1", ReasonUnbalanced},
	"nothing":                                     {"", ReasonEmpty},
	"nothing but a comment":                       {"/* ping */ ;", ReasonEmpty},
	"set_config":                                  {"SELECT set_config('search_path', 'x', false)", ReasonFunction},
	"set_config for the transaction":              {"SELECT set_config('search_path', 'x', true)", ReasonFunction},
	"SET":                                         {"SET a = 1", ReasonSession},
	"SET LOCAL":                                   {"SET LOCAL a = 1", ReasonSession},
	"SET ROLE":                                    {"SET ROLE x", ReasonSession},
	"SET SESSION AUTHORIZATION":                   {"SET SESSION AUTHORIZATION x", ReasonSession},
	"SET default_transaction_isolation":           {"SET default_transaction_isolation = serializable", ReasonSession},
	"RESET ALL":                                   {"RESET ALL", ReasonSession},
	"DISCARD ALL":                                 {"DISCARD ALL", ReasonSession},
	"UPDATE pg_settings":                          {"UPDATE pg_settings SET setting = 1", ReasonModifying},
	"LISTEN":                                      {"LISTEN a", ReasonSession},
	"NOTIFY":                                      {"NOTIFY a", ReasonSession},
	"pg_notify":                                   {"SELECT pg_notify('a', 'b')", ReasonFunction},
	"LOCK":                                        {"LOCK TABLE t", ReasonSession},
	"advisory lock":                               {"SELECT pg_advisory_lock(1)", ReasonFunction},
	"advisory lock of the transaction":            {"SELECT pg_advisory_xact_lock_shared(1)", ReasonFunction},
	"advisory lock with a computed key":           {"SELECT pg_try_advisory_lock(hashtext('x'))", ReasonFunction},
	"advisory unlock":                             {"SELECT pg_advisory_unlock_all()", ReasonFunction},
	"sequences":                                   {"SELECT setval('s', 1), currval('s'), lastval()", ReasonFunction},
	"transaction IDs":                             {"SELECT txid_current()", ReasonFunction},
	"transaction IDs by their new name":           {"SELECT pg_current_xact_id()", ReasonFunction},
	"large objects":                               {"SELECT lo_create(0)", ReasonFunction},
	"large objects, read":                         {"SELECT loread(1, 2)", ReasonFunction},
	"dblink":                                      {"SELECT * FROM dblink('x', 'DELETE FROM t') AS t(a int)", ReasonFunction},
	"pg_terminate_backend":                        {"SELECT pg_terminate_backend(1)", ReasonFunction},
	"a query in a text":                           {"SELECT query_to_xml('SELECT nextval(1)', true, true, '')", ReasonFunction},
	"CALL":                                        {"CALL p(1)", ReasonStatement},
	"DO":                                          {"DO $$ BEGIN END $$", ReasonStatement},
	"CREATE TEMP TABLE":                           {"CREATE TEMP TABLE t (a int)", ReasonStatement},
	"CREATE TABLE AS":                             {"CREATE TABLE t AS SELECT 1", ReasonStatement},
	"ALTER FUNCTION":                              {"ALTER FUNCTION stable(int) VOLATILE", ReasonStatement},
	"a temporary schema":                          {"SELECT * FROM pg_temp.t", ReasonName},
	"WITH HOLD":                                   {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", ReasonSession},
	"a cursor":                                    {"DECLARE c CURSOR FOR SELECT 1", ReasonSession},
	"PREPARE of a read":                           {"PREPARE p AS SELECT 1", ReasonSession},
	"EXECUTE":                                     {"EXECUTE p(1)", ReasonSession},
	"PREPARE TRANSACTION":                         {"PREPARE TRANSACTION 'x'", ReasonSession},
	"COMMIT PREPARED":                             {"COMMIT PREPARED 'x'", ReasonSession},
	"TRUNCATE":                                    {"TRUNCATE t", ReasonModifying},
	"REFRESH":                                     {"REFRESH MATERIALIZED VIEW m", ReasonStatement},
	"a probe for the primary":                     {"SELECT pg_is_in_recovery()", ReasonFunction},
	"SHOW transaction_read_only":                  {"SHOW transaction_read_only", ReasonSession},
	"statistics of the server":                    {"SELECT * FROM pg_stat_activity", ReasonName},
	"a sequence's columns":                        {"SELECT last_value FROM s", ReasonName},
	"hint primary":                                {"SELECT /* howdah: primary */ 1", ReasonHint},
	"hint standby":                                {"/* howdah: standby */ SELECT mixed(1)", 0},
	"hint standby does not let a write pass":      {"/* howdah: standby */ SELECT 1 FOR UPDATE", ReasonLocking},
	"both hints":                                  {"/* howdah: primary */ SELECT /* howdah: standby */ 1", ReasonHint},
	"hint in a string":                            {"SELECT '/* howdah: standby */', mixed(1)", ReasonFunction},
	"writes in strings and names":                 {`SELECT '; DELETE FROM t', $$FOR UPDATE$$, "insert", E'\'; TRUNCATE t; --' FROM "nextval"`, 0},
}

func TestCasesWhereOthersBreak(t *testing.T) {
	s := settings(t, Function{"a", "stable", 's'}, Function{"a", "mixed", 's'}, Function{"b", "mixed", 'v'}, Function{"public", "Quoted", 'i'},
		Function{"public", "upper", 'v'}, Function{"public", "filter", 'v'})
	for name, c := range hazards {
		v := Classify([]byte(c.text), s)
		if v.Reason != c.want || v.Read != (c.want == 0) {
			t.Errorf("%s: %s, want %s: %s", name, v.Reason, c.want, c.text)
		}
	}
}

// What makes a transaction block one that may run on a standby as a whole.
func TestBlocks(t *testing.T) {
	s := settings(t)
	for text, want := range map[string]bool{
		"BEGIN READ ONLY": true,
		"START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY": true,
		"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY":               true,
		"BEGIN TRANSACTION READ ONLY NOT DEFERRABLE":                   true,
		"BEGIN":                       false,
		"BEGIN READ WRITE":            false,
		"BEGIN READ ONLY, READ WRITE": false,
		"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY":                          false,
		"START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE": false,
		"/* howdah: primary */ BEGIN READ ONLY":                                 false,
		"BEGIN READ ONLY; SELECT 1":                                             false,
		"COMMIT":                                                                false,
	} {
		if v := Classify([]byte(text), s); v.BeginsStandbyBlock() != want {
			t.Errorf("%s: %+v", text, v)
		}
	}
	for text, want := range map[string]bool{
		"SELECT 1": true, "FETCH ALL FROM c": true, "SAVEPOINT a": true, "SET LOCAL a = 1": true, "SHOW transaction_read_only": true, "DECLARE c CURSOR FOR SELECT 1": true,
		"COMMIT": true, "SET TRANSACTION READ ONLY": true,
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1": false, "SET TRANSACTION READ WRITE": false, "SET transaction_read_only = off": false, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": false,
		"SET TRANSACTION SNAPSHOT 'x'": false, "COMMIT AND CHAIN": false, "SELECT nextval('s')": false, "LISTEN a": false, "DISCARD ALL": false, "SELECT 1; LISTEN a": false,
	} {
		if v := Classify([]byte(text), s); v.Block != want {
			t.Errorf("in a block: %s: %+v", text, v)
		}
	}
	for text, want := range map[string]Deferral{"BEGIN DEFERRABLE": Deferrable, "BEGIN READ ONLY, NOT DEFERRABLE": NotDeferrable, "BEGIN READ ONLY": 0} {
		if v := Classify([]byte(text), s); v.Deferral != want {
			t.Errorf("%s: deferral %d, want %d", text, v.Deferral, want)
		}
	}
}
