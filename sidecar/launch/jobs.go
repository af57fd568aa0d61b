package launch

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// tools are the programs that may be run, and what each may not meet.
var tools = map[string]struct {
	long    bool // one at a time, and not while a postmaster is started
	offline bool // writes the data directory, so never beside a postmaster
}{
	"initdb":         {long: true, offline: true},
	"pg_basebackup":  {long: true},
	"pg_rewind":      {long: true, offline: true},
	"postgres":       {long: true, offline: true}, // never as a server: see checkRun
	ToolRestore:      {long: true, offline: true}, // no program: a line for the shell
	"pg_controldata": {},
	"pg_waldump":     {},
}

// envName is what may be set for a program: libpq's variables and the locale.
var envName = regexp.MustCompile(`^(PG[A-Z_]+|LC_[A-Z]+|LANG|LANGUAGE|TZ)$`)

const (
	keptJobs  = 16
	shortJobs = 8 // at the same time
)

// job is a Job and its process. Everything in Job is guarded by Server.mu.
type job struct {
	Job
	long  bool
	out   tail
	child *child // nil until forked
	done  chan struct{}
}

// view is the Job with the last n bytes of output. Server.mu is held.
func (j *job) view(n int) Job {
	v := j.Job
	v.Output = j.out.last(n)
	return v
}

func checkRun(r RunRequest) error {
	if _, ok := tools[r.Tool]; !ok {
		return fmt.Errorf("%w: tool %q; want initdb, pg_basebackup, pg_rewind, pg_controldata, pg_waldump, postgres or restore", ErrInvalid, r.Tool)
	}
	// Neither listens anywhere: one prints a setting, the other serves its standard input alone.
	if r.Tool == "postgres" && (len(r.Args) == 0 || r.Args[0] != "-C" && r.Args[0] != "--single") {
		return fmt.Errorf("%w: postgres runs as a tool only with -C or --single first; a server is started by start", ErrInvalid)
	}
	if r.Tool == ToolRestore && len(r.Args) != 1 {
		return fmt.Errorf("%w: restore wants one line for the shell, not %d", ErrInvalid, len(r.Args))
	}
	for k, v := range r.Env {
		if !envName.MatchString(k) || strings.ContainsRune(v, 0) {
			return fmt.Errorf("%w: environment variable %q; want PG*, LC_*, LANG, LANGUAGE or TZ", ErrInvalid, k)
		}
	}
	for _, a := range r.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("%w: an argument holds a zero byte", ErrInvalid)
		}
	}
	return nil
}

// admit makes the job's place, or says why there is none.
func (s *Server) admit(r RunRequest) (*job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tool := tools[r.Tool]
	short := 0
	for _, j := range s.jobs {
		if j.Running && j.long && tool.long {
			return nil, fmt.Errorf("%w: %s (job %s)", ErrBusy, j.Tool, j.ID)
		}
		if j.Running && !j.long {
			short++
		}
	}
	switch {
	case s.m.ending:
		return nil, ErrEnding
	case tool.offline && s.m.alive():
		return nil, fmt.Errorf("%w: %s writes the data directory", ErrAlreadyRunning, r.Tool)
	case !tool.long && short >= shortJobs:
		return nil, fmt.Errorf("%w: %d short ones at once are the limit", ErrBusy, shortJobs)
	}
	now := s.o.Now()
	s.nextJob++
	j := &job{long: tool.long, done: make(chan struct{})}
	// The clock makes the ID differ from those of a launcher before this one.
	j.Job = Job{ID: strconv.FormatInt(int64(now), 36) + "-" + strconv.Itoa(s.nextJob), Tool: r.Tool, Running: true, StartedAt: now}
	s.jobs = append(s.jobs, j)
	for i := 0; len(s.jobs) > keptJobs && i < len(s.jobs); {
		if s.jobs[i].Running || s.jobs[i].long && s.newestLong() == s.jobs[i] {
			i++
			continue
		}
		s.jobs = slices.Delete(s.jobs, i, i+1)
	}
	s.bump()
	return j, nil
}

func (s *Server) newestLong() *job {
	for _, j := range slices.Backward(s.jobs) {
		if j.long {
			return j
		}
	}
	return nil
}

