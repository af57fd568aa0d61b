package main

import (
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

func at(d time.Duration) schema.Instant { return schema.Instant(time.Hour + d) }

func TestScheduleFollowsFromItsSeed(t *testing.T) {
	a := schedule(7, 80, nil)
	if b := schedule(7, 200, nil); !reflect.DeepEqual(a, b[:80]) {
		t.Error("a longer schedule of the same seed begins otherwise")
	}
	if reflect.DeepEqual(a, schedule(8, 80, nil)) {
		t.Error("two seeds give the same")
	}
	seen := map[string]int{}
	for _, s := range a {
		seen[s.kind()]++
		for _, f := range s.Faults {
			k, known := troubleNamed(f.Trouble)
			if !known || f.Hold < k.Least || f.Hold > k.Most {
				t.Errorf("%s is held for %s", f.Trouble, f.Hold)
			}
		}
		if len(s.Faults) > 1 {
			if k, _ := troubleNamed(s.Faults[0].Trouble); k.Aim != aimPrimary {
				t.Errorf("a combination without a fault of the primary: %s", s)
			}
		}
	}
	for _, k := range troubles() {
		if seen[k.Name] < 2 {
			t.Errorf("%s comes %d times in 80 faults", k.Name, seen[k.Name])
		}
	}
	if seen[combined] != 80/oneInFour {
		t.Errorf("%d combinations", seen[combined])
	}
}

func TestScheduleOfSomeKinds(t *testing.T) {
	for _, s := range schedule(1, 20, []string{"kill", "freeze"}) {
		if k := s.kind(); k != "kill" && k != "freeze" {
			t.Errorf("fault %s was not asked for", k)
		}
	}
}

func TestHeld(t *testing.T) {
	for _, s := range held(schedule(1, 20, []string{"kill", "switchover"}), time.Minute) {
		if f := s.Faults[0]; f.Hold != time.Minute && f.Trouble == "kill" || f.Hold != 0 && f.Trouble == "switchover" {
			t.Errorf("%s", s)
		}
	}
	if s := held(schedule(1, 20, nil), 0); !reflect.DeepEqual(s, schedule(1, 20, nil)) {
		t.Error("without a length they are not as they were drawn")
	}
}

func TestCampaignOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-mode sync": "choose async, on or strict", "-members 4": "choose 3 or 5", "-faults 0": "1 or more",
		"-hold -1s": "how long", "-kinds rain": "choose from cut-all", "-lease 1ms": "lease", "more": "not wanted",
	} {
		if _, err := parseCampaign(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", args, want, err)
		}
	}
}

// A promotion of pg2 in epoch 2 at 10 s, elected at 9 s; pg1 reigned before it.
func twoReigns() []reign {
	return []reign{{Epoch: 1, Member: "pg1", Elected: at(0), Promoted: at(0)}, {Epoch: 2, Member: "pg2", Elected: at(9 * time.Second), Promoted: at(10 * time.Second)}}
}

func TestUsurpers(t *testing.T) {
	s := time.Second
	for name, c := range map[string]struct {
		server           string
		executed, at     time.Duration
		usurps, answered int
	}{
		"the old primary in its time":            {"pg1", 5 * s, 5 * s, 0, 0},
		"the old one, elected but not promoted":  {"pg1", 9*s + s/2, 9*s + s/2, 0, 0},
		"the old one after the promotion":        {"pg1", 11 * s, 11 * s, 1, 0},
		"accepted before, answered after":        {"pg1", 9 * s, 12 * s, 0, 1},
		"the new one before its report":          {"pg2", 9*s + s/2, 9*s + s/2, 0, 0},
		"the new one":                            {"pg2", 11 * s, 11 * s, 0, 0},
		"the new one before it was even elected": {"pg2", 5 * s, 5 * s, 1, 0},
		"one that never reigned":                 {"pg3", 5 * s, 5 * s, 1, 0},
	} {
		found, late := usurpers(twoReigns(), []commit{{ID: 1, Server: c.server, Executed: at(c.executed), At: at(c.at)}})
		if len(found) != c.usurps || late != c.answered {
			t.Errorf("%s: %d usurped, %d late", name, len(found), late)
		}
	}
}

