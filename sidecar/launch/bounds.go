package launch

import "time"

const (
	// FenceGrace is the time from the deadline, not from the moment it was noticed, to SIGKILL. Until then
	// backends may say goodbye (SIGQUIT). It stays below the constant 200 ms of schema.Margin, so that the
	// last signal is sent before anybody may judge; a thread that wakes later than this had better not ask.
	FenceGrace = 100 * time.Millisecond
	// StopKillAfter is the time from an immediate stop to SIGKILL; PostgreSQL's own
	// SIGKILL_CHILDREN_AFTER_SECS (src/backend/postmaster/postmaster.c).
	StopKillAfter = 5 * time.Second
	// MaxAhead is how far away a deadline may be: twice the longest lease that the configuration
	// allows. One further away comes from another clock, and would be no fence.
	MaxAhead = 2 * time.Minute
	// killAgainAfter is the pause between two rounds of SIGKILL while something lives still.
	killAgainAfter = 10 * time.Millisecond
	// maxClockAge is how old ClientNow may be on arrival.
	maxClockAge = time.Minute
	// pollTime bounds one long poll of the status.
	pollTime = 30 * time.Second
	// StopTimeout is how long a fast stop may take when the launcher itself is told to end; below the 30 s
	// that a kubelet gives, StopKillAfter included.
	StopTimeout = 20 * time.Second
)
