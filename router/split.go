package router

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"howdah/consul/schema"
	"howdah/router/fresh"
	"howdah/router/route"
	"howdah/router/session"
	"howdah/router/split"
	"howdah/router/topology"
)

// auto is what a session of route auto has beside its server connection to the primary: the tracker that knows what may go to a standby,
// and the connection to one. Its methods run in the goroutine that reads from the client, but for those that say otherwise.
type auto struct {
	c       *client
	tracker *split.Tracker
	begun   bool

	// told is what the client was told of the server's parameters. attached, once the session has lost a server connection, receives when there is another, of which
	// early was read with the login.
	// movingSince is when the session began to wait for it, Never while it does not. Those are of the client's lock.
	told        parameters
	toldVersion uint64
	attached    chan struct{}
	early       []byte
	movingSince schema.Instant
	// toldNow is toldVersion as of the read that goes on, of the goroutine that reads from the client.
	toldNow uint64
	// dismissed is the reign that served as far as was known when its server ended the session.
	dismissed reign

	// mark is what the session has to see. seen says that the primary has shown it more since then, or a standby that it has left; shown that its standby has.
	mark        fresh.Mark
	seen, shown bool
	// young says that the session has written nothing yet: its mark is that of its own beginning.
	young bool
	// behind is since when its standby does not show what it must see, Never while it does; balanceAt is when it looks next whether another one has less to do.
	behind, balanceAt schema.Instant
	readers           []route.Reader
	out               []byte
	refused           int            // batches in a row that a standby did not carry out
	rest              int            // reads that go to the primary, after some of these
	retryAt           schema.Instant // no standby is connected to before
	retryFor          time.Duration
	definedHere       bool
	// definer: the session may have changed functions; it takes only lists that its own standby gave it, of which list is the last.
	definer bool
	// failed: the answer of the standby to the last batch has an error.
	failed bool
	list   *catalog

	// Of the client's lock. at is the reader while it has the client's batch and has not answered all of it.
	reader, at *reader
	busy       bool // the client's request is in hand: a standby is asked, or made ready
	block      bool // a standby has a transaction block of the session's
	// dial, if it is not nil, ends the attempt to connect to a standby.
	dial context.CancelCauseFunc
	// cancelled: the client's request in hand is to be cancelled. It is set under the client's lock.
	cancelled atomic.Bool
	// queries and transactions are what standbys carried out. pinned is what the tracker said when it was asked last, since pinnedAt.
	queries, transactions uint64
	pinned                split.Pin
	pinnedAt              schema.Instant
}

const (
	// refusedEnough is after how many refused batches in a row a session leaves the standby alone, for restFor reads.
	refusedEnough = 3
	restFor       = 200
	// retryFirst and retryLast are the shortest and the longest pause after a standby could not be connected to.
	retryFirst, retryLast = time.Second, time.Minute
	// keepOut is up to which size a session keeps the buffer for what it sends to its standby.
	keepOut = 4 << 10
)

func newAuto(c *client) *auto {
	return &auto{
		c: c, tracker: split.New(chunkSize, &c.r.refused, route.Consistencies{}), retryFor: retryFirst,
		movingSince: schema.Never,
	}
}

// follower lets the tracker hear what the machine of the session on the primary is told.
type follower struct{ hooks }

func (f follower) Error(code string, fatal bool) {
	f.c.auto.tracker.ServerError()
	f.hooks.Error(code, fatal)
}

func (f follower) Parameter(name, value []byte) { f.c.auto.parameter(name, value) }

func (f follower) Notified() { f.c.auto.tracker.Notified() }

func (f follower) Leaving(fatal bool) bool { return f.c.auto.leaving(fatal) }

func (f follower) Unhidden() { f.c.auto.unhidden() }

