package decide

import (
	"fmt"
	"slices"
	"time"

	"howdah/consul/schema"
)

// A failover that an operator asks for names a member and the situation that it is for: the last primary, the newest
// epoch, and how far that primary said that it was. It is void for any other. What it overrides is who may stand, and
// nothing else:
//
//	asked   =>  the turn of others where the record bounds what that may lose, and a pause
//	forced  =>  also their turn where no record does, lag, timeline, the synchronous set, the end of a released reign, the nofailover tag, and members
//	            that were not heard of
//	never   :   the judgement of the lease, the conditional takeover with a higher epoch and a timeline of its own, and
//	            what was promised (I1, I2, I3)

// failover returns the request that names this member for this very situation; nil if there is none.
func (d *decision) failover() *schema.Request {
	req, l := d.o.State.Request, d.o.Lock.Leader
	r := req.Value
	if !req.Exists || r.Kind != schema.RequestFailover || r.To != d.o.Name || r.From != l.Member || r.Epoch != d.m.Record.Epoch || r.LSN != l.FlushLSN {
		return nil
	}
	return &r
}

// forced reports a failover that an operator forces on us.
func (d *decision) forced() bool {
	f := d.failover()
	return f != nil && f.Force
}

// forbidden returns why we may not stand, whoever asks for it; nothing if that depends.
func (d *decision) forbidden() string {
	switch {
	case d.o.Session == "":
		return "there is no consul session yet"
	case d.unsettled():
		return "the outcome of the last attempt is not known"
	case d.o.Now.Before(d.m.PromisedUntil):
		return "it promised the primary not to"
	case d.diskSilent():
		return fmt.Sprintf("its disk has taken no write for %s", d.o.Now.Sub(d.o.DiskAt).Round(100*time.Millisecond))
	case d.trusted() && !slices.Contains(d.o.Lock.Leader.Members, d.o.Name):
		return "the last primary did not know it as a member"
	}
	return ""
}

// mayNotForce returns why we may not stand although an operator forces it.
func (d *decision) mayNotForce() string {
	switch {
	case d.forbidden() != "":
		return d.forbidden()
	case !d.trusted() && d.m.Record.Named < d.m.Record.Epoch:
		// A primary without Consul may live on the promises of those that it knows, and we are none of them.
		return "no leader record of the newest epoch was seen that names it as a member"
	case !d.trusted() && d.reigning() != "":
		return d.reigning() + " says that it reigns"
	case d.resumes():
		return ""
	case d.o.Process.State != ProcessRunning || !d.o.SQL.Answers():
		return "postgres does not answer"
	case !d.o.SQL.InRecovery:
		return "postgres is not a standby"
	}
	return ""
}

// raise starts a stopped primary of old as a standby, so that a forced failover begins a timeline of its own. It
// reports whether that is to be waited for.
func (d *decision) raise() bool {
	if !d.forced() || !d.o.Process.Gone() || d.o.Data.State != DataValid || d.o.Data.StandbySignal || d.resumes() || d.forbidden() != "" {
		return false
	}
	d.startStandby(Upstream{}, "to be promoted: a forced failover")
	return true
}

// stands says for whom and why, in the words of the history.
func (d *decision) stands(why string) string {
	f := d.failover()
	switch {
	case f == nil:
		return why
	case f.Force:
		return fmt.Sprintf("forced by %s: %s", f.By, why)
	}
	return fmt.Sprintf("asked for by %s: %s", f.By, why)
}
