package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/bench/cluster"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// syncRig is a cluster in a synchronous mode with clients that write all the time.
type syncRig struct {
	*strain
	t   *testing.T
	ctx context.Context
}

// newSyncRig makes one, where this may be done: otherwise it says so and returns false.
func newSyncRig(t *testing.T, mode string) (*syncRig, bool) {
	t.Helper()
	o, ok := testCampaign(t, mode)
	if !ok {
		return nil, false
	}
	return newRig(t, o), true
}

func newRig(t *testing.T, o campaignOptions) *syncRig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), smokeTimeout)
	s, err := o.build(ctx, t.Logf)
	t.Cleanup(func() {
		if s == nil {
			cancel()
			return
		}
		if s.crowd != nil {
			s.crowd.stop()
		}
		cancel()
		if err := s.c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = s.raise(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.crowd = startCrowd(ctx, s.c, s.password)
	r := &syncRig{strain: s, t: t, ctx: ctx}
	r.must(r.wholeNow())
	return r
}

func (r *syncRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *syncRig) wholeNow() error {
	_, err := r.whole(r.ctx, boottime.Now(), wholeBound)
	return err
}

// parts returns the primary and the others.
func (r *syncRig) parts() (p *cluster.Member, standbys []*cluster.Member) {
	r.t.Helper()
	if p = r.c.Primary(r.c.Look(r.ctx)); p == nil {
		r.t.Fatal("there is no primary")
	}
	return p, slices.DeleteFunc(slices.Clone(r.c.Members), func(m *cluster.Member) bool { return m == p })
}

func (r *syncRig) until(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, wholeBound)
	defer cancel()
	if err := local.Poll(ctx, 50*time.Millisecond, ok); err != nil {
		r.t.Fatalf("%s: %v\n%s", what, err, r.c.Look(r.ctx))
	}
}

// recorded waits until the leader record needs so many standbys.
func (r *syncRig) recorded(need int) {
	r.t.Helper()
	r.until("the leader record does not change", func() bool {
		l, err := r.c.LeaderRecord(r.ctx)
		return err == nil && l.Sync.Need == need
	})
}

func (r *syncRig) acks() int {
	commits, _, _ := r.crowd.since(mark{})
	return len(commits)
}

// nothingMissing compares every acknowledged row with what the primary has.
func (r *syncRig) nothingMissing() {
	r.t.Helper()
	var f findings
	r.must(r.settle(r.ctx, &f))
	if len(f.LostLater) > 0 {
		r.t.Errorf("%d acknowledged rows are missing: %v", len(f.LostLater), f.LostLater)
	}
	if n := r.acks(); n < 50 {
		r.t.Errorf("only %d rows were acknowledged", n)
	}
}

// In mode on the record promises nothing before writes go on without standbys, and promises again when they are back.
func TestSynchronousModeOn(t *testing.T) {
	r, ok := newSyncRig(t, "on")
	if !ok {
		return
	}
	r.recorded(1)
	_, standbys := r.parts()
	for _, m := range standbys {
		r.must(m.Kill(r.ctx))
	}
	r.recorded(0)
	before := r.acks()
	r.until("no write goes on", func() bool { return r.acks() > before+10 })
	for _, m := range standbys {
		r.must(m.Start())
	}
	r.recorded(1)
	r.must(r.wholeNow())
	r.nothingMissing()
}

// In mode strict nothing that was acknowledged is lost with the primary; writes wait for standbys however long they are away; and what
// waited when PostgreSQL went away is not seen before a standby has it.
func TestSynchronousModeStrict(t *testing.T) {
	r, ok := newSyncRig(t, "strict")
	if !ok {
		return
	}
	old, _ := r.parts()
	r.must(old.Kill(r.ctx)) // while rows are written
	r.until("nobody took over", func() bool { p := r.c.Primary(r.c.Look(r.ctx)); return p != nil && p != old })
	r.must(old.Start())
	r.must(r.wholeNow())
	r.nothingMissing()

	p, standbys := r.parts()
	for _, m := range standbys {
		r.must(m.Kill(r.ctx))
	}
	// Mode on has degraded after a lease.
	wait := 2 * r.o.config().Lease.D()
	r.until("writes go on", func() bool { return boottime.Now().Sub(max(r.crowd.lastAck(0), r.crowd.lastAck(1))) > wait })
	if l, err := r.c.LeaderRecord(r.ctx); err != nil || l.Sync.Need != 1 {
		t.Errorf("the record promises %s (%v)", l.Sync, err)
	}
	r.must(p.KillPostmaster())
	r.until("postgres does not recover with clients kept out", func() bool {
		self := r.c.Look(r.ctx)[slices.Index(r.c.Members, p)].Status.Self
		return self.State == schema.StatePromoting && strings.Contains(self.Reason, "clients are kept out")
	})
	if conn, err := (seat{host: p.Host, address: p.Postgres(), password: r.password, patience: clientPatience}).connect(r.ctx); err == nil {
		hangUp(conn.Conn)
		t.Error("a client got in before any standby had what waited")
	}
	for _, m := range standbys {
		r.must(m.Start())
	}
	r.must(r.wholeNow())
	r.nothingMissing()
}
