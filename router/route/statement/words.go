package statement

import "strings"

// word is a keyword of PostgreSQL's grammar; 0 is any other word.
type word uint16

// class says where a keyword may stand (the categories of PostgreSQL's src/include/parser/kwlist.h).
type class uint8

const (
	notKeyword class = iota
	// reserved: names nothing but a label behind AS or a dot.
	reserved
	// columnName: may name a column or a table, never a function.
	columnName
	// functionName: may name a function or a type, never a column.
	functionName
	// unreserved: may name anything.
	unreserved
)

// The keywords of PostgreSQL 13 to 18. One that only some versions have is in the class that lets it name
// more, so that it is judged as a name where it might be one.
const (
	reservedWords = `all analyse analyze and any array as asc asymmetric both case cast check collate column
constraint create current_catalog current_date current_role current_time current_timestamp current_user default
deferrable desc distinct do else end except false fetch for foreign from grant group having in initially
intersect into lateral leading limit localtime localtimestamp not null offset on only or order placing primary
references returning select session_user some symmetric table then to trailing true union unique user using
variadic when where window with`

	columnNameWords = `between bigint bit boolean char character coalesce dec decimal exists extract float greatest
grouping inout int integer interval least national nchar none normalize nullif numeric out overlay position
precision real row setof smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat
xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`

	functionNameWords = `authorization binary collation concurrently cross current_schema freeze full ilike inner is
isnull join left like natural notnull outer overlaps right similar tablesample verbose`

	unreservedWords = `abort absent absolute access action add admin after aggregate also alter always asensitive
assertion assignment at atomic attach attribute backward before begin breadth by cache call called cascade
cascaded catalog chain characteristics checkpoint class close cluster columns comment comments commit committed
compression conditional configuration conflict connection constraints content continue conversion copy cost csv
cube current cursor cycle data database day deallocate declare defaults deferred definer delete delimiter
delimiters depends depth detach dictionary disable discard document domain double drop each empty enable encoding
encrypted enforced enum error escape event exclude excluding exclusive execute explain expression extension external
family filter finalize first following force format forward function functions generated global granted groups
handler header hold hour identity if ignore immediate immutable implicit import include including increment indent
index indexes inherit inherits inline input insensitive insert instead invoker isolation json json_array
json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
keep key keys label language large last leakproof level listen load local location lock locked logged mapping match
matched materialized maxvalue merge merge_action method minute minvalue mode month move name names nested new next
nfc nfd nfkc nfkd no normalized nothing notify nowait nulls object objects of off oids old omit operator option
options ordinality others over overriding owned owner parallel parameter parser partial partition passing password
path period plan plans policy preceding prepare prepared preserve prior privileges procedural procedure procedures
program publication quote quotes range read reassign recheck recursive ref referencing refresh reindex relative
release rename repeatable replace replica reset respect restart restrict return returns revoke role rollback rollup
routine routines rows rule savepoint scalar schema schemas scroll search second security sequence sequences
serializable server session set sets share show simple skip snapshot source split sql stable standalone start
statement statistics stdin stdout storage stored strict string strip subscription support sysid system system_user
tables tablespace target temp template temporary text ties transaction transform trigger truncate trusted type types
uescape unbounded uncommitted unconditional unencrypted unknown unlisten unlogged until update vacuum valid validate
validator value varying version view views virtual volatile wait whitespace within without work wrapper write xml
year yes zone`
)

// longestWord is the length of the longest keyword.
const longestWord = len("current_timestamp")

// vocabulary finds a keyword by its text: an open hash table that is never full.
type vocabulary struct {
	names   []string // by word; names[0] is empty
	classes []class
	slots   [2048]word
}

var words = newVocabulary()

func newVocabulary() *vocabulary {
	v := &vocabulary{names: []string{""}, classes: []class{notKeyword}}
	for _, list := range []struct {
		class class
		names string
	}{{reserved, reservedWords}, {columnName, columnNameWords}, {functionName, functionNameWords}, {unreserved, unreservedWords}} {
		for _, name := range strings.Fields(list.names) {
			hash := uint32(len(name))
			for i := range len(name) {
				hash = mix(hash, name[i])
			}
			v.names = append(v.names, name)
			v.classes = append(v.classes, list.class)
			slot := hash % uint32(len(v.slots))
			for v.slots[slot] != 0 {
				slot = (slot + 1) % uint32(len(v.slots))
			}
			v.slots[slot] = word(len(v.names) - 1)
		}
	}
	return v
}

func mix(hash uint32, c byte) uint32 { return (hash ^ uint32(c)) * 0x01000193 }

// fold is a byte of an unquoted identifier as PostgreSQL keeps it, as far as it is ASCII.
func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// find returns the keyword that text is, in any case.
func (v *vocabulary) find(text []byte) word {
	if len(text) > longestWord {
		return 0
	}
	hash := uint32(len(text))
	for _, c := range text {
		hash = mix(hash, fold(c))
	}
	for slot := hash % uint32(len(v.slots)); v.slots[slot] != 0; slot = (slot + 1) % uint32(len(v.slots)) {
		if w := v.slots[slot]; equalFold(text, v.names[w]) {
			return w
		}
	}
	return 0
}

