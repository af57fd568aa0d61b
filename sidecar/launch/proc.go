package launch

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// procStat is what is needed of one /proc/<pid>/stat.
type procStat struct {
	PID   int
	Comm  string
	State byte // 'Z' is a zombie, 'X' dead, 'T' stopped
	PPID  int
	PGRP  int
	// Start is the time of start in clock ticks since boot: with PID it names one process for good.
	Start uint64
}

// dead reports whether the process runs no code any more.
func (s procStat) dead() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

var errStat = errors.New("not a line of /proc/<pid>/stat")

// parseStat reads a /proc/<pid>/stat line: "pid (comm) state ppid pgrp ... starttime ...", proc_pid_stat(5).
// comm may hold anything, blanks, parentheses and newlines too, so the last ')' ends it.
func parseStat(b []byte) (procStat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open {
		return procStat{}, errStat
	}
	f := bytes.Fields(b[end+1:])
	const ppid, pgrp, start = 1, 2, 19 // fields 4, 5 and 22 of the manual, counted from state, field 3
	if len(f) <= start || len(f[0]) != 1 {
		return procStat{}, errStat
	}
	s := procStat{Comm: string(b[open+1 : end]), State: f[0][0]}
	var errs [4]error
	s.PID, errs[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	s.PPID, errs[1] = strconv.Atoi(string(f[ppid]))
	s.PGRP, errs[2] = strconv.Atoi(string(f[pgrp]))
	s.Start, errs[3] = strconv.ParseUint(string(f[start]), 10, 64)
	if errors.Join(errs[:]...) != nil || s.PID <= 0 || s.PPID < 0 {
		return procStat{}, errStat
	}
	return s, nil
}

// procs reads /proc by bare system calls into buffers of its own: the fence walks the process table
// with it, and must neither wait for memory nor for the netpoller. Not safe for concurrent use.
type procs struct {
	dir  [32 << 10]byte
	stat [1024]byte
	pids []int
}

// each calls f with every process of this pid namespace that could be read, newest pids first: the
// backends of a postmaster are younger than most of the machine. f returns false to end the walk.
func (p *procs) each(f func(procStat) bool) error {
	if err := p.list(); err != nil {
		return err
	}
	for i := len(p.pids) - 1; i >= 0; i-- {
		s, err := p.read(p.pids[i])
		if err != nil {
			continue // gone since the listing
		}
		if !f(s) {
			break
		}
	}
	return nil
}

func (p *procs) list() error {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/proc cannot be opened; mount it, without it Postgres cannot be stopped safely: %w", err)
	}
	defer unix.Close(fd)
	p.pids = p.pids[:0]
	names := make([]string, 0, 256)
	for {
		n, err := unix.ReadDirent(fd, p.dir[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("/proc cannot be listed: %w", err)
		}
		if n == 0 {
			return nil
		}
		_, _, names = unix.ParseDirent(p.dir[:n], -1, names[:0])
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				p.pids = append(p.pids, pid)
			}
		}
	}
}

func (p *procs) read(pid int) (procStat, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procStat{}, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, p.stat[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return procStat{}, err
		}
		return parseStat(p.stat[:n])
	}
}

// tree returns the living descendants of root that spare does not name, as one walk of /proc shows
// them. Processes that change parent during the walk can be missed: ask until the answer is empty twice.
func (p *procs) tree(root int, spare func(procStat) bool) ([]procStat, error) {
	all := map[int]procStat{}
	if err := p.each(func(s procStat) bool { all[s.PID] = s; return true }); err != nil {
		return nil, err
	}
	var found []procStat
	for _, s := range all {
		if s.PID != root && !s.dead() && descends(all, s, root) && !spare(s) {
			found = append(found, s)
		}
	}
	return found, nil
}

func descends(all map[int]procStat, s procStat, root int) bool {
	for range len(all) {
		if s.PPID == root {
			return true
		}
		up, ok := all[s.PPID]
		if !ok {
			return false
		}
		s = up
	}
	return false
}

// children calls f with the children of every thread of pid as the kernel lists them. It is quick and may miss
// some (proc_tid_children(5)), or all where CONFIG_PROC_CHILDREN is off: good for first shots, not for proof.
func (p *procs) children(pid int, f func(child int)) {
	base := "/proc/" + strconv.Itoa(pid) + "/task"
	fd, err := unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	n, err := unix.ReadDirent(fd, p.dir[:])
	_ = unix.Close(fd)
	if err != nil || n <= 0 {
		return
	}
	_, _, tids := unix.ParseDirent(p.dir[:n], -1, nil)
	for _, tid := range tids {
		fd, err := unix.Open(base+"/"+tid+"/children", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		n, err := unix.Read(fd, p.dir[:])
		_ = unix.Close(fd)
		if err != nil || n <= 0 {
			continue
		}
		for _, w := range bytes.Fields(p.dir[:n]) {
			if c, err := strconv.Atoi(string(w)); err == nil {
				f(c)
			}
		}
	}
}
