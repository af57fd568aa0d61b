//go:build cgo

package grammartest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"howdah/router/route/statement"
)

// functions are those of PostgreSQL 15.
func functions(tb testing.TB) *statement.Functions {
	tb.Helper()
	rows, err := os.ReadFile("../testdata/pg_proc-15.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all []statement.Function
	for line := range strings.Lines(string(rows)) {
		f := strings.Fields(line)
		all = append(all, statement.Function{Schema: f[0], Name: f[1], Volatility: f[2][0]})
	}
	return statement.NewFunctions(all)
}

// writes returns what in the parse tree forbids a read: "" where nothing does. parsed is false where there is no tree.
func writes(f *statement.Functions, text string) (why string, parsed bool) {
	tree, err := pg.ParseToJSON(text)
	if err != nil {
		return "", false
	}
	var root struct {
		Stmts []struct{ Stmt map[string]any }
	}
	if err := json.Unmarshal([]byte(tree), &root); err != nil {
		return "the tree does not decode: " + err.Error(), true
	}
	if len(root.Stmts) == 0 {
		return "empty", true
	}
	for _, s := range root.Stmts {
		if why := statementWrites(f, s.Stmt); why != "" {
			return why, true
		}
	}
	return "", true
}

func statementWrites(f *statement.Functions, s map[string]any) string {
	for kind, body := range s {
		fields, _ := body.(map[string]any)
		switch kind {
		case "SelectStmt":
			return nodeWrites(f, s)
		case "ExplainStmt":
			query, _ := fields["query"].(map[string]any)
			if query["SelectStmt"] == nil {
				return "EXPLAIN of no query"
			}
			return nodeWrites(f, s)
		case "CopyStmt":
			if fields["is_from"] == true || fields["is_program"] == true || fields["filename"] != nil {
				return "COPY"
			}
			if query, is := fields["query"].(map[string]any); is && query["SelectStmt"] == nil {
				return "COPY of no query"
			}
			return nodeWrites(f, s)
		case "VariableShowStmt":
			switch fields["name"] {
			case "block_size", "data_checksums", "integer_datetimes", "max_function_args", "max_identifier_length", "max_index_keys", "segment_size", "server_encoding", "wal_block_size":
				return ""
			}
			return "SHOW"
		default:
			return kind
		}
	}
	return "nothing"
}

// nodeWrites looks at every node below n.
func nodeWrites(f *statement.Functions, n any) string {
	switch n := n.(type) {
	case []any:
		for _, e := range n {
			if why := nodeWrites(f, e); why != "" {
				return why
			}
		}
	case map[string]any:
		for key, value := range n {
			switch key {
			case "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause", "lockingClause", "intoClause", "IntoClause":
				return key
			case "FuncCall":
				if name := functionName(value); !f.Has(name) && !grammarCalls(value, name) {
					return "call of " + name
				}
			}
			if why := nodeWrites(f, value); why != "" {
				return why
			}
		}
	}
	return ""
}

func functionName(call any) string {
	fields, _ := call.(map[string]any)
	parts, _ := fields["funcname"].([]any)
	if len(parts) == 0 {
		return "?"
	}
	last, _ := parts[len(parts)-1].(map[string]any)
	s, _ := last["String"].(map[string]any)
	return fmt.Sprint(s["sval"])
}

// grammarCalls reports whether the grammar itself made the call out of syntax without parentheses; such name pg_catalog.
func grammarCalls(call any, name string) bool {
	fields, _ := call.(map[string]any)
	if fields["funcformat"] != "COERCE_SQL_SYNTAX" {
		return false
	}
	switch name {
	case "timezone", "pg_collation_for", "like_escape", "similar_to_escape", "is_normalized", "normalize", "overlaps",
		"extract", "overlay", "position", "substring", "btrim", "ltrim", "rtrim", "xmlexists", "system_user":
		return true
	}
	return false
}

func verdict(f *statement.Functions, text string) statement.Verdict {
	return statement.Classify([]byte(text), &statement.Settings{
		Strings: statement.ConformingStrings, SafeEncoding: true, Whole: true, Functions: f,
	})
}

// agrees fails if the classifier calls a read what writes by the tree.
func agrees(tb testing.TB, f *statement.Functions, text string) {
	tb.Helper()
	v := verdict(f, text)
	if !v.Read || v.Hint == statement.HintStandby {
		return
	}
	if why, parsed := writes(f, text); parsed && why != "" {
		tb.Errorf("a read by the classifier, %s by the grammar: %q", why, text)
	}
}

// callsUnknown returns a function that a text calls, as it is carried out, and that is not known; "" where there is none.
func callsUnknown(f *statement.Functions, text string) string {
	tree, err := pg.ParseToJSON(text)
	if err != nil {
		return ""
	}
	var root struct {
		Stmts []struct{ Stmt map[string]any }
	}
	if err := json.Unmarshal([]byte(tree), &root); err != nil {
		return "the tree does not decode: " + err.Error()
	}
	for _, s := range root.Stmts {
		for kind, body := range s.Stmt {
			fields, _ := body.(map[string]any)
			switch kind {
			case "ViewStmt", "RuleStmt", "CreateFunctionStmt", "CreateTrigStmt", "CreatePolicyStmt", "AlterPolicyStmt", "IndexStmt", "CreateDomainStmt":
				continue // not now
			case "AlterTableStmt":
				if fields["objtype"] == "OBJECT_VIEW" {
					continue // a default is all that can be given
				}
			case "CreateStmt":
				body = fields["partbound"]
			}
			if name := unknownCall(f, body); name != "" {
				return name
			}
		}
	}
	return ""
}

func unknownCall(f *statement.Functions, n any) string {
	switch n := n.(type) {
	case []any:
		for _, e := range n {
			if name := unknownCall(f, e); name != "" {
				return name
			}
		}
	case map[string]any:
		for key, value := range n {
			if key == "FuncCall" {
				if name := functionName(value); !f.Has(name) && !grammarCalls(value, name) {
					return name
				}
			}
			if name := unknownCall(f, value); name != "" {
				return name
			}
		}
	}
	return ""
}

// seesCalls fails if a text calls what is not known and the classifier does not see it.
func seesCalls(tb testing.TB, f *statement.Functions, text string) {
	tb.Helper()
	if v := verdict(f, text); !v.Is(statement.FlagUnknownCall | statement.FlagOpaque | statement.FlagSetConfig) {
		if name := callsUnknown(f, text); name != "" {
			tb.Errorf("calls %s by the grammar, nothing unknown by the classifier: %q", name, text)
		}
	}
}

func TestCorpusAgainstTheGrammar(t *testing.T) {
	f := functions(t)
	reads, known := 0, 0
	for _, text := range corpus {
		why, parsed := writes(f, text)
		if !parsed {
			t.Errorf("does not parse: %s", text)
		}
		agrees(t, f, text)
		seesCalls(t, f, text)
		if why != "" {
			continue
		}
		reads++
		if v := verdict(f, text); v.Read {
			known++
		} else {
			t.Logf("a read that is not recognised (%s): %s", v.Reason, text)
		}
	}
	t.Logf("%d texts, %d of them reads by the grammar, %d of those by the classifier", len(corpus), reads, known)
	if known*100 < reads*90 {
		t.Errorf("only %d of %d reads are recognised", known, reads)
	}
}

func TestCommandsAgainstTheGrammar(t *testing.T) {
	f := functions(t)
	for _, text := range commands {
		if why, parsed := writes(f, text); why == "" {
			t.Errorf("no command that writes by the grammar (parsed: %v): %s", parsed, text)
		}
		if verdict(f, text).Read {
			t.Errorf("a read by the classifier: %s", text)
		}
		seesCalls(t, f, text)
	}
}

// FuzzClassify: whatever the text, a read by the classifier does not write by the grammar.
func FuzzClassify(f *testing.F) {
	set := functions(f)
	for _, text := range slices.Concat(corpus, commands) {
		f.Add(text)
	}
	for r := rand.New(rand.NewPCG(1, 1)); r.IntN(300) > 0; {
		f.Add(generate(r))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.IndexByte(text, 0) < 0 {
			agrees(t, set, text)
			seesCalls(t, set, text)
		}
	})
}
