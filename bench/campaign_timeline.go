package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// The timeline is drawn in rows of rowSpan, as lines of a book; a lane for each host is a few pixels high.
const (
	rowSpan   = 2 * time.Minute
	perSecond = 10.0 // pixels
	laneHigh  = 13.0
	laneLeft  = 66.0
	rowGap    = 30.0
	letter    = 4.6 // pixels, about, of a label
)

// lane is one horizontal line of each row.
type lane struct {
	name string
	bars []bar
}

// bar is a stretch of time on a lane.
type bar struct {
	from, to schema.Instant
	class    string
	title    string
	label    string // written on it as far as there is room
	thin     bool   // drawn over others
}

// lanes says what is drawn: members with their reigns and faults, Consul, and through each router when clients succeeded.
func (f *findings) lanes() []lane {
	var names []string
	for _, r := range f.Reigns {
		names = append(names, r.Member)
	}
	for _, o := range f.Outcomes {
		for _, s := range o.Struck {
			for target := range strings.SplitSeq(s.Target, "+") {
				if strings.HasPrefix(target, "pg") {
					names = append(names, target)
				}
			}
		}
	}
	slices.Sort(names)
	all := []lane{{name: "faults"}}
	for _, n := range slices.Compact(names) {
		all = append(all, lane{name: n})
	}
	all = append(all, lane{name: "consul"})
	for i := range f.served {
		all = append(all, lane{name: fmt.Sprintf("router%d", i+1)})
	}
	if strings.Contains(f.Command, "-mode on") {
		all = append(all, lane{name: "degraded"})
	}
	on := func(name string, b bar) {
		for i := range all {
			if all[i].name == name {
				all[i].bars = append(all[i].bars, b)
			}
		}
	}
	for i, r := range f.Reigns {
		end := r.Ended
		if i+1 < len(f.Reigns) && (end == schema.Never || end > f.Reigns[i+1].Promoted) {
			end = f.Reigns[i+1].Promoted
		}
		if end == schema.Never {
			end = f.Ended
		}
		on(r.Member, bar{from: r.Promoted, to: end, class: "primary", title: fmt.Sprintf("%s is primary, epoch %d", r.Member, r.Epoch)})
	}
	for i, stretches := range f.served {
		for _, g := range stretches {
			on(fmt.Sprintf("router%d", i+1), bar{from: g.From, to: g.To, class: "served", title: "rows were acknowledged"})
		}
	}
	for _, o := range f.Outcomes {
		class := "fault"
		if len(o.Problems) > 0 {
			class = "bad"
		}
		on("faults", bar{from: o.Began, to: o.Ended, class: class, label: fmt.Sprintf("%d %s", o.Step.Number, o.Step), title: fmt.Sprintf("fault %d: %s; gap %.2f s, %d of %d rows missing", o.Step.Number, o.Step, o.Gap.Seconds(), o.Missing, o.Acked)})
		for _, s := range o.Struck {
			targets := strings.Split(s.Target, "+")
			if strings.HasPrefix(s.Target, "consul") {
				targets = []string{"consul"}
			}
			for _, name := range targets {
				on(name, bar{from: s.From, to: max(s.To, s.From.Add(200*time.Millisecond)), class: "struck", title: fmt.Sprintf("%s: %s", s.Trouble, s.Target), thin: true})
			}
		}
	}
	for _, g := range f.Degraded {
		on("degraded", bar{from: max(g.From, f.Up), to: g.To, class: "degraded", title: "the leader record promised nothing"})
	}
	return all
}

// timeline is an SVG that a browser shows by itself; what a bar is appears when the pointer rests on it.
func (f *findings) timeline() string {
	lanes := f.lanes()
	total := f.Ended.Sub(f.Up)
	rows := max(1, int((total+rowSpan-1)/rowSpan))
	rowHigh := laneHigh*float64(len(lanes)) + rowGap
	width, height := laneLeft+rowSpan.Seconds()*perSecond+10, rowHigh*float64(rows)+44
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="9">
<style>rect.primary{fill:#2563c9}rect.served{fill:#2f9e58}rect.fault{fill:#d9d3c3}rect.bad{fill:#f2a09a}rect.struck{fill:#e07b00}rect.degraded{fill:#8a5fb5}rect.lane{fill:#f2f2f0}text{fill:#333}</style>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="4" y="13" font-size="12">%s</text>
`, width, height, width, height, html.EscapeString(f.Command))
	left := 4.0
	for _, key := range []struct{ class, text string }{{"primary", "is primary"}, {"served", "rows were acknowledged through the router"}, {"struck", "was broken"},
		{"fault", "from a fault until all was whole"}, {"bad", "the same, and something was wrong"}, {"degraded", "the record promised nothing"}} {
		fmt.Fprintf(&b, `<rect class="%s" x="%.0f" y="20" width="10" height="9"/><text x="%.0f" y="28">%s</text>`+"\n", key.class, left, left+14, key.text)
		left += 34 + letter*float64(len(key.text))
	}
	for row := range rows {
		top := 40 + rowHigh*float64(row)
		from := f.Up.Add(time.Duration(row) * rowSpan)
		for s := 0; s < int(rowSpan.Seconds()); s += 10 {
			fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" font-size="8">%s</text>`+"\n", laneLeft+float64(s)*perSecond, top+7, minutes(time.Duration(row)*rowSpan+time.Duration(s)*time.Second))
		}
		for i, l := range lanes {
			y := top + 10 + laneHigh*float64(i)
			fmt.Fprintf(&b, `<text x="4" y="%.1f">%s</text><rect class="lane" x="%.0f" y="%.1f" width="%.0f" height="%.1f"/>`+"\n",
				y+9, html.EscapeString(l.name), laneLeft, y, rowSpan.Seconds()*perSecond, laneHigh-2)
			for _, x := range l.bars {
				b.WriteString(x.draw(from, y))
			}
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw returns the part of the bar that lies in the row that begins at from; nothing if none does.
func (x bar) draw(from schema.Instant, y float64) string {
	left, right := max(x.from, from), min(x.to, from.Add(rowSpan))
	if right <= left {
		return ""
	}
	high, begin, wide := laneHigh-2, laneLeft+left.Sub(from).Seconds()*perSecond, right.Sub(left).Seconds()*perSecond
	if x.thin {
		y, high = y+high/2, high/2
	}
	if x.label != "" {
		wide -= 1 // so that one is told from the next
	}
	text := fmt.Sprintf(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`+"\n", x.class, begin, y, max(0.5, wide), high, html.EscapeString(x.title))
	if room := int((wide - 2) / letter); x.label != "" && room > 0 {
		label := x.label[:min(len(x.label), room)]
		text += fmt.Sprintf(`<text x="%.1f" y="%.1f" font-size="8" pointer-events="none">%s</text>`+"\n", begin+1.5, y+high-2.5, html.EscapeString(label))
	}
	return text
}

func minutes(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
