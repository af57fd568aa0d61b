package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure are the packages that decide and do nothing else: the same input gives the same output. Where only
// some files of a package are pure, they are named.
var pure = map[string][]string{
	"howdah/cmd/explain":            nil,
	"howdah/sidecar/decide":         nil,
	"howdah/router/route":           nil,
	"howdah/router/route/statement": nil,
	"howdah/router/rule":            nil,
	"howdah/router/scram":           nil,
	"howdah/router/session":         nil,
	"howdah/router/topology":        nil,
	"howdah/detector":               {"judge.go"},
	"howdah/router/console":         {"command.go", "table.go", "show.go"},
}

// pureImports is all that they may import.
var pureImports = []string{
	"bytes", "cmp", "crypto/hmac", "crypto/md5", "crypto/pbkdf2", "crypto/sha256", "crypto/subtle", "encoding/asn1", "encoding/base64", "encoding/binary", "encoding/hex", "errors", "fmt", "iter", "maps", "math", "math/bits", "net/netip", "regexp", "slices", "strconv", "strings",
	"time", "unicode", "unicode/utf16", "unicode/utf8", "howdah/consul/schema", "howdah/router/route", "howdah/router/route/statement", "howdah/router/wire", "github.com/xdg-go/stringprep",
}

// impureNames are functions of allowed packages that read a clock, wait or write.
var impureNames = map[string]string{
	"time.Now": readTime, "time.Since": readTime, "time.Until": readTime,
	"time.Sleep": waits, "time.After": waits, "time.AfterFunc": waits, "time.Tick": waits, "time.NewTimer": waits, "time.NewTicker": waits,
	"time.Timer": waits, "time.Ticker": waits,
	"fmt.Print": writes, "fmt.Printf": writes, "fmt.Println": writes, "fmt.Fprint": writes, "fmt.Fprintf": writes, "fmt.Fprintln": writes,
	"fmt.Scan": writes, "fmt.Fscan": writes, "fmt.Scanln": writes,
}

const (
	readTime = "take the time as an argument; the shell reads the clock once per turn"
	waits    = "return the instant at which to be called again; the shell owns the timers"
	writes   = "return what is to be said or done as data; the shell carries it out"
	ordered  = "the order of a map changes from run to run; range over slices.Sorted(maps.Keys(m)), or keep a sorted slice"
)

// impurities returns a message for each impure thing in files.
func impurities(fset *token.FileSet, files []*ast.File, info *types.Info) []string {
	c := &purity{fset: fset, info: info, sorted: map[ast.Expr]bool{}}
	for _, f := range files {
		for _, spec := range f.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err == nil && !slices.Contains(pureImports, path) {
				c.say(spec, "imports "+path, "pure code gets what it needs as arguments and returns what is to be done; if the package does no I/O and keeps no state, add it to pureImports")
			}
		}
		ast.Inspect(f, c.look)
	}
	return c.found
}

type purity struct {
	fset   *token.FileSet
	info   *types.Info
	sorted map[ast.Expr]bool // calls of maps.Keys and kin whose result is sorted at once
	found  []string
}

func (c *purity) say(n ast.Node, what, remedy string) {
	at := c.fset.Position(n.Pos())
	c.found = append(c.found, fmt.Sprintf("%s:%d: %s: %s", filepath.Base(at.Filename), at.Line, what, remedy))
}

func (c *purity) look(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		c.say(n, "starts a goroutine", writes)
	case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
		c.say(n, "uses a channel", writes)
	case *ast.RangeStmt:
		if t := c.info.TypeOf(n.X); t != nil {
			if _, isMap := t.Underlying().(*types.Map); isMap {
				c.say(n, "ranges over a map", ordered)
			}
		}
	case *ast.CallExpr:
		c.call(n)
	case *ast.SelectorExpr:
		if name := c.qualified(n); impureNames[name] != "" {
			c.say(n, "uses "+name, impureNames[name])
		}
	}
	return true
}

// call lets maps.Keys and kin through where they are sorted in the same expression.
func (c *purity) call(n *ast.CallExpr) {
	name := c.qualified(n.Fun)
	if strings.HasPrefix(name, "slices.Sorted") && len(n.Args) > 0 {
		c.sorted[n.Args[0]] = true
	}
	switch name {
	case "maps.Keys", "maps.Values", "maps.All":
		if !c.sorted[n] {
			c.say(n, "iterates over a map by "+name, ordered)
		}
	}
}

// qualified returns "time.Now" for a selector of an imported package, under whatever name it was imported.
func (c *purity) qualified(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	name, ok := c.info.Uses[id].(*types.PkgName)
	if !ok {
		return ""
	}
	return name.Imported().Path() + "." + s.Sel.Name
}

