package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/local"
)

// findings are what a campaign found.
type findings struct {
	Date     string         `json:"date"`
	Machine  string         `json:"machine"`
	Versions string         `json:"versions"`
	Command  string         `json:"command"`
	Began    schema.Instant `json:"began"`
	Up       schema.Instant `json:"up"`
	Ended    schema.Instant `json:"ended"`
	Outcomes []outcome      `json:"outcomes"`
	Reigns   []reign        `json:"reigns"`
	Broken   string         `json:"broken,omitempty"`

	Acked     int     `json:"acked"`
	LostLater []int64 `json:"lost_later,omitempty"` // were there after their fault, and not at the end
	// Direct are the rows that were accepted past the routers; they show that the probes could write.
	Direct int `json:"direct"`
	// Usurped are the rows accepted by a member after the promotion of another in a newer epoch; Late those accepted before and
	// acknowledged after it.
	Usurped []string `json:"usurped,omitempty"`
	Late    int      `json:"late"`
	// Waived are the commits that were answered as done with a warning that they did not wait for their standbys.
	Waived   int            `json:"waived"`
	Degraded []gap          `json:"degraded,omitempty"` // when the leader record may have promised nothing
	Reads    map[string]int `json:"reads"`
	// OnStandbys are those of Reads that standbys carried out; Own the reads of own writes, by primaries and by standbys.
	OnStandbys map[string]int `json:"on_standbys"`
	Own        [2]int         `json:"own"`
	// Unseen are own writes that their own session did not see, Stale reads of the rw route without a row acknowledged before,
	// Backwards reads that show less than an earlier one of their session.
	Unseen    []string       `json:"unseen,omitempty"`
	Stale     []string       `json:"stale,omitempty"`
	Backwards []string       `json:"backwards,omitempty"`
	Behind    time.Duration  `json:"behind"` // worst staleness on the ro route
	Errors    map[string]int `json:"errors"`
	Ends      []string       `json:"ends,omitempty"` // the last processes that ended unasked or by a fault

	served [][]gap // by writer, for the timeline
}

// judge reads the ledger.
func (s *strain) judge(f *findings) {
	w := s.crowd
	w.mu.Lock()
	defer w.mu.Unlock()
	f.Reigns, f.Ends = s.reigns(), newest(s.c.Troubles())
	f.Acked, f.Direct, f.Unseen, f.Errors = len(w.commits), len(w.direct), w.unseen, w.errors
	at := func(i schema.Instant) string { return fmt.Sprintf("%.3f s", i.Sub(f.Up).Seconds()) }
	f.Waived, f.Degraded = len(w.waived), s.degraded.all
	usurped, late := usurpers(f.Reigns, slices.Concat(w.direct, w.commits))
	f.Late = late
	for _, c := range usurped {
		f.Usurped = append(f.Usurped, fmt.Sprintf("row %d, sent at %s, accepted by %s at %s", c.ID, at(c.Sent), c.Server, at(c.Executed)))
	}
	f.Reads, f.OnStandbys, f.Own = map[string]int{}, map[string]int{}, w.own
	commits := byWriter(w.commits, w.writers)
	for _, r := range w.readings {
		f.Reads[r.Route]++
		f.OnStandbys[r.Route] += place(r.Standby)
		if r.Route == "ro" {
			f.Behind = max(f.Behind, staleness(r, commits, s.lost))
		}
	}
	text := func(r reading) string {
		return fmt.Sprintf("session %d (%s) at %s saw %v", r.Session, r.Route, at(r.Began), r.Seen)
	}
	for _, r := range staleReads(w.readings, commits, s.lost) {
		f.Stale = append(f.Stale, text(r))
	}
	for _, r := range backwards(w.readings) {
		f.Backwards = append(f.Backwards, text(r))
	}
	f.served = nil
	for _, acks := range w.acks {
		f.served = append(f.served, served(acks, steadyGap))
	}
}

// violations counts what must not be.
func (f *findings) violations() int {
	n := len(f.LostLater) + len(f.Usurped) + len(f.Unseen) + len(f.Stale) + len(f.Backwards)
	for _, o := range f.Outcomes {
		n += len(o.Problems)
	}
	if f.Broken != "" {
		n++
	}
	return n
}

// longestPause returns the longest time without an acknowledgement within [from, to].
func longestPause(at []schema.Instant, from, to schema.Instant) time.Duration {
	longest, previous := time.Duration(0), from
	for _, t := range at {
		if t < from {
			continue
		}
		longest = max(longest, min(t, to).Sub(previous))
		if previous = t; t >= to {
			return longest
		}
	}
	return max(longest, to.Sub(previous))
}

// write puts the three forms of the report into the directory, and the Markdown to standard output.
func (f *findings) write(ctx context.Context, o campaignOptions) error {
	f.Date, f.Machine, f.Command = time.Now().UTC().Format(time.DateOnly), machine(), o.command()
	set := settings{Howdah: o.howdah, Consul: filepath.Join(o.root, "bin", "consul"), Config: o.config()}
	var err error
	if set.BinDir, err = local.FindBinDir(ctx); err != nil {
		return err
	}
	f.Versions = versions(ctx, set)
	name := fmt.Sprintf("campaign-%d", o.seed)
	text := f.markdown(name + ".svg")
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, text)
	return errors.Join(err,
		os.MkdirAll(o.out, 0o755),
		os.WriteFile(filepath.Join(o.out, name+".md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(o.out, name+".json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(o.out, name+".svg"), []byte(f.timeline()), 0o644),
	)
}

