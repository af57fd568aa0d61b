package clienttest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"howdah/sidecar/postgres/postgrestest"
)

const (
	python = "/usr/bin/python3" // Debian's own, for which python3-psycopg is
	jdbc   = "/usr/share/java/postgresql.jar"
)

var known = []client{
	{name: "psql", reads: 12, run: psql},
	{name: "pgbench", reads: 900, run: pgbench},
	{name: "pgx", reads: 100, run: inProcess(pgxSteps)},
	{name: "lib_pq", reads: 5, run: inProcess(pqSteps)},
	{name: "psycopg", reads: 5, needs: []string{python, "/usr/lib/python3/dist-packages/psycopg"}, run: script(python, "testdata/python/main.py")},
	{name: "node_postgres", reads: 100, needs: []string{"node", "testdata/node/node_modules/pg"}, run: script("node", "testdata/node/pg.js")},
	{name: "postgres_js", reads: 100, needs: []string{"node", "testdata/node/node_modules/postgres"}, run: script("node", "testdata/node/postgres.js")},
	{name: "jdbc", reads: 6, needs: []string{"javac", "java", jdbc}, prepare: compileJava, run: java},
}

var process = regexp.MustCompile(`with PID \d+`)

func script(interpreter, path string) func(*testing.T, login) []string {
	return func(t *testing.T, l login) []string { return program(t, l, "", byLine, interpreter, path) }
}

// classes is where compileJava puts them.
var classes string

func compileJava(t *testing.T) {
	classes = t.TempDir()
	output(t, "javac", "-encoding", "UTF-8", "-cp", jdbc, "-d", classes, "testdata/java/Main.java")
}

func java(t *testing.T, l login) []string {
	return program(t, l, "", byLine, "java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp", classes+string(filepath.ListSeparator)+jdbc, "Main")
}

// psql reads its script on standard input, which keeps file names out of its errors. The interrupt that cancels its last statement ends it.
func psql(t *testing.T, l login) []string {
	text, err := os.ReadFile("testdata/psql/main.sql")
	if err != nil {
		t.Fatal(err)
	}
	lines := program(t, l, string(text), byInterrupt, filepath.Join(postgrestest.BinDir(t), "psql"), "-X", "-q")
	for i := range lines {
		lines[i] = process.ReplaceAllString(strings.ReplaceAll(lines[i], l.role, "(role)"), "with PID (number)")
	}
	return lines
}

// pgbench runs a given number of transactions in each mode, from many sessions, and a pipeline. Of what it prints only the counts are steps.
func pgbench(t *testing.T, l login) []string {
	var steps []string
	run := func(step string, args ...string) {
		lines := program(t, l, "", byLine, filepath.Join(postgrestest.BinDir(t), "pgbench"), args...)
		said := []string{"done"}
		for _, line := range lines {
			for _, of := range []string{"number of transactions actually processed", "number of failed transactions", "exit code", "pgbench: error"} {
				if strings.HasPrefix(line, of) {
					said = append(said, strings.Replace(line, ": number of failed", "", 1))
				}
			}
		}
		steps = append(steps, step+": "+strings.ReplaceAll(strings.Join(said, ", "), "failed", "unsuccessful"))
	}
	if l.reads {
		run("initialise", "-i", "-I", "t", "-q") // DROP TABLE: 25006
	} else {
		run("initialise", "-i", "-s", "1", "-q")
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		if !l.reads {
			run("tpcb "+mode, "-n", "-c", "4", "-j", "2", "-t", "25", "-M", mode)
		}
		run("select "+mode, "-n", "-f", "testdata/pgbench/select.sql", "-c", "4", "-j", "2", "-t", "50", "-M", mode)
	}
	run("new session each", "-n", "-C", "-f", "testdata/pgbench/select.sql", "-c", "2", "-t", "10")
	for _, mode := range []string{"extended", "prepared"} {
		run("pipeline "+mode, "-n", "-f", "testdata/pgbench/pipeline.sql", "-c", "4", "-j", "2", "-t", "50", "-M", mode)
	}
	return steps
}