func TestReignsOf(t *testing.T) {
	s := time.Second
	events := []schema.Event{
		{Kind: schema.EventPromoted, By: "pg2", Epoch: 2, At: at(10 * s)},
		{Kind: schema.EventPromoted, By: "pg1", Epoch: 1, At: at(s)},
		{Kind: schema.EventElected, By: "pg2", Epoch: 2, At: at(9 * s)},
		{Kind: schema.EventPromoted, By: "pg1", Epoch: 1, At: at(s)},
		{Kind: schema.EventFenced, By: "pg1", Epoch: 1, At: at(8 * s)},
		{Kind: schema.EventFenced, By: "pg3", Epoch: 1, At: at(8 * s)},
	}
	want := []reign{{1, "pg1", at(s), at(s), at(8 * s)}, {2, "pg2", at(9 * s), at(10 * s), schema.Never}}
	if got := reignsOf(events); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestWaives(t *testing.T) {
	for message, want := range map[string]bool{
		"canceling wait for synchronous replication due to user request":                                         true,
		"canceling the wait for synchronous replication and terminating connection due to administrator command": true,
		"there is no transaction in progress":                                                                    false,
	} {
		if waives(message) != want {
			t.Errorf("%q: %t", message, !want)
		}
	}
}

func TestReads(t *testing.T) {
	s := time.Second
	commits := byWriter([]commit{{ID: 10, At: at(s)}, {ID: 20, At: at(2 * s)}, {ID: 30, At: at(3 * s)}, {ID: 15, Writer: 1, At: at(s)}}, 2)
	read := func(route string, began time.Duration, seen ...int64) reading {
		return reading{Session: 1, Route: route, Began: at(began), Seen: seen}
	}
	lost := map[int64]bool{30: true}
	for name, c := range map[string]struct {
		r      reading
		stale  int
		behind time.Duration
	}{
		"all":                        {read("rw", 4*s, 30, 15), 0, 0},
		"a lost row is not shown":    {read("rw", 4*s, 20, 15), 0, 0},
		"a row that lasts is hidden": {read("rw", 4*s, 10, 15), 1, 2 * s},
		"of the other writer":        {read("rw", 4*s, 20, 0), 1, 3 * s},
		"not acknowledged yet":       {read("rw", s+s/2, 10, 15), 0, 0},
		"a standby may be behind":    {read("ro", 4*s, 10, 15), 0, 2 * s},
		"but not for strict":         {read("strict", 4*s, 10, 15), 1, 2 * s},
		"an unknown outcome is more": {read("rw", 4*s, 99, 15), 0, 0},
	} {
		if got := staleReads([]reading{c.r}, commits, lost); len(got) != c.stale {
			t.Errorf("%s: stale %d", name, len(got))
		}
		if got := staleness(c.r, commits, lost); got != c.behind {
			t.Errorf("%s: behind %s", name, got)
		}
	}
	other := read("ro", s, 5, 5)
	other.Session = 2
	if got := backwards([]reading{read("ro", s, 10, 15), other, read("ro", s, 10, 16), read("ro", s, 9, 17)}); len(got) != 1 || got[0].Seen[0] != 9 {
		t.Errorf("backwards: %v", got)
	}
}

func TestInWindow(t *testing.T) {
	s := time.Second
	var all []commit
	for i := range 20 {
		all = append(all, commit{ID: int64(i), At: at(time.Duration(i) * s), LSN: uint64(1000 * i), Server: "pg1"})
	}
	const lease = 3 * time.Second // with the age of a publication: rows 15 and later may be lost at 19, and a lag before
	for name, c := range map[string]struct {
		first int
		lag   uint64
		ok    bool
	}{
		"the last few":             {17, 0, true},
		"from the publication on":  {14, 0, true},
		"before it":                {13, 0, false},
		"before it within the lag": {13, 1000, true},
		"much before it":           {2, 1000, false},
	} {
		if why := inWindow(all[c.first:], all, c.lag, lease); (why == "") != c.ok {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// A step that leaves the primary alone must not end its reign; a combination may.
func TestStepKeeps(t *testing.T) {
	for names, want := range map[string]bool{"consul-away": true, "standbys-kill": true, "sidecar": true, "kill": false, "switchover": false, "sidecar,consul-leader": false} {
		var st step
		for name := range strings.SplitSeq(names, ",") {
			st.Faults = append(st.Faults, planned{Trouble: name})
		}
		if st.keeps() != want {
			t.Errorf("%s: %t", names, st.keeps())
		}
	}
}

func TestStepLate(t *testing.T) {
	stall, kill := step{Faults: []planned{{Trouble: "disk-stall"}}}, step{Faults: []planned{{Trouble: "kill"}}}
	if stall.late(hangBound) != "" || stall.late(hangBound+1) == "" || kill.late(time.Hour) != "" {
		t.Errorf("%q, %q, %q", stall.late(hangBound), stall.late(hangBound+1), kill.late(time.Hour))
	}
}

// A degradation lasts from the last reading before it that showed a set to the first after it.
func TestDegradations(t *testing.T) {
	s := time.Second
	set := schema.SyncSet{Need: 1, Standbys: []string{"pg2"}}
	var d degradations
	d.read(schema.SyncSet{}, at(0), at(0)) // before the first set
	d.read(set, at(1*s), at(2*s))
	d.read(set, at(3*s), at(4*s))
	d.read(schema.SyncSet{}, at(5*s), at(6*s))
	d.read(schema.SyncSet{}, at(7*s), at(8*s))
	for from, want := range map[time.Duration]bool{s: true, 2500 * time.Millisecond: false, 4 * s: true, 7 * s: true, 20 * s: true} {
		if got := d.at(at(from), at(from+s/10)); got != want {
			t.Errorf("open, at %s: %t", from, got)
		}
	}
	d.read(set, at(9*s), at(10*s))
	for from, want := range map[time.Duration]bool{2500 * time.Millisecond: false, 9 * s: true, 11 * s: false} {
		if got := d.at(at(from), at(from+s/10)); got != want {
			t.Errorf("closed, at %s: %t", from, got)
		}
	}
	if got := total(d.all[1:]); got != 7*s {
		t.Errorf("degraded for %s", got)
	}
}

func TestMayBeLost(t *testing.T) {
	s := &strain{o: campaignOptions{mode: "strict"}}
	s.degraded.read(schema.SyncSet{}, at(5*time.Second), at(6*time.Second))
	c := commit{Sent: at(5 * time.Second), At: at(5 * time.Second)}
	for mode, want := range map[string]bool{"strict": false, "on": true, "async": true} {
		if s.o.mode = mode; s.mayBeLost(c) != want {
			t.Errorf("%s: %t", mode, !want)
		}
	}
	s.o.mode = "on"
	s.degraded.read(schema.SyncSet{Need: 1}, at(6*time.Second), at(7*time.Second))
	if c.Sent, c.At = at(8*time.Second), at(8*time.Second); s.mayBeLost(c) {
		t.Error("on: a row acknowledged under a set may be lost")
	}
}

func TestPauses(t *testing.T) {
	ms := time.Millisecond
	acks := []schema.Instant{at(0), at(100 * ms), at(900 * ms), at(1000 * ms)}
	for name, c := range map[string]struct{ from, to, want time.Duration }{
		"between two":     {0, 1000 * ms, 800 * ms},
		"from the begin":  {200 * ms, 1000 * ms, 700 * ms},
		"up to the end":   {1000 * ms, 3000 * ms, 2000 * ms},
		"cut at the end":  {0, 400 * ms, 300 * ms},
		"none in between": {200 * ms, 300 * ms, 100 * ms},
	} {
		if got := longestPause(acks, at(c.from), at(c.to)); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	want := []gap{{at(0), at(100 * ms)}, {at(900 * ms), at(1000 * ms)}}
	if got := served(acks, 250*ms); !slices.Equal(got, want) {
		t.Errorf("served: %v", got)
	}
}

func sampleFindings() *findings {
	s := time.Second
	return &findings{
		Command: "campaign <&>", Up: at(0), Ended: at(250 * s), Reigns: twoReigns(), Reads: map[string]int{}, served: [][]gap{{{at(s), at(8 * s)}}, {}},
		Outcomes: []outcome{
			{Step: step{Number: 1, Faults: []planned{{Trouble: "kill", Hold: 5 * s}}}, Kind: "kill", Primary: "pg1", Began: at(6 * s), Ended: at(20 * s),
				Struck: []struck{{Trouble: "kill", Target: "pg1", From: at(6 * s), To: at(11 * s)}}, Gap: 3 * s, RouterGap: 4 * s, Whole: 5 * s, Reigns: 1, Acked: 100, Missing: 2},
			{Step: step{Number: 2, Faults: []planned{{Trouble: "switchover"}}}, Kind: "switchover", Primary: "pg2", Whole: -1, Problems: []string{"a\nproblem"}},
		},
	}
}

func TestReportNamesWhatIsWrong(t *testing.T) {
	f := sampleFindings()
	text := f.markdown("x.svg")
	for _, want := range []string{"| primary's host killed | 1 | 3.00 / 3.00 | 4.00 / 4.00 | 5.00 / 5.00 | 1 | 2 of 100 | 2 | 0 |", "- fault 2 (switchover, primary pg2): a", "| all violations | 1 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if f.violations() != 1 {
		t.Errorf("%d violations", f.violations())
	}
}

func TestTimelineIsXML(t *testing.T) {
	text := sampleFindings().timeline()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"pg1 is primary, epoch 1", "pg2 is primary, epoch 2", "kill: pg1", "rows were acknowledged"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the timeline", want)
		}
	}
	// pg2 reigns from 10 s to 250 s: over three rows of two minutes.
	if n := strings.Count(text, "pg2 is primary"); n != 3 {
		t.Errorf("its reign is drawn in %d rows", n)
	}
}

// A standby of the step's begin may be the primary by the time that it is cut off.
func TestWhatMayLose(t *testing.T) {
	for faults, want := range map[string]bool{
		"switchover": false, "standby-cut": false, "kill": true, "switchover standby-cut": true, "switchover router-cut": false, "switchover clock-standby": true, "sidecar standby-kill": false,
	} {
		var s step
		for name := range strings.FieldsSeq(faults) {
			s.Faults = append(s.Faults, planned{Trouble: name})
		}
		if got := s.mayLose(); got != want {
			t.Errorf("%s: %t", faults, got)
		}
	}
}
