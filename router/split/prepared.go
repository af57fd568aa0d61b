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
	verdict    statement.Verdict
	generation uint64
	// fresh: the server has not shown yet that it took the Parse.
	fresh bool
	// Of the unnamed one: known, and whether it is the primary that has it.
	known, onPrimary bool
}

func (p *prepared) sure() bool { return !p.fresh }

// statements are those of a session that are known.
type statements struct {
	named   map[string]*prepared
	unnamed prepared
	bytes   int
	fresh   []string
	last    uint64 // generation
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
		s.unnamed.known = false
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
			s.set(&s.unnamed, body, v)
			s.unnamed.known, s.unnamed.onPrimary, s.unnamed.fresh = true, true, true
		}
		return
	}
	s.close(body)
	if !ok || len(s.named) >= maxPrepared || s.bytes+len(body) > maxPreparedBytes {
		return
	}
	p := &prepared{name: string(name), fresh: true}
	s.set(p, body, v)
	if s.named == nil {
		s.named = map[string]*prepared{}
	}
	s.named[p.name] = p
	s.bytes += len(body)
	s.fresh = append(s.fresh, p.name)
}

func (s *statements) set(p *prepared, body []byte, v statement.Verdict) {
	s.last++
	p.text, p.verdict, p.generation = append(p.text[:0], body...), v, s.last
}

// read takes in that a standby has carried out a batch with that Parse of the unnamed statement.
func (s *statements) read(body []byte, v statement.Verdict) {
	s.set(&s.unnamed, body, v)
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

// forget forgets all that have names.
func (s *statements) forget() {
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
	s.fresh = s.fresh[:0]
	s.unnamed.fresh = false
}

// doubt takes in an error: what was parsed lately may not be there, and a name may still stand for what it stood for.
func (s *statements) doubt() {
	for _, name := range s.fresh {
		if p := s.named[name]; p != nil {
			s.bytes -= len(p.text)
			delete(s.named, name)
		}
	}
	s.fresh = s.fresh[:0]
	if s.unnamed.fresh {
		s.unnamed.known = false
	}
}