// run starts a program. Arguments and environment may hold secrets and are never logged.
func (s *Server) run(r RunRequest) (*job, error) {
	if err := checkRun(r); err != nil {
		return nil, err
	}
	j, err := s.admit(r)
	if err != nil {
		return nil, err
	}
	child, stdin, stdout, err := s.fork(r)
	s.mu.Lock()
	if err != nil {
		s.jobs = slices.DeleteFunc(s.jobs, func(other *job) bool { return other == j })
		s.bump()
		s.mu.Unlock()
		return nil, err
	}
	j.child = child
	if j.Cancelled {
		_ = s.children.signal(child, unix.SIGKILL)
	}
	s.mu.Unlock()
	go func() {
		defer stdin.Close()
		_, _ = io.WriteString(stdin, r.Stdin) // a program that does not read it to the end says so itself
	}()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(&j.out, stdout)
	}()
	go s.finish(j, stdin, stdout, copied)
	s.log.Info("job started", zap.String("tool", r.Tool), zap.String("job", j.ID), zap.Int("pid", child.pid))
	return j, nil
}

func (s *Server) fork(r RunRequest) (c *child, stdin, stdout *os.File, err error) {
	childIn, stdin, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("no pipe for %s: %w", r.Tool, err)
	}
	defer childIn.Close()
	stdout, childOut, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, nil, nil, fmt.Errorf("no pipe for %s: %w", r.Tool, err)
	}
	defer childOut.Close()
	// PostgreSQL's programs find one another by argv[0] (src/common/exec.c, find_my_exec): with a bare name they look in PATH.
	path := filepath.Join(s.o.BinDir, r.Tool)
	args := r.Args
	if r.Tool == ToolRestore {
		path, args = "/bin/sh", []string{"-c", r.Args[0]}
	}
	c, err = s.children.start(path, append([]string{path}, args...), &syscall.ProcAttr{
		Dir: "/", Env: environment(r.Env),
		Files: []uintptr{childIn.Fd(), childOut.Fd(), childOut.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}, true)
	if err != nil {
		stdin.Close()
		stdout.Close()
		return nil, nil, nil, err
	}
	return c, stdin, stdout, nil
}

func (s *Server) finish(j *job, stdin, stdout *os.File, copied <-chan struct{}) {
	<-j.child.done
	select {
	case <-copied:
	case <-time.After(time.Second): // something that left the group holds the pipe; it is not the program's output
	}
	stdin.Close()
	stdout.Close()
	<-copied
	s.mu.Lock()
	j.Running, j.EndedAt, j.ExitCode = false, s.o.Now(), exitCode(j.child.status)
	close(j.done)
	s.bump()
	s.mu.Unlock()
	s.log.Info("job ended", zap.String("tool", j.Tool), zap.String("job", j.ID), zap.String("how", describe(j.child.status)))
}

// cancel kills a job with all of its group; no effect on one that has ended.
func (s *Server) cancel(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !j.Running {
		return
	}
	j.Cancelled = true
	if j.child != nil {
		_ = s.children.signal(j.child, unix.SIGKILL)
	}
}

func (s *Server) findJob(id string) (*job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoJob, id)
}

// waitJob waits for a job's end; if ctx ends first the job is killed.
func (s *Server) waitJob(ctx context.Context, j *job) Job {
	select {
	case <-j.done:
	case <-ctx.Done():
		s.cancel(j)
		<-j.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return j.view(outputSize)
}

// versionNumber finds the number in "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", also in "17beta1" and "18devel".
var versionNumber = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func (s *Server) readMajor(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, stdin, stdout, err := s.fork(RunRequest{Tool: "postgres", Args: []string{"--version"}})
	if err != nil {
		return 0, err
	}
	stdin.Close()
	defer stdout.Close()
	var out tail
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(&out, stdout)
	}()
	select {
	case <-copied:
	case <-ctx.Done():
		_ = s.children.signal(c, unix.SIGKILL)
	}
	<-c.done
	m := versionNumber.FindStringSubmatch(out.last(outputSize))
	if m == nil {
		return 0, fmt.Errorf("bin-dir: %s/postgres --version does not say its version (%s): %q", s.o.BinDir, describe(c.status), out.last(200))
	}
	return strconv.Atoi(m[1])
}
