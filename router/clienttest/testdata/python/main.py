"""psycopg 3 through the steps of doc.go. Host, port, role, password and sslmode come from the environment, as libpq reads it."""

import hashlib
import logging
import os
import sys
import threading

import psycopg

ROLE = os.environ["PGUSER"]


def connect(**more):
    return psycopg.connect(autocommit=True, **more)


def step(name, f):
    try:
        result = f()
    except psycopg.Error as e:
        result = f"error {e.sqlstate}" if e.sqlstate else f"failed {e!r}"
    except Exception as e:  # a defect here or in the driver: the test fails on this word
        result = f"failed {e!r}"
    print(f"{name}: {result}", flush=True)


def attempt(f):
    """The SQLSTATE of the error that f raises; ok if it raises none."""
    try:
        f()
        return "ok"
    except psycopg.Error as e:
        return e.sqlstate or repr(e)


def one(sql, params=None, on=None, **more):
    return (on or c).execute(sql, params, **more).fetchone()[0]


def digest(chunks):
    h, n = hashlib.sha256(), 0
    for b in chunks:
        h.update(b)
        n += len(b)
    return f"{n} bytes {h.hexdigest()[:16]}"


def apart(f):
    """f in a session of its own, as what it does keeps the session on the primary."""
    def within():
        global c
        ours, c = c, connect()
        try:
            return f()
        finally:
            c.close()
            c = ours
    return within


logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it would warn of the second error in a pipeline, which depends on timing
c = connect()


def parameters():
    return [c.info.parameter_status(p) for p in ("server_encoding", "client_encoding", "standard_conforming_strings", "integer_datetimes", "in_hot_standby")]


def values():
    row = c.execute(
        "SELECT %s::int8, %s::text, %s::bytea, %s::numeric, %s::int[], %s::text, true, '2024-02-29'::date",
        (2**40, "zażółć ☃", b"\x00\xff", "1.50", [1, 2, 3], None), binary=True).fetchone()
    return row


def prepared():
    total = sum(one("SELECT %s::int * 2", (i,), prepare=True) for i in range(50))
    return total, one("SELECT count(*) FROM pg_prepared_statements")


def cached_plan():
    c.execute("CREATE TEMP TABLE plan (a int)")
    c.execute("SELECT * FROM plan", prepare=True)
    c.execute("ALTER TABLE plan ADD b int")
    return attempt(lambda: c.execute("SELECT * FROM plan", prepare=True))


def commit():
    with c.transaction():
        for i in (11, 12, 13):
            c.execute("INSERT INTO t VALUES (%s, 'commit')", (i,))
    return one("SELECT count(*) FROM t")


def rollback():
    with c.transaction() as tx:
        c.execute("INSERT INTO t VALUES (21, 'rollback')")
        raise psycopg.Rollback(tx)


def error_in_the_middle():
    seen = []
    c.execute("BEGIN")
    seen.append(attempt(lambda: c.execute("INSERT INTO t VALUES (31, 'middle')")))
    seen.append(attempt(lambda: c.execute("SELECT 1 / (id - id) FROM t")))
    seen.append(c.info.transaction_status.name)
    seen.append(attempt(lambda: c.execute("SELECT 1")))
    seen.append(c.execute("COMMIT").statusmessage)
    return seen, one("SELECT count(*) FROM t")


def savepoint():
    with c.transaction():
        c.execute("INSERT INTO t VALUES (41, 'savepoint')")
        try:
            with c.transaction():
                c.execute("INSERT INTO t VALUES (41, 'twice')")
        except psycopg.errors.UniqueViolation as e:
            middle = e.diag.constraint_name
    return middle, one("SELECT count(*) FROM t")


def raised():
    try:
        c.execute("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$")
    except psycopg.Error as e:
        return e.sqlstate, e.diag.message_primary, e.diag.message_detail, e.diag.message_hint


def syntax():
    try:
        c.execute("SELECT 1 FROMM t")
    except psycopg.Error as e:
        return e.sqlstate, e.diag.statement_position


def notice():
    seen = []
    c.add_notice_handler(lambda d: seen.append((d.severity, d.message_primary)))
    c.execute("DO $$ BEGIN RAISE NOTICE 'look here'; END $$")
    return seen


def copy_in():
    with c.cursor() as cur:
        with cur.copy("COPY copied (id, s) FROM STDIN") as copy:
            for i in range(20000):
                copy.write_row((i, "row %d" % i))
        return cur.rowcount


def copy_out(how):
    with c.cursor() as cur:
        with cur.copy(f"COPY (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO STDOUT {how}") as copy:
            return digest(copy)


def copy_bad():
    with c.cursor() as cur, cur.copy("COPY copied (id) FROM STDIN") as copy:
        copy.write(b"no number\n")


def copy_given_up():
    class Enough(Exception):
        pass
    try:
        with c.cursor() as cur, cur.copy("COPY copied (id) FROM STDIN") as copy:
            copy.write_row((1,))
            raise Enough
    except Enough:
        return "given up", one("SELECT count(*) FROM copied")


