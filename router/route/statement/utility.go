package statement

import "bytes"

// Parameter is a run-time parameter that the router itself has to do with.
type Parameter uint8

// The parameters; their names are in parameterNames.
const (
	OtherParameter Parameter = iota
	SearchPath
	Role
	SessionAuthorization
	TimeZone
	ClientEncoding
	StandardConformingStrings
	TransactionReadOnly
	TransactionIsolation
	TransactionDeferrable
	DefaultTransactionReadOnly
	DefaultTransactionIsolation
	DefaultTransactionDeferrable
	HowdahConsistency
	HowdahRoute
)

var parameterNames = [...]string{
	SearchPath: "search_path", Role: "role", SessionAuthorization: "session_authorization", TimeZone: "timezone",
	ClientEncoding: "client_encoding", StandardConformingStrings: "standard_conforming_strings",
	TransactionReadOnly: "transaction_read_only", TransactionIsolation: "transaction_isolation",
	TransactionDeferrable: "transaction_deferrable", DefaultTransactionReadOnly: "default_transaction_read_only",
	DefaultTransactionIsolation: "default_transaction_isolation", DefaultTransactionDeferrable: "default_transaction_deferrable",
	HowdahConsistency: "howdah.consistency", HowdahRoute: "howdah.route",
}

// String is the parameter's name, empty for OtherParameter.
func (p Parameter) String() string { return parameterNames[p] }

// presets are fixed by initdb or when PostgreSQL was built, and so equal on all members: SHOW of them is a read.
var presets = [...]string{
	"block_size", "data_checksums", "integer_datetimes", "max_function_args", "max_identifier_length",
	"max_index_keys", "segment_size", "server_encoding", "wal_block_size",
}

// statement judges the statement that begins with the token in hand, and passes over it.
func (p *parser) statement() {
	if p.cur.kind == tokenOpen {
		p.v.Kind = Query
		p.query(false)
		return
	}
	switch p.word() {
	case kSelect, kValues, kTable, kWith:
		p.v.Kind = Query
		p.query(false)
	case kExplain:
		p.explain()
	case kCopy:
		p.copy()
	case kShow:
		p.advance()
		p.show()
	case kDeclare:
		p.advance()
		p.declare()
	case kPrepare:
		p.advance()
		p.prepare()
	case kExecute:
		p.advance()
		p.execute()
	case kCreate, kAlter, kDrop, kComment, kSecurity, kImport, kRefresh, kGrant, kRevoke:
		p.define()
	default:
		p.plain()
	}
}

// session notes a statement that acts on the session or its transaction. With block it does on a standby, inside a
// block that runs there, what it would do on the primary.
func (p *parser) session(k Kind, block bool) {
	p.advance()
	p.v.Kind, p.v.Block = k, block
	p.refuse(ReasonSession)
}

// plain judges what needs no look at the expressions in it.
func (p *parser) plain() {
	switch p.word() {
	case kBegin, kStart:
		p.session(Begin, false)
		p.modes()
	case kCommit, kEnd:
		p.session(Commit, true)
		p.ending(CommitPrepared)
	case kRollback, kAbort:
		p.session(Rollback, true)
		p.ending(RollbackPrepared)
	case kSavepoint:
		p.session(Savepoint, true)
		p.v.Name = p.oneName()
	case kRelease:
		p.session(Release, true)
		p.take(kSavepoint)
		p.v.Name = p.oneName()
	case kSet:
		p.session(Set, true)
		p.set()
	case kReset:
		p.session(Reset, true)
		if p.take(kAll) {
			p.v.Kind = ResetAll
		} else {
			p.parameter()
		}
	case kDiscard:
		p.session(Discard, false)
		if p.take(kAll) {
			p.v.Kind = DiscardAll
		}
	case kDeallocate:
		p.session(Deallocate, false)
		p.take(kPrepare)
		if p.take(kAll) {
			p.v.Kind = DeallocateAll
		} else {
			p.v.Name = p.oneName()
		}
	case kFetch, kMove:
		p.session(Fetch, true)
	case kClose:
		p.session(CloseCursor, true)
	case kListen:
		p.session(Listen, false)
	case kUnlisten:
		p.session(Unlisten, false)
	case kNotify:
		p.session(Notify, false)
	case kLock:
		p.session(Lock, false)
	case kInsert, kUpdate, kDelete, kMerge:
		p.v.Kind = Modify
		p.query(false)
	case kTruncate:
		p.v.Kind = Modify
		p.refuse(ReasonModifying)
	case kCall, kDo:
		p.v.Kind = Run
		p.v.Flags |= FlagUnknownCall
		p.refuse(ReasonStatement)
	default:
		if p.named("load") {
			p.v.Kind = Run
			p.v.Flags |= FlagUnknownCall
		}
		p.refuse(ReasonStatement)
	}
	p.skip()
}

