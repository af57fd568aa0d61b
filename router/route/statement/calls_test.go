package statement

import "testing"

// What a statement that writes calls, and what only looks like a call.
func TestCallsOfWrites(t *testing.T) {
	s := settings(t, Function{"public", "release", 'v'}, Function{"public", "insert", 'v'}, Function{"public", "conflict", 'v'}, Function{"public", "set", 'v'}, Function{"public", "notify", 'v'})
	for text, want := range map[string]bool{
		"INSERT INTO t (a, b) VALUES (1, lower('x'))": false,
		"INSERT INTO s.t AS x (a) SELECT a FROM u ON CONFLICT (a, lower(b)) WHERE a > 0 DO UPDATE SET (a, b) = (1, excluded.b)": false,
		`INSERT INTO "T" (a) OVERRIDING USER VALUE SELECT a FROM u JOIN v USING (a) ON CONFLICT (a) DO NOTHING RETURNING (a)`:   false,
		"INSERT INTO t (a) SELECT a FROM u CROSS JOIN v ON CONFLICT (a) DO UPDATE SET a = 2":                                    false,
		"INSERT INTO release (a) VALUES (1)": false,
		"UPDATE t AS x SET (a, b) = (SELECT c, d FROM u y(c, d)), e[1] = 2 FROM v z(f) WHERE x.a IN (1, 2)":                                                           false,
		"DELETE FROM t USING u x(a, b) WHERE t.a = ANY (ARRAY[1]) RETURNING (t.a), b":                                                                                 false,
		"WITH x (a) AS MATERIALIZED (SELECT 1) INSERT INTO t (a) TABLE x":                                                                                             false,
		"WITH x AS (INSERT INTO t (a) VALUES (1) RETURNING a) SELECT * FROM x":                                                                                        false,
		"MERGE INTO t USING (SELECT 1) x(a) ON t.a = x.a WHEN MATCHED AND x.a IN (1) THEN UPDATE SET (a) = ROW (1) WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1, 2)": false,
		"EXPLAIN ANALYZE INSERT INTO t (a) VALUES (1)":                                                                                                                false,
		"PREPARE p (int) AS INSERT INTO t (a) VALUES ($1)":                                                                                                            false,
		"COPY (INSERT INTO t (a) VALUES (1) RETURNING a) TO STDOUT":                                                                                                   false,
		"COPY t (a, b) FROM STDIN WITH (FORMAT csv, FORCE_NULL (a)) WHERE a IN (1)":                                                                                   false,
		"CREATE TABLE t (a numeric(3), b varchar(4) DEFAULT release(1), PRIMARY KEY (a), FOREIGN KEY (b) REFERENCES u (b), CHECK (release(a)))":                       false,
		"CREATE TABLE t (a) AS SELECT a FROM u x(a)":                                                                                                                  false,
		"CREATE VIEW v (a) AS SELECT release(1)":                                                                                                                      false,
		"CREATE INDEX i ON t USING btree (a, lower(b)) INCLUDE (c) WITH (fillfactor = 70)":                                                                            false,
		"CREATE FUNCTION f (a int) RETURNS int LANGUAGE sql AS 'SELECT release(1)'":                                                                                   false,
		"ALTER TABLE t ADD COLUMN a varchar(3) DEFAULT lower('x'), ADD FOREIGN KEY (a) REFERENCES s.u (b), ADD UNIQUE (a) INCLUDE (b), SET (fillfactor = 70)":         false,
		"GRANT SELECT (a) ON t TO x": false,

		"INSERT INTO t (a) VALUES (release(1))":                                                     true,
		"INSERT INTO t SELECT a FROM u JOIN v ON conflict(v.a)":                                     true,
		"INSERT INTO t SELECT a FROM u JOIN v JOIN w ON true ON conflict(v.a)":                      true,
		"INSERT INTO t (a) VALUES (1) ON CONFLICT (notify(a)) DO NOTHING":                           true,
		"INSERT INTO t VALUES (1) RETURNING release(a)":                                             true,
		"UPDATE t SET a = set(1)":                                                                   true,
		"UPDATE t SET a = 1 WHERE public.release(a) > 0":                                            true,
		"DELETE FROM t USING notify(1) WHERE true":                                                  true,
		"DELETE FROM t WHERE nextval('s') > 0":                                                      true,
		`UPDATE t SET a = "insert"(1)`:                                                              true,
		"MERGE INTO t USING u ON a = b WHEN MATCHED AND CASE WHEN a THEN insert(1) END THEN DELETE": true,
		"EXPLAIN ANALYZE DELETE FROM t WHERE release(1)":                                            true,
		"PREPARE p AS UPDATE t SET a = release(1)":                                                  true,
		"COPY (DELETE FROM t RETURNING release(a)) TO STDOUT":                                       true,
		"COPY t FROM STDIN WHERE release(a)":                                                        true,
		"CREATE TABLE t AS SELECT release(1)":                                                       true,
		"CREATE UNLOGGED TABLE IF NOT EXISTS t (a) WITH (fillfactor = 70) AS (SELECT release(1))":   true,
		"CREATE MATERIALIZED VIEW v AS SELECT release(1) WITH NO DATA":                              true,
		"CREATE TABLE t AS EXECUTE p (release(1))":                                                  true,
		"CREATE TABLE t PARTITION OF u FOR VALUES FROM (release(1)) TO (2)":                         true,
		"ALTER TABLE t ADD COLUMN a int DEFAULT release(1)":                                         true,
		"ALTER TABLE t ALTER a TYPE int USING notify(a)":                                            true,
		"ALTER TABLE t ADD CHECK (release(a))":                                                      true,
		"ALTER DOMAIN d ADD CHECK (release(value))":                                                 true,
	} {
		v := Classify([]byte(text), s)
		if v.Is(FlagUnknownCall) != want || v.Read || v.Is(FlagOpaque|FlagSetConfig|FlagTemp) {
			t.Errorf("%s: %+v", text, v)
		}
	}
}

