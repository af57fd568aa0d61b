// Package split decides, for a session that has a server connection to the primary and may have one to a standby, which of what its
// client sends may go to the standby. It owns no socket and reads no clock: it is shown the client's bytes and says what
// becomes of them.
//
// The primary has the session: whatever is not known to be a read goes there, in order, and so does everything while an answer of the
// primary is outstanding or a transaction is open. A batch (a Query, or extended messages up to a Sync) goes to the standby only as a
// whole, when all of it is there and the session is idle. What the standby refuses is repeated on the primary.
package split

import (
	"bytes"

	"howdah/router/route/statement"
	"howdah/router/wire"
)

// Verb is what becomes of the client's bytes.
type Verb uint8

// The verbs.
const (
	// Pass: the first N bytes go to the primary.
	Pass Verb = iota + 1
	// More: nothing can be said before more bytes are there.
	More
	// Read: the first N bytes are a batch that may go to a standby. Then either Done or Refused is called.
	Read
	// Inject: the primary is to be sent Injection first, of whose answers the client gets nothing.
	Inject
	// TakeOver: the primary is to go on with the transaction block that a standby has. It is to be sent TakeOver first, of whose answer the client gets
	// nothing, and the block on the standby is to be ended.
	TakeOver
	// Replace: the first N bytes are a message in whose place the primary is to be sent Replacement.
	Replace
)

// Order is what becomes of the first N bytes that were shown.
type Order struct {
	Verb Verb
	N    int
}

// Refusals knows texts that a standby has refused because they write.
type Refusals interface{ Has(text []byte) bool }

// Tracker follows one session. It is not safe for concurrent use.
type Tracker struct {
	// Longest is the longest batch that can be shown whole, in bytes.
	Longest int
	// Refused are texts that turned out to write.
	Refused Refusals

	state state
	left  int  // of the message that is being passed
	open  bool // extended messages were passed since the last Sync
	again bool // the batch in front has been refused by a standby
	rest  bool // the session was idle before what was injected in front of a message
	front bool // something was injected in front of the next message
	batch batch
	block block
	known statements
	// injected makes the statement lacking on the primary.
	injected []byte
	lacking  *prepared
	// replacement is what Replace is about.
	replacement []byte
}

// New returns the tracker of a session that has just logged in. longest is the size of the buffer in which bytes are shown, consistencies are the values of
// howdah.consistency; nil takes any.
func New(longest int, refused Refusals, consistencies Enum) *Tracker {
	t := &Tracker{Longest: longest, Refused: refused}
	t.state.consistencies = consistencies
	t.state.settings.Whole, t.state.keeping.Whole, t.state.parting.Whole = true, true, true
	return t
}

// FromClient is shown what the client sent and has not been dealt with. idle says that the session on the primary is between
// transactions with nothing outstanding.
func (t *Tracker) FromClient(b []byte, idle bool) Order {
	if t.left > 0 {
		n := min(t.left, len(b))
		t.left -= n
		return Order{Pass, n}
	}
	if len(b) < wire.HeaderSize {
		return Order{Verb: More}
	}
	if idle && !t.open {
		t.settle()
	}
	h := wire.ParseHeader(b)
	if h.CheckClient(false) != nil {
		return Order{Pass, len(b)} // the session's machine refuses it
	}
	if !t.open && idle && !t.again && t.state.pin == Unpinned && h.Type != 'X' {
		if o := t.candidate(b); o.Verb != 0 {
			return o
		}
	}
	if t.block.open && h.Type != 'X' {
		return Order{Verb: TakeOver}
	}
	return t.pass(b, h, idle)
}

// candidate returns Read for a batch that may go to a standby, More if that cannot be said yet, and nothing if it may not.
func (t *Tracker) candidate(b []byte) Order {
	n, whole := t.batch.scan(b, t)
	if whole && n <= t.Longest {
		return Order{Read, n}
	}
	t.batch.release()
	if !whole && n >= 0 && n <= t.Longest && len(b) < t.Longest {
		return Order{Verb: More}
	}
	return Order{}
}

// Done is called when the batch that Read named has been answered by a standby. status is that of its ReadyForQuery, failed says that there was an error.
func (t *Tracker) Done(status byte, failed bool) {
	t.blockAfter(status)
	switch {
	case t.batch.text != nil, t.batch.unnamed != nil && failed && !t.batch.certain:
		t.known.elsewhere()
	case t.batch.unnamed != nil:
		t.known.elsewhere()
		t.known.read(t.batch.unnamed, t.batch.verdict, t.batch.lists)
	}
	t.batch.release()
}

