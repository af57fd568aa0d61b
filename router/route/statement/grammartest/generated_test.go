//go:build cgo

package grammartest

import (
	"flag"
	"math/rand/v2"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"howdah/router/route/statement"
)

var (
	texts = flag.Int("texts", 20000, "how many statements TestGeneratedAgainstTheGrammar makes")
	seed  = flag.Uint64("seed", 1, "what they are made from")
)

// TestGeneratedAgainstTheGrammar: no generated text is a read by the classifier that writes by the grammar, and the kinds
// of its statements are those of the tree.
func TestGeneratedAgainstTheGrammar(t *testing.T) {
	f := functions(t)
	r := rand.New(rand.NewPCG(*seed, 0))
	parsed, reads, known := 0, 0, 0
	missed := map[statement.Reason]int{}
	for range *texts {
		text := generate(r)
		agrees(t, f, text)
		seesCalls(t, f, text)
		tree, err := pg.Parse(text)
		if err != nil {
			continue
		}
		parsed++
		v := verdict(f, text)
		sameKinds(t, &v, tree, text)
		if why, _ := writes(f, text); why != "" {
			continue
		}
		reads++
		if v.Read {
			known++
		} else if missed[v.Reason]++; missed[v.Reason] <= 2 && testing.Verbose() {
			t.Logf("a read that is not recognised (%s): %q", v.Reason, text)
		}
	}
	t.Logf("seed %d: %d texts, %d of them parse, %d of those are reads by the grammar, %d (%.1f %%) of those by the classifier; not recognised: %v",
		*seed, *texts, parsed, reads, known, 100*float64(known)/float64(reads), missed)
	if parsed*2 < *texts {
		t.Errorf("only %d of %d texts parse: the generator tests too little", parsed, *texts)
	}
	// Much of what is generated is rarer than any real text: TREAT, MERGE_ACTION, tables named update. See the corpus for those.
	if known*100 < reads*75 {
		t.Errorf("only %d of %d reads are recognised", known, reads)
	}
}

// sameKinds fails if the classifier sees other statements in a text than the grammar does. Where it says that the text
// may hold more than it saw, nothing is demanded.
func sameKinds(tb testing.TB, v *statement.Verdict, tree *pg.ParseResult, text string) {
	tb.Helper()
	if v.Is(statement.FlagOpaque) {
		return
	}
	if len(tree.Stmts) != v.Statements {
		tb.Errorf("%d statements by the classifier, %d by the grammar: %q", v.Statements, len(tree.Stmts), text)
		return
	}
	if v.Statements == 1 {
		if want := kindOf(tree.Stmts[0].Stmt); want != v.Kind && !(want == statement.Modify && v.Kind == statement.Query) {
			tb.Errorf("kind %d by the classifier, %d by the grammar: %q", v.Kind, want, text)
		}
	}
	for _, s := range tree.Stmts {
		// WITH ... INSERT is a Query whose reason is modifying.
		if want := kindOf(s.Stmt); !v.Has(want) && !(want == statement.Modify && v.Has(statement.Query)) {
			tb.Errorf("the kinds are %b without %d: %q", v.Kinds, want, text)
		}
	}
}

// kindOf is the kind of a statement by its tree.
func kindOf(n *pg.Node) statement.Kind {
	switch s := n.Node.(type) {
	case *pg.Node_SelectStmt:
		return statement.Query
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt, *pg.Node_TruncateStmt:
		return statement.Modify
	case *pg.Node_ExplainStmt:
		return statement.Explain
	case *pg.Node_CopyStmt:
		if s.CopyStmt.IsFrom {
			return statement.CopyIn
		}
		return statement.CopyOut
	case *pg.Node_TransactionStmt:
		return transactionKinds[s.TransactionStmt.Kind]
	case *pg.Node_VariableSetStmt:
		return settingKind(s.VariableSetStmt)
	case *pg.Node_ConstraintsSetStmt:
		return statement.SetConstraints
	case *pg.Node_VariableShowStmt:
		return statement.Show
	case *pg.Node_DiscardStmt:
		if s.DiscardStmt.Target == pg.DiscardMode_DISCARD_ALL {
			return statement.DiscardAll
		}
		return statement.Discard
	case *pg.Node_PrepareStmt:
		return statement.Prepare
	case *pg.Node_ExecuteStmt:
		return statement.Execute
	case *pg.Node_DeallocateStmt:
		if s.DeallocateStmt.Name == "" {
			return statement.DeallocateAll
		}
		return statement.Deallocate
	case *pg.Node_DeclareCursorStmt:
		return statement.Declare
	case *pg.Node_FetchStmt:
		return statement.Fetch
	case *pg.Node_ClosePortalStmt:
		return statement.CloseCursor
	case *pg.Node_ListenStmt:
		return statement.Listen
	case *pg.Node_UnlistenStmt:
		return statement.Unlisten
	case *pg.Node_NotifyStmt:
		return statement.Notify
	case *pg.Node_CallStmt, *pg.Node_DoStmt, *pg.Node_LoadStmt:
		return statement.Run
	case *pg.Node_LockStmt:
		return statement.Lock
	case *pg.Node_VacuumStmt, *pg.Node_CheckPointStmt, *pg.Node_ClusterStmt, *pg.Node_ReindexStmt, *pg.Node_ReassignOwnedStmt:
		return statement.Other
	}
	return statement.Define
}

var transactionKinds = map[pg.TransactionStmtKind]statement.Kind{
	pg.TransactionStmtKind_TRANS_STMT_BEGIN:             statement.Begin,
	pg.TransactionStmtKind_TRANS_STMT_START:             statement.Begin,
	pg.TransactionStmtKind_TRANS_STMT_COMMIT:            statement.Commit,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:          statement.Rollback,
	pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:         statement.Savepoint,
	pg.TransactionStmtKind_TRANS_STMT_RELEASE:           statement.Release,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:       statement.RollbackTo,
	pg.TransactionStmtKind_TRANS_STMT_PREPARE:           statement.PrepareTransaction,
	pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:   statement.CommitPrepared,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED: statement.RollbackPrepared,
}

func settingKind(s *pg.VariableSetStmt) statement.Kind {
	switch s.Kind {
	case pg.VariableSetKind_VAR_RESET:
		return statement.Reset
	case pg.VariableSetKind_VAR_RESET_ALL:
		return statement.ResetAll
	case pg.VariableSetKind_VAR_SET_MULTI:
		if s.Name == "SESSION CHARACTERISTICS" {
			return statement.SetCharacteristics
		}
		return statement.SetTransaction
	}
	return statement.Set
}
