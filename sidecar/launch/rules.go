package launch

import (
	"fmt"
	"time"

	"howdah/consul/schema"
)

// machine is the pure part of the launcher: what may be started, armed and stopped, and when Postgres
// has to die. It does no I/O and reads no clock; the server carries out what it answers.
//
//	stopped, crashed, fenced --start--> running --stop--> stopping --exited--> stopping --gone--> stopped
//	                                    running --exited unasked--> stopping --gone--> crashed
//	                                    running, stopping --deadline reached--> stopping --gone--> fenced
type machine struct {
	process ProcessState
	// armed and deadline are set together, by start and arm; only gone clears them.
	//	I2: armed && now >= deadline => fence(now) has answered quit or kill, and never none again.
	armed    bool
	deadline schema.Instant
	// epoch is the newest that was ever given.  I3: it never decreases.
	epoch schema.Epoch
	// fencing is set when the deadline was reached. It ends only with Postgres.
	fencing bool
	// asked is the hardest stop that was asked for; empty if none was.
	asked StopMode
	// quit is set once fence has answered quit for an immediate stop.
	quit bool
	// killAt is when an immediate stop becomes SIGKILL; zero if none was asked for.
	killAt schema.Instant
	// exited is set once the postmaster was reaped; backends may still live.
	exited bool
	// ending refuses every further start.
	ending bool
}

// force is what is to be sent to every process of Postgres now. Ordered by harshness.
type force int

const (
	forceNone force = iota
	forceQuit       // SIGQUIT
	forceKill       // SIGKILL
)

// alive reports whether anything of Postgres may live.
func (m *machine) alive() bool {
	return m.process == ProcessRunning || m.process == ProcessStopping
}

// signals are what the data directory says about its role.
type signals struct{ standby, recovery bool }

func (m *machine) start(r StartRequest, dir signals, longJob bool, now schema.Instant) error {
	switch {
	case m.ending:
		return ErrEnding
	case m.alive():
		return fmt.Errorf("%w (%s)", ErrAlreadyRunning, m.process)
	case longJob:
		return fmt.Errorf("%w; cancel it or wait for its end before the start", ErrBusy)
	}
	switch r.Role {
	case schema.RoleStandby:
		if !dir.standby && !dir.recovery {
			return fmt.Errorf("%w: there is neither standby.signal nor recovery.signal, so Postgres would accept writes; write standby.signal or start it as a primary with a deadline", ErrWrongRole)
		}
		m.armed, m.deadline = false, schema.Never
		m.epoch = max(m.epoch, r.Epoch)
	case schema.RolePrimary:
		if dir.standby {
			return fmt.Errorf("%w: standby.signal exists; remove it first, or start it as a standby and promote it", ErrWrongRole)
		}
		if err := m.checkLease(r.Epoch, r.Deadline, now); err != nil {
			return err
		}
		m.armed, m.deadline, m.epoch = true, r.Deadline, r.Epoch
	default:
		return fmt.Errorf("%w: role %q; want primary or standby", ErrInvalid, r.Role)
	}
	m.process = ProcessRunning
	m.fencing, m.exited, m.asked, m.quit, m.killAt = false, false, "", false, schema.Never
	return nil
}

// arm sets or extends the deadline. Nothing but the end of Postgres takes it away.
func (m *machine) arm(epoch schema.Epoch, deadline, now schema.Instant) error {
	if !m.alive() || m.exited {
		return fmt.Errorf("%w, so there is nothing to arm (%s)", ErrNotRunning, m.process)
	}
	if m.fencing || m.armed && m.deadline.Reached(now) {
		return fmt.Errorf("%w: the deadline in force was %d, now it is %d: Postgres is being killed", ErrDeadlinePast, m.deadline, now)
	}
	if err := m.checkLease(epoch, deadline, now); err != nil {
		return err
	}
	if m.armed && epoch == m.epoch {
		deadline = schema.Latest(deadline, m.deadline)
	}
	m.armed, m.epoch, m.deadline = true, epoch, deadline
	return nil
}