// Refuse is called when a standby did not carry out the batch that Read named: it will be passed to the primary.
func (t *Tracker) Refuse() {
	t.again = true
	t.batch.release()
}

// Injected reports whether the primary has been sent something in front of the next message.
func (t *Tracker) Injected() bool { return t.front }

// Recalled is called when what stands in front was cancelled by the client and no server gets it.
func (t *Tracker) Recalled() { t.again = false }

// pass lets the next message go to the primary and takes in what it does to the session.
func (t *Tracker) pass(b []byte, h wire.Header, idle bool) Order {
	size := h.Size()
	idle = idle || t.rest
	switch h.Type {
	case 'Q', 'P', 'B', 'D', 'E', 'C':
		if len(b) < min(size, t.Longest) {
			return Order{Verb: More}
		}
	}
	body := b[wire.HeaderSize:min(size, len(b))]
	if h.Type == 'B' || h.Type == 'D' {
		if t.lacks(h.Type, body) {
			t.rest, t.front = idle, true
			return Order{Verb: Inject}
		}
	}
	if idle && !t.open && t.strays(h.Type, body) {
		t.rest, t.front = true, true
		return Order{Verb: Inject}
	}
	t.state.asks = false
	t.observe(h.Type, body, len(b) >= size, idle)
	t.again, t.rest, t.front = false, false, false
	if len(b) >= size {
		if t.replacement = t.refused(h.Type, body); t.replacement != nil {
			return Order{Replace, size}
		}
	}
	n := min(size, len(b))
	t.left = size - n
	return Order{Pass, n}
}

// lacks reports a Bind or Describe of a statement that is known and that the primary does not have.
func (t *Tracker) lacks(typ byte, body []byte) bool {
	name, ok := statementOf(typ, body)
	p := t.known.find(name, ok)
	if p == nil || p.onPrimary || p.injected {
		return false
	}
	t.lacking, t.injected = p, t.injected[:0]
	if p.name != "" {
		t.injected = appendClose(t.injected, p.name) // an injection before it may have been carried out in spite of an error
	}
	t.injected = appendMessage(t.injected, 'P', p.text)
	return true
}

// strays reports whether the primary may have an unnamed statement that is not the session's any more, and a message, the first of its batch, leaves it there.
// It is taken away before anything else in that batch could use it.
func (t *Tracker) strays(typ byte, body []byte) bool {
	switch typ {
	case 'P':
		if len(body) > 0 && body[0] == 0 {
			return false
		}
	case 'B', 'D', 'E', 'C', 'H':
	default:
		return false
	}
	if !t.known.stray {
		return false
	}
	t.lacking, t.injected = nil, appendClose(t.injected[:0], "")
	return true
}

// Answered is called before FromClient where the primary has answered everything, also in a transaction: what was parsed is there, whatever fails from now on.
func (t *Tracker) Answered() {
	if t.open || t.left > 0 {
		return
	}
	if t.known.failed {
		t.doubt() // also what was sent behind the error and skipped
	}
	t.known.confirm()
}

// settle takes in that everything was answered, outside a transaction.
func (t *Tracker) settle() {
	t.Answered()
	if t.state.settle() {
		t.known.lost = false
	}
}

// Movable reports whether the session can go on with another server connection to a primary, which has nothing of it but what Move and SettingsSince
// tell. It is asked while the session is idle.
func (t *Tracker) Movable() bool {
	return t.left == 0 && !t.open && !t.block.open && t.state.pin == Unpinned && !t.state.bound && t.state.later.bytes == 0 && !t.known.lost
}

// Move takes in that the session has lost its server connection while it was idle, and is about to get another one. It returns false if it cannot.
func (t *Tracker) Move() bool {
	t.settle()
	t.front = false
	t.known.move()
	return t.Movable()
}

// Injection returns what Inject is about, and how many answers it has; up to the next Sync the primary is taken to have the statement, and from
// then on if nothing fails.
func (t *Tracker) Injection() (messages []byte, hidden int) {
	if t.lacking == nil {
		t.known.stray, t.known.there = false, false
		return t.injected, 1
	}
	t.known.inject(t.lacking)
	if t.lacking.name != "" {
		return t.injected, 2
	}
	return t.injected, 1
}

