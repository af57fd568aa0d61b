package statement

// define passes over a statement that changes the schema. What stands in the body of a function is not told apart:
// semicolons between BEGIN ATOMIC and its END end no statement, so nothing behind it is looked at. Of what it calls only that
// counts which runs now: the query of CREATE TABLE AS, the bounds of a partition, and whatever ALTER TABLE and ALTER DOMAIN compute.
func (p *parser) define() {
	p.v.Kind = Define
	p.refuse(ReasonStatement)
	d := definition{first: p.word()}
	depth := 0
	for n := 0; p.cur.kind != tokenEnd; n++ {
		switch p.cur.kind {
		case tokenBad:
			p.unreadable(p.lexer.reason)
			return
		case tokenOpen:
			depth++
			d.references = false
		case tokenClose:
			depth--
		case tokenSemicolon:
			if depth <= 0 {
				return
			}
		}
		switch w := p.word(); {
		case w == kBegin && p.next.kind == tokenWord && p.next.word == kAtomic:
			p.unreadable(ReasonStatement)
			return
		case (w == kTemp || w == kTemporary) && n < 5 || p.named("pg_temp"):
			p.v.Flags |= FlagTemp
		case p.named("set_config") || p.cur.kind == tokenEscaped:
			p.v.Flags |= FlagSetConfig
		case w == kAs && depth == 0 && d.creates:
			p.advance()
			if p.take(kExecute) {
				p.oneName()
			}
			p.query(false)
			return
		default:
			d.word(w, n, &p.v)
		}
		if d.runs && p.next.kind == tokenOpen && !d.references && p.mayBeCalled() {
			p.call()
		}
		p.advance()
	}
}

// definition is what is known of a statement that define passes over.
type definition struct {
	first word
	// creates: CREATE TABLE or CREATE MATERIALIZED VIEW, which may be followed by AS and a query that runs.
	creates bool
	// runs: what is called from here on is called now.
	runs bool
	// references: a table follows, and maybe a list of its columns.
	references bool
}

// word takes in the nth word.
func (d *definition) word(w word, n int, v *Verdict) {
	const head = 4 // CREATE OR REPLACE FUNCTION, CREATE GLOBAL TEMPORARY TABLE
	switch w {
	case kTable, kMaterialized, kDomain:
		d.creates = d.creates || n < head && d.first == kCreate && w != kDomain
		d.runs = d.runs || n < head && d.first == kAlter && w != kMaterialized
	case kFunction, kProcedure, kRoutine, kExtension:
		if n < head && (d.first == kCreate || d.first == kAlter || d.first == kDrop) {
			v.Flags |= FlagFunctions
		}
	case kValues:
		d.runs = d.runs || d.creates // PARTITION OF ... FOR VALUES
	case kReferences:
		d.references = true
	}
}

// mayBeCalled reports whether the name in hand, with a parenthesis behind it, may be that of a function in ALTER TABLE.
func (p *parser) mayBeCalled() bool {
	switch p.cur.kind {
	case tokenQuoted, tokenEscaped:
		return true
	case tokenWord:
	default:
		return false
	}
	w := p.cur.word
	if w == 0 {
		return true
	}
	switch words.classes[w] {
	case reserved:
		return false
	case columnName:
		return w == kTreat || w == kSubstring || w == kOverlay
	}
	switch w {
	case kKey, kSet, kReset, kInclude, kOptions, kIdentity, kOver, kFilter, kBy:
		return false
	}
	return true
}
