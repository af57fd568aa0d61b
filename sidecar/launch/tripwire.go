package launch

import (
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tripwire lets the kernel kill Postgres's processes in one go: when the fence springs it, by a single system call,
// and when this process dies, by itself, whatever is stopped or busy then.
//
// It is a pipe of which only the fence's thread, which has its own table of descriptors, has the write end. For each process of Postgres there is a descriptor of the read
// end, opened anew, with that process as its owner and SIGKILL as its signal (fcntl(2): F_SETOWN,
// F_SETSIG, O_ASYNC): what makes the pipe readable, a byte or the end of its last writer, signals every
// owner. An owner is a struct pid, so a number that was given away meanwhile is never hit.
//
// A dying thread closes its descriptors from the highest to the lowest (close_files in fs/file.c, task_work_run in
// kernel/task_work.c, last in first out), and the write end has to be closed before the others:
// it gets a number above theirs.
type tripwire struct {
	read, write int
	pm          *child
	pmFD        int // a pidfd
	pmWire      int // what wakes the postmaster
	wires       map[int]int
	procs       procs
}

// wireFloor is the lowest descriptor for the write end; the table of descriptors grows to it, 8 bytes each.
const wireFloor = 16 << 10

func newTripwire(c *children, pm *child) (*tripwire, error) {
	pidfd, err := c.pidfd(pm)
	if err != nil {
		return nil, fmt.Errorf("pidfd of the postmaster: %w", err)
	}
	w := &tripwire{pm: pm, pmFD: pidfd, read: -1, write: -1, pmWire: -1, wires: map[int]int{}}
	if err := w.stretch(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *tripwire) stretch() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	w.read = ends[0]
	floor := int(min(limit.Cur-limit.Cur/4, wireFloor))
	high, err := unix.FcntlInt(uintptr(ends[1]), unix.F_DUPFD_CLOEXEC, floor)
	_ = unix.Close(ends[1])
	if err != nil {
		return fmt.Errorf("descriptor above %d: %w", floor, err)
	}
	w.write = high
	// A postmaster that is stopped could not act on its parent-death signal: SIGCONT lets it. It is not killed
	// here, because it takes along the backends that are younger than the last refresh.
	w.pmWire, err = w.tie(w.pm.pid, unix.SIGCONT, func() error { return unix.PidfdSendSignal(w.pmFD, 0, nil, 0) })
	return err
}

// tie makes sig what pid is sent; same is asked after the owner is named and before the signal can come, and says
// whether the number was that process's until then.
func (w *tripwire) tie(pid int, sig unix.Signal, same func() error) (int, error) {
	fd, err := unix.Open("/proc/thread-self/fd/"+strconv.Itoa(w.read), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("read end for process %d: %w", pid, err)
	}
	set := func(cmd, arg int) {
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), cmd, arg)
		}
	}
	set(unix.F_SETOWN, pid)
	set(fSetSig, int(sig))
	if err == nil {
		err = same()
	}
	if err == nil && !owns(fd, pid) {
		err = unix.ESRCH
	}
	if err == nil && fd > w.write {
		err = unix.EMFILE
	}
	set(unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("signal to process %d: %w", pid, err)
	}
	return fd, nil
}

// fSetSig is F_SETSIG of include/uapi/asm-generic/fcntl.h.
const fSetSig = 10

// owns reports whether fd's owner still exists as pid. Linux before 5.12 says so of a dead one too.
func owns(fd, pid int) bool {
	owner, err := unix.FcntlInt(uintptr(fd), unix.F_GETOWN, 0)
	return err == nil && owner == pid
}

// tiesAtOnce bounds what one refresh does, because the fence waits for it.
const tiesAtOnce = 32

// refresh ties the postmaster's children of this moment and lets go of those that are gone; more says that some
// are left to be tied.
func (w *tripwire) refresh() (more bool, err error) {
	for pid, fd := range w.wires {
		if !owns(fd, pid) || unix.Kill(pid, 0) != nil {
			delete(w.wires, pid)
			_ = unix.Close(fd)
		}
	}
	var errs []error
	add := func(pid int) {
		if _, ok := w.wires[pid]; ok {
			return
		}
		fd, err := w.tie(pid, unix.SIGKILL, func() error {
			st, err := w.procs.read(pid)
			if err == nil && (st.PPID != w.pm.pid || st.dead()) {
				err = unix.ESRCH
			}
			return err
		})
		switch {
		case err == nil:
			w.wires[pid] = fd
		case !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT): // not gone, but refused
			errs = append(errs, err)
		}
	}
	var listed []int
	w.procs.children(w.pm.pid, func(pid int) { listed = append(listed, pid) })
	if len(listed) == 0 { // a kernel without CONFIG_PROC_CHILDREN, or a postmaster that has just begun
		below, err := w.procs.tree(w.pm.pid, func(st procStat) bool { return st.PPID != w.pm.pid })
		if err != nil {
			return false, err
		}
		for _, st := range below {
			listed = append(listed, st.PID)
		}
	}
	before := len(w.wires)
	for _, pid := range listed {
		if add(pid); len(w.wires) >= before+tiesAtOnce {
			return true, errors.Join(errs...)
		}
	}
	return false, errors.Join(errs...)
}

// spring kills everything that is tied, by a bare system call: it waits for no lock, no memory and not for Go's
// scheduler. The postmaster it only wakes.
func (w *tripwire) spring() {
	b := byte(0)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(w.write), uintptr(unsafe.Pointer(&b)), 1)
}

// close lets go of everything without a signal to anybody.
func (w *tripwire) close() {
	for _, fd := range w.wires {
		_ = unix.Close(fd)
	}
	clear(w.wires)
	for _, fd := range []int{w.pmWire, w.write, w.read, w.pmFD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
