package launch

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// observed bounds what a test sees of the fence on a machine that is busy with other things: the launcher has to
// be scheduled, backends have to exit, and the test has to notice.
const observed = 2 * time.Second

// fenced waits until the fence has done its work and checks that nothing is left. It returns how long after
// the deadline the last process was seen to be gone.
func (r *rig) fenced(deadline schema.Instant) time.Duration {
	r.t.Helper()
	s := r.wait(ProcessFenced)
	took := boottime.Now().Sub(deadline)
	if left := r.postgres(); len(left) > 0 || s.Armed || s.PID != 0 {
		r.t.Fatalf("fenced, but processes %v live, status %+v", left, s)
	}
	return took
}

func TestDeadlineKillsBusyPrimary(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.primary(1, time.Minute)
	var last atomic.Int64 // CLOCK_BOOTTIME before the last acknowledged insert was sent
	var wg sync.WaitGroup
	for i := range 8 {
		c := r.connect()
		wg.Go(func() {
			defer c.Close(context.Background())
			for {
				sent := int64(boottime.Now())
				q := "insert into t (w) values ('busy')"
				if i < 2 { // backends that look at no interrupt for a while
					q = "select count(md5(g::text)) from generate_series(1, 20000) g"
				}
				if _, err := c.Exec(context.Background(), q); err != nil {
					return
				}
				for was := last.Load(); sent > was && !last.CompareAndSwap(was, sent); was = last.Load() {
				}
			}
		})
	}
	// Extensions keep it alive beyond the first deadline, and it never moves backwards.
	deadline := boottime.Now().Add(800 * time.Millisecond)
	first := deadline
	for boottime.Now() < first.Add(300*time.Millisecond) {
		deadline = boottime.Now().Add(800 * time.Millisecond)
		r.must(r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: deadline})) // a newer epoch may have an earlier deadline than the old one's minute
		r.must(r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: deadline.Add(-200 * time.Millisecond)}))
		if s, err := r.Status(r.ctx()); err != nil || s.Deadline != deadline || s.Process != ProcessRunning || !s.Armed {
			t.Fatalf("after an extension: %+v, %v; want deadline %d", s, err, deadline)
		}
		<-time.After(50 * time.Millisecond)
	}
	took := r.fenced(deadline)
	wg.Wait()
	t.Logf("last process gone %s after the deadline; last acknowledged statement sent %s before it", took, deadline.Sub(schema.Instant(last.Load())))
	if took > observed {
		t.Errorf("the last process was gone %s after the deadline; want %s at most", took, observed)
	}
	if schema.Instant(last.Load()) > deadline.Add(FenceGrace) {
		t.Errorf("a statement sent %s after the deadline was acknowledged", schema.Instant(last.Load()).Sub(deadline))
	}
	if err := r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: boottime.Now().Add(time.Second)}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Arm of what was fenced: %v", err)
	}
	if err := r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: 2, Deadline: deadline}); !errors.Is(err, ErrDeadlinePast) {
		t.Errorf("Start with the old deadline: %v", err)
	}
	r.primary(3, 10*time.Second)
	if err := r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: boottime.Now().Add(time.Second)}); !errors.Is(err, ErrOlderEpoch) {
		t.Errorf("Arm with an older epoch: %v", err)
	}
}

// A stopped process takes no SIGQUIT: SIGKILL has to finish it.
func TestDeadlineKillsStoppedProcesses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, which := range []string{"postmaster", "backend", "everything"} {
		epoch := schema.Epoch(2*i + 1)
		r.primary(epoch, time.Minute)
		c := r.connect()
		s, err := r.Status(r.ctx())
		r.must(err)
		switch which {
		case "postmaster":
			r.must(unix.Kill(s.PID, unix.SIGSTOP))
		case "backend":
			r.must(unix.Kill(backend(c), unix.SIGSTOP))
		default:
			for _, p := range r.tree() {
				if err := unix.Kill(p.PID, unix.SIGSTOP); !errors.Is(err, unix.ESRCH) { // a short-lived worker may have ended
					r.must(err)
				}
			}
		}
		deadline := boottime.Now().Add(50 * time.Millisecond)
		r.must(r.Arm(r.ctx(), Lease{Epoch: epoch + 1, Deadline: deadline}))
		took := r.fenced(deadline)
		t.Logf("%s stopped: last process gone %s after the deadline", which, took)
		if took < FenceGrace || took > observed {
			t.Errorf("%s stopped: gone after %s; want between %s and %s", which, took, FenceGrace, observed)
		}
		_ = c.Close(r.ctx())
	}
}

// A member that was frozen beyond its deadline must not acknowledge what waits in its sockets, since a newer
// primary may exist. The kernel kills launcher and Postgres while they are frozen, so that no order of thawing matters.
func TestFrozenPastDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for round := range 5 {
		f := r.freeze(schema.Epoch(2*round + 1))
		r.died(f.deadline)
		for _, p := range f.frozen { // those that are still there
			_ = unix.Kill(p.PID, unix.SIGCONT)
		}
		thawed := boottime.Now()
		if err := <-f.result; err == nil {
			t.Errorf("round %d: an insert that was queued while frozen was acknowledged", round)
		}
		r.eventually("all of Postgres dies", func() bool { return len(r.postgres()) == 0 })
		t.Logf("connection lost and all dead %s after the thaw", boottime.Now().Sub(thawed))
		_ = f.conn.Close(context.Background())
		r.launch()
	}
}

