package detector

import (
	"fmt"
	"strings"
	"time"

	"howdah/consul/schema"
)

// Level is how sure one may be that a primary is gone.
type Level string

// The levels. Only gone speaks of death; unknown is not a step on the way to it.
const (
	LevelAlive   Level = "alive"   // something proves life
	LevelUnknown Level = "unknown" // nothing was learned, or nothing that counts
	LevelSuspect Level = "suspect" // some signs of death, not all
	LevelGone    Level = "gone"    // every witness is known, and all of them say so
)

// Answer is what a witness says; its zero value is that it says nothing.
type Answer string

// The answers of a standby to: have you received WAL or a keepalive from the primary just now?
const (
	AnswerUnknown Answer = ""
	AnswerYes     Answer = "yes"
	AnswerNo      Answer = "no"
)

// ProbeResult is how a connection attempt to the primary's Postgres port ended.
type ProbeResult string

// The results of a probe.
const (
	ProbeUnknown ProbeResult = ""
	ProbeOK      ProbeResult = "ok"      // Postgres answered, be it with an error message
	ProbeRefused ProbeResult = "refused" // the host answered, nobody listens
	ProbeTimeout ProbeResult = "timeout" // nothing answered
)

// FreshFor is how long an observation counts; older ones are as good as none.
const FreshFor = 1500 * time.Millisecond

// StandbyEvidence is what one standby says about the primary.
type StandbyEvidence struct {
	Name string
	// Gossip is the standby's own liveness. The word of a dead or departed standby is not awaited.
	Gossip schema.Liveness
	// Receiving is whether it has received WAL or a keepalive from the primary just now. That a WAL
	// receiver process exists is not enough: with a frozen primary it exists for wal_receiver_timeout.
	Receiving Answer
	// At is when its answer was heard.
	At schema.Instant
}

// ProbeEvidence is what one prober found at the primary's Postgres port.
type ProbeEvidence struct {
	By     string
	Result ProbeResult
	At     schema.Instant
}

// Evidence is all that one process knows about a primary at one moment. Every field's zero value
// means unknown. All instants are of this machine's clock.
type Evidence struct {
	Now     schema.Instant
	Primary string
	Epoch   schema.Epoch
	// Gossip is the liveness of the primary's sidecar, GossipSince when gossip came to think so.
	Gossip      schema.Liveness
	GossipSince schema.Instant
	// StatusAt is when the primary's own status was last heard (schema.Peer.HeardAt).
	StatusAt schema.Instant
	// Standbys has one entry for each member that the leader record names besides the primary, also
	// for those of which nothing is known: a witness left out is a witness not heard.
	Standbys []StandbyEvidence
	// Probes has one entry for each prober that was asked, answered or not.
	Probes []ProbeEvidence
	// LeaseSeenAt is when the leader key's present index was first seen, LeaseReadAt when it was
	// last read (both Never if it was not), Lease the length that the holder counts by.
	LeaseSeenAt, LeaseReadAt schema.Instant
	Lease                    time.Duration
}

// Verdict is the outcome of Judge.
type Verdict struct {
	Level Level
	// Why is the reason in words for a person.
	Why string
}

// finding is what one kind of evidence comes to.
type finding int

const (
	silent  finding = iota // unknown
	life                   // proves that the primary's Postgres or lease lives
	sidecar                // the sidecar lives, which says nothing certain about its Postgres
	doubt                  // a sign of death with which somebody has not agreed yet
	death                  // a sign of death
)

// Judge weighs the evidence about a primary. It is a function of e alone.
//
//   - A lease that is being renewed, a standby that receives, a probe that was answered or a status heard
//     just now prove life, whatever gossip says.
//   - Gone needs all of: gossip dead or departed; the primary's status once heard and then silent; the lease
//     read lately and its renewals missed; at least one live standby that answers, and each of them says
//     no; at least one probe, and each of them refused or unanswered.
//   - Anything in between is suspect if there is any sign of death, else unknown.
//
// So to take evidence away never makes a verdict gone, and to take a sign of death away never makes a
// verdict worse.
func Judge(e Evidence) Verdict {
	var reasons []string
	counts := map[finding]int{}
	for _, weigh := range []func(Evidence) (finding, string){lease, standbys, probes, status, gossip} {
		f, why := weigh(e)
		counts[f]++
		reasons = append(reasons, why)
		if f == life {
			return Verdict{LevelAlive, aliveWhy(e, why)}
		}
	}
	why := fmt.Sprintf("%s (epoch %d): %s", e.Primary, e.Epoch, strings.Join(reasons, "; "))
	switch {
	case counts[death] == len(reasons):
		return Verdict{LevelGone, why}
	case counts[death]+counts[doubt] > 0:
		return Verdict{LevelSuspect, why}
	case counts[sidecar] > 0:
		return Verdict{LevelAlive, why}
	}
	return Verdict{LevelUnknown, why}
}

