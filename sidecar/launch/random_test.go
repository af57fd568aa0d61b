package launch

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// sidecarLike extends the deadline as a sidecar does, until it is killed or while it is not frozen.
type sidecarLike struct {
	r        *rig
	client   *Client
	deadline atomic.Int64 // the newest that the launcher took
	frozen   sync.RWMutex
	end      context.CancelFunc
	done     sync.WaitGroup
}

const shortLease = 500 * time.Millisecond

func (r *rig) sidecar(epoch schema.Epoch) *sidecarLike {
	ctx, cancel := context.WithCancel(r.ctx())
	s := &sidecarLike{r: r, client: NewClient(r.options.Socket), end: cancel}
	arm := func() {
		s.frozen.RLock()
		defer s.frozen.RUnlock()
		deadline := boottime.Now().Add(shortLease)
		if s.client.Arm(ctx, Lease{Epoch: epoch, Deadline: deadline}) == nil {
			s.deadline.Store(int64(deadline))
		}
	}
	arm()
	s.done.Go(func() {
		t := time.NewTicker(shortLease / 6)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				arm()
			}
		}
	})
	return s
}

func (s *sidecarLike) kill() {
	s.end()
	s.done.Wait()
	s.client.Close()
}

// Sidecar, launcher or both are killed or frozen at a random moment under load: nothing is written past the last deadline by more
// than what a judge waits for, and a sidecar that wakes later cannot extend what is over.
func TestFenceAtRandomMoments(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	for round := range 8 {
		epoch := schema.Epoch(2*round + 1)
		r.primary(epoch, 30*time.Second)
		c := r.connect()
		_, err := c.Exec(r.ctx(), "alter table t add column if not exists at timestamptz default clock_timestamp()")
		r.must(err)
		r.must(c.Close(r.ctx()))
		r.busy()
		r.tied()
		side := r.sidecar(epoch + 1)
		<-time.After(time.Duration(rng.Int64N(int64(2 * shortLease))))
		freeze, onSidecar, onLauncher := rng.IntN(2) == 0, rng.IntN(3) > 0, rng.IntN(3) > 0
		if !onSidecar && !onLauncher {
			onSidecar = true
		}
		if onSidecar && freeze {
			side.frozen.Lock()
		} else if onSidecar {
			side.kill()
		}
		if onLauncher && freeze {
			r.must(r.cmd.Process.Signal(unix.SIGSTOP))
		} else if onLauncher {
			r.must(r.cmd.Process.Kill())
		}
		r.eventually("all of Postgres dies", func() bool { return len(r.postgres()) == 0 })
		deadline := schema.Instant(side.deadline.Load())
		gone := boottime.Now().Sub(deadline)
		wall := time.Now().Add(deadline.Sub(boottime.Now()))
		if onSidecar && freeze {
			side.frozen.Unlock()
			if err := side.client.Arm(r.ctx(), Lease{Epoch: epoch + 1, Deadline: boottime.Now().Add(time.Minute)}); err == nil {
				t.Errorf("round %d: what was fenced was armed again", round)
			}
		}
		side.kill()
		if onLauncher {
			<-r.exited
			r.launch()
		} else {
			r.wait(ProcessFenced)
		}
		r.primary(epoch+2, time.Minute)
		c = r.connect()
		var last time.Time
		r.must(c.QueryRow(r.ctx(), "select max(at) from t").Scan(&last))
		late := last.Sub(wall)
		t.Logf("round %d: freeze %v, sidecar %v, launcher %v: all gone %s and the last write %s after the deadline", round, freeze, onSidecar, onLauncher, gone, late)
		if late > margin {
			t.Errorf("round %d, seed %d: a write %s after the deadline", round, seed, late)
		}
		r.must(c.Close(r.ctx()))
		r.must(r.Stop(r.ctx(), StopRequest{Mode: StopImmediate}))
		r.wait(ProcessStopped)
	}
}

// A Postgres that ignores every signal that can be ignored is killed FenceGrace after its deadline, with its children.
func TestDeadlineKillsWhatIgnoresSIGQUIT(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	bin := filepath.Join(r.dir, "bin")
	r.must(os.Mkdir(bin, 0o755))
	stubborn := "#!/bin/sh\ncase $1 in -D) ;; *) exec " + shared.bin + "/postgres \"$@\";; esac\n" +
		"trap '' QUIT TERM INT HUP\n(while :; do sleep 0.05; done) &\necho deaf\nwhile :; do sleep 0.05; done\n"
	r.must(os.WriteFile(filepath.Join(bin, "postgres"), []byte(stubborn), 0o755))
	r.options.BinDir = bin
	r.launch()
	deadline := boottime.Now().Add(time.Second)
	r.must(r.Start(r.ctx(), StartRequest{Role: schema.RolePrimary, Epoch: 1, Deadline: deadline}))
	r.eventually("its words", func() bool { return strings.Contains(r.log.String(), "deaf") })
	s := r.wait(ProcessFenced)
	took := boottime.Now().Sub(deadline)
	if left := r.tree(); len(left) > 0 || took < FenceGrace || took > observed || !strings.Contains(s.ExitDetail, "SIGKILL") {
		t.Errorf("gone %s after the deadline (%s), left %v; want it killed after %s", took, s.ExitDetail, left, FenceGrace)
	}
}

// Every timer of the fence is on CLOCK_BOOTTIME, which goes on in suspend, with an absolute time: one that passed while the
// machine slept goes off as soon as it wakes (alarmtimer aside, the kernel catches up in timekeeping_resume). The
// rules then see how late it is and kill without grace (TestFence of rules_test.go).
func TestFenceIsOnBoottime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.primary(1, time.Minute)
	base := filepath.Join("/proc", itoa(r.cmd.Process.Pid))
	count := func(pattern, field, want string) int {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(base, pattern))
		r.must(err)
		n := 0
		for _, name := range files {
			b, err := os.ReadFile(name)
			if errors.Is(err, os.ErrNotExist) {
				continue // closed since
			}
			r.must(err)
			for lines := bufio.NewScanner(strings.NewReader(string(b))); lines.Scan(); {
				if value, ok := strings.CutPrefix(lines.Text(), field); ok {
					if n++; strings.TrimSpace(value) != want {
						t.Errorf("%s: %s; want clock %s", name, lines.Text(), want)
					}
				}
			}
		}
		return n
	}
	boot := itoa(unix.CLOCK_BOOTTIME)
	if n := count("timers", "ClockID:", boot); n != 1 {
		t.Errorf("%d timers of the kernel that kill the launcher, want 1", n)
	}
	if n := count("task/*/fdinfo/*", "clockid:", boot); n == 0 {
		t.Error("no timer of the fence's thread was found")
	}
}
