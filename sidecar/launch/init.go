package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// IsInit reports whether this process is the first of its pid namespace, as a container's entry point is. The
// kernel's own signals cannot kill such a process, so nothing would end a launcher there that is frozen: let Init run it.
func IsInit() bool { return os.Getpid() == 1 }

// Init runs this program once more, with the same arguments, environment and standard files, as its child, and
// returns the child's exit status (128 + n if signal n ended it) once that has ended. Meanwhile it
// passes SIGTERM, SIGINT and SIGHUP on to it and reaps orphans. The caller then exits with the status, upon
// which the kernel kills all that is left in the namespace: Postgres never outlives its launcher there.
func Init() (status int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{},
	})
	if err != nil {
		return 1, fmt.Errorf("howdah launch cannot run itself as a child of PID 1; mount /proc: %w", err)
	}
	ended := make(chan unix.WaitStatus, 1)
	failed := make(chan error, 1)
	go func() {
		for {
			var status unix.WaitStatus
			switch reaped, err := unix.Wait4(-1, &status, 0, nil); {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				failed <- err
				return
			case reaped == pid:
				ended <- status
				return
			}
		}
	}()
	for {
		select {
		case s := <-signals:
			_ = unix.Kill(pid, s.(unix.Signal))
		case status := <-ended:
			return exitCode(status), nil
		case err := <-failed:
			return 1, fmt.Errorf("the launcher's end is not known: %w", err)
		}
	}
}
