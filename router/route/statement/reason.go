package statement

// Reason is why a text must go to the primary. Of several reasons the verdict has the greatest.
type Reason uint8

// The reasons. Those up to ReasonSystemName may be overruled by HintStandby.
const (
	ReasonNone Reason = iota
	// ReasonFunction: a call of a function that is not known to be harmless on a standby.
	ReasonFunction
	// ReasonName: a relation or column whose content differs between servers, such as pg_stat_activity.
	ReasonName
	// ReasonEmpty: no statement at all, which a client sends to see whether its server is there.
	ReasonEmpty
	// ReasonSession: acts on the session or its transaction.
	ReasonSession
	// ReasonStatement: not a kind of statement that may be a read.
	ReasonStatement
	// ReasonInto: SELECT INTO.
	ReasonInto
	// ReasonLocking: FOR UPDATE, FOR SHARE and kin.
	ReasonLocking
	// ReasonModifying: INSERT, UPDATE, DELETE or MERGE somewhere inside.
	ReasonModifying
	// ReasonCopy: COPY to a file or a program of the server.
	ReasonCopy
	// ReasonDepth: nested deeper than the classifier follows.
	ReasonDepth
	// ReasonUnbalanced: parentheses that do not match.
	ReasonUnbalanced
	// ReasonNumber: a letter follows a number at once, which versions of PostgreSQL read differently.
	ReasonNumber
	// ReasonCharacter: a character that SQL does not have.
	ReasonCharacter
	// ReasonStrings: what the text means depends on standard_conforming_strings, which is not known.
	ReasonStrings
	// ReasonEncoding: what the text means depends on the client's encoding.
	ReasonEncoding
	// ReasonUnterminated: a string, a quoted name or a comment does not end.
	ReasonUnterminated
	// ReasonTruncated: only the beginning of the text is there.
	ReasonTruncated
	// ReasonHint: a comment says so.
	ReasonHint
	reasons
)

var reasonNames = [reasons]string{
	"none", "function", "name", "empty", "session", "statement", "into", "locking", "modifying", "copy", "depth",
	"unbalanced", "number", "character", "strings", "encoding", "unterminated", "truncated", "hint",
}

// String is one word, for metrics and logs.
func (r Reason) String() string {
	if r >= reasons {
		return "unknown"
	}
	return reasonNames[r]
}
