package route_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"howdah/consul/schema"
	"howdah/router/route"
)

// The model is a cluster in which everything that this package guards against happens: commits, some of them acknowledged before they are
// flushed, replication and replay at any pace, samples that take their time, restarts that lose what was replayed, primaries that die
// and standbys that are promoted without all of it, members left on a branch of history that was given up. Time is a counter of steps.

type modelCommit struct {
	session    int
	timeline   schema.Timeline
	lsn        schema.LSN
	answeredAt schema.Instant // Never while it is not
}

type modelServer struct {
	timeline schema.Timeline
	received schema.LSN // of a primary: inserted
	flushed  schema.LSN // of a primary
	replayed schema.LSN
	floor    schema.LSN // where a restart begins to replay
	life     int        // connections end with it
	// The one sample that is under way.
	asked   schema.Instant // Never: none
	askedIn int            // life
	value   route.Position // unknown until the server has read it
	flush   schema.LSN
}

type modelSession struct {
	mark       route.Mark
	unanswered int // index of a commit; -1: none
	since      []schema.Instant
	life       []int
	reads      []modelRead
	// seen are the commits that reads have shown, shown says that some may not be in mark; on is the standby that showed them, in its life onLife; -1 is the primary.
	seen       map[route.Position]bool
	shown      bool
	on, onLife int
}

type modelRead struct {
	begun  schema.Instant
	strict bool
	mark   route.Mark
	server int // -1 while none is chosen
	life   int
}

// modelFaults are ways to get it wrong; the model must find each.
type modelFaults struct{ answeredNotAsked, noTimelines, noSince, flushed, forgetful bool }

type model struct {
	rng         *rand.Rand
	faults      modelFaults
	now         schema.Instant
	servers     []*modelServer
	primary     int
	epoch       schema.Epoch
	known       int // the primary that the router knows, with its epoch
	knownEpoch  schema.Epoch
	parent      map[schema.Timeline]schema.Timeline
	fork        map[schema.Timeline]schema.LSN
	commits     []modelCommit
	sessions    []*modelSession
	sample      route.PrimarySample
	samples     []route.StandbySample
	served      int
	exempt      int
	waited      int
	staleAnswer string
}

func newModel(seed uint64, faults modelFaults) *model {
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 7)), faults: faults, now: 1, epoch: 1, knownEpoch: 1,
		parent: map[schema.Timeline]schema.Timeline{}, fork: map[schema.Timeline]schema.LSN{},
	}
	const servers, sessions = 3, 3
	for range servers {
		m.servers = append(m.servers, &modelServer{timeline: 1, received: 100, flushed: 100, replayed: 100, floor: 100})
	}
	m.samples = make([]route.StandbySample, servers)
	for range sessions {
		m.sessions = append(m.sessions, &modelSession{unanswered: -1, on: -1, seen: map[route.Position]bool{}, since: make([]schema.Instant, servers), life: make([]int, servers)})
	}
	return m
}

// holds reports whether what is at or before lsn on timeline t includes c.
func (m *model) holds(t schema.Timeline, lsn schema.LSN, c modelCommit) bool {
	for {
		if c.timeline == t {
			return c.lsn <= lsn
		}
		up, known := m.parent[t]
		if !known {
			return false
		}
		lsn, t = min(lsn, m.fork[t]), up
	}
}

// follows reports whether s can go on along the primary's timeline.
func (m *model) follows(s *modelServer) bool {
	p := m.servers[m.primary]
	limit := p.received
	for t := p.timeline; ; t = m.parent[t] {
		if t == s.timeline {
			return s.received <= limit
		}
		if m.parent[t] == 0 {
			return false
		}
		limit = min(limit, m.fork[t])
	}
}

func (m *model) step() {
	m.now++
	p := m.servers[m.primary]
	i := m.rng.IntN(len(m.servers))
	s := m.servers[i]
	c := m.sessions[m.rng.IntN(len(m.sessions))]
	switch n := m.rng.IntN(100); {
	case n < 12:
		m.write(p, c)
	case n < 20:
		m.answer(c)
	case n < 22:
		p.received += schema.LSN(1 + m.rng.IntN(3)) // of a transaction that goes on
	case n < 27:
		p.flushed = p.received
	case n < 42 && i != m.primary:
		if m.follows(s) {
			s.timeline = p.timeline
			s.received = min(p.flushed, s.received+schema.LSN(m.rng.IntN(6)))
		}
	case n < 55 && i != m.primary:
		s.replayed = min(s.received, s.replayed+schema.LSN(m.rng.IntN(6)))
	case n < 70:
		m.sampleStep(i)
	case n < 76:
		c.since[i], c.life[i] = m.now, s.life
	case n < 90:
		m.read(c)
	case n < 92 && i != m.primary:
		s.floor += schema.LSN(m.rng.IntN(int(s.replayed-s.floor) + 1))
	case n < 94 && i != m.primary:
		s.life++
		s.replayed = s.floor + schema.LSN(m.rng.IntN(int(s.replayed-s.floor)+1))
	case n < 95 && i != m.primary && m.follows(s): // nobody is promoted who is on a branch that was given up
		m.failOver(i)
	case n < 97:
		m.known, m.knownEpoch = m.primary, m.epoch
	case n < 98 && i != m.primary && !m.follows(s):
		s.life++
		s.timeline, s.received, s.replayed, s.floor = p.timeline, p.flushed, p.flushed, p.flushed
	}
	m.sampleStep(m.rng.IntN(len(m.servers)))
	for _, c := range m.sessions {
		m.goOn(c)
	}
}

