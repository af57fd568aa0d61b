package detector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"howdah/consul/schema"
)

// victim is a real process of the gossip.
type victim struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
}

func launch(t *testing.T, name string, join ...string) *victim {
	t.Helper()
	conf, err := json.Marshal(childConfig{Name: name, Join: join, Key: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{name: name, cmd: exec.Command(self)}
	v.cmd.Env = append(os.Environ(), childVar+"="+string(conf))
	v.cmd.Stderr = os.Stderr
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.end)
	return v
}

func (v *victim) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := v.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s to %s: %v", s, v.name, err)
	}
}

// end kills the process and waits for it; a second call does nothing.
func (v *victim) end() {
	if v.cmd.ProcessState == nil {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		v.in.Close()
	}
}

func lanConfig(name string, join ...string) Config {
	c := config(name, join...)
	c.Timing = LAN()
	return c
}

// watchers starts n detectors that see each other.
func watchers(t *testing.T, n int) []*Detector {
	t.Helper()
	ds := []*Detector{start(t, lanConfig("w0"))}
	for i := 1; i < n; i++ {
		ds = append(ds, start(t, lanConfig(fmt.Sprintf("w%d", i), ds[0].Addr())))
	}
	return ds
}

func allSee(ds []*Detector, name string, l schema.Liveness) func() bool {
	return func() bool {
		for _, d := range ds {
			if find(d, name).Liveness != l {
				return false
			}
		}
		return true
	}
}

// The bound is a functional deadline, far above what a quiet machine needs, and one of two rounds must keep
// it: a machine that stalls shows nothing. The times are in the log.
func TestKilledAndFrozenProcessesAreCalledDead(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d processes", n), func(t *testing.T) {
			t.Parallel()
			ds := watchers(t, n-1)
			best := map[syscall.Signal]time.Duration{syscall.SIGKILL: time.Hour, syscall.SIGSTOP: time.Hour}
			for round := range 2 {
				for _, fault := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
					v := launch(t, fmt.Sprintf("%s %d", fault, round), ds[0].Addr())
					until(t, ds[0], "the victim", func() bool {
						return allSee(ds, v.name, schema.LivenessAlive)() && find(ds[0], v.name).Status.Epoch == 3
					})
					began := time.Now()
					v.signal(t, fault)
					until(t, ds[0], "suspicion", func() bool { return find(ds[0], v.name).Liveness != schema.LivenessAlive })
					suspected := time.Since(began)
					until(t, ds[0], "a verdict", sees(ds[0], v.name, schema.LivenessDead))
					first := time.Since(began)
					until(t, ds[0], "the verdict of all", allSee(ds, v.name, schema.LivenessDead))
					took := time.Since(began)
					t.Logf("%s: suspect at one watcher after %s, dead there after %s, dead at all after %s",
						fault, round10(suspected), round10(first), round10(took))
					best[fault] = min(best[fault], took)
					v.end()
				}
			}
			for fault, took := range best {
				if took > 3*time.Second {
					t.Errorf("%s: the verdict took %s", fault, took)
				}
			}
		})
	}
}

func round10(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// A pause such as of a garbage collector or a scheduler is no death, for anybody, on either side of it.
func TestAPauseOf300MillisecondsIsForgiven(t *testing.T) {
	t.Parallel()
	ds := watchers(t, 2)
	v := launch(t, "pausing", ds[0].Addr())
	until(t, ds[0], "the victim", allSee(ds, v.name, schema.LivenessAlive))
	dead := func() bool {
		return find(ds[0], v.name).Liveness == schema.LivenessDead || find(ds[1], v.name).Liveness == schema.LivenessDead
	}
	for range 3 {
		v.signal(t, syscall.SIGSTOP)
		during(t, ds[0], 300*time.Millisecond, "it is not called dead while it pauses", func() bool { return !dead() })
		v.signal(t, syscall.SIGCONT)
		during(t, ds[0], 900*time.Millisecond, "it is not called dead afterwards", func() bool { return !dead() })
		until(t, ds[0], "it is alive", allSee(ds, v.name, schema.LivenessAlive))
	}

	// A longer freeze ends in death, and the thaw in life; a promise is given again.
	v.signal(t, syscall.SIGSTOP)
	until(t, ds[0], "it is dead", allSee(ds, v.name, schema.LivenessDead))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		r, err := ds[0].AskPromise(ctx, v.name, schema.PromiseRequest{From: "w0"})
		if err == nil && !r.Given {
			err = fmt.Errorf("refused: %s", r.Why)
		}
		asked <- err
	}()
	v.signal(t, syscall.SIGCONT)
	until(t, ds[0], "it is back", allSee(ds, v.name, schema.LivenessAlive))
	if err := <-asked; err != nil {
		t.Errorf("a frozen member that was asked answers once it runs: %v", err)
	}
}
