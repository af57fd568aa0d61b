package detector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"
)

// errCancelDropped is what is told of a cancel request that the other side has too many of.
var errCancelDropped = errors.New("too many cancel requests are under way there")

// maxCancels bounds how many cancel requests of others are carried out at the same time.
const maxCancels = 100

// cancels are the cancel requests under way between routers: replies to those of this process, slots for those of others.
type cancels struct {
	mu      *sync.Mutex
	handler func(ctx context.Context, key []byte) bool
	replies *replies[cancelled]
	slots   chan struct{}
}

type cancelled struct {
	found bool
	err   error
}

func newCancels() cancels {
	return cancels{mu: &sync.Mutex{}, replies: newReplies[cancelled](), slots: make(chan struct{}, maxCancels)}
}

// HandleCancels sets what carries out the cancel requests that other routers pass on, each in a goroutine of its own; it returns whether the
// key is a session's here. Shutdown ends ctx and waits for the calls that are under way.
func (d *Detector) HandleCancels(h func(ctx context.Context, key []byte) (found bool)) {
	d.cancels.mu.Lock()
	defer d.cancels.mu.Unlock()
	d.cancels.handler = h
}

// Cancel passes a cancel request on to one router and waits until it was carried out there; found says whether the key was a session's. Unlike a
// question, it is sent once only, over TCP: one that comes twice would hit the session's next statement. An error means that it may have
// been carried out or not.
func (d *Detector) Cancel(ctx context.Context, router string, key []byte) (found bool, err error) {
	n, err := d.nodeOf(ctx, router)
	if err != nil {
		return false, fmt.Errorf("cancel request for %s: %w", router, err)
	}
	id := rand.Uint64()
	answer := d.cancels.replies.expect(question{from: router, id: id})
	defer d.cancels.replies.forget(question{from: router, id: id})
	b := encodeJSON(message{
		Version: wireVersion, Kind: messageCancel, Cluster: d.cfg.Cluster, From: d.cfg.Name, Generation: d.cfg.generation,
		ID: id, To: router, ReplyTo: d.Addr(), Key: key,
	})
	sent := make(chan error, 1)
	if !d.spawn(func() { sent <- d.ml.SendReliable(&n, b) }) {
		return false, fmt.Errorf("cancel request for %s: %w", router, ErrShutdown)
	}
	for {
		select {
		case a := <-answer:
			if a.err != nil {
				return false, fmt.Errorf("cancel request for %s: %w", router, a.err)
			}
			return a.found, nil
		case err := <-sent:
			if err != nil {
				d.counters.sendErrors.Add(1)
				return false, fmt.Errorf("cancel request for %s: %w", router, err)
			}
			sent = nil
		case <-ctx.Done():
			return false, fmt.Errorf("cancel request for %s: %w", router, ctx.Err())
		case <-d.ctx.Done():
			return false, fmt.Errorf("cancel request for %s: %w", router, ErrShutdown)
		}
	}
}

// carryOut has a cancel request of another router carried out, and tells that it was: the client there waits for that.
func (d *Detector) carryOut(m message) {
	to, err := netip.ParseAddrPort(m.ReplyTo)
	if err != nil {
		d.counters.malformed.Add(1)
		return
	}
	d.cancels.mu.Lock()
	h := d.cancels.handler
	d.cancels.mu.Unlock()
	n := nodeAt(m.From, to)
	select {
	case d.cancels.slots <- struct{}{}:
	default:
		// The answer goes as a packet: a goroutine for each would be what the bound is against.
		d.counters.cancelsDropped.Add(1)
		d.packet(&n, d.cancelAnswer(m, cancelled{err: errCancelDropped}))
		return
	}
	started := d.spawn(func() {
		defer func() { <-d.cancels.slots }()
		found := h != nil && h(d.ctx, m.Key)
		d.counters.cancelsCarriedOut.Add(1)
		d.tellCancelled(&n, d.cancelAnswer(m, cancelled{found: found}))
	})
	if !started {
		<-d.cancels.slots
	}
}

func (d *Detector) cancelAnswer(m message, a cancelled) []byte {
	return encodeJSON(message{
		Version: wireVersion, Kind: messageCancelled, Cluster: d.cfg.Cluster, From: d.cfg.Name, Generation: d.cfg.generation,
		ID: m.ID, To: m.From, Found: a.found, Dropped: a.err != nil,
	})
}

func (d *Detector) tellCancelled(n *memberlist.Node, b []byte) {
	if err := d.ml.SendReliable(n, b); err != nil {
		d.counters.sendErrors.Add(1)
	}
}

// deliver hands an answer to who waits for it.
func (c *cancels) deliver(m message) {
	a := cancelled{found: m.Found}
	if m.Dropped {
		a.err = errCancelDropped
	}
	c.replies.deliver(m, a)
}
