package statement

// maxDepth is how deep parentheses and brackets may nest.
const maxDepth = 64

// clause is where in a query the walk is, at one depth of parentheses.
type clause uint8

const (
	clauseOther     clause = iota // anywhere that nothing below is about
	clauseWith                    // the list of common table expressions
	clauseFrom                    // where a table or an alias may stand
	clauseCondition               // behind JOIN ... ON
	clauseGroup                   // GROUP BY
)

// level is one depth of parentheses or brackets.
type level struct {
	clause clause
	// selects: the parentheses hold a SELECT, so that FROM begins its list of tables. In EXTRACT(a FROM b) it does not.
	selects bool
	bracket bool
	// distinct: the list of DISTINCT ON, behind which an expression begins.
	distinct bool
	// operator: OPERATOR(...), if the last thing in it is an operator.
	operator bool
	// joins is how many JOINs await their condition, and joined says that the last ON began one; natural: the next JOIN takes none.
	joins           uint8
	joined, natural bool
	// cases is how many CASEs are open.
	cases uint8
}

// shape is what stands before a token, as far as it tells what the token can be.
type shape uint8

const (
	shapeStart   shape = iota // nothing, or an opening parenthesis
	shapeOperand              // something that is a value or a table, so that no call can follow at once
	shapeKeyword              // the keyword in before.word
	shapeDot
	shapeComma
	shapeOperator // an operator, an opening bracket, or what else a value must follow
	shapeCast     // ::
)

type place struct {
	shape shape
	word  word // of a shapeKeyword
}

func (p place) is(w word) bool { return p.shape == shapeKeyword && p.word == w }

// parser holds one token in hand and the one after it.
type parser struct {
	lexer     lexer
	settings  *Settings
	cur, next token
	last      int // where the token before cur ended
	v         Verdict

	levels [maxDepth]level
	depth  int
	// prev is what stands before cur; chain is what stands before the a of a.b.c, if cur belongs to that.
	prev, chain place
}

func (p *parser) advance() {
	p.last = p.cur.end
	p.cur = p.next
	p.next = p.lexer.next()
}

func (p *parser) word() word {
	if p.cur.kind == tokenWord {
		return p.cur.word
	}
	return 0
}

func (p *parser) take(w word) bool {
	if p.cur.kind == tokenWord && p.cur.word == w {
		p.advance()
		return true
	}
	return false
}

// refuse notes a reason for the primary that nothing can overrule.
func (p *parser) refuse(r Reason) { p.v.Reason = max(p.v.Reason, r) }

// doubt notes one that the client may overrule.
func (p *parser) doubt(r Reason) { p.v.soft = max(p.v.soft, r) }

// unreadable ends it all: nothing behind this place can be made out.
func (p *parser) unreadable(r Reason) {
	p.refuse(r)
	p.v.Block = false
	p.v.Flags |= FlagOpaque
	p.cur = token{kind: tokenEnd, start: len(p.lexer.text), end: len(p.lexer.text)}
	p.next = p.cur
}

// query walks over a query up to the end of the statement. With inside set it has begun behind an opening parenthesis,
// and ends with the one that closes it.
func (p *parser) query(inside bool) {
	p.depth = 0
	p.levels[0] = level{}
	p.prev, p.chain = place{}, place{}
	for {
		switch p.cur.kind {
		case tokenEnd, tokenSemicolon:
			if p.depth > 0 || inside {
				p.unreadable(ReasonUnbalanced)
			}
			return
		case tokenBad:
			p.unreadable(p.lexer.reason)
			return
		case tokenOpen, tokenOpenBracket:
			if !p.open() {
				return
			}
		case tokenClose, tokenCloseBracket:
			if inside && p.depth == 0 && p.cur.kind == tokenClose {
				return
			}
			if !p.close() {
				return
			}
		case tokenWord, tokenQuoted, tokenEscaped:
			p.name()
		case tokenString, tokenNumber, tokenParameter:
			p.follow(shapeOperand)
		case tokenDot:
			if p.prev.shape != shapeDot {
				p.prev = place{shape: shapeDot}
			}
		case tokenComma:
			if l := &p.levels[p.depth]; l.clause == clauseCondition {
				l.clause = clauseFrom
			}
			p.follow(shapeComma)
		case tokenCast:
			p.follow(shapeCast)
		case tokenOperator:
			p.follow(shapeOperator)
		}
		p.advance()
	}
}

func (p *parser) follow(s shape) { p.prev = place{shape: s} }

