package detector

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Timing are the tunables of the failure detector. The formulas are those of
// memberlist v0.7.0 (state.go, suspicion.go, util.go); n is the number of processes
// in the gossip, routers included.
//
// A process that stops at once is called dead after about
//
//	wait + ProbeInterval + SuspicionMult * max(1, log10 n) * ProbeInterval
//
// where wait, until somebody probes it, is about one ProbeInterval: n-1 processes each
// probe one of their n-1 peers in each interval. A process that pauses for less than
// Timing.Silence and then answers is never called dead.
type Timing struct {
	// ProbeInterval is how often a process probes one peer, in turn. It is also how long a
	// probe may stay unanswered, by whatever way, before the peer is suspected.
	// Smaller: quicker verdicts, more packets (n of them in each interval), and shorter
	// pauses that are forgiven without a suspicion.
	ProbeInterval time.Duration
	// ProbeTimeout is how long the direct UDP ping may take before other ways are tried:
	// IndirectChecks peers, and TCP. Should be above the 99th percentile of the round trip and at
	// most ProbeInterval/2 less one round trip: a helper waits for as long again before it
	// reports that it had no answer either, and if its report comes too late the prober
	// thinks itself ill (see AwarenessMax).
	ProbeTimeout time.Duration
	// IndirectChecks is how many peers are asked to ping a silent one. One answer by any way
	// suffices. More: a broken link between two hosts is less often taken for a dead process.
	IndirectChecks int
	// SuspicionMult sets how long a suspected peer may still refute:
	//   SuspicionMult * max(1, log10 n) * ProbeInterval
	// once SuspicionMult-2 others have confirmed the suspicion (none are waited for where fewer than that exist).
	// Larger: longer pauses are forgiven, later verdicts.
	SuspicionMult int
	// SuspicionMaxMult bounds the wait without confirmation: a process that is alone with its suspicion
	// waits SuspicionMaxMult times as long, because it may be the one that is cut off.
	SuspicionMaxMult int
	// AwarenessMax bounds how far a process that has reason to think itself ill (its helpers do
	// not answer, others suspect it) stretches its probes: at most AwarenessMax * ProbeInterval.
	// Larger: an overloaded host accuses others less; its own verdicts come later.
	AwarenessMax int
	// GossipInterval is how often news (suspicions, deaths, metadata) is passed on to GossipNodes
	// random peers; pings carry it besides. News is known to all after about
	// GossipInterval * log(n)/log(GossipNodes+1). An interval without news sends nothing.
	GossipInterval time.Duration
	GossipNodes    int
	// RetransmitMult sets how often each piece of news is passed on: RetransmitMult * ceil(log10(n+1)).
	// Larger: survives more loss.
	RetransmitMult int
	// GossipToTheDead is how long a dead process is still told what is said of it, so that it can
	// refute. After that memberlist forgets it, and only the rejoin loop finds it again.
	GossipToTheDead time.Duration
	// PushPullInterval is how often the whole state is exchanged with one random peer over TCP.
	// It bounds how long a difference that gossip has missed can last.
	PushPullInterval time.Duration
	// StreamTimeout bounds each TCP exchange. A frozen process still accepts connections: this
	// is how long it holds up whoever talks to it.
	StreamTimeout time.Duration
	// StatusInterval is how often the last status is sent again while no newer one is published. It
	// repairs a lost packet and shows that the process runs.
	StatusInterval time.Duration
	// SuspectAfter is how long a peer that gossip holds for alive may be silent towards this
	// process before it is shown as suspect here. More than 2 * StatusInterval, so that one lost
	// packet does not count.
	SuspectAfter time.Duration
	// RejoinMin and RejoinMax bound the backoff with which addresses that are not alive are tried.
	RejoinMin, RejoinMax time.Duration
	// AskRepeat is the first pause before an unanswered promise request is sent again; the pauses
	// double up to StatusInterval.
	AskRepeat time.Duration
	// ForgetAfter is how long a dead or departed peer is still listed and, if dead, tried.
	ForgetAfter time.Duration
	// PacketBytes is the largest packet, without IP and UDP headers. A status that does not fit
	// goes over TCP instead. 1400 fits Ethernet; less for tunnels.
	PacketBytes int
}

