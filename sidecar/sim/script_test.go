package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts show now into testdata; the difference is the review")

// TestScripts plays testdata/*.txt. A file is prose: lines that begin with # and empty ones are for the reader, every other line is a command,
// and below it, indented, stands what it shows.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(b))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(b) {
				t.Errorf("%s shows something else now; look at the difference, and if it is right: go test ./sidecar/sim -run TestScripts -rewrite\n%s", file, difference(string(b), got))
			}
		})
	}
}

// play returns the script with what it shows now.
func play(t *testing.T, text string) string {
	var out strings.Builder
	var s Script
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "    "):
			continue // what it showed before
		case line == "", strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
			continue
		}
		out.WriteString(line + "\n")
		shown, err := s.Do(line)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(shown) {
			out.WriteString("    " + strings.TrimRight(l, "\n") + "\n")
		}
	}
	if s.w != nil && len(s.w.violations) > 0 {
		t.Errorf("violations: %v", s.w.violations)
	}
	return out.String()
}

// difference names the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "was:    " + strings.Join(w[i:min(i+5, len(w))], "\n        ") + "\nis now: " + strings.Join(g[i:min(i+5, len(g))], "\n        ")
		}
	}
	return "one is longer"
}

// Every fault can be said and understood again.
func TestBreaksAreReadBack(t *testing.T) {
	w := NewWorld(Options{Seed: 7, Members: 3})
	for _, k := range AllFaults {
		for range 20 {
			b := w.drawn(k)
			if !hitsMember(k) {
				b.Member = ""
			}
			if again, err := parseBreak(b.String()); err != nil || again != b {
				t.Errorf("%q was read as %+v (%v), it is %+v", b, again, err, b)
			}
		}
	}
	for _, bad := range []string{"", "rain", "host freeze", "host freeze pg1 for ever", "host freeze pg1 at noon", "consul away for 3s please"} {
		if b, err := parseBreak(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, b)
		}
	}
}

// A failing run is told by few faults.
func TestShrink(t *testing.T) {
	for seed := uint64(1); seed < 200; seed++ {
		o := Options{Seed: seed, Members: 3, Length: 30 * time.Second, Quiet: 20 * time.Second, Faults: 2 * time.Second, Mutate: NoFence}
		r := Run(o)
		if len(r.Violations) == 0 || len(r.struck) < 5 {
			continue
		}
		script := Shrink(o, r)
		if script == "" {
			continue
		}
		if n := strings.Count(script, "\n"); n > 2*len(r.struck) || !strings.HasPrefix(script, "cluster 3 seed=") {
			t.Errorf("%d faults became:\n%s", len(r.struck), script)
		}
		t.Logf("%d faults became:\n%s", len(r.struck), script)
		return
	}
	t.Error("nothing to shrink was found")
}
