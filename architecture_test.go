package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "howdah"

// arrows says, for each package, which others of the module its product code may import. A new arrow is a
// decision about the design: write it here and into ARCHITECTURE.md.
var arrows = map[string][]string{
	"howdah":     {"cmd"},
	"howdah/cmd": {"cmd/explain", "cmd/options", "cmd/statustable", "consul", "consul/boottime", "consul/embedded", "consul/schema", "detector", "router", "router/console", "sidecar", "sidecar/api", "sidecar/launch", "sidecar/local", "sidecar/postgres"},

	"howdah/cmd/explain":     {"consul/schema"},
	"howdah/cmd/options":     {},
	"howdah/cmd/statustable": {"consul/schema"},

	"howdah/consul":          {"consul/schema"},
	"howdah/consul/boottime": {"consul/schema"},
	"howdah/consul/embedded": {},
	"howdah/consul/schema":   {},

	"howdah/detector": {"consul/schema"},

	"howdah/sidecar":          {"consul/schema", "sidecar/decide", "sidecar/launch", "sidecar/postgres"},
	"howdah/sidecar/api":      {"consul/schema"},
	"howdah/sidecar/decide":   {"consul/schema"},
	"howdah/sidecar/launch":   {"consul/boottime", "consul/schema"},
	"howdah/sidecar/local":    {"consul/schema"},
	"howdah/sidecar/postgres": {"consul/schema"},

	"howdah/router":                 {"consul/boottime", "consul/schema", "router/console", "router/fresh", "router/own", "router/role", "router/route", "router/route/statement", "router/rule", "router/scram", "router/session", "router/split", "router/topology", "router/wire"},
	"howdah/router/console":         {"router/scram", "router/wire"},
	"howdah/router/fresh":           {"consul/schema", "router/own", "router/route"},
	"howdah/router/own":             {"consul/schema", "router/route"},
	"howdah/router/role":            {"consul/schema", "router/own", "router/scram"},
	"howdah/router/route":           {"consul/schema"},
	"howdah/router/route/statement": {},
	"howdah/router/rule":            {},
	"howdah/router/scram":           {"router/wire"},
	"howdah/router/session":         {"router/route", "router/wire"},
	"howdah/router/split":           {"router/route/statement", "router/wire"},
	"howdah/router/topology":        {"consul/schema"},
	"howdah/router/wire":            {},

	"howdah/bench":         {"bench/cluster", "consul", "consul/boottime", "consul/embedded", "consul/schema", "sidecar/local"},
	"howdah/bench/cluster": {"consul/schema", "sidecar/local"},

	// For tests only: nothing above may import these.
	"howdah/consul/conformance":                 {"consul", "consul/boottime", "consul/schema"},
	"howdah/consul/consultest":                  {"consul/embedded"},
	"howdah/router/route/statement/grammartest": {},
	"howdah/router/clienttest":                  {},
	"howdah/router/routertest":                  {"consul/schema", "router/wire"},
	"howdah/sidecar/postgres/postgrestest":      {},
	"howdah/sidecar/local/localtest":            {},
	"howdah/sidecar/sim":                        {"consul/schema", "sidecar/decide", "router/topology"}, // the simulation is of the whole
}

// owners are modules that only some packages may import, so that the rest of howdah does not depend on them.
var owners = map[string][]string{
	"github.com/hashicorp/consul/api": {"consul"},
	"github.com/hashicorp/memberlist": {"detector"},
	"github.com/jackc/pgproto3/v2":    {"router/wire", "router/routertest"},
	"github.com/jackc/pgx/v5":         {"router/own", "router/role", "sidecar/postgres", "sidecar/postgres/postgrestest", "sidecar/local", "bench", "cmd"},
	"github.com/spf13/cobra":          {"cmd"},
	"github.com/spf13/pflag":          {"cmd/options"},
	"sigs.k8s.io/yaml":                {"cmd", "cmd/options"},
}

// goPackage is what `go list` says about a package.
type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles, Imports        []string
	Standard                bool
	Error                   *struct{ Err string }
}

