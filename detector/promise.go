package detector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"howdah/consul/schema"
)

// ErrNoAddress says that a member was asked of which no gossip address was known until the end.
var ErrNoAddress = errors.New("no gossip address is known")

// ErrShutdown says that the detector was shut down meanwhile.
var ErrShutdown = errors.New("gossip was shut down")

const (
	// maxHandlers bounds how many questions are answered at the same time; others are dropped, and asked again.
	maxHandlers = 8
	// answersKept is how many answers are kept, and answersFor how long, to be given again to the same question.
	answersKept = 256
	answersFor  = 30 * time.Second
	// streamEvery: each so many attempts, from the second on, the question also goes over TCP.
	streamEvery = 4
)

// question names one question of one process.
type question struct {
	from       string
	generation uint64
	id         uint64
}

type answered struct {
	ready bool
	reply schema.PromiseReply
	at    schema.Instant
}

// promises are the questions under way: replies to those of this process, given to those of the others.
type promises struct {
	mu      *sync.Mutex
	handler func(schema.PromiseRequest) schema.PromiseReply
	replies *replies[schema.PromiseReply]
	given   map[question]*answered // by the asker, its generation and the id
	slots   chan struct{}
}

func newPromises() promises {
	return promises{
		mu:      &sync.Mutex{},
		replies: newReplies[schema.PromiseReply](),
		given:   map[question]*answered{},
		slots:   make(chan struct{}, maxHandlers),
	}
}

// HandlePromises sets what answers the questions of others. It is called in a goroutine of its own, up to
// eight at a time, and once for each question, however often that arrives. Until it is set, and
// in routers, the answer is no. Shutdown waits for the calls that are under way.
func (d *Detector) HandlePromises(h func(schema.PromiseRequest) schema.PromiseReply) {
	d.promises.mu.Lock()
	defer d.promises.mu.Unlock()
	d.promises.handler = h
}

// AskPromise asks one member and waits for its answer until ctx ends. An error means that none came: no
// promise was received, though one may have been given.
//
// The question is one packet, sent again after AskRepeat, twice that and so on, up to every StatusInterval, and
// also over TCP from the second attempt on: one lost packet costs AskRepeat and not a TCP
// connection, and a network that lets only TCP through costs little more. It bears a random id, by which
// the other side answers it once and repeats that answer, so that it is the promise of this question
// and counts from after the call. A member that gossip holds for dead is asked all the same.
func (d *Detector) AskPromise(ctx context.Context, member string, r schema.PromiseRequest) (schema.PromiseReply, error) {
	if member == d.cfg.Name {
		return schema.PromiseReply{}, fmt.Errorf("promise of %s: that is this process itself", member)
	}
	d.counters.promisesAsked.Add(1)
	id := rand.Uint64()
	answer := d.promises.replies.expect(question{from: member, id: id})
	defer d.promises.replies.forget(question{from: member, id: id})
	m := message{
		Version: wireVersion, Kind: messageAsk, Cluster: d.cfg.Cluster, From: d.cfg.Name, Generation: d.cfg.generation,
		ID: id, To: member, ReplyTo: d.Addr(), Ask: &r,
	}
	pause := d.cfg.Timing.AskRepeat
	t := time.NewTimer(0)
	defer t.Stop()
	var addressErr error
	for {
		select {
		case a := <-answer:
			return a, nil
		case <-ctx.Done():
			return schema.PromiseReply{}, fmt.Errorf("no promise from %s after %d attempts: %w", member, m.Attempt, errors.Join(ctx.Err(), addressErr))
		case <-d.ctx.Done():
			return schema.PromiseReply{}, fmt.Errorf("no promise from %s: %w", member, ErrShutdown)
		case <-t.C:
			m.Attempt++
			addressErr = d.ask(ctx, m)
			t.Reset(pause)
			pause = min(2*pause, max(d.cfg.Timing.StatusInterval, d.cfg.Timing.AskRepeat))
		}
	}
}

func (d *Detector) ask(ctx context.Context, m message) error {
	n, err := d.nodeOf(ctx, m.To)
	if err != nil {
		return err
	}
	b := encodeJSON(m)
	d.packet(&n, b)
	if m.Attempt%streamEvery == 2 {
		d.stream(&n, b, m.ID)
	}
	return nil
}

