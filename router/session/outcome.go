package session

import (
	"bytes"

	"howdah/router/wire"
)

// effect is what a statement may do to the transaction around it, as far as its text tells.
type effect uint8

const (
	effectPlain    effect = iota // neither begins nor ends a transaction
	effectNone                   // cannot change data at all
	effectBegin                  // begins one
	effectCommit                 // makes one permanent
	effectRollback               // undoes one, or a part of it
	effectAny                    // several statements, or too long to tell
)

var firstWords = map[string]effect{
	"begin": effectBegin, "start": effectBegin,
	"commit": effectCommit, "end": effectCommit, "prepare": effectCommit,
	"rollback": effectRollback, "abort": effectRollback,
	"show": effectNone, "set": effectNone, "reset": effectNone, "fetch": effectNone, "move": effectNone,
	"close": effectNone, "deallocate": effectNone, "listen": effectNone, "unlisten": effectNone,
	"discard": effectNone, "savepoint": effectNone, "release": effectNone,
}

// effectOf judges a statement by its text. whole says that text is all of it. In doubt the answer is
// effectAny.
func effectOf(text []byte, whole bool) effect {
	if !whole {
		return effectAny
	}
	text = bytes.TrimRight(text, "; \t\r\n\f\v")
	if bytes.IndexByte(text, ';') >= 0 {
		return effectAny
	}
	text = bytes.TrimLeft(text, " \t\r\n\f\v")
	if len(text) > 0 && (text[0] == '-' || text[0] == '/') {
		return effectAny // a comment; what follows it is not looked for
	}
	var word [12]byte
	n := 0
	for n < len(text) && n < len(word) && (text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		word[n] = text[n] | 0x20
		n++
	}
	return firstWords[string(word[:n])]
}

// statements remembers what the prepared statements of the session do, as far as it is not plain.
//
// It learns when the client asks, not when the server has answered, and a server may fail or skip
// what it is asked. So what was learned in an earlier batch counts only if nothing of that can have
// happened to it: no batch is still out and no error has come since.
type statements struct {
	unnamed, portal learned
	named           map[string]effect
	many            bool
}

// learned is what the unnamed statement, or the one bound to the unnamed portal, does.
type learned struct {
	effect effect
	fresh  bool // learned in the batch that the client is sending
	doubt  bool // an error came since
}

// sure returns the effect, or effectAny if it may be another by now. out says that earlier batches
// have not been answered.
func (l learned) sure(out bool) effect {
	if l.fresh || !out && !l.doubt {
		return l.effect
	}
	return effectAny
}

// endBatch notes that the client has sent a Sync.
func (p *statements) endBatch() { p.unnamed.fresh, p.portal.fresh = false, false }

// failed notes that the server has skipped something.
func (p *statements) failed() { p.unnamed.doubt, p.portal.doubt = true, true }

// maxNamed is how many statements that are not plain are told apart; past it none is.
const maxNamed = 1000

func (p *statements) parse(body []byte) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	if !ok {
		p.many = true
		return
	}
	text, _, whole := bytes.Cut(rest, []byte{0})
	e := effectOf(text, whole)
	if len(name) == 0 {
		p.unnamed = learned{effect: e, fresh: true}
		return
	}
	if e == effectNone {
		e = effectPlain // the name may be taken by a plain one, which is not kept
	}
	switch known, again := p.named[string(name)]; {
	case again && known != e:
		p.named[string(name)] = effectAny
	case again, e == effectPlain:
	case len(p.named) >= maxNamed:
		p.many = true
	default:
		if p.named == nil {
			p.named = map[string]effect{}
		}
		p.named[string(name)] = e
	}
}

func (p *statements) bind(body []byte, out bool) {
	portal, rest, ok := bytes.Cut(body, []byte{0})
	name, _, ok2 := bytes.Cut(rest, []byte{0})
	e := effectAny
	switch {
	case !ok || !ok2 || p.many && len(name) > 0:
	case len(portal) > 0:
		return // execute counts every named portal as effectAny
	case len(name) == 0:
		e = p.unnamed.sure(out)
	default:
		e = p.named[string(name)]
	}
	p.portal = learned{effect: e, fresh: true}
}

