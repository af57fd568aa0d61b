// Package fresh knows how far each server has come, and by that which standby may serve a read that has to see certain writes.
//
// It asks the primary for the end of its WAL and each standby for what it has replayed, for all sessions together, and only while a
// session waits to learn it. What the answers mean is decided in package route; this is the shell that asks, keeps the newest
// answers and lets sessions wait for better ones, for a bounded time.
package fresh

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/route"
)

// While somebody waits each server is asked this long after it was asked last, or as soon as it has answered. A strict read waits for the
// next sample each time, so there the pace is its latency.
const (
	pace       = 10 * time.Millisecond
	strictPace = time.Millisecond
)

// Sampler asks servers; own.Connections is one.
type Sampler interface {
	PrimaryLSN(context.Context, own.Server) (schema.Timeline, schema.LSN, error)
	ReplayLSN(context.Context, own.Server) (schema.Timeline, schema.LSN, error)
}

// Options say how to learn and how long to wait.
type Options struct {
	// Sampler asks. Nil: nothing is known of any server, so whoever has to see a write reads from the primary.
	Sampler Sampler
	// Wait is how long a read waits for a standby that has come far enough.
	Wait time.Duration
	// Observe is told of each read that had to be decided by samples: who may serve it, and how long it waited.
	Observe func(c route.Consistency, standby bool, waited time.Duration)
	Now     func() schema.Instant
	Log     *zap.Logger
}

// Mark is what one session has to see of its own writes. The zero Mark asks for nothing. It belongs to one session.
type Mark struct {
	route.Mark
	// failed says that a read waited for this write in vain. The next ones do not wait: they go to a standby once one is known to have it.
	failed bool
}

// Wrote notes that a statement that may have written has been answered, in whatever way, or never will be, by the primary of epoch.
// now is read after that.
func (m *Mark) Wrote(now schema.Instant, epoch schema.Epoch) {
	*m = Mark{Mark: m.Mark.Wrote(now, epoch)}
}

// view is what is known of all servers. It is not changed once made.
type view struct {
	epoch    schema.Epoch // of the newest primary
	primary  route.PrimarySample
	standbys []standby
}

type standby struct {
	server own.Server
	sample route.StandbySample
}

// Reads gives reads to standbys. Make it with New, end it with Close. All methods may be called from any goroutine.
type Reads struct {
	o       Options
	view    atomic.Pointer[view]
	samples [2]sampleCount // of the primary, of standbys

	mu              sync.Mutex
	changed         chan struct{} // closed when there is a new view
	waiting, strict int
	wanted          schema.Instant // somebody waits, or waited, for a sample of the primary asked no earlier
	pollers         map[own.Server]*poller
	closed          bool
	work            sync.WaitGroup
}

type sampleCount struct{ answered, failed atomic.Uint64 }

// poller asks one server.
type poller struct {
	server own.Server
	stop   context.CancelFunc
	wake   chan struct{} // receives when there may be something to do
	once   bool          // to be asked once more, though nobody waits
}

// New returns Reads that know no server yet.
func New(o Options) *Reads {
	r := &Reads{o: o, changed: make(chan struct{}), pollers: map[own.Server]*poller{}}
	r.view.Store(&view{})
	return r
}

// Set tells which servers there are. What was known of others is forgotten.
func (r *Reads) Set(servers []own.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.o.Sampler == nil {
		return
	}
	old := r.view.Load()
	next := view{epoch: old.epoch}
	keep := make(map[own.Server]bool, len(servers))
	for _, s := range servers {
		keep[s] = true
		if r.pollers[s] == nil {
			r.start(s)
		} else if s.Primary() {
			next.primary = old.primary
		}
		if s.Primary() {
			next.epoch = max(next.epoch, s.Epoch)
		} else {
			next.standbys = append(next.standbys, standby{server: s, sample: old.of(s.Member, s.Address)})
		}
	}
	for s, p := range r.pollers {
		if !keep[s] {
			p.stop()
			delete(r.pollers, s)
		}
	}
	r.view.Store(&next)
}

// of returns the sample of a standby; a zero one if there is none.
func (v *view) of(member, address string) route.StandbySample {
	for i := range v.standbys {
		if s := &v.standbys[i]; s.server.Member == member && s.server.Address == address {
			return s.sample
		}
	}
	return route.StandbySample{}
}

