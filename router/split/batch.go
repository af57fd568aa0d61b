package split

import (
	"bytes"
	"slices"

	"howdah/router/route/statement"
	"howdah/router/wire"
)

// batch is what is known of the batch that may go to a standby.
type batch struct {
	// unnamed is the body of the last Parse in it, which is of the unnamed statement; verdict is on its text.
	unnamed []byte
	verdict statement.Verdict
	// needs are the prepared statements that it uses and does not make.
	needs []*prepared
	// text is that of a Query.
	text []byte
	// lists is the number of the list of functions that it was judged by.
	lists uint64

	// statements is how many were looked at; begin is the text of the one that begins a transaction block, isolation what it says of that; ends: the last of
	// them ends one.
	statements int
	begin      []byte
	isolation  statement.Isolation
	ends       bool
	queries    bool // one of them takes a snapshot, as all reads do but SHOW
	// certain: the Parse of the unnamed statement is the only one, and the first message.
	certain bool
}

// release lets go of the bytes that were shown, so that an idle session does not keep the buffer in which they stood.
func (c *batch) release() { *c = batch{needs: c.needs[:0]} }

// scan reads the batch at the beginning of b. With whole it is the first n bytes and may go to a standby. Without, it may turn out to be
// one once more is there; n < 0 says that it will not.
func (c *batch) scan(b []byte, t *Tracker) (n int, whole bool) {
	*c = batch{needs: c.needs[:0], lists: t.state.lists}
	executes, bound := 0, false
	for n < len(b) {
		rest := b[n:]
		if len(rest) < wire.HeaderSize {
			return n, false
		}
		h := wire.ParseHeader(rest)
		size := h.Size()
		if h.CheckClient(false) != nil || n+size > t.Longest {
			return -1, false
		}
		if !c.admits(h.Type, n) {
			return -1, false
		}
		if len(rest) < size {
			return n, false
		}
		body := rest[wire.HeaderSize:size]
		n += size
		switch h.Type {
		case 'Q':
			if !c.query(body, t) || c.leavesSnapshot() {
				return -1, false
			}
			return n, true
		case 'S':
			if executes == 0 || bound && (t.block.open || c.begin != nil) || c.leavesSnapshot() {
				return -1, false // also a portal that is executed in a later batch of the block
			}
			return n, true
		case 'E':
			executes++
			bound = false
			if len(body) == 0 || body[0] != 0 || limited(body) && (t.block.open || c.begin != nil) {
				return -1, false
			}
		case 'P':
			c.certain = c.unnamed == nil && n == size
			if !c.parse(body, t) {
				return -1, false
			}
		case 'B':
			if len(body) == 0 || body[0] != 0 || !c.uses('B', body, t) {
				return -1, false
			}
			bound = true
		case 'D':
			if len(body) < 2 || body[0] == 'P' && body[1] != 0 || body[0] == 'S' && !c.uses('D', body, t) {
				return -1, false
			}
		}
	}
	return n, false
}

// limited reports whether an Execute of the unnamed portal may leave rows for another one, which a block that the primary has taken over by then could not give.
func limited(body []byte) bool { return !bytes.Equal(body, []byte{0, 0, 0, 0, 0}) }

// admits reports whether a message of that type may be in such a batch, at position n of it.
func (c *batch) admits(typ byte, n int) bool {
	switch typ {
	case 'Q':
		return n == 0
	case 'P', 'B', 'D', 'E':
		return true
	case 'S':
		return n > 0
	}
	return false
}

func (c *batch) query(body []byte, t *Tracker) bool {
	text, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) > 0 {
		return false
	}
	v := t.classify(text)
	c.text = text
	return c.takes(&v, text, t)
}

// parse takes the unnamed statement; one with a name is made on the primary, so that it is there whatever comes.
func (c *batch) parse(body []byte, t *Tracker) bool {
	text, ok := textOf(body)
	if !ok || body[0] != 0 {
		return false
	}
	c.unnamed, c.verdict = body, t.classify(text)
	takes := c.verdict.Statements == 1 && c.takes(&c.verdict, text, t)
	c.statements++
	return takes
}

// uses reports whether the statement that a Bind or a Describe names is a known read.
func (c *batch) uses(typ byte, body []byte, t *Tracker) bool {
	name, ok := statementOf(typ, body)
	if !ok || len(name) == 0 && c.unnamed != nil {
		return ok
	}
	p := t.known.find(name, true)
	if p == nil || !p.sure() {
		return false
	}
	if t.judge(p); p.verdict.Statements != 1 {
		return false
	}
	if slices.Contains(c.needs, p) && reads(&p.verdict) {
		return true
	}
	text, ok := textOf(p.text)
	if !ok || !c.takes(&p.verdict, text, t) {
		return false
	}
	c.statements++
	c.needs = append(c.needs, p)
	return true
}

// reads reports whether a verdict lets a text go to a standby: a hint may overrule what is not known, not what is kept for the session.
func reads(v *statement.Verdict) bool {
	return v.Read && !v.Is(statement.FlagTemp|statement.FlagSetConfig|statement.FlagOpaque)
}

func (t *Tracker) refuses(text []byte) bool { return t.Refused != nil && t.Refused.Has(text) }

// Texts calls each with the texts of the batch that Read named, for a standby has refused it as writing.
func (t *Tracker) Texts(each func(text []byte)) {
	if t.batch.text != nil {
		each(t.batch.text)
	}
	if text, ok := textOf(t.batch.unnamed); ok {
		each(text)
	}
	for _, p := range t.batch.needs {
		if text, ok := textOf(p.text); ok {
			each(text)
		}
	}
}

// Prepare writes to the end of dst what a standby must be sent before the batch that Read named, and returns how many of its
// answers are not the client's. have is what the connection has, by name: it is brought up to date, and is to be
// given to Doubt if the batch fails.
func (t *Tracker) Prepare(dst []byte, have map[string]uint64) ([]byte, int) {
	dst, hidden := t.known.closeGone(dst, have)
	for _, p := range t.batch.needs {
		if have[p.name] == p.generation {
			continue
		}
		if p.name != "" {
			dst = appendClose(dst, p.name) // of one that is not there it succeeds too
			hidden++
		}
		dst = appendMessage(dst, 'P', p.text)
		hidden++
		have[p.name] = p.generation
		p.onStandby = true
	}
	if t.batch.unnamed != nil || t.batch.text != nil {
		delete(have, "")
	}
	return dst, hidden
}

// Doubt takes in that it is not known any more which of the statements in have are there.
func Doubt(have map[string]uint64) {
	for name := range have {
		have[name] = 0 // no generation
	}
}
