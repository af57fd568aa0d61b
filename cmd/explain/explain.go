// Package explain turns what members have recorded into sentences: why the primary is who it is, why a failover happened
// or did not, why a member may not stand. It is pure: events in, words out.
package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"howdah/consul/schema"
)

// Question is what is asked, and all that could be gathered to answer it.
type Question struct {
	Cluster string
	// Epoch is that of the reign in question; zero is the newest. Member, if not empty, is the member in question.
	Epoch  schema.Epoch
	Member string
	// Leader is the newest leader record, nil if none was seen; History is Consul's, oldest first.
	Leader  *schema.Leader
	History []schema.Reign
	// Accounts are what members say, by name; Silent are those who could not be asked, each with why.
	Accounts []schema.Account
	Silent   []string
}

// Answer is the explanation.
type Answer struct {
	Cluster string `json:"cluster"`
	// Epoch and Primary are those of the reign in question; Primary is empty where nobody reigns.
	Epoch   schema.Epoch `json:"epoch"`
	Primary string       `json:"primary,omitempty"`
	// Member is the one in question, if one was asked about: Since is then what it has recorded last.
	Member string `json:"member,omitempty"`
	// Reign is how it came about, Since what has happened under it, Members who could follow now; each is a list of sentences.
	Reign   []string `json:"reign,omitempty"`
	Since   []string `json:"since,omitempty"`
	Members []string `json:"members,omitempty"`
	// Silent are those who could not be asked.
	Silent []string `json:"silent,omitempty"`
}

// Explain answers q.
func Explain(q Question) Answer {
	a := &answer{q: q, Answer: Answer{Cluster: q.Cluster, Member: q.Member, Silent: q.Silent}}
	a.settle()
	if q.Member != "" {
		a.member(q.Member)
		return a.Answer
	}
	a.head()
	a.election()
	a.before()
	a.since()
	if a.newest() {
		a.standing()
	}
	return a.Answer
}

// String is the answer as a person reads it.
func (a Answer) String() string {
	var b strings.Builder
	part := func(title, bullet string, sentences []string) {
		if len(sentences) == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		if title != "" {
			b.WriteString(title + "\n")
		}
		for _, s := range sentences {
			b.WriteString(bullet + s + "\n")
		}
	}
	part("", "", a.Reign)
	since, members := "Under this reign:", "If a primary were needed now:"
	if a.Member != "" {
		since = "What it has recorded:"
	}
	if a.Member == "" && a.Primary == "" {
		members = "Why nobody stands:"
	}
	part(since, "  ", a.Since)
	part(members, "  ", a.Members)
	part("Not asked, so what they know is missing above:", "  ", a.Silent)
	return b.String()
}

// answer is one in the making.
type answer struct {
	Answer
	q     Question
	reign schema.Reign // in question; zero if the history does not have it
}

// settle finds the reign in question.
func (a *answer) settle() {
	newest := schema.Epoch(0)
	if l := a.q.Leader; l != nil {
		newest = l.Epoch
	}
	if n := len(a.q.History); n > 0 {
		newest = max(newest, a.q.History[n-1].Epoch)
	}
	a.Epoch = a.q.Epoch
	if a.Epoch == 0 {
		a.Epoch = newest
	}
	for _, r := range a.q.History {
		if r.Epoch == a.Epoch {
			a.reign = r
		}
	}
	l := a.q.Leader
	if l != nil && l.Epoch == a.Epoch {
		a.reign.Epoch, a.reign.Member = l.Epoch, l.Member
	}
	for _, c := range a.q.Accounts {
		if c.Holds && c.Epoch == a.Epoch {
			a.Primary, a.reign.Member = c.Member, c.Member
		}
	}
	if a.Primary == "" && a.newest() && l != nil && l.Epoch == a.Epoch && l.Phase == schema.PhaseServing && a.account(l.Member) == nil {
		a.Primary = l.Member // nobody has heard otherwise from itself
	}
	if !a.newest() {
		a.Primary = a.reign.Member
	}
}

// newest reports that the reign in question is the newest.
func (a *answer) newest() bool {
	n := len(a.q.History)
	return (a.q.Leader == nil || a.q.Leader.Epoch <= a.Epoch) && (n == 0 || a.q.History[n-1].Epoch <= a.Epoch)
}

