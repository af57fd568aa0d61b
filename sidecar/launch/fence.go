package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// alarm is a timerfd on CLOCK_BOOTTIME with absolute times: it goes off in suspend's aftermath too, and Go's
// timers, which stand still in suspend, have no part in it.
type alarm struct{ fd int }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no timer on CLOCK_BOOTTIME, so no deadline can be kept: %w", err)
	}
	return &alarm{fd: fd}, nil
}

// set makes wait return at at, at once if that has passed, not at all if it is Never.
func (a *alarm) set(at schema.Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("the deadline's timer cannot be set: %w", err)
	}
	return nil
}

func (a *alarm) wait() error {
	var b [8]byte
	for {
		_, err := unix.Read(a.fd, b[:])
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// guard is the fence: one thread that sleeps until the next deadline and then sends what is due. On
// that way there is no log, and no lock that anybody holds while blocking.
type guard struct {
	s     *Server
	alarm *alarm
	tree  striker
	over  atomic.Bool
	done  chan struct{}
}

func (s *Server) newGuard() (*guard, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, err
	}
	return &guard{s: s, alarm: a, tree: striker{children: s.children}, done: make(chan struct{})}, nil
}

func (g *guard) stop() {
	g.over.Store(true)
	_ = g.alarm.set(1)
	<-g.done
	_ = unix.Close(g.alarm.fd)
}

func (g *guard) run() {
	defer close(g.done)
	runtime.LockOSThread() // never unlocked: its priority must not pass to another goroutine
	g.prefer()
	g.tree.strike(nil, 0) // walk the way once, so that its pages are in memory when the disk hangs
	for {
		if err := g.alarm.wait(); err != nil {
			panic("the deadline's timer cannot be read: " + err.Error()) // our death stops Postgres (pdeathsig)
		}
		if g.over.Load() {
			return
		}
		g.strike()
	}
}

func (g *guard) strike() {
	s := g.s
	s.striking.Lock()
	defer s.striking.Unlock()
	s.mu.Lock()
	now := s.o.Now()
	fenced := s.m.fencing
	due := s.m.fence(now)
	deadline, pm := s.m.deadline, s.postmaster
	err := g.alarm.set(s.m.wake(now))
	first := s.m.fencing && !fenced
	s.mu.Unlock()
	if err != nil {
		panic(err)
	}
	switch due {
	case forceQuit:
		g.tree.strike(pm, unix.SIGQUIT)
	case forceKill:
		g.tree.strike(pm, unix.SIGKILL)
	}
	if first {
		took := s.o.Now().Sub(now)
		go func() { // a log that is stuck must not stop the next round
			s.touch()
			s.log.Error("the deadline has passed: Postgres is being killed", zap.Uint64("epoch", uint64(s.epoch())),
				zap.Duration("late", now.Sub(deadline)), zap.Duration("took", took), zap.Bool("without_grace", due == forceKill))
		}()
	}
}

// prefer asks for what keeps the thread from waiting behind others, each said once where it is refused: it is
// an improvement, the fence works without.
func (g *guard) prefer() {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		nice := unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		g.s.log.Info("the fence runs without real-time priority; grant CAP_SYS_NICE or RLIMIT_RTPRIO to have it",
			zap.Error(err), zap.Bool("nice", nice == nil))
	}
	// With a finite limit MCL_FUTURE would turn a later allocation into a crash.
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil && limit.Cur != unix.RLIM_INFINITY {
		err = fmt.Errorf("RLIMIT_MEMLOCK is %d bytes", limit.Cur)
	}
	if err == nil {
		err = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		g.s.log.Info("the launcher's memory is not locked; raise RLIMIT_MEMLOCK to unlimited to have it", zap.Error(err))
	}
}

// striker sends signals to everything that descends from this process except jobs. Every
// backend calls setsid, so no process group holds them all; orphans come to the launcher as
// the child subreaper, so its descendants do. One striker for each goroutine.
type striker struct {
	procs    procs
	children *children
}

// strikeRounds bounds one strike; whoever needs certainty strikes again until nothing is found.
const strikeRounds = 20

// strike sends sig to the postmaster and every process below, and reports whether the process table was
// then seen without any (twice, because a process may change parent during one walk). SIGQUIT makes
// one round. The postmaster is stopped first, or told to shut down, either way it forks no more; it dies
// after its children, because its death would hide them from the kernel's quick list.
func (k *striker) strike(pm *child, sig unix.Signal) (none bool) {
	if pm != nil {
		first := sig
		if sig == unix.SIGKILL {
			first = unix.SIGSTOP
		}
		_ = k.children.signal(pm, first)
		k.procs.children(pm.pid, func(pid int) { _ = unix.Kill(pid, sig) })
		_ = k.children.signal(pm, sig)
	}
	empty := 0
	for range strikeRounds {
		found, err := k.procs.tree(os.Getpid(), k.children.ofJob)
		if err != nil {
			return false // unknown is not none
		}
		if len(found) == 0 {
			if empty++; empty == 2 {
				return true
			}
			continue
		}
		empty = 0
		for _, s := range found {
			_ = unix.Kill(s.PID, sig)
		}
		if sig != unix.SIGKILL {
			return false
		}
	}
	return false
}

// finish kills until nothing is left, after waiting up to patience for it to go by itself.
func (k *striker) finish(patience time.Duration) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if k.strike(nil, 0) {
			return
		}
	}
	for !k.strike(nil, unix.SIGKILL) {
		<-tick.C
	}
}
