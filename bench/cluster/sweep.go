package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// runPrefix begins the directory of every run.
const runPrefix = "/tmp/howdah-campaign-"

// ours are the names of namespaces that a run may have left behind.
var ours = regexp.MustCompile(`^howdah-([0-9a-f]{6})-[a-z0-9]+$`)

// claim makes the directory of a new run and locks it for as long as the file stays open.
func claim() (id, dir string, lock *os.File, err error) {
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails
	id = hex.EncodeToString(b)
	dir = runPrefix + id
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", "", nil, err
	}
	lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	return id, dir, lock, err
}

// Sweep removes what crashed runs have left: processes, mounts, namespaces, directories. Runs that live are not touched. It
// returns the names of the runs that it removed.
func Sweep(ctx context.Context) ([]string, error) {
	cgroup, err := cgroup2()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(runPrefix + "??????")
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	var gone []string
	var errs []error
	for _, dir := range dirs {
		id := strings.TrimPrefix(dir, runPrefix)
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			// It lives; or it is about to lock, or to go, which will be seen next time.
			alive[id] = true
		} else {
			gone = append(gone, id)
			errs = append(errs, remove(ctx, id, cgroup))
		}
		if lock != nil {
			_ = lock.Close()
		}
	}
	names, err := namespaces()
	errs = append(errs, err)
	for _, name := range names {
		m := ours.FindStringSubmatch(name)
		if m == nil || alive[m[1]] {
			continue
		}
		if _, err := os.Stat(runPrefix + m[1]); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, run(ctx, "", "ip", "netns", "del", name))
	}
	return gone, errors.Join(errs...)
}

// remove takes away all of a run: the disks go on first, so that its processes can die.
func remove(ctx context.Context, id, cgroup string) error {
	dir := runPrefix + id
	mounts, err := filepath.Glob(filepath.Join(dir, "disk", "*"))
	errs := []error{err}
	for _, mount := range mounts {
		if filepath.Ext(mount) != ".img" {
			_ = run(ctx, "", "fsfreeze", "-u", mount) // an error says that it was not stopped
		}
	}
	group := filepath.Join(cgroup, "howdah-"+id)
	errs = append(errs, killAll(ctx, group))
	for _, mount := range mounts {
		if filepath.Ext(mount) != ".img" {
			errs = append(errs, unmount(ctx, mount))
		}
	}
	names, err := namespaces()
	errs = append(errs, err)
	for _, name := range names {
		if strings.HasPrefix(name, "howdah-"+id+"-") {
			errs = append(errs, run(ctx, "", "ip", "netns", "del", name))
		}
	}
	groups, _ := filepath.Glob(filepath.Join(group, "*"))
	for _, g := range append(groups, group) {
		if info, err := os.Stat(g); err == nil && info.IsDir() {
			errs = append(errs, os.Remove(g))
		}
	}
	if errors.Join(errs...) != nil {
		// The directory stays, so that the next sweep knows of the rest.
		return errors.Join(errs...)
	}
	return os.RemoveAll(dir)
}

func namespaces() ([]string, error) {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// cgroup2 is where the kernel's cgroup2 hierarchy is mounted.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted, which hosts are frozen and killed by: mount -t cgroup2 none /sys/fs/cgroup")
}

// prerequisites installs the tools that are missing, where that is possible.
func prerequisites(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("hosts are network namespaces, which only root may make: run this as root")
	}
	var packages []string
	for tool, name := range map[string]string{"ip": "iproute2", "nft": "nftables", "fsfreeze": "util-linux", "mkfs.ext4": "e2fsprogs"} {
		if _, err := exec.LookPath(tool); err != nil {
			packages = append(packages, name)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing, and there is no apt-get to install them: %s", strings.Join(packages, ", "))
	}
	install := exec.CommandContext(ctx, "sh", "-c", "apt-get -qq update && apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "+strings.Join(packages, " "))
	install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("installing %s: %w: %s", strings.Join(packages, ", "), err, out)
	}
	return nil
}
