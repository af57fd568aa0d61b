package router

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/topology"
)

// stops holds the sessions of a primary whose planned stop has begun before their next transaction, which would be cut off in the middle. They go on
// where the stop is called off, or takes longer than a session waits for a primary. learn is of the goroutine that merges.
type stops struct {
	// of is whose stop has begun, the zero reign if nobody's; until is when its sessions go on although it is not over.
	of    reign
	until schema.Instant

	holding atomic.Pointer[hold] // nil while nobody is held
}

// reign is a member as the primary of an epoch.
type reign struct {
	member string
	epoch  schema.Epoch
}

// hold is a planned stop while the sessions of the primary are held. over is closed when they may go on.
type hold struct {
	reign
	over chan struct{}
}

// learn takes in a picture before it is set, and returns what lets those go on who need not wait any more. That is called once the sessions that may
// not go on have been ended, so that nobody is let go to a server that may not keep him.
func (s *stops) learn(t *topology.Topology, now schema.Instant, atMost time.Duration, log *zap.Logger) (letGo func()) {
	var of reign
	if t.Phase == schema.PhaseStopping && !t.Over {
		of = reign{t.Leader, t.Epoch}
	}
	was := s.holding.Load()
	next := was
	switch {
	case of != s.of:
		s.of, s.until, next = of, now.Add(atMost), nil
		if of != (reign{}) && atMost > 0 {
			log.Info("sessions are held before their next transaction: a planned stop of their primary has begun",
				zap.String("member", of.member), zap.Uint64("epoch", uint64(of.epoch)))
			next = &hold{of, make(chan struct{})}
		}
	case was != nil && !now.Before(s.until):
		log.Info("held sessions go on: the planned stop takes longer than sessions wait", zap.String("member", of.member), zap.Duration("waited", atMost))
		next = nil
	}
	if was == next {
		return func() {}
	}
	if next != nil {
		s.holding.Store(next)
	}
	return func() {
		s.holding.CompareAndSwap(was, nil)
		if was != nil {
			close(was.over)
		}
	}
}

// held returns what is closed when sessions on b may begin transactions; nil if they may.
func (s *stops) held(b backend) <-chan struct{} {
	if h := s.holding.Load(); h != nil && b.role == schema.RolePrimary && h.reign == (reign{b.member, b.epoch}) {
		return h.over
	}
	return nil
}
