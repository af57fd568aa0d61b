package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"howdah/consul/boottime"
	"howdah/consul/schema"
)

// fakeDevice makes a pipe with a name that takes what a watchdog would, and returns what reads all that it has had.
func fakeDevice(t *testing.T, path string) (written func() string) {
	t.Helper()
	if err := errors.Join(unix.Mkfifo(path, 0o600), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	var all []byte
	return func() string {
		var b [256]byte
		for {
			n, err := unix.Read(fd, b[:])
			if err != nil || n <= 0 {
				return string(all)
			}
			all = append(all, b[:n]...)
		}
	}
}

// fakeWatchdog is a watchdog on a fakeDevice. longest is the longest timeout that it takes; 0 is a device that has none.
func fakeWatchdog(t *testing.T, mode WatchdogMode, longest int) (w *watchdog, written func() string, timeout *int, log *observer.ObservedLogs) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "watchdog")
	written = fakeDevice(t, path)
	core, log := observer.New(zap.InfoLevel)
	w = newWatchdog(Options{Watchdog: mode, WatchdogDevice: path, Log: zap.New(core)})
	timeout = new(int)
	w.setTimeout = func(_ *os.File, seconds int) (int, error) {
		if longest == 0 {
			return 0, unix.ENOTTY
		}
		*timeout = min(seconds, longest)
		return *timeout, nil
	}
	return w, written, timeout, log
}

func TestWatchdogPings(t *testing.T) {
	t.Parallel()
	w, written, timeout, _ := fakeWatchdog(t, WatchdogRequired, 60)
	check := func(what, want string, seconds int) {
		t.Helper()
		if got := written(); got != want || *timeout != seconds {
			t.Errorf("%s: the device has had %q and %d s; want %q and %d s", what, got, *timeout, want, seconds)
		}
	}
	w.ping(time.Second)
	check("a ping without a primary", "", 0)
	if err := w.guard(2980 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	check("a lease of 3 s and what the launcher needs after it", ".", 4)
	w.ping(2500 * time.Millisecond)
	check("a late extension of the same lease", "..", 4)
	w.ping(9 * time.Second)
	check("a longer lease", "...", 10)
	w.ping(0)
	check("the fence has struck", "....", 10)
	w.ping(1500 * time.Millisecond)
	check("a shorter lease", ".....", 2)
	w.disarm()
	check("the magic close", ".....V", 2)
	w.ping(time.Second)
	w.disarm()
	check("nothing after it", ".....V", 2)
}

func TestWatchdogMissing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		mode    WatchdogMode
		missing bool
		longest int
		want    error
		says    int // how often that there is none
		wrote   string
	}{
		{"off", WatchdogOff, false, 60, nil, 0, ""},
		{"automatic, none there", WatchdogAutomatic, true, 60, nil, 1, ""},
		{"automatic, without a timeout", WatchdogAutomatic, false, 0, nil, 1, "VVV"},
		{"required, none there", WatchdogRequired, true, 60, ErrWatchdog, 1, ""},
		{"required, without a timeout", WatchdogRequired, false, 0, ErrWatchdog, 0, "VVV"},
		{"required, too short", WatchdogRequired, false, 3, ErrWatchdog, 0, "VVV"},
	} {
		w, written, _, log := fakeWatchdog(t, c.mode, c.longest)
		if c.missing {
			w.path += ".none"
		}
		w.calm()
		for range 2 {
			if err := w.guard(3 * time.Second); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s: %v; want %v", c.name, err, c.want)
			}
			w.ping(3 * time.Second)
		}
		w.disarm()
		if got := written(); got != c.wrote {
			t.Errorf("%s: the device has had %q; want %q", c.name, got, c.wrote)
		}
		if got := log.FilterMessageSnippet("there is no watchdog").Len(); got != c.says {
			t.Errorf("%s: said %d times that there is none; want %d", c.name, got, c.says)
		}
	}
}

// A launcher with a device that is no watchdog: a standby starts, a primary is refused if one is required.
func TestWatchdogRequired(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	r.options.Watchdog, r.options.WatchdogDevice = WatchdogRequired, filepath.Join(r.dir, "watchdog")
	r.launch()
	primary := func() StartRequest {
		return StartRequest{Role: schema.RolePrimary, Epoch: 1, Deadline: boottime.Now().Add(time.Minute)}
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrWatchdog) || !strings.Contains(err.Error(), r.options.WatchdogDevice) {
			t.Errorf("%s without a watchdog: %v", what, err)
		}
	}
	refused("a primary", r.Start(r.ctx(), primary()))
	r.must(os.WriteFile(filepath.Join(r.options.DataDir, "standby.signal"), nil, 0o600))
	r.must(r.Start(r.ctx(), StartRequest{Role: schema.RoleStandby, Epoch: 1}))
	refused("a promotion", r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: boottime.Now().Add(time.Minute)}))
	if s, err := r.Status(r.ctx()); err != nil || s.Process != ProcessRunning || s.Armed || s.Epoch != 1 {
		t.Errorf("after the refusals: %+v, %v", s, err)
	}
}

// A launcher with a fake device: pinged by every extension, by nothing else, and stopped with Postgres.
func TestWatchdogGuardsPrimary(t *testing.T) {
	t.Parallel()
	r := idleRig(t)
	device := filepath.Join(r.dir, "watchdog")
	written := fakeDevice(t, device)
	r.options.Watchdog, r.options.WatchdogDevice = WatchdogRequired, device
	r.fakeIoctl = true
	r.launch()
	if got := written(); got != "V" {
		t.Errorf("at the start the device has had %q; want what stops a watchdog that a dead launcher left", got)
	}
	r.primary(1, time.Minute)
	deadline := boottime.Now().Add(600 * time.Millisecond)
	r.must(r.Arm(r.ctx(), Lease{Epoch: 2, Deadline: deadline}))
	if err := r.Arm(r.ctx(), Lease{Epoch: 1, Deadline: deadline}); !errors.Is(err, ErrOlderEpoch) {
		t.Errorf("an older epoch: %v", err)
	}
	before := written()
	if before != "V.." { // started, armed; not for what was refused
		t.Errorf("armed, the device has had %q", before)
	}
	r.fenced(deadline)
	r.eventually("the watchdog is stopped", func() bool { return strings.HasSuffix(written(), "V") })
	if got := strings.TrimPrefix(written(), before); got != "V" && got != ".V" {
		t.Errorf("the fence wrote %q; want one ping at most, then the magic close", got)
	}
}
