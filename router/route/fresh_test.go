package route_test

import (
	"errors"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/router/route"
)

func TestConsistencyOf(t *testing.T) {
	for _, c := range []struct {
		params map[string]string
		want   route.Consistency
	}{
		{nil, ""},
		{map[string]string{"howdah.consistency": "strict"}, route.Strict},
		{map[string]string{"Howdah.Consistency": "EVENTUAL"}, route.Eventual},
		{map[string]string{"options": "-c howdah.consistency=strict"}, route.Strict},
		{map[string]string{"options": "--howdah.consistency=eventual", "howdah.consistency": "session"}, route.Session},
		{map[string]string{"options": "-c geqo=off"}, ""},
	} {
		if got, asked, err := route.ConsistencyOf(c.params); err != nil || got != c.want || asked != (c.want != "") {
			t.Errorf("%v: %q, %v, %v; want %q", c.params, got, asked, err, c.want)
		}
	}
	for _, bad := range []string{"", "strong", "strict ", "read-your-writes"} {
		_, _, err := route.ConsistencyOf(map[string]string{"howdah.consistency": bad})
		var e *route.ErrConsistency
		if !errors.As(err, &e) || e.Value != bad || e.Hint() != "Available values: eventual, session, strict." {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func primarySample(at schema.Instant, epoch schema.Epoch, timeline schema.Timeline, lsn schema.LSN) route.PrimarySample {
	return route.PrimarySample{AskedAt: at, Epoch: epoch, Position: route.Position{Timeline: timeline, LSN: lsn}}
}

func standbySample(at schema.Instant, timeline schema.Timeline, lsn schema.LSN) route.StandbySample {
	return route.StandbySample{AskedAt: at, Position: route.Position{Timeline: timeline, LSN: lsn}}
}

func TestMark(t *testing.T) {
	none := route.Mark{}
	wrote := none.Wrote(100, 3)
	for name, c := range map[string]struct {
		mark  route.Mark
		learn []route.PrimarySample
		s     route.StandbySample
		since schema.Instant
		seen  bool
	}{
		"nothing written":                         {none, nil, route.StandbySample{}, 50, true},
		"no sample of the primary":                {wrote, nil, standbySample(200, 7, 1000), 50, false},
		"replayed":                                {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(60, 7, 500), 50, true},
		"not replayed":                            {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(200, 7, 499), 50, false},
		"the primary was asked before":            {wrote, []route.PrimarySample{primarySample(99, 3, 7, 500)}, standbySample(200, 7, 1000), 50, false},
		"the first sample counts":                 {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500), primarySample(150, 3, 7, 900)}, standbySample(200, 7, 500), 50, true},
		"an old primary":                          {wrote, []route.PrimarySample{primarySample(100, 2, 6, 500)}, standbySample(200, 6, 1000), 50, false},
		"the standby's timeline is not known":     {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(200, 0, 1000), 50, false},
		"further, on a branch given up":           {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(200, 6, 1000), 50, false},
		"another primary: proved anew":            {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500), primarySample(150, 4, 8, 900)}, standbySample(200, 8, 900), 50, true},
		"another primary: the old bound is void":  {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500), primarySample(150, 4, 8, 900)}, standbySample(200, 8, 600), 50, false},
		"another primary: a late word of the old": {wrote, []route.PrimarySample{primarySample(150, 4, 8, 900), primarySample(160, 3, 7, 100)}, standbySample(200, 7, 100), 50, false},
		"the connection is newer than the sample": {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(200, 7, 500), 201, false},
		"no connection yet":                       {wrote, []route.PrimarySample{primarySample(100, 3, 7, 500)}, standbySample(200, 7, 500), schema.Never, true},
		"written again":                           {wrote.Learn(primarySample(100, 3, 7, 500)).Wrote(300, 3), nil, standbySample(400, 7, 5000), 50, false},
		"a failed sample":                         {wrote, []route.PrimarySample{primarySample(100, 3, 0, 500)}, standbySample(200, 0, 5000), 50, false},
	} {
		m := c.mark
		for _, p := range c.learn {
			m = m.Learn(p)
		}
		if got := m.Seen(c.s, c.since); got != c.seen {
			t.Errorf("%s: seen %v", name, got)
		}
	}
	if !none.Empty() || wrote.Empty() || !none.Bounded() || wrote.Bounded() {
		t.Error("a mark does not know itself")
	}
	if m := wrote.Wrote(50, 2); m.Epoch != 3 {
		t.Errorf("the epoch went back to %d", m.Epoch)
	}
}

