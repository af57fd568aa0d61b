package router

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/wire"
)

// Bounds of what strangers can have this router say to others: a key needs no login, and the mark in it is no secret.
const (
	// forwardTimeout is how long a client waits for another router to have carried out its cancel request.
	forwardTimeout = 2 * time.Second
	// maxForwards is how many requests are under way at one time, forwardRate how many begin in a second.
	maxForwards = 100
	forwardRate = 500
	// maxNamesakes is to how many routers one request goes: that two names have the same mark is rare, more of them nobody's doing but somebody's.
	maxNamesakes = 4
)

// forwards are the cancel requests that are on their way to other routers.
type forwards struct {
	routers atomic.Pointer[[]string] // the names of the others that gossip does not hold for gone

	mu       sync.Mutex
	underWay int
	second   schema.Instant // when the present second began
	begun    int            // in it
}

// learn takes in who there is. A router is known by gossip alone.
func (f *forwards) learn(peers []schema.Peer, cluster, self string) {
	var names []string
	for _, p := range peers {
		if p.Kind == "router" && p.Name != self && p.Status.Cluster == cluster && p.Liveness != schema.LivenessDead && p.Liveness != schema.LivenessLeft {
			names = append(names, p.Name)
		}
	}
	f.routers.Store(&names)
}

// marked returns the routers whose keys bear the mark, at most maxNamesakes.
func (f *forwards) marked(mark uint16) []string {
	all := f.routers.Load()
	if all == nil {
		return nil
	}
	var names []string
	for _, name := range *all {
		if wire.Instance(name) == mark && len(names) < maxNamesakes {
			names = append(names, name)
		}
	}
	return names
}

// begin reports whether another request may be forwarded; end must follow then.
func (f *forwards) begin(now schema.Instant) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.second == schema.Never || now.Sub(f.second) >= time.Second {
		f.second, f.begun = now, 0
	}
	if f.underWay >= maxForwards || f.begun >= forwardRate {
		return false
	}
	f.underWay++
	f.begun++
	return true
}

func (f *forwards) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.underWay--
}

// forwardCancel passes a cancel request on to the routers whose mark its key bears, this one's own included, and waits until they have carried it
// out; false if none of them has the session. What came from another router never comes here.
func (r *Router) forwardCancel(ctx context.Context, key wire.Key, log *zap.Logger) bool {
	names := r.forwards.marked(key.Instance())
	switch {
	case key.Instance() == r.instance && len(names) == 0:
		log.Debug("cancel request for a session that has ended, or with a wrong key")
		return false
	case len(names) == 0 || r.o.Forward == nil:
		log.Debug("cancel request with a key of no router that is known")
		return false
	case !r.forwards.begin(r.now()):
		log.Debug("cancel request dropped: too many are on their way to other routers", zap.Strings("routers", names))
		return false
	}
	defer r.forwards.end()
	ctx, stop := context.WithTimeout(ctx, forwardTimeout)
	defer stop()
	answers := make(chan error, len(names))
	for _, name := range names {
		go func() {
			found, err := r.o.Forward(ctx, name, []byte(key))
			if err == nil && !found {
				err = errors.New("the key is no session's of " + name)
			}
			answers <- err
		}()
	}
	delivered := false
	for range names {
		if err := <-answers; err != nil {
			log.Debug("cancel request not carried out by another router", zap.Error(err))
			continue
		}
		delivered = true
	}
	if delivered {
		r.metrics.cancelled("router")
	}
	return delivered
}