func (m *model) write(p *modelServer, c *modelSession) {
	// A session writes by way of the router, to the primary that it knows.
	if c.unanswered >= 0 || len(c.reads) > 0 || m.known != m.primary || m.knownEpoch != m.epoch {
		return
	}
	p.received += schema.LSN(1 + m.rng.IntN(3))
	if m.rng.IntN(2) == 0 {
		p.flushed = p.received
	}
	for i, s := range m.sessions {
		if s == c {
			m.commits = append(m.commits, modelCommit{session: i, timeline: p.timeline, lsn: p.received})
		}
	}
	c.unanswered = len(m.commits) - 1
}

func (m *model) answer(c *modelSession) {
	if c.unanswered < 0 {
		return
	}
	m.commits[c.unanswered].answeredAt = m.now
	c.mark = c.mark.Wrote(m.now, m.knownEpoch)
	c.unanswered, c.shown = -1, false
}

func (m *model) failOver(to int) {
	old, s := m.servers[m.primary], m.servers[to]
	m.epoch++
	next := schema.Timeline(len(m.parent) + 2)
	m.parent[next], m.fork[next] = s.timeline, s.received
	s.timeline, s.flushed, s.replayed = next, s.received, s.received
	s.asked = schema.Never
	m.primary = to
	old.life++
	old.received, old.replayed, old.floor = old.flushed, old.flushed, old.flushed
	// A commit that waited for its answer fails, or is answered all the same.
	for _, c := range m.sessions {
		if c.unanswered >= 0 && m.rng.IntN(2) == 0 {
			m.commits = append(m.commits[:c.unanswered:c.unanswered], m.commits[c.unanswered+1:]...)
			for _, d := range m.sessions {
				if d.unanswered > c.unanswered {
					d.unanswered--
				}
			}
			c.unanswered = -1
		}
	}
}

// sampleStep takes the sample of a server one step further: asked, read, answered.
func (m *model) sampleStep(i int) {
	s := m.servers[i]
	switch {
	case s.asked != schema.Never && s.askedIn != s.life:
		s.asked = schema.Never
	case s.asked == schema.Never:
		s.asked, s.askedIn, s.value = m.now, s.life, route.Position{}
	case s.value.Timeline == 0:
		s.value = route.Position{Timeline: s.timeline, LSN: s.replayed}
		if i == m.primary {
			s.value.LSN, s.flush = s.received, s.flushed
		}
	default:
		at, value := s.asked, s.value
		if m.faults.answeredNotAsked {
			at = m.now
		}
		if m.faults.flushed && i == m.primary {
			value.LSN = s.flush
		}
		if m.faults.noTimelines {
			value.Timeline = 1
		}
		// The router asks who it takes for the primary as the primary; only a primary answers that, only a standby the other question.
		if i == m.known && i == m.primary {
			m.sample = route.PrimarySample{AskedAt: at, Epoch: m.knownEpoch, Position: value}
		} else if i != m.known && i != m.primary {
			m.samples[i] = route.StandbySample{AskedAt: at, Position: value}
		}
		s.asked = schema.Never
	}
}

func (m *model) read(c *modelSession) {
	if c.unanswered >= 0 || len(c.reads) > 0 {
		return
	}
	r := modelRead{begun: m.now, strict: m.rng.IntN(2) == 0, mark: c.mark, server: -1}
	if r.strict {
		r.mark = r.mark.Wrote(m.now, m.knownEpoch)
	}
	c.reads = append(c.reads, r)
}

