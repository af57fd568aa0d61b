package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// margin is the constant part of schema.Margin: nobody judges a lease before deadline + margin.
var margin = schema.Margin(0)

func TestBounds(t *testing.T) {
	t.Parallel()
	if !(FenceGrace < DeadmanAfter && DeadmanAfter+50*time.Millisecond < margin) {
		t.Errorf("grace %s, dead man %s, margin %s: each must end before the next begins", FenceGrace, DeadmanAfter, margin)
	}
}

// stream makes a backend that always has its next insert in its socket, so that it never waits and never looks
// whether its postmaster lives.
func (r *rig) stream(c *pgx.Conn) {
	r.t.Helper()
	h, err := c.PgConn().Hijack()
	r.must(err)
	r.t.Cleanup(func() { discard(h.Conn) })
	const sql = "insert into t (w) values ('stream')\x00"
	query := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)))
	query = append(query, sql...)
	go func() { _, _ = io.Copy(io.Discard, h.Conn) }()
	go func() {
		for {
			if _, err := h.Conn.Write(query); err != nil {
				return
			}
		}
	}()
}

// busy starts clients of all sorts: one that asks and waits, one that streams, one whose backend computes.
func (r *rig) busy() {
	r.t.Helper()
	ask, compute := r.connect(), r.connect()
	go func() {
		defer ask.Close(context.Background())
		for {
			if _, err := ask.Exec(context.Background(), "insert into t (w) values ('ask')"); err != nil {
				return
			}
		}
	}()
	go func() {
		defer compute.Close(context.Background())
		_, _ = compute.Exec(context.Background(), "do $$ begin loop insert into t (w) values ('loop'); commit; end loop; end $$")
	}()
	r.stream(r.connect())
}

// The launcher alone is frozen, and nobody else is there to act: the kernel ends it, and with it a busy Postgres, also
// with a frozen postmaster, and also backends that are younger than the freeze.
func TestFrozenLauncher(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, c := range []struct {
		name             string
		postmaster, late bool
	}{{"launcher, then new sessions", false, true}, {"launcher and postmaster", true, false}} {
		epoch := schema.Epoch(2*i + 1)
		r.primary(epoch, 30*time.Second)
		conn := r.connect()
		_, err := conn.Exec(r.ctx(), "alter table t add column if not exists at timestamptz default clock_timestamp()")
		r.must(err)
		r.must(conn.Close(r.ctx()))
		r.busy()
		r.tied()
		s, err := r.Status(r.ctx())
		r.must(err)
		deadline := boottime.Now().Add(700 * time.Millisecond)
		wall := time.Now().Add(deadline.Sub(boottime.Now()))
		r.must(r.Arm(r.ctx(), Lease{Epoch: epoch + 1, Deadline: deadline}))
		r.must(r.cmd.Process.Signal(unix.SIGSTOP))
		if c.late {
			r.busy()
		}
		if c.postmaster {
			r.must(unix.Kill(s.PID, unix.SIGSTOP))
		}
		r.died(deadline)
		died := boottime.Now().Sub(deadline)
		r.eventually("all of Postgres dies", func() bool { return len(r.postgres()) == 0 })
		gone := boottime.Now().Sub(deadline)
		r.launch()
		r.primary(epoch+2, time.Minute)
		conn = r.connect()
		var last time.Time
		var rows int
		r.must(conn.QueryRow(r.ctx(), "select max(at), count(*) from t where at > $1", wall).Scan(&last, &rows))
		t.Logf("%s frozen: launcher dead %s, all of Postgres %s after the deadline; last write %s after it, %d since", c.name, died, gone, last.Sub(wall), rows)
		if rows == 0 {
			t.Error("no write after the deadline: the test has not seen what it is for")
		}
		if late := last.Sub(wall); late > margin {
			t.Errorf("%s frozen: a write %s after the deadline", c.name, late)
		}
		r.must(conn.Close(r.ctx()))
		r.must(r.Stop(r.ctx(), StopRequest{Mode: StopImmediate}))
		r.wait(ProcessStopped)
	}
}

// PID 1 cannot be killed by its own timer, so a launcher runs below it; when that dies, frozen or not, the
// container ends and nothing of it lives on.
func TestFrozenBelowPID1(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	r.launchWith(r.asPID1)
	launcher := r.below(r.below(r.cmd.Process.Pid)[0])[0]
	r.primary(1, 30*time.Second)
	deadline := boottime.Now().Add(200 * time.Millisecond)
	r.must(r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: deadline}))
	r.must(unix.Kill(launcher, unix.SIGSTOP))
	r.died(deadline)
	if code := r.cmd.ProcessState.ExitCode(); code != 128+int(unix.SIGKILL) {
		t.Errorf("the init's exit status is %d; want the launcher's, 137", code)
	}
	if left := r.postgres(); len(left) > 0 {
		t.Errorf("processes %v outlived their container", left)
	}
}

// A tripwire never hits a number that is not the postmaster's child.
func TestTripwireSparesStrangers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.primary(1, time.Minute)
	r.tied()
	w := &tripwire{pm: &child{pid: 1}, pmFD: -1, pmWire: -1, wires: map[int]int{}}
	var ends [2]int
	r.must(unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	w.read, w.write = ends[0], ends[1]
	defer w.close()
	if _, err := w.tie(r.cmd.Process.Pid, unix.SIGKILL, func() error { return unix.ESRCH }); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a stranger was tied: %v", err)
	}
	_, err := unix.Write(w.write, []byte{0})
	r.must(err)
	if _, err := r.Status(r.ctx()); err != nil {
		t.Errorf("the stranger: %v", err)
	}
}