// died waits for the launcher's death and checks when it came.
func (r *rig) died(deadline schema.Instant) {
	r.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(10 * time.Second):
		r.t.Fatal("the kernel did not kill the frozen launcher")
	}
	if late := boottime.Now().Sub(deadline); late < DeadmanAfter || late > observed {
		r.t.Errorf("the frozen launcher died %s after the deadline; want %s", late, DeadmanAfter)
	}
}

type frozen struct {
	conn     *pgx.Conn
	deadline schema.Instant
	frozen   []procStat
	result   chan error // of the queued insert
}

// freeze starts a primary, stops launcher and Postgres, queues an insert and lets the deadline pass by far.
func (r *rig) freeze(epoch schema.Epoch) frozen {
	r.primary(epoch, 30*time.Second)
	written := make(chan struct{}, 16)
	config := r.config()
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return noted{c, written}, err
	}
	c, err := pgx.ConnectConfig(r.ctx(), config)
	r.must(err)
	_, err = c.Exec(r.ctx(), "insert into t (w) values ('warm')")
	r.must(err)
	for len(written) > 0 {
		<-written
	}
	f := frozen{conn: c, result: make(chan error, 1)}
	r.tied()
	// A newer epoch may have an earlier deadline; within one it never moves back.
	f.deadline = boottime.Now().Add(400 * time.Millisecond)
	r.must(r.Arm(r.ctx(), Lease{Epoch: epoch + 1, Deadline: f.deadline}))
	r.must(r.cmd.Process.Signal(unix.SIGSTOP))
	f.frozen = r.tree()
	for _, p := range f.frozen {
		_ = unix.Kill(p.PID, unix.SIGSTOP)
	}
	go func() {
		_, err := c.Exec(context.Background(), "insert into t (w) values ('queued')", pgx.QueryExecModeSimpleProtocol)
		f.result <- err
	}()
	<-written
	return f
}

// tied waits until the launcher has tied all processes of Postgres to its tripwire: beside the pipe's two ends it has
// a descriptor for each of them, while for the time of a refresh and more none came or went.
func (r *rig) tied() {
	r.t.Helper()
	pattern := filepath.Join("/proc", itoa(r.cmd.Process.Pid), "task", "*", "fd", "*")
	var since time.Time
	var before []int
	r.eventually("all of Postgres is tied", func() bool {
		now := r.postgres()
		if !slices.Equal(now, before) {
			before, since = now, time.Now()
		}
		if time.Since(since) < 2*refreshEvery {
			return false
		}
		fds, err := filepath.Glob(pattern) // each thread's, as the fence has its own
		r.must(err)
		most, of := 0, map[string]int{}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "pipe:") {
				to += filepath.Dir(fd)
				of[to]++
				most = max(most, of[to])
			}
		}
		return most == 2+len(now)
	})
}

type noted struct {
	net.Conn
	written chan<- struct{}
}

func (n noted) Write(b []byte) (int, error) {
	k, err := n.Conn.Write(b)
	select {
	case n.written <- struct{}{}:
	default:
	}
	return k, err
}

// The launcher is killed: Postgres goes with it, frozen or not, by the kernel alone, and the next launcher starts clean.
func TestLauncherKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, stuck := range []bool{false, true} {
		r.primary(1, time.Minute)
		c := r.connect()
		r.tied()
		before := r.postgres()
		if len(before) < 4 {
			t.Fatalf("only %d processes of Postgres seen", len(before))
		}
		if stuck {
			for _, pid := range before {
				r.must(unix.Kill(pid, unix.SIGSTOP))
			}
		}
		old, err := r.Status(r.ctx())
		r.must(err)
		killed := boottime.Now()
		r.must(r.cmd.Process.Kill())
		<-r.exited
		r.eventually("Postgres follows its launcher", func() bool { return len(r.postgres()) == 0 })
		t.Logf("all of Postgres gone %s after the launcher (frozen %v)", boottime.Now().Sub(killed), stuck)
		r.launch()
		if left := r.postgres(); len(left) > 0 {
			t.Errorf("the next launcher serves beside processes %v", left)
		}
		s, err := r.Status(r.ctx())
		r.must(err)
		if s.Process != ProcessStopped || s.Seq <= old.Seq {
			t.Errorf("status of the next launcher: %+v; want stopped and Seq > %d", s, old.Seq)
		}
		_ = c.Close(r.ctx())
	}
	r.primary(1, time.Minute)
}

// A number in postmaster.pid that now belongs to somebody else is left alone.
func TestPredecessorSparesStrangers(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	stranger := shared.command("sleep", "60")
	stranger.Dir = r.options.DataDir
	r.must(stranger.Start())
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	pid := []byte(itoa(stranger.Process.Pid) + "\n" + r.options.DataDir + "\n1\n5432\n\n\n\n")
	r.must(os.WriteFile(filepath.Join(r.options.DataDir, "postmaster.pid"), pid, 0o600))
	r.launch()
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
	var p procs
	if st, err := p.read(stranger.Process.Pid); err != nil || st.dead() {
		t.Errorf("the stranger was killed: %+v, %v", st, err)
	}
}
