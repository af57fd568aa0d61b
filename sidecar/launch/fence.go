package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
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
// that way there is no log, and no lock that anybody holds while blocking. Behind it stands the kernel: should the
// thread not run, deadman kills this process and the tripwire kills Postgres.
type guard struct {
	s       *Server
	alarm   *alarm
	deadman *deadman
	tree    striker
	wire    *tripwire // the thread's own; nil without one
	told    *child    // the postmaster of which it was said that the tripwire is not whole

	// pm is the running postmaster and killAt its deadline + FenceGrace, an Instant, Never if not armed: what the
	// thread reads without a lock. acting is set while it does, and whoever takes pm away waits for its end.
	pm     atomic.Pointer[child]
	killAt atomic.Int64
	acting atomic.Bool

	over  atomic.Bool
	ready chan struct{} // closed once the thread has its own descriptors
	done  chan struct{}
}

func (s *Server) newGuard() (*guard, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, err
	}
	d, err := newDeadman()
	if err != nil {
		_ = unix.Close(a.fd)
		return nil, err
	}
	return &guard{s: s, alarm: a, deadman: d, tree: striker{children: s.children}, ready: make(chan struct{}), done: make(chan struct{})}, nil
}

// start returns once the thread has its own descriptors: until then nothing may be opened whose end somebody waits
// for, as the thread would hold a copy. Go's poller must have been in use before, since its descriptors are everybody's.
func (g *guard) start() {
	go g.run()
	<-g.ready
}

func (g *guard) stop() {
	g.over.Store(true)
	_ = g.alarm.set(1)
	<-g.done
	g.deadman.close()
	_ = unix.Close(g.alarm.fd)
}

// schedule sets all timers by the state of the launcher. Server.mu is held. On an error those that were in force
// before may still be, and they go off earlier.
func (g *guard) schedule(now schema.Instant) error {
	m, kill := &g.s.m, schema.Never
	if m.armed {
		kill = m.deadline.Add(FenceGrace)
	}
	// Only the rounds of the fence move the timer any more once the deadline was reached.
	if !m.fencing || !m.armed {
		at := schema.Never
		if m.armed {
			at = m.deadline.Add(DeadmanAfter)
		}
		if err := g.deadman.set(at); err != nil {
			return err
		}
	}
	g.killAt.Store(int64(kill))
	return g.alarm.set(g.wake(now))
}

// wake is when the thread has to look next. Server.mu is held.
func (g *guard) wake(now schema.Instant) schema.Instant {
	w := g.s.m.wake(now)
	if g.s.m.armed && g.pm.Load() != nil {
		w = earlier(w, now.Add(refreshEvery))
	}
	return w
}

// take gives the thread a postmaster to watch, or nil. Server.mu is held. The thread ties it at once.
func (g *guard) take(pm *child) {
	g.pm.Store(pm)
	for pm == nil && g.acting.Load() { // a few system calls
		runtime.Gosched()
	}
}

// follow keeps the tripwire tied to the processes of the running Postgres. Only the thread calls it.
func (g *guard) follow() {
	pm := g.pm.Load()
	if g.wire != nil && g.wire.pm != pm {
		g.wire.close()
		g.wire = nil
	}
	if pm == nil || g.killAt.Load() == int64(schema.Never) {
		return
	}
	var err error
	if g.wire == nil {
		if g.wire, err = newTripwire(g.s.children, pm); err != nil && errors.Is(err, unix.ESRCH) {
			return // it has just ended
		}
	}
	if err == nil {
		var more bool
		if more, err = g.wire.refresh(); more {
			_ = g.alarm.set(1)
		}
	}
	if err != nil && g.told != pm {
		g.told = pm
		go g.s.log.Warn("some processes of Postgres are not killed by the kernel should the launcher freeze or die; the fence itself is not touched by this", zap.Error(err))
	}
}

