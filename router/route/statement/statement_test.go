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
		"PREPARE p AS DELETE FROM t":                      func(v *Verdict, _ []byte) bool { return v.Kind == Prepare && !v.Is(FlagBodyReads) },
		"ROLLBACK TO SAVEPOINT a":                         func(v *Verdict, b []byte) bool { return v.Kind == RollbackTo && string(v.Name.Of(b)) == "a" && v.Block },
		"COMMIT AND CHAIN":                                func(v *Verdict, _ []byte) bool { return v.Kind == Commit && v.Is(FlagChain) },
		"CREATE LOCAL TEMPORARY TABLE t (a int)":          func(v *Verdict, _ []byte) bool { return v.Kind == Define && v.Is(FlagTemp) },
		"EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1": func(v *Verdict, _ []byte) bool { return v.Kind == Explain && v.Is(FlagTemp) && !v.Read },
		"SELECT set_config('a','b',true)":                 func(v *Verdict, _ []byte) bool { return v.Is(FlagSetConfig) },
		"DECLARE c CURSOR FOR SELECT 1":                   func(v *Verdict, b []byte) bool { return v.Block && !v.Read && string(v.Name.Of(b)) == "c" },
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1":         func(v *Verdict, _ []byte) bool { return v.Is(FlagHold) && !v.Block },
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