// What changes functions, and what shows where temporary objects are made.
func TestFlagsOfDefinitionsAndSettings(t *testing.T) {
	s := settings(t)
	for text, want := range map[string]Flag{
		"CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS ''": FlagFunctions, "ALTER FUNCTION f VOLATILE": FlagFunctions, "DROP ROUTINE f": FlagFunctions,
		"CREATE EXTENSION x": FlagFunctions, "ALTER PROCEDURE p RENAME TO q": FlagFunctions,
		"CREATE TRIGGER a AFTER INSERT ON t EXECUTE FUNCTION f()": 0, "GRANT EXECUTE ON FUNCTION f TO x": 0, "CREATE TABLE t (a int)": 0,
		"SET search_path = pg_temp": FlagTemp, `SET search_path TO a, "pg_temp", b`: FlagTemp, "SET LOCAL search_path = 'PG_TEMP'": FlagTemp | FlagLocal, "SET SCHEMA 'pg_temp'": FlagTemp,
		"SET SESSION search_path = PG_Temp, a": FlagTemp, "SET search_path = pg_temp_3": FlagTemp, `SET search_path = U&"\0070g_temp"`: FlagTemp, `SET search_path = E'pg\x5ftemp'`: FlagTemp,
		"SET search_path = 'pg_'\n'temp'": FlagTemp, "SET search_path = U&'!0070g_temp' UESCAPE '!'": FlagTemp, `SET "search_path" = pg_temp`: FlagTemp,
		"SET search_path = a, \"$user\", public": 0, "SET search_path = 'pg_catalog'": 0, "SET search_path = ''": 0, "SET search_path = DEFAULT": 0, "SET search_path = 'pg_' 'temp'": 0, "SET a.b = 'pg_temp'": 0,
	} {
		if v := Classify([]byte(text), s); v.Flags != want {
			t.Errorf("%s: %b, want %b", text, v.Flags, want)
		}
	}
}
