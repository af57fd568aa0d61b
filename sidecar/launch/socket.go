package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockDataDir takes the lock of a data directory: one launcher for each. It lies beside the directory, since
// initdb wants that empty. The kernel lets go of it when the process ends, however it ends.
func lockDataDir(dir string) (*os.File, error) {
	path := dir + ".launch.lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock file beside the data directory cannot be opened; its folder must exist and belong to the user who runs Postgres: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another launcher runs on the data directory %s (%s is locked)", dir, path)
		}
		return nil, fmt.Errorf("%s cannot be locked; file systems without flock are not supported: %w", path, err)
	}
	return f, nil
}

// listen makes the socket, mode 0600, in a folder where nobody else can replace it. A file left by a launcher
// that died is removed, but only if it is a socket and the kernel says that nobody listens on it.
func listen(path string) (*net.UnixListener, error) {
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // between bind and chmod nobody else may connect
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket: %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

func checkFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("socket: its folder is missing and cannot be made: %w; make it for this user (in a systemd unit RuntimeDirectory=howdah), or choose another --socket", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("socket: %s: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("socket: %s is not a folder", dir)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("socket: the folder %s belongs to user %d, who could replace the socket; choose one that belongs to the launcher's user, for example a subfolder, which howdah launch makes", dir, st.Uid)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("socket: others may write to the folder %s (mode %#o) and could replace the socket; choose a subfolder, which howdah launch makes with mode 0700", dir, st.Mode&0o7777)
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("socket: %s exists and is not a socket; choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("socket: another process answers on %s; each launcher needs its own", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket: whether somebody listens on %s is unknown, so it stays: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket: the file of a dead launcher cannot be removed: %w", err)
	}
	return nil
}