// checker type-checks source against the export data that `go list -export` names.
type checker struct {
	fset   *token.FileSet
	lookup importer.Lookup
}

func (k checker) check(path string, files []*ast.File) (*types.Info, error) {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(k.fset, "gc", k.lookup)}
	_, err := config.Check(path, k.fset, files, info)
	return info, err
}

func newChecker(packages []goPackage) checker {
	exports := map[string]string{}
	for _, p := range packages {
		exports[p.ImportPath] = p.Export
	}
	return checker{fset: token.NewFileSet(), lookup: func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data for %s", path)
		}
		return os.Open(exports[path])
	}}
}

func TestPurity(t *testing.T) {
	var paths []string
	for path := range pure {
		paths = append(paths, path)
	}
	packages := listPackages(t, append([]string{"-export", "-deps"}, paths...)...)
	k := newChecker(packages)
	checked := 0
	for _, p := range packages {
		only, isPure := pure[p.ImportPath]
		if !isPure {
			continue
		}
		checked++
		var files, judged []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(k.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
			if only == nil || slices.Contains(only, name) {
				judged = append(judged, f)
			}
		}
		if len(judged) == 0 || only != nil && len(judged) != len(only) {
			t.Errorf("%s: the pure files %v are not all there; correct the table in purity_test.go", p.ImportPath, only)
		}
		info, err := k.check(p.ImportPath, files)
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range impurities(k.fset, judged, info) {
			t.Errorf("%s is to be pure: %s", p.ImportPath, message)
		}
	}
	if checked != len(pure) {
		t.Errorf("checked %d of %d packages", checked, len(pure))
	}
}

func TestPurityRule(t *testing.T) {
	k := newChecker(listPackages(t, "-export", "-deps", "time", "fmt", "maps", "slices", "os", "sync", "math/rand"))
	for name, c := range map[string]struct{ source, want string }{
		"clock":              {`import "time"; func f() time.Time { return time.Now() }`, "uses time.Now: take the time as an argument"},
		"clock, renamed":     {`import clock "time"; func f(t clock.Time) clock.Duration { return clock.Since(t) }`, "uses time.Since"},
		"clock, as a value":  {`import "time"; var now = time.Now`, "uses time.Now"},
		"sleep":              {`import "time"; func f() { time.Sleep(1) }`, "return the instant at which to be called again"},
		"timer":              {`import "time"; func f() { time.NewTimer(1).Stop() }`, "the shell owns the timers"},
		"timer in a struct":  {`import "time"; type s struct { t *time.Timer }`, "uses time.Timer"},
		"goroutine":          {`func f() { go f() }`, "starts a goroutine"},
		"channel":            {`func f(c chan int) {}`, "uses a channel"},
		"select":             {`func f() { select {} }`, "uses a channel"},
		"printing":           {`import "fmt"; func f() { fmt.Println() }`, "uses fmt.Println"},
		"I/O":                {`import "os"; func f() { os.Exit(1) }`, "imports os"},
		"locks":              {`import "sync"; var m sync.Mutex`, "imports sync"},
		"chance":             {`import "math/rand"; func f() int { return rand.Int() }`, "imports math/rand"},
		"map":                {`func f(m map[string]int) { for range m {} }`, "ranges over a map: the order of a map changes"},
		"map of a type":      {`type set map[int]bool; func f(s set) { for k := range s { _ = k } }`, "slices.Sorted(maps.Keys(m))"},
		"keys unsorted":      {`import ("maps"; "slices"); func f(m map[string]int) []string { return slices.Collect(maps.Keys(m)) }`, "iterates over a map by maps.Keys"},
		"keys sorted":        {`import ("maps"; "slices"); func f(m map[string]int) { for range slices.Sorted(maps.Keys(m)) {} }`, ""},
		"values sorted":      {`import ("maps"; "slices"); func f(m map[string]int) []int { return slices.SortedFunc(maps.Values(m), func(a, b int) int { return a - b }) }`, ""},
		"durations, formats": {`import ("fmt"; "time"); func f(d time.Duration) string { return fmt.Sprint(d.Round(time.Second)) }`, ""},
		"a method named Now": {`type s struct{}; func (s) Now() int { return 0 }; func f(time s) int { return time.Now() }`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parser.ParseFile(k.fset, "bad.go", "package bad; "+c.source, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			info, err := k.check("bad", []*ast.File{f})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(impurities(k.fset, []*ast.File{f}, info), "\n")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("want %q, got %q", c.want, got)
			}
		})
	}
}