// first is what the thread does before anything else: nothing in it waits for a lock, which on a busy machine a
// thread of lesser priority may hold, nor before the first signals for /proc, so that backends that were frozen together
// with the launcher get as little time as can be. When it returns, all that could accept a write has been killed.
func (g *guard) first() error {
	g.acting.Store(true)
	defer g.acting.Store(false)
	w := g.wire
	if w == nil || w.pm != g.pm.Load() || !schema.Instant(g.killAt.Load()).Reached(g.s.o.Now()) {
		return nil
	}
	w.spring()
	// Those that are not tied yet. A postmaster that is stopped reaps none, so the numbers are still theirs.
	if unix.PidfdSendSignal(w.pmFD, unix.SIGSTOP, nil, 0) == nil {
		g.tree.procs.children(w.pm.pid, func(pid int) { _ = unix.Kill(pid, unix.SIGKILL) })
		_ = unix.PidfdSendSignal(w.pmFD, unix.SIGKILL, nil, 0)
	}
	// The thread runs: time for the walk of /proc and for the next rounds.
	return g.deadman.set(g.s.o.Now().Add(DeadmanAfter))
}

func (g *guard) run() {
	defer close(g.done)
	runtime.LockOSThread() // never unlocked: its priority and its files must not pass to another goroutine
	// A table of descriptors of its own makes the tripwire go off as soon as this thread dies, and not with the last
	// thread of the process: on a busy machine that took more than 170 ms.
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		panic("the fence cannot have its own descriptors: " + err.Error())
	}
	close(g.ready)
	defer func() {
		if g.wire != nil {
			g.wire.close()
		}
	}()
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
		g.follow()
	}
}

// lock takes mu without losing sight of the clock: on a busy machine whoever holds it may wait for its turn.
func (g *guard) lock(mu *sync.Mutex) {
	for {
		if err := g.first(); err != nil {
			panic(err)
		}
		if mu.TryLock() {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(200 * time.Microsecond)}, nil)
	}
}

func (g *guard) strike() {
	s := g.s
	g.lock(&s.striking)
	defer s.striking.Unlock()
	g.lock(&s.mu)
	now := s.o.Now()
	fenced := s.m.fencing
	due := s.m.fence(now)
	deadline, pm := s.m.deadline, s.postmaster
	err := g.alarm.set(g.wake(now))
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
			s.watchdog.ping(0)
			s.log.Error("the deadline has passed: Postgres is being killed", zap.Uint64("epoch", uint64(s.epoch())),
				zap.Duration("late", now.Sub(deadline)), zap.Duration("took", took), zap.Bool("without_grace", due == forceKill))
		}()
	}
}

// prefer asks for what keeps the thread from waiting behind others, each said once where it is refused: it is
// an improvement, the fence works without.
func (g *guard) prefer() {
	// A thread that comes back from a system call needs a P of Go's scheduler. Where the processors are busy those in
	// use stay with threads that wait for one; with some to spare this thread finds an idle P.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	if err := realtime(); err != nil {
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

const spareProcs = 8

// realtime gives the calling thread a priority above all that is not real-time. Its children do not inherit it.
func realtime() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	return unix.SchedSetAttr(0, &attr, 0)
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
	k.shoot(pm, sig)
	return k.sweep(sig)
}

// shoot is the quick part: the postmaster and its children as the kernel lists them.
func (k *striker) shoot(pm *child, sig unix.Signal) {
	if pm == nil {
		return
	}
	first := sig
	if sig == unix.SIGKILL {
		first = unix.SIGSTOP
	}
	_ = k.children.signal(pm, first)
	k.procs.children(pm.pid, func(pid int) { _ = unix.Kill(pid, sig) })
	_ = k.children.signal(pm, sig)
}

// sweep is the thorough part, which walks the process table. It ends early where a walk finds none but those that the one
// before has killed: they die once the kernel lets them, which for one that waits for a disk that hangs may be in an
// hour. It would take a processor for all that time, and longer than deadman gives it.
func (k *striker) sweep(sig unix.Signal) (none bool) {
	empty := 0
	killed := map[int]uint64{}
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
		fresh := false
		for _, s := range found {
			_ = unix.Kill(s.PID, sig)
			fresh = fresh || killed[s.PID] != s.Start
			killed[s.PID] = s.Start
		}
		if sig != unix.SIGKILL || !fresh {
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
