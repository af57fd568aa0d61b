package launch

import "time"

const (
	// FenceGrace is the time from the deadline, not from the moment it was noticed, to SIGKILL. Until then
	// backends may say goodbye (SIGQUIT). It stays below the constant 200 ms of schema.Margin, so that the
	// last signal is sent before anybody may judge; a thread that wakes later than this had better not ask.
	FenceGrace = 80 * time.Millisecond
	// DeadmanAfter is the time from the deadline to the moment when the kernel kills a launcher that has not sent that
	// last signal, which takes Postgres along. The 60 ms up to schema.Margin's 200 ms are for the deaths.
	DeadmanAfter = 140 * time.Millisecond
	// refreshEvery is how often the tripwire is tied to new backends: one that is younger when the launcher freezes
	// dies by the postmaster's SIGQUIT alone.
	refreshEvery = 100 * time.Millisecond
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
