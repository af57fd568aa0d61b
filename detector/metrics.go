package detector

import (
	"sync/atomic"

	"howdah/consul/schema"
)

// Metrics is a snapshot of the detector's counters, which only grow, and gauges.
type Metrics struct {
	// StatusesSent counts packets and TCP messages, one for each peer; StatusesOversized those of them that did
	// not fit a packet; SendErrors what could not be sent at all.
	StatusesSent, StatusesOversized, SendErrors uint64
	// StatusesHeard counts statuses that replaced an older one, StatusesStale those that did not,
	// StatusesRelayed those learned in a push/pull exchange.
	StatusesHeard, StatusesStale, StatusesRelayed uint64
	// Dropped counts messages for which there was no room, Malformed those that could not be read, Foreign
	// those of other clusters, LogLinesDropped lines of memberlist's log.
	Dropped, Malformed, Foreign, LogLinesDropped uint64
	// PromisesAsked counts questions, PromisesAnswered answers given to others, PromisesDropped questions
	// that came while too many were being answered.
	PromisesAsked, PromisesAnswered, PromisesDropped uint64
	// CancelsCarriedOut counts cancel requests that other routers passed on, CancelsDropped those that came while too many were being carried out.
	CancelsCarriedOut, CancelsDropped uint64
	JoinAttempts, JoinFailures        uint64
	// Peers counts peers by their liveness.
	Peers map[schema.Liveness]int
	// HealthScore is memberlist's opinion of this process: 0 is well; more means that it stretches its probes.
	HealthScore int
	Conflicts   int
}

type counters struct {
	statusesSent, statusesOversized, sendErrors      atomic.Uint64
	statusesHeard, statusesStale, statusesRelayed    atomic.Uint64
	malformed, foreign                               atomic.Uint64
	promisesAsked, promisesAnswered, promisesDropped atomic.Uint64
	cancelsCarriedOut, cancelsDropped                atomic.Uint64
	joinAttempts, joinFailures                       atomic.Uint64
}

// Metrics returns the counters and gauges of this moment.
func (d *Detector) Metrics() Metrics {
	c := &d.counters
	m := Metrics{
		StatusesSent: c.statusesSent.Load(), StatusesOversized: c.statusesOversized.Load(), SendErrors: c.sendErrors.Load(),
		StatusesHeard: c.statusesHeard.Load(), StatusesStale: c.statusesStale.Load(), StatusesRelayed: c.statusesRelayed.Load(),
		Dropped: d.box.drops(), Malformed: c.malformed.Load(), Foreign: c.foreign.Load() + d.logs.foreign.Load(),
		LogLinesDropped: d.logs.dropped.Load(),
		PromisesAsked:   c.promisesAsked.Load(), PromisesAnswered: c.promisesAnswered.Load(), PromisesDropped: c.promisesDropped.Load(),
		CancelsCarriedOut: c.cancelsCarriedOut.Load(), CancelsDropped: c.cancelsDropped.Load(),
		JoinAttempts: c.joinAttempts.Load(), JoinFailures: c.joinFailures.Load(),
		Peers:       map[schema.Liveness]int{},
		HealthScore: d.ml.GetHealthScore(),
		Conflicts:   len(d.Conflicts()),
	}
	for _, p := range d.Peers() {
		m.Peers[p.Liveness]++
	}
	return m
}
