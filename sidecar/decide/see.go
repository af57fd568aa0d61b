package decide

import "howdah/consul/schema"

// SeeLock keeps the newest view of the leader key. A watch may answer with something older than a
// transaction has told us, so it counts only where its index is higher, and it judges nothing; a
// consistent answer counts where it was asked for later, whatever its index: Consul may have been restored.
func (o *Observation) SeeLock(v schema.LockView, consistent bool) {
	switch {
	case consistent && v.AskedAt >= o.Lock.AskedAt:
		o.Lock = v
	case !consistent && v.Exists && v.Index > o.Lock.Index:
		v.AskedAt = o.Lock.AskedAt
		o.Lock = v
	}
}

// SeeConsul keeps when Consul answered last, and what it said when it did not answer.
func (o *Observation) SeeConsul(at schema.Instant, failure string) {
	o.Consul.Error = failure
	if failure == "" {
		o.Consul.AnsweredAt = schema.Latest(o.Consul.AnsweredAt, at)
	}
}

// SeeState takes in a newer answer of the watch.
func (o *Observation) SeeState(st schema.ClusterState) {
	o.Consul.Seen = true
	o.State = st
	if st.Leader.Exists {
		o.SeeLock(st.Leader, false)
	}
}

// Finish takes in an action that ended: its slot is free, and what it learned is seen.
func (o *Observation) Finish(out Outcome) {
	o.Busy[out.Action.Kind.Slot()] = ""
	o.Done = append(o.Done, out)
	if out.View.Known {
		o.SeeLock(out.View, true)
	}
	switch out.Action.Kind {
	case OpenSession, RenewSession:
		if out.Result != Unclear {
			o.Session = out.Session
		}
	case Arm:
		if out.Result == OK {
			o.Process.Epoch, o.Process.Deadline = out.Action.Epoch, out.Action.Deadline
		}
	case Renew:
		if out.Result == OK {
			o.SeeConsul(out.View.AskedAt, "")
		}
	}
}
