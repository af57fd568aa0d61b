package decide

import (
	"fmt"
	"slices"

	"howdah/consul/schema"
)

// Promise answers a primary that has lost Consul. Given means: for a lease and its margin from now
// we neither take over nor promote.
//
//	primary's deadline = (time it asked) + lease <= (time we promised) + lease < PromisedUntil
//
// It is given only to who has shown that our replies reach it, by the mark of one that is not older than a
// lease. A primary that sends and does not receive would otherwise keep everybody bound, and be fenced all the same.
//
// A seizure of ours whose answer was lost may still succeed at Consul later. That is no hole:
// promote waits for PromisedUntil, and from the moment we know that we hold the lock we promise nothing.
//
// A promise waits for no disk: a sidecar that is restarted and has forgotten it counts the lease of the record from its start.
func Promise(o Observation, m Memory, r schema.PromiseRequest) (schema.PromiseReply, Memory) {
	if r.Report {
		return report(o, m), m
	}
	why, age := "", o.Now.Sub(r.Mark)
	switch {
	case m.Reign.Active:
		why = fmt.Sprintf("%s holds the lock itself, in epoch %d", o.Name, m.Reign.Epoch)
	case r.Epoch < m.Record.Epoch:
		why = fmt.Sprintf("epoch %d is over: epoch %d is known", r.Epoch, m.Record.Epoch)
	case o.Busy[SlotLock] == Seize || slices.ContainsFunc(o.Done, func(out Outcome) bool { return out.Action.Kind == Seize }):
		why = "an attempt to take over may be under way"
	case m.SeizeFailedAt != schema.Never && o.Lock.AskedAt <= m.SeizeFailedAt:
		why = "the outcome of an attempt to take over is not known yet"
	case r.Lease.D() <= 0 || r.Lease.D() > maxPromise:
		why = fmt.Sprintf("a promise of %s is not to be had", r.Lease)
	case r.Mark == schema.Never || age < 0 || age > r.Lease.D():
		why = fmt.Sprintf("it is not known yet whether %s hears this member; the next request shows it", r.From)
	}
	if why != "" {
		return schema.PromiseReply{Member: o.Name, Why: why, Mark: o.Now}, m
	}
	m.Record.Epoch = max(m.Record.Epoch, r.Epoch)
	m.Reports.Got = nil // it may acknowledge commits that those who told us have got since, at the same index of the record
	m.PromisedUntil = schema.Latest(m.PromisedUntil, o.Now.Add(r.Lease.D()+schema.Margin(r.Lease.D())))
	return schema.PromiseReply{Member: o.Name, Given: true, Mark: o.Now}, m
}

// maxPromise is the longest lease that a cluster configuration allows, in nanoseconds.
const maxPromise = 60_000_000_000
