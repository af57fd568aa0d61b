package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The wall clock is the machine's and has no namespace, and no test may set it. So the programs get another: PostgreSQL by a library
// that is loaded before the C library, howdah by being built with a package time that adds to what it reads. Consul keeps its own.

//go:embed wallclock/preload.c
var preloadSource []byte

//go:embed wallclock/shift.go.txt
var shiftSource []byte

// shiftVariable names the file with a host's shift to its processes.
const shiftVariable = "WALL_CLOCK_SHIFT"

// BuildShifted builds howdah from the module at root such that its wall clock can be shifted, into the file to.
func BuildShifted(ctx context.Context, root, to string) error {
	dir, err := os.MkdirTemp("", "howdah-wallclock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	pkg := filepath.Join(string(bytes.TrimSpace(goroot)), "src", "time")
	source, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return err
	}
	const before, call = "func Now() Time {\n\tsec, nsec, mono := ", "runtimeNow()"
	if bytes.Count(source, []byte(before+call)) != 1 {
		return errors.New("this Go's time.Now does not begin as bench/cluster knows it; adapt BuildShifted")
	}
	source = bytes.Replace(source, []byte(before+call), []byte(before+"shifted()"), 1)
	files := map[string][]byte{"time.go": source, "shift.go": shiftSource}
	replace := map[string]string{}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
		replace[filepath.Join(pkg, name)] = filepath.Join(dir, name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"),
		"-ldflags", "-X howdah/cmd.stamped=wallclock", "-o", to, ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building howdah with another wall clock: %w: %s", err, out)
	}
	return nil
}

// wallClock is that of one host.
type wallClock struct {
	file    string
	library string

	mu     sync.Mutex
	shifts []time.Duration // all that were ever in force
}

// buildPreload makes the library that shifts the clock of PostgreSQL.
func (c *Cluster) buildPreload(ctx context.Context) error {
	source := c.path("preload.c")
	if err := errors.Join(os.WriteFile(source, preloadSource, 0o644), os.Mkdir(c.path("clock"), 0o755)); err != nil {
		return err
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
	}
	return run(ctx, "", compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", c.path("preload.so"), source, "-ldl")
}

func (c *Cluster) newWallClock(h *Host) (*wallClock, error) {
	w := &wallClock{file: c.path("clock", h.Name), library: c.path("preload.so")}
	return w, w.set(0)
}

// environment is for the processes of the host; none where there is no such clock.
func (w *wallClock) environment() []string {
	if w == nil {
		return nil
	}
	return []string{shiftVariable + "=" + w.file, "LD_PRELOAD=" + w.library}
}

// set is in force at once in every process of the host. shift counts whole seconds.
func (w *wallClock) set(shift time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.shifts, shift) {
		w.shifts = append(w.shifts, shift)
	}
	f, err := os.OpenFile(w.file, os.O_CREATE|os.O_WRONLY, 0o644) // not truncated: it is mapped
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(shift/time.Second))), 0)
	return errors.Join(err, f.Close())
}

// errNoWallClock is a shift in a cluster without Options.WallClocks.
var errNoWallClock = errors.New("the cluster was made without wall clocks of its own")

// SetWallClock sets the date of the host: PostgreSQL, launcher and sidecar are by shift ahead of the machine from now on.
func (m *Member) SetWallClock(shift time.Duration) error { return m.Host.setWallClock(shift) }

// SetWallClock sets the date of the router.
func (r *Router) SetWallClock(shift time.Duration) error { return r.Host.setWallClock(shift) }

func (h *Host) setWallClock(shift time.Duration) error {
	if h.clock == nil {
		return errNoWallClock
	}
	return h.clock.set(shift)
}

// WallShifts are all shifts of the member's wall clock that were ever in force, 0 among them.
func (m *Member) WallShifts() []time.Duration {
	w := m.Host.clock
	if w == nil {
		return []time.Duration{0}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.shifts)
}
