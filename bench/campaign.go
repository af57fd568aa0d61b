package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"howdah/bench/cluster"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

const campaignUsage = `usage: go run ./bench campaign [-faults 200] [-seed N] [-members 3] [-mode async|on|strict] [-kinds list] [-hold 10m] [-lease 3s] [-out dir]`

// synchronousModes are the values of -mode with the cluster's synchronous_mode.
var synchronousModes = map[string]string{"async": schema.SyncOff, "on": schema.SyncOn, "strict": schema.SyncStrict}

// campaignOptions are those of the command line.
type campaignOptions struct {
	faults, members int
	seed            uint64
	mode            string
	kinds           []string
	lease, hold     time.Duration
	out             string
	keep            bool
	howdah          string
	root            string
}

func parseCampaign(args []string) (campaignOptions, error) {
	var o campaignOptions
	var kinds string
	f := flag.NewFlagSet("campaign", flag.ContinueOnError)
	f.IntVar(&o.faults, "faults", 200, "how many faults, one after the other")
	f.IntVar(&o.members, "members", 3, "how many members: 3 or 5")
	f.Uint64Var(&o.seed, "seed", 1, "what the faults, their order and their length follow from")
	f.StringVar(&o.mode, "mode", "async", "the replication: async, on or strict")
	f.StringVar(&kinds, "kinds", "", "which kinds of fault, separated by commas; all and combinations of them if empty")
	f.DurationVar(&o.lease, "lease", schema.DefaultClusterConfig().Lease.D(), "the lease")
	f.DurationVar(&o.hold, "hold", 0, "how long each fault lasts that does not end by itself; drawn from the seed if 0")
	f.StringVar(&o.out, "out", "", "a directory for campaign-<seed>.md, .json and .svg; a new one under /tmp if empty")
	f.BoolVar(&o.keep, "keep", false, "keep the logs even if all went well")
	f.StringVar(&o.howdah, "howdah", "", "the binary; bin/howdah of the source tree if empty")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not wanted here; %s", f.Arg(0), campaignUsage)
	}
	if _, known := synchronousModes[o.mode]; !known {
		return o, fmt.Errorf("-mode: %q is not allowed; choose async, on or strict", o.mode)
	}
	if o.members != 3 && o.members != 5 {
		return o, fmt.Errorf("-members: %d is not allowed; choose 3 or 5", o.members)
	}
	if o.hold < 0 {
		return o, fmt.Errorf("-hold: %s is not allowed; choose how long a fault lasts, or 0", o.hold)
	}
	if o.faults < 1 {
		return o, errors.New("-faults must be 1 or more")
	}
	if kinds != "" {
		for name := range strings.SplitSeq(kinds, ",") {
			if _, known := troubleNamed(name); !known {
				var all []string
				for _, t := range troubles() {
					all = append(all, t.Name)
				}
				return o, fmt.Errorf("-kinds: there is no %q; choose from %s", name, strings.Join(all, ", "))
			}
			o.kinds = append(o.kinds, name)
		}
	}
	if err := o.config().Validate(); err != nil {
		return o, err
	}
	var err error
	if o.root, err = moduleRoot(); err != nil {
		return o, err
	}
	if o.howdah != "" && o.clocks() {
		return o, errors.New("-howdah: a binary that is there has the machine's wall clock; give -kinds without clock-primary, clock-standby and clock-router as well")
	}
	if o.howdah == "" {
		o.howdah = filepath.Join(o.root, "bin", "howdah")
	}
	if o.out == "" {
		o.out, err = os.MkdirTemp("/tmp", "howdah-report-")
	}
	return o, err
}

// command is what repeats the campaign.
func (o campaignOptions) command() string {
	text := fmt.Sprintf("go run ./bench campaign -faults %d -seed %d -members %d -mode %s -lease %s", o.faults, o.seed, o.members, o.mode, o.lease)
	if len(o.kinds) > 0 {
		text += " -kinds " + strings.Join(o.kinds, ",")
	}
	if o.hold > 0 {
		text += " -hold " + o.hold.String()
	}
	return text
}

// config is what the cluster gets: the defaults, and as little WAL on disk as allows to make many clones.
func (o campaignOptions) config() schema.ClusterConfig {
	c := schema.DefaultClusterConfig()
	c.Lease = schema.Duration(o.lease)
	c.SynchronousMode = synchronousModes[o.mode]
	c.Parameters = map[string]string{"max_wal_size": "256MB", "min_wal_size": "48MB", "shared_buffers": "32MB", "max_connections": "60"}
	return c
}

// clocks says that wall clocks jump in the campaign.
func (o campaignOptions) clocks() bool {
	return len(o.kinds) == 0 || slices.ContainsFunc(o.kinds, func(k string) bool { return strings.HasPrefix(k, "clock-") })
}

func (o campaignOptions) logs() string { return filepath.Join(o.out, "logs") }

// runCampaign is the command.
func runCampaign(ctx context.Context, args []string) error {
	o, err := parseCampaign(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	began := boottime.Now()
	f, err := o.campaign(ctx, func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1f "+format+"\n", append([]any{boottime.Now().Sub(began).Seconds()}, args...)...)
	})
	if f == nil || f.Up == schema.Never {
		return err
	}
	err = errors.Join(err, f.write(ctx, o))
	if n := f.violations(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d violations; the logs are in %s", n, o.logs()))
	}
	return err
}

// campaign makes the cluster, runs the steps on it, and leaves nothing behind.
func (o campaignOptions) campaign(ctx context.Context, log func(string, ...any)) (f *findings, err error) {
	log("making the hosts of %d members, 2 routers and 3 Consul servers", o.members)
	s, err := o.build(ctx, log)
	if s != nil {
		defer func() { err = errors.Join(err, s.c.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	f, err = s.run(ctx, held(schedule(o.seed, o.faults, o.kinds), o.hold))
	if err != nil || f.violations() > 0 || o.keep {
		s.keepLogs(0)
	}
	return f, err
}

// build makes the hosts of a cluster and starts nothing. Where it returns a strain, its cluster must be closed, also after an error.
func (o campaignOptions) build(ctx context.Context, log func(string, ...any)) (*strain, error) {
	bin, err := local.FindBinDir(ctx)
	if err != nil {
		return nil, err
	}
	if o.clocks() {
		built, err := os.MkdirTemp("", "howdah-wallclock-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(built) // the cluster takes a copy
		o.howdah = filepath.Join(built, "howdah")
		log("building howdah with a wall clock that can be shifted")
		if err := cluster.BuildShifted(ctx, o.root, o.howdah); err != nil {
			return nil, err
		}
	}
	c, err := cluster.New(ctx, cluster.Options{
		WallClocks: o.clocks(), Howdah: o.howdah, Consul: filepath.Join(o.root, "bin", "consul"), BinDir: bin, Members: o.members, Routers: 2, Config: o.config(),
	})
	return &strain{o: o, c: c, log: log, lost: map[int64]bool{}}, err
}
