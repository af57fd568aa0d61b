package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines     = 600
	maxFunctionLines = 100
	maxDecisionLines = 60
)

// vagueNames say nothing about what is inside.
var vagueNames = []string{"util", "utils", "common", "types", "helpers", "manager", "misc"}

// clockReaders are the files outside of tests and bench that may call time.Now, and why the wall clock may jump there without harm. Leases,
// deadlines, probes and promises are counted by consul/boottime, and package decide gets its Now as an argument.
var clockReaders = map[string]string{
	"cmd/config.go":                 "a moment shown to people",
	"cmd/demo.go":                   "a moment shown to people",
	"cmd/failover.go":               "a moment shown to people",
	"cmd/history.go":                "a moment shown to people",
	"cmd/switchover.go":             "a moment shown to people",
	"consul/embedded/endpoints.go":  "the monotonic part, in the Consul of the demo",
	"consul/embedded/server.go":     "the monotonic part, in the Consul of the demo",
	"consul/embedded/session.go":    "the monotonic part, in the Consul of the demo",
	"detector/detector.go":          "a process's generation, which is corrected where the clock was set back (detector/doc.go)",
	"detector/transport.go":         "a socket's deadline, by the monotonic part",
	"router/admin.go":               "a moment shown to people, and a socket's deadline by the monotonic part",
	"router/api.go":                 "a moment shown to people",
	"router/authenticate.go":        "a socket's deadline, by the monotonic part",
	"router/ask.go":                 "a socket's deadline, by the monotonic part",
	"router/cancel.go":              "a socket's deadline and a duration, by the monotonic part",
	"router/reader.go":              "a socket's deadline, by the monotonic part",
	"router/client.go":              "sockets' deadlines and a duration, by the monotonic part",
	"router/connect.go":             "how long a session waits for a primary, by the monotonic part",
	"router/events.go":              "a moment shown to people",
	"router/move.go":                "how long a session waits for a primary, by the monotonic part",
	"router/pause.go":               "a moment shown to people",
	"router/routertest/peer.go":     "sockets' deadlines, in tests",
	"sidecar/act.go":                "a moment shown to people",
	"sidecar/launch/fence.go":       "how long a signal is repeated, by the monotonic part",
	"sidecar/launch/handlers.go":    "a socket's deadline, by the monotonic part",
	"sidecar/launch/predecessor.go": "how long a predecessor is waited for, by the monotonic part",
	"sidecar/local/process.go":      "how long a process of the demo lived, by the monotonic part",
	"sidecar/loop.go":               "a moment shown to people",
	"sidecar/publish.go":            "moments shown to people",
}

// houseRules returns a message for each rule that a file breaks. path is relative to the module's root.
func houseRules(path string, source []byte) []string {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, source, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	say := func(n ast.Node, message string) {
		found = append(found, fmt.Sprintf("%s:%d: %s", path, fset.Position(n.Pos()).Line, message))
	}
	if slices.Contains(vagueNames, f.Name.Name) {
		say(f.Name, "a package named "+f.Name.Name+" becomes a drawer for anything: name it after what it does, or move its parts to their users")
	}
	if strings.HasSuffix(path, "_test.go") {
		testRules(f, say)
		return found
	}
	if lines := fset.File(f.Pos()).LineCount(); lines > maxFileLines {
		say(f, fmt.Sprintf("%d lines, at most %d: find the two things in it and give each a file", lines, maxFileLines))
	}
	limit := maxFunctionLines
	if strings.HasPrefix(filepath.ToSlash(path), "sidecar/decide/") {
		limit = maxDecisionLines
	}
	clockRules(filepath.ToSlash(path), f, say)
	for _, d := range f.Decls {
		fn, isFunc := d.(*ast.FuncDecl)
		if !isFunc {
			continue
		}
		if lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; lines > limit {
			say(fn, fmt.Sprintf("%s has %d lines, at most %d: give its steps names", fn.Name.Name, lines, limit))
		}
		if fn.Recv == nil && fn.Name.Name == "init" {
			say(fn, "init runs before main can compose anything: make a constructor that main calls")
		}
	}
	return found
}

// clockRules keep the wall clock, which is set by hand and by daemons, out of everything that decides.
func clockRules(path string, f *ast.File, say func(ast.Node, string)) {
	if _, may := clockReaders[path]; may || strings.HasPrefix(path, "bench/") {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, is := n.(*ast.SelectorExpr); is && s.Sel.Name == "Now" {
			if of, isName := s.X.(*ast.Ident); isName && of.Name == "time" {
				say(s, "reads the wall clock, which may jump: take boottime.Now or an argument; for a moment that only people see, name the file in clockReaders")
			}
		}
		return true
	})
}

