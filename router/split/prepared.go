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
	// injected were made anew on the primary since everything was answered last.
	injected []*prepared
	// lost: the primary may have a statement that is not known.
	lost bool
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
	}
	if len(name) == 0 {
		s.unnamed.known = false
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
		s.bytes -= len(p.text)
		delete(s.named, p.name)
	}
}

// inject takes in that a statement is made anew on the primary.
func (s *statements) inject(p *prepared) {
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
	for _, p := range s.named {
		p.onPrimary, p.injected = false, false
	}
}

// forget forgets all that have names, of which some may still be there.
func (s *statements) forget() {
	s.lost = s.lost || len(s.named) > 0
	clear(s.named)
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
	s.unnamed.fresh, s.unsure = false, false
}

// doubt takes in an error: what was parsed lately may not be there, and a name may still stand for what it stood for. It reports whether such a name
// has been used already.
func (s *statements) doubt() (used bool) {
	for _, name := range s.fresh {
		if p := s.named[name]; p != nil {
			s.bytes -= len(p.text)
			delete(s.named, name)
		}
		s.lost = true
	}
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
