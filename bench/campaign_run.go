package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/bench/cluster"
	"howdah/consul/boottime"
	"howdah/consul/schema"
	"howdah/sidecar/local"
)

const (
	// wholeBound is how soon after its last fault is over a cluster must be whole: a primary, all standbys streaming, Consul with a
	// leader, and rows acknowledged through every router.
	wholeBound = 60 * time.Second
	// calmBefore is how long commits must flow through every router before a step begins.
	calmBefore = time.Second
	eventsBeat = 200 * time.Millisecond
	// startBound is for a new cluster to come up.
	startBound = 2 * time.Minute
)

// strain is one campaign while it runs.
type strain struct {
	o        campaignOptions
	c        *cluster.Cluster
	crowd    *crowd
	password string
	log      func(format string, args ...any)

	lost map[int64]bool

	mu       sync.Mutex
	events   []schema.Event
	degraded degradations
}

// struck is a fault as it was.
type struck struct {
	Trouble string         `json:"trouble"`
	Target  string         `json:"target"`
	From    schema.Instant `json:"from"`
	To      schema.Instant `json:"to"`
}

// outcome is what one step showed.
type outcome struct {
	Step    step           `json:"step"`
	Kind    string         `json:"kind"`
	Primary string         `json:"primary"`
	Began   schema.Instant `json:"began"`
	Ended   schema.Instant `json:"ended"`
	Struck  []struck       `json:"struck"`
	// Gap is the longest time without an acknowledged row through any router, RouterGap that of the worst single router.
	Gap       time.Duration `json:"gap"`
	RouterGap time.Duration `json:"router_gap"`
	// Whole is from the end of the last fault until the cluster was whole; negative if it was not in time.
	Whole   time.Duration `json:"whole"`
	Reigns  int           `json:"reigns"` // promotions in the step
	Acked   int           `json:"acked"`
	Missing int           `json:"missing"`
	// WaitsEnded are the commits whose wait for a standby was ended by a stop of PostgreSQL.
	WaitsEnded int      `json:"waits_ended"`
	Problems   []string `json:"problems,omitempty"`
}

// run carries out the steps and judges what came of them.
func (s *strain) run(ctx context.Context, steps []step) (*findings, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &findings{Began: boottime.Now()}
	if err := s.raise(ctx); err != nil {
		return f, err
	}
	f.Up = boottime.Now()
	s.log("the cluster is up after %.1f s", f.Up.Sub(f.Began).Seconds())
	s.crowd = startCrowd(ctx, s.c, s.password)
	defer s.crowd.stop()
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		_ = local.Poll(ctx, eventsBeat, func() bool { s.collect(ctx); return false }) // ends with ctx
	}()
	watched := make(chan struct{})
	go func() { defer close(watched); s.watchRecord(ctx) }()
	var before []commit
	var seen mark
	var look local.Look // whole at this moment
	for _, st := range steps {
		var o outcome
		var err error
		o, look, err = s.step(ctx, st, look)
		if err != nil && ctx.Err() != nil {
			break
		}
		if err != nil {
			o.Problems = append(o.Problems, err.Error())
		}
		fresh, direct, next := s.crowd.since(seen)
		seen = next
		if err := s.count(ctx, &o, slices.Concat(before, fresh, direct)); err != nil {
			o.Problems = append(o.Problems, "the ledger cannot be checked: "+err.Error())
		}
		o.Acked, before = len(fresh), slices.Concat(fresh, direct)
		f.Outcomes = append(f.Outcomes, o)
		s.log("%3d/%d %-40s primary %s  gap %.2f s  whole after %.1f s  missing %d of %d%s", st.Number, len(steps), st, o.Primary, o.Gap.Seconds(),
			o.Whole.Seconds(), o.Missing, o.Acked, strings.Join(slices.Concat([]string{""}, o.Problems), "\n    PROBLEM "))
		if o.Whole < 0 {
			s.keepLogs(st.Number)
			if _, err := s.whole(ctx, boottime.Now(), 2*wholeBound); err != nil {
				f.Broken = fmt.Sprintf("given up after fault %d: %v", st.Number, err)
				break
			}
		}
	}
	f.Ended = boottime.Now()
	s.crowd.stop()
	var err error
	if f.Broken == "" && ctx.Err() == nil {
		err = s.settle(ctx, f)
	}
	s.collect(ctx)
	cancel()
	<-collected
	<-watched
	s.judge(f)
	return f, err
}

