// Package cmd is howdah's command line and its only composition root: each command is a struct of options
// whose Run puts the parts together. A test builds the struct and calls Run; it needs no flags.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"howdah/cmd/options"
)

// Stdio is where a command reads and writes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// The exit codes of howdah.
const (
	exitOK     = 0
	exitFailed = 1 // it was tried and failed, or was refused
	exitUsage  = 2 // the options are wrong; nothing was tried
)

// Main runs the command that args name and returns the exit code of the process. SIGINT, SIGTERM and SIGHUP
// end the command in order; a second one ends the process at once. SIGHUP has a sidecar or a router read its options again instead.
func Main(args, environ []string, stdio Stdio) int {
	ending := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	if len(args) > 0 && (args[0] == "sidecar" || args[0] == "router") {
		ending = ending[:2]
	}
	ctx, stop := untilSignal(context.Background(), stdio.Err, ending...)
	defer stop()
	err := run(ctx, args, environ, stdio)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, options.ErrOptions), errors.Is(err, errUsage):
		fmt.Fprintf(stdio.Err, "%v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stdio.Err, "howdah: %v\n", err)
	return exitFailed
}

// errUsage marks what cobra found wrong with the command line.
var errUsage = errors.New("see howdah --help")

func run(ctx context.Context, args, environ []string, stdio Stdio) error {
	root := newRoot(frame{args: args, environ: environ, stdio: stdio, readFile: os.ReadFile, commands: commands(stdio)})
	return root.ExecuteContext(ctx)
}

// untilSignal returns a context that the first of the signals cancels.
func untilSignal(parent context.Context, stderr io.Writer, ending ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	// A reader of our output that goes away (a log collector, `| head`) must not kill a launcher and with it
	// Postgres: with a handler, writing gives an error instead of a deadly signal.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, ending...)
	go func() {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			cancel(fmt.Errorf("received %v", s))
		}
		if s, ok := (<-signals).(syscall.Signal); ok {
			fmt.Fprintf(stderr, "howdah: received %v again: ending at once\n", s)
			os.Exit(128 + int(s))
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}
