import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.*;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** pgjdbc through the steps of doc.go. */
public class Main {
    interface Step { Object run() throws Exception; }
    interface Act { void run() throws Exception; }

    static final String ROLE = System.getenv("PGUSER");
    static final BufferedReader stdin = new BufferedReader(new InputStreamReader(System.in));
    static Connection c;

    static Connection connect(String... more) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", ROLE);
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", System.getenv("PGSSLMODE"));
        p.setProperty("loginTimeout", "20");
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static void step(String name, Step f) {
        String result;
        try {
            result = String.valueOf(f.run());
        } catch (SQLException e) {
            result = e.getSQLState() == null ? "failed " + e : "error " + e.getSQLState();
        } catch (Exception | Error e) { // a defect here or in the driver: the test fails on this word
            result = "failed " + e;
        }
        try {
            if (!c.getAutoCommit()) {
                c.rollback();
                c.setAutoCommit(true);
            }
        } catch (SQLException e) {
            result += ", then failed " + e;
        }
        System.out.println(name + ": " + result);
    }

    /** A step in a session of its own, as what it does keeps the session on the primary. */
    static void apart(String name, Step f) {
        step(name, () -> {
            Connection ours = c;
            try (Connection other = connect()) {
                c = other;
                return f.run();
            } finally {
                c = ours;
            }
        });
    }

    static String attempt(Act f) throws Exception {
        try {
            f.run();
            return "ok";
        } catch (SQLException e) {
            return e.getSQLState();
        }
    }

    static void exec(Connection on, String sql) throws SQLException {
        try (Statement s = on.createStatement()) { s.execute(sql); }
    }

    static void exec(String sql) throws SQLException { exec(c, sql); }

