package cmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"howdah/cmd/options"
	"howdah/consul/boottime"
	"howdah/sidecar/launch"
)

const launchLong = `Runs one Postgres for the sidecar beside it, as the owner of the data directory, and kills it when the lease of a
primary runs out, whatever has become of the sidecar. Give it the same --socket as the sidecar's --launch-socket.
It goes on when the sidecar is restarted. SIGTERM stops Postgres (fast) and ends.`

const launchExample = "howdah launch --data-dir /var/lib/postgresql/main/data"

const (
	defaultLaunchSocket      = "/run/howdah/launch.sock"
	defaultPostgresSocketDir = "/var/run/postgresql"
)

// Launch runs a launcher.
type Launch struct {
	// Socket is the unix socket to listen on; DataDir Postgres's data directory; BinDir the directory of the
	// postgres program, empty for the only one installed; PostgresSocketDir where Postgres puts its own socket.
	Socket, DataDir, BinDir, PostgresSocketDir string
	// Watchdog is off, automatic or required, see launch.WatchdogMode; WatchdogDevice its device.
	Watchdog, WatchdogDevice string
	Log                      LogOptions

	stdio Stdio
}

// NewLaunch returns a Launch with its defaults.
func NewLaunch(stdio Stdio) *Launch {
	return &Launch{Socket: defaultLaunchSocket, PostgresSocketDir: defaultPostgresSocketDir,
		Watchdog: string(launch.WatchdogOff), WatchdogDevice: launch.DefaultWatchdogDevice, Log: defaultLog(), stdio: stdio}
}

// Declare implements Command.
func (l *Launch) Declare(s *options.Set) {
	s.Group("Postgres")
	s.String(&l.DataDir, "data-dir", "PostgreSQL's data directory; its parent must exist", options.Required, absolute)
	s.String(&l.BinDir, "bin-dir", "the directory of postgres and initdb; without it the only one under /usr/lib/postgresql", absolute)
	s.String(&l.PostgresSocketDir, "postgres-socket-dir", "where Postgres puts its unix socket", options.Required, absolute)
	s.Group("Launcher")
	s.String(&l.Socket, "socket", "the unix socket for the sidecar", options.Required, absolute)
	s.Group("Watchdog")
	s.String(&l.Watchdog, "watchdog", "whether a device resets the machine when this launcher no longer keeps a primary's deadline: off, automatic (where there is one), required (no primary without)",
		options.OneOf(string(launch.WatchdogOff), string(launch.WatchdogAutomatic), string(launch.WatchdogRequired)))
	s.String(&l.WatchdogDevice, "watchdog-device", "its device, which this user must be allowed to write to", absolute)
	l.Log.declare(s)
}

// Validate returns every mistake at once.
func (l *Launch) Validate() error { return options.Validate(l) }

// Run implements Command.
func (l *Launch) Run(ctx context.Context) error {
	if launch.IsInit() {
		status, err := launch.Init()
		if err != nil {
			return err
		}
		os.Exit(status) // nothing else runs here
	}
	log, err := l.Log.logger(l.stdio.Err)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	binDir, err := l.binDir("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return err
	}
	server, err := launch.NewServer(launch.Options{
		Farewell: launch.Farewell,
		Socket:   l.Socket, DataDir: l.DataDir, BinDir: binDir, PostgresSocketDir: l.PostgresSocketDir,
		PostgresLog: l.stdio.Err, Now: boottime.Now, Log: log.Named("launch"),
		Watchdog: launch.WatchdogMode(l.Watchdog), WatchdogDevice: l.WatchdogDevice,
	})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// binDir never chooses between two versions: the wrong one would refuse the data directory, or initialise it.
func (l *Launch) binDir(pattern string) (string, error) {
	if l.BinDir != "" {
		return l.BinDir, nil
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("bin-dir: no PostgreSQL matches %s; install one, or name the directory of postgres and initdb", pattern)
	case 1:
		return filepath.Dir(found[0]), nil
	}
	return "", fmt.Errorf("bin-dir: several PostgreSQL are installed, choose one of %s", strings.Join(found, ", "))
}

// absolute is a path that means the same for every process.
func absolute(o *options.Option) {
	options.Placeholder("PATH")(o)
	options.Matches(func(text string) bool {
		return filepath.IsAbs(text) && (text == string(os.PathSeparator) || !strings.HasSuffix(text, "/"))
	}, "want an absolute path without a slash at its end")(o)
}
