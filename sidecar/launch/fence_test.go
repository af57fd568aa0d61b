package launch

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
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
		r.must(r.Arm(r.ctx(), 2, deadline)) // a newer epoch may have an earlier deadline than the old one's minute
		r.must(r.Arm(r.ctx(), 2, deadline.Add(-200*time.Millisecond)))
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
	if err := r.Arm(r.ctx(), 2, boottime.Now().Add(time.Second)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Arm of what was fenced: %v", err)
	}
	if err := r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: 2, Deadline: deadline}); !errors.Is(err, ErrDeadlinePast) {
		t.Errorf("Start with the old deadline: %v", err)
	}
	r.primary(3, 10*time.Second)
	if err := r.Arm(r.ctx(), 2, boottime.Now().Add(time.Second)); !errors.Is(err, ErrOlderEpoch) {
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
				r.must(unix.Kill(p.PID, unix.SIGSTOP))
			}
		}
		deadline := boottime.Now().Add(50 * time.Millisecond)
		r.must(r.Arm(r.ctx(), epoch+1, deadline))
		took := r.fenced(deadline)
		t.Logf("%s stopped: last process gone %s after the deadline", which, took)
		if took < FenceGrace || took > observed {
			t.Errorf("%s stopped: gone after %s; want between %s and %s", which, took, FenceGrace, observed)
		}
		_ = c.Close(r.ctx())
	}
}

// A member that was frozen beyond its deadline must not acknowledge what waits in its sockets, since a newer
// primary may exist. With Postgres thawed after the launcher, or not at all, nothing may be acknowledged; thawed
// together, the backend and the fence race, and the test says how that goes.
func TestFrozenPastDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	epoch := schema.Epoch(0)
	for _, order := range []string{"launcher alone", "launcher first", "postgres first"} {
		rounds := 10
		if order != "launcher alone" {
			rounds = 5
		}
		acknowledged := 0
		var broken, dead []time.Duration
		for range rounds {
			epoch += 2
			f := r.freeze(epoch)
			frozen := r.tree()
			slices.SortFunc(frozen, func(a, b procStat) int { return a.PID - b.PID })
			thawed := boottime.Now()
			if order != "postgres first" {
				r.must(r.cmd.Process.Signal(unix.SIGCONT))
			}
			if order != "launcher alone" {
				for _, p := range frozen {
					_ = unix.Kill(p.PID, unix.SIGCONT)
				}
			}
			if order == "postgres first" {
				r.must(r.cmd.Process.Signal(unix.SIGCONT))
			}
			if err := <-f.result; err == nil {
				acknowledged++
				<-f.lost
			}
			broken = append(broken, boottime.Now().Sub(thawed))
			r.fenced(f.deadline)
			dead = append(dead, boottime.Now().Sub(thawed))
			_ = f.conn.Close(context.Background())
		}
		t.Logf("%s: %d of %d queued inserts acknowledged; connection lost after %s at most, median %s; all dead after %s at most",
			order, acknowledged, rounds, slices.Max(broken), median(broken), slices.Max(dead))
		if order == "launcher alone" && acknowledged > 0 {
			t.Errorf("%d inserts acknowledged after the deadline", acknowledged)
		}
		if m := slices.Max(broken); m > observed {
			t.Errorf("%s: Postgres lived %s after the thaw", order, m)
		}
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

type frozen struct {
	conn     *pgx.Conn
	deadline schema.Instant
	result   chan error    // of the queued insert
	lost     chan struct{} // closed when the connection is found broken
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
	// A newer epoch may have an earlier deadline; within one it never moves back.
	f := frozen{conn: c, deadline: boottime.Now().Add(50 * time.Millisecond), result: make(chan error, 1), lost: make(chan struct{})}
	r.must(r.Arm(r.ctx(), epoch+1, f.deadline))
	r.must(r.cmd.Process.Signal(unix.SIGSTOP))
	for _, p := range r.tree() {
		_ = unix.Kill(p.PID, unix.SIGSTOP)
	}
	go func() {
		_, err := c.Exec(context.Background(), "insert into t (w) values ('queued')", pgx.QueryExecModeSimpleProtocol)
		f.result <- err
		if err == nil {
			_, _ = c.Exec(context.Background(), "select pg_sleep(60)")
			close(f.lost)
		}
	}()
	<-written
	until(f.deadline.Add(FenceGrace + 50*time.Millisecond))
	return f
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

// The launcher is killed: Postgres goes with it, also a postmaster that cannot act on its parent's death.
func TestLauncherKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, stuck := range []bool{false, true} {
		r.primary(1, time.Minute)
		c := r.connect()
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
		if !stuck {
			r.eventually("Postgres follows its launcher", func() bool { return len(r.postgres()) == 0 })
			t.Logf("all of Postgres gone %s after the launcher", boottime.Now().Sub(killed))
		}
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
