package launch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// scripted gives the rig a folder of binaries where tool is a shell script and the others are PostgreSQL's.
func (r *rig) scripted(tool, script string) {
	r.t.Helper()
	bin := filepath.Join(r.dir, "bin")
	r.must(os.Mkdir(bin, 0o755))
	for name := range tools {
		r.must(os.Symlink(filepath.Join(shared.bin, name), filepath.Join(bin, name)))
	}
	r.must(os.Remove(filepath.Join(bin, tool)))
	r.must(os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\n"+script), 0o755))
	r.options.BinDir = bin
}

func TestJobs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.RunWait(r.ctx(), RunRequest{Tool: "pg_controldata", Args: []string{"-D", r.options.DataDir}, Env: map[string]string{"LC_ALL": "C"}})
	if err != nil || res.ExitCode != 0 || !strings.Contains(res.Output, "Database system identifier:") {
		t.Errorf("pg_controldata: %+v, %v", res, err)
	}
	res, err = r.RunWait(r.ctx(), RunRequest{Tool: "pg_controldata", Args: []string{"/nowhere"}})
	if err != nil || res.ExitCode == 0 || !strings.Contains(res.Output, "/nowhere") {
		t.Errorf("a program that fails: %+v, %v", res, err)
	}
	for _, q := range []RunRequest{
		{Tool: "sh", Args: []string{"-c", "true"}}, {Tool: "../bin/pg_controldata"}, {Tool: ""}, {Tool: "postgres"},
		{Tool: "pg_controldata", Env: map[string]string{"LD_PRELOAD": "/x.so"}}, {Tool: "pg_controldata", Env: map[string]string{"PATH": "/"}},
		{Tool: "pg_controldata", Args: []string{"a\x00b"}}, {Tool: ToolRestore}, {Tool: ToolRestore, Args: []string{"-c", "true"}},
	} {
		if _, err := r.Run(r.ctx(), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v; want a refusal", q, err)
		}
	}
	res, err = r.RunWait(r.ctx(), RunRequest{Tool: ToolRestore, Args: []string{"echo s3cret $((40 + 2)); exit 3"}})
	if err != nil || res.ExitCode != 3 || res.Output != "s3cret 42\n" {
		t.Errorf("an operator's command: %+v, %v", res, err)
	}
	// A whole cluster, with the password by standard input, while nothing runs.
	dir := filepath.Join(r.dir, "second")
	res, err = r.RunWait(r.ctx(), RunRequest{Tool: "initdb", Args: []string{"-D", dir, "--pwfile=/dev/stdin", "-A", "scram-sha-256", "--no-sync"}, Stdin: "s3cret\n"})
	if _, serr := os.Stat(filepath.Join(dir, "PG_VERSION")); err != nil || serr != nil || res.ExitCode != 0 {
		t.Errorf("initdb: %+v, %v, %v", res, err, serr)
	}
	if s, err := r.Status(r.ctx()); err != nil || s.Job == nil || s.Job.Tool != "initdb" || s.Job.Running {
		t.Errorf("status of the long job: %+v, %v", s.Job, err)
	}
	if strings.Contains(r.log.String(), "s3cret") {
		t.Error("the log holds the password")
	}
	r.primary(1, time.Minute)
	for _, tool := range []string{"initdb", "pg_rewind", ToolRestore} {
		if _, err := r.Run(r.ctx(), RunRequest{Tool: tool, Args: []string{"true"}}); !errors.Is(err, ErrAlreadyRunning) {
			t.Errorf("%s beside Postgres: %v", tool, err)
		}
	}
	if _, err := r.Job(r.ctx(), "none"); !errors.Is(err, ErrNoJob) {
		t.Errorf("a job that is not: %v", err)
	}
}