    static String one(String sql, Object... params) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < params.length; i++) s.setObject(i + 1, params[i]);
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getString(1);
            }
        }
    }

    static Object values() throws Exception {
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int8, ?::text, ?::bytea, ?::numeric, ?::int[], ?::text, true, '2024-02-29'::date")) {
            List<Object> seen = new ArrayList<>();
            for (int i = 0; i < 7; i++) { // the fifth makes it a prepared statement of the server, with binary results
                s.setLong(1, 1L << 40);
                s.setString(2, "zażółć ☃");
                s.setBytes(3, new byte[] {0, -1});
                s.setBigDecimal(4, new BigDecimal("1.50"));
                s.setArray(5, c.createArrayOf("int4", new Integer[] {1, 2, 3}));
                s.setNull(6, Types.VARCHAR);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    List<Object> row = Arrays.asList(r.getLong(1), r.getString(2), r.getBytes(3).length, r.getBigDecimal(4), r.getArray(5), r.getString(6), r.getBoolean(7), r.getDate(8));
                    if (i == 0) seen.add(row);
                    else if (!seen.get(0).toString().equals(row.toString())) seen.add(row);
                }
            }
            return seen;
        }
    }

    static Object prepared() throws Exception {
        long sum = 0;
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int * 2")) {
            for (int i = 0; i < 50; i++) {
                s.setInt(1, i);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    sum += r.getInt(1);
                }
            }
            return sum + " " + one("SELECT count(*) > 0 FROM pg_prepared_statements WHERE statement LIKE '%* 2'");
        }
    }

    static Object cachedPlan() throws Exception {
        exec("CREATE TEMP TABLE plan (a int)");
        List<String> seen = new ArrayList<>();
        try (PreparedStatement s = c.prepareStatement("SELECT * FROM plan")) {
            for (int i = 0; i < 7; i++) s.executeQuery().close();
            exec("ALTER TABLE plan ADD b int");
            seen.add(attempt(() -> s.executeQuery().close())); // outside a transaction pgjdbc prepares again
            c.setAutoCommit(false);
            for (int i = 0; i < 7; i++) s.executeQuery().close();
            exec("ALTER TABLE plan ADD c int");
            seen.add(attempt(() -> s.executeQuery().close()));
        }
        return seen;
    }

    static Object commit() throws Exception {
        c.setAutoCommit(false);
        for (int i = 11; i <= 13; i++) exec("INSERT INTO t VALUES (" + i + ", 'commit')");
        c.commit();
        return one("SELECT count(*) FROM t");
    }

    static Object rollback() throws Exception {
        c.setAutoCommit(false);
        exec("INSERT INTO t VALUES (21, 'rollback')");
        c.rollback();
        return one("SELECT count(*) FROM t");
    }

    static Object errorInTheMiddle() throws Exception {
        List<String> seen = new ArrayList<>();
        c.setAutoCommit(false);
        seen.add(attempt(() -> exec("INSERT INTO t VALUES (31, 'middle')")));
        seen.add(attempt(() -> one("SELECT 1 / (id - id) FROM t")));
        seen.add(attempt(() -> one("SELECT 1")));
        seen.add(attempt(() -> c.commit())); // pgjdbc says by itself that it was a rollback
        seen.add(one("SELECT count(*) FROM t"));
        return seen;
    }

    static Object savepoint() throws Exception {
        c.setAutoCommit(false);
        exec("INSERT INTO t VALUES (41, 'savepoint')");
        Savepoint p = c.setSavepoint("p");
        String middle = attempt(() -> exec("INSERT INTO t VALUES (41, 'twice')"));
        c.rollback(p);
        c.commit();
        return middle + " " + one("SELECT count(*) FROM t");
    }

    static Object raised() throws Exception {
        try {
            exec("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$");
            return "ok";
        } catch (PSQLException e) {
            ServerErrorMessage m = e.getServerErrorMessage();
            return Arrays.asList(e.getSQLState(), m.getMessage(), m.getDetail(), m.getHint());
        }
    }

    static Object syntax() throws Exception {
        try {
            exec("SELECT 1 FROMM t");
            return "ok";
        } catch (PSQLException e) {
            return e.getSQLState() + " " + e.getServerErrorMessage().getPosition();
        }
    }

    static Object notice() throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("DO $$ BEGIN RAISE NOTICE 'look here'; END $$");
            return s.getWarnings().getSQLState() + " " + s.getWarnings().getMessage();
        }
    }

    static CopyManager copies() throws SQLException { return c.unwrap(PGConnection.class).getCopyAPI(); }

    static Object copyIn() throws Exception {
        StringBuilder b = new StringBuilder();
        for (int i = 0; i < 20000; i++) b.append(i).append("\trow ").append(i).append('\n');
        return copies().copyIn("COPY copied (id, s) FROM STDIN", new ByteArrayInputStream(b.toString().getBytes(StandardCharsets.UTF_8)));
    }

    static Object copyOut(String how) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long rows = copies().copyOut("COPY (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO STDOUT " + how, out);
        byte[] sum = MessageDigest.getInstance("SHA-256").digest(out.toByteArray());
        return rows + " rows, " + out.size() + " bytes " + String.format("%02x%02x%02x%02x", sum[0], sum[1], sum[2], sum[3]);
    }

    static Object copyGivenUp() throws Exception {
        CopyIn in = copies().copyIn("COPY copied (id) FROM STDIN");
        byte[] b = "1\n".getBytes(StandardCharsets.UTF_8);
        in.writeToCopy(b, 0, b.length);
        in.cancelCopy();
        return one("SELECT count(*) FROM copied");
    }

    static Object batch() throws Exception {
        try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, 'batch')")) {
            for (int i = 100; i < 300; i++) {
                s.setInt(1, i);
                s.addBatch();
            }
            return Arrays.stream(s.executeBatch()).sum() + " " + one("SELECT count(*) FROM t WHERE s = 'batch'");
        }
    }

    static Object batchError() throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, 'batch error')")) {
            for (int i : new int[] {400, 401, 400, 402}) {
                s.setInt(1, i);
                s.addBatch();
            }
            s.executeBatch();
            return "ok";
        } catch (BatchUpdateException e) {
            c.rollback();
            return e.getSQLState() + " " + e.getUpdateCounts().length + " " + one("SELECT count(*) FROM t WHERE s = 'batch error'");
        }
    }

    static Object cursor() throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("SELECT i FROM generate_series(1, 10000) i")) {
            s.setFetchSize(500);
            long sum = 0;
            try (ResultSet r = s.executeQuery()) {
                while (r.next()) sum += r.getInt(1);
            }
            return sum;
        }
    }

    /** Two portals open at a time, each fetched in turn. */
    static Object interleaved() throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement a = c.prepareStatement("SELECT i FROM generate_series(1, 1000) i"); PreparedStatement b = c.prepareStatement("SELECT -i FROM generate_series(1, 1000) i")) {
            a.setFetchSize(10);
            b.setFetchSize(7);
            long sum = 0, n = 0;
            try (ResultSet r = a.executeQuery(); ResultSet q = b.executeQuery()) {
                while (r.next() && q.next()) {
                    sum += r.getInt(1) + q.getInt(1);
                    n++;
                }
            }
            return n + " " + sum;
        }
    }

    static Object session() throws Exception {
        exec("SET work_mem = '5MB'");
        exec("SELECT pg_advisory_lock(42)");
        String held = one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()");
        exec("SELECT pg_advisory_unlock(42)");
        return one("SHOW work_mem") + " " + held;
    }

    static Object temporary() throws Exception {
        exec("CREATE TEMP TABLE mine AS SELECT 7 AS n");
        return one("SELECT n FROM mine");
    }

    static Object listen() throws Exception {
        try (Connection other = connect()) {
            PGConnection us = c.unwrap(PGConnection.class), them = other.unwrap(PGConnection.class);
            exec("LISTEN " + ROLE);
            exec(other, "NOTIFY " + ROLE + ", 'one'");
            exec(other, "SELECT pg_notify('" + ROLE + "', repeat('x', 7000))");
            List<String> got = new ArrayList<>();
            for (int i = 0; i < 20 && got.size() < 2; i++) {
                PGNotification[] some = us.getNotifications(1000);
                for (PGNotification n : some == null ? new PGNotification[0] : some) got.add(n.getParameter().length() + " " + (n.getPID() == them.getBackendPID()));
            }
            exec("UNLISTEN *");
            return got;
        }
    }

    static Object locked() throws Exception {
        try (Connection other = connect()) {
            c.setAutoCommit(false);
            one("SELECT id FROM t WHERE id = 1 FOR UPDATE");
            return attempt(() -> exec(other, "SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"));
        }
    }

    static Object serialization() throws Exception {
        try (Connection other = connect()) {
            c.setAutoCommit(false);
            exec("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
            one("SELECT count(*) FROM t");
            String wrote = attempt(() -> exec(other, "UPDATE t SET s = 'other' WHERE id = 2"));
            return wrote + " " + attempt(() -> exec("UPDATE t SET s = 'mine' WHERE id = 2"));
        }
    }

    static Object readOnly() throws Exception {
        try (Connection r = connect()) {
            r.setReadOnly(true); // BEGIN READ ONLY
            r.setAutoCommit(false);
            String wrote = attempt(() -> exec(r, "INSERT INTO t VALUES (500, 'read only')"));
            r.rollback();
            return wrote;
        }
    }

    static Object bigRows() throws Exception {
        long sum = 0, length = 0;
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i")) {
            while (r.next()) {
                sum += r.getInt(1);
                length += r.getString(2).length();
            }
        }
        return sum + " " + length;
    }

    static Object timedOut() throws Exception {
        exec("SET statement_timeout = 50");
        String code = attempt(() -> one("SELECT pg_sleep(60)"));
        exec("RESET statement_timeout");
        return code;
    }

    static Object cancel() throws Exception {
        try (Statement s = c.createStatement()) {
            String[] code = new String[1];
            Thread sleeper = new Thread(() -> {
                try {
                    code[0] = attempt(() -> s.execute("SELECT pg_sleep(600)"));
                } catch (Exception e) {
                    code[0] = "failed " + e;
                }
            });
            sleeper.start();
            System.out.println("sleeping");
            stdin.readLine(); // the test has seen it sleep
            s.cancel();
            sleeper.join();
            return code[0] + " " + one("SELECT 1");
        }
    }

    /** pgjdbc's own timer sends a cancel request. */
    static Object queryTimeout() throws Exception {
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            return attempt(() -> s.execute("SELECT pg_sleep(600)"));
        }
    }

    static Object simpleMode() throws Exception {
        try (Connection simple = connect("preferQueryMode", "simple"); PreparedStatement s = simple.prepareStatement("SELECT ?::int + ?; SELECT 'two'")) {
            s.setInt(1, 1);
            s.setInt(2, 2);
            List<String> seen = new ArrayList<>();
            for (boolean more = s.execute(); more; more = s.getMoreResults()) {
                s.getResultSet().next();
                seen.add(s.getResultSet().getString(1));
            }
            return seen;
        }
    }

    static Object targets() throws Exception {
        List<String> seen = new ArrayList<>();
        for (String type : new String[] {"any", "primary", "secondary", "preferSecondary"}) {
            try (Connection r = connect("targetServerType", type)) {
                seen.add(type);
            } catch (SQLException e) {
                seen.add(type + " refused " + e.getSQLState());
            }
        }
        return seen;
    }

    static Object wrongPassword() throws Exception {
        return attempt(() -> connect("password", "wrong").close());
    }

    public static void main(String[] args) throws Exception {
        c = connect();
        System.out.println("version: pgjdbc " + c.getMetaData().getDriverVersion() + ", Java " + System.getProperty("java.version"));
        step("values", Main::values);
        step("prepared", Main::prepared);
        step("unknown prepared", () -> one("EXECUTE nobody"));
        apart("cached plan", Main::cachedPlan);
        step("commit", Main::commit);
        step("rollback", Main::rollback);
        step("error in the middle", Main::errorInTheMiddle);
        step("savepoint", Main::savepoint);
        step("unique", () -> { exec("INSERT INTO t VALUES (1, 'again')"); return "ok"; });
        apart("raised", Main::raised);
        step("syntax", Main::syntax);
        step("no table", () -> one("SELECT * FROM nowhere"));
        apart("notice", Main::notice);
        step("copy in", Main::copyIn);
        step("copy out", () -> copyOut(""));
        step("copy out binary", () -> copyOut("(FORMAT binary)"));
        step("copy bad", () -> copies().copyIn("COPY copied (id) FROM STDIN", new ByteArrayInputStream("no number\n".getBytes(StandardCharsets.UTF_8))));
        step("copy given up", Main::copyGivenUp);
        step("batch", Main::batch);
        step("batch error", Main::batchError);
        step("cursor", Main::cursor);
        step("interleaved portals", Main::interleaved);
        step("session", Main::session);
        apart("temporary", Main::temporary);
        step("notify", Main::listen);
        step("locked", Main::locked);
        step("serialization", Main::serialization);
        step("read only", Main::readOnly);
        step("big rows", Main::bigRows);
        step("big value", () -> one("SELECT repeat('y', 16 << 20)").length());
        step("big parameter", () -> one("SELECT md5(?::bytea)", new byte[8 << 20]));
        step("simple mode", Main::simpleMode);
        step("timed out", Main::timedOut);
        step("cancel", Main::cancel);
        step("query timeout", Main::queryTimeout);
        step("process", () -> one("SELECT pg_backend_pid()").equals(String.valueOf(c.unwrap(PGConnection.class).getBackendPID())));
        step("target server types", Main::targets);
        step("wrong password", Main::wrongPassword);
        c.close();
    }
}
