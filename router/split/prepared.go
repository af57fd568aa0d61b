package split

import (
	"bytes"

	"howdah/router/route/statement"
)

// Bounds of what is remembered of a session's prepared statements; what is beyond stays on the primary.
const (
	maxPrepared      = 1000
	maxPreparedBytes = 1 << 20
)

// prepared is a statement of the extended protocol.
type prepared struct {
	name string
	// text is the body of its Parse: name, text and types.
	text       []byte
	verdict    statement.Verdict // by the list of functions of that number
	lists      uint64
	generation uint64
	// fresh: the server has not shown yet that it took the Parse, which was sent in that batch.
	fresh bool
	batch uint64
	// onPrimary: the primary has it, as far as that is known; injected: the primary was sent its Parse in this batch. It may have skipped that after an
	// error, so what it was sent counts for no other batch.
	onPrimary, injected bool
	// fails: it stands for a SET that fails.
	fails bool
	// onStandby: a standby had it once.
	onStandby bool
	// Of the unnamed one.
	known bool
}

func (p *prepared) sure() bool { return !p.fresh }

// statements are those of a session that are known.
type statements struct {
	named   map[string]*prepared
	unnamed prepared
	bytes   int
	fresh   []string
	last    uint64 // generation

	batch uint64
	// unsure: a fresh one was bound in a later batch than its Parse. If anything failed, that Parse may be what did, and the name stand for something else.
	unsure bool
	// failed: there was an error since everything was answered last.
	failed bool
	// injected were made anew on the primary since everything was answered last.
	injected []*prepared
	// lost: the primary may have a statement that is not known. removed: it will, if what was sent since everything was answered last fails.
	lost, removed bool
	// gone are names of statements that a standby may have and the session has not any more.
	gone []string
	// there: the primary may have an unnamed statement; stray: it is not the session's any more.
	there, stray bool
}

// find returns the statement of that name; nil if it is not known.
func (s *statements) find(name []byte, ok bool) *prepared {
	switch {
	case !ok:
		return nil
	case len(name) > 0:
		return s.named[string(name)]
	case s.unnamed.known:
		return &s.unnamed
	}
	return nil
}

// parse takes in a Parse that goes to the primary.
func (s *statements) parse(body []byte, whole bool, t *Tracker) {
	name, _, ok := bytes.Cut(body, []byte{0})
	if !ok {
		s.forget()
		s.unnamed.known, s.lost = false, true
		return
	}
	text, ok := textOf(body)
	var v statement.Verdict
	if ok = ok && whole; ok {
		v = t.classify(text)
		t.state.asks = v.Kind == statement.Set && v.Parameter == statement.HowdahConsistency
	}
	if len(name) == 0 {
		s.unnamed.known, s.there, s.stray = false, true, false
		if ok {
			s.set(&s.unnamed, body, v, t.state.lists)
			s.unnamed.known, s.unnamed.onPrimary, s.unnamed.fresh = true, true, true
		}
		s.lost = s.lost || !ok
		return
	}
	t.state.hides(&v, ok)
	s.close(body)
	if !ok || len(s.named) >= maxPrepared || s.bytes+len(body) > maxPreparedBytes {
		s.lost = true
		return
	}
	p := &prepared{name: string(name), fresh: true, onPrimary: true}
	s.set(p, body, v, t.state.lists)
	if s.named == nil {
		s.named = map[string]*prepared{}
	}
	s.named[p.name] = p
	s.bytes += len(body)
	s.fresh = append(s.fresh, p.name)
}

func (s *statements) set(p *prepared, body []byte, v statement.Verdict, lists uint64) {
	s.last++
	p.fails = false
	p.text, p.verdict, p.lists, p.generation, p.batch = append(p.text[:0], body...), v, lists, s.last, s.batch
}

// read takes in that a standby has carried out a batch with that Parse of the unnamed statement.
func (s *statements) read(body []byte, v statement.Verdict, lists uint64) {
	s.set(&s.unnamed, body, v, lists)
	s.unnamed.known, s.unnamed.onPrimary, s.unnamed.fresh = true, false, false
}