// goOn gives the session's read to a standby, or lets that answer it.
func (m *model) goOn(c *modelSession) {
	if len(c.reads) == 0 {
		return
	}
	r := &c.reads[0]
	if r.server >= 0 {
		if m.rng.IntN(3) == 0 {
			m.check(c, *r)
			c.reads = nil
		}
		return
	}
	r.mark = r.mark.Learn(m.sample)
	if !r.strict {
		c.mark = r.mark
	}
	var readers []route.Reader
	var index []int
	for i, s := range m.servers {
		if i == m.known || c.life[i] != s.life || c.since[i] == schema.Never {
			continue
		}
		since := c.since[i]
		if m.faults.noSince {
			since = schema.Never
		}
		sessions := m.rng.IntN(3)
		if i == c.on && m.rng.IntN(4) > 0 {
			sessions = -1 // most sessions stay where they are
		}
		readers = append(readers, route.Reader{Candidate: route.Candidate{Member: fmt.Sprint(i), Sessions: sessions}, Sample: m.samples[i], Since: since})
		index = append(index, i)
	}
	serve, _ := route.Fresh(r.mark, readers, route.Bound{})
	switch {
	case serve >= 0 && c.shown && (index[serve] != c.on || c.onLife != m.servers[index[serve]].life) && !m.faults.forgetful:
		// What reads have shown so far must be there too.
		c.mark, c.shown = c.mark.Wrote(m.now, m.knownEpoch), false
		r.mark = c.mark
	case serve >= 0:
		r.server, r.life = index[serve], m.servers[index[serve]].life
	case m.now.Sub(r.begun) > 100:
		m.waited++
		c.reads = nil // the primary serves
		if p := m.servers[m.primary]; m.known == m.primary && m.knownEpoch == m.epoch {
			m.show(c, p.timeline, p.received)
			c.on = -1
		}
	}
}

// check compares what the standby shows with what the read has to see.
func (m *model) check(c *modelSession, r modelRead) {
	s := m.servers[r.server]
	if s.life != r.life || r.server == m.primary {
		return // its connection has ended, or it shows all there is
	}
	m.served++
	m.checkSeen(c, r)
	p := m.servers[m.primary]
	for _, k := range m.commits {
		mine := m.sessions[k.session] == c
		if k.answeredAt == schema.Never || k.answeredAt > r.begun || !mine && !r.strict || m.holds(s.timeline, s.replayed, k) {
			continue
		}
		if !m.holds(p.timeline, p.received, k) {
			m.exempt++ // a failover has lost it
			continue
		}
		m.staleAnswer = fmt.Sprintf("at %d: strict %v: server %d at %d/%d lacks the commit %+v; mark %+v, sample %+v", m.now, r.strict, r.server, s.timeline, s.replayed, k, r.mark, m.samples[r.server])
	}
}

// show takes in that a session has seen what is at or before lsn on timeline t.
func (m *model) show(c *modelSession, t schema.Timeline, lsn schema.LSN) {
	for _, k := range m.commits {
		if m.holds(t, lsn, k) {
			c.seen[route.Position{Timeline: k.timeline, LSN: k.lsn}] = true
		}
	}
	c.shown = true
}

// checkSeen finds what the session has seen and a later read does not show.
func (m *model) checkSeen(c *modelSession, r modelRead) {
	s, p := m.servers[r.server], m.servers[m.primary]
	for at := range c.seen {
		k := modelCommit{timeline: at.Timeline, lsn: at.LSN}
		if !m.holds(s.timeline, s.replayed, k) && m.holds(p.timeline, p.received, k) {
			m.staleAnswer = fmt.Sprintf("at %d: server %d at %d/%d lacks %+v, which the session has seen on %d; mark %+v", m.now, r.server, s.timeline, s.replayed, at, c.on, r.mark)
		}
	}
	m.show(c, s.timeline, s.replayed)
	c.on, c.onLife = r.server, r.life
}

// run returns the first stale answer; empty if there is none.
func (m *model) run(steps int) string {
	for range steps {
		if m.step(); m.staleAnswer != "" {
			return m.staleAnswer
		}
	}
	return ""
}

const modelSeeds, modelSteps = 5000, 600

func TestNoStaleRead(t *testing.T) {
	served, exempt, waited := 0, 0, 0
	for seed := range uint64(modelSeeds) {
		m := newModel(seed, modelFaults{})
		if stale := m.run(modelSteps); stale != "" {
			t.Fatalf("seed %d: %s", seed, stale)
		}
		served, exempt, waited = served+m.served, exempt+m.exempt, waited+m.waited
	}
	t.Logf("%d reads by standbys, %d by the primary after a wait, %d lost commits passed over", served, waited, exempt)
	if served < 4*modelSeeds || exempt == 0 || waited == 0 {
		t.Errorf("the model tests little: %d reads by standbys, %d by the primary after a wait, %d lost commits", served, waited, exempt)
	}
}

// Each way to get it wrong must show.
func TestModelFindsFaults(t *testing.T) {
	for name, faults := range map[string]modelFaults{
		"samples dated by their answer":        {answeredNotAsked: true},
		"LSNs compared across timelines":       {noTimelines: true},
		"samples from before the connection":   {noSince: true},
		"the flush LSN as the bound of commit": {flushed: true},
		"what was seen elsewhere forgotten":    {forgetful: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(modelSeeds) {
				if newModel(seed, faults).run(modelSteps) != "" {
					return
				}
			}
			t.Error("the model does not find it")
		})
	}
}
