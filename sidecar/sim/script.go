package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Script plays the commands of a script, one a line, and returns what each of them showed:
//
//	cluster 3 [seed=N] [sync=on|off|strict]   a new cluster, which has come up
//	wait 10s                                  let it live; shows what happened
//	<a fault, as Break.String writes it>      break something; with "for 3s" it heals by itself
//	heal                                      end whatever is still broken
//	snapshot                                  a backup of Consul, for "consul restored"
//	status                                    who is what, and what has become of the acknowledged writes
//
// Where a fault names a member, "primary" stands for whoever takes writes.
type Script struct{ w *World }

// Do carries out one command. It returns an error for one that is not understood.
func (s *Script) Do(line string) (string, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", nil
	}
	if s.w == nil && words[0] != "cluster" {
		return "", fmt.Errorf("%q: begin with cluster", line)
	}
	switch words[0] {
	case "cluster":
		return s.cluster(words[1:])
	case "wait":
		return s.wait(words[1:])
	case "heal":
		s.w.healAll()
		return "", nil
	case "snapshot":
		s.w.consul.snapshot()
		return "", nil
	case "status":
		return s.status(), nil
	}
	b, err := parseBreak(s.named(line))
	if err != nil {
		return "", err
	}
	if hitsMember(b.Kind) && s.w.node(b.Member) == nil {
		return "", fmt.Errorf("%q: there is no member %s", line, b.Member)
	}
	s.w.strike(b)
	return "", nil
}

// named puts the primary's name where the line says primary.
func (s *Script) named(line string) string {
	words := strings.Fields(line)
	for _, n := range s.w.nodes {
		if i := slices.Index(words, "primary"); i >= 0 && n.pg.writable() {
			words[i] = n.name
		}
	}
	return strings.Join(words, " ")
}

// cluster makes a world and lets it come up, without a word about how.
func (s *Script) cluster(args []string) (string, error) {
	o := Options{Seed: 1, Trace: true}
	for i, a := range args {
		key, value, _ := strings.Cut(a, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case i == 0:
			o.Members, err = strconv.Atoi(a)
		case key == "sync":
			o.Sync, err = value, nil
		case key == "seed" && err == nil:
			o.Seed = n
		case a == "late":
			o.Late, err = true, nil
		default:
			err = fmt.Errorf("cluster: %q is not understood", a)
		}
		if err != nil {
			return "", err
		}
	}
	s.w = NewWorld(o)
	s.w.clients()
	s.w.runUntil(comesUp)
	s.w.told = nil
	return s.status(), nil
}

// comesUp is how long a new cluster is given.
const comesUp = moment(15 * time.Second)

// wait lets the world go on and shows what happened.
func (s *Script) wait(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("wait: say for how long")
	}
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return "", err
	}
	s.w.runUntil(s.w.now + moment(d))
	happened := s.w.told
	s.w.told = nil
	return strings.Join(brief(happened), "\n"), nil
}

// brief says once what happened again and again.
func brief(lines []string) []string {
	const stamp = len("   0.00 ")
	times := map[string]int{}
	last := map[string]string{}
	for _, l := range lines {
		times[l[stamp:]]++
		last[l[stamp:]] = strings.TrimSpace(l[:stamp])
	}
	var short []string
	for _, l := range lines {
		switch n := times[l[stamp:]]; {
		case n > 2:
			short = append(short, fmt.Sprintf("%s (%d times until %s)", l, n, last[l[stamp:]]))
			times[l[stamp:]] = 0
		case n > 0:
			short = append(short, l)
		}
	}
	return short
}

// status shows each member, and the writes.
func (s *Script) status() string {
	var lines []string
	var primary *postgres
	for _, n := range s.w.nodes {
		what := "standby"
		switch {
		case n.frozen:
			what = "frozen"
		case n.pg.writable():
			what, primary = fmt.Sprintf("primary in epoch %d", n.pg.epoch), n.pg
		case !n.pg.running():
			what = "no postgres (" + string(n.pg.state) + ")"
		case n.pg.streaming:
			what = "standby of " + n.pg.upstream
		}
		if n.plan.Reason != "" && n.up {
			what += ": " + n.plan.Reason
		}
		lines = append(lines, fmt.Sprintf("%s  timeline %d  %s", n.name, n.pg.timeline, what))
	}
	if primary != nil {
		lines = append(lines, fmt.Sprintf("acknowledged writes that %s lacks: %d", primary.n.name, s.w.ledger.missing(primary)))
	}
	return strings.Join(append(lines, s.w.violations...), "\n")
}

// scriptOf is a run as a script: what broke, and when.
func scriptOf(o Options, breaks []struck) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %d seed=%d", o.Members, o.Seed)
	if o.Sync != "" {
		fmt.Fprintf(&b, " sync=%s", o.Sync)
	}
	if o.Late {
		b.WriteString(" late")
	}
	b.WriteString("\n")
	now := comesUp
	for _, s := range breaks {
		if s.at > now {
			fmt.Fprintf(&b, "wait %s\n", time.Duration(s.at-now))
			now = s.at
		}
		fmt.Fprintf(&b, "%s\n", s.b)
	}
	fmt.Fprintf(&b, "wait %s\nheal\nwait %s\nstatus\n", time.Duration(comesUp)+o.Length-time.Duration(now), o.Quiet)
	return b.String()
}

// Shrink returns the fewest of the faults of a run that still break what the run broke, as a script. The seed stays, so that all else is alike.
func Shrink(o Options, r Result) string {
	breaks := r.struck
	fails := func(breaks []struck) bool { return len(replay(o, breaks).Violations) > 0 }
	if !fails(breaks) {
		return "" // the faults alone, without the dice that chose them, do not do it
	}
	for size := len(breaks) / 2; size >= 1; size /= 2 {
		for i := 0; i+size <= len(breaks); {
			if fewer := slices.Delete(slices.Clone(breaks), i, i+size); fails(fewer) {
				breaks = fewer
			} else {
				i += size
			}
		}
	}
	return scriptOf(o, breaks)
}
