package launch

import (
	"errors"
	"testing"
	"time"

	"howdah/consul/schema"
)

const at = schema.Instant(1e12) // now, in the tables

func running(armed bool, epoch schema.Epoch, left time.Duration) machine {
	m := machine{process: ProcessRunning, epoch: epoch}
	if armed {
		m.armed, m.deadline = true, at.Add(left)
	}
	return m
}

func TestArmRules(t *testing.T) {
	t.Parallel()
	fencing := running(true, 5, time.Second)
	fencing.fencing = true
	stopping := running(true, 5, time.Second)
	stopping.process, stopping.asked = ProcessStopping, StopFast
	reaped := running(true, 5, time.Second)
	reaped.reaped()
	for _, c := range []struct {
		name  string
		m     machine
		epoch schema.Epoch
		ahead time.Duration
		want  error
		left  time.Duration // of the deadline afterwards
	}{
		{"a standby before its promotion", running(false, 4, 0), 5, 3 * time.Second, nil, 3 * time.Second},
		{"an extension", running(true, 5, time.Second), 5, 3 * time.Second, nil, 3 * time.Second},
		{"never backwards in one epoch", running(true, 5, 2*time.Second), 5, time.Second, nil, 2 * time.Second},
		{"a newer epoch rules its own deadline", running(true, 5, 2*time.Second), 6, time.Second, nil, time.Second},
		{"while stopping", stopping, 5, 3 * time.Second, nil, 3 * time.Second},
		{"an older epoch", running(true, 5, time.Second), 4, 3 * time.Second, ErrOlderEpoch, time.Second},
		{"an older epoch than a standby knows", running(false, 5, 0), 4, 3 * time.Second, ErrOlderEpoch, 0},
		{"no epoch", running(false, 0, 0), 0, time.Second, ErrInvalid, 0},
		{"a deadline now", running(true, 5, time.Second), 5, 0, ErrDeadlinePast, time.Second},
		{"a deadline in the past", running(true, 5, time.Second), 6, -time.Second, ErrDeadlinePast, time.Second},
		{"a deadline of another clock", running(true, 5, time.Second), 5, MaxAhead + 1, ErrInvalid, time.Second},
		{"at the deadline in force", running(true, 5, 0), 5, time.Second, ErrDeadlinePast, 0},
		{"after it, by a newer epoch", running(true, 5, -time.Second), 6, time.Second, ErrDeadlinePast, -time.Second},
		{"while fencing", fencing, 6, time.Second, ErrDeadlinePast, time.Second},
		{"after the end", reaped, 5, 3 * time.Second, ErrNotRunning, time.Second},
		{"nothing runs", machine{process: ProcessStopped}, 5, time.Second, ErrNotRunning, 0},
		{"after a fence", machine{process: ProcessFenced, epoch: 5}, 6, time.Second, ErrNotRunning, 0},
	} {
		before := c.m
		err := c.m.arm(c.epoch, at.Add(c.ahead), at)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v; want %v", c.name, err, c.want)
		}
		if err != nil && c.m != before {
			t.Errorf("%s: refused, yet changed to %+v", c.name, c.m)
		}
		if c.m.armed && c.m.deadline.Sub(at) != c.left {
			t.Errorf("%s: %s left; want %s", c.name, c.m.deadline.Sub(at), c.left)
		}
		if err == nil && (!c.m.armed || c.m.epoch != c.epoch) {
			t.Errorf("%s: %+v", c.name, c.m)
		}
	}
}

func TestStartRules(t *testing.T) {
	t.Parallel()
	ok := StartRequest{Role: schema.RolePrimary, Epoch: 5, Deadline: at.Add(time.Second)}
	standby := StartRequest{Role: schema.RoleStandby, Epoch: 3}
	stopped := machine{process: ProcessStopped, epoch: 5}
	ending := stopped
	ending.ending = true
	for _, c := range []struct {
		name string
		m    machine
		r    StartRequest
		dir  signals
		long bool
		want error
	}{
		{"primary", stopped, ok, signals{}, false, nil},
		{"primary after a fence", machine{process: ProcessFenced, epoch: 4}, ok, signals{}, false, nil},
		{"primary after a crash, restoring", machine{process: ProcessCrashed}, ok, signals{recovery: true}, false, nil},
		{"primary with standby.signal", stopped, ok, signals{standby: true}, false, ErrWrongRole},
		{"primary of an older epoch", machine{process: ProcessStopped, epoch: 6}, ok, signals{}, false, ErrOlderEpoch},
		{"primary without a deadline", stopped, StartRequest{Role: schema.RolePrimary, Epoch: 5}, signals{}, false, ErrDeadlinePast},
		{"standby", stopped, standby, signals{standby: true}, false, nil},
		{"standby by recovery.signal", stopped, standby, signals{recovery: true}, false, nil},
		{"standby without a signal file", stopped, standby, signals{}, false, ErrWrongRole},
		{"no role", stopped, StartRequest{}, signals{}, false, ErrInvalid},
		{"one that runs", running(false, 5, 0), ok, signals{}, false, ErrAlreadyRunning},
		{"leftovers", machine{process: ProcessStopping, exited: true}, ok, signals{}, false, ErrAlreadyRunning},
		{"a clone runs", stopped, ok, signals{}, true, ErrBusy},
		{"the launcher ends", ending, ok, signals{}, false, ErrEnding},
	} {
		epoch := c.m.epoch
		err := c.m.start(c.r, c.dir, c.long, at)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v; want %v", c.name, err, c.want)
		}
		if err == nil && (c.m.process != ProcessRunning || c.m.armed != (c.r.Role == schema.RolePrimary)) {
			t.Errorf("%s: %+v", c.name, c.m)
		}
		if c.m.epoch < epoch {
			t.Errorf("%s: the epoch went from %d back to %d", c.name, epoch, c.m.epoch)
		}
	}
}

func TestFenceRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		m    machine
		late time.Duration // now, from the deadline or from killAt
		want force
		wake time.Duration // from the same point; 0 means not at all
	}{
		{"before the deadline", running(true, 1, 0), -time.Nanosecond, forceNone, 0},
		{"at the deadline", running(true, 1, 0), 0, forceQuit, FenceGrace},
		{"within the grace", running(true, 1, 0), FenceGrace - 1, forceQuit, FenceGrace},
		{"at its end", running(true, 1, 0), FenceGrace, forceKill, FenceGrace + killAgainAfter},
		{"woken an hour late", running(true, 1, 0), time.Hour, forceKill, time.Hour + killAgainAfter},
		{"a standby", running(false, 1, 0), time.Hour, forceNone, 0},
		{"immediate stop", machine{process: ProcessStopping, asked: StopImmediate, killAt: at}, -time.Second, forceQuit, 0},
		{"immediate stop not heard", machine{process: ProcessStopping, asked: StopImmediate, killAt: at}, 0, forceKill, killAgainAfter},
		{"fast stop past the deadline", machine{process: ProcessStopping, asked: StopFast, armed: true, deadline: at}, time.Second, forceKill, time.Second + killAgainAfter},
		{"stopped", machine{process: ProcessStopped}, time.Hour, forceNone, 0},
	} {
		now := at.Add(c.late)
		if got := c.m.fence(now); got != c.want {
			t.Errorf("%s: force %d; want %d", c.name, got, c.want)
		}
		wake := c.m.wake(now)
		if c.m.deadline == at || c.m.killAt == at {
			if wake != at.Add(c.wake) {
				t.Errorf("%s: next at %+d; want %s", c.name, wake.Sub(at), c.wake)
			}
		} else if wake != schema.Never {
			t.Errorf("%s: next at %d; want never", c.name, wake)
		}
		if c.m.fencing && !c.m.alive() {
			t.Errorf("%s: %+v", c.name, c.m)
		}
	}
}

func TestStopAndEndRules(t *testing.T) {
	t.Parallel()
	m := running(true, 1, time.Minute)
	for _, c := range []struct {
		mode StopMode
		act  bool
	}{{StopFast, true}, {StopSmart, false}, {StopFast, false}, {StopImmediate, true}, {StopFast, false}} {
		if act, err := m.stop(c.mode, at); act != c.act || err != nil {
			t.Errorf("%s: %v, %v; want %v", c.mode, act, err, c.act)
		}
	}
	if w := m.wake(at); w != at {
		t.Errorf("an immediate stop is due at once, not at %d", w)
	}
	if m.fence(at) != forceQuit || m.wake(at) != at.Add(StopKillAfter) {
		t.Errorf("then SIGKILL after %s, not at %d", StopKillAfter, m.wake(at))
	}
	ends := map[ProcessState]machine{
		ProcessStopped: m,
		ProcessCrashed: running(true, 1, time.Minute),
		ProcessFenced:  {process: ProcessStopping, asked: StopFast, armed: true, deadline: at, fencing: true},
	}
	for want, m := range ends {
		m.reaped()
		if !m.alive() || m.process != ProcessStopping {
			t.Errorf("reaped, but backends may live: %+v", m)
		}
		m.gone()
		if m.process != want || m.armed || m.alive() || m.wake(at) != schema.Never {
			t.Errorf("%+v; want %s and disarmed", m, want)
		}
	}
	crashed := running(true, 1, 0)
	if crashed.patience(true) != 0 || m.patience(true) != 0 || m.patience(false) != 0 {
		t.Error("only a clean stop that was asked for leaves time to its leftovers")
	}
}

func TestCheckClock(t *testing.T) {
	t.Parallel()
	for client, want := range map[schema.Instant]error{at: nil, at.Add(-time.Second): nil, at.Add(1): ErrClock, at.Add(-time.Hour): ErrClock, 0: ErrClock} {
		if err := checkClock(client, at); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d: %v; want %v", client, err, want)
		}
	}
}