// open enters parentheses or brackets. What they open has been judged with the name before them.
func (p *parser) open() bool {
	if p.depth+1 == maxDepth {
		p.unreadable(ReasonDepth)
		return false
	}
	l := level{bracket: p.cur.kind == tokenOpenBracket}
	switch {
	case l.bracket:
	case p.prev.is(kOn):
		l.distinct = p.levels[p.depth].distinct
		p.levels[p.depth].distinct = false
	case p.prev.is(kSets):
		l.clause = clauseGroup
	case p.prev.is(kOperator):
		l.operator = true
	}
	p.depth++
	p.levels[p.depth] = l
	if l.bracket {
		p.follow(shapeOperator)
	} else {
		p.prev = place{}
	}
	return true
}

// close leaves them. They are a value, or a list behind which none begins, but for OPERATOR(...) and DISTINCT ON (...).
func (p *parser) close() bool {
	l := p.levels[p.depth]
	if p.depth == 0 || l.bracket != (p.cur.kind == tokenCloseBracket) {
		p.unreadable(ReasonUnbalanced)
		return false
	}
	p.depth--
	switch {
	case l.operator:
		if p.prev.shape != shapeOperator {
			p.unknownCall()
		}
		p.follow(shapeOperator)
	case l.distinct:
		p.follow(shapeOperator)
	default:
		p.follow(shapeOperand)
	}
	return true
}

func (p *parser) unknownCall() {
	p.doubt(ReasonFunction)
	p.v.Flags |= FlagUnknownCall
}

// name judges an identifier or a keyword.
func (p *parser) name() {
	w := p.word()
	qualified := p.prev.shape == shapeDot
	if !qualified {
		p.chain = p.prev
	}
	// Behind a dot or AS any word is a mere name.
	mere := qualified || p.prev.is(kAs)
	if w != 0 && !mere {
		p.keyword(w)
	}
	if p.next.kind == tokenOpen {
		if !p.noCall(w, mere) {
			p.call()
		}
	} else if w == 0 || words.classes[w] != reserved || mere {
		p.relation()
	}
	if w == 0 || mere {
		p.follow(shapeOperand)
		return
	}
	p.prev = place{shape: shapeKeyword, word: w}
}

// keyword follows the clauses of the query, and finds what no read has.
func (p *parser) keyword(w word) {
	l := &p.levels[p.depth]
	switch w {
	case kSelect:
		l.selects = true
		l.clause = clauseOther
	case kInsert, kUpdate, kDelete, kMerge:
		// Behind FOR NO KEY the text is refused already. KEY alone does not tell: WITH ... SEARCH ... SET key UPDATE t.
		if w == kUpdate && (p.prev.is(kFor) || p.prev.is(kKey) && p.v.Reason == ReasonLocking) {
			p.refuse(ReasonLocking)
			return
		}
		p.refuse(ReasonModifying)
		l.selects = true // also its FROM begins a list of tables
	case kInto:
		p.refuse(ReasonInto)
	case kShare, kNo, kKey:
		if p.prev.is(kFor) {
			p.refuse(ReasonLocking)
		}
	case kTemp, kTemporary:
		if p.prev.is(kInto) || p.prev.is(kLocal) || p.prev.is(kGlobal) {
			p.v.Flags |= FlagTemp
		}
	case kWith:
		if p.prev.shape == shapeStart {
			l.clause = clauseWith
		}
	case kFrom:
		if l.selects && !p.prev.is(kDistinct) {
			l.clause = clauseFrom
		}
	case kCross, kNatural:
		l.natural = true
	case kJoin:
		if l.clause == clauseCondition {
			l.clause = clauseFrom
		}
		if !l.natural {
			l.joins++
		}
		l.natural = false
	case kUsing:
		l.joins -= min(l.joins, 1)
		if l.selects && p.v.Reason >= ReasonModifying {
			l.clause = clauseFrom // of DELETE and MERGE
		}
	case kCase:
		l.cases++
	case kEnd:
		l.cases -= min(l.cases, 1)
	case kOn:
		l.joined = l.joins > 0
		l.joins -= min(l.joins, 1)
		if l.clause == clauseFrom {
			l.clause = clauseCondition
		}
		l.distinct = p.prev.is(kDistinct)
	case kGroup:
		l.clause = clauseOther
		if l.selects && !p.prev.is(kWithin) {
			l.clause = clauseGroup
		}
	case kWhere, kHaving, kWindow, kOrder, kLimit, kOffset, kFetch, kFor, kUnion, kIntersect, kExcept, kValues, kTable:
		l.clause = clauseOther
	}
}

