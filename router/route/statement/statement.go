// Package statement says of a piece of SQL, by its text alone, whether it may go to a standby, and what it does to
// the session: a lexer of PostgreSQL's SQL and a classifier on top of it. It parses no expression and knows no
// table. It is pure, never allocates while it classifies, and takes some tens of nanoseconds for each token.
//
// What it does not know is a write. A text is a read only if each word in it that could make it something else was looked
// at: every call is of a function known to be harmless on a standby (Functions), nothing locks rows, nothing is
// modified at any depth, and the text could be read to its end without doubt. What no text shows (volatile code behind an
// operator, a cast, a view, a policy, or f of t.f, which may call f(t)) is left to the standby, which cannot write and answers 25006; such a text
// is then kept in Remembered.
//
// A text that PostgreSQL's grammar refuses may well be called a read: the standby refuses it in the same words.
// Some reads are not recognised, and go to the primary: those with a call whose name is quoted with escapes in it
// ("a""b"(), U&"..."()), or with a table or a column named update, delete, insert or merge.
//
// Package grammartest below checks it against PostgreSQL's own grammar.
package statement

// Strings says how a backslash in '...' is read.
type Strings uint8

const (
	// UnknownStrings: standard_conforming_strings is not known, as while a SET of it is under way. A text in which
	// it matters is a write.
	UnknownStrings Strings = iota
	// ConformingStrings: standard_conforming_strings is on.
	ConformingStrings
	// EscapedStrings: standard_conforming_strings is off.
	EscapedStrings
)

// Settings is what the meaning of a text depends on. The zero value makes every text a write.
type Settings struct {
	// Strings is standard_conforming_strings as it will be when the server reads the text.
	Strings Strings
	// SafeEncoding says that in the client's encoding no byte below 0x80 is a part of a longer character: see
	// SafeEncoding. Without it a text with such characters is a write.
	SafeEncoding bool
	// Whole says that the text is all of the statement, and not its beginning.
	Whole bool
	// Functions are those of the session's database. Without them every call makes a write.
	Functions *Functions
}