func (m *machine) checkLease(epoch schema.Epoch, deadline, now schema.Instant) error {
	switch {
	case epoch == 0:
		return fmt.Errorf("%w: epoch 0 is no reign", ErrInvalid)
	case epoch < m.epoch:
		return fmt.Errorf("%w: %d, while %d is known here", ErrOlderEpoch, epoch, m.epoch)
	case deadline <= now:
		return fmt.Errorf("%w: %d, now it is %d", ErrDeadlinePast, deadline, now)
	case deadline > now.Add(MaxAhead):
		return fmt.Errorf("%w: the deadline is more than %s away; no lease is that long, so it was read from another clock", ErrInvalid, MaxAhead)
	}
	return nil
}

// stop notes the wish to stop and reports whether it is to be carried out: not if nothing runs, nor
// if as hard a stop is under way.
func (m *machine) stop(mode StopMode, now schema.Instant) (bool, error) {
	if hardness(mode) == 0 {
		return false, fmt.Errorf("%w: mode %q; want smart, fast or immediate", ErrInvalid, mode)
	}
	if !m.alive() || m.exited || m.fencing || hardness(mode) <= hardness(m.asked) {
		return false, nil
	}
	m.process, m.asked = ProcessStopping, mode
	if mode == StopImmediate {
		m.killAt = now.Add(StopKillAfter)
	}
	return true, nil
}

func hardness(mode StopMode) int {
	switch mode {
	case StopSmart:
		return 1
	case StopFast:
		return 2
	case StopImmediate:
		return 3
	}
	return 0
}

// fence answers what every process of Postgres is due at now, and notes that a deadline was
// reached. Counting FenceGrace from the deadline makes a late waker (a frozen machine, a frozen
// launcher) go straight to kill: a newer primary may exist.
func (m *machine) fence(now schema.Instant) force {
	if !m.alive() {
		return forceNone
	}
	f := forceNone
	if m.armed && m.deadline.Reached(now) {
		m.fencing, m.process = true, ProcessStopping
		f = forceQuit
		if m.deadline.Add(FenceGrace).Reached(now) {
			f = forceKill
		}
	}
	if m.asked == StopImmediate {
		m.quit = true
		f = max(f, forceQuit)
		if m.killAt.Reached(now) {
			f = forceKill
		}
	}
	return f
}

// wake is when fence must be asked next; Never if nothing is due.
func (m *machine) wake(now schema.Instant) schema.Instant {
	if !m.alive() {
		return schema.Never
	}
	if m.asked == StopImmediate && !m.quit {
		return now
	}
	kill := m.killAt
	if m.fencing {
		kill = earlier(kill, m.deadline.Add(FenceGrace))
	}
	if kill.Reached(now) {
		return now.Add(killAgainAfter) // once more, until nobody is left
	}
	if m.armed && !m.fencing {
		return earlier(kill, m.deadline)
	}
	return kill
}

func earlier(a, b schema.Instant) schema.Instant {
	if a == schema.Never || b != schema.Never && b < a {
		return b
	}
	return a
}

// reaped notes that the postmaster was reaped.
func (m *machine) reaped() { m.exited, m.process = true, ProcessStopping }

// patience is how long what the postmaster left behind may take to go by itself: after a clean stop its
// logger still writes its last lines, after anything else the leftovers only hold shared memory.
func (m *machine) patience(clean bool) time.Duration {
	if clean && m.asked != "" && m.asked != StopImmediate && !m.fencing {
		return 500 * time.Millisecond
	}
	return 0
}

// gone notes that nothing of Postgres is left, which is what disarms.
func (m *machine) gone() {
	switch {
	case m.fencing:
		m.process = ProcessFenced
	case m.asked != "":
		m.process = ProcessStopped
	default:
		m.process = ProcessCrashed
	}
	m.armed, m.deadline, m.killAt = false, schema.Never, schema.Never
}
