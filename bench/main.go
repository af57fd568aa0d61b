// Command bench measures howdah: how long clients of a real cluster wait when something breaks, and what becomes of
// their commits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

const usage = `usage: go run ./bench failover [-n 5] [-faults list] [-mode async|on|strict] [-lease 3s] [-members 3] [-out dir]`

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "campaign" {
		return runCampaign(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "routers" {
		return runRouters(ctx, args[1:])
	}
	if len(args) == 0 || args[0] != "failover" {
		return errors.New(strings.Join([]string{usage, strings.TrimPrefix(campaignUsage, "usage: "), strings.TrimPrefix(routersUsage, "usage: ")}, "\n       "))
	}
	o, err := parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.failover(ctx)
}

// options are those of the command line.
type options struct {
	n       int
	faults  []fault
	lease   time.Duration
	members int
	mode    string
	out     string
	keep    bool
	root    string
	list    string
}

// command is what repeats the campaign.
func (o options) command() string {
	text := fmt.Sprintf("go run ./bench failover -n %d -lease %s -members %d", o.n, o.lease, o.members)
	if o.mode != "async" {
		text += " -mode " + o.mode
	}
	if o.list != "" {
		text += " -faults " + o.list
	}
	return text
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("failover", flag.ContinueOnError)
	f.IntVar(&o.n, "n", 5, "how often each fault is repeated")
	f.StringVar(&o.list, "faults", "", "which faults, separated by commas; all if empty")
	f.DurationVar(&o.lease, "lease", schema.DefaultClusterConfig().Lease.D(), "the lease")
	f.IntVar(&o.members, "members", 3, "how many members")
	f.StringVar(&o.mode, "mode", "async", "the replication: async, on or strict")
	f.StringVar(&o.out, "out", "", "a directory for failover.md and failover.json; empty for standard output alone")
	f.BoolVar(&o.keep, "keep", false, "keep the cluster's directory with its logs")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not wanted here; %s", f.Arg(0), usage)
	}
	if o.n < 1 || o.members < 2 {
		return o, errors.New("-n must be 1 or more, -members 2 or more")
	}
	if _, known := synchronousModes[o.mode]; !known {
		return o, fmt.Errorf("-mode: %q is not allowed; choose async, on or strict", o.mode)
	}
	var err error
	if o.faults, err = chosen(o.list); err != nil {
		return o, err
	}
	o.root, err = moduleRoot()
	return o, err
}

// moduleRoot is the folder of go.mod at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there is no go.mod at or above the working directory: run this inside the source tree")
		}
		dir = filepath.Dir(dir)
	}
}

// settings finds the binaries.
func (o options) settings(ctx context.Context, dir string) (settings, error) {
	s := settings{
		Howdah: filepath.Join(o.root, "bin", "howdah"), Consul: filepath.Join(o.root, "bin", "consul"), Dir: dir,
		Members: o.members, Config: schema.DefaultClusterConfig(), Log: zap.NewNop(),
	}
	s.Config.Lease = schema.Duration(o.lease)
	s.Config.SynchronousMode = synchronousModes[o.mode]
	if err := s.Config.Validate(); err != nil {
		return s, err
	}
	for target, file := range map[string]string{"build": s.Howdah, "tools": s.Consul} {
		if _, err := os.Stat(file); err != nil {
			return s, fmt.Errorf("%w; run make %s", err, target)
		}
	}
	var err error
	s.BinDir, err = local.FindBinDir(ctx)
	return s, err
}

// failover runs the campaign and writes the report.
func (o options) failover(ctx context.Context) (err error) {
	dir, err := temporary()
	if err != nil {
		return err
	}
	defer func() {
		if o.keep || err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "the cluster's logs are in %s\n", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	set, err := o.settings(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "starting %d members, a router and Consul in %s\n", o.members, dir)
	b, err := open(ctx, set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	rep := newReport(ctx, set, o)
	for _, f := range o.faults {
		for i := range o.n {
			r, err := b.once(ctx, f)
			if err != nil {
				return errors.Join(fmt.Errorf("%s, repetition %d: %w", f.name, i+1, err), rep.write(o.out))
			}
			rep.add(r)
			fmt.Fprintf(os.Stderr, "%-16s %d/%d  gap %s  missing %d of %d  zombies %d (%d before)  %s\n", f.name, i+1, o.n,
				seconds(r.Gap), r.Missing, r.Acked, r.Zombies, r.DirectBefore, r.Split)
		}
	}
	return rep.write(o.out)
}
