package schema

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Parameter is what PostgreSQL says about one of its settings: a row of pg_settings without any value.
type Parameter struct {
	Name string `json:"name"`
	// Type is bool, integer, real, string or enum; Unit what a number without one is counted in ("8kB", "ms").
	Type string `json:"type"`
	Unit string `json:"unit,omitempty"`
	// Context is when a change is heeded: postmaster at a restart, internal never.
	Context string   `json:"context"`
	Min     string   `json:"min,omitempty"`
	Max     string   `json:"max,omitempty"`
	Values  []string `json:"values,omitempty"` // of an enum
}

// hiddenValues are accepted by PostgreSQL and not listed in pg_settings.enumvals: entries marked hidden in
// src/backend/utils/misc/guc_tables.c, besides those that read as a boolean.
var hiddenValues = []string{"debug", "info", "fatal", "panic", "archive", "hot_standby", "default"}

// units are PostgreSQL's, in bytes and in microseconds (memory_unit_conversion_table, time_unit_conversion_table of guc.c).
var units = map[string]struct {
	kind  string
	scale float64
}{
	"B": {"memory", 1}, "kB": {"memory", 1 << 10}, "MB": {"memory", 1 << 20}, "GB": {"memory", 1 << 30}, "TB": {"memory", 1 << 40},
	"us": {"time", 1}, "ms": {"time", 1e3}, "s": {"time", 1e6}, "min": {"time", 60e6}, "h": {"time", 3600e6}, "d": {"time", 86400e6},
}

// CheckParameters returns one mistake for each parameter that PostgreSQL would refuse by name, type or range, by its own
// description of its settings. Names with a dot belong to extensions and are not judged. What it
// does not find, such as a library that is not there, PostgreSQL finds itself.
func CheckParameters(known []Parameter, given map[string]string, names []string) []error {
	byName := map[string]Parameter{}
	for _, p := range known {
		byName[strings.ToLower(p.Name)] = p
	}
	var errs []error
	for _, name := range names {
		p, is := byName[strings.ToLower(name)]
		switch {
		case !is && strings.Contains(name, "."):
		case !is:
			errs = append(errs, fmt.Errorf("parameters.%s: PostgreSQL has no such setting%s", name, alike(strings.ToLower(name), known)))
		default:
			if why := p.Refuses(given[name]); why != "" {
				errs = append(errs, fmt.Errorf("parameters.%s: %q is not allowed; %s", name, given[name], why))
			}
		}
	}
	return errs
}

// Refuses returns what is allowed if PostgreSQL would refuse value by its type or range; empty if it would not.
func (p Parameter) Refuses(value string) string {
	if p.Context == "internal" {
		return "it cannot be set at all"
	}
	switch p.Type {
	case "bool":
		if !readsAsBool(value) {
			return "want on or off"
		}
	case "enum":
		fits := func(v string) bool { return strings.EqualFold(v, value) }
		if !slices.ContainsFunc(p.Values, fits) && !slices.ContainsFunc(hiddenValues, fits) && !readsAsBool(value) {
			return "choose from " + strings.Join(p.Values, ", ")
		}
	case "integer", "real":
		return p.refusesNumber(value)
	}
	return ""
}

func (p Parameter) refusesNumber(value string) string {
	n, why := p.number(value)
	if why != "" {
		return why
	}
	if p.Type == "integer" {
		n = math.RoundToEven(n)
	}
	low, lowErr := strconv.ParseFloat(p.Min, 64)
	high, highErr := strconv.ParseFloat(p.Max, 64)
	if lowErr == nil && n < low || highErr == nil && n > high {
		unit := ""
		if p.Unit != "" {
			unit = " in units of " + p.Unit
		}
		return fmt.Sprintf("choose from %s to %s%s", p.Min, p.Max, unit)
	}
	return ""
}

// number reads a number with or without a unit, in the parameter's own unit.
func (p Parameter) number(value string) (n float64, why string) {
	text := strings.TrimSpace(value)
	end := strings.LastIndexAny(text, "0123456789.") + 1
	if base := strings.TrimLeft(text, "+-"); strings.HasPrefix(base, "0x") || strings.HasPrefix(base, "0X") {
		end = len(text)
	}
	digits, unit := text[:end], strings.TrimSpace(text[end:])
	if whole, err := strconv.ParseInt(digits, 0, 64); err == nil { // also 0x10 and 010, as strtol reads them
		n = float64(whole)
	} else if n, err = strconv.ParseFloat(digits, 64); err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, "want a number" + p.unitAdvice()
	}
	if unit == "" {
		return n, ""
	}
	own, base := p.ownUnit()
	given, is := units[unit]
	if !is || own == "" || units[own].kind != given.kind {
		return 0, "want a number" + p.unitAdvice()
	}
	return n * given.scale / (units[own].scale * base), ""
}

// ownUnit splits a unit such as 8kB into the unit and how many of it one is; empty if the parameter has none.
func (p Parameter) ownUnit() (unit string, times float64) {
	unit = strings.TrimLeft(p.Unit, "0123456789")
	times = 1
	if n, err := strconv.ParseFloat(strings.TrimSuffix(p.Unit, unit), 64); err == nil {
		times = n
	}
	if _, is := units[unit]; !is {
		return "", 1
	}
	return unit, times
}

func (p Parameter) unitAdvice() string {
	own, _ := p.ownUnit()
	switch {
	case own == "":
		return " without a unit"
	case units[own].kind == "memory":
		return " with one of B, kB, MB, GB, TB, such as 64MB"
	}
	return " with one of us, ms, s, min, h, d, such as 30s"
}

// readsAsBool is parse_bool_with_len of src/backend/utils/adt/bool.c.
func readsAsBool(value string) bool {
	v := strings.ToLower(value)
	switch {
	case v == "", v == "o":
		return false
	case v == "1" || v == "0":
		return true
	}
	for _, word := range []string{"true", "false", "yes", "no", "on", "off"} {
		if strings.HasPrefix(word, v) {
			return true
		}
	}
	return false
}

// alike names the first setting that is one slip of the finger away.
func alike(name string, known []Parameter) string {
	for _, p := range known {
		if oneEditApart(name, p.Name) {
			return "; did you mean " + p.Name + "?"
		}
	}
	return ""
}

// oneEditApart reports whether one letter added, left out, changed or swapped with the next makes a into b.
func oneEditApart(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	a, b = a[i:], b[i:]
	switch {
	case len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]:
		return true
	case len(a) == len(b):
		return len(a) > 0 && a[1:] == b[1:]
	case len(a) == len(b)+1:
		return a[1:] == b
	case len(b) == len(a)+1:
		return b[1:] == a
	}
	return false
}
