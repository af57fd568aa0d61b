package launch

import (
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Farewell is the usual Options.Farewell: long enough for backends to end and for walsenders to send what is
// left, short enough that four in five missed renewals still cost nothing.
const Farewell = 250 * time.Millisecond

// setFarewell has Postgres shut down fast a little before the deadline that is in force now. Unlike the fence,
// which only kills, that lets walsenders send to the standbys all that was acknowledged: a primary whose sidecar
// is dead or cut off then loses nothing, as long as standbys are connected. It is a courtesy and proves nothing, so it
// runs on Go's clock; the fence does not wait for it. Where replication is synchronous, standbys have all that
// was acknowledged anyhow, and a stop by anything but SIGQUIT would let others see commits that wait. Server.mu is held.
func (s *Server) setFarewell(now schema.Instant, synchronous bool) {
	if s.farewell != nil {
		s.farewell.Stop()
		s.farewell = nil
	}
	if synchronous || s.o.Farewell <= 0 || !s.m.armed || s.m.process != ProcessRunning {
		return
	}
	deadline := s.m.deadline
	s.farewell = time.AfterFunc(deadline.Sub(now)-s.o.Farewell, func() { s.bidFarewell(deadline) })
}

// bidFarewell stops Postgres unless the deadline has moved since.
func (s *Server) bidFarewell(deadline schema.Instant) {
	s.mu.Lock()
	due := s.m.armed && s.m.deadline == deadline && s.m.process == ProcessRunning
	s.mu.Unlock()
	if !due {
		return
	}
	s.log.Warn("the lease was not extended: stopping postgres before its deadline", zap.Duration("before", s.o.Farewell))
	if err := s.stop(StopFast); err != nil {
		s.log.Warn("postgres could not be stopped; the fence will", zap.Error(err))
	}
}
