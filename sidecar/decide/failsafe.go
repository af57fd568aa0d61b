package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// askPromises asks every member that might take over, once renewals have failed for a third of the lease.
func (d *decision) askPromises() {
	r := &d.m.Reign
	late := d.o.lease() / 3
	if r.HandOver != "" || r.RenewedAt == schema.Never || d.o.Now.Sub(r.RenewedAt) < late {
		return
	}
	if d.o.Now.Sub(r.PromisesAt) < schema.RenewInterval(d.o.lease()) && !d.greeted() {
		return
	}
	members := slices.DeleteFunc(union(r.Written, r.Attempted), func(n string) bool { return n == d.o.Name })
	if d.do(Action{Kind: AskPromises, Epoch: r.Epoch, Members: members, Marks: r.Marks, Lease: min(d.o.Config.Lease, r.Lease), Timeout: late}) {
		r.PromisesAt = d.o.Now
	}
}

// greeted reports a round that has just ended in which every member was heard, and some for the first time: the next
// one follows at once, because only that one can be promised anything.
func (d *decision) greeted() bool {
	return slices.ContainsFunc(d.o.Done, func(out Outcome) bool { return out.Action.Kind == AskPromises && d.greets(out) })
}

// greets reports such a round.
func (d *decision) greets(out Outcome) bool {
	return out.Action.Epoch == d.m.Reign.Epoch && len(out.Action.Marks) < len(out.Action.Members) && len(out.Promises) == len(out.Action.Members) &&
		!slices.ContainsFunc(out.Promises, func(p schema.PromiseReply) bool { return p.Mark == schema.Never })
}

// learnPromises keeps what each member said, and extends the deadline if every member asked has promised.
func (d *decision) learnPromises(out Outcome) {
	r := &d.m.Reign
	if !r.Active || out.Action.Epoch != r.Epoch {
		return
	}
	for _, p := range out.Promises {
		if p.Mark != schema.Never {
			r.Marks = append(slices.DeleteFunc(slices.Clone(r.Marks), func(m Mark) bool { return m.Member == p.Member }), Mark{p.Member, p.Mark})
		}
	}
	var all []Promised
	var refused []string
	for _, name := range out.Action.Members {
		p := Promised{PromiseReply: schema.PromiseReply{Member: name, Why: "no answer"}, AskedAt: out.StartedAt}
		for _, reply := range out.Promises {
			if reply.Member == name {
				p.PromiseReply = reply
			}
		}
		for _, old := range r.Promises {
			if old.Member == name {
				p.GivenAt = old.GivenAt
			}
		}
		if p.Given {
			p.GivenAt = out.StartedAt
		} else {
			refused = append(refused, name+": "+p.Why)
		}
		all = append(all, p)
	}
	if d.greets(out) && len(refused) > 0 {
		return // nobody was asked in earnest yet
	}
	d.notePromises(all, refused)
	r.Promises = all
	if len(refused) == 0 {
		r.Deadline = schema.Latest(r.Deadline, out.StartedAt.Add(out.Action.Lease.D()))
	}
}

// notePromises records a change of who promises; rounds come twice in a lease and more.
func (d *decision) notePromises(all []Promised, refused []string) {
	before := d.m.Reign.Promises
	changed := len(before) != len(all)
	for _, p := range all {
		i := slices.IndexFunc(before, func(q Promised) bool { return q.Member == p.Member })
		changed = changed || i < 0 || before[i].Given != p.Given
	}
	switch {
	case !changed:
	case len(refused) == 0:
		d.note(schema.EventPromise, d.m.Reign.Epoch, "by %d members", len(all))
	default:
		d.note(schema.EventUnpromised, d.m.Reign.Epoch, "%s", strings.Join(refused, "; "))
	}
}

// failsafe says by whose word a primary serves that cannot renew; nothing while it can.
func (d *decision) failsafe() string {
	r := d.m.Reign
	if len(r.Promises) == 0 {
		return ""
	}
	var given, refused []string
	for _, p := range r.Promises {
		if p.Given {
			given = append(given, p.Member)
		} else {
			refused = append(refused, p.Member+" ("+p.Why+")")
		}
	}
	if len(refused) == 0 {
		return "it cannot renew its lease in consul and serves by the promises of " + strings.Join(given, ", ")
	}
	return fmt.Sprintf("it cannot renew its lease in consul, and these do not promise: %s; its lease ends in %s",
		strings.Join(refused, ", "), max(r.Deadline.Sub(d.o.Now), 0).Round(100*time.Millisecond))
}
