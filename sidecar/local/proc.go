package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// task is one process of the process table. PID and Start together name it for good.
type task struct {
	PID, PPID int
	Comm      string
	State     byte // 'T' is stopped, 'Z' a zombie
	Start     uint64
}

func (t task) dead() bool    { return t.State == 'Z' || t.State == 'X' || t.State == 'x' }
func (t task) stopped() bool { return t.State == 'T' || t.State == 't' }

// readTask reads /proc/<pid>/stat (proc_pid_stat(5)); a process that is gone is no error but ok=false.
func readTask(pid int) (t task, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return t, false
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return t, false
	}
	f := bytes.Fields(b[end+1:])
	const ppid, start = 1, 19 // fields 4 and 22, counted from the state, field 3
	if len(f) <= start {
		return t, false
	}
	t = task{PID: pid, Comm: string(b[open+1 : end]), State: f[0][0]}
	var err1, err2 error
	t.PPID, err1 = strconv.Atoi(string(f[ppid]))
	t.Start, err2 = strconv.ParseUint(string(f[start]), 10, 64)
	return t, err1 == nil && err2 == nil
}

// tree returns the living processes that descend from root, root included, parents before children.
func tree(root int) ([]task, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("the process table cannot be read: %w", err)
	}
	children := map[int][]task{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if t, ok := readTask(pid); ok {
			children[t.PPID] = append(children[t.PPID], t)
		}
	}
	var found []task
	if t, ok := readTask(root); ok && !t.dead() {
		found = append(found, t)
	}
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, t := range children[next[0]] {
			if !t.dead() {
				found = append(found, t)
			}
			next = append(next, t.PID)
		}
	}
	return found, nil
}

// stopRounds bounds how often stopAll looks for processes that were forked meanwhile.
const stopRounds = 100

// stopAll stops every process below roots (SIGSTOP), and returns them: when it returns none runs, so none can fork.
func stopAll(roots ...int) ([]task, error) {
	var all []task
	for range stopRounds {
		running := 0
		all = all[:0]
		for _, root := range roots {
			found, err := tree(root)
			if err != nil {
				return nil, err
			}
			for _, t := range found {
				if slices.ContainsFunc(all, func(o task) bool { return o.PID == t.PID }) {
					continue
				}
				all = append(all, t)
				if !t.stopped() {
					running++
					if err := signalTask(t, unix.SIGSTOP); err != nil {
						return nil, err
					}
				}
			}
		}
		if running == 0 {
			return all, nil
		}
	}
	return nil, errors.New("the processes do not stop")
}

// signalTask sends a signal to t and to no other process that has its pid by now.
func signalTask(t task, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(t.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", t.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor holds on to whoever has the pid now; is it still the one we mean?
	if now, ok := readTask(t.PID); !ok || now.Start != t.Start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s to process %d: %w", unix.SignalName(sig), t.PID, err)
	}
	return nil
}

// alive reports whether the process itself still runs.
func (t task) alive() bool {
	now, ok := readTask(t.PID)
	return ok && now.Start == t.Start && !now.dead()
}
