package postgres

import (
	"regexp"
	"slices"
	"strings"
)

const includeLine = "include 'howdah.conf'"

// includeLast returns postgresql.conf with includeLine once and last, so that nothing else in the
// file comes after it and wins. The rest is kept as it is.
func includeLast(text string) string {
	lines := strings.SplitAfter(text, "\n")
	isOurs := func(l string) bool { return strings.TrimSpace(l) == includeLine }
	ours, last := 0, -1
	for i, l := range lines {
		t := strings.TrimSpace(l)
		if t == "" || t[0] == '#' {
			continue
		}
		last = i
		if isOurs(l) {
			ours++
		}
	}
	if ours == 1 && isOurs(lines[last]) {
		return text
	}
	rest := strings.Join(slices.DeleteFunc(lines, isOurs), "")
	if rest != "" && !strings.HasSuffix(rest, "\n") {
		rest += "\n"
	}
	return rest + includeLine + "\n"
}

// autoLine is a setting in postgresql.auto.conf, which only ALTER SYSTEM and pg_basebackup -R write.
var autoLine = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_$.]*)\s*(=|\s)`)

// withoutRuled returns postgresql.auto.conf without the settings that howdah rules: the file is read after all
// others, so a primary_conninfo left there would win over the present one.
func withoutRuled(text string) (rest string, removed []string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if m := autoLine.FindStringSubmatch(line); m != nil {
			name := strings.ToLower(m[1])
			if _, yes := ruled(name); yes {
				removed = append(removed, name)
				continue
			}
		}
		b.WriteString(line)
	}
	return b.String(), removed
}
