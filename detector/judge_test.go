package detector

import (
	"math/rand/v2"
	"testing"
	"time"

	"howdah/consul/schema"
)

const judgeNow = schema.Instant(1000 * int64(time.Second))

func ago(d time.Duration) schema.Instant { return judgeNow.Add(-d) }

// dying is evidence of which every piece speaks of death.
func dying() Evidence {
	return Evidence{
		Now: judgeNow, Primary: "a", Epoch: 7,
		Gossip: schema.LivenessDead, GossipSince: ago(300 * time.Millisecond), StatusAt: ago(1400 * time.Millisecond),
		Standbys: []StandbyEvidence{
			{"b", schema.LivenessAlive, AnswerNo, ago(100 * time.Millisecond)},
			{"c", schema.LivenessAlive, AnswerNo, ago(200 * time.Millisecond)},
		},
		Probes:      []ProbeEvidence{{"b", ProbeRefused, ago(100 * time.Millisecond)}},
		LeaseSeenAt: ago(1100 * time.Millisecond), LeaseReadAt: ago(100 * time.Millisecond), Lease: 3 * time.Second,
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Evidence)
		want   Level
	}{
		{"all signs of death", func(*Evidence) {}, LevelGone},
		{"departed", func(e *Evidence) { e.Gossip = schema.LivenessLeft }, LevelGone},
		{"probe unanswered", func(e *Evidence) { e.Probes[0].Result = ProbeTimeout }, LevelGone},
		{"a standby is dead itself", func(e *Evidence) { e.Standbys[1] = StandbyEvidence{Name: "c", Gossip: schema.LivenessDead} }, LevelGone},

		{"lease renewed although all else says dead", func(e *Evidence) { e.LeaseSeenAt = ago(400 * time.Millisecond) }, LevelAlive},
		{"one renewal missed", func(e *Evidence) { e.LeaseSeenAt = ago(900 * time.Millisecond) }, LevelAlive},
		{"a standby receives", func(e *Evidence) { e.Standbys[1].Receiving = AnswerYes }, LevelAlive},
		{"the port answers", func(e *Evidence) { e.Probes[0].Result = ProbeOK }, LevelAlive},

		{"gossip unknown", func(e *Evidence) { e.Gossip = schema.LivenessUnknown }, LevelSuspect},
		{"gossip alive", func(e *Evidence) { e.Gossip = schema.LivenessAlive }, LevelSuspect},
		{"gossip suspects only", func(e *Evidence) { e.Gossip = schema.LivenessSuspect }, LevelSuspect},
		{"dead, but since when", func(e *Evidence) { e.GossipSince = schema.Never }, LevelSuspect},
		{"status never heard", func(e *Evidence) { e.StatusAt = schema.Never }, LevelSuspect},
		{"status heard after gossip gave up", func(e *Evidence) { e.StatusAt = ago(100 * time.Millisecond) }, LevelSuspect},
		{"no standbys", func(e *Evidence) { e.Standbys = nil }, LevelSuspect},
		{"a standby's answer is old", func(e *Evidence) { e.Standbys[1].At = ago(2 * time.Second) }, LevelSuspect},
		{"all standbys dead", func(e *Evidence) {
			e.Standbys[0].Gossip, e.Standbys[1].Gossip = schema.LivenessDead, schema.LivenessLeft
		}, LevelSuspect},
		{"not probed", func(e *Evidence) { e.Probes = nil }, LevelSuspect},
		{"probe is old", func(e *Evidence) { e.Probes[0].At = ago(2 * time.Second) }, LevelSuspect},
		{"lease not read lately", func(e *Evidence) { e.LeaseReadAt = ago(2 * time.Second) }, LevelSuspect},
		{"length of the lease unknown", func(e *Evidence) { e.Lease = 0 }, LevelSuspect},

		{"nothing known", func(e *Evidence) { *e = Evidence{Now: judgeNow, Primary: "a"} }, LevelUnknown},
		{"an unanswered probe alone", func(e *Evidence) {
			*e = Evidence{Now: judgeNow, Probes: []ProbeEvidence{{"b", ProbeTimeout, ago(0)}}}
		}, LevelSuspect},
		{"gossip death alone", func(e *Evidence) {
			*e = Evidence{Now: judgeNow, Gossip: schema.LivenessDead, GossipSince: ago(time.Second)}
		}, LevelSuspect},
		{"gossip alive alone", func(e *Evidence) {
			*e = Evidence{Now: judgeNow, Gossip: schema.LivenessAlive, GossipSince: ago(time.Hour)}
		}, LevelAlive},
		{"all is well", func(e *Evidence) {
			e.Gossip, e.StatusAt, e.LeaseSeenAt = schema.LivenessAlive, ago(100*time.Millisecond), ago(100*time.Millisecond)
			e.Standbys[0].Receiving, e.Standbys[1].Receiving, e.Probes[0].Result = AnswerYes, AnswerYes, ProbeOK
		}, LevelAlive},
		{"sidecar lives, Postgres does not answer", func(e *Evidence) {
			*e = Evidence{Now: judgeNow, Gossip: schema.LivenessAlive, GossipSince: ago(time.Hour), StatusAt: ago(0),
				Probes: []ProbeEvidence{{"b", ProbeRefused, ago(0)}}}
		}, LevelSuspect},
	} {
		e := dying()
		c.change(&e)
		if v := Judge(e); v.Level != c.want || v.Why == "" {
			t.Errorf("%s: %+v, want %s", c.name, v, c.want)
		}
	}
}