func aliveWhy(e Evidence, why string) string {
	why = fmt.Sprintf("%s (epoch %d): %s", e.Primary, e.Epoch, why)
	if e.Gossip == schema.LivenessDead || e.Gossip == schema.LivenessLeft || e.Gossip == schema.LivenessSuspect {
		return fmt.Sprintf("%s; but it is cut off from here (gossip: %s)", why, e.Gossip)
	}
	return why
}

func (e Evidence) fresh(at schema.Instant) bool {
	return at != schema.Never && e.Now.Sub(at) <= FreshFor
}

// lease counts as being renewed until two renewals in a row are missed.
func lease(e Evidence) (finding, string) {
	if e.Lease <= 0 || e.LeaseSeenAt == schema.Never || !e.fresh(e.LeaseReadAt) {
		return silent, "the lease could not be read lately"
	}
	seen := e.Now.Sub(e.LeaseSeenAt)
	if seen < 2*schema.RenewInterval(e.Lease) {
		return life, fmt.Sprintf("its lease was renewed %s ago", round(seen))
	}
	return death, fmt.Sprintf("its lease was not renewed for %s", round(seen))
}

func standbys(e Evidence) (finding, string) {
	var no, open []string
	for _, s := range e.Standbys {
		switch {
		case s.Gossip == schema.LivenessDead || s.Gossip == schema.LivenessLeft:
		case !e.fresh(s.At) || s.Receiving == AnswerUnknown:
			open = append(open, s.Name)
		case s.Receiving == AnswerYes:
			return life, fmt.Sprintf("%s receives WAL from it", s.Name)
		case s.Gossip == schema.LivenessUnknown || s.Gossip == "":
			// Its no counts only as the no of a live standby, or not to know that it is dead would add a witness.
			open = append(open, s.Name)
		default:
			no = append(no, s.Name)
		}
	}
	switch {
	case len(no) == 0 && len(open) == 0:
		return silent, "no live standby could tell"
	case len(no) == 0:
		return silent, fmt.Sprintf("not known whether %s still receives", strings.Join(open, ", "))
	case len(open) > 0:
		return doubt, fmt.Sprintf("%s receives nothing; not known of %s", strings.Join(no, ", "), strings.Join(open, ", "))
	}
	return death, fmt.Sprintf("no standby receives from it (%s)", strings.Join(no, ", "))
}

func probes(e Evidence) (finding, string) {
	var failed, open []string
	for _, p := range e.Probes {
		switch {
		case !e.fresh(p.At) || p.Result == ProbeUnknown:
			open = append(open, p.By)
		case p.Result == ProbeOK:
			return life, fmt.Sprintf("its Postgres answers %s", p.By)
		default:
			failed = append(failed, fmt.Sprintf("%s: %s", p.By, p.Result))
		}
	}
	switch {
	case len(failed) == 0:
		return silent, "its Postgres port was not probed lately"
	case len(open) > 0:
		return doubt, fmt.Sprintf("its Postgres does not answer (%s); no result from %s", strings.Join(failed, ", "), strings.Join(open, ", "))
	}
	return death, fmt.Sprintf("its Postgres does not answer (%s)", strings.Join(failed, ", "))
}

// status proves life only if it was heard after gossip gave the sidecar up.
func status(e Evidence) (finding, string) {
	if e.StatusAt == schema.Never {
		return silent, "its status was never heard"
	}
	age := e.Now.Sub(e.StatusAt)
	gaveUp := (e.Gossip == schema.LivenessDead || e.Gossip == schema.LivenessLeft) && e.GossipSince != schema.Never
	if e.fresh(e.StatusAt) && !(gaveUp && e.StatusAt <= e.GossipSince) {
		return sidecar, fmt.Sprintf("its status was heard %s ago", round(age))
	}
	return death, fmt.Sprintf("its last status is %s old", round(age))
}

func gossip(e Evidence) (finding, string) {
	switch e.Gossip {
	case schema.LivenessAlive:
		return sidecar, "gossip holds its sidecar for alive"
	case schema.LivenessDead, schema.LivenessLeft:
		if e.GossipSince == schema.Never {
			return doubt, fmt.Sprintf("gossip holds its sidecar for %s, it is not known since when", e.Gossip)
		}
		return death, fmt.Sprintf("gossip holds its sidecar for %s since %s", e.Gossip, round(e.Now.Sub(e.GossipSince)))
	case schema.LivenessSuspect:
		return doubt, "gossip suspects its sidecar"
	}
	return silent, "gossip knows nothing of its sidecar"
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
