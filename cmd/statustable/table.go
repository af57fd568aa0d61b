package statustable

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"howdah/consul/schema"
)

// WriteJSON writes the picture as one indented JSON document.
func (p Picture) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

// WriteTable writes a header line, one line for each member, and beneath them the reasons.
func (p Picture) WriteTable(w io.Writer) error {
	var b strings.Builder
	if p.Paused != nil {
		b.WriteString(p.Paused.line())
	}
	fmt.Fprintf(&b, "cluster %s   epoch %s   primary %s   consul %s\n\n", oneLine(p.Cluster), number(uint64(p.Epoch)), p.primary(), oneLine(p.Consul))
	table := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "MEMBER\tROLE\tSTATE\tTIMELINE\tLSN\tLAG\tEPOCH\tLEASE")
	for _, r := range p.Members {
		fmt.Fprintln(table, strings.Join([]string{
			oneLine(r.Name), word(oneLine(string(r.Role))), r.state() + r.mark(), number(uint64(r.Timeline)), lsn(r.LSN),
			r.lag(), number(uint64(r.Epoch)), r.lease(),
		}, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(p.Members) == 0 {
		b.WriteString("no member is known\n")
	}
	if reasons := p.reasons(); len(reasons) > 0 {
		b.WriteString("\n" + strings.Join(reasons, "\n") + "\n")
	}
	b.WriteString(p.promises())
	b.WriteString(p.restarts())
	_, err := io.WriteString(w, b.String())
	return err
}

// promises says by whose word a primary serves that cannot renew its lease in Consul, or who keeps it from doing so.
func (p Picture) promises() string {
	if len(p.Promises) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s cannot renew its lease in consul and needs a promise of each of these:\n", oneLine(p.Asks))
	for _, v := range p.Promises {
		switch {
		case v.Given:
			fmt.Fprintf(&b, "  %s: promised %s ago\n", oneLine(v.Member), brief(v.AskedAgo.D()))
		case v.GivenAgo < 0:
			fmt.Fprintf(&b, "  %s: asked %s ago: %s; it has never promised\n", oneLine(v.Member), brief(v.AskedAgo.D()), oneLine(v.Why))
		default:
			fmt.Fprintf(&b, "  %s: asked %s ago: %s; it promised last %s ago\n", oneLine(v.Member), brief(v.AskedAgo.D()), oneLine(v.Why), brief(v.GivenAgo.D()))
		}
	}
	return b.String()
}

// restartMark stands beside the state of a member whose Postgres waits for a restart.
const restartMark = " *"

func (r Row) mark() string {
	if len(r.PendingRestart) == 0 {
		return ""
	}
	return restartMark
}

// restarts says which settings wait for a restart, on which members, and what to run.
func (p Picture) restarts() string {
	byNames := map[string][]string{}
	for _, r := range p.Members {
		if len(r.PendingRestart) > 0 {
			names := oneLine(strings.Join(r.PendingRestart, ", "))
			byNames[names] = append(byNames[names], oneLine(r.Name))
		}
	}
	var b strings.Builder
	for _, names := range slices.Sorted(maps.Keys(byNames)) {
		fmt.Fprintf(&b, "\n* %s: waiting for a restart of PostgreSQL: %s\n", strings.Join(byNames[names], ", "), names)
	}
	if b.Len() > 0 {
		fmt.Fprintf(&b, "  run: howdah restart --pending --cluster %s --api-token-file FILE\n", oneLine(p.Cluster))
	}
	return b.String()
}

// line is the first thing that a person must know of a paused cluster.
func (p Paused) line() string {
	text := "PAUSED"
	if p.By != "" {
		text += " by " + oneLine(p.By)
	}
	if p.Reason != "" {
		text += ": " + oneLine(p.Reason)
	}
	return text + "   (no failover until howdah resume)\n"
}

func (p Picture) primary() string {
	switch {
	case p.Primary != "":
		return oneLine(p.Primary)
	case p.Leader != nil && p.Leader.Phase != "":
		return fmt.Sprintf("none (%s: %s)", oneLine(p.Leader.Member), oneLine(string(p.Leader.Phase)))
	}
	return "none"
}

func (p Picture) reasons() []string {
	var lines []string
	for _, r := range p.Members {
		if r.Reason != "" {
			lines = append(lines, fmt.Sprintf("%s: %s", oneLine(r.Name), oneLine(r.Reason)))
		}
		if !r.Answered {
			why := r.NoAnswer
			if why == "" {
				why = "its API address is not known"
			}
			lines = append(lines, fmt.Sprintf("%s: does not answer us: %s; %s", oneLine(r.Name), oneLine(why), r.gossip()))
		}
	}
	return lines
}

func (r Row) gossip() string {
	if r.HeardAgo < 0 {
		return "no other member has heard of it"
	}
	return fmt.Sprintf("the others call it %s and heard of it %s ago", word(string(r.Liveness)), brief(r.HeardAgo.D()))
}

// state never says that a silent member is dead: it may serve clients that reach it where we do not.
func (r Row) state() string {
	state := word(oneLine(string(r.State)))
	switch {
	case r.Answered:
		return state
	case r.HeardAgo < 0:
		return "unreachable"
	}
	return fmt.Sprintf("unreachable (%s %s ago)", state, brief(r.HeardAgo.D()))
}

func (r Row) lag() string {
	if r.LagBytes < 0 {
		return "-"
	}
	if r.ReplayLagBytes > r.LagBytes {
		return Bytes(r.LagBytes) + ", replay " + Bytes(r.ReplayLagBytes)
	}
	return Bytes(r.LagBytes)
}

func (r Row) lease() string {
	if r.Role != schema.RolePrimary || !r.Answered {
		return "-"
	}
	if r.LeaseLeft <= 0 {
		return "over"
	}
	return brief(r.LeaseLeft.D())
}

func lsn(l schema.LSN) string {
	if l == 0 {
		return "-"
	}
	return l.String()
}

func number(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func word(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// oneLine keeps what came over the network from moving the cursor or breaking the table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// Bytes is a size as people read it: 16.0 MB.
func Bytes(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// brief is a duration as people read it: 320ms, 2.7s, 4m10s.
func brief(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