// LAN is for one site, round trips below 20 ms: a dead or frozen process of 3 to 5 is called dead after
// about a second, and one that pauses for less than 800 ms is not.
func LAN() Timing {
	return Timing{
		ProbeInterval:    200 * time.Millisecond,
		ProbeTimeout:     80 * time.Millisecond,
		IndirectChecks:   3,
		SuspicionMult:    3,
		SuspicionMaxMult: 2,
		AwarenessMax:     2,
		GossipInterval:   50 * time.Millisecond,
		GossipNodes:      3,
		RetransmitMult:   4,
		GossipToTheDead:  30 * time.Second,
		PushPullInterval: 5 * time.Second,
		StreamTimeout:    2 * time.Second,
		StatusInterval:   200 * time.Millisecond,
		SuspectAfter:     500 * time.Millisecond,
		RejoinMin:        250 * time.Millisecond,
		RejoinMax:        10 * time.Second,
		AskRepeat:        40 * time.Millisecond,
		ForgetAfter:      time.Hour,
		PacketBytes:      1400,
	}
}

// WAN is for members in several sites, round trips up to 300 ms: the verdict comes after about six
// seconds, and pauses and gaps of less than five seconds are forgiven.
func WAN() Timing {
	t := LAN()
	t.ProbeInterval = time.Second
	t.ProbeTimeout = 400 * time.Millisecond
	t.SuspicionMult = 4
	t.SuspicionMaxMult = 3
	t.AwarenessMax = 4
	t.GossipInterval = 200 * time.Millisecond
	t.GossipToTheDead = time.Minute
	t.PushPullInterval = 15 * time.Second
	t.StreamTimeout = 5 * time.Second
	t.StatusInterval = 500 * time.Millisecond
	t.SuspectAfter = 2 * time.Second
	t.RejoinMin = time.Second
	t.RejoinMax = 30 * time.Second
	t.AskRepeat = 350 * time.Millisecond
	t.PacketBytes = 1200
	return t
}

// Silence is the least time that a process must have been silent before another calls it dead, in a
// gossip of n processes: one failed probe and the shortest suspicion.
func (t Timing) Silence(n int) time.Duration {
	return t.ProbeInterval + t.suspicion(n)
}

// Verdict is about how long it takes until a process that stops is called dead by all of n: a wait of one
// ProbeInterval, a failed probe, the suspicion, and the news of it.
func (t Timing) Verdict(n int) time.Duration {
	return t.Silence(n) + t.ProbeInterval + t.GossipInterval
}

func (t Timing) suspicion(n int) time.Duration {
	scale := max(1, math.Log10(math.Max(1, float64(n))))
	return time.Duration(float64(t.SuspicionMult) * scale * float64(t.ProbeInterval))
}

// Validate returns every mistake in t at once.
func (t Timing) Validate() error {
	var errs []error
	positive := func(key string, d time.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("gossip timing: %s: %s is not allowed; it must be above zero", key, d))
		}
	}
	positive("ProbeInterval", t.ProbeInterval)
	positive("ProbeTimeout", t.ProbeTimeout)
	positive("GossipInterval", t.GossipInterval)
	positive("GossipToTheDead", t.GossipToTheDead)
	positive("PushPullInterval", t.PushPullInterval)
	positive("StreamTimeout", t.StreamTimeout)
	positive("StatusInterval", t.StatusInterval)
	positive("RejoinMin", t.RejoinMin)
	positive("AskRepeat", t.AskRepeat)
	positive("ForgetAfter", t.ForgetAfter)
	if 2*t.ProbeTimeout >= t.ProbeInterval {
		errs = append(errs, fmt.Errorf("gossip timing: ProbeTimeout: %s is not allowed; it must be below half of ProbeInterval (%s), or reports of helpers come too late",
			t.ProbeTimeout, t.ProbeInterval))
	}
	if t.SuspectAfter < 2*t.StatusInterval {
		errs = append(errs, fmt.Errorf("gossip timing: SuspectAfter: %s is not allowed; it must be at least twice StatusInterval (%s)",
			t.SuspectAfter, t.StatusInterval))
	}
	if t.RejoinMax < t.RejoinMin {
		errs = append(errs, fmt.Errorf("gossip timing: RejoinMax: %s is below RejoinMin (%s)", t.RejoinMax, t.RejoinMin))
	}
	for _, c := range []struct {
		key string
		v   int
	}{
		{"IndirectChecks", t.IndirectChecks}, {"SuspicionMult", t.SuspicionMult}, {"SuspicionMaxMult", t.SuspicionMaxMult},
		{"AwarenessMax", t.AwarenessMax}, {"GossipNodes", t.GossipNodes}, {"RetransmitMult", t.RetransmitMult},
	} {
		if c.v < 1 {
			errs = append(errs, fmt.Errorf("gossip timing: %s: %d is not allowed; it must be at least 1", c.key, c.v))
		}
	}
	// memberlist needs room for its own messages with 512 bytes of metadata in them.
	if t.PacketBytes < 1000 || t.PacketBytes > 60000 {
		errs = append(errs, fmt.Errorf("gossip timing: PacketBytes: %d is not allowed; choose from 1000 to 60000", t.PacketBytes))
	}
	return errors.Join(errs...)
}
