package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a campaign found.
type report struct {
	At       time.Time `json:"at"`
	Machine  string    `json:"machine"`
	Versions string    `json:"versions"`
	Command  string    `json:"command"`
	Results  []result  `json:"results"`
	faults   []fault
}

func newReport(ctx context.Context, set settings, o options) *report {
	return &report{
		At: time.Now().UTC(), Machine: machine(), Versions: versions(ctx, set), faults: o.faults,
		Command: o.command(),
	}
}

func (r *report) add(x result) { r.Results = append(r.Results, x) }

// write prints the Markdown, and with a directory writes both forms there.
func (r *report) write(dir string) error {
	text := r.markdown()
	if _, err := io.WriteString(os.Stdout, text); err != nil || dir == "" {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "failover.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "failover.json"), append(b, '\n'), 0o644),
	)
}

// markdown is one table with a row for each fault.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s; %s; `%s`\n\n", r.At.Format("2006-01-02"), r.Machine, r.Versions, r.Command)
	b.WriteString("Seconds. Gap: the longest time between two acknowledged commits next to each other, median / worst. The four parts are medians.\n\n")
	b.WriteString("| fault | n | gap | detect | elect | promote | reroute | acknowledged rows missing | old primary's writes after the promotion | failovers |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range r.faults {
		if row := r.row(f); row != "" {
			b.WriteString(row)
		}
	}
	return b.String()
}

func (r *report) row(f fault) string {
	var gaps, detect, elect, promote, reroute []time.Duration
	var acked, lost, zombies, failovers, n int
	for _, x := range r.Results {
		if x.Fault != f.name {
			continue
		}
		n++
		gaps = append(gaps, x.Gap)
		detect, elect = append(detect, x.Split.Detect), append(elect, x.Split.Elect)
		promote, reroute = append(promote, x.Split.Promote), append(reroute, x.Split.Reroute)
		acked, lost, zombies = acked+x.Acked, lost+x.Missing, zombies+x.Zombies
		if x.Failover {
			failovers++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("| %s | %d | %s / %s | %s | %s | %s | %s | %d of %d | %d | %d |\n", f.title, n, seconds(median(gaps)), seconds(worst(gaps)),
		part(detect), part(elect), part(promote), part(reroute), lost, acked, zombies, failovers)
}

func part(values []time.Duration) string {
	kept := measured(values)
	if len(kept) == 0 {
		return "-"
	}
	return seconds(median(kept))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// String is the split in one line.
func (s split) String() string {
	return fmt.Sprintf("detect %s elect %s promote %s reroute %s", part([]time.Duration{s.Detect}), part([]time.Duration{s.Elect}),
		part([]time.Duration{s.Promote}), part([]time.Duration{s.Reroute}))
}

// machine says what this ran on, so that two reports can be told apart.
func machine() string {
	cpu := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "Linux"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	memory := ""
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf(", %d GB", info.Totalram*uint64(info.Unit)>>30)
	}
	return fmt.Sprintf("%d cores (%s)%s, %s", runtime.NumCPU(), cpu, memory, kernel)
}

// versions asks the programs.
func versions(ctx context.Context, set settings) string {
	first := func(name string, args ...string) string {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return filepath.Base(name) + " of unknown version"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	return fmt.Sprintf("%s, %s, %s, lease %s", first(filepath.Join(set.BinDir, "postgres"), "--version"), first(set.Consul, "version"),
		first(set.Howdah, "version"), set.Config.Lease)
}