// fill gives each of readers its sample.
func (v *view) fill(readers []route.Reader) {
	for i := range readers {
		readers[i].Sample = v.of(readers[i].Member, readers[i].Address)
	}
}

// Choose returns the index of the standby that may serve a read of the session with this mark, by the order of route.Pick; -1 if
// the primary must. readers are the standbys with what the caller knows of them: all but Sample, which Choose sets. For one with Since
// Never the answer means: connect to it, and ask again with the connection. No earlier statement of the session that may write may be unanswered.
//
// It waits at most Options.Wait, and not at all where no standby can become good enough, or ctx has ended; a session that waited in vain for a write does
// not wait for the same again. Who does not wait has the servers asked all the same, for next time. Where it need not wait it allocates nothing.
func (r *Reads) Choose(ctx context.Context, m *Mark, c route.Consistency, readers []route.Reader, b route.Bound) int {
	if c == route.Eventual || c == route.Session && m.Empty() {
		serve, _ := route.Fresh(route.Mark{}, readers, b)
		return serve
	}
	if r.o.Sampler == nil {
		return -1
	}
	begun := r.o.Now()
	v := r.view.Load()
	want := m.Mark
	if c == route.Strict {
		// Whatever anybody has been told of until now.
		want = want.Wrote(begun, v.epoch)
	}
	serve, wait := decide(v, &want, readers, b)
	switch {
	case wait == route.WaitNothing:
	case c == route.Session && m.failed, ctx.Err() != nil:
		r.nudge(want.At)
	default:
		serve = r.wait(ctx, &want, c, readers, b)
	}
	if c == route.Session {
		m.Mark = want
		m.failed = serve < 0 && wait != route.WaitNothing
	}
	if r.o.Observe != nil {
		r.o.Observe(c, serve >= 0, r.o.Now().Sub(begun))
	}
	return serve
}

func decide(v *view, want *route.Mark, readers []route.Reader, b route.Bound) (int, route.Wait) {
	*want = want.Learn(v.primary)
	v.fill(readers)
	return route.Fresh(*want, readers, b)
}

// wait decides again with every new sample until one may serve, none ever will, or the time is over.
func (r *Reads) wait(ctx context.Context, want *route.Mark, c route.Consistency, readers []route.Reader, b route.Bound) int {
	r.join(want.At, c == route.Strict)
	defer r.leave(c == route.Strict)
	over := time.NewTimer(r.o.Wait)
	defer over.Stop()
	for {
		changed := r.next()
		serve, wait := decide(r.view.Load(), want, readers, b)
		if serve >= 0 || wait == route.WaitNothing {
			return serve
		}
		select {
		case <-changed:
		case <-over.C:
			return -1
		case <-ctx.Done():
			return -1
		}
	}
}

// next returns a channel that is closed when there is a new view. Take it before looking.
func (r *Reads) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// join has the servers asked until leave.
func (r *Reads) join(at schema.Instant, strict bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	if strict {
		r.strict++
	}
	r.wanted = schema.Latest(r.wanted, at)
	r.wakeAll()
}

func (r *Reads) leave(strict bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	if strict {
		r.strict--
	}
}

// nudge has the servers asked once, for who does not wait.
func (r *Reads) nudge(at schema.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = schema.Latest(r.wanted, at)
	for _, p := range r.pollers {
		p.once = true
	}
	r.wakeAll()
}

func (r *Reads) wakeAll() {
	for _, p := range r.pollers {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Stats are figures about the samples.
type Stats struct {
	// Of the primary and of standbys: samples that were answered, and those that failed or said nothing of use.
	Primary, PrimaryFailed, Standby, StandbyFailed uint64
}

// Stats returns the figures of the moment.
func (r *Reads) Stats() Stats {
	return Stats{
		Primary: r.samples[0].answered.Load(), PrimaryFailed: r.samples[0].failed.Load(),
		Standby: r.samples[1].answered.Load(), StandbyFailed: r.samples[1].failed.Load(),
	}
}

// Close ends the asking and returns once nothing of it is left. Who waits goes on waiting, for its bounded time.
func (r *Reads) Close() {
	r.mu.Lock()
	r.closed = true
	for s, p := range r.pollers {
		p.stop()
		delete(r.pollers, s)
	}
	r.mu.Unlock()
	r.work.Wait()
}