func (p *statements) execute(body []byte, out bool) effect {
	if len(body) == 0 || body[0] != 0 {
		return effectAny
	}
	return p.portal.sure(out)
}

// onClient follows what the client asks. body is as much of it as clientPeek asked for.
func (s *Session) onClient(h wire.Header, body []byte) {
	if h.Type == 'X' {
		s.terminated = true
		return
	}
	if s.skipping {
		if h.Type != 'S' {
			return
		}
		s.skipping = false
	}
	if s.copy != copyNone {
		s.onClientInCopy(h)
		return
	}
	switch h.Type {
	case 'P', 'B', 'E', 'D', 'C':
		s.unsynced = true
	case 'S', 'Q':
		s.unsynced = false
	}
	switch h.Type {
	case 'Q':
		text, _, whole := bytes.Cut(body, []byte{0})
		s.requests.push(newRequest(kindQuery, effectOf(text, whole)))
	case 'S':
		s.statements.endBatch()
		s.requests.push(newRequest(kindSync, effectNone))
	case 'P':
		s.statements.parse(body)
		s.requests.push(newRequest(kindParse, effectNone))
	case 'B':
		s.statements.bind(body, s.requests.turns > 0)
		s.requests.push(newRequest(kindBind, effectNone))
	case 'E':
		s.requests.push(newRequest(kindExecute, s.statements.execute(body, s.requests.turns > 0)))
	case 'D':
		s.requests.push(newRequest(kindDescribe, effectNone))
	case 'C':
		s.requests.push(newRequest(kindClose, effectNone))
	case 'F':
		s.requests.push(newRequest(kindCall, effectPlain))
	case 'c', 'f':
		// It belongs to a copy that the server has not announced yet, or to one that has failed.
		if s.requests.len() > 0 {
			s.requests.push(newRequest(kindCopyEnd, effectNone))
		}
	}
}

// onClientInCopy: the server passes over Sync and Flush until the copy ends, and anything else than
// copy data breaks it off.
func (s *Session) onClientInCopy(h wire.Header) {
	if s.copy == copyIn && (h.Type == 'c' || h.Type == 'f') {
		s.copy = copyNone
	}
}

// OutcomeUnknown reports whether a transaction may have been committed of which the client has not
// been told: then a lost session ends with 08007, else with 57P01. It errs towards true.
func (s *Session) OutcomeUnknown() bool {
	if s.copy == copyBoth || s.phase != phaseReady {
		return false
	}
	if s.copy == copyIn && s.requests.len() == 1 && s.requests.at(0).effect() != effectAny {
		return false // the data has not ended, so the statement has not either
	}
	state, executed := s.state, s.executed
	for i := range s.requests.len() {
		r := s.requests.at(i)
		var commits bool
		if state, commits = after(state, executed, r); commits {
			return true
		}
		executed = executed && !r.kind().endsInReady() || r.kind() == kindExecute && r.effect() != effectNone
	}
	return false
}

// unclear is the transaction status that cannot be told.
const unclear = '?'

// after returns the transaction status that request r leaves behind and whether r may have made
// something permanent. executed says that something ran before it in the same implicit transaction.
func after(state byte, executed bool, r request) (byte, bool) {
	switch r.kind() {
	case kindSync:
		return state, executed && (state == 'I' || state == unclear)
	case kindQuery, kindExecute, kindCall:
	case kindBlock:
		return 'T', false
	default:
		return state, false
	}
	switch r.effect() {
	case effectNone:
		return state, r.kind() == kindQuery && executed && state != 'T' && state != 'E'
	case effectBegin:
		if state == 'T' || state == 'E' {
			return state, false
		}
		// Should it fail, what follows it runs outside a block.
		return unclear, state == unclear
	case effectPlain:
		if state == 'T' || state == 'E' {
			return state, false
		}
		// Alone, an Execute is made permanent by the Sync that follows it.
		return state, r.kind() != kindExecute
	case effectCommit:
		if state == 'E' {
			return 'I', false
		}
		return unclear, true
	case effectRollback:
		if state == 'T' || state == 'E' {
			return unclear, false
		}
		return unclear, state == unclear
	}
	return unclear, true
}