func (a *answer) account(member string) *schema.Account {
	i := slices.IndexFunc(a.q.Accounts, func(c schema.Account) bool { return c.Member == member })
	if i < 0 {
		return nil
	}
	return &a.q.Accounts[i]
}

func (a *answer) tell(format string, args ...any) {
	a.Reign = append(a.Reign, fmt.Sprintf(format, args...))
}

// events returns what was recorded and is of interest, in the order of the wall clock.
func (a *answer) events(wanted func(schema.Event) bool) []schema.Event {
	var all []schema.Event
	for _, c := range a.q.Accounts {
		for _, e := range c.Events {
			if wanted(e) {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y schema.Event) int { return x.Wall.Compare(y.Wall) })
	return all
}

// last returns the last event of a kind that one member recorded in an epoch.
func (a *answer) last(kind schema.EventKind, by string, e schema.Epoch) (schema.Event, bool) {
	found := a.events(func(v schema.Event) bool { return v.Kind == kind && v.By == by && v.Epoch == e })
	if len(found) == 0 {
		return schema.Event{}, false
	}
	return found[len(found)-1], true
}

// head names the primary and since when.
func (a *answer) head() {
	r := a.reign
	since, timeline := "", ""
	if !r.At.IsZero() {
		since = ", since " + day(r.At)
		timeline = fmt.Sprintf(", on timeline %d from %s", r.Timeline, r.LSN)
	}
	switch {
	case r.Member == "" && a.q.Epoch != 0:
		a.tell("Nothing is known of epoch %d of %s: neither Consul's history nor a member that answers has it.", a.Epoch, a.Cluster)
	case r.Member == "":
		a.tell("%s has had no primary yet.", a.Cluster)
	case !a.newest():
		a.tell("%s was the primary of %s in epoch %d%s%s.", r.Member, a.Cluster, a.Epoch, since, timeline)
	case a.Primary == "":
		a.tell("%s has no primary that is known to serve. The newest reign is that of %s, in epoch %d%s.", a.Cluster, r.Member, a.Epoch, since)
	default:
		a.tell("%s is the primary of %s in epoch %d%s%s.", r.Member, a.Cluster, a.Epoch, since, timeline)
	}
}

// election says what the takeover rested on.
func (a *answer) election() {
	by := a.reign.Member
	if by == "" {
		return
	}
	e, known := a.last(schema.EventElected, by, a.Epoch)
	if !known {
		if a.reign.Why != "" {
			a.tell("Consul's history says why: %s. What %s saw then is recorded by nobody who answers.", a.reign.Why, by)
		}
		return
	}
	if ev := e.Evidence; ev != nil && ev.Judgement != nil {
		a.judgement(*ev.Judgement)
	} else {
		a.tell("It took the lock: %s.", strings.ReplaceAll(e.Detail, " to us", " to it"))
	}
	if e.Evidence != nil {
		a.candidates(by, e.Evidence.Candidates)
	}
	if p, ok := a.last(schema.EventPromoted, by, a.Epoch); ok && p.At > e.At && e.At != schema.Never {
		a.tell("It had the lock at %s and accepted writes %s later.", clock(e.Wall), brief(p.At.Sub(e.At)))
	} else if ok {
		a.tell("It had the lock at %s and accepted writes from %s.", clock(e.Wall), clock(p.Wall))
	} else {
		a.tell("It had the lock at %s.", clock(e.Wall))
	}
}

func (a *answer) judgement(j schema.Judgement) {
	if j.Holder == "" {
		a.tell("Consul had no leader record, for %s.", brief(j.Unrenewed.D()))
		return
	}
	heard := "was not heard of by gossip at all"
	if j.HeardAgo >= 0 {
		heard = fmt.Sprintf("was last heard of by gossip %s before (%s)", brief(j.HeardAgo.D()), j.Liveness)
	}
	a.tell("The lease of %s, of %s, was not renewed for %s: a consistent read made %s before the takeover still showed what had been seen first then (index %d). %s %s.",
		j.Holder, brief(j.Lease.D()), brief(j.Unrenewed.D()), brief(j.ReadAgo.D()), j.Index, j.Holder, heard)
}

// candidates says who could have stood, and why the one who did went first.
func (a *answer) candidates(winner string, all []schema.Candidate) {
	var could, not []string
	var won schema.Candidate
	var second *schema.Candidate
	for i, c := range all {
		switch {
		case c.Bar != "":
			not = append(not, fmt.Sprintf("%s could not: %s", c.Member, c.Bar))
			continue
		case c.Member == winner:
			won = c
		case second == nil || ahead(c, *second):
			second = &all[i]
		}
		could = append(could, fmt.Sprintf("%s had WAL up to %s", c.Member, c.LSN))
	}
	if len(could) > 0 {
		a.tell("%s.", strings.Join(could, "; "))
	}
	if len(not) > 0 {
		a.tell("%s.", strings.Join(not, "; "))
	}
	switch {
	case second == nil || won.Member == "":
	case won.Priority > second.Priority:
		a.tell("%s went first: its priority is %d, that of %s %d.", winner, won.Priority, second.Member, second.Priority)
	case won.Priority == second.Priority && won.LSN > second.LSN:
		a.tell("%s went first: it had the most WAL.", winner)
	case won.Priority == second.Priority && won.LSN == second.LSN && winner < second.Member:
		a.tell("%s went first: the others had no more WAL, and then the name decides.", winner)
	default:
		a.tell("It was the turn of %s, which did not take the lock in its time, or was not the one named by a switchover.", second.Member)
	}
}

func ahead(x, y schema.Candidate) bool {
	if x.Priority != y.Priority {
		return x.Priority > y.Priority
	}
	return x.LSN > y.LSN || x.LSN == y.LSN && x.Member < y.Member
}

// ends are the steps that end a reign, as its holder records them.
var ends = []schema.EventKind{schema.EventCrashed, schema.EventHandOver, schema.EventFenced, schema.EventDemoted, schema.EventReleased, schema.EventConsulAway}

// before says what the last primary recorded of its end, and why others did not stand.
func (a *answer) before() {
	i := slices.IndexFunc(a.q.History, func(r schema.Reign) bool { return r.Epoch == a.Epoch })
	if i <= 0 {
		return
	}
	last := a.q.History[i-1]
	var said []string
	for _, e := range a.events(func(e schema.Event) bool {
		return e.By == last.Member && e.Epoch == last.Epoch && slices.Contains(ends, e.Kind)
	}) {
		said = append(said, fmt.Sprintf("at %s %s: %s", clock(e.Wall), e.Kind, e.Detail))
	}
	switch {
	case len(said) > 0:
		a.tell("%s itself, the primary before, recorded %s.", last.Member, strings.Join(said[max(0, len(said)-6):], "; "))
	case a.account(last.Member) == nil:
		a.tell("%s, the primary before, cannot be asked how its reign ended.", last.Member)
	}
	for _, e := range a.events(func(e schema.Event) bool { return e.Kind == schema.EventBarred && e.Epoch == last.Epoch }) {
		a.tell("%s did not stand at %s: %s.", e.By, clock(e.Wall), e.Detail)
	}
}

// since says what has happened under the reign: what might have led to a failover and did not.
func (a *answer) since() {
	for _, e := range a.events(func(e schema.Event) bool { return e.Epoch == a.Epoch }) {
		if s := a.sentence(e); s != "" {
			a.Since = append(a.Since, clock(e.Wall)+" "+s)
		}
	}
	a.Since = a.Since[max(0, len(a.Since)-20):]
}

// sentence is what one event under a reign means for it; empty if nothing.
func (a *answer) sentence(e schema.Event) string {
	holder := e.By == a.reign.Member
	switch e.Kind {
	case schema.EventCrashed:
		return fmt.Sprintf("the PostgreSQL of %s went away: %s.", e.By, e.Detail)
	case schema.EventRecovering:
		return fmt.Sprintf("%s did not hand over but restarted in place: %s.", e.By, strings.TrimPrefix(e.Detail, "restarting in place: "))
	case schema.EventRestarted:
		return fmt.Sprintf("%s accepted writes again, in the same reign.", e.By)
	case schema.EventHandOver:
		return fmt.Sprintf("%s began to hand over: %s.", e.By, e.Detail)
	case schema.EventReleased:
		return fmt.Sprintf("%s released the lock: %s.", e.By, e.Detail)
	case schema.EventFenced:
		return fmt.Sprintf("the launcher of %s killed its PostgreSQL: %s.", e.By, e.Detail)
	case schema.EventPromise:
		return fmt.Sprintf("%s could not renew in Consul and lived on promises, %s: nobody took over.", e.By, e.Detail)
	case schema.EventUnpromised:
		return fmt.Sprintf("%s could not renew in Consul and lacked promises: %s.", e.By, e.Detail)
	case schema.EventHung:
		return fmt.Sprintf("the PostgreSQL of %s hung: %s.", e.By, e.Detail)
	case schema.EventJudged:
		return fmt.Sprintf("%s counted the lease as run out: %s.", e.By, e.Detail)
	case schema.EventBarred:
		return fmt.Sprintf("%s did not stand: %s.", e.By, e.Detail)
	case schema.EventActionFail, schema.EventRemoved:
		return fmt.Sprintf("%s: %s.", e.By, e.Detail)
	case schema.EventOrdered:
		return fmt.Sprintf("%s, as an operator had ordered: %s.", e.By, e.Detail)
	case schema.EventConsulAway:
		if holder {
			return fmt.Sprintf("Consul did not answer %s: %s.", e.By, e.Detail)
		}
	case schema.EventConsulBack:
		if holder {
			return fmt.Sprintf("Consul answered %s again.", e.By)
		}
	case schema.EventDemoted:
		if holder {
			return fmt.Sprintf("%s: %s.", e.By, e.Detail)
		}
	}
	return ""
}

// standing says of every member whether it could follow now: by its own word, else by that of another.
func (a *answer) standing() {
	for _, name := range a.names() {
		if name != a.Primary {
			a.Members = append(a.Members, a.verdict(name))
		}
	}
}

func (a *answer) names() []string {
	var names []string
	for _, c := range a.q.Accounts {
		names = append(names, c.Member)
		for _, k := range c.Candidates {
			names = append(names, k.Member)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *answer) verdict(name string) string {
	own, seenBy := a.account(name), ""
	from := own
	if own == nil {
		for i, c := range a.q.Accounts { // the primary knows best
			if from == nil || c.Holds {
				from = &a.q.Accounts[i]
			}
		}
		if from == nil {
			return "Of " + name + " nothing is known."
		}
		seenBy = ", as " + from.Member + " sees it,"
	}
	i := slices.IndexFunc(from.Candidates, func(c schema.Candidate) bool { return c.Member == name })
	switch {
	case i < 0:
		return fmt.Sprintf("%s does not say whether it could stand.", name)
	case from.Candidates[i].Bar != "":
		return fmt.Sprintf("%s%s may not stand: %s.", name, seenBy, from.Candidates[i].Bar)
	}
	c := from.Candidates[i]
	priority := ""
	if c.Priority != 0 {
		priority = fmt.Sprintf(", with priority %d", c.Priority)
	}
	return fmt.Sprintf("%s%s could: it has WAL up to %s on timeline %d%s.", name, seenBy, c.LSN, c.Timeline, priority)
}

// member tells of one member: how it is, whether it could stand, and what it has recorded last.
func (a *answer) member(name string) {
	c := a.account(name)
	switch {
	case c == nil && !slices.Contains(a.names(), name):
		a.tell("%s has no member %s that anybody who answers has heard of.", a.Cluster, name)
		return
	case c == nil:
		a.tell("%s cannot be asked.", name)
	case c.Reason != "":
		a.tell("%s is %s: %s.", name, c.State, c.Reason)
	default:
		a.tell("%s is %s.", name, c.State)
	}
	if c != nil && c.Holds {
		a.tell("It is the primary, in epoch %d; howdah why --cluster %s says how it came to be.", c.Epoch, a.Cluster)
	} else {
		a.Members = []string{a.verdict(name)}
	}
	if c == nil {
		return
	}
	for _, e := range c.Events {
		a.Since = append(a.Since, strings.TrimSuffix(fmt.Sprintf("%s epoch %d, %s: %s", day(e.Wall), e.Epoch, e.Kind, e.Detail), ": "))
	}
	a.Since = a.Since[max(0, len(a.Since)-20):]
}

// brief is a duration with as many digits as matter.
func brief(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
func day(t time.Time) string   { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