// skip passes over the rest of the statement. Parentheses may hold semicolons in them, as CREATE RULE has.
func (p *parser) skip() {
	for depth := 0; ; p.advance() {
		switch p.cur.kind {
		case tokenEnd:
			return
		case tokenBad:
			p.unreadable(p.lexer.reason)
			return
		case tokenOpen:
			depth++
		case tokenClose:
			depth--
		case tokenSemicolon:
			if depth <= 0 {
				return
			}
		case tokenWord, tokenQuoted, tokenEscaped:
			// UPDATE pg_settings calls set_config; a function called here may do anything, as the statement may.
			if p.named("set_config") || p.named("pg_settings") || p.cur.kind == tokenEscaped {
				p.v.Flags |= FlagSetConfig
			}
			if p.named("pg_temp") {
				p.v.Flags |= FlagTemp
			}
			if p.next.kind == tokenOpen && p.cur.word == 0 && !p.settings.Functions.harmless(p.lexer.text[p.cur.start:p.cur.end], p.cur.kind == tokenWord) {
				p.v.Flags |= FlagUnknownCall
			}
		}
	}
}

// oneName takes an identifier.
func (p *parser) oneName() Span {
	if !p.cur.identifier() {
		return Span{}
	}
	s := p.spanOf(p.cur)
	p.advance()
	return s
}

// spanOf is where a token is in the text, with its quotes.
func (p *parser) spanOf(t token) Span {
	if t.kind == tokenQuoted {
		return Span{t.start - 1, t.end + 1}
	}
	return Span{t.start, t.end}
}

// modes reads the modes of a transaction up to the end of the statement.
func (p *parser) modes() {
	for ; p.cur.kind != tokenEnd && p.cur.kind != tokenSemicolon && p.cur.kind != tokenBad; p.advance() {
		switch p.word() {
		case kRead:
			switch {
			case p.next.kind != tokenWord:
			case p.next.word == kOnly:
				p.v.Access = ReadOnly
			case p.next.word == kWrite:
				p.v.Access = ReadWrite
			case p.next.word == kCommitted:
				p.v.Isolation = ReadCommitted
			case p.next.word == kUncommitted:
				p.v.Isolation = ReadUncommitted
			}
		case kRepeatable:
			p.v.Isolation = RepeatableRead
			p.advance() // the READ that belongs to it
			if p.cur.kind == tokenEnd {
				return
			}
		case kSerializable:
			p.v.Isolation = Serializable
		case kNot:
			p.v.Deferral = NotDeferrable
			p.advance()
			if p.cur.kind == tokenEnd {
				return
			}
		case kDeferrable:
			p.v.Deferral = Deferrable
		case kSnapshot:
			p.v.Flags |= FlagSnapshot
		}
	}
}

// ending reads what follows COMMIT or ROLLBACK. prepared is the kind if it is about a prepared transaction.
func (p *parser) ending(prepared Kind) {
	if p.take(kPrepared) {
		p.v.Kind, p.v.Block = prepared, false
		return
	}
	if !p.take(kWork) {
		p.take(kTransaction)
	}
	if p.take(kTo) {
		p.v.Kind = RollbackTo
		p.take(kSavepoint)
		p.v.Name = p.oneName()
		return
	}
	if p.take(kAnd) && p.take(kChain) {
		p.v.Flags |= FlagChain
		p.v.Block = false
	}
}

// set reads what follows SET.
func (p *parser) set() {
	nextIs := func(w word) bool { return p.next.kind == tokenWord && p.next.word == w }
	switch {
	case p.word() == kLocal:
		p.advance()
		p.v.Flags |= FlagLocal
	case p.word() == kSession && !nextIs(kAuthorization) && p.next.kind == tokenWord:
		p.advance()
	}
	switch p.word() {
	case kTransaction:
		p.advance()
		p.v.Kind = SetTransaction
		p.modes()
		p.v.Block = p.v.Access != ReadWrite && p.v.Isolation != Serializable && !p.v.Is(FlagSnapshot)
		return
	case kCharacteristics:
		p.v.Kind, p.v.Block = SetCharacteristics, false
		p.modes()
		return
	case kConstraints:
		p.v.Kind = SetConstraints
		return
	}
	special := p.parameter()
	if !special { // name TO value, name = value; the special forms have the value at once
		if !p.take(kTo) && p.cur.kind == tokenOperator {
			p.advance()
		}
	}
	start := p.spanOf(p.cur).Start
	for p.cur.kind != tokenEnd && p.cur.kind != tokenSemicolon && p.cur.kind != tokenBad {
		p.v.Value = Span{start, p.spanOf(p.cur).End}
		if p.v.Parameter == SearchPath && p.mayNameTemp() {
			p.v.Flags |= FlagTemp
		}
		p.advance()
	}
	switch p.v.Parameter {
	case TransactionReadOnly, TransactionIsolation, TransactionDeferrable, DefaultTransactionReadOnly,
		DefaultTransactionIsolation, DefaultTransactionDeferrable:
		p.v.Block = false
	}
}

