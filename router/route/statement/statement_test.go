package statement

import (
	"os"
	"strings"
	"testing"
)

func postgres15(tb testing.TB) []Function {
	tb.Helper()
	rows, err := os.ReadFile("testdata/pg_proc-15.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all []Function
	for line := range strings.Lines(string(rows)) {
		f := strings.Fields(line)
		all = append(all, Function{Schema: f[0], Name: f[1], Volatility: f[2][0]})
	}
	return all
}

func settings(tb testing.TB, more ...Function) *Settings {
	return &Settings{Strings: ConformingStrings, SafeEncoding: true, Whole: true, Functions: NewFunctions(append(postgres15(tb), more...))}
}

// The cases where others break, as far as a text shows them.
func TestCasesWhereOthersBreak(t *testing.T) {
	s := settings(t, Function{"a", "stable", 's'}, Function{"a", "mixed", 's'}, Function{"b", "mixed", 'v'}, Function{"public", "Quoted", 'i'})
	for name, c := range map[string]struct {
		text string
		want Reason
	}{
		"a plain read":                           {"SELECT * FROM t WHERE a = $1 ORDER BY lower(b) LIMIT 10", 0},
		"data-modifying CTE":                     {"WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", ReasonModifying},
		"nested data-modifying CTE":              {"SELECT * FROM (WITH x AS (UPDATE t SET a=1 RETURNING 1) SELECT 1) y", ReasonModifying},
		"FOR UPDATE":                             {"SELECT 1 FROM t FOR/**/UPDATE", ReasonLocking},
		"FOR NO KEY UPDATE OF SKIP LOCKED":       {"SELECT 1 FROM t FOR NO KEY UPDATE OF t SKIP LOCKED", ReasonModifying},
		"FOR SHARE NOWAIT":                       {"SELECT 1 FROM t FOR SHARE NOWAIT", ReasonLocking},
		"FOR KEY SHARE":                          {"SELECT 1 FROM t FOR KEY SHARE", ReasonLocking},
		"SELECT INTO TEMP":                       {"SELECT 1 INTO TEMP x", ReasonInto},
		"COPY of an INSERT":                      {"COPY (INSERT INTO t VALUES (1) RETURNING 1) TO STDOUT", ReasonModifying},
		"volatile in the target list":            {"SELECT nextval('s')", ReasonFunction},
		"volatile in WHERE":                      {"SELECT 1 FROM t WHERE random() < 1", ReasonFunction},
		"volatile in ORDER BY":                   {"SELECT 1 FROM t ORDER BY random()", ReasonFunction},
		"volatile in HAVING":                     {"SELECT 1 FROM t HAVING nextval('s') > 1", ReasonFunction},
		"volatile in LIMIT":                      {"SELECT 1 LIMIT nextval('s')", ReasonFunction},
		"volatile in a join condition":           {"SELECT 1 FROM a JOIN b ON nextval('s') = 1", ReasonFunction},
		"volatile user function, overloaded":     {"SELECT mixed(1)", ReasonFunction},
		"volatile user function, qualified":      {"SELECT a.mixed(1)", ReasonFunction},
		"stable user function":                   {"SELECT Stable(1), \"Quoted\"()", 0},
		"quoted in another case":                 {`SELECT "STABLE"(1)`, ReasonFunction},
		"read; write":                            {"SELECT 1; INSERT INTO t VALUES (1)", ReasonModifying},
		"write; read":                            {"INSERT INTO t VALUES (1); SELECT 1", ReasonModifying},
		"a block in one Query":                   {"BEGIN; DELETE FROM t; END", ReasonModifying},
		"does not parse: unterminated":           {"SELECT 'a", ReasonUnterminated},
		"does not parse: no such statement":      {"SELEC 1", ReasonStatement},
		"does not parse: parentheses":            {"SELECT (1", ReasonUnbalanced},
		"set_config":                             {"SELECT set_config('search_path', 'x', false)", ReasonFunction},
		"pg_notify":                              {"SELECT pg_notify('a', 'b')", ReasonFunction},
		"advisory lock with a computed key":      {"SELECT pg_try_advisory_lock(hashtext('x'))", ReasonFunction},
		"WITH HOLD":                              {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", ReasonSession},
		"a probe for the primary":                {"SELECT pg_is_in_recovery()", ReasonFunction},
		"SHOW transaction_read_only":             {"SHOW transaction_read_only", ReasonSession},
		"statistics of the server":               {"SELECT * FROM pg_stat_activity", ReasonName},
		"a sequence's columns":                   {"SELECT last_value FROM s", ReasonName},
		"hint primary":                           {"SELECT /* howdah: primary */ 1", ReasonHint},
		"hint standby":                           {"/* howdah: standby */ SELECT mixed(1)", 0},
		"hint standby does not let a write pass": {"/* howdah: standby */ SELECT 1 FOR UPDATE", ReasonLocking},
		"hint in a string":                       {"SELECT '/* howdah: standby */', mixed(1)", ReasonFunction},
	} {
		v := Classify([]byte(c.text), s)
		if v.Reason != c.want || v.Read != (c.want == 0) {
			t.Errorf("%s: %s, want %s: %s", name, v.Reason, c.want, c.text)
		}
	}
}

func TestZeroSettingsMakeEverythingAWrite(t *testing.T) {
	for _, text := range []string{"SELECT 1", "SHOW server_encoding", ""} {
		if v := Classify([]byte(text), &Settings{}); v.Read || v.Block {
			t.Errorf("%q: %+v", text, v)
		}
	}
}

func TestFacts(t *testing.T) {
	s := settings(t)
	for text, want := range map[string]func(v *Verdict, b []byte) bool{
		"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY": func(v *Verdict, _ []byte) bool {
			return v.BeginsStandbyBlock() && v.Isolation == RepeatableRead
		},
		"START TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE": func(v *Verdict, _ []byte) bool { return v.Kind == Begin && !v.BeginsStandbyBlock() },
		"SET LOCAL search_path TO a, \"b\"": func(v *Verdict, b []byte) bool {
			return v.Parameter == SearchPath && v.Is(FlagLocal) && string(v.Value.Of(b)) == `a, "b"`
		},
		"set session time zone 'utc'": func(v *Verdict, b []byte) bool { return v.Parameter == TimeZone && string(v.Value.Of(b)) == "'utc'" },
		"SET ROLE \"X\"":              func(v *Verdict, b []byte) bool { return v.Parameter == Role && string(v.Value.Of(b)) == `"X"` },
		"SET howdah.consistency = strict": func(v *Verdict, b []byte) bool {
			return v.Parameter == HowdahConsistency && string(v.Value.Of(b)) == "strict"
		},
		"SET SESSION AUTHORIZATION DEFAULT": func(v *Verdict, b []byte) bool {
			return v.Parameter == SessionAuthorization && string(v.Value.Of(b)) == "DEFAULT"
		},
		"RESET ALL":   func(v *Verdict, _ []byte) bool { return v.Kind == ResetAll },
		"DISCARD ALL": func(v *Verdict, _ []byte) bool { return v.Kind == DiscardAll },
		"PREPARE p (int) AS SELECT $1;": func(v *Verdict, b []byte) bool {
			return string(v.Name.Of(b)) == "p" && string(v.Body.Of(b)) == "SELECT $1" && v.Is(FlagBodyReads)
		},
		"PREPARE p AS DELETE FROM t":              func(v *Verdict, _ []byte) bool { return v.Kind == Prepare && !v.Is(FlagBodyReads) },
		"ROLLBACK TO SAVEPOINT a":                 func(v *Verdict, b []byte) bool { return v.Kind == RollbackTo && string(v.Name.Of(b)) == "a" && v.Block },
		"COMMIT AND CHAIN":                        func(v *Verdict, _ []byte) bool { return v.Kind == Commit && v.Is(FlagChain) },
		"CREATE LOCAL TEMPORARY TABLE t (a int)":  func(v *Verdict, _ []byte) bool { return v.Kind == Define && v.Is(FlagTemp) },
		"SELECT set_config('a','b',true)":         func(v *Verdict, _ []byte) bool { return v.Is(FlagSetConfig) },
		"DECLARE c CURSOR FOR SELECT 1":           func(v *Verdict, b []byte) bool { return v.Block && !v.Read && string(v.Name.Of(b)) == "c" },
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1": func(v *Verdict, _ []byte) bool { return v.Is(FlagHold) && !v.Block },
		"SET a TO b; SELECT 1": func(v *Verdict, _ []byte) bool {
			return v.Kind == Several && v.Has(Set) && v.Has(Query) && v.Statements == 2
		},
	} {
		v := Classify([]byte(text), s)
		if !want(&v, []byte(text)) {
			t.Errorf("%s: %+v", text, v)
		}
	}
}

func TestRemembered(t *testing.T) {
	r := NewRemembered(8)
	r.Add([]byte("SELECT f()"))
	if !r.Has([]byte("SELECT f()")) || r.Has([]byte("SELECT g()")) {
		t.Error("what was added is not what is there")
	}
	r.Forget()
	if r.Has([]byte("SELECT f()")) {
		t.Error("it is not forgotten")
	}
}

const typical = "SELECT a.id, b.name, count(*) FROM accounts a JOIN branches AS b ON b.id = a.branch_id WHERE a.id = $1 AND lower(b.name) = 'x' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 10"

func TestNothingIsAllocated(t *testing.T) {
	s, r, text := settings(t), NewRemembered(100), []byte(typical)
	if n := testing.AllocsPerRun(100, func() { Classify(text, s); r.Has(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClassify(b *testing.B) {
	s, text := settings(b), []byte(typical)
	l := lexer{text: text, settings: s}
	tokens := 0
	for l.next().kind != tokenEnd {
		tokens++
	}
	b.ReportAllocs()
	for b.Loop() {
		Classify(text, s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tokens), "ns/token")
}
