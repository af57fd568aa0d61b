package router_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testsUnder returns the tests in the directories under root by "package.Name", with the string literals of their package in one set: a name of a
// subtest is among them.
func testsUnder(t *testing.T, root string) (tests map[string]bool, literals map[string]map[string]bool) {
	t.Helper()
	tests, literals = map[string]bool{}, map[string]map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		of := strings.TrimSuffix(f.Name.Name, "_test")
		if literals[of] == nil {
			literals[of] = map[string]bool{}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && (strings.HasPrefix(n.Name.Name, "Test") || strings.HasPrefix(n.Name.Name, "Fuzz")) {
					tests[of+"."+n.Name.Name] = true
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					literals[of][s] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests, literals
}

// hazardCount is how many hazards HAZARDS.md is about.
const hazardCount = 48

var quoted = regexp.MustCompile("`([^`]*)`")

// hazardFaults returns what is wrong with a table of hazards.
func hazardFaults(table string, tests map[string]bool, literals map[string]map[string]bool) []string {
	var faults []string
	numbers := map[int]int{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		n, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil {
			continue
		}
		numbers[n]++
		if len(cells) != 4 || slices.ContainsFunc(cells, func(s string) bool { return strings.TrimSpace(s) == "" }) {
			faults = append(faults, strconv.Itoa(n)+": not four cells that say something")
			continue
		}
		if reason, none := strings.CutPrefix(strings.TrimSpace(cells[3]), "none: "); none && len(strings.Fields(reason)) > 2 {
			continue
		}
		named := quoted.FindAllStringSubmatch(cells[3], -1)
		if len(named) == 0 {
			faults = append(faults, strconv.Itoa(n)+": no test, and no reason for having none")
		}
		for _, m := range named {
			test, sub, _ := strings.Cut(m[1], "/")
			if !strings.Contains(test, ".") {
				test = "router." + test
			}
			of, _, _ := strings.Cut(test, ".")
			if !tests[test] || sub != "" && !literals[of][sub] {
				faults = append(faults, strconv.Itoa(n)+": there is no test "+m[1])
			}
		}
	}
	for n := range hazardCount {
		if numbers[n+1] != 1 {
			faults = append(faults, strconv.Itoa(n+1)+": has "+strconv.Itoa(numbers[n+1])+" lines")
		}
	}
	return faults
}

// Every hazard has its line in HAZARDS.md, and the tests named there exist.
func TestHazards(t *testing.T) {
	tests, literals := testsUnder(t, ".")
	table, err := os.ReadFile("HAZARDS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range hazardFaults(string(table), tests, literals) {
		t.Error(fault)
	}
	for name, wrong := range map[string]func(string) string{
		"a line is missing":     func(s string) string { return regexp.MustCompile(`(?m)^\| 17 .*\n`).ReplaceAllString(s, "") },
		"a line is there twice": func(s string) string { return s + regexp.MustCompile(`(?m)^\| 17 .*\n`).FindString(s) },
		"an unknown test":       func(s string) string { return strings.Replace(s, "`TestTLS/direct`", "`TestNothing`", 1) },
		"an unknown subtest": func(s string) string {
			return strings.Replace(s, "`TestTLS/direct`", "`TestTLS/nothing of that name`", 1)
		},
		"an unknown package": func(s string) string { return strings.Replace(s, "`wire.TestKeys`", "`wires.TestKeys`", 1) },
		"no test": func(s string) string {
			return strings.Replace(s, "`scram.TestMock`", "", 1) + "| 49 | a | b | none: |\n"
		},
	} {
		changed := wrong(string(table))
		if changed == string(table) || len(hazardFaults(changed, tests, literals)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}