// testRules are for _test.go files. Inside a synctest bubble time.Sleep waits for nothing real, and is the way to
// let time pass; a file that has bubbles may therefore call it.
func testRules(f *ast.File, say func(ast.Node, string)) {
	bubbles := slices.ContainsFunc(f.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"testing/synctest"` })
	ast.Inspect(f, func(n ast.Node) bool {
		call, isCall := n.(*ast.CallExpr)
		if !isCall {
			return true
		}
		selector, isSelector := call.Fun.(*ast.SelectorExpr)
		if !isSelector {
			return true
		}
		of, isName := selector.X.(*ast.Ident)
		if !isName {
			return true
		}
		switch name := of.Name + "." + selector.Sel.Name; {
		case name == "time.Sleep" && !bubbles:
			say(call, "sleeps and hopes: wait for the thing itself by a channel or by polling with a deadline, or run in a synctest bubble")
		case slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name) && slices.Contains([]string{"t", "tb", "b", "f"}, of.Name):
			say(call, "skips: a test that needs a server starts it, and fails where it cannot")
		}
		return true
	})
}

func TestHouseRules(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "tools", "testdata"}, d.Name())) {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		checked++
		for _, message := range houseRules(path, source) {
			t.Error(message)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range clockReaders {
		if source, err := os.ReadFile(path); err != nil || !strings.Contains(string(source), "time.Now") {
			t.Errorf("%s is named in clockReaders and does not call time.Now (%v)", path, err)
		}
	}
	if checked < 30 {
		t.Errorf("only %d files were found", checked)
	}
}

func TestHouseRulesRule(t *testing.T) {
	long := func(lines int) string { return "func f() {" + strings.Repeat("\n", lines-1) + "}" }
	const test = "import (\"testing\"; \"time\"); "
	for name, c := range map[string]struct{ path, source, want string }{
		"vague package":         {"util/a.go", "package util", "name it after what it does"},
		"long file":             {"a/a.go", "package a" + strings.Repeat("\n", maxFileLines+1), "601 lines, at most 600"},
		"file at the limit":     {"a/a.go", "package a" + strings.Repeat("\n", maxFileLines), ""},
		"long test file":        {"a/a_test.go", "package a" + strings.Repeat("\n", 2*maxFileLines), ""},
		"long function":         {"a/a.go", "package a\n" + long(101), "f has 101 lines, at most 100"},
		"function at the limit": {"a/a.go", "package a\n" + long(100), ""},
		"long decision":         {"sidecar/decide/a.go", "package decide\n" + long(61), "f has 61 lines, at most 60"},
		"wall clock":            {"sidecar/a.go", "package sidecar; var t = time.Now()", "reads the wall clock"},
		"wall clock, passed on": {"sidecar/a.go", "package sidecar; var now = time.Now", "reads the wall clock"},
		"wall clock in bench":   {"bench/a.go", "package main; var t = time.Now()", ""},
		"another clock":         {"sidecar/a.go", "package sidecar; var t = boottime.Now()", ""},
		"init":                  {"a/a.go", "package a; func init() {}", "make a constructor"},
		"method named init":     {"a/a.go", "package a; type s int; func (s) init() {}", ""},
		"skip":                  {"a/a_test.go", "package a; " + test + "func TestA(t *testing.T) { t.Skip(time.Now()) }", "skips"},
		"skip of a benchmark":   {"a/a_test.go", "package a; " + test + "func BenchmarkA(b *testing.B) { b.SkipNow() }", "skips"},
		"sleep":                 {"a/a_test.go", "package a; " + test + "func TestA(t *testing.T) { time.Sleep(1) }", "sleeps and hopes"},
		"sleep in a bubble":     {"a/a_test.go", "package a; import (\"testing\"; \"testing/synctest\"; \"time\"); func TestA(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }", ""},
		"a comment on skips":    {"a/a_test.go", "package a // never t.Skip( nor time.Sleep(", ""},
		"not Go":                {"a/a.go", "packag a", "expected 'package'"},
	} {
		got := strings.Join(houseRules(c.path, []byte(c.source)), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q, got %q", name, c.want, got)
		}
	}
}