// mayNameTemp reports whether the token in hand, of a search_path, may be the schema of temporary objects, which is made where a CREATE needs it. What is
// written with an escape or in pieces is not worked out.
func (p *parser) mayNameTemp() bool {
	text := p.lexer.text[p.cur.start:p.cur.end]
	switch p.cur.kind {
	case tokenEscaped:
		return true
	case tokenString:
		// Two strings are one where a line ends between them, and an error elsewhere.
		if p.next.kind == tokenString && bytes.ContainsAny(p.lexer.text[p.cur.end:p.next.start], "\n\r") || bytes.IndexByte(text, '\\') >= 0 || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 || len(text) > 0 && text[0]|0x20 == 'u' {
			return true
		}
	case tokenWord, tokenQuoted:
	default:
		return false
	}
	const temp = "pg_temp"
	for i := range len(text) - len(temp) + 1 {
		if equalFold(text[i:i+len(temp)], temp) {
			return true
		}
	}
	return false
}

// parameter reads the name of a parameter. It returns true for the forms in several words, and for those in one that
// take no TO.
func (p *parser) parameter() bool {
	start := p.cur
	special := func(n int, is Parameter) bool {
		p.v.Parameter = is
		p.v.Name = Span{start.start, p.cur.end}
		for range n {
			p.v.Name.End = p.cur.end
			p.advance()
		}
		return true
	}
	follows := func(k tokenKind, w word) bool { return p.next.kind == k && (k != tokenWord || p.next.word == w) }
	bare := !follows(tokenOperator, 0) && !follows(tokenWord, kTo)
	switch w := p.word(); {
	case w == kTime && follows(tokenWord, kZone):
		return special(2, TimeZone)
	case w == kSession && follows(tokenWord, kAuthorization):
		return special(2, SessionAuthorization)
	case w == kRole && bare:
		return special(1, Role)
	case w == kNames && bare:
		return special(1, ClientEncoding)
	case w == kSchema && bare:
		return special(1, SearchPath)
	case w == kTransaction && follows(tokenWord, kIsolation):
		return special(3, TransactionIsolation)
	case w == kXML && follows(tokenWord, kOption):
		return special(2, OtherParameter)
	}
	if !p.cur.identifier() {
		return false
	}
	p.v.Name = p.spanOf(p.cur)
	p.advance()
	for p.cur.kind == tokenDot && p.next.identifier() {
		p.advance()
		p.v.Name.End = p.spanOf(p.cur).End
		p.advance()
	}
	name := p.v.Name.Of(p.lexer.text)
	if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
		name = name[1 : len(name)-1] // the names of parameters have no case, quoted or not
	}
	for i, known := range parameterNames {
		if known != "" && equalFold(name, known) {
			p.v.Parameter = Parameter(i)
		}
	}
	return false
}

// show reads what follows SHOW.
func (p *parser) show() {
	p.v.Kind, p.v.Block = Show, true
	p.parameter()
	name := p.v.Name.Of(p.lexer.text)
	for _, preset := range presets {
		if equalFold(name, preset) {
			p.skip()
			return
		}
	}
	p.refuse(ReasonSession)
	p.skip()
}

// body judges the statement that another one holds.
func (p *parser) body() {
	if p.cur.kind != tokenOpen {
		switch p.word() {
		case kSelect, kValues, kTable, kWith, kInsert, kUpdate, kDelete, kMerge:
		case kCreate: // TABLE AS: EXPLAIN ANALYZE makes the table
			kind := p.v.Kind
			p.define()
			p.v.Kind = kind
			return
		default:
			p.refuse(ReasonStatement)
			p.skip()
			return
		}
	}
	p.query(false)
}