// deal is pump.deal for what the client of an auto session sends.
func (a *auto) deal(p *pump) error {
	h := p.held
	if h == nil {
		return nil
	}
	for h.r < h.w {
		o, err := a.order(p)
		if err != nil {
			return err
		}
		switch o.Verb {
		case split.Pass:
			if err := p.pass(o.N, o.machine); err != nil {
				return err
			}
		case split.More:
			h.w = copy(h.b[:], h.b[h.r:h.w])
			h.r = 0
			return nil
		case split.Inject:
			if _, err := p.dst.Write(o.inject); err != nil {
				return errSink{err}
			}
		case split.Replace:
			if o.machine.Verb != session.Forward || o.machine.N != o.N {
				return p.pass(o.N, o.machine) // it is refused
			}
			if _, err := p.dst.Write(o.inject); err != nil {
				return errSink{err}
			}
			p.count(o.N)
			h.r += o.N
		case split.TakeOver:
			if err := a.takeOver(p); err != nil {
				return err
			}
		case split.Read:
			done, err := a.read(h.b[h.r : h.r+o.N])
			if err != nil {
				return err
			}
			if done {
				h.r += o.N
			}
		}
	}
	h.free()
	p.held = nil
	if a.cancelled.Load() {
		a.catchUp(true)
	}
	return nil
}

// read has a standby carry out a batch. It returns false if the primary must; the client has been told nothing then.
func (a *auto) read(batch []byte) (done bool, err error) {
	var status byte
	defer func() {
		a.c.mu.Lock()
		defer a.c.mu.Unlock()
		a.busy, a.c.mid = false, a.c.mid && err != nil
		if done {
			a.cancelled.Store(false)
			a.tracker.Done(status, a.failed)
			a.count(batch, status)
		} else {
			a.tracker.Refuse()
		}
		a.block = a.tracker.InBlock()
		a.c.inHand = !done && a.c.untouched()
	}()
	rd := a.standby()
	able := rd != nil && a.stillRead(batch) && a.mayBegin(rd)
	if able {
		done, status, err = a.ask(rd, batch)
	}
	switch {
	case err != nil:
		return false, err
	case !done && a.cancelled.Load():
		if status, err = a.tellCancelled(); err != nil {
			return false, err
		}
		a.failed = true
		return true, nil
	case !able:
		a.c.r.metrics.batches.primary.Inc()
		return false, nil
	case done:
		a.refused, a.shown = 0, true
		a.c.r.metrics.batches.standby.Inc()
	default:
		a.c.r.metrics.batches.repeated.Inc()
		if a.refused++; a.refused >= refusedEnough {
			a.refused, a.rest = 0, restFor
		}
	}
	return done, nil
}

// count takes in a batch that a standby has carried out. The client's lock is held.
func (a *auto) count(batch []byte, status byte) {
	a.queries++
	if status == 'I' {
		a.transactions++
	}
	a.c.r.metrics.fromClients.Add(uint64(len(batch)))
	a.c.account.fromClient.Add(uint64(len(batch)))
}

// stillRead reports whether the batch is a read also by the functions as standby has learnt them.
func (a *auto) stillRead(batch []byte) bool {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	return a.tracker.StillRead(batch)
}

// standby returns the connection to a standby that may serve the next read, in the session's state; nil if the primary must serve it.
func (a *auto) standby() *reader {
	t := a.c.r.picture.now.Load()
	if a.tracker.InBlock() {
		return a.blockStandby(t)
	}
	if !a.c.r.live().StatementRouting { // since the session began
		a.drop()
		return nil
	}
	if a.rest > 0 {
		a.rest--
		return nil
	}
	if rd := a.reader; rd != nil {
		_, reset := a.tracker.SettingsVersion()
		if keep, _ := rd.kept(t); !keep || rd.reset != reset || !a.settled(rd.conn) {
			a.drop()
		}
	}
	a.c.mu.Lock() // a notification may come at any time
	wrote, read, defined := a.tracker.TakeWrote(), a.tracker.TakeRead(), a.tracker.TakeDefined()
	a.definer = a.definer || a.tracker.Defines()
	a.toldNow = a.toldVersion
	a.c.mu.Unlock()
	if wrote {
		a.mark.Wrote(a.c.r.now(), a.c.backend.epoch)
		a.young = false
	}
	a.seen, a.shown = (a.seen || read) && !wrote, a.shown && !wrote
	a.definedHere = defined || a.definedHere
	rd := a.fresh(t)
	if rd == nil || !a.prepare(rd) {
		a.seen = true // what the primary shows it now a standby may lack
		return nil
	}
	return rd
}