// markdown is the report for people.
func (f *findings) markdown(svg string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("%s, %s; %s.\n\n    %s\n\n", f.Date, f.Machine, f.Versions, f.Command)
	say("%d faults in %.1f minutes; %d reigns, the first included; [timeline](%s).\n\n", len(f.Outcomes), f.Ended.Sub(f.Up).Minutes(), len(f.Reigns), svg)
	missing, unwhole, ended := 0, 0, 0
	for _, o := range f.Outcomes {
		missing += o.Missing
		if !o.Step.planned() {
			ended += o.WaitsEnded
		}
		if o.Whole < 0 {
			unwhole++
		}
	}
	say("| what must not be | found | of |\n|---|---|---|\n")
	say("| rows accepted by a member after the promotion of another in a newer epoch | %d | %d rows through the routers, %d past them |\n", len(f.Usurped), f.Acked, f.Direct)
	say("| own writes that their session, on route auto, did not see | %d | %d reads on standbys, %d on primaries |\n", len(f.Unseen), f.Own[1], f.Own[0])
	say("| reads on route rw, or on auto with consistency strict, without a row that was acknowledged before them, and lasts | %d | %d reads on rw, %d strict on standbys, %d on primaries |\n",
		len(f.Stale), f.Reads["rw"], f.OnStandbys["strict"], f.Reads["strict"]-f.OnStandbys["strict"])
	say("| reads that show less than an earlier one of their session | %d | all of these, and %d on ro |\n", len(f.Backwards), f.Reads["ro"])
	say("| acknowledged rows lost, where nothing may be lost or outside the window | %d | %d missing in all |\n", f.wrongLosses(), missing+len(f.LostLater))
	say("| commits whose wait for a standby was ended by a stop that is not immediate | %d | |\n", ended)
	say("| faults after which the cluster was not whole within %s | %d | %d |\n", wholeBound, unwhole, len(f.Outcomes))
	say("| all violations | %d | |\n\n", f.violations())
	say("Seconds, median / worst. Gap: no row acknowledged through any router, or through the worse one. Whole: from the end of the fault.\n\n")
	say("| fault | n | gap | gap of one router | whole after | promotions | acknowledged rows missing | most in one fault | problems |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, t := range append(troubles(), trouble{Name: combined, Title: "combined: of the primary, and others"}) {
		b.WriteString(f.row(t))
	}
	say("\nRows accepted before a promotion elsewhere and acknowledged after it: %d. Worst staleness on the ro route, %.2f s. "+
		"Commits answered with the warning that their wait for a standby was cancelled, not counted as acknowledged: %d.\n", f.Late, f.Behind.Seconds(), f.Waived)
	if len(f.Degraded) > 0 && !strings.Contains(f.Command, "-mode async") {
		say("\nThe leader record may have promised nothing for %.1f s, in %d stretches.\n", total(f.Degraded).Seconds(), len(f.Degraded))
	}
	for _, o := range f.Outcomes {
		for _, p := range o.Problems {
			say("\n- fault %d (%s, primary %s): %s", o.Step.Number, o.Step, o.Primary, strings.ReplaceAll(p, "\n", "\n  "))
		}
	}
	for _, list := range [][]string{f.Usurped, f.Unseen, f.Stale, f.Backwards} {
		for i, text := range list {
			if i == 10 {
				say("\n- and %d more", len(list)-i)
				break
			}
			say("\n- %s", text)
		}
	}
	if f.Broken != "" {
		say("\n- %s", f.Broken)
	}
	say("\n")
	return b.String()
}

func (f *findings) wrongLosses() int {
	n := len(f.LostLater)
	for _, o := range f.Outcomes {
		if o.Missing > 0 && len(o.Problems) > 0 {
			n += o.Missing
		}
	}
	return n
}

func (f *findings) row(t trouble) string {
	var gaps, routers, wholes []time.Duration
	var n, reigns, acked, missing, most, problems int
	for _, o := range f.Outcomes {
		if o.Kind != t.Name {
			continue
		}
		n++
		gaps, routers = append(gaps, o.Gap), append(routers, o.RouterGap)
		if o.Whole >= 0 {
			wholes = append(wholes, o.Whole)
		}
		reigns, acked, missing, most = reigns+o.Reigns, acked+o.Acked, missing+o.Missing, max(most, o.Missing)
		problems += len(o.Problems)
	}
	if n == 0 {
		return ""
	}
	two := func(d []time.Duration) string { return seconds(median(d)) + " / " + seconds(worst(d)) }
	return fmt.Sprintf("| %s | %d | %s | %s | %s | %d | %d of %d | %d | %d |\n", t.Title, n, two(gaps), two(routers), two(wholes), reigns, missing, acked, most, problems)
}