func TestFresh(t *testing.T) {
	bound := route.Bound{Bytes: 100, Time: time.Second}
	wrote := route.Mark{}.Wrote(100, 1)
	bounded := wrote.Learn(primarySample(100, 1, 1, 500))
	reader := func(member string, lsn schema.LSN, change ...func(*route.Reader)) route.Reader {
		r := route.Reader{Candidate: route.Candidate{Member: member}, Sample: standbySample(200, 1, lsn), Since: 50}
		for _, f := range change {
			f(&r)
		}
		return r
	}
	busy := func(r *route.Reader) { r.Sessions = 9 }
	far := func(r *route.Reader) { r.LagBytes = 101 }
	old := func(r *route.Reader) { r.LagTime = 2 * time.Second }
	apart := func(r *route.Reader) { r.NoLoadBalance = true }
	fresh := func(r *route.Reader) { r.Since = 300 }
	for name, c := range map[string]struct {
		mark    route.Mark
		readers []route.Reader
		serve   int
		wait    route.Wait
	}{
		"nobody":                           {bounded, nil, -1, route.WaitNothing},
		"nothing written: the least busy":  {route.Mark{}, []route.Reader{reader("a", 0, busy), reader("b", 0)}, 1, route.WaitNothing},
		"one has replayed":                 {bounded, []route.Reader{reader("a", 499), reader("b", 500, busy)}, 1, route.WaitNothing},
		"of those that have, the best":     {bounded, []route.Reader{reader("a", 500, busy), reader("b", 499), reader("c", 500)}, 2, route.WaitNothing},
		"none has replayed":                {bounded, []route.Reader{reader("a", 499), reader("b", 1)}, -1, route.WaitReplay},
		"not known what to wait for":       {wrote, []route.Reader{reader("a", 5000)}, -1, route.WaitPrimary},
		"too many bytes behind":            {bounded, []route.Reader{reader("a", 500, far)}, -1, route.WaitNothing},
		"too long behind":                  {route.Mark{}, []route.Reader{reader("a", 500, old)}, -1, route.WaitNothing},
		"kept out of the choice":           {wrote, []route.Reader{reader("a", 500, apart)}, -1, route.WaitNothing},
		"the connection is new":            {bounded, []route.Reader{reader("a", 500, fresh)}, -1, route.WaitReplay},
		"out of the choice, another waits": {bounded, []route.Reader{reader("a", 500, apart), reader("b", 499)}, -1, route.WaitReplay},
	} {
		serve, wait := route.Fresh(c.mark, c.readers, bound)
		if serve != c.serve || wait != c.wait {
			t.Errorf("%s: %d, %q; want %d, %q", name, serve, wait, c.serve, c.wait)
		}
	}
	readers := []route.Reader{reader("a", 499), reader("b", 500)}
	if n := testing.AllocsPerRun(100, func() { route.Fresh(bounded, readers, bound) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzConsistency(f *testing.F) {
	f.Add("strict")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := route.ParseConsistency(s)
		if err != nil && (c != "" || !errors.As(err, new(*route.ErrConsistency))) {
			t.Fatalf("%q: %q, %v", s, c, err)
		}
		if again, err2 := route.ParseConsistency(string(c)); err == nil && (err2 != nil || again != c) {
			t.Fatalf("%q is not itself", c)
		}
	})
}
