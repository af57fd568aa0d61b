package fresh

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/own"
	"howdah/router/route"
)

// start begins to ask s when it is needed.
func (r *Reads) start(s own.Server) {
	ctx, stop := context.WithCancel(context.Background())
	p := &poller{server: s, stop: stop, wake: make(chan struct{}, 1)}
	r.pollers[s] = p
	if r.waiting > 0 {
		p.wake <- struct{}{}
	}
	r.work.Go(func() { r.poll(ctx, p) })
}

// poll asks one server, one question at a time, while that is needed.
func (r *Reads) poll(ctx context.Context, p *poller) {
	last, failing := schema.Never, false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, needed := r.due(p, last, failing)
		if !needed {
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			}
			continue
		}
		if left := due.Sub(r.o.Now()); left > 0 {
			timer.Reset(left)
			select {
			case <-ctx.Done():
				return
			case <-p.wake: // it may be wanted sooner now
			case <-timer.C:
			}
			continue
		}
		last = r.o.Now()
		err := r.ask(ctx, p, last)
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			failing = err != nil
			if failing {
				r.o.Log.Warn("how far a server is cannot be learnt; reads that have to know it go elsewhere", zap.String("member", p.server.Member), zap.Error(err))
			} else {
				r.o.Log.Info("how far a server is can be learnt again", zap.String("member", p.server.Member))
			}
		}
	}
}

// due returns when p is to be asked next, after last; false if that is not needed. A server that fails is not hurried.
func (r *Reads) due(p *poller, last schema.Instant, failing bool) (schema.Instant, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == 0 && !p.once {
		return 0, false
	}
	if p.server.Primary() && r.view.Load().primary.AskedAt >= r.wanted {
		p.once = false
		return 0, false // what is known of it bounds every mark that is waited for
	}
	gap := pace
	if r.strict > 0 && !failing {
		gap = strictPace
	}
	if last == schema.Never {
		return schema.Never, true
	}
	return last.Add(gap), true
}

// ask asks once and makes a view of the answer.
func (r *Reads) ask(ctx context.Context, p *poller, asked schema.Instant) error {
	f, count := r.o.Sampler.ReplayLSN, &r.samples[1]
	if p.server.Primary() {
		f, count = r.o.Sampler.PrimaryLSN, &r.samples[0]
	}
	timeline, lsn, err := f(ctx, p.server)
	r.mu.Lock()
	defer r.mu.Unlock()
	p.once = false
	if ctx.Err() != nil {
		return nil
	}
	if err != nil || timeline == 0 {
		// A standby that receives nothing for a moment: what was known of it still holds.
		count.failed.Add(1)
		return err
	}
	count.answered.Add(1)
	v := *r.view.Load()
	at := route.Position{Timeline: timeline, LSN: lsn}
	if p.server.Primary() {
		v.primary = route.PrimarySample{AskedAt: asked, Epoch: p.server.Epoch, Position: at}
	} else {
		v.standbys = slices.Clone(v.standbys)
		for i := range v.standbys {
			if v.standbys[i].server == p.server {
				v.standbys[i].sample = route.StandbySample{AskedAt: asked, Position: at}
			}
		}
	}
	r.view.Store(&v)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}