// SafeEncoding reports whether in the encoding that the parameter client_encoding names (in ParameterStatus) every
// byte of a character that is not ASCII is above 0x7f. In the others (BIG5, GB18030, GBK, JOHAB, SJIS,
// SHIFT_JIS_2004, UHC) a backslash or a letter may be the second half of something else.
func SafeEncoding(clientEncoding string) bool {
	if clientEncoding == "UNICODE" { // the one alias that the server leaves as it was given
		return true
	}
	for _, prefix := range [...]string{"UTF8", "SQL_ASCII", "LATIN", "ISO_8859_", "WIN1", "WIN866", "WIN874", "KOI8", "EUC_"} {
		if len(clientEncoding) >= len(prefix) && clientEncoding[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

// Kind is what a statement is, as far as a session or the router does something of its own about it.
type Kind uint8

// The kinds.
const (
	Other   Kind = iota // none of the others, or not readable
	Empty               // nothing but white space and comments
	Several             // more than one statement
	Query               // SELECT, VALUES, TABLE, WITH; see FlagModifies
	Modify              // INSERT, UPDATE, DELETE, MERGE, TRUNCATE
	Explain
	CopyOut // COPY ... TO, wherever to
	CopyIn  // COPY ... FROM
	Begin   // also START TRANSACTION; Access, Isolation, Deferral
	Commit  // also END; FlagChain
	Rollback
	Savepoint          // Name
	Release            // Name
	RollbackTo         // Name
	PrepareTransaction // PREPARE TRANSACTION
	CommitPrepared     // COMMIT PREPARED
	RollbackPrepared   // ROLLBACK PREPARED
	Set                // Parameter, Name, Value, FlagLocal
	SetTransaction     // SET [LOCAL] TRANSACTION: Access, Isolation, Deferral, FlagSnapshot
	SetCharacteristics // SET SESSION CHARACTERISTICS AS TRANSACTION: the same
	SetConstraints     // SET CONSTRAINTS
	Reset              // Parameter, Name
	ResetAll           // RESET ALL
	DiscardAll         // DISCARD ALL
	Discard            // DISCARD PLANS, SEQUENCES, TEMP
	Show               // Parameter, Name
	Prepare            // PREPARE name AS: Name, Body
	Execute            // Name
	Deallocate         // Name
	DeallocateAll      // DEALLOCATE ALL
	Declare            // DECLARE CURSOR: Name, FlagHold
	Fetch              // FETCH and MOVE
	CloseCursor        // CLOSE
	Listen             // LISTEN
	Unlisten           // UNLISTEN
	Notify             // NOTIFY
	Run                // CALL, DO, LOAD: code that may change the session in any way
	Lock               // LOCK TABLE
	Define             // CREATE, ALTER, DROP and kin: may change what Functions hold; FlagTemp
	kinds              // their number
)

// Flag is a fact about a text; of several statements the facts are put together.
type Flag uint16

// The flags.
const (
	// FlagLocal: SET LOCAL, whose effect ends with the transaction.
	FlagLocal Flag = 1 << iota
	// FlagChain: COMMIT or ROLLBACK AND CHAIN; a transaction of the same modes follows at once.
	FlagChain
	// FlagHold: the cursor outlives its transaction.
	FlagHold
	// FlagTemp: makes a temporary object, or names pg_temp.
	FlagTemp
	// FlagSetConfig: calls set_config, or assigns pg_settings: some setting is another afterwards.
	FlagSetConfig
	// FlagUnknownCall: calls a function that is not known to be harmless, which may do anything.
	FlagUnknownCall
	// FlagAnalyze: EXPLAIN ANALYZE, which runs the statement.
	FlagAnalyze
	// FlagSnapshot: SET TRANSACTION SNAPSHOT, which names a snapshot of the primary.
	FlagSnapshot
	// FlagOpaque: the text could not be read to its end; there may be more in it than the verdict says.
	FlagOpaque
	// FlagBodyReads: the statement behind PREPARE ... AS, or every argument of EXECUTE, is a read.
	FlagBodyReads
	// FlagFunctions: may change what functions there are, or how volatile they are.
	FlagFunctions
)

// Access is a transaction's READ ONLY or READ WRITE, Isolation its level, Deferral its DEFERRABLE or NOT DEFERRABLE, as
// far as a statement says.
type (
	Access    uint8
	Isolation uint8
	Deferral  uint8
)

// What a statement may say of a transaction. Zero is: nothing.
const (
	ReadOnly  Access = 1
	ReadWrite Access = 2

	ReadUncommitted Isolation = 1
	ReadCommitted   Isolation = 2
	RepeatableRead  Isolation = 3
	Serializable    Isolation = 4

	Deferrable    Deferral = 1
	NotDeferrable Deferral = 2
)

// Hint is what a comment /* howdah: primary */ or /* howdah: standby */ says.
type Hint uint8

// The hints. Where both are given, HintPrimary counts.
const (
	HintNone Hint = iota
	// HintStandby: the client takes it upon itself that the functions called and the relations read are harmless on a
	// standby. What must not be there by its form stays a write.
	HintStandby
	// HintPrimary: to the primary, whatever it is.
	HintPrimary
)

// Span is a piece of the text, from Start up to End; empty where there is none. A name is as it was written: quoted or
// not, in any case.
type Span struct{ Start, End int }

// Of returns the piece of text.
func (s Span) Of(text []byte) []byte { return text[s.Start:s.End] }

// Verdict is what Classify says of a text.
type Verdict struct {
	// Kind is that of the only statement, or Several. The fields further below are those of the only statement.
	Kind Kind
	// Read: outside a transaction block it may go to a standby.
	Read bool
	// Block: inside a READ ONLY block that runs on a standby it does there what it would do on the primary.
	Block bool
	// Reason says why Read is false.
	Reason Reason
	Hint   Hint
	Flags  Flag
	// Kinds has bit 1<<Kind set for each kind of statement in the text.
	Kinds uint64
	// Statements is their number, the empty ones not counted.
	Statements int

	Access    Access
	Isolation Isolation
	Deferral  Deferral
	Parameter Parameter
	Name      Span // of what Kind says; for Set, Reset and Show the parameter
	Value     Span // what Set assigns, up to the end of the statement
	Body      Span // the statement behind PREPARE ... AS

	soft Reason // why Read is false, if HintStandby may overrule it
}

// Has reports whether a statement of kind k is in the text.
func (v *Verdict) Has(k Kind) bool { return v.Kinds&(1<<k) != 0 }

// Is reports whether any of the flags is set.
func (v *Verdict) Is(f Flag) bool { return v.Flags&f != 0 }

// BeginsStandbyBlock reports whether the text begins a transaction block that may run on a standby as a whole, given
// that the session's default_transaction_isolation is not serializable.
func (v *Verdict) BeginsStandbyBlock() bool {
	return v.Kind == Begin && v.Access == ReadOnly && v.Isolation != Serializable && v.Hint != HintPrimary
}

// Classify says what the text of a Query or of a Parse is. Several statements are a read only if each of them is.
func Classify(text []byte, s *Settings) Verdict {
	p := parser{settings: s}
	p.lexer = lexer{text: text, settings: s}
	p.advance()
	p.advance()
	var all Verdict
	all.Kind = Empty
	for p.cur.kind != tokenEnd {
		if p.cur.kind == tokenSemicolon {
			p.advance()
			continue
		}
		p.v = Verdict{}
		p.statement()
		merge(&all, &p.v)
	}
	all.Hint = p.lexer.hint
	finish(&all, s)
	return all
}

// merge adds the verdict on the next statement to that on those before it.
func merge(all, v *Verdict) {
	block := v.Block || v.Reason == 0
	if all.Statements == 0 {
		*all = *v
	} else {
		*all = Verdict{
			Kind: Several, Block: all.Block, Flags: all.Flags | v.Flags, Kinds: all.Kinds,
			Statements: all.Statements, Reason: max(all.Reason, v.Reason), soft: max(all.soft, v.soft),
		}
		block = block && all.Block
	}
	all.Block = block
	all.Statements++
	all.Kinds |= 1 << v.Kind
}

// finish draws the conclusion.
func finish(v *Verdict, s *Settings) {
	overruled := v.soft == 0 || v.Hint == HintStandby
	v.Block = v.Block && v.Statements > 0 && overruled && v.Hint != HintPrimary && s.Whole
	if v.Statements == 0 {
		v.Kinds = 1 << Empty
		v.Reason = max(v.Reason, ReasonEmpty)
	}
	if v.Reason == 0 && !overruled {
		v.Reason = v.soft
	}
	if !s.Whole {
		v.Reason = ReasonTruncated
		v.Flags |= FlagOpaque
	}
	if v.Hint == HintPrimary {
		v.Reason = ReasonHint
	}
	v.Read = v.Reason == 0
}