// nodeOf returns where a member is reached: where gossip has it, or else where its status says.
func (d *Detector) nodeOf(ctx context.Context, name string) (memberlist.Node, error) {
	d.mu.Lock()
	p := d.table.peers[name]
	var known peer
	if p != nil {
		known = *p
	}
	d.mu.Unlock()
	if known.inGossip {
		return known.node, nil
	}
	if known.status.Status.Addresses.Gossip == "" {
		return memberlist.Node{}, fmt.Errorf("%w of %s", ErrNoAddress, name)
	}
	a, err := resolveOne(ctx, "gossip", known.status.Status.Addresses.Gossip)
	if err != nil {
		return memberlist.Node{}, fmt.Errorf("%w of %s: %w", ErrNoAddress, name, err)
	}
	return nodeAt(name, a), nil
}

func nodeAt(name string, a netip.AddrPort) memberlist.Node {
	return memberlist.Node{Name: name, Addr: a.Addr().AsSlice(), Port: a.Port()}
}

// dispatch answers a question in a goroutine of its own.
func (d *Detector) dispatch(m message) {
	q := question{m.From, m.Generation, m.ID}
	reply, state := d.promises.begin(q, d.now())
	switch state {
	case questionBusy:
		return
	case questionFull:
		d.counters.promisesDropped.Add(1)
		return
	}
	started := d.spawn(func() {
		if state == questionNew {
			reply = d.answer(*m.Ask)
			d.promises.finish(q, reply, d.now())
			d.counters.promisesAnswered.Add(1)
		}
		d.reply(m, reply)
	})
	if !started && state == questionNew {
		d.promises.finish(q, schema.PromiseReply{Member: d.cfg.Name, Why: "this process stops"}, d.now())
	}
}

func (d *Detector) answer(r schema.PromiseRequest) schema.PromiseReply {
	d.promises.mu.Lock()
	h := d.promises.handler
	d.promises.mu.Unlock()
	reply := schema.PromiseReply{Why: "this process does not give promises"}
	if h != nil {
		reply = h(r)
	}
	reply.Member = d.cfg.Name
	return reply
}

// reply goes to the address that the question names: a process that has just moved is answered where
// it is now. It takes TCP too if the question had to.
func (d *Detector) reply(m message, r schema.PromiseReply) {
	to, err := netip.ParseAddrPort(m.ReplyTo)
	if err != nil {
		d.counters.malformed.Add(1)
		return
	}
	n := nodeAt(m.From, to)
	b := encodeJSON(message{
		Version: wireVersion, Kind: messageAnswer, Cluster: d.cfg.Cluster, From: d.cfg.Name, Generation: d.cfg.generation,
		ID: m.ID, To: m.From, Answer: &r,
	})
	d.packet(&n, b)
	if m.Attempt >= 2 {
		d.stream(&n, b, m.ID)
	}
}

type questionState int

const (
	questionNew  questionState = iota // call the handler
	questionOld                       // answered already: give the answer again
	questionBusy                      // being answered
	questionFull                      // no slot is free
)

// begin finds out what to do about a question; questionNew takes a slot, which finish gives back.
func (p *promises) begin(q question, now schema.Instant) (schema.PromiseReply, questionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.given[q]; a != nil {
		if !a.ready {
			return schema.PromiseReply{}, questionBusy
		}
		return a.reply, questionOld
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return schema.PromiseReply{}, questionFull
	}
	p.purge(now)
	p.given[q] = &answered{at: now}
	return schema.PromiseReply{}, questionNew
}

func (p *promises) finish(q question, r schema.PromiseReply, now schema.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given[q] = &answered{ready: true, reply: r, at: now}
	<-p.slots
}

// purge forgets old answers, and the oldest if there are too many, but no question that is being answered.
func (p *promises) purge(now schema.Instant) {
	maps.DeleteFunc(p.given, func(_ question, a *answered) bool { return a.ready && now.Sub(a.at) > answersFor })
	if len(p.given) < answersKept {
		return
	}
	old := slices.SortedFunc(maps.Keys(p.given), func(a, b question) int { return int(p.given[a].at - p.given[b].at) })
	for _, q := range old[:len(old)/2] {
		if p.given[q].ready {
			delete(p.given, q)
		}
	}
}
