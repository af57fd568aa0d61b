package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

const routersUsage = `usage: go run ./bench routers [-n 20] [-lease 3s] [-members 3] [-howdah file] [-out dir]`

// changeBound is how soon after the blow both routers must send sessions to the new primary, and the cluster be whole again.
const changeBound = 2 * time.Minute

// turned is one change of primary, as it was seen by two routers on hosts of their own.
type turned struct {
	Change string       `json:"change"`
	Epoch  schema.Epoch `json:"epoch"`
	Member string       `json:"member"`
	// Promoted is when the new primary recorded that it accepts writes, Rerouted when each router did that sessions go there: CLOCK_BOOTTIME, which all
	// hosts share.
	Promoted schema.Instant    `json:"promoted"`
	Rerouted [2]schema.Instant `json:"rerouted"`
}

// apart is how far the routers were from one another.
func (t turned) apart() time.Duration { return t.Rerouted[0].Sub(t.Rerouted[1]).Abs() }

// after is from the promotion until the second router knew of it.
func (t turned) after() time.Duration {
	return max(t.Rerouted[0].Sub(t.Promoted), t.Rerouted[1].Sub(t.Promoted))
}

// routersReport is what became of all changes.
type routersReport struct {
	At       time.Time `json:"at"`
	Machine  string    `json:"machine"`
	Versions string    `json:"versions"`
	Command  string    `json:"command"`
	Changes  []turned  `json:"changes"`
}

// runRouters is the command: it measures how far apart two routers are when the primary changes.
func runRouters(ctx context.Context, args []string) error {
	o := campaignOptions{mode: "async", kinds: []string{"switchover", "kill"}} // none that needs a clock to be shifted
	n := 0
	f := flag.NewFlagSet("routers", flag.ContinueOnError)
	f.IntVar(&n, "n", 20, "how many switchovers, and how many failovers")
	f.DurationVar(&o.lease, "lease", schema.DefaultClusterConfig().Lease.D(), "the lease")
	f.IntVar(&o.members, "members", 3, "how many members")
	f.StringVar(&o.out, "out", "", "a directory for routers.md and routers.json; a new one under /tmp if empty")
	f.StringVar(&o.howdah, "howdah", "", "the binary; bin/howdah of the source tree if empty")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if f.NArg() > 0 || n < 1 || o.members < 2 {
		return fmt.Errorf("-n must be 1 or more, -members 2 or more, and nothing else is wanted; %s", routersUsage)
	}
	var err error
	if o.root, err = moduleRoot(); err != nil {
		return err
	}
	if o.out == "" {
		if o.out, err = os.MkdirTemp("/tmp", "howdah-report-"); err != nil {
			return err
		}
	}
	if o.howdah == "" {
		o.howdah = filepath.Join(o.root, "bin", "howdah")
	}
	bin, err := local.FindBinDir(ctx)
	if err != nil {
		return err
	}
	rep := routersReport{At: time.Now().UTC(), Machine: machine(), Command: fmt.Sprintf("go run ./bench routers -n %d -lease %s -members %d", n, o.lease, o.members)}
	rep.Versions = versions(ctx, settings{Howdah: o.howdah, Consul: filepath.Join(o.root, "bin", "consul"), BinDir: bin, Config: o.config(), Log: zap.NewNop()})
	rep.Changes, err = o.turn(ctx, n, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	return errors.Join(err, rep.write(o.out))
}

// turn makes the cluster and changes its primary n times in each of two ways, one after the other.
func (o campaignOptions) turn(ctx context.Context, n int, log func(string, ...any)) (all []turned, err error) {
	s, err := o.build(ctx, log)
	if s != nil {
		defer func() { err = errors.Join(err, s.c.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	if err := s.raise(ctx); err != nil {
		return nil, err
	}
	for i := range 2 * n {
		change := []string{"switchover", "failover"}[i%2]
		t, err := s.turn(ctx, change)
		if err != nil {
			s.keepLogs(i + 1)
			return all, fmt.Errorf("change %d, a %s: %w", i+1, change, err)
		}
		all = append(all, t)
		log("%d/%d %s to %s: %s after the promotion, the routers %s apart", i+1, 2*n, change, t.Member, t.after(), t.apart())
	}
	return all, nil
}

// turn changes the primary once, and returns when the cluster is whole again.
func (s *strain) turn(ctx context.Context, change string) (turned, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, changeBound, fmt.Errorf("not so after %s", changeBound))
	defer cancel()
	look, err := s.c.Await(ctx, "a primary and all standbys streaming", local.Look.Healthy)
	if err != nil {
		return turned{}, err
	}
	old := s.c.Primary(look)
	t := turned{Change: change, Epoch: look.Epoch() + 1}
	if change == "switchover" {
		err = old.Switchover(ctx, "")
	} else {
		err = old.Kill(ctx)
		defer old.Start() //nolint:errcheck // the next change, or the end, shows it
	}
	if err != nil {
		return t, err
	}
	for i, r := range s.c.Routers {
		err := local.Poll(ctx, 50*time.Millisecond, func() bool {
			events, _ := r.Events(ctx) // one that does not answer is asked again
			for _, e := range events {
				if e.Kind == schema.EventRerouted && e.Epoch >= t.Epoch {
					t.Rerouted[i], t.Epoch = e.At, e.Epoch
					return true
				}
			}
			return false
		})
		if err != nil {
			return t, fmt.Errorf("waiting for %s to send sessions to the next primary: %w", r.Name, err)
		}
	}
	return t, s.promoted(ctx, &t)
}

// promoted finds who has become the primary, and when.
func (s *strain) promoted(ctx context.Context, t *turned) error {
	err := local.Poll(ctx, 50*time.Millisecond, func() bool {
		s.collect(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		i := slices.IndexFunc(s.events, func(e schema.Event) bool { return e.Kind == schema.EventPromoted && e.Epoch == t.Epoch })
		if i < 0 {
			return false
		}
		t.Promoted, t.Member = s.events[i].At, s.events[i].By
		return true
	})
	if err != nil {
		return fmt.Errorf("waiting for somebody to say that it was promoted in epoch %d: %w", t.Epoch, err)
	}
	return nil
}

// write prints the Markdown, and writes both forms into a directory.
func (r routersReport) write(dir string) error {
	text := r.markdown()
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "routers.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "routers.json"), append(b, '\n'), 0o644))
}

func (r routersReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s; %s; `%s`\n\n", r.At.Format("2006-01-02"), r.Machine, r.Versions, r.Command)
	b.WriteString("Milliseconds, median / worst. After: from the promotion until both routers send sessions to the new primary.\n\n| change | n | apart | after |\n|---|---|---|---|\n")
	for _, change := range []string{"switchover", "failover"} {
		var apart, after []time.Duration
		for _, t := range r.Changes {
			if t.Change == change {
				apart, after = append(apart, t.apart()), append(after, t.after())
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %s / %s | %s / %s |\n", change, len(apart), milliseconds(median(apart)), milliseconds(worst(apart)), milliseconds(median(after)), milliseconds(worst(after)))
	}
	return b.String()
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
