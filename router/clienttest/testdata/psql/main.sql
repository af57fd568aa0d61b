\set VERBOSITY sqlstate
\pset format unaligned
\pset tuples_only on
\echo values: as follows
SELECT 1099511627776::int8, 'zażółć ☃', '\x00ff'::bytea, 1.50, ARRAY[1, 2, 3], NULL, true, '2024-02-29'::date;
SELECT current_user = :'USER', :'SERVER_VERSION_NUM' = current_setting('server_version_num'), :'ENCODING';
\echo describe: as follows
\d t
\echo prepared: as follows
PREPARE double (int) AS SELECT $1 * 2;
EXECUTE double (21);
EXECUTE double (-1);
DEALLOCATE double;
EXECUTE double (1);
\echo gexec: as follows
SELECT format('SELECT %s * 10', i) FROM generate_series(1, 3) i \gexec
\echo gdesc: as follows
SELECT 1 AS a, 'x'::text AS b \gdesc
\echo commit: as follows
BEGIN;
INSERT INTO t VALUES (11, 'commit'), (12, 'commit'), (13, 'commit');
COMMIT;
SELECT count(*) FROM t;
\echo rollback: as follows
BEGIN;
INSERT INTO t VALUES (21, 'rollback');
ROLLBACK;
SELECT count(*) FROM t;
\echo error in the middle: as follows
BEGIN;
INSERT INTO t VALUES (31, 'middle');
SELECT 1 / (id - id) FROM t;
SELECT 1;
COMMIT;
SELECT count(*) FROM t;
\echo rollback of statements: as follows
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO t VALUES (41, 'on error rollback');
INSERT INTO t VALUES (41, 'twice');
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT count(*) FROM t;
\echo several statements: as follows
SELECT 1\; SELECT 1 / (id - id) FROM t\; SELECT 2;
INSERT INTO t VALUES (51, 'undone')\; SELECT 1 / (id - id) FROM t;
SELECT count(*) FROM t;
\echo errors: as follows
INSERT INTO t VALUES (1, 'again');
SELECT 1 FROMM t;
SELECT * FROM nowhere;
DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$;
\set VERBOSITY default
DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$;
DO $$ BEGIN RAISE NOTICE 'look here'; END $$;
\set VERBOSITY sqlstate
\c - - - -
\echo copy: as follows
COPY copied (id, s) FROM STDIN;
1	one
2	two
\.
COPY copied (id) FROM STDIN;
no number
\.
COPY (SELECT i, 'row ' || i FROM generate_series(1, 5) i) TO STDOUT;
\copy (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO PROGRAM 'sha256sum'
\copy copied (id) FROM PROGRAM 'seq 1 2000; true'
SELECT count(*) FROM copied;
\echo cursor: as follows
\set FETCH_COUNT 500
SELECT count(*), sum(i) FROM (SELECT i FROM generate_series(1, 10000) i) x;
SELECT i FROM generate_series(1, 1200) i WHERE i % 100 = 0;
\unset FETCH_COUNT
\echo session: as follows
SET work_mem = '5MB';
SHOW work_mem;
CREATE TEMP TABLE mine AS SELECT 7 AS n;
SELECT n FROM mine;
\c - - - -
\echo notify: as follows
SELECT :'USER' AS channel \gset
LISTEN :channel;
SELECT pg_notify(:'channel', 'one');
UNLISTEN *;
\echo big: as follows
\o | sha256sum
SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i;
SELECT repeat('y', 16 << 20);
\o
\echo reconnect: as follows
\c - - - -
SELECT count(*) FROM pg_prepared_statements;
\echo timed out: as follows
SET statement_timeout = 50;
SELECT pg_sleep(60);
RESET statement_timeout;
\echo cancel: as follows
\echo sleeping
SELECT pg_sleep(600);
\echo after an interrupt psql runs no more of a script: failed