// close forgets the statement whose name body begins with.
func (s *statements) close(body []byte) {
	name, _, _ := bytes.Cut(body, []byte{0})
	if len(name) == 0 {
		s.unnamed.known = false
		return
	}
	if p := s.named[string(name)]; p != nil {
		s.remove(p)
	}
}

// closed takes in a Close that goes to the primary.
func (s *statements) closed(body []byte, first bool) {
	if name, _, _ := bytes.Cut(body, []byte{0}); len(name) > 0 {
		s.removed = s.removed || s.named[string(name)] != nil
	} else {
		s.stray, s.there = false, s.there && !first
	}
	s.close(body)
}

// deallocate takes in DEALLOCATE. bound: it may not be carried out.
func (s *statements) deallocate(name []byte, bound bool) {
	if p := s.named[string(name)]; p != nil {
		s.remove(p)
		s.removed, s.lost = true, s.lost || bound
	}
}

func (s *statements) remove(p *prepared) {
	s.bytes -= len(p.text)
	delete(s.named, p.name)
	if p.onStandby {
		s.gone = append(s.gone, p.name)
	}
}

// closesAtOnce is how many statements are closed on a standby before one batch.
const closesAtOnce = 64

// closeGone writes to dst a Close of each statement that the session has not any more and a standby that has those in have has; how many, it returns too.
func (s *statements) closeGone(dst []byte, have map[string]uint64) ([]byte, int) {
	n := 0
	for ; len(s.gone) > 0 && n < closesAtOnce; s.gone = s.gone[:len(s.gone)-1] {
		name := s.gone[len(s.gone)-1]
		generation, there := have[name]
		if p := s.named[name]; !there || p != nil && p.generation == generation {
			continue
		}
		dst = appendClose(dst, name)
		delete(have, name)
		n++
	}
	return dst, n
}

// query takes in that a Query goes to the primary, which takes the unnamed statement's place there.
func (s *statements) query(first bool) {
	s.unnamed.known, s.stray, s.there = false, false, s.there && !first
}

// elsewhere takes in that a standby has carried out what takes the unnamed statement's place, which the primary still has.
func (s *statements) elsewhere() {
	s.unnamed.known, s.stray = false, s.there
}

// inject takes in that a statement is made anew on the primary.
func (s *statements) inject(p *prepared) {
	if p == &s.unnamed {
		s.there, s.stray = true, false
	}
	p.injected = true
	s.injected = append(s.injected, p)
}

// endBatch takes in a Sync.
func (s *statements) endBatch() {
	s.batch++
	for _, p := range s.injected {
		p.injected = false
	}
}

// move takes in that the primary has none of them any more.
func (s *statements) move() {
	s.injected = s.injected[:0]
	s.unnamed.onPrimary, s.unnamed.injected = false, false
	s.stray, s.there = false, false
	for _, p := range s.named {
		p.onPrimary, p.injected = false, false
	}
}

// forget forgets all that have names, of which some may still be there.
func (s *statements) forget() {
	s.lost = s.lost || len(s.named) > 0
	for _, p := range s.named {
		s.remove(p)
	}
	s.bytes, s.fresh = 0, s.fresh[:0]
}

// confirm takes in that everything that was asked has been answered.
func (s *statements) confirm() {
	for _, name := range s.fresh {
		if p := s.named[name]; p != nil {
			p.fresh = false
		}
	}
	for _, p := range s.injected {
		p.onPrimary = p.name != ""
	}
	s.fresh, s.injected = s.fresh[:0], s.injected[:0]
	s.unnamed.fresh, s.unsure, s.removed, s.failed = false, false, false, false
}

// doubt takes in an error: what was parsed lately may not be there, and a name may still stand for what it stood for. It reports whether such a name
// has been used already.
func (s *statements) doubt() (used bool) {
	s.failed = true
	for _, name := range s.fresh {
		if p := s.named[name]; p != nil {
			s.remove(p)
		}
		s.lost = true
	}
	s.lost, s.removed = s.lost || s.removed, false
	for _, p := range s.injected {
		p.injected = false
	}
	s.fresh, s.injected = s.fresh[:0], s.injected[:0]
	if s.unnamed.fresh {
		s.unnamed.known = false
	}
	used, s.unsure = s.unsure, false
	return used
}
