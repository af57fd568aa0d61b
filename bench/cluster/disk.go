package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"howdah/sidecar/local"
)

// diskSize is that of a member's disk; the file is sparse.
const diskSize = 4 << 30

// disk is a file system of its own in a loop device.
type disk struct {
	image, mount string
	stalled      bool
}

func newDisk(ctx context.Context, image, mount string, u local.User) (*disk, error) {
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close(), os.MkdirAll(mount, 0o755)); err != nil {
		return nil, err
	}
	if err := run(ctx, "", "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner="+fmt.Sprintf("%d:%d", u.UID, u.GID), image); err != nil {
		return nil, err
	}
	if err := run(ctx, "", "mount", "-o", "loop", image, mount); err != nil {
		return nil, fmt.Errorf("a loop device, which members' disks need: %w", err)
	}
	return &disk{image: image, mount: mount}, os.Chmod(mount, 0o700)
}

// stall stops every write to the disk until it goes on: who writes waits in the kernel, where no signal reaches it.
func (d *disk) stall(ctx context.Context) error {
	if d.stalled {
		return nil
	}
	d.stalled = true
	return run(ctx, "", "fsfreeze", "-f", d.mount)
}

func (d *disk) resume(ctx context.Context) error {
	if !d.stalled {
		return nil
	}
	d.stalled = false
	return run(ctx, "", "fsfreeze", "-u", d.mount)
}

// unmount lets the disk go on and takes it away; nothing may use it any more.
func unmount(ctx context.Context, mount string) error {
	_ = run(ctx, "", "fsfreeze", "-u", mount) // an error says that it was not stopped
	if err := unix.Unmount(mount, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", mount, err)
	}
	return nil
}