func TestLongJobs(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	// A program with a child of its own, which says what it was given; it writes much and does not end.
	r.scripted("pg_basebackup", `head -c 200000 /dev/zero | tr '\0' x; echo "PGPASSWORD=$PGPASSWORD HOWDAH_SECRET=$HOWDAH_SECRET"; sleep 600 & echo "child $!"; wait`)
	r.launch()
	id, err := r.Run(r.ctx(), RunRequest{Tool: "pg_basebackup", Env: map[string]string{"PGPASSWORD": "s3cret"}})
	r.must(err)
	var j Job
	r.eventually("the job says its child", func() bool {
		j, err = r.Job(r.ctx(), id)
		return err == nil && strings.Contains(j.Output, "child ")
	})
	if len(j.Output) > outputSize || !j.Running || !strings.Contains(j.Output, "PGPASSWORD=s3cret HOWDAH_SECRET=\n") {
		t.Errorf("%d bytes of output, running %v: ...%s", len(j.Output), j.Running, j.Output[max(0, len(j.Output)-100):])
	}
	if s, err := r.Status(r.ctx()); err != nil || s.Job == nil || s.Job.ID != id || len(s.Job.Output) > statusTail {
		t.Errorf("status of a running job: %v", err)
	}
	if _, err := r.Run(r.ctx(), RunRequest{Tool: "pg_rewind"}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second long job: %v", err)
	}
	if err := r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: 1, Deadline: boottime.Now().Add(time.Minute)}); !errors.Is(err, ErrBusy) {
		t.Errorf("a start beside a long job: %v", err)
	}
	if res, err := r.RunWait(r.ctx(), RunRequest{Tool: "pg_controldata", Args: []string{r.options.DataDir}}); err != nil || res.ExitCode != 0 {
		t.Errorf("pg_controldata beside a long job: %+v, %v", res, err)
	}
	r.must(r.CancelJob(r.ctx(), id))
	r.jobEnded(id)
	r.noJobProcesses()
	r.must(r.CancelJob(r.ctx(), id)) // ended: nothing to do

	// The caller of RunWait goes away: so does the program.
	ctx, cancel := context.WithCancel(r.ctx())
	gone := make(chan error, 1)
	go func() {
		_, err := r.RunWait(ctx, RunRequest{Tool: "pg_basebackup"})
		gone <- err
	}()
	var s Status
	r.eventually("the job runs", func() bool {
		s, err = r.Status(r.ctx())
		return err == nil && s.Job.ID != id && strings.Contains(s.Job.Output, "child ")
	})
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("RunWait: %v", err)
	}
	r.jobEnded(s.Job.ID)
	r.noJobProcesses()

	// The launcher is killed: the program too.
	_, err = r.Run(r.ctx(), RunRequest{Tool: "pg_basebackup"})
	r.must(err)
	r.eventually("the job's processes run", func() bool { return len(r.tree()) >= 2 })
	var program []procStat
	for _, p := range r.tree() {
		if p.PPID == r.cmd.Process.Pid {
			program = append(program, p)
		}
	}
	r.must(r.cmd.Process.Kill())
	<-r.exited
	defer func() { // its child goes on, as nobody is there to kill the group
		for _, p := range program {
			_ = unix.Kill(-p.PID, unix.SIGKILL)
		}
	}()
	r.eventually("the program dies with the launcher", func() bool {
		var p procs
		for _, was := range program {
			if now, err := p.read(was.PID); err == nil && now.Start == was.Start && !now.dead() {
				return false
			}
		}
		return true
	})
}

func (r *rig) jobEnded(id string) {
	r.t.Helper()
	var j Job
	r.eventually("the job ends", func() bool {
		var err error
		j, err = r.Job(r.ctx(), id)
		return err == nil && !j.Running
	})
	if !j.Cancelled || j.ExitCode != 128+int(unix.SIGKILL) || j.EndedAt <= j.StartedAt {
		r.t.Errorf("a cancelled job: %v, exit %d", j.Cancelled, j.ExitCode)
	}
}

func (r *rig) noJobProcesses() {
	r.t.Helper()
	r.eventually("no process of the job is left", func() bool { return len(r.tree()) == 0 })
}

// A crash and its sweep spare a job that runs beside Postgres.
func TestSweepSparesJobs(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	r.scripted("pg_waldump", "sleep 600 & wait")
	r.launch()
	r.primary(1, time.Minute)
	id, err := r.Run(r.ctx(), RunRequest{Tool: "pg_waldump"})
	r.must(err)
	s, err := r.Status(r.ctx())
	r.must(err)
	r.must(unix.Kill(s.PID, unix.SIGKILL))
	r.wait(ProcessCrashed)
	if j, err := r.Job(r.ctx(), id); err != nil || !j.Running {
		t.Errorf("the job did not survive the sweep: %+v, %v", j, err)
	}
	r.must(r.CancelJob(r.ctx(), id))
	r.jobEnded(id)
}
