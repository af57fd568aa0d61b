package launch

import (
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// WatchdogMode says whether a primary is guarded by a watchdog device, which resets the whole machine when nobody
// writes to it any more: a fence for a machine whose kernel hangs. The words are Patroni's.
type WatchdogMode string

// The modes.
const (
	WatchdogOff       WatchdogMode = "off"
	WatchdogAutomatic WatchdogMode = "automatic" // used where there is one
	WatchdogRequired  WatchdogMode = "required"  // nothing becomes a primary without it
)

// DefaultWatchdogDevice is where Linux puts the first watchdog.
const DefaultWatchdogDevice = "/dev/watchdog"

// watchdog is the device, open only while a primary is or is about to be armed: opening starts it. It is written to at
// every extension of the deadline and by the fence once it has struck, by nothing else, so what stops the launcher
// from keeping the deadline lets it go off.
//
// Its timeout counts whole seconds: DeadmanAfter behind the deadline, rounded up. So it never resets a machine
// whose launcher does its work in time, and goes off up to a second later than schema.Margin would have it.
type watchdog struct {
	mode WatchdogMode
	path string
	log  *zap.Logger
	// setTimeout is WDIOC_SETTIMEOUT: it asks for seconds and returns what the device took.
	setTimeout func(f *os.File, seconds int) (int, error)

	mu      sync.Mutex
	f       *os.File // nil while no primary is guarded
	seconds int
	told    bool // that there is none
}

func newWatchdog(o Options) *watchdog {
	return &watchdog{mode: o.Watchdog, path: o.WatchdogDevice, log: o.Log, setTimeout: setWatchdogTimeout}
}

func setWatchdogTimeout(f *os.File, seconds int) (int, error) {
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return 0, fmt.Errorf("WDIOC_SETTIMEOUT %d s: %w", seconds, err)
	}
	return unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT)
}

// guard opens the device unless it is open, with a timeout for a deadline that is left away. ErrWatchdog if one is
// required and this fails.
func (w *watchdog) guard(left time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mode == WatchdogOff || w.f != nil {
		return nil
	}
	f, err := os.OpenFile(w.path, os.O_WRONLY, 0)
	if err == nil {
		w.f, w.seconds = f, 0
		err = w.beat(left)
	}
	if err == nil {
		w.log.Info("a watchdog guards this primary", zap.String("device", w.path), zap.Int("timeout_seconds", w.seconds))
		return nil
	}
	w.end()
	if w.mode == WatchdogRequired {
		return fmt.Errorf("%w at %s, and the option watchdog says that one is required: load its driver (softdog, for want of hardware) and let this user write to it: %w", ErrWatchdog, w.path, err)
	}
	w.tell(err)
	return nil
}

// tell says once that there is no watchdog. w.mu is held.
func (w *watchdog) tell(err error) {
	if !w.told {
		w.told = true
		w.log.Warn("there is no watchdog, so a machine whose kernel hangs is not reset", zap.String("device", w.path), zap.Error(err))
	}
}

// ping postpones the reset: until a deadline that is left away has passed, or by the timeout in force if left is zero.
func (w *watchdog) ping(left time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return
	}
	if err := w.beat(left); err != nil {
		// The device stays open and goes off: whatever is wrong with it, nothing says that we still guard.
		w.log.Error("the watchdog cannot be kept quiet and will reset this machine", zap.String("device", w.path), zap.Error(err))
	}
}

// beat sets the timeout where it does not fit, and writes. w.mu is held.
func (w *watchdog) beat(left time.Duration) error {
	if left > 0 {
		want := int((left + DeadmanAfter + time.Second - 1) / time.Second)
		// A second less comes of the time between two extensions and is no other lease.
		if want > w.seconds || want < w.seconds-1 {
			got, err := w.setTimeout(w.f, want)
			if err != nil {
				return err
			}
			if got < want {
				return fmt.Errorf("its longest timeout is %d s, %d s are needed for this lease", got, want)
			}
			w.seconds = want
		}
	}
	_, err := w.f.Write([]byte{'.'}) // anything but the V of the magic close
	return err
}

// disarm stops and closes the device: Postgres is gone.
func (w *watchdog) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
}

func (w *watchdog) end() {
	if w.f == nil {
		return
	}
	// The magic close, Documentation/watchdog/watchdog-api.rst; without the V the device goes on.
	_, err := w.f.Write([]byte{'V'})
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	if err != nil {
		w.log.Error("the watchdog could not be stopped and will reset this machine", zap.String("device", w.path), zap.Error(err))
	}
}

// calm stops a watchdog that a launcher left which died: nothing of its Postgres lives any more.
func (w *watchdog) calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mode == WatchdogOff {
		return
	}
	f, err := os.OpenFile(w.path, os.O_WRONLY, 0)
	if err != nil {
		w.tell(err)
		return
	}
	w.f = f
	w.end()
}