// observe takes in one message that goes to the primary. idle says that the session was idle before its batch.
func (t *Tracker) observe(typ byte, body []byte, whole, idle bool) {
	first := idle && !t.open // nothing can make the server pass over it
	switch typ {
	case 'P', 'B', 'D', 'E', 'C', 'H':
		if !t.open {
			t.state.begin(idle)
		}
		t.open = true
	case 'S':
		t.open = false
		t.known.endBatch()
		t.state.sync()
	}
	switch typ {
	case 'Q':
		text, _, ended := bytes.Cut(body, []byte{0})
		t.state.run(text, whole && ended, idle && !t.open)
		t.takeAway(false)
		t.known.query(first)
	case 'P':
		t.known.parse(body, whole, t)
	case 'B':
		name, ok := statementOf('B', body)
		if p := t.known.find(name, ok); p != nil {
			t.known.unsure = t.known.unsure || p.fresh && p.batch != t.known.batch
			t.judge(p)
			portal, _, _ := bytes.Cut(body, []byte{0})
			t.state.runPrepared(p, portal)
			t.takeAway(true)
		} else {
			t.state.runUnknown()
			t.takeAway(true)
		}
	case 'E':
		portal, _, _ := bytes.Cut(body, []byte{0})
		t.state.execute(portal)
	case 'C':
		if len(body) > 0 && body[0] == 'S' {
			t.known.closed(body[1:], first)
		}
	case 'F':
		t.state.runUnknown()
	}
}

// takeAway takes in which prepared statements the last statement took away. bound: it may not be carried out.
func (t *Tracker) takeAway(bound bool) {
	if t.state.forgets {
		t.known.forget()
	} else if name := t.state.takesAway; name != nil {
		t.known.deallocate(name, bound)
	}
}

// ServerError is called for each ErrorResponse of the primary: statements of the batch may not have come into being.
func (t *Tracker) ServerError() {
	t.state.failed = true
	t.doubt()
}

func (t *Tracker) doubt() {
	if t.known.doubt() {
		t.state.runUnknown()
	}
}

// Notified is called for each NotificationResponse of the primary: who is told of a commit may look for it.
func (t *Tracker) Notified() { t.state.read = true }

// Parameter is called for each ParameterStatus of the primary.
func (t *Tracker) Parameter(name, value []byte) { t.state.parameter(name, value) }

// UseFunctions sets what the functions of the session's database are: those harmless on a standby, and those that change
// no setting of the session, or leave nothing behind. nil is: not known. They are known to have what the session has defined before the last TakeDefined.
func (t *Tracker) UseFunctions(harmless, keeping, parting *statement.Functions) {
	t.state.use(harmless, keeping, parting)
}

// Defines reports whether the session may have changed functions since UseFunctions was called last.
func (t *Tracker) Defines() bool { return t.state.stale }

// StillRead reports whether the batch that Read named may go to a standby by the functions as they are known now.
func (t *Tracker) StillRead(b []byte) bool {
	if t.batch.lists == t.state.lists && !t.state.stale {
		return t.state.pin == Unpinned
	}
	n, whole := t.batch.scan(b, t)
	return whole && n == len(b) && !t.state.stale && t.state.pin == Unpinned
}

// judge judges a prepared statement by the functions as they are known now.
func (t *Tracker) judge(p *prepared) {
	if p.lists == t.state.lists || p.fails {
		return
	}
	if text, ok := textOf(p.text); ok {
		p.verdict, p.lists = t.classify(text), t.state.lists
	}
}

// classify judges a text as the session is now.
func (t *Tracker) classify(text []byte) statement.Verdict {
	return statement.Classify(text, &t.state.settings)
}

// TakeWrote reports whether anything that may have written went to the primary since the last call.
func (t *Tracker) TakeWrote() bool {
	w := t.state.wrote
	t.state.wrote = false
	return w
}

// TakeRead reports whether a read went to the primary since the last call, and has shown the session what is there.
func (t *Tracker) TakeRead() bool {
	r := t.state.read
	t.state.read = false
	return r
}

// TakeDefined reports whether anything that may have changed the functions of the database went to the primary since the last call.
func (t *Tracker) TakeDefined() bool {
	d := t.state.defined
	t.state.defined = false
	return d
}

// Pinned says why the session stays on the primary; Unpinned if it does not.
func (t *Tracker) Pinned() Pin { return t.state.pin }

// PinTo keeps the session on the primary.
func (t *Tracker) PinTo(p Pin) { t.state.pinTo(p) }

// SettingsVersion changes whenever the session's settings do; where reset changes, a server connection has to be made anew.
func (t *Tracker) SettingsVersion() (version, reset uint64) { return t.state.version, t.state.reset }

// SettingsSince returns the statements that a connection lacks which was brought to a version; 0 is that of a new one.
func (t *Tracker) SettingsSince(version uint64) [][]byte { return t.state.since(version) }
