package launch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"howdah/consul/schema"
)

// deadman is a timer of the kernel that kills this process: what is left when the launcher is stopped, or its
// runtime hangs, so that no code of ours runs at the deadline. It needs none: the kernel sends the signal, a stopped
// process dies of it too, and the tripwire and the parent-death signal do the rest.
//
// SIGKILL is allowed as sigev_signo: good_sigevent in kernel/time/posix-timers.c takes all from 1 to
// SIGRTMAX. Only the first process of a pid namespace ignores it (SIGNAL_UNKILLABLE, sig_task_ignored in
// kernel/signal.c), which is why Server refuses to be that: see Init.
type deadman struct{ id int32 }

// sigevent is the kernel's struct sigevent, include/uapi/asm-generic/siginfo.h, with room to spare.
type sigevent struct {
	_      uintptr
	signo  int32
	notify int32
	_      [64]byte
}

func newDeadman() (*deadman, error) {
	const sigevSignal = 0 // SIGEV_SIGNAL: to the whole process
	event, id := sigevent{signo: int32(unix.SIGKILL), notify: sigevSignal}, int32(0)
	if _, _, e := unix.RawSyscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); e != 0 {
		return nil, fmt.Errorf("no timer that kills a frozen launcher (timer_create on CLOCK_BOOTTIME): %w", e)
	}
	return &deadman{id: id}, nil
}

// set makes the kernel kill this process at at, at once if that has passed, not at all if it is Never.
func (d *deadman) set(at schema.Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if _, _, e := unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); e != 0 {
		return fmt.Errorf("the timer that kills a frozen launcher cannot be set: %w", e)
	}
	return nil
}

func (d *deadman) close() {
	_, _, _ = unix.RawSyscall(unix.SYS_TIMER_DELETE, uintptr(d.id), 0, 0)
}
