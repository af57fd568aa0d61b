package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"howdah/bench/cluster"
	"howdah/consul/schema"
)

func TestUnshifted(t *testing.T) {
	const second = schema.Instant(time.Second)
	shifts := []time.Duration{0, -20 * time.Second, 2 * time.Hour}
	for _, c := range []struct {
		executed, at schema.Instant
		shift        time.Duration
	}{
		{100 * second, 100 * second, 0},
		{80 * second, 100 * second, -20 * time.Second},
		{7300 * second, 100 * second, 2 * time.Hour},
		// A late answer is no shift.
		{94 * second, 94 * second, 0},
	} {
		at, shift := unshifted(c.executed, 99*second, 101*second, shifts)
		if at != c.at || shift != c.shift {
			t.Errorf("executed at %d: %d by %s, not %d by %s", c.executed, at, shift, c.at, c.shift)
		}
	}
}

// ahead asserts by how much PostgreSQL and the sidecar of a member say that they are ahead of the machine.
func (r *syncRig) ahead(m *cluster.Member, want time.Duration) {
	r.t.Helper()
	conn, err := (seat{host: m.Host, address: m.Postgres(), password: r.password, patience: clientPatience}).connect(r.ctx)
	r.must(err)
	defer hangUp(conn.Conn)
	var at time.Time
	r.must(conn.QueryRow(r.ctx, "select clock_timestamp()").Scan(&at))
	const near = 10 * time.Second // and every jump is longer
	if d := time.Until(at) - want; d.Abs() > near {
		r.t.Errorf("the clock of PostgreSQL of %s is %s from where it was set", m.Name, d)
	}
	i := slices.Index(r.c.Members, m)
	r.until("the sidecar of "+m.Name+" does not say that its clock is "+want.String()+" ahead", func() bool {
		a := r.c.Look(r.ctx)[i]
		return a.Err == nil && (time.Until(a.Status.At)-want).Abs() < near
	})
}

// A wall clock that jumps, on any host, moves nothing: no failover, no lost row, writes go on, and nothing is stuck when it jumps back.
func TestWallClockJumps(t *testing.T) {
	o, ok := testCampaign(t, "strict")
	if !ok {
		return
	}
	o.kinds = []string{"clock-primary", "clock-standby", "clock-router"}
	r := newRig(t, o)
	epoch := r.epoch()
	primary, standbys := r.parts()
	for _, shift := range clockShifts {
		r.must(primary.SetWallClock(shift))
		r.must(standbys[0].SetWallClock(-shift))
		r.must(r.c.Routers[0].SetWallClock(-shift))
		r.ahead(primary, shift)
		r.ahead(standbys[0], -shift)
		before := r.acks()
		r.until("no write goes on", func() bool { return r.acks() > before+10 })
		// A sidecar that starts while the date is another.
		r.must(standbys[0].KillSidecar(false))
		r.must(r.wholeNow())
		r.must(primary.SetWallClock(0))
		r.must(standbys[0].SetWallClock(0))
		r.must(r.c.Routers[0].SetWallClock(0))
		r.must(r.wholeNow())
		r.ahead(primary, 0)
	}
	if now := r.epoch(); now != epoch {
		t.Errorf("epoch %d became %d", epoch, now)
	}
	r.nothingMissing()
	shifted := map[time.Duration]int{}
	commits, direct, _ := r.crowd.since(mark{})
	for _, c := range slices.Concat(commits, direct) {
		shifted[c.Shift]++
	}
	for _, shift := range append(slices.Clone(clockShifts), 0) {
		if shifted[shift] == 0 {
			t.Errorf("no row was written while the primary's clock was %s ahead: %v", shift, shifted)
		}
	}
}

func TestClockFaultsNeedABuiltClock(t *testing.T) {
	_, err := parseCampaign([]string{"-howdah", "/bin/true"})
	if err == nil || !strings.Contains(err.Error(), "-kinds without clock-primary") {
		t.Errorf("a binary without a clock of its own: %v", err)
	}
	if _, err := parseCampaign([]string{"-howdah", "/bin/true", "-kinds", "kill"}); err != nil {
		t.Error(err)
	}
}

func (r *syncRig) epoch() schema.Epoch {
	r.t.Helper()
	l, err := r.c.LeaderRecord(r.ctx)
	r.must(err)
	return l.Epoch
}
