package postgres

import (
	"slices"
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestParseHistory(t *testing.T) {
	const text = "# comment\n1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01\n"
	h, err := ParseHistory(3, text)
	want := []TimelineSwitch{{1, 0x3000110}, {2, 0x5000000}}
	if err != nil || h.Current != 3 || !slices.Equal(h.Switches, want) {
		t.Fatalf("%+v, %v", h, err)
	}
	for name, c := range map[string]struct {
		t    schema.Timeline
		text string
	}{
		"timeline zero":       {0, text},
		"ancestor not older":  {2, text},
		"numbers fall":        {9, "2 0/5000000 x\n1 0/6000000 x\n"},
		"positions fall":      {9, "1 0/5000000 x\n2 0/4000000 x\n"},
		"no position":         {9, "1\n"},
		"garbled position":    {9, "1 0/50000zz x\n"},
		"not a number":        {9, "one 0/5000000 x\n"},
		"timeline 0":          {9, "0 0/5000000 x\n"},
		"empty":               {9, ""},
		"number out of range": {9, "4294967297 0/5000000\n"},
	} {
		if h, err := ParseHistory(c.t, c.text); err == nil {
			t.Errorf("%s: accepted as %+v", name, h)
		}
	}
	if h, err := ParseHistory(1, ""); err != nil || h.Current != 1 {
		t.Errorf("timeline 1: %+v, %v", h, err)
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(3), "1\t0/3000110\tno recovery target specified\n2\t0/5000000\tx\n")
	f.Add(uint32(2), "# c\n\n1 0/1")
	f.Fuzz(func(t *testing.T, tli uint32, text string) {
		h, err := ParseHistory(schema.Timeline(tli), text)
		if err != nil {
			return
		}
		last := TimelineSwitch{}
		for _, s := range h.Switches {
			if s.Timeline <= last.Timeline || s.LSN < last.LSN || s.Timeline >= h.Current {
				t.Fatalf("accepted %+v", h)
			}
			// Whoever stopped right at the switch can follow, one byte later not.
			if s.LSN > 0 {
				if ok, why := CanFollow(s.Timeline, s.LSN, h); !ok {
					t.Fatal(why)
				}
			}
			if ok, _ := CanFollow(s.Timeline, s.LSN+1, h); ok && s.LSN+1 != 0 {
				t.Fatalf("follows from beyond the switch: %+v", h)
			}
			last = s
		}
	})
}

func TestCanFollow(t *testing.T) {
	h := History{Current: 5, Switches: []TimelineSwitch{{1, 0x1000}, {3, 0x2000}}}
	for _, c := range []struct {
		name  string
		local schema.Timeline
		end   schema.LSN
		h     History
		ok    bool
		why   string
	}{
		{"same timeline", 5, 0x9000, h, true, ""},
		{"at the switch", 3, 0x2000, h, true, ""},
		{"before the switch", 3, 0x1fff, h, true, ""},
		{"past the switch", 3, 0x2001, h, false, "went on to 0/2001 on timeline 3"},
		{"older ancestor", 1, 0x1000, h, true, ""},
		{"past the older switch", 1, 0x1800, h, false, "timeline 5 left at 0/1000"},
		{"a sister timeline", 2, 0x1100, h, false, "not an ancestor"},
		{"a newer timeline", 6, 0x1100, h, false, "newer than"},
		{"own timeline unknown", 0, 0x1100, h, false, "not known"},
		{"own position unknown", 1, 0, h, false, "not known"},
		{"no history", 1, 0x1000, History{}, false, "history"},
	} {
		ok, why := CanFollow(c.local, c.end, c.h)
		if ok != c.ok || !strings.Contains(why, c.why) || ok != (why == "") {
			t.Errorf("%s: %v, %q", c.name, ok, why)
		}
	}
}
