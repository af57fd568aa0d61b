package main

import (
	"time"

	"howdah/consul/schema"
)

// split says where the time of one failover went. A part that no event bounds is negative: not measured.
type split struct {
	// Detect is from the fault to the first sign that a member acts upon: the crash noticed, the lease counted as dead,
	// or in a planned switchover the release after the stop.
	Detect time.Duration `json:"detect"`
	// Elect is from there to the takeover, Promote from the takeover to the first moment that writes are accepted,
	// Reroute from there to the router sending sessions to the new primary. It can be less than nothing: then the router
	// knew of it before the event was recorded.
	Elect   time.Duration `json:"elect"`
	Promote time.Duration `json:"promote"`
	Reroute time.Duration `json:"reroute"`
	// PromotedAt is when the new primary accepted writes, Never if there was none; Primary is its name, Epoch its reign.
	PromotedAt schema.Instant `json:"promoted_at"`
	Primary    string         `json:"primary,omitempty"`
	Epoch      schema.Epoch   `json:"epoch,omitempty"`
}

// unmeasured is a part of a split that no event bounds.
const unmeasured time.Duration = -1 << 62

// splitOf reads the events, in the order of time, of the first failover after the fault. before is the epoch that was in
// force: a promotion in a newer one is a failover. All recorders are on this machine, so their instants compare.
func splitOf(events []schema.Event, fault schema.Instant, before schema.Epoch) split {
	s := split{Detect: unmeasured, Elect: unmeasured, Promote: unmeasured, Reroute: unmeasured}
	var detected, elected, rerouted schema.Instant
	idle := false // the lease was counted as dead, and nothing came of it: a promise may have bound the judge
	for _, e := range events {
		if e.At < fault {
			continue
		}
		switch e.Kind {
		case schema.EventCrashed, schema.EventJudged, schema.EventReleased:
			if detected == schema.Never {
				detected, idle = e.At, e.Kind == schema.EventJudged
			}
		case schema.EventElected:
			if elected == schema.Never && e.Epoch > before {
				elected = e.At
			}
		case schema.EventPromoted:
			if s.PromotedAt == schema.Never && e.Epoch > before {
				s.PromotedAt, s.Primary, s.Epoch = e.At, e.By, e.Epoch
			}
		case schema.EventRerouted:
			if rerouted == schema.Never && e.Epoch > before {
				rerouted = e.At
			}
		}
	}
	if idle && s.PromotedAt == schema.Never {
		detected = schema.Never
	}
	between := func(from, to schema.Instant) time.Duration {
		if from == schema.Never || to == schema.Never {
			return unmeasured
		}
		return to.Sub(from)
	}
	s.Detect, s.Elect = between(fault, detected), between(detected, elected)
	s.Promote, s.Reroute = between(elected, s.PromotedAt), between(s.PromotedAt, rerouted)
	return s
}

// measured leaves out the parts that were not.
func measured(values []time.Duration) []time.Duration {
	var kept []time.Duration
	for _, v := range values {
		if v != unmeasured {
			kept = append(kept, v)
		}
	}
	return kept
}