func TestJudgeSaysWhy(t *testing.T) {
	want := "a (epoch 7): its lease was not renewed for 1.1s; no standby receives from it (b, c); its Postgres does not answer (b: refused); its last status is 1.4s old; gossip holds its sidecar for dead since 300ms"
	if v := Judge(dying()); v.Why != want {
		t.Errorf("got  %s\nwant %s", v.Why, want)
	}
	e := dying()
	e.LeaseSeenAt = ago(200 * time.Millisecond)
	want = "a (epoch 7): its lease was renewed 200ms ago; but it is cut off from here (gossip: dead)"
	if v := Judge(e); v.Why != want {
		t.Errorf("got  %s\nwant %s", v.Why, want)
	}
}

// anyEvidence is dominated by signs of death, so that gone is not rare.
func anyEvidence(r *rand.Rand) Evidence {
	when := func() schema.Instant {
		switch r.IntN(8) {
		case 0:
			return schema.Never
		case 1:
			return ago(time.Duration(r.IntN(4000)) * time.Millisecond)
		}
		return ago(time.Duration(r.IntN(1500)) * time.Millisecond)
	}
	mostly := func(usual int, n int) int {
		if r.IntN(5) > 0 {
			return usual
		}
		return r.IntN(n)
	}
	live := []schema.Liveness{schema.LivenessDead, schema.LivenessAlive, schema.LivenessUnknown, schema.LivenessSuspect, schema.LivenessLeft}
	e := dying()
	e.Gossip, e.GossipSince, e.StatusAt = live[mostly(0, 5)], when(), when()
	e.LeaseReadAt, e.LeaseSeenAt = when(), ago(time.Duration(r.IntN(5000))*time.Millisecond)
	for i := range e.Standbys {
		e.Standbys[i] = StandbyEvidence{e.Standbys[i].Name, live[mostly(1, 5)], []Answer{AnswerNo, AnswerYes, AnswerUnknown}[mostly(0, 3)], when()}
	}
	e.Probes = append(e.Probes, ProbeEvidence{By: "c"})
	for i := range e.Probes {
		e.Probes[i].Result, e.Probes[i].At = []ProbeResult{ProbeRefused, ProbeTimeout, ProbeOK, ProbeUnknown}[mostly(r.IntN(2), 4)], when()
	}
	return e
}

// removals make one piece of evidence unknown.
func removals(e Evidence) map[string]Evidence {
	out := map[string]Evidence{}
	change := func(name string, f func(*Evidence)) {
		c := e
		c.Standbys = append([]StandbyEvidence(nil), e.Standbys...)
		c.Probes = append([]ProbeEvidence(nil), e.Probes...)
		f(&c)
		out[name] = c
	}
	change("gossip", func(c *Evidence) { c.Gossip = schema.LivenessUnknown })
	change("gossip since", func(c *Evidence) { c.GossipSince = schema.Never })
	change("status", func(c *Evidence) { c.StatusAt = schema.Never })
	change("lease", func(c *Evidence) { c.Lease = 0 })
	change("lease seen", func(c *Evidence) { c.LeaseSeenAt = schema.Never })
	change("lease read", func(c *Evidence) { c.LeaseReadAt = schema.Never })
	for i := range e.Standbys {
		change(e.Standbys[i].Name+" receiving", func(c *Evidence) { c.Standbys[i].Receiving = AnswerUnknown })
		change(e.Standbys[i].Name+" at", func(c *Evidence) { c.Standbys[i].At = schema.Never })
		change(e.Standbys[i].Name+" gossip", func(c *Evidence) { c.Standbys[i].Gossip = schema.LivenessUnknown })
	}
	for i := range e.Probes {
		change(e.Probes[i].By+" probe", func(c *Evidence) { c.Probes[i].Result = ProbeUnknown })
		change(e.Probes[i].By+" probed at", func(c *Evidence) { c.Probes[i].At = schema.Never })
	}
	return out
}

func TestNotKnowingNeverMakesGone(t *testing.T) {
	rank := map[Level]int{LevelAlive: 0, LevelUnknown: 0, LevelSuspect: 1, LevelGone: 2}
	r := rand.New(rand.NewPCG(1, 2))
	gone := 0
	for range 2500 {
		e := anyEvidence(r)
		before := Judge(e)
		if before.Level == LevelGone {
			gone++
		}
		for what, less := range removals(e) {
			after := Judge(less)
			if before.Level != LevelGone && after.Level == LevelGone {
				t.Fatalf("without %s: %s became gone\n%+v", what, before.Level, e)
			}
			// Where nothing spoke of life, less evidence is less ground for a worse verdict.
			if before.Level != LevelAlive && rank[after.Level] > rank[before.Level] {
				t.Fatalf("without %s: %+v became %+v\n%+v", what, before, after, e)
			}
		}
	}
	if gone < 30 {
		t.Fatalf("only %d verdicts were gone; the search shows little", gone)
	}
}