// raise starts the cluster and makes the tables.
func (s *strain) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("not so after %s", startBound))
	defer cancel()
	if err := s.c.Start(ctx); err != nil {
		return err
	}
	if _, err := s.c.Await(ctx, "a primary and all standbys streaming", local.Look.Healthy); err != nil {
		return err
	}
	var err error
	if s.password, err = s.c.Password(); err != nil {
		return err
	}
	connected := false
	err = local.Poll(ctx, 100*time.Millisecond, func() bool {
		try, cancel := context.WithTimeout(ctx, clientPatience)
		defer cancel()
		c, err := seat{host: s.c.Client, address: s.c.Routers[0].Listen(), password: s.password, patience: clientPatience}.connect(try)
		if err != nil {
			return false
		}
		connected = true
		_, err = c.Exec(try, fmt.Sprintf(`create table if not exists %s (writer int, id bigint, primary key (writer, id));
			create table if not exists %s (writer int, id bigint primary key);
			%s`, campaignTable, directTable, makeStandby))
		hangUp(c.Conn)
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("no tables could be made through the first router (connected: %t): %w", connected, err)
	}
	return nil
}

// collect reads the events that are new.
func (s *strain) collect(ctx context.Context) {
	var fresh []schema.Event
	for _, m := range s.c.Members {
		if e, err := m.Events(ctx); err == nil {
			fresh = append(fresh, e...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fresh...)
}

func (s *strain) reigns() []reign {
	s.mu.Lock()
	defer s.mu.Unlock()
	return reignsOf(s.events)
}

// step carries out the faults, ends them, and waits until the cluster is whole again. look is how it was when it was last found whole,
// just now; nil if it has not been since the last step.
func (s *strain) step(ctx context.Context, st step, look local.Look) (outcome, local.Look, error) {
	o := outcome{Step: st, Kind: st.kind(), Whole: -1}
	var err error
	if look == nil {
		if look, err = s.whole(ctx, boottime.Now(), wholeBound); err != nil {
			return o, nil, fmt.Errorf("not whole before the fault: %w", err)
		}
	}
	a := &arena{c: s.c, primary: s.c.Primary(look), cuts: map[int]func(context.Context) error{}}
	o.Primary, o.Began = a.primary.Name, boottime.Now()
	reigns, ended := len(s.reigns()), s.waitsEnded()
	var problems error
	o.Struck, problems = s.strike(ctx, a, st)
	over := boottime.Now()
	look, err = s.whole(ctx, over, wholeBound)
	o.Ended = boottime.Now()
	if err == nil {
		o.Whole = max(0, o.Ended.Sub(over)-calmBefore)
	} else {
		look, err = nil, fmt.Errorf("not whole %s after the fault: %w", wholeBound, err)
	}
	s.collect(ctx)
	o.Reigns = len(s.reigns()) - reigns
	o.Gap = longestPause(s.crowd.acked(-1), o.Began, o.Ended)
	for i := range s.c.Routers {
		o.RouterGap = max(o.RouterGap, longestPause(s.crowd.acked(i), o.Began, o.Ended))
	}
	if late := st.late(o.Gap); late != "" {
		o.Problems = append(o.Problems, late)
	}
	if o.WaitsEnded = s.waitsEnded() - ended; o.WaitsEnded > 0 && !st.planned() {
		o.Problems = append(o.Problems, fmt.Sprintf("the wait of %d commits for a standby was ended by a stop that is not immediate", o.WaitsEnded))
	}
	if o.Reigns > 0 && st.keeps() {
		o.Problems = append(o.Problems, "another member was promoted, and the fault gave no reason to")
	}
	return o, look, errors.Join(problems, err)
}

// strike carries out the faults of a step, each at its time, and returns once all are undone.
func (s *strain) strike(ctx context.Context, a *arena, st step) ([]struck, error) {
	type moment struct {
		after time.Duration
		index int
		begin bool
	}
	var moments []moment
	for i, f := range st.Faults {
		moments = append(moments, moment{f.After, i, true}, moment{f.After + f.Hold, i, false})
	}
	slices.SortStableFunc(moments, func(x, y moment) int { return cmp.Compare(x.after, y.after) })
	began := boottime.Now()
	all := make([]struck, len(st.Faults))
	blows := make([]blow, len(st.Faults))
	var errs []error
	for _, m := range moments {
		select {
		case <-ctx.Done():
		case <-time.After(m.after - boottime.Now().Sub(began)):
		}
		f := st.Faults[m.index]
		if !m.begin {
			if blows[m.index].undo != nil {
				// Also on Ctrl-C: nothing may stay frozen.
				errs = append(errs, blows[m.index].undo(context.WithoutCancel(ctx)))
			}
			all[m.index].To = boottime.Now()
			continue
		}
		if ctx.Err() != nil {
			continue
		}
		from := boottime.Now()
		b, err := a.strike(ctx, m.index, f)
		if err != nil {
			errs = append(errs, fmt.Errorf("fault %s of %s: %w", f.Trouble, b.target, err))
		}
		blows[m.index], all[m.index] = b, struck{Trouble: f.Trouble, Target: b.target, From: from, To: boottime.Now()}
	}
	return all, errors.Join(errs...)
}

// whole waits until nothing is wrong, at most bound after from: one primary, all others streaming from it, a Consul leader,
// and for a while commits through every router without a pause.
func (s *strain) whole(ctx context.Context, from schema.Instant, bound time.Duration) (local.Look, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bound-boottime.Now().Sub(from), fmt.Errorf("not so after %s", bound))
	defer cancel()
	var look local.Look
	var why string
	var flowsSince schema.Instant
	err := local.Poll(ctx, 50*time.Millisecond, func() bool {
		now := boottime.Now()
		for i, r := range s.c.Routers {
			if now.Sub(s.crowd.lastAck(i)) > steadyGap {
				flowsSince, why = schema.Never, "no row is acknowledged through "+r.Name
				return false
			}
		}
		if flowsSince == schema.Never {
			flowsSince = now
		}
		if now.Sub(flowsSince) < calmBefore {
			return false
		}
		if look = s.c.Look(ctx); !look.Healthy() {
			why = "the members are not whole"
			return false
		}
		if s.c.Leader(ctx) == nil {
			why = "consul has no leader"
			return false
		}
		return true
	})
	if err != nil {
		return look, fmt.Errorf("%s: %w\n%s\n%s", why, err, s.c.Look(context.WithoutCancel(ctx)), strings.Join(newest(s.c.Troubles()), "\n"))
	}
	return look, nil
}

// newest are the last few of many.
func newest(texts []string) []string { return texts[max(0, len(texts)-5):] }

// count enters the acknowledged rows that the primary does not have.
func (s *strain) count(ctx context.Context, o *outcome, commits []commit) error {
	if len(commits) == 0 {
		return nil
	}
	lowest := slices.MinFunc(commits, func(a, b commit) int { return cmp.Compare(a.ID, b.ID) }).ID
	there, err := s.present(ctx, lowest-1)
	if err != nil {
		return err
	}
	var gone, wrong []commit
	for _, c := range commits {
		if !there[c.ID] && !s.lost[c.ID] {
			s.lost[c.ID] = true
			gone = append(gone, c)
			if !s.mayBeLost(c) {
				wrong = append(wrong, c)
			}
		}
	}
	o.Missing = len(gone)
	if len(gone) == 0 {
		return nil
	}
	if len(wrong) > 0 {
		o.Problems = append(o.Problems, fmt.Sprintf("%d rows are missing that were acknowledged while replication was synchronous, the first: row %d of %s, %.3f s before the end of the step",
			len(wrong), wrong[0].ID, wrong[0].Server, o.Ended.Sub(wrong[0].At).Seconds()))
	}
	if !o.Step.mayLose() {
		o.Problems = append(o.Problems, fmt.Sprintf("%d acknowledged rows are missing after a fault that must not lose any", len(gone)))
	}
	config := s.o.config()
	if why := inWindow(gone, commits, config.MaximumLagOnFailover, config.Lease.D()); why != "" {
		o.Problems = append(o.Problems, "rows were lost from outside the documented window: "+why)
	}
	return nil
}

// present returns the ids above one that the primary has, asked past the routers.
func (s *strain) present(ctx context.Context, above int64) (map[int64]bool, error) {
	p := s.c.Primary(s.c.Look(ctx))
	if p == nil {
		return nil, errors.New("there is no primary")
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := seat{host: p.Host, address: p.Postgres(), password: s.password, patience: clientPatience}.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn.Conn)
	rows, err := conn.Query(ctx, fmt.Sprintf("select id from %s where id > %d union all select id from %s where id > %d", campaignTable, above, directTable, above))
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	there := make(map[int64]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	return there, err
}

// settle compares the whole table with the whole ledger once more.
func (s *strain) settle(ctx context.Context, f *findings) error {
	commits, direct, _ := s.crowd.since(mark{})
	there, err := s.present(ctx, 0)
	if err != nil {
		return fmt.Errorf("the ledger cannot be checked at the end: %w", err)
	}
	for _, c := range slices.Concat(commits, direct) {
		if !there[c.ID] && !s.lost[c.ID] {
			s.lost[c.ID] = true
			f.LostLater = append(f.LostLater, c.ID)
		}
	}
	return nil
}

// keepLogs copies the logs as they are now.
func (s *strain) keepLogs(number int) {
	to := filepath.Join(s.o.logs(), fmt.Sprintf("seed-%d-fault-%d", s.o.seed, number))
	if err := os.RemoveAll(to); err != nil {
		s.log("the logs cannot be kept: %v", err)
		return
	}
	if err := os.CopyFS(to, os.DirFS(s.c.LogDir())); err != nil {
		s.log("the logs cannot be kept: %v", err)
		return
	}
	s.log("the logs are in %s", to)
}