// explain: without ANALYZE nothing runs, but a plan of a write is of no use on a standby. EXPLAIN (VALUES ...) is taken
// for a list of options, which the grammar lets VALUES be, and so for no read.
func (p *parser) explain() {
	p.v.Kind = Explain
	p.advance()
	if p.cur.kind == tokenOpen && !(p.next.kind == tokenOpen || p.next.kind == tokenWord && (p.next.word == kSelect || p.next.word == kWith || p.next.word == kTable)) {
		for depth := 0; p.cur.kind != tokenEnd && p.cur.kind != tokenBad && p.cur.kind != tokenSemicolon; {
			switch p.cur.kind {
			case tokenOpen:
				depth++
			case tokenClose:
				depth--
			}
			if w := p.word(); w == kAnalyze || w == kAnalyse {
				p.v.Flags |= FlagAnalyze
			}
			p.advance()
			if depth == 0 {
				break
			}
		}
	} else {
		if p.take(kAnalyze) || p.take(kAnalyse) {
			p.v.Flags |= FlagAnalyze
		}
		p.take(kVerbose)
	}
	p.body()
}

// copy: COPY of a table or a query to the client is a read; to a file or a program it writes on the server's machine.
func (p *parser) copy() {
	p.v.Kind = CopyOut
	p.advance()
	p.take(kBinary)
	if p.cur.kind == tokenOpen {
		p.advance()
		switch p.word() {
		case kSelect, kValues, kTable, kWith, kInsert, kUpdate, kDelete, kMerge:
			p.query(true)
		default:
			if p.cur.kind == tokenOpen {
				p.query(true)
			} else {
				p.refuse(ReasonModifying)
				p.skip()
				return
			}
		}
		if p.cur.kind == tokenClose {
			p.advance()
		}
	} else {
		for p.cur.identifier() && p.word() != kFrom && p.word() != kTo || p.cur.kind == tokenDot {
			if p.cur.identifier() {
				p.prev = place{}
				p.relation()
			}
			p.advance()
		}
		if p.cur.kind == tokenOpen {
			for p.cur.kind != tokenClose && p.cur.kind != tokenEnd && p.cur.kind != tokenBad && p.cur.kind != tokenSemicolon {
				p.advance()
			}
			if p.cur.kind == tokenClose {
				p.advance()
			}
		}
	}
	switch {
	case p.take(kFrom):
		p.v.Kind = CopyIn
		p.refuse(ReasonModifying)
		for p.cur.kind != tokenEnd && p.cur.kind != tokenBad && p.cur.kind != tokenSemicolon && p.word() != kWhere {
			p.advance() // where from, and options
		}
		p.query(false)
	case p.take(kTo) && p.take(kStdout):
	default:
		p.refuse(ReasonCopy)
	}
	p.skip()
}

// declare reads what follows DECLARE. A cursor lives in a block, or beyond it: never is it a read by itself.
func (p *parser) declare() {
	p.v.Kind = Declare
	p.refuse(ReasonSession)
	p.v.Name = p.oneName()
	for p.cur.kind == tokenWord && p.word() != kFor {
		if p.word() == kHold && p.prev.is(kWith) {
			p.v.Flags |= FlagHold
		}
		p.prev = place{shape: shapeKeyword, word: p.word()}
		p.advance()
	}
	if !p.take(kFor) {
		p.skip()
		return
	}
	p.v.Reason = 0
	p.body()
	p.v.Block = p.v.Reason == 0 && !p.v.Is(FlagHold)
	p.refuse(ReasonSession)
}

// prepare reads what follows PREPARE.
func (p *parser) prepare() {
	if p.take(kTransaction) {
		p.v.Kind = PrepareTransaction
		p.refuse(ReasonSession)
		p.skip()
		return
	}
	p.v.Kind = Prepare
	p.v.Name = p.oneName()
	for p.cur.kind != tokenEnd && p.cur.kind != tokenBad && p.cur.kind != tokenSemicolon && p.word() != kAs {
		p.advance()
	}
	if p.take(kAs) {
		start := p.spanOf(p.cur).Start
		p.body()
		p.v.Body = Span{start, max(start, p.last)}
		p.bodyReads()
	}
	p.refuse(ReasonSession)
	p.skip()
}

// execute reads what follows EXECUTE: a name, and arguments that may be any expressions.
func (p *parser) execute() {
	p.v.Kind = Execute
	p.v.Name = p.oneName()
	p.query(false)
	p.bodyReads()
	p.refuse(ReasonSession)
}

// bodyReads takes what was found about a body for a fact instead of a reason.
func (p *parser) bodyReads() {
	if p.v.Reason == 0 && p.v.soft == 0 {
		p.v.Flags |= FlagBodyReads
	}
	p.v.soft = 0
}