// noCall reports whether the name in hand, with a parenthesis behind it, is certainly none of a function.
func (p *parser) noCall(w word, mere bool) bool {
	before := p.chain
	if before.shape == shapeCast || before.is(kAs) {
		return true // a type with its modifiers, or an alias with its columns
	}
	if p.v.Reason >= ReasonModifying && p.columns(w) {
		return true
	}
	if mere {
		return false
	}
	operand := p.prev.shape == shapeOperand
	if w != 0 {
		switch words.classes[w] {
		case reserved:
			return true
		case columnName:
			return w != kTreat && w != kSubstring && w != kOverlay // these three call functions by name
		}
		switch w {
		case kOver, kFilter, kColumns, kLike, kIlike, kOverlaps, kIs, kOperator:
			if operand {
				return true
			}
			if w == kOperator {
				return p.prev.is(kUsing)
			}
		case kJoin:
			if operand || p.prev.is(kInner) || p.prev.is(kLeft) || p.prev.is(kRight) || p.prev.is(kFull) || p.prev.is(kOuter) || p.prev.is(kCross) {
				return true
			}
		case kMaterialized:
			if p.levels[p.depth].clause == clauseWith {
				return true
			}
		case kSets:
			return p.prev.is(kGrouping)
		case kBy:
			return p.prev.is(kOrder) || p.prev.is(kGroup) || p.prev.is(kPartition)
		case kZone:
			return p.prev.is(kTime)
		case kVarying:
			// CAST(a AS bit varying(3)): behind AS any word is a mere name.
			return operand || p.prev.is(kCharacter) || p.prev.is(kChar) || p.prev.is(kNchar) || p.prev.is(kBit)
		case kRollup, kCube:
			group := p.levels[p.depth].clause == clauseGroup
			return group && (p.prev.is(kBy) || p.prev.is(kAll) || p.prev.is(kDistinct) || p.prev.shape == shapeComma || p.prev.shape == shapeStart)
		}
	}
	l := p.levels[p.depth]
	switch {
	case p.prev.is(kTablesample):
		return p.named("bernoulli") || p.named("system")
	case l.clause == clauseWith:
		return p.prev.is(kWith) || p.prev.is(kRecursive) || p.prev.shape == shapeComma
	case l.clause == clauseFrom && l.selects:
		return operand || p.prev.is(kOrdinality)
	}
	return false
}

// columns reports whether the parenthesis behind the name in hand begins the list of columns that a statement writes, or that a conflict is about. It is
// asked about what is known to modify only.
func (p *parser) columns(w word) bool {
	l := &p.levels[p.depth]
	switch {
	case p.chain.is(kInto):
		return true
	case w == kSet:
		return p.prev.shape == shapeOperand || p.prev.is(kUpdate)
	case w == kConflict:
		return p.prev.is(kOn) && !l.joined
	case w == kInsert:
		return p.prev.is(kThen) && l.cases == 0
	}
	return false
}

// named reports whether the name in hand is the one given, which is in lower case.
func (p *parser) named(name string) bool {
	text := p.lexer.text[p.cur.start:p.cur.end]
	if p.cur.kind == tokenQuoted {
		return string(text) == name
	}
	return p.cur.kind == tokenWord && equalFold(text, name)
}

// call judges the call of the function whose name, or the last part of it, is in hand.
func (p *parser) call() {
	if p.named("set_config") {
		p.v.Flags |= FlagSetConfig
	}
	if p.cur.kind == tokenEscaped {
		p.v.Flags |= FlagSetConfig // for all that is known
		p.unknownCall()
		return
	}
	if !p.settings.Functions.harmless(p.lexer.text[p.cur.start:p.cur.end], p.cur.kind == tokenWord) {
		p.unknownCall()
	}
}

// relation judges a name that calls nothing: some catalogs and columns are not the same on all servers.
func (p *parser) relation() {
	if p.v.Reason >= ReasonModifying && (p.cur.kind == tokenEscaped || p.named("pg_settings")) {
		p.v.Flags |= FlagSetConfig // UPDATE pg_settings calls set_config
	}
	if p.cur.kind == tokenEscaped {
		p.doubt(ReasonName)
		return
	}
	text := p.lexer.text[p.cur.start:p.cur.end]
	if !differs(text, p.cur.kind == tokenWord) {
		return
	}
	p.doubt(ReasonName)
	if p.named("pg_temp") {
		p.v.Flags |= FlagTemp
	}
}