// is returns the keyword of that name, for the variables below.
func is(name string) word {
	w := words.find([]byte(name))
	if w == 0 {
		panic("statement: " + name + " is no keyword")
	}
	return w
}

// equalFold reports whether text is name but for ASCII case. name is in lower case.
func equalFold(text []byte, name string) bool {
	if len(text) != len(name) {
		return false
	}
	for i, c := range text {
		if fold(c) != name[i] {
			return false
		}
	}
	return true
}

// The keywords that the classifier tells apart.
var (
	kAbort, kAll, kAlter, kAnalyze, kAnalyse, kAnd, kAs        = is("abort"), is("all"), is("alter"), is("analyze"), is("analyse"), is("and"), is("as")
	kAtomic, kAuthorization, kBegin, kBinary, kBit, kBy        = is("atomic"), is("authorization"), is("begin"), is("binary"), is("bit"), is("by")
	kCall, kChain, kChar, kCharacter, kCharacteristics, kClose = is("call"), is("chain"), is("char"), is("character"), is("characteristics"), is("close")
	kColumns, kCommit, kCommitted, kConstraints, kCopy         = is("columns"), is("commit"), is("committed"), is("constraints"), is("copy")
	kCreate, kCross, kCube, kDeallocate, kDeclare              = is("create"), is("cross"), is("cube"), is("deallocate"), is("declare")
	kDeferrable, kDelete, kDiscard, kDistinct, kDo, kDrop      = is("deferrable"), is("delete"), is("discard"), is("distinct"), is("do"), is("drop")
	kEnd, kExcept, kExecute, kExplain, kFetch, kFilter         = is("end"), is("except"), is("execute"), is("explain"), is("fetch"), is("filter")
	kFor, kFrom, kFull, kGlobal, kGroup, kGrouping, kHaving    = is("for"), is("from"), is("full"), is("global"), is("group"), is("grouping"), is("having")
	kHold, kIlike, kInner, kInsert, kIntersect, kInto, kIs     = is("hold"), is("ilike"), is("inner"), is("insert"), is("intersect"), is("into"), is("is")
	kIsolation, kJoin, kKey, kLeft, kLike, kLimit              = is("isolation"), is("join"), is("key"), is("left"), is("like"), is("limit")
	kListen, kLocal, kLock, kMaterialized, kMerge, kMove       = is("listen"), is("local"), is("lock"), is("materialized"), is("merge"), is("move")
	kNames, kNchar, kNo                                        = is("names"), is("nchar"), is("no")
	kNot, kNotify, kOffset, kOn, kOnly, kOperator, kOption     = is("not"), is("notify"), is("offset"), is("on"), is("only"), is("operator"), is("option")
	kOrder, kOrdinality, kOuter, kOver, kOverlaps              = is("order"), is("ordinality"), is("outer"), is("over"), is("overlaps")
	kOverlay, kPrepare, kPrepared, kRead, kRecursive, kRelease = is("overlay"), is("prepare"), is("prepared"), is("read"), is("recursive"), is("release")
	kRepeatable, kReset, kRight, kRole, kRollback, kRollup     = is("repeatable"), is("reset"), is("right"), is("role"), is("rollback"), is("rollup")
	kSavepoint, kSchema, kSelect, kSerializable, kSession      = is("savepoint"), is("schema"), is("select"), is("serializable"), is("session")
	kSet, kSets, kShare, kShow, kSnapshot, kStart              = is("set"), is("sets"), is("share"), is("show"), is("snapshot"), is("start")
	kStdout, kSubstring, kTable, kTablesample, kTemp           = is("stdout"), is("substring"), is("table"), is("tablesample"), is("temp")
	kTemporary, kTime, kTo, kTransaction, kTreat, kTruncate    = is("temporary"), is("time"), is("to"), is("transaction"), is("treat"), is("truncate")
	kUncommitted, kUnion, kUnlisten, kUpdate                   = is("uncommitted"), is("union"), is("unlisten"), is("update")
	kUsing, kValues, kVarying, kVerbose, kWhere, kWindow       = is("using"), is("values"), is("varying"), is("verbose"), is("where"), is("window")
	kWith, kWithin, kWork, kWrite, kXML, kZone                 = is("with"), is("within"), is("work"), is("write"), is("xml"), is("zone")
	kRefresh, kGrant, kRevoke                                  = is("refresh"), is("grant"), is("revoke")
	kComment, kSecurity, kImport                               = is("comment"), is("security"), is("import")
	kPartition                                                 = is("partition")
	kCase, kConflict, kNatural, kThen                          = is("case"), is("conflict"), is("natural"), is("then")
	kDomain, kExtension, kFunction, kProcedure, kReferences    = is("domain"), is("extension"), is("function"), is("procedure"), is("references")
	kRoutine, kIdentity, kInclude, kOptions                    = is("routine"), is("identity"), is("include"), is("options")
)
