package decide

import (
	"fmt"
	"time"

	"howdah/consul/schema"
)

// A Postgres hangs if it runs and for hang_timeout either answers no probe, or lets somebody wait for WAL that is not
// flushed. Of the two the second is what a stalled disk looks like: reads are answered from memory and renewals go on,
// while no commit ends.
//
// That the insert LSN is ahead of the flush LSN would not do: an open transaction that writes nothing more leaves it
// so until the next standby snapshot, for up to 15 s. Somebody must wait for the flush (in pg_stat_activity: the IO
// events of writing and syncing WAL, the WALWrite lock), each time that it is looked at, and the flush LSN must be the same each time. So
// a disk that is slow but moves, a long checkpoint, a large commit (its WAL is flushed at the latest when wal_buffers
// are full) and a wait for a synchronous standby (it comes after the flush) are none.

// learnStall dates since when the flush LSN has stood still with somebody waiting for it. A probe that is not answered
// says neither that it moves nor that it does not.
func (d *decision) learnStall() {
	sql, s := d.o.SQL, &d.m.Stall
	switch {
	case d.o.Process.Gone():
		*s = Stall{}
	case !sql.Answers():
	case sql.InRecovery || sql.WALWaits == 0:
		*s = Stall{}
	case s.Since == schema.Never || sql.LSN != s.LSN:
		*s = Stall{LSN: sql.LSN, Since: sql.At}
	}
}

// hang returns why our Postgres counts as hung; nothing if it does not. Silence of the launcher is no evidence:
// it must be a postmaster that runs.
func (d *decision) hang() string {
	sql, s, p := d.o.SQL, d.m.Stall, d.o.Process
	bound := d.o.Config.HangBound()
	if p.State != ProcessRunning || d.o.Busy[SlotPostgres] == StartPrimary {
		return ""
	}
	// What answers last is the newest word, and a probe that is under way may not have been answered for long.
	if waited := d.o.Now.Sub(s.Since); s.Since != schema.Never && waited >= bound {
		return fmt.Sprintf("postgres has flushed no WAL beyond %s for %s although commits wait for it: its disk hangs", s.LSN, waited.Round(100*time.Millisecond))
	}
	if sql.State != SQLUnknown && sql.State != SQLRefused || d.o.Now.Sub(p.Since) < max(listenGrace, bound) || sql.Failing == schema.Never {
		return ""
	}
	if silent := d.o.Now.Sub(sql.Failing); silent >= bound {
		return "postgres has answered no probe for " + silent.Round(100*time.Millisecond).String()
	}
	return ""
}

// handOverHung hands over if somebody else can do better, and reports whether it does.
func (d *decision) handOverHung() bool {
	why := d.hang()
	if !d.m.Stall.Told {
		d.m.Stall.Told = true
		d.note(schema.EventHung, d.m.Reign.Epoch, "%s", why)
	}
	if d.heir() == "" {
		return false
	}
	d.handOver(why)
	return true
}

// diskSilent reports that our disk has taken no write for so long that Postgres would hang on it. Each member tries
// every third of hang_timeout, and this bound is below hang_timeout, so that where one storage stalls for all, the
// others know it when the primary looks for a successor.
func (d *decision) diskSilent() bool {
	return d.o.DiskAt != schema.Never && d.o.Now.Sub(d.o.DiskAt) >= d.o.Config.HangBound()*2/3
}

// heir returns who an unplanned hand-over would be for: there must be a successor, and in a synchronous mode enough members
// must be fit to know of every acknowledged commit (F2). Nobody while the cluster is paused.
func (d *decision) heir() string {
	if d.paused() {
		return ""
	}
	var fit []string
	for _, p := range d.o.Peers {
		if d.peerFit(p) {
			fit = append(fit, p.Name)
		}
	}
	s := d.m.Reign.Sync
	for _, set := range []schema.SyncSet{s.Recorded, s.Wanted} { // either may be what Consul has
		if set.Need > 0 && !elects(set, fit) {
			return ""
		}
	}
	return d.successor()
}