// listPackages asks the go command, which knows build constraints and modules better than we do.
func listPackages(t *testing.T, args ...string) []goPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Export,GoFiles,Imports,Standard,Error"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// wrongArrows returns a message for every import that the tables do not allow.
func wrongArrows(packages []goPackage) []string {
	var found []string
	for _, p := range packages {
		allowed, known := arrows[p.ImportPath]
		if !known {
			found = append(found, p.ImportPath+" is not in the table of arrows: add it to architecture_test.go with what it may import, and to ARCHITECTURE.md")
			continue
		}
		for _, imported := range p.Imports {
			if to, inside := strings.CutPrefix(imported, module+"/"); inside && !slices.Contains(allowed, to) {
				found = append(found, p.ImportPath+" imports "+imported+": "+remedy(p.ImportPath, imported))
			}
			for _, owned := range slices.Sorted(maps.Keys(owners)) {
				within := imported == owned || strings.HasPrefix(imported, owned+"/")
				if from, _ := strings.CutPrefix(p.ImportPath, module+"/"); within && !slices.Contains(owners[owned], from) {
					found = append(found, p.ImportPath+" imports "+imported+": only "+strings.Join(owners[owned], ", ")+" may; use what that package offers, or declare a small interface and let cmd inject it")
				}
			}
		}
	}
	return found
}

func remedy(from, to string) string {
	switch {
	case strings.HasSuffix(to, "test"), strings.HasSuffix(to, "/conformance"), strings.HasSuffix(to, "/sim"):
		return "that package is for tests; import it from a _test.go file"
	case from == module+"/consul/schema":
		return "the vocabulary is a leaf; move what both need into it, or the user of it elsewhere"
	case to == module+"/cmd":
		return "the composition root imports the others and is imported by main alone"
	}
	return "declare a small interface where it is used and let cmd inject it; share only words, through consul/schema"
}

func TestImportGraph(t *testing.T) {
	packages := listPackages(t, "-e", "./...")
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages only", len(packages))
	}
	for _, message := range wrongArrows(packages) {
		t.Error(message)
	}
}

func TestImportGraphRule(t *testing.T) {
	for name, c := range map[string]struct {
		p    goPackage
		want string
	}{
		"sidecar to router":    {goPackage{ImportPath: "howdah/sidecar", Imports: []string{"fmt", "howdah/router"}}, "let cmd inject it"},
		"router to consul":     {goPackage{ImportPath: "howdah/router", Imports: []string{"howdah/consul"}}, "let cmd inject it"},
		"schema to anything":   {goPackage{ImportPath: "howdah/consul/schema", Imports: []string{"howdah/detector"}}, "is a leaf"},
		"product to test code": {goPackage{ImportPath: "howdah/router", Imports: []string{"howdah/router/routertest"}}, "is for tests"},
		"anything to cmd":      {goPackage{ImportPath: "howdah/bench", Imports: []string{"howdah/cmd"}}, "composition root"},
		"consul's client":      {goPackage{ImportPath: "howdah/sidecar", Imports: []string{"github.com/hashicorp/consul/api"}}, "only consul may"},
		"below an owned one":   {goPackage{ImportPath: "howdah/router", Imports: []string{"github.com/jackc/pgx/v5/pgconn"}}, "only router/own, router/role, sidecar/postgres"},
		"a new package":        {goPackage{ImportPath: "howdah/sidecar/extra"}, "is not in the table"},
		"nothing wrong":        {goPackage{ImportPath: "howdah/sidecar", Imports: []string{"fmt", "howdah/sidecar/decide"}}, ""},
	} {
		got := strings.Join(wrongArrows([]goPackage{c.p}), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q, got %q", name, c.want, got)
		}
	}
}

// A cycle in the table would make the arrows mean nothing.
func TestArrowsHaveNoCycle(t *testing.T) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(string)
	visit = func(p string) {
		switch state[p] {
		case visiting:
			t.Errorf("%s imports itself by way of others", p)
		case 0:
			state[p] = visiting
			for _, to := range arrows[p] {
				if _, known := arrows[module+"/"+to]; !known {
					t.Errorf("%s may import %s, which is not in the table", p, to)
				}
				visit(module + "/" + to)
			}
			state[p] = done
		}
	}
	for _, p := range slices.Sorted(maps.Keys(arrows)) {
		visit(p)
	}
}