def pipeline():
    with c.pipeline():
        cursors = [c.execute("SELECT %s::int", (i,)) for i in range(200)]
    return sum(cur.fetchone()[0] for cur in cursors)


def pipeline_writes():
    with c.pipeline(), c.cursor() as cur:
        cur.executemany("INSERT INTO t VALUES (%s, 'pipeline')", [(i,) for i in range(100, 200)])
    return one("SELECT count(*) FROM t WHERE s = 'pipeline'")


def pipeline_error():
    def three():
        with c.pipeline():
            c.execute("SELECT 1")
            c.execute("SELECT 1 / (id - id) FROM t")
            c.execute("SELECT 2")
    return attempt(three), one("SELECT 3")


def cursor():
    with c.transaction(), c.cursor("slow") as cur:
        cur.itersize = 500
        cur.execute("SELECT i FROM generate_series(1, 10000) i")
        return sum(row[0] for row in cur)


def session():
    c.execute("SET work_mem = '5MB'")
    c.execute("SELECT pg_advisory_lock(42)")
    held = one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    c.execute("SELECT pg_advisory_unlock(42)")
    return one("SHOW work_mem"), held


def temporary():
    c.execute("CREATE TEMP TABLE mine AS SELECT 7 AS n")
    return one("SELECT n FROM mine")


def notify():
    with connect() as other:
        c.execute(f"LISTEN {ROLE}")
        other.execute(f"NOTIFY {ROLE}, 'one'")
        other.execute("SELECT pg_notify(%s, %s)", (ROLE, "x" * 7000))
        got = []
        for n in c.notifies():
            got.append((len(n.payload), n.pid == other.info.backend_pid))
            if len(got) == 2:
                break
        c.execute("UNLISTEN *")
        return got


def locked():
    with connect() as other, c.transaction():
        c.execute("SELECT 1 FROM t WHERE id = 1 FOR UPDATE")
        return attempt(lambda: other.execute("SELECT 1 FROM t WHERE id = 1 FOR UPDATE NOWAIT"))


def serialization():
    with connect() as other:
        c.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        c.execute("SELECT count(*) FROM t")
        wrote = attempt(lambda: other.execute("UPDATE t SET s = 'other' WHERE id = 2"))
        seen = attempt(lambda: c.execute("UPDATE t SET s = 'mine' WHERE id = 2"))
        c.execute("ROLLBACK")
        return wrote, seen


def big_rows():
    h, n = 0, 0
    with c.cursor() as cur:
        for i, s in cur.stream("SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i"):
            h += i
            n += len(s)
    return h, n


def big_value():
    return len(one("SELECT repeat('y', 16 << 20)"))


def big_parameter():
    return one("SELECT md5(%s::bytea)", (b"z" * (8 << 20),))


def timed_out():
    c.execute("SET statement_timeout = 50")
    code = attempt(lambda: c.execute("SELECT pg_sleep(60)"))
    c.execute("RESET statement_timeout")
    return code


def cancel():
    result = []
    thread = threading.Thread(target=lambda: result.append(attempt(lambda: c.execute("SELECT pg_sleep(600)"))))
    thread.start()
    print("sleeping", flush=True)
    sys.stdin.readline()  # the test has seen it sleep
    c.cancel()
    thread.join()
    return result, one("SELECT 1")


def process():
    return one("SELECT pg_backend_pid()") == c.info.backend_pid


print(f"version: psycopg {psycopg.__version__}, libpq {psycopg.pq.version()}", flush=True)
for name, f in (
    ("parameters", parameters), ("values", values), ("prepared", prepared), ("unknown prepared", lambda: c.execute("EXECUTE nobody")),
    ("cached plan", apart(cached_plan)), ("commit", commit), ("rollback", rollback), ("error in the middle", error_in_the_middle),
    ("savepoint", savepoint), ("unique", lambda: c.execute("INSERT INTO t VALUES (1, 'again')")), ("raised", apart(raised)), ("syntax", syntax),
    ("no table", lambda: c.execute("SELECT * FROM nowhere")), ("notice", apart(notice)), ("copy in", copy_in), ("copy out", lambda: copy_out("")),
    ("copy out binary", lambda: copy_out("(FORMAT binary)")), ("copy bad", copy_bad), ("copy given up", copy_given_up),
    ("pipeline", pipeline), ("pipeline writes", pipeline_writes), ("pipeline error", pipeline_error), ("cursor", cursor), ("session", session),
    ("temporary", apart(temporary)), ("notify", notify), ("locked", locked), ("serialization", serialization), ("big rows", big_rows),
    ("big value", big_value), ("big parameter", big_parameter), ("timed out", timed_out), ("cancel", cancel), ("process", process),
):
    step(name, f)
c.close()
try:
    psycopg.connect(password="wrong")
except psycopg.OperationalError as e:
    print("wrong password:", "refused" if "password authentication failed" in str(e) else f"failed {e}", flush=True)
