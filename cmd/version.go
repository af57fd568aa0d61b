package cmd

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"howdah/cmd/options"
)

// stamped is set by the linker (see the Makefile); where it is not, Go's own stamp serves.
var stamped string

// Version prints the version.
type Version struct{ stdio Stdio }

// Declare implements Command.
func (v *Version) Declare(*options.Set) {}

// Run implements Command.
func (v *Version) Run(context.Context) error {
	_, err := fmt.Fprintf(v.stdio.Out, "howdah %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildVersion is what members publish and `howdah version` prints.
func buildVersion() string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
