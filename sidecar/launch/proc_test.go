package launch

import (
	"fmt"
	"os"
	"testing"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	rest := " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for comm, want := range map[string]byte{"postgres": 'S', "a) R (b": 'Z', "((": 'T', "new\nline": 'R', "": 'S'} {
		s, err := parseStat([]byte("42 (" + comm + ") " + string(want) + rest))
		if err != nil || s != (procStat{PID: 42, Comm: comm, State: want, PPID: 1, PGRP: 2, Start: 4711}) {
			t.Errorf("%q: %+v, %v", comm, s, err)
		}
	}
	for _, bad := range []string{"", "42", "42 (x", "42 x) S" + rest, "(x) S" + rest, "42 (x) S 1 2", "42 (x) SS" + rest, "-1 (x) S" + rest, "42 (x) S a" + rest} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v; want an error", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 (a) b) Z 0 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 9 1"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err != nil {
			if s != (procStat{}) {
				t.Errorf("error, yet %+v", s)
			}
			return
		}
		if s.PID <= 0 || s.PPID < 0 {
			t.Errorf("%+v", s)
		}
		line := fmt.Sprintf("%d (%s) %c %d %d 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 %d", s.PID, s.Comm, s.State, s.PPID, s.PGRP, s.Start)
		if again, err := parseStat([]byte(line)); err != nil || again != s {
			t.Errorf("%q reads as %+v, %v; want %+v", line, again, err, s)
		}
	})
}

func TestTree(t *testing.T) {
	t.Parallel()
	all := map[int]procStat{}
	for pid, parent := range map[int]int{1: 0, 10: 1, 20: 10, 21: 10, 30: 21, 40: 1, 50: 51, 51: 50, 60: 59} {
		all[pid] = procStat{PID: pid, PPID: parent}
	}
	for pid, want := range map[int]bool{20: true, 21: true, 30: true, 40: false, 50: false, 60: false, 1: false} {
		if got := descends(all, all[pid], 10); got != want {
			t.Errorf("%d descends from 10: %v; want %v", pid, got, want)
		}
	}
}