// nobodyWaits is a context in which nothing is waited for.
var nobodyWaits = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// fresh returns a connected standby that shows what the session must see.
//
// A read that follows a write goes to the primary rather than wait; once a standby is known to have the write, one read waits, if need be, until it
// also has what reads have seen on the primary meanwhile, so that the session does not go back in time.
func (a *auto) fresh(t *topology.Topology) *reader {
	c := a.consistency()
	if (a.definer || a.c.lent) && c == route.Eventual {
		c = route.Session // or the standby may not know the functions, or have the settings that the session may not have begun with
	}
	wait := nobodyWaits
	if c == route.Strict || a.young {
		wait = context.Background()
	}
	if a.reader != nil {
		return a.stay(t, c, wait)
	}
	if a.c.r.now().Before(a.retryAt) {
		return nil
	}
	a.offer(t, nil, nil)
	i := a.c.r.reads.Choose(wait, &a.mark, c, a.readers, bound(t))
	if i < 0 || !a.connect(a.readers[i], nil) || !a.shows(t, c, context.Background()) { // the new connection needs a sample of its own, once
		return nil
	}
	return a.reader
}

// consistency is what the session asks for now. It is called by the goroutine that reads from the client, or with the client's lock held.
func (a *auto) consistency() route.Consistency {
	c, _ := a.consistencyFrom()
	return c
}

func (a *auto) consistencyFrom() (route.Consistency, route.Source) {
	if said := a.tracker.Consistency(); said != "" {
		if c, err := route.ParseConsistency(said); err == nil {
			return c, route.FromSet
		}
	}
	return a.c.follows.consistency, a.c.follows.consistencyFrom
}

// drop ends the connection to the standby.
func (a *auto) drop() {
	a.c.mu.Lock()
	rd := a.reader
	a.reader = nil
	a.c.mu.Unlock()
	if rd == nil {
		return
	}
	a.seen = true // the next standby may have less than this one has shown
	a.c.r.sessions.giveBack(a.c, rd.backend)
	rd.close()
}

// interrupt ends whatever the session does with its standby. It is called under the client's lock, from any goroutine.
func (a *auto) interrupt() {
	if a.reader != nil {
		a.reader.cut = true
		a.reader.conn.Close()
		a.cancelLeft()
	}
	a.callOff()
}

// prepare puts the session's settings in force on the standby, and knows the functions of the database.
func (a *auto) prepare(rd *reader) bool {
	version, _ := a.tracker.SettingsVersion()
	for _, text := range a.tracker.SettingsSince(rd.version) {
		if err := rd.exec(text, nil); err != nil {
			a.c.log().Debug("a setting could not be put in force on the standby", zap.String("member", rd.member), unquoted(err))
			if errors.As(err, new(errSaid)) {
				a.pinToServer()
			}
			a.drop()
			return false
		}
	}
	rd.version = version
	if err := a.align(rd); err != nil {
		a.c.log().Debug("the parameters of the standby are not the session's", zap.String("member", rd.member), zap.Error(err))
		if errors.Is(err, errUnlike) {
			a.retryAt = a.c.r.now().Add(retryLast)
		}
		a.drop()
		return false
	}
	f, err := a.functions(rd)
	if err != nil {
		a.c.log().Debug("the functions of the database could not be read", zap.String("member", rd.member), zap.Error(err))
		a.retryAt = a.c.r.now().Add(a.retryFor)
		a.retryFor = min(2*a.retryFor, retryLast)
		a.drop()
		return false
	}
	if a.definedHere {
		a.definedHere = false
		a.c.r.refused.forget()
	}
	a.c.mu.Lock() // the server may end the session meanwhile
	a.tracker.UseFunctions(f.harmless, f.keeping, f.parting)
	a.notePin()
	a.c.mu.Unlock()
	return true
}

// functions returns what the functions of the database are. A session that may have changed them believes its own standby only, which has its writes: others
// may have asked one that has not.
func (a *auto) functions(rd *reader) (*catalog, error) {
	now, changed := a.c.r.now(), a.definedHere
	if a.definer {
		if changed = changed || a.list == nil || now.Sub(a.list.at) >= functionsFor; !changed {
			return a.list, nil
		}
	}
	f, err := a.c.r.catalogs.of(now, a.c.database, changed, rd.functions)
	a.list = f
	return f, err
}

// learnFunctions learns the functions before the first statement, so that it is known what that does.
func (a *auto) learnFunctions() {
	if f := a.c.r.catalogs.known(a.c.database); f != nil {
		a.tracker.UseFunctions(f.harmless, f.keeping, f.parting)
		return
	}
	a.standby()
}
